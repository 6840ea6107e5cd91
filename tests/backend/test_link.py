"""The link against a real WebSocket server, and against raw ones that break the rules."""

from __future__ import annotations

import json
import logging
import ssl
import urllib.parse
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from msgspec.structs import replace
from trio_websocket import ConnectionClosed

from proxy import logs
from proxy.backend import link as link_module
from proxy.backend.link import ConnectionRun, Link
from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.backend_script import Greeting, PingDialect
from proxy.events.incoming import Incoming
from proxy.events.outgoing import ConfigUpdate, HealthUpdate, ProxyHeartbeatEvent
from proxy.fsm import Step
from proxy.ledger import Ledger
from proxy.machines.connection import (
    CloseRequested,
    ConnectionData,
    ConnectionOutput,
    ConnectionState,
    ConnectRequested,
)
from proxy.reporting.outbox import Outbox
from proxy.runtime.clock import SYSTEM_CLOCK
from proxy.runtime.offload import Inline
from proxy.settings import IthSettings, Secret
from tests.backend.http_server import Request, always, head, serving, whole
from tests.ledger.make import fast_directory
from tests.reporting.make import over
from tests.support.clocks import Always
from tests.support.waiting import PATIENCE_S, until

KEY = "pk_demo/+=&%?#"
QUICK = IthSettings(
    handshake_seconds=1.0,
    ping_seconds=0.3,
    pong_seconds=0.3,
    health_seconds=0.2,
    heartbeat_seconds=0.2,
    backoff_max_seconds=0.2,
    stable_seconds=30.0,
    refused_seconds=60.0,
    evicted_seconds=60.0,
)
PATIENT: dict[str, Any] = {"handshake_seconds": PATIENCE_S, "pong_seconds": PATIENCE_S}
"""For what must not end, or be taken for silence, on a busy machine."""
ONLINE, BACKING_OFF, REFUSED, EVICTED, CLOSED = (
    ConnectionState.ONLINE,
    ConnectionState.BACKING_OFF,
    ConnectionState.REFUSED,
    ConnectionState.EVICTED,
    ConnectionState.CLOSED,
)


class Desk:
    """Takes what the link brings, and gives it what it has to say."""

    def __init__(self) -> None:
        self.events: list[Incoming] = []
        self.welcomes: list[tuple[str, str]] = []
        self.online = 0
        self.looks = 0
        self.proxy_id = frames.PROXY_ID
        self.act: Callable[[], None] = lambda: None
        self.configuration = trio.Event()
        self.configuration.set()

    def handle(self, event: Incoming) -> None:
        self.events.append(event)
        self.act()

    def welcome(self, workspace_id: str, proxy_id: str) -> None:
        self.welcomes.append((workspace_id, proxy_id))

    def came_online(self) -> None:
        self.online += 1

    def look(self) -> None:
        self.looks += 1

    async def configured(self) -> None:
        await self.configuration.wait()

    def greeting(self, local_address: str) -> ConfigUpdate:
        return ConfigUpdate.create(
            ip_address=local_address, port=11112, ae_title="LOCAL", proxy_version="2.0.0"
        )

    def health(self, *, online: bool) -> HealthUpdate:
        return HealthUpdate.create(
            proxy_status="online" if online else "offline",
            proxy_version="2.0.0",
            nodes={"n1": True, "n2": False},
        )

    def heartbeat(self) -> ProxyHeartbeatEvent | None:
        return ProxyHeartbeatEvent.create(
            workspace_id=frames.WORKSPACE_ID,
            proxy_id=self.proxy_id,
            status="active",
            nodes_online=1,
            nodes_total=2,
            version="2.0.0",
        )


@dataclass
class Linked:
    """A running link, and all records of it."""

    desk: Desk
    outbox: Outbox
    ledger: Ledger
    run: ConnectionRun
    rows: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    @property
    def error(self) -> str:
        return self.run.data.error or ""

    async def reach(self, *states: ConnectionState) -> None:
        with trio.fail_after(PATIENCE_S):
            await self.run.until(*states)

    async def close(self) -> None:
        self.run.tell(CloseRequested("the test stops"))
        await self.reach(CLOSED)


