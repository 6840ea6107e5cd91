"""The embedded backend's WebSocket, met by a plain client (protocol.md 1 and 2)."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)

from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.backend_script import BackendScript, Greeting, PingDialect
from proxy.demo.frames import JsonObject
from tests.support.waiting import PATIENCE_S


@pytest.fixture
async def backend() -> AsyncIterator[DemoBackend]:
    with trio.fail_after(PATIENCE_S):
        async with DemoBackend().running() as backend:
            yield backend


@asynccontextmanager
async def dialled(
    backend: DemoBackend, key: str | None = None
) -> AsyncIterator[WebSocketConnection]:
    quoted = urllib.parse.quote(backend.key if key is None else key, safe="")
    query = f"?proxy_key={quoted}" if quoted else ""
    stream = await trio.open_tcp_stream("127.0.0.1", backend.port)
    async with stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, "127.0.0.1", f"/api/v1/proxy/ws{query}")
        nursery.cancel_scope.cancel()


async def received(link: WebSocketConnection) -> JsonObject:
    frame = json.loads(await link.get_message())
    assert isinstance(frame, dict)
    return frame


async def close_code(link: WebSocketConnection) -> int:
    with suppress(ConnectionClosed):
        while True:
            await link.get_message()
    assert link.closed
    return int(link.closed.code)


async def test_the_first_message_says_connected(backend: DemoBackend) -> None:
    async with dialled(backend) as link:
        assert await received(link) == {
            "type": "connected",
            "workspace_id": backend.workspace_id,
            "proxy_id": backend.proxy_id,
        }
        assert backend.online
        assert backend.connections == 1


async def test_an_event_may_come_first(backend: DemoBackend) -> None:
    backend.script.greeting = Greeting.EVENT
    backend.script.nested = True
    async with dialled(backend) as link:
        first = await received(link)
    assert "event_type" not in first
    assert first["payload"]["event_type"] == "proxy.status_changed"
    assert first["payload"]["entity_id"] == backend.proxy_id


async def test_it_may_say_nothing(backend: DemoBackend) -> None:
    backend.script.greeting = Greeting.NOTHING
    async with dialled(backend) as link:
        with trio.move_on_after(0.2) as silence:
            await link.get_message()
    assert silence.cancelled_caught


async def test_it_may_leave_the_upgrade_unanswered(backend: DemoBackend) -> None:
    backend.script.stall = True
    with trio.move_on_after(0.2) as silence:
        async with dialled(backend):
            pass
    assert silence.cancelled_caught
    assert backend.connections == 0


@pytest.mark.parametrize("key", ["wrong", ""])
async def test_a_wrong_key_is_refused_with_401(backend: DemoBackend, key: str) -> None:
    refused_with_401 = pytest.RaisesExc(
        ConnectionRejected, check=lambda rejected: rejected.status_code == 401
    )
    with pytest.RaisesGroup(refused_with_401):
        async with dialled(backend, key):
            pass
    assert backend.refusals == 1


@pytest.mark.parametrize(("key", "code"), [("wrong", 4003), ("", 4001)])
async def test_a_wrong_key_may_be_refused_by_a_close_code(
    backend: DemoBackend, key: str, code: int
) -> None:
    backend.script.wrong_key = 4003
    async with dialled(backend, key) as link:
        assert await close_code(link) == code


async def test_a_right_key_may_be_refused_all_the_same(backend: DemoBackend) -> None:
    backend.script.refuse = 403
    with pytest.RaisesGroup(ConnectionRejected):
        async with dialled(backend):
            pass
    backend.script.refuse = 4003
    async with dialled(backend) as link:
        assert await close_code(link) == 4003
    assert backend.refusals == 2
    assert backend.connections == 0


async def test_a_newer_connection_evicts_the_older(backend: DemoBackend) -> None:
    async with dialled(backend) as older:
        await received(older)
        async with dialled(backend) as newer:
            assert await close_code(older) == 4002
            await backend.wait_for(lambda backend: backend.close_codes == [4002])
            assert (await received(newer))["type"] == "connected"
            assert backend.online


async def test_a_dead_application_leaves_its_library_to_answer_pings(backend: DemoBackend) -> None:
    async with dialled(backend) as link:
        await received(link)
        backend.die()
        for _ in range(100):
            await link.send_message('{"type":"health_update"}')
        await link.ping()
        assert (backend.heard, backend.online) == ([], True)
        backend.revive()
        assert await close_code(link) == 1006
    async with dialled(backend) as link:
        await received(link)
        backend.revive()  # of a living one nothing changes
        await link.send_message('{"type":"health_update"}')
        assert (await received(link))["type"] == "health_update_response"
        assert len(backend.heard) == 1


async def test_a_dead_application_takes_a_link_and_says_nothing(backend: DemoBackend) -> None:
    backend.die()
    backend.script.ping_every_s = 0.01
    async with dialled(backend) as link:
        await link.ping()
        with trio.move_on_after(0.2) as silence:
            await link.get_message()
    assert silence.cancelled_caught
    assert backend.connections == 1


async def test_updates_are_answered(backend: DemoBackend) -> None:
    async with dialled(backend) as link:
        await received(link)
        await link.send_message('{"type":"config_update","ip_address":"192.0.2.1","port":104}')
        assert await received(link) == {
            "type": "config_update_response",
            "status": "success",
            "fields_updated": ["ip_address", "port"],
        }
        backend.script.config_error = "port is not valid"
        await link.send_message('{"type":"config_update","port":0}')
        assert (await received(link))["error"] == "port is not valid"
        await link.send_message('{"type":"health_update","proxy_status":"online"}')
        assert await received(link) == {"type": "health_update_response", "status": "success"}
    assert [frame["port"] for frame in backend.frames_named("config_update")] == [104, 0]


async def test_updates_may_go_unanswered(backend: DemoBackend) -> None:
    backend.script.answer = False
    async with dialled(backend) as link:
        await received(link)
        await link.send_message('{"type":"health_update"}')
        await backend.wait_for(lambda backend: bool(backend.heard))
        with trio.move_on_after(0.1) as silence:
            await link.get_message()
    assert silence.cancelled_caught


@pytest.mark.parametrize(
    ("dialect", "name"), [(PingDialect.TYPE, "type"), (PingDialect.EVENT_TYPE, "event_type")]
)
async def test_it_pings_in_either_dialect(
    backend: DemoBackend, dialect: PingDialect, name: str
) -> None:
    backend.script = BackendScript(ping_every_s=0.01, ping_dialect=dialect)
    async with dialled(backend) as link:
        await received(link)
        pings = [await received(link), await received(link)]
    assert [ping[name] for ping in pings] == ["ping", "ping"]


async def test_events_go_out_flat_or_nested(backend: DemoBackend) -> None:
    event = frames.session_dispatch("sess-1", ["n1", "n2"], correlation_id="corr_1")
    async with dialled(backend) as link:
        await received(link)
        await backend.send_event(event)
        assert await received(link) == event
        backend.script.nested = True
        await backend.send_event(event)
        wrapped = await received(link)
    assert wrapped["payload"] == event
    assert "event_type" not in wrapped


async def test_statuses_are_kept_by_correlation_and_node(backend: DemoBackend) -> None:
    def status(node_id: str | None, word: str) -> str:
        payload = {"status": word} | ({"node_id": node_id} if node_id else {})
        frame = {"event_type": "dispatch.status", "correlation_id": "c", "payload": payload}
        return json.dumps(frame)

    async with dialled(backend) as link:
        for node_id, word in [("n1", "downloading"), ("n1", "completed"), (None, "failed")]:
            await link.send_message(status(node_id, word))
        await backend.wait_for(lambda backend: backend.final_status("c") is not None)
    assert [payload["status"] for payload in backend.statuses["c", "n1"]] == [
        "downloading",
        "completed",
    ]
    assert backend.final_status("c", "n1") == {"status": "completed", "node_id": "n1"}
    assert backend.final_status("c") == {"status": "failed"}
    assert backend.final_status("c", "n2") is None
    moments = [heard.at for heard in backend.heard]
    assert moments == sorted(moments)


@pytest.mark.parametrize("message", ["{", "[1]", '"text"', b"\xff\xfe"])
async def test_what_is_no_json_object_is_kept_apart(
    backend: DemoBackend, message: str | bytes
) -> None:
    async with dialled(backend) as link:
        await link.send_message(message)
        await backend.wait_for(lambda backend: bool(backend.broken))
    assert backend.broken == [message]
    assert not backend.heard


async def test_it_closes_with_a_code(backend: DemoBackend) -> None:
    async with dialled(backend) as link:
        await received(link)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.close, 1012, "service restart")
            assert await close_code(link) == 1012
        await backend.wait_for(lambda backend: not backend.online)
    with pytest.raises(RuntimeError, match="no proxy"):
        await backend.send_event(frames.event_ping())


async def test_it_drops_the_tcp_connection(backend: DemoBackend) -> None:
    async with dialled(backend) as link:
        await received(link)
        backend.drop()
        assert await close_code(link) == 1006
        await backend.wait_for(lambda backend: not backend.online)


async def test_it_vanishes_and_returns_on_the_same_port(backend: DemoBackend) -> None:
    url = backend.url
    async with dialled(backend) as link:
        await received(link)
        await backend.vanish()
        assert await close_code(link) == 1006
    assert not backend.online
    with pytest.raises(OSError, match=r"refused|all attempts"):
        await trio.open_tcp_stream("127.0.0.1", backend.port)
    await backend.listen()
    assert backend.url == url
    async with dialled(backend) as link:
        assert (await received(link))["type"] == "connected"


@pytest.mark.parametrize(
    ("event", "event_type", "entity_type", "keys"),
    [
        (
            frames.subject_dispatch("x", ["n1"]),
            "subject.dispatch",
            "subject",
            {"nodes", "subject_identifier", "priority"},
        ),
        (
            frames.session_dispatch("x", ["n1"]),
            "session.dispatch",
            "session",
            {"nodes", "subject_id", "session_label", "priority"},
        ),
        (
            frames.scan_dispatch("x", ["n1"]),
            "scan.dispatch",
            "scan",
            {"nodes", "subject_id", "session_id", "scan_number", "modality", "priority"},
        ),
        (
            frames.session_deleted("x", study_instance_uid="1.2"),
            "session.deleted",
            "session",
            {"subject_id", "session_label", "study_instance_uid"},
        ),
        (
            frames.scan_deleted("x", study_instance_uid="1.2", scan_number=1),
            "scan.deleted",
            "scan",
            {"subject_id", "session_id", "scan_number", "study_instance_uid"},
        ),
        (
            frames.subject_deleted("x", subject_identifier="42"),
            "subject.deleted",
            "subject",
            {"subject_identifier"},
        ),
        (
            frames.nodes_changed([frames.event_node("n1", "A", "h", 1)], proxy_id="x"),
            "proxy.nodes_changed",
            "proxy",
            {"changed_action", "nodes"},
        ),
        (
            frames.config_changed({"timeout": 45}, key="config", proxy_id="x"),
            "proxy.config_changed",
            "proxy",
            {"changed_fields", "config"},
        ),
        (
            frames.status_changed(is_active=False, proxy_id="x"),
            "proxy.status_changed",
            "proxy",
            {"new_status", "is_active", "reason"},
        ),
    ],
)
def test_each_event_has_the_documented_fields(
    event: JsonObject, event_type: str, entity_type: str, keys: set[str]
) -> None:
    assert {*event} == {
        "event_type",
        "workspace_id",
        "timestamp",
        "correlation_id",
        "entity_type",
        "entity_id",
        "payload",
    }
    assert (event["event_type"], event["entity_type"], event["entity_id"]) == (
        event_type,
        entity_type,
        "x",
    )
    assert {*event["payload"]} == keys
    assert event["timestamp"].endswith("Z")
