"""An ITH backend for demonstrations and tests: WebSocket and HTTP on one loopback port.

It follows protocol.md 1 to 3, writes JSON by hand, records all messages it receives, and misbehaves
as its :class:`~proxy.demo.backend_script.BackendScript` says. It shares nothing with the proxy,
which meets it only over TCP.
"""

from __future__ import annotations

import itertools
import json
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import trio
import trio_websocket

from proxy.demo import frames, http
from proxy.demo.backend_script import BackendScript, Greeting, Heard, PingDialect
from proxy.demo.frames import JsonObject
from proxy.demo.rest import BASE, Rest

SOCKET_PATH = f"{BASE}/ws"
FINAL = ("completed", "failed")
KEY_MISSING, EVICTED, KEY_INVALID = 4001, 4002, 4003


class DemoBackend:
    """The backend of one workspace with one proxy."""

    def __init__(
        self,
        *,
        key: str = "pk_demo/+=",
        workspace_id: str = frames.WORKSPACE_ID,
        proxy_id: str = frames.PROXY_ID,
        script: BackendScript | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.key = key
        self.workspace_id = workspace_id
        self.proxy_id = proxy_id
        self.script = script or BackendScript()
        self.rest = Rest(
            key, workspace_id, frames.configuration(workspace_id=workspace_id, proxy_id=proxy_id)
        )
        self.port = 0
        self.heard: list[Heard] = []
        self.broken: list[str | bytes] = []
        """Messages that were no JSON object."""
        self.statuses: dict[tuple[str, str | None], list[JsonObject]] = defaultdict(list)
        """Payloads of ``dispatch.status`` by correlation id and node id (None: of the dispatch)."""
        self.connections = 0
        """The number of WebSockets accepted."""
        self.is_alive = True
        """Whether the application lives."""
        self.refusals = 0
        self.close_codes: list[int | None] = []
        """The ends of the WebSockets that have ended."""
        self._tls = tls
        self._link: trio_websocket.WebSocketConnection | None = None
        self._link_stream: trio.abc.Stream | None = None
        self._nursery: trio.Nursery | None = None
        self._listening = trio.CancelScope()
        self._vanished = trio.Event()
        self._changed = trio.Event()

    # Life --------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[DemoBackend]:
        """Run while the block lasts."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await self.listen()
            yield self
            nursery.cancel_scope.cancel("the embedded backend ends")

    async def listen(self) -> None:
        """Accept connections, on the port of the last time if there was one."""
        if self._nursery is None:
            raise RuntimeError("the backend is not running()")
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        self._listening, self._vanished = trio.CancelScope(), trio.Event()
        self._nursery.start_soon(self._accept, listeners)

    async def vanish(self) -> None:
        """Stop listening and cut every connection; :meth:`listen` comes back."""
        self._listening.cancel("the embedded backend vanishes")
        await self._vanished.wait()

    @property
    def url(self) -> str:
        """The base URL, for ``ITH_URL``."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def online(self) -> bool:
        """Whether a proxy is connected."""
        return self._link is not None

    # For tests and the demonstration ---------------------------------------------------------

    async def send_event(self, event: JsonObject) -> None:
        """Send one event to the connected proxy, in the script's envelope."""
        await self.send_raw(json.dumps(frames.nested(event) if self.script.nested else event))

    async def send_raw(self, message: str | bytes) -> None:
        """Send one message as it is."""
        await self._connected().send_message(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the WebSocket in good order."""
        await self._connected().aclose(code, reason)

    def drop(self) -> None:
        """Cut the WebSocket's TCP connection with a reset."""
        self._connected()
        if self._link_stream:
            http.reset(self._link_stream)

    def die(self) -> None:
        """Let the application die; its WebSocket library goes on.

        The library accepts links, answers pings and takes messages, which are lost.
        """
        self.is_alive = False

    def revive(self) -> None:
        """Start a new application, which resets the link of the dead one."""
        if not self.is_alive:
            self.is_alive = True
            if self.online:
                self.drop()

    async def wait_for(self, predicate: Callable[[DemoBackend], bool]) -> None:
        """Return when ``predicate`` of this backend is true."""
        while not predicate(self):
            await self.changed()

    async def changed(self) -> None:
        """Return at the next event at this backend."""
        await self._changed.wait()

    def frames_named(self, name: str) -> list[JsonObject]:
        """Return the frames heard whose ``type`` or ``event_type`` is ``name``."""
        return [
            heard.frame
            for heard in self.heard
            if name in (heard.frame.get("type"), heard.frame.get("event_type"))
        ]

    def final_status(self, correlation_id: str, node_id: str | None = None) -> JsonObject | None:
        """Return the payload with completed or failed, None while there is none."""
        payloads = self.statuses.get((correlation_id, node_id), [])
        return next((payload for payload in payloads if payload.get("status") in FINAL), None)

    def status_words(self, correlation_id: str, node_id: str | None = None) -> tuple[str, ...]:
        """Return the words of ``dispatch.status`` in the order they came, repetitions left out."""
        payloads = self.statuses.get((correlation_id, node_id), [])
        words = (str(payload.get("status")) for payload in payloads)
        return tuple(word for word, _ in itertools.groupby(words))

    def _connected(self) -> trio_websocket.WebSocketConnection:
        if self._link is None:
            raise RuntimeError("no proxy is connected")
        return self._link

    def _tell(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    # Connections ---------------------------------------------------------------------------

    async def _accept(self, listeners: list[trio.SocketListener]) -> None:
        with self._listening:
            await trio.serve_listeners(self._serve, listeners)
        self._vanished.set()

    async def _serve(self, socket_stream: trio.SocketStream) -> None:
        stream: trio.abc.Stream = socket_stream
        if self._tls:
            stream = trio.SSLStream(socket_stream, self._tls, server_side=True)
        try:
            request, replayed = await http.peek(stream)
            if request and request.path == SOCKET_PATH and "upgrade" in request.headers:
                await self._serve_socket(request, replayed)
            else:
                await http.serve(replayed, self._answer)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has gone, as it may
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer(self, request: http.HttpRequest, reply: http.Reply) -> None:
        try:
            await self.rest.answer(request, reply)
        finally:
            self._tell()

    async def _serve_socket(self, request: http.HttpRequest, stream: trio.abc.Stream) -> None:
        if self.script.stall:
            await trio.sleep_forever()
        refusal = self.script.refuse or self._verdict(request)
        self.refusals += refusal is not None
        self._tell()
        async with trio.open_nursery() as nursery:
            upgrade = await trio_websocket.wrap_server_stream(nursery, stream)
            with suppress(trio_websocket.ConnectionClosed):
                if refusal and refusal < 1000:
                    await upgrade.reject(refusal, body=b'{"detail": "refused"}')
                else:
                    await self._accepted(await upgrade.accept(), stream, refusal)

    async def _accepted(
        self, link: trio_websocket.WebSocketConnection, stream: trio.abc.Stream, code: int | None
    ) -> None:
        """Be one link's backend, or close it with a code at once."""
        try:
            await (link.aclose(code) if code else self._keep(link, stream))
        finally:
            self.close_codes.append(link.closed.code if link.closed else None)
            if self._link is link:
                self._link = self._link_stream = None
            self._tell()

    def _verdict(self, request: http.HttpRequest) -> int | None:
        """Return the code that refuses a request with a wrong key, None if the key is right."""
        keys = {request.query.get("proxy_key"), request.headers.get("x-proxy-key")} - {None}
        if keys == {self.key}:
            return None
        if self.script.wrong_key >= 1000 and not keys:
            return KEY_MISSING
        return self.script.wrong_key

    async def _keep(
        self, link: trio_websocket.WebSocketConnection, stream: trio.abc.Stream
    ) -> None:
        """Be one link's backend until it ends, in place of an older one if there is."""
        older, self._link, self._link_stream = self._link, link, stream
        self.connections += 1
        async with trio.open_nursery() as nursery:
            if older:
                nursery.start_soon(older.aclose, EVICTED, "replaced by a newer connection")
            nursery.start_soon(self._ping, link)
            with suppress(trio_websocket.ConnectionClosed):
                if self.is_alive:
                    await self._greet(link)
                self._tell()
                while True:
                    message = await link.get_message()
                    if self.is_alive:
                        await self._hear(link, message)
            nursery.cancel_scope.cancel("the link has ended")

    async def _greet(self, link: trio_websocket.WebSocketConnection) -> None:
        match self.script.greeting:
            case Greeting.CONNECTED:
                greeting = frames.connected(workspace_id=self.workspace_id, proxy_id=self.proxy_id)
            case Greeting.EVENT:
                greeting = frames.status_changed(
                    is_active=True, proxy_id=self.proxy_id, workspace_id=self.workspace_id
                )
                greeting = frames.nested(greeting) if self.script.nested else greeting
            case Greeting.NOTHING:
                return
        await link.send_message(json.dumps(greeting))

    async def _ping(self, link: trio_websocket.WebSocketConnection) -> None:
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                await trio.sleep(self.script.ping_every_s)
                if not self.is_alive:
                    continue
                by_type = self.script.ping_dialect is PingDialect.TYPE
                ping = frames.control_ping() if by_type else frames.event_ping()
                await link.send_message(json.dumps(ping))

    async def _hear(self, link: trio_websocket.WebSocketConnection, message: str | bytes) -> None:
        try:
            frame = json.loads(message)
        except ValueError:
            frame = None
        if not isinstance(frame, dict):
            self.broken.append(message)
            self._tell()
            return
        self.heard.append(Heard(trio.current_time(), frame))
        if frame.get("event_type") == "dispatch.status":
            payload = frame.get("payload", {})
            self.statuses[frame.get("correlation_id", ""), payload.get("node_id")].append(payload)
        self._tell()
        if self.script.answer and (answer := self._answer_to(frame)):
            await link.send_message(json.dumps(answer))

    def _answer_to(self, frame: JsonObject) -> JsonObject | None:
        match frame.get("type"):
            case "config_update":
                return frames.config_update_response(
                    fields=[name for name in frame if name != "type"],
                    error=self.script.config_error,
                )
            case "health_update":
                return frames.health_update_response()
            case _:
                return None
