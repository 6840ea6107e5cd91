"""One site: the embedded backend in the cloud, the proxy in the middle, the site's nodes.

    site.has(node_a, node_b)
    site.offer("sess-1", instances)
    await site.start()
    ordered = await site.dispatch("sess-1", "a", "b")
    closing = await site.closing(ordered)

The proxy is the real service over real sockets, in the test's own process; ``program`` has it
as a process that can be killed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from proxy import settings
from proxy.control.client import ask
from proxy.control.messages import ControlRequest
from proxy.demo import frames
from proxy.demo.backend import FINAL, DemoBackend
from proxy.demo.encoding import SampleInstance
from proxy.demo.frames import JsonObject
from proxy.demo.rest import Archive
from proxy.service import serve
from proxy.supervision.supervisor import Supervisor
from tests.end_to_end.sessions import pack
from tests.support.relay import Peer
from tests.support.waiting import PATIENCE_S, until

QUICK: Mapping[str, object] = {
    "ith.ping_seconds": 1.0,
    "ith.health_seconds": 1.0,
    "ith.heartbeat_seconds": 1.0,
    "ith.backoff_max_seconds": 1.0,
    "dicom.retry_delay_seconds": 0.2,
    "dicom.retry_max_seconds": 1.0,
    "dicom.cancel_seconds": 2.0,
    "dicom.echo_interval_seconds": 5.0,
    "dispatch.progress_seconds": 0.1,
    "limits.reserve_gb": 0.0,
    "service.drain_seconds": 5.0,
    "service.flush_seconds": 2.0,
}
"""Settings for tests that last seconds."""


@dataclass
class Running:
    """The proxy while it runs in this process."""

    supervisor: Supervisor
    ended: trio.Event


class Site:
    """A backend, a proxy that can be started and stopped, and what its nodes are configured as."""

    def __init__(self, root: Path, backend: DemoBackend, nursery: trio.Nursery) -> None:
        self.root = root
        self.backend = backend
        self.state = root / "state"
        self._nursery = nursery
        self._running: Running | None = None

    # The content of ITH ---------------------------------------------------------------------

    def has(self, **nodes: Peer | JsonObject) -> None:
        """Configure ITH with these nodes, by id, and no others."""
        self.backend.rest.configuration["nodes"] = [
            peer if isinstance(peer, dict) else node(node_id, peer)
            for node_id, peer in nodes.items()
        ]

    def offer(self, session_id: str, instances: Sequence[SampleInstance], *more: bytes) -> Archive:
        """Let ITH have an archive of these instances, packed as badly as real ones are."""
        return self.backend.rest.offer("session", session_id, pack(instances, *more))

    # The proxy ------------------------------------------------------------------------------

    async def start(self, **changes: object) -> None:
        """Start the proxy and wait until ITH hears from it.

        A change of a setting is written ``dicom__retry_count=1``.
        """
        greetings = len(self.backend.frames_named("config_update"))
        await self.start_alone(**changes)
        await self.until(lambda: len(self.backend.frames_named("config_update")) > greetings)

    async def start_alone(self, **changes: object) -> None:
        """Start the proxy, whether ITH hears from it or not."""
        self._running = await self._nursery.start(self._serve, self._settings(changes))

    async def stop(self) -> None:
        """Stop the proxy as SIGTERM does."""
        self.signal()
        await self.ended()

    def signal(self) -> None:
        """Tell the proxy what a SIGTERM tells it."""
        assert self._running is not None
        self._running.supervisor.drain("the test stops it")

    async def ended(self) -> None:
        """Wait until the proxy has ended."""
        assert self._running is not None
        with trio.fail_after(PATIENCE_S):
            await self._running.ended.wait()
        self._running = None

    @property
    def turns_taken(self) -> int:
        """The number of turns in use at the running proxy, of downloads and associations."""
        assert self._running is not None
        at_work = self._running.supervisor.registry
        return at_work.downloads.in_use + sum(n.queue.in_use for n in at_work.nodes.values())

    def _settings(self, changes: Mapping[str, object]) -> settings.Settings:
        named = {name.replace("__", "."): value for name, value in changes.items()}
        config = self.root / "config.toml"
        config.touch()
        settings.prepare(self.state)
        return settings.load(
            config=config,
            state_dir=self.state,
            flags={path: ("the test", value) for path, value in {**QUICK, **named}.items()},
            environ={"ITH_URL": self.backend.url, "ITH_TOKEN": self.backend.key},
        )

    async def _serve(
        self, given: settings.Settings, *, task_status: trio.TaskStatus[Running]
    ) -> None:
        ended = trio.Event()
        async with trio.open_nursery() as nursery:
            supervisor: Supervisor = await nursery.start(partial(_serve, given, ended))
            task_status.started(Running(supervisor, ended))

    # Messages of ITH --------------------------------------------------------------------------

    async def dispatch(self, session_id: str, *node_ids: str, **more: str) -> str:
        """Send ``session.dispatch`` and return its correlation id."""
        event = frames.session_dispatch(session_id, node_ids, **more)
        await self.backend.send_event(event)
        return str(event["correlation_id"])

    async def closing(self, correlation_id: str) -> JsonObject:
        """Return the payload of the dispatch's closing message, the one without a node."""
        return await self.ending(correlation_id, None)

    async def ending(self, correlation_id: str, node_id: str | None) -> JsonObject:
        """Return the payload that tells how the delivery to a node ended."""
        await self.until(lambda: bool(self.backend.final_status(correlation_id, node_id)))
        payload = self.backend.final_status(correlation_id, node_id)
        assert payload is not None
        return payload

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait until ``happened`` is true."""
        await until(happened)

    def statuses(self, correlation_id: str) -> list[JsonObject]:
        """Return the reports of a dispatch, in the order they came."""
        return [
            frame
            for frame in self.backend.frames_named("dispatch.status")
            if frame["correlation_id"] == correlation_id
        ]

    async def states(self, correlation_id: str) -> dict[str, str]:
        """Return the states of a dispatch's deliveries by node, as the operator is shown them."""
        shown = await trio.to_thread.run_sync(ask, self.state, ControlRequest("status"))
        return {
            part.node_id: part.state
            for each in shown.dispatches
            if each.correlation_id == correlation_id
            for part in each.deliveries
        }

    async def until_at(self, correlation_id: str, **states: str) -> None:
        """Wait until a dispatch's deliveries to these nodes are in these states."""
        with trio.fail_after(PATIENCE_S):
            while True:
                if states.items() <= (await self.states(correlation_id)).items():
                    return
                await trio.sleep(0.02)

    def heartbeat(self) -> JsonObject:
        """Return the payload of the latest heartbeat."""
        beats = self.backend.frames_named("proxy.heartbeat")
        payload: JsonObject = beats[-1]["payload"] if beats else {}
        return payload

    # The state directory --------------------------------------------------------------------

    @property
    def objects(self) -> list[Path]:
        """The files of the local PACS."""
        return [path for path in (self.state / "objects").rglob("*") if path.is_file()]

    def files_with(self, *texts: bytes) -> list[str]:
        """Return which files of the state directory hold one of the texts, as raw bytes."""
        return [
            f"{path.name}: {text!r}"
            for path in self.state.rglob("*")
            if path.is_file()
            for text in texts
            if text in path.read_bytes()
        ]

    def rows(self, table: str) -> int:
        """Count a table of the ledger; the proxy must not run, it locks the file."""
        assert self._running is None
        with sqlite3.connect(self.state / "ledger.db") as ledger:
            (count,) = ledger.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
        ledger.close()
        return int(count)

    @property
    def disk_bytes(self) -> int:
        """The size of the state directory."""
        return sum(path.stat().st_size for path in self.state.rglob("*") if path.is_file())