@asynccontextmanager
async def linked(
    url: str,
    *,
    key: str = KEY,
    context: ssl.SSLContext | None = None,
    drawn: float = 0.5,
    connect_seconds: float = 5.0,
    **changes: object,
) -> AsyncIterator[Linked]:
    """Keep a link to a server while the block lasts, then cut it."""
    with fast_directory() as directory:
        async with (
            Ledger.open(directory / "ledger.db", Inline()) as ledger,
            trio.open_nursery() as nursery,
        ):
            outbox = Outbox(ledger, progress_interval=0.01)
            await outbox.load()
            desk = Desk()
            ith = replace(QUICK, url=url, **changes)
            link = Link(
                ith,
                Secret(key),
                desk,
                desk,
                outbox,
                context=context,
                clock=SYSTEM_CLOCK,
                rng=Always(drawn),
            )
            run = link.run()
            run.data = replace(
                run.data, connect_seconds=connect_seconds, timeout_retry_seconds=0.15
            )
            at_work = Linked(desk, outbox, ledger, run)

            def note(
                _: ConnectionRun, step: Step[ConnectionState, ConnectionData, ConnectionOutput]
            ) -> None:
                at_work.rows.append(step.row)
                if step.after is BACKING_OFF:
                    at_work.waits.append(step.data.retry_in)

            run.observe(note)
            nursery.start_soon(run.run)
            run.tell(ConnectRequested())
            yield at_work
            nursery.cancel_scope.cancel("the test is over")


@pytest.fixture
async def backend() -> AsyncIterator[DemoBackend]:
    async with DemoBackend(key=KEY).running() as backend:
        yield backend


def names(backend: DemoBackend) -> list[str]:
    return [str(h.frame.get("type") or h.frame.get("event_type")) for h in backend.heard]


# Address and identity of a connection ---------------------------------------------------------


@pytest.mark.parametrize("base", ["", "/", "/ith", "/ith/v2/"])
async def test_the_key_is_percent_encoded_below_the_base_address(base: str) -> None:
    key = "pk/+=&%?# ".strip()
    async with (
        serving(always(whole(b"", status=503))) as server,
        linked(server.origin + base, key=key) as link,
    ):
        await link.reach(BACKING_OFF)
        request: Request = server.requests[0]
    assert request.target == base.rstrip("/") + "/api/v1/proxy/ws?proxy_key=" + (
        "pk%2F%2B%3D%26%25%3F%23"
    )
    assert request.headers["x-proxy-key"] == key
    assert request.headers["host"] == urllib.parse.urlsplit(server.origin).netloc


async def test_the_path_is_configurable() -> None:
    async with (
        serving(always(whole(b"", status=503))) as server,
        linked(server.origin, websocket_path="/proxy/ws") as link,
    ):
        await link.reach(BACKING_OFF)
    assert server.requests[0].target.startswith("/proxy/ws?proxy_key=")


# The handshake --------------------------------------------------------------------------------


async def test_connected_comes_first(backend: DemoBackend) -> None:
    async with linked(backend.url) as link:
        await link.reach(ONLINE)
        await until(lambda: backend.frames_named("config_update"))
        assert link.desk.welcomes == [(backend.workspace_id, backend.proxy_id)]
        assert (link.desk.online, link.desk.events) == (1, [])
        assert link.rows[:3] == ["CON-01", "CON-02", "CON-03"]
        assert backend.frames_named("config_update")[0] == {
            "type": "config_update",
            "ip_address": "127.0.0.1",
            "port": 11112,
            "ae_title": "LOCAL",
            "api_url": "",
            "proxy_version": "2.0.0",
        }


@pytest.mark.parametrize("nested", [False, True])
async def test_an_event_comes_first_and_is_handled(backend: DemoBackend, nested: bool) -> None:
    backend.script.greeting, backend.script.nested = Greeting.EVENT, nested
    async with linked(backend.url) as link:
        await link.reach(ONLINE)
        assert [type(event).__name__ for event in link.desk.events] == ["ProxyStatusChangedEvent"]
        assert link.desk.welcomes == []
        await until(lambda: backend.frames_named("config_update"))


@pytest.mark.parametrize("health_update", [True, False])
async def test_a_server_may_wait_for_our_greeting(
    backend: DemoBackend, monkeypatch: pytest.MonkeyPatch, health_update: bool
) -> None:
    monkeypatch.setattr(link_module, "SILENCE_SECONDS", 0.1)
    backend.script.greeting = Greeting.NOTHING
    async with linked(backend.url, **PATIENT, health_update=health_update) as link:
        await link.reach(ONLINE)
        assert names(backend)[0] == ("health_update" if health_update else "config_update")
        assert link.desk.looks == 1
        await until(lambda: len(backend.frames_named("proxy.heartbeat")) > 2)
    assert len(backend.frames_named("config_update")) == 1


