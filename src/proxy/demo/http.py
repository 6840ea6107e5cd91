"""A minimal HTTP/1.1 server on a trio stream, for the embedded backend: h11, one request at a time.

The first request's head is read before its kind is decided, so that WebSocket and HTTP can share
one port.
"""

from __future__ import annotations

import json
import socket
import struct
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import h11
import trio

HEAD_LIMIT = 64 * 1024


@dataclass
class HttpRequest:
    """One HTTP request as it was recorded; header names are in lower case.

    ``status`` and ``sent`` (bytes of the body) are those of the answer.
    """

    at: float
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    status: int = 0
    sent: int = 0


class Reply:
    """The way back for one request."""

    def __init__(self, stream: trio.abc.Stream, connection: h11.Connection) -> None:
        self.stream = stream
        self._connection = connection
        self._raw = False

    async def head(self, status: int, headers: Mapping[str, str], *, raw: bool = False) -> None:
        """Send the status and headers; after a ``raw`` one the body is not held to its length."""
        self._raw = raw
        await self._send(h11.Response(status_code=status, headers=[*headers.items()]))

    async def data(self, data: bytes) -> None:
        """Send a part of the body."""
        if self._raw:
            await self.stream.send_all(data)
        else:
            await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """End the body; a raw one ends with the connection."""
        if self._raw:
            raise Hangup
        await self._send(h11.EndOfMessage())

    async def json(self, status: int, body: object, headers: Mapping[str, str] = {}) -> None:
        """Send a complete answer in JSON."""
        await self.whole(status, json.dumps(body).encode(), "application/json", headers)

    async def whole(
        self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] = {}
    ) -> None:
        """Send a complete answer."""
        lengths = {"content-type": content_type, "content-length": str(len(body))}
        await self.head(status, {**lengths, **headers})
        await self.data(body)
        await self.end()

    async def _send(self, event: h11.Event) -> None:
        data = self._connection.send(event)
        if data:
            await self.stream.send_all(data)


class Hangup(Exception):
    """The connection is to be closed at this point of the answer, after the bytes sent arrived."""


Handler = Callable[[HttpRequest, Reply], Awaitable[None]]


async def serve(stream: trio.abc.Stream, handler: Handler) -> None:
    """Answer requests until the client goes, or until the handler hangs up."""
    connection = h11.Connection(h11.SERVER)
    try:
        while (request := await _receive(stream, connection)) is not None:
            await handler(request, Reply(stream, connection))
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()
    except (Hangup, h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def _receive(stream: trio.abc.Stream, connection: h11.Connection) -> HttpRequest | None:
    """Return the next complete request, None if there is no more."""
    request: HttpRequest | None = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(HEAD_LIMIT)))
        elif isinstance(event, h11.Request):
            request = _request(event)
        elif isinstance(event, h11.Data) and request:
            request.body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return request
        else:
            return None


def _request(event: h11.Request) -> HttpRequest:
    target = urllib.parse.urlsplit(event.target.decode("ascii"))
    return HttpRequest(
        at=trio.current_time(),
        method=event.method.decode("ascii"),
        path=target.path,
        query=dict(urllib.parse.parse_qsl(target.query, keep_blank_values=True)),
        headers={name.decode(): value.decode("latin-1") for name, value in event.headers},
    )


async def peek(stream: trio.abc.Stream) -> tuple[HttpRequest | None, trio.abc.Stream]:
    """Return the first request's head, and a stream on which it can be read again."""
    seen = bytearray()
    while b"\r\n\r\n" not in seen and len(seen) < HEAD_LIMIT:
        data = await stream.receive_some(HEAD_LIMIT)
        if not data:
            return None, stream
        seen += data
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(bytes(seen))
    event = connection.next_event()
    request = _request(event) if isinstance(event, h11.Request) else None
    return request, _Replayed(bytes(seen), stream)


class _Replayed(trio.abc.Stream):
    """A stream that gives back the bytes that were read ahead."""

    def __init__(self, seen: bytes, stream: trio.abc.Stream) -> None:
        self._seen = seen
        self.transport_stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self._seen:
            return bytes(await self.transport_stream.receive_some(max_bytes))
        cut = len(self._seen) if max_bytes is None else max_bytes
        data, self._seen = self._seen[:cut], self._seen[cut:]
        await trio.lowlevel.checkpoint()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.transport_stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.transport_stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.transport_stream.aclose()


def reset(stream: trio.abc.Stream) -> None:
    """Close the TCP connection under a stream so that the peer sees a reset."""
    while not isinstance(stream, trio.SocketStream):
        stream = stream.transport_stream  # type: ignore[attr-defined]
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
