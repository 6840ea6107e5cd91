"""A proxy of fifty lines, of libraries alone, that can be made to misbehave.

The demonstration must notice that. The proxy also shows that backend and nodes need no code of
ours.
"""

from __future__ import annotations

import io
import json
import urllib.parse
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import httpx2
import pydicom
import trio
from pynetdicom import AE
from trio.testing import wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from proxy.demo.frames import JsonObject
from proxy.settings import Settings


@dataclass(frozen=True)
class SmallProxy:
    connects: bool = True
    loses: int = 0
    tampers: bool = False
    reports: bool = True
    closes: bool = True
    last_word: str = "completed"
    progress: tuple[int, ...] = (0, 30)
    miscounts: int = 0
    goes_on: bool = False
    at_the_end: Callable[[], None] = lambda: None
    """Called when there is nothing more that it will say."""

    async def __call__(self, settings: Settings) -> None:
        if not self.connects:
            self.at_the_end()
            await trio.sleep_forever()
        url = urllib.parse.urlsplit(settings.ith.url)
        key = urllib.parse.quote(settings.token.reveal(), safe="")
        assert url.hostname
        assert url.port
        stream = await trio.open_tcp_stream(url.hostname, url.port)
        async with stream, trio.open_nursery() as nursery:
            resource = f"{settings.ith.websocket_path}?proxy_key={key}"
            link = await wrap_client_stream(nursery, stream, url.hostname, resource)
            await link.send_message('{"type":"config_update"}')
            try:
                while True:
                    frame = json.loads(await link.get_message())
                    if frame.get("event_type") == "session.dispatch":
                        await self.dispatch(settings, link, frame)
            except ConnectionClosed:
                pass

    async def dispatch(
        self, settings: Settings, link: WebSocketConnection, order: JsonObject
    ) -> None:
        headers = {"X-Proxy-Key": settings.token.reveal()}
        base = f"{settings.ith.url}/api/v1/proxy"
        async with httpx2.AsyncClient(headers=headers) as client:
            configuration = (await client.get(f"{base}/configuration")).json()
            where = f"{order['workspace_id']}/sessions/{order['entity_id']}/download"
            subject = order["payload"]["subject_id"]
            archive = await client.get(f"{base}/{where}", params={"subject_id": subject})
        nodes = {node["id"]: node for node in configuration["nodes"]}
        total = 0
        for node_id in order["payload"]["nodes"]:
            for progress in self.progress:
                await self.tell(link, order, "downloading", node_id=node_id, progress=progress)
            sent = await trio.to_thread.run_sync(self.store, archive.content, nodes[node_id])
            total += sent
            if self.reports:
                await self.tell(link, order, self.last_word, node_id=node_id, **counts(sent))
            if self.goes_on:
                await self.tell(link, order, "processing", node_id=node_id, progress=100)
        if self.closes:
            await self.tell(link, order, self.last_word, **counts(total - self.miscounts))
        await link.ping()  # it is heard after all that was said
        await wait_all_tasks_blocked(0.01)
        self.at_the_end()

    def store(self, archive: bytes, node: JsonObject) -> int:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            data_sets = [
                pydicom.dcmread(io.BytesIO(opened.read(name))) for name in opened.namelist()
            ]
        entity = AE("SMALL")
        entity.add_requested_context(
            data_sets[0].SOPClassUID, data_sets[0].file_meta.TransferSyntaxUID
        )
        while True:
            association = entity.associate(
                node["ip_address"], node["port"], ae_title=node["ae_title"]
            )
            if association.is_established:
                break
        for data_set in data_sets[self.loses :]:
            if self.tampers:
                data_set.InstitutionName = "Elsewhere"
            association.send_c_store(data_set)
        association.release()
        return len(data_sets)

    async def tell(
        self, link: WebSocketConnection, order: JsonObject, status: str, **payload: object
    ) -> None:
        frame = {
            "event_type": "dispatch.status",
            "correlation_id": order["correlation_id"],
            "payload": {"status": status, **payload},
        }
        await link.send_message(json.dumps(frame))


def counts(sent: int) -> dict[str, object]:
    return {"files_sent": sent, "files_total": sent, "progress": 100}