async def test_a_server_that_waits_for_us_hears_of_us_before_the_configuration_is_known(
    backend: DemoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new installation gets it from ITH alone: neither may wait for the other."""
    monkeypatch.setattr(link_module, "SILENCE_SECONDS", 0.1)
    backend.script.greeting = Greeting.NOTHING
    async with linked(backend.url, **PATIENT) as link:
        link.desk.configuration = trio.Event()
        await link.reach(ONLINE)
        assert (link.desk.looks, link.desk.online) == (1, 1)
        await until(lambda: len(backend.frames_named("health_update")) > 2)
        assert not backend.frames_named("config_update")
        link.desk.configuration.set()
        await until(lambda: backend.frames_named("config_update"))


async def test_a_server_that_greets_us_is_not_taken_for_one_that_waits(
    backend: DemoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "SILENCE_SECONDS", PATIENCE_S)
    async with linked(backend.url, **PATIENT) as link:
        await link.reach(ONLINE)
        await until(lambda: len(backend.frames_named("health_update")) > 2)
        assert link.desk.looks == 0


async def test_a_silent_server_is_not_ith(backend: DemoBackend) -> None:
    backend.script.greeting, backend.script.answer = Greeting.NOTHING, False
    async with linked(backend.url, handshake_seconds=0.2) as link:
        await link.reach(BACKING_OFF)
        assert link.error == "ITH opened the WebSocket and then sent nothing"
        assert link.rows[-1] == "CON-08"
        backend.script.answer = True
        await link.reach(ONLINE)


async def test_an_upgrade_without_answer_is_given_up(backend: DemoBackend) -> None:
    backend.script.stall = True
    async with linked(backend.url, connect_seconds=0.2) as link:
        await link.reach(BACKING_OFF)
        assert (link.rows[-1], link.error) == ("CON-07", "ITH did not answer in time")
        assert link.waits == [QUICK.backoff_max_seconds]  # of 0.3 s
        backend.script.stall = False
        await link.reach(ONLINE)


async def test_where_we_are_is_said_once_on_each_link(backend: DemoBackend) -> None:
    async with linked(backend.url, **PATIENT) as link:
        for connection in (1, 2, 3):
            await link.reach(ONLINE)
            await until(lambda: backend.frames_named("config_update"))
            await until(lambda: len(backend.frames_named("health_update")) > 2)
            assert (backend.connections, names(backend).count("config_update")) == (connection, 1)
            backend.heard.clear()
            backend.drop()
            await link.reach(BACKING_OFF)


async def test_nothing_waits_for_the_configuration_but_where_we_are(backend: DemoBackend) -> None:
    async with linked(backend.url, **PATIENT) as link:
        link.desk.configuration = trio.Event()
        link.outbox.put("k", over())
        await link.reach(ONLINE)
        await backend.send_raw(json.dumps(frames.control_ping()))
        for name in ("pong", "health_update", "proxy.heartbeat", "dispatch.status"):
            await until(lambda name=name: name in names(backend))  # type: ignore[misc]
        await until(lambda: not link.outbox.queued)  # proven
        assert "config_update" not in names(backend)
        link.desk.configuration.set()
        await until(lambda: "config_update" in names(backend))
        await link.close()
        assert names(backend).count("config_update") == 1


async def test_a_link_that_ends_before_the_configuration_is_known_closes_in_order(
    backend: DemoBackend,
) -> None:
    async with linked(backend.url) as link:
        link.desk.configuration = trio.Event()
        await link.reach(ONLINE)
        await link.close()
        await until(lambda: backend.close_codes)
        assert (backend.close_codes, link.rows[-1]) == ([1000], "CON-15")
        assert "config_update" not in names(backend)


# Signs of life --------------------------------------------------------------------------------


@pytest.mark.parametrize("heartbeat", [True, False])
@pytest.mark.parametrize("health_update", [True, False])
async def test_each_sign_of_life_can_be_switched(
    backend: DemoBackend, heartbeat: bool, health_update: bool
) -> None:
    async with linked(backend.url, heartbeat=heartbeat, health_update=health_update) as link:
        await link.reach(ONLINE)
        await trio.sleep(0.5)
        await link.close()
    count = Counter(names(backend))
    assert (count["proxy.heartbeat"] >= 2) == heartbeat
    assert (count["health_update"] >= 2) == health_update
    assert ("proxy.heartbeat" in count, "health_update" in count) == (heartbeat, health_update)


def test_both_signs_of_life_are_on_by_default() -> None:
    assert (IthSettings().health_update, IthSettings().heartbeat) == (True, True)


async def test_the_health_names_the_nodes(backend: DemoBackend) -> None:
    async with linked(backend.url):
        await until(lambda: backend.frames_named("health_update"))
    assert backend.frames_named("health_update")[0] == {
        "type": "health_update",
        "proxy_status": "online",
        "proxy_version": "2.0.0",
        "nodes": [
            {"node_id": "n1", "is_reachable": True},
            {"node_id": "n2", "is_reachable": False},
        ],
    }


@pytest.mark.parametrize("dialect", PingDialect)
async def test_pings_of_both_dialects_are_answered_under_load(
    backend: DemoBackend, dialect: PingDialect
) -> None:
    ping = frames.control_ping() if dialect is PingDialect.TYPE else frames.event_ping()
    async with linked(backend.url, heartbeat=False, health_update=False) as link:
        await link.reach(ONLINE)
        busy = trio.current_time

        def dawdle() -> None:
            began = busy()
            while busy() - began < 0.0005:
                pass

        link.desk.act = dawdle
        done_by_then: list[int] = []

        async def await_pong() -> None:
            await until(lambda: backend.frames_named("pong"))
            done_by_then.append(len(link.desk.events))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(await_pong)
            for number in range(1000):
                await backend.send_event(frames.session_dispatch(f"sess-{number}", ["n1"]))
                if number == 500:
                    await backend.send_raw(json.dumps(ping))
        await until(lambda: len(link.desk.events) == 1000)
        assert done_by_then[0] < 750
        (pong,) = backend.frames_named("pong")
        assert pong["type"] == "pong"
        if dialect is PingDialect.EVENT_TYPE:
            assert pong["correlation_id"] == ping["correlation_id"]
        assert link.rows.count("CON-06") == 0


async def test_a_flood_of_pings_ends_nothing(backend: DemoBackend) -> None:
    async with linked(backend.url) as link:
        await link.reach(ONLINE)
        for _ in range(2000):
            await backend.send_raw(json.dumps(frames.control_ping()))
        await until(lambda: len(backend.frames_named("pong")) > 100)
        await trio.sleep(0.2)
        assert (link.run.state, backend.broken) == (ONLINE, [])


async def test_broken_and_unknown_frames_leave_the_link_up(backend: DemoBackend) -> None:
    async with linked(backend.url) as link:
        await link.reach(ONLINE)
        for frame in ("", "{", "[]", "17", '{"type":"news"}', b"\xff\xfe", '{"event_type":3}'):
            await backend.send_raw(frame)
        await until(lambda: len(link.desk.events) == 7)
        assert {type(event).__name__ for event in link.desk.events} == {
            "BrokenFrame",
            "UnknownEvent",
        }
        assert link.run.state is ONLINE


async def test_a_refused_config_update_is_logged_and_leaves_the_link_up(
    backend: DemoBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.script.config_error = "port is not valid"
    with caplog.at_level(logging.INFO, "proxy.logs"):
        async with linked(backend.url) as link:
            await until(lambda: "link.response" in caplog.messages)
            assert link.run.state is ONLINE


# The end of a link ----------------------------------------------------------------------------


@asynccontextmanager
async def websocket_server(
    talk: Callable[[trio.SocketStream], Awaitable[None]],
) -> AsyncIterator[str]:
    """Upgrade each client by hand, then let the test speak on the bare stream."""
    import base64
    import hashlib

    magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

    async def script(request: Request, stream: trio.abc.Stream) -> None:
        nonce = request.headers["sec-websocket-key"]
        digest = hashlib.sha1((nonce + magic).encode(), usedforsecurity=False).digest()
        accept = base64.b64encode(digest).decode()
        lines = ("HTTP/1.1 101 Switching", "Upgrade: websocket", "Connection: Upgrade")
        answer = "\r\n".join((*lines, f"Sec-WebSocket-Accept: {accept}", "", ""))
        await stream.send_all(answer.encode() + text(json.dumps(frames.connected())))
        assert isinstance(stream, trio.SocketStream)
        await talk(stream)

    async with serving(script) as server:
        yield server.origin


def text(message: str) -> bytes:
    data = message.encode()
    assert len(data) < 126 or len(data) < 65536
    size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
    return b"\x81" + size + data


async def test_a_server_that_goes_silent_is_noticed() -> None:
    async def say_nothing(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with websocket_server(say_nothing) as url, linked(url) as link:
        await link.reach(ONLINE)
        began = trio.current_time()
        await link.reach(BACKING_OFF)
        assert trio.current_time() - began > 0.5
        assert link.error == "ITH did not answer a ping in time"
        assert link.rows[-1] == "CON-06"


async def test_a_server_that_takes_nothing_is_noticed() -> None:
    """Its buffers are full: not even our ping leaves."""

    async def take_nothing(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with websocket_server(take_nothing) as url, linked(url) as link:
        await link.reach(ONLINE)
        for number in range(200):
            link.outbox.put(f"k{number}", over(error="x" * 100_000))
        await link.reach(BACKING_OFF)
        assert link.error == "ITH did not answer a ping in time"
        assert link.outbox.queued == 200


@pytest.mark.parametrize(
    "break_off",
    [
        pytest.param(lambda backend: backend.drop(), id="reset"),
        pytest.param(lambda backend: backend.vanish(), id="vanish"),
    ],
)
async def test_a_lost_link_is_made_again(
    backend: DemoBackend, break_off: Callable[[DemoBackend], Awaitable[None] | None]
) -> None:
    async with linked(backend.url) as link:
        await until(lambda: backend.frames_named("config_update"))
        if (pending := break_off(backend)) is not None:
            await pending
        await link.reach(BACKING_OFF)
        assert link.error == "the link to ITH broke"
        if pending is not None:
            await until(lambda: link.error.startswith("no connection to 127.0.0.1 port"))
            await backend.listen()
        await link.reach(ONLINE)
        assert (link.desk.online, backend.connections) == (2, 2)
        await until(lambda: len(backend.frames_named("config_update")) == 2)


async def test_the_back_off_is_drawn_from_the_whole_interval_and_reset_by_a_stable_link_only(
    backend: DemoBackend,
) -> None:
    async with linked(backend.url, drawn=0.0, backoff_max_seconds=0.4, stable_seconds=0.5) as link:
        await link.reach(ONLINE)
        backend.drop()
        await link.reach(BACKING_OFF)
        await link.reach(ONLINE)
        assert link.run.data.attempts == 1
        backend.drop()
        await link.reach(BACKING_OFF)
        assert link.run.data.attempts == 2
        await link.reach(ONLINE)
        await until(lambda: link.run.data.attempts == 0)
        assert link.rows[-1] == "CON-04"
        assert link.waits == [pytest.approx(0.04)] * 2


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", ["sized", "to the end", "endless"])
async def test_a_refused_key_waits_long_and_says_what_to_do(
    status: int, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(_: Request, stream: trio.abc.Stream) -> None:
        if body == "sized":
            await stream.send_all(whole(b'{"detail":"no"}', status=status))
            return
        await stream.send_all(head(status) + b"no")
        if body == "endless":
            await trio.sleep_forever()

    with caplog.at_level(logging.INFO, "proxy.logs"):
        async with serving(refuse) as server, linked(server.origin) as link:
            await link.reach(REFUSED)
            await trio.sleep(0.3)
            assert (len(server.requests), link.rows[-1]) == (1, "CON-09")
            assert link.error == f"ITH refused the proxy key (HTTP {status})"
    said = "\n".join(str(getattr(record, "line", "")) for record in caplog.records)
    assert "Check the proxy key (ITH_TOKEN or ith.token_file)" in said


@pytest.mark.parametrize("code", [4001, 4003])
async def test_a_key_refused_by_a_close_code_waits_long(backend: DemoBackend, code: int) -> None:
    backend.script.refuse = code
    async with linked(backend.url) as link:
        await link.reach(REFUSED)
        assert link.error == f"ITH refused the proxy key (close code {code})"


async def test_a_wrong_key_is_refused(backend: DemoBackend) -> None:
    async with linked(backend.url, key="pk_other") as link:
        await link.reach(REFUSED)
        await trio.sleep(0.3)
        assert backend.refusals == 1


async def test_whoever_is_evicted_does_not_evict_the_other(backend: DemoBackend) -> None:
    async with linked(backend.url) as link:
        await link.reach(ONLINE)
        async with linked(backend.url) as other:
            await other.reach(ONLINE)
            await link.reach(EVICTED)
            await trio.sleep(0.3)
            assert (link.error, other.run.state) == (
                "another program connected to ITH with our key",
                ONLINE,
            )
            assert backend.connections == 2


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_obeyed(status: int) -> None:
    answer = whole(b"", "Retry-After: 7", status=status)
    async with serving(always(answer)) as server, linked(server.origin) as link:
        await link.reach(BACKING_OFF)
        assert link.error == f"ITH answered the upgrade with HTTP {status}"
        assert link.waits == [7.0]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (whole(b"moved", "Location: /x", status=301), "ITH answered the upgrade with HTTP 301"),
        (whole(b"<html>", status=200), "ITH answered the upgrade with HTTP 200"),
        (b"", "the connection ended before ITH answered the upgrade"),
        (b"HTTP/1.1 1", "the connection ended before ITH answered the upgrade"),
        (b"220 mail\r\n\r\n", "the server at ITH's address does not speak HTTP"),
        (b"x" * 100_000, "the server at ITH's address does not speak HTTP"),
        (
            b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "the link broke (LocalProtocolError)",
        ),
    ],
    ids=["moved", "page", "nothing", "part", "mail", "noise", "no-proof"],
)
async def test_an_answer_that_is_no_upgrade_is_said_at_once(answer: bytes, sentence: str) -> None:
    async with serving(always(answer)) as server, linked(server.origin) as link:
        await link.reach(BACKING_OFF)
        assert link.error == sentence


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 4000])
async def test_any_other_close_code_is_tried_again(backend: DemoBackend, code: int) -> None:
    async with linked(backend.url) as link:
        await link.reach(ONLINE)
        await backend.close(code)
        await link.reach(BACKING_OFF)
        assert link.error == f"ITH closed the link (close code {code})"
        await link.reach(ONLINE)


async def test_too_large_a_frame_ends_the_link_without_a_tight_loop(backend: DemoBackend) -> None:
    async with linked(backend.url, max_frame_bytes=65536, backoff_max_seconds=60.0) as link:
        for lost in (1, 2):
            await link.reach(ONLINE)
            await backend.send_raw("x" * 70_000)
            await link.reach(BACKING_OFF)
            assert link.error == "a message was too big for the link (close code 1009)"
            assert link.run.data.attempts == lost
        assert link.waits == [pytest.approx(0.55), pytest.approx(1.1)]
        assert backend.close_codes == [1009, 1009]


async def test_frames_that_break_the_protocol_end_the_link() -> None:
    async def speak_nonsense(stream: trio.SocketStream) -> None:
        await stream.send_all(b"\xff" * 100)
        await trio.sleep_forever()

    async with websocket_server(speak_nonsense) as url, linked(url) as link:
        await link.reach(BACKING_OFF)
        assert link.error == "the WebSocket protocol was broken (close code 1002)"


# The orderly close ----------------------------------------------------------------------------


async def test_the_close_is_orderly_after_the_last_reports(backend: DemoBackend) -> None:
    async with linked(backend.url) as link:
        await link.reach(ONLINE)
        link.outbox.put("k", over())
        with trio.fail_after(PATIENCE_S):
            await link.outbox.flushed()
        await link.close()
        assert link.rows[-1] == "CON-15"
        assert link.outbox.queued == 0
    await until(lambda: backend.close_codes)
    assert backend.close_codes == [1000]
    assert backend.heard[-1].frame["proxy_status"] == "offline"
    assert "dispatch.status" in names(backend)


async def test_a_server_that_goes_on_talking_sees_an_orderly_close_too(
    backend: DemoBackend,
) -> None:
    async def talk() -> None:
        with suppress(ConnectionClosed, RuntimeError):  # the latter: nobody is connected
            while True:
                await backend.send_raw(json.dumps(frames.control_ping()))
                await backend.send_event(frames.session_dispatch("sess-1", ["n1"]))

    for _ in range(5):
        async with linked(backend.url) as link, trio.open_nursery() as nursery:
            await link.reach(ONLINE)
            nursery.start_soon(talk)
            await trio.sleep(0.02)
            await link.close()
            assert link.rows[-1] == "CON-15"
            await until(lambda: not backend.online)
            nursery.cancel_scope.cancel("closed")
    assert backend.close_codes == [1000] * 5


async def test_a_server_that_does_not_answer_the_close_is_left() -> None:
    async def say_nothing(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with websocket_server(say_nothing) as url, linked(url, pong_seconds=9) as link:
        await link.reach(ONLINE)
        link.run.data = replace(link.run.data, close_seconds=0.2)
        await link.close()
        assert link.rows[-1] == "CON-16"


async def test_a_link_lost_while_closing_is_closed(backend: DemoBackend) -> None:
    async with linked(backend.url) as link:
        await link.reach(ONLINE)
        link.run.tell(CloseRequested("the test stops"))
        backend.drop()
        await link.reach(CLOSED)
        assert link.rows[-1] in {"CON-17", "CON-15"}


async def test_it_stops_at_once_where_nothing_is_open(backend: DemoBackend) -> None:
    await backend.vanish()
    async with linked(backend.url) as link:
        await link.reach(BACKING_OFF)
        await link.close()
        assert link.rows[-1] == "CON-13"


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.01, 0.05, 0.2])
async def test_a_cancelled_link_leaves_no_socket(backend: DemoBackend, seconds: float) -> None:
    """An open one would be a ResourceWarning, which is an error here."""
    async with linked(backend.url) as link:
        link.outbox.put("k", over())
        await trio.sleep(seconds)
    await until(lambda: not backend.online)


# Reports --------------------------------------------------------------------------------------


async def test_frames_never_interleave_under_load(backend: DemoBackend) -> None:
    async with linked(backend.url, health_seconds=0.001, heartbeat_seconds=0.001) as link:
        await link.reach(ONLINE)
        for number in range(300):
            link.outbox.put(f"k{number}", over(str(number), error="y" * 20_000))
        for _ in range(100):
            await backend.send_raw(json.dumps(frames.control_ping()))
        await until(lambda: len(backend.frames_named("dispatch.status")) == 300)
        numbers = [int(frame["entity_id"]) for frame in backend.frames_named("dispatch.status")]
        assert (numbers, backend.broken) == ([*range(300)], [])
        await until(lambda: link.outbox.queued == 0)


async def test_reports_wait_for_the_link_and_for_its_proof(backend: DemoBackend) -> None:
    await backend.vanish()
    async with linked(backend.url, ping_seconds=0.4) as link:
        for number in range(3):
            link.outbox.put(f"k{number}", over(str(number)))
        await link.reach(BACKING_OFF)
        await backend.listen()
        await until(lambda: len(backend.frames_named("dispatch.status")) == 3)
        assert link.outbox.queued == 3
        assert len(await link.ledger.reports()) == 3
        backend.drop()  # nobody knows whether they arrived: they come again
        await until(lambda: len(backend.frames_named("dispatch.status")) == 6)
        await until(lambda: link.outbox.queued == 0)
        assert len(await link.ledger.reports()) == 3  # kept, for ITH may lose what it took
        numbers = [int(frame["entity_id"]) for frame in backend.frames_named("dispatch.status")]
        assert numbers == [0, 1, 2] * 2


async def test_the_first_health_update_goes_ahead_of_the_reports(backend: DemoBackend) -> None:
    await backend.vanish()
    async with linked(backend.url) as link:
        for number in range(3):
            link.outbox.put(f"k{number}", over(str(number)))
        await link.reach(BACKING_OFF)
        await backend.listen()
        await until(lambda: len(backend.frames_named("dispatch.status")) == 3)
        assert names(backend).index("health_update") < names(backend).index("dispatch.status")


async def test_what_the_library_of_a_dead_application_took_is_said_again(
    backend: DemoBackend,
) -> None:
    async with linked(backend.url, **PATIENT) as link:
        await link.reach(ONLINE)
        link.outbox.put("seen", over("seen"))
        await until(lambda: link.outbox.queued == 0)
        backend.die()
        link.outbox.put("lost", over("lost"))
        await link.outbox.flushed()
        await trio.sleep(5 * QUICK.ping_seconds)
        assert (link.run.state, link.outbox.queued) == (ONLINE, 1)
        backend.revive()
        await until(lambda: link.outbox.queued == 0)
    said = [frame["entity_id"] for frame in backend.frames_named("dispatch.status")]
    assert said == ["seen", "lost"]


@pytest.mark.parametrize("health_update", [True, False])
async def test_a_pong_proves_where_no_health_update_is_answered(
    backend: DemoBackend, health_update: bool
) -> None:
    backend.script.answer = False
    async with linked(backend.url, health_update=health_update) as link:
        await link.reach(ONLINE)
        link.outbox.put("k", over())
        await until(lambda: link.outbox.queued == 0)
        await link.close()
        assert link.rows[-1] == "CON-15"
    assert len(backend.frames_named("dispatch.status")) == 1


async def test_a_refused_health_update_proves_as_well(
    backend: DemoBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.script.answer = False
    refusal = json.dumps({"type": "health_update_response", "status": "error", "error": "no"})
    with caplog.at_level(logging.INFO, "proxy.logs"):
        async with linked(backend.url, **PATIENT) as link:
            await link.reach(ONLINE)
            link.outbox.put("k", over())
            await until(lambda: backend.frames_named("dispatch.status"))
            while link.outbox.queued:
                asked = len(backend.frames_named("health_update"))
                await backend.send_raw(refusal)
                await until(lambda: len(backend.frames_named("health_update")) > asked)  # noqa: B023
            assert link.run.state is ONLINE
    assert "link.response" in caplog.messages


async def test_the_last_answer_is_waited_for_before_the_close(backend: DemoBackend) -> None:
    backend.script.answer = False
    answer = json.dumps(frames.health_update_response())
    async with linked(backend.url, **PATIENT) as link, trio.open_nursery() as nursery:
        await link.reach(ONLINE)
        link.run.data = replace(link.run.data, close_seconds=PATIENCE_S)
        link.outbox.put("k", over())
        await link.outbox.flushed()
        nursery.start_soon(link.close)
        await until(lambda: backend.heard[-1].frame.get("proxy_status") == "offline")
        await trio.sleep(0.1)  # by now the ping is answered
        for _ in backend.frames_named("health_update"):
            await backend.send_raw(answer)
        await link.reach(CLOSED)
        assert link.outbox.queued == 0
    await until(lambda: backend.close_codes)
    assert backend.close_codes == [1000]


async def test_a_dead_application_is_left_in_order_and_its_report_is_kept(
    backend: DemoBackend,
) -> None:
    async with linked(backend.url, **PATIENT, ping_seconds=0.001) as link:
        await link.reach(ONLINE)
        link.run.data = replace(link.run.data, close_seconds=PATIENCE_S)
        link.outbox.put("seen", over())
        await until(lambda: link.outbox.queued == 0)
        backend.die()
        link.outbox.put("lost", over())
        await link.outbox.flushed()
        await link.close()
        assert (link.rows[-1], link.outbox.queued) == ("CON-15", 1)
    await until(lambda: backend.close_codes)
    assert backend.close_codes == [1000]


# TLS ------------------------------------------------------------------------------------------


def contexts(ca: trustme.CA, *host_names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*host_names).configure_cert(server)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return server, client


async def test_tls_with_a_good_certificate() -> None:
    server, client = contexts(trustme.CA(), "127.0.0.1")
    async with (
        DemoBackend(key=KEY, tls=server).running() as backend,
        linked(backend.url, context=client) as link,
    ):
        await link.reach(ONLINE)
        await until(lambda: backend.frames_named("config_update"))
        assert backend.frames_named("config_update")[0]["ip_address"] == "127.0.0.1"
        await link.close()
        await until(lambda: backend.close_codes)
        assert backend.close_codes == [1000]


async def test_tls_with_another_host_s_certificate() -> None:
    server, client = contexts(trustme.CA(), "ith.example.org")
    async with (
        DemoBackend(key=KEY, tls=server).running() as backend,
        linked(backend.url, context=client) as link,
    ):
        await link.reach(BACKING_OFF)
        assert link.error.startswith("no TLS with 127.0.0.1: its certificate is not trusted (")
        assert "mismatch" in link.error


@pytest.mark.parametrize("trust", ["another CA", "the system"])
async def test_tls_with_an_unknown_ca(trust: str) -> None:
    server, _ = contexts(trustme.CA(), "127.0.0.1")
    _, client = contexts(trustme.CA(), "127.0.0.1")
    async with (
        DemoBackend(key=KEY, tls=server).running() as backend,
        linked(backend.url, context=client if trust == "another CA" else None) as link,
    ):
        await link.reach(BACKING_OFF)
        assert link.error.startswith("no TLS with 127.0.0.1: its certificate is not trusted (")
        assert backend.connections == 0


async def test_tls_with_a_server_that_has_none() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(whole(b"", status=400))
        await trio.sleep_forever()

    _, client = contexts(trustme.CA(), "127.0.0.1")
    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, answer, 0, host="127.0.0.1")
        )
        port = listeners[0].socket.getsockname()[1]
        async with linked(f"https://127.0.0.1:{port}", context=client) as link:
            await link.reach(BACKING_OFF)
            assert link.error.startswith("no TLS with 127.0.0.1: ")
        nursery.cancel_scope.cancel("the test is over")


# Texts without secrets ------------------------------------------------------------------------


async def test_the_key_is_in_no_line_of_any_log(
    backend: DemoBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="proxy.logs")
    faults = Counter[str]()
    async with linked(backend.url) as link:
        await link.reach(ONLINE)
        await backend.send_event(frames.session_dispatch("sess-1", ["n1"], session_label="CANARY"))
        await until(lambda: link.desk.events)
        backend.drop()
        await link.reach(BACKING_OFF)
        faults[link.error] += 1
        backend.script.refuse = 401
        await link.reach(REFUSED)
        faults[link.error] += 1
    quoted = urllib.parse.quote(KEY, safe="")
    said = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert any("link.lost" in line for line in said)
    ours = [line for line in said if "'trio-websocket'" not in line]
    for line in (*said, *faults):
        assert KEY not in line
        assert quoted not in line
    assert not [line for line in ours if "CANARY" in line]


def test_no_frame_reaches_the_log_of_a_library(tmp_path: Path) -> None:
    """trio-websocket describes what it receives at level DEBUG."""
    with (tmp_path / "log").open("w") as stream:
        logs.configure(level="debug", key=KEY, stream=stream)
        logger = logging.getLogger("trio-websocket")
        logger.setLevel(logging.DEBUG)
        logger.debug("received %s", "CANARY")
        logger.warning("received %s", "CANARY")
    assert "CANARY" not in (tmp_path / "log").read_text()