async def _serve(
    given: settings.Settings, ended: trio.Event, *, task_status: trio.TaskStatus[Supervisor]
) -> None:
    try:
        await serve(given, task_status=task_status)
    finally:
        ended.set()


def node(node_id: str, peer: Peer, **more: object) -> JsonObject:
    """Return a node as ITH's configuration describes it."""
    return frames.rest_node(node_id, peer.ae_title, peer.host, peer.port, **more)


def changed(node_id: str, peer: Peer, **more: object) -> JsonObject:
    """Return a node as ``proxy.nodes_changed`` describes it."""
    return frames.event_node(node_id, peer.ae_title, peer.host, peer.port, **more)


def assert_tells_the_truth(payloads: Sequence[JsonObject], node_id: str, total: int) -> None:
    """Check one node's stream: its order, its numbers, and that it ended once."""
    words = [payload["status"] for payload in payloads]
    progress = [payload["progress"] for payload in payloads]
    order = ["downloading", "processing", *FINAL]
    assert words == sorted(words, key=order.index), words
    assert sum(word in FINAL for word in words) == 1
    assert progress == sorted(progress), progress
    assert [each == 100 for each in progress] == [word == "completed" for word in words]
    assert {payload["node_id"] for payload in payloads} == {node_id}
    sent = [payload["files_sent"] for payload in payloads]
    assert sent == sorted(sent)
    known = [p["files_total"] for p in payloads if p["status"] != "downloading"]
    assert set(known) == {total}


@asynccontextmanager
async def a_site(root: Path) -> AsyncIterator[Site]:
    """Run a backend while the block lasts, and the proxy when the test starts it."""
    async with DemoBackend().running() as backend, trio.open_nursery() as nursery:
        yield Site(root, backend, nursery)
        nursery.cancel_scope.cancel("the test is over")
