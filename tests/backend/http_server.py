"""An HTTP server that does what a test's script says, byte by byte; shares nothing with ours."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import trio


@dataclass
class Request:
    target: str
    headers: dict[str, str]


Script: TypeAlias = Callable[[Request, trio.abc.Stream], Awaitable[None]]


@dataclass
class Server:
    origin: str
    requests: list[Request] = field(default_factory=list)


@asynccontextmanager
async def serving(
    script: Script, tls: ssl.SSLContext | None = None, name: str = "127.0.0.1"
) -> AsyncIterator[Server]:
    """Serve on a free port of the loopback until the block ends; one request per connection."""

    async def handle(stream: trio.SocketStream) -> None:
        secured: trio.abc.Stream = stream
        if tls is not None:
            secured = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            async with secured:
                request = await read_request(secured)
                if request is not None:
                    server.requests.append(request)
                    await script(request, secured)
        except (trio.BrokenResourceError, ssl.SSLError):
            pass

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, handle, 0, host="127.0.0.1")
        )
        port = listeners[0].socket.getsockname()[1]
        server = Server(f"{'https' if tls else 'http'}://{name}:{port}")
        yield server
        nursery.cancel_scope.cancel("the test is over")


async def read_request(stream: trio.abc.Stream) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some(65536)
        if not more:
            return None
        data += more
    first, *lines = data.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    return Request(first.split(" ")[1], headers)


def head(status: int, *lines: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status} Said", *lines, "Connection: close", "", "")).encode()


def whole(body: bytes, *lines: str, status: int = 200) -> bytes:
    return head(status, f"Content-Length: {len(body)}", *lines) + body


def always(answer: bytes) -> Script:
    async def script(_: Request, stream: trio.abc.Stream) -> None:
        await stream.send_all(answer)

    return script


def in_turn(*answers: bytes) -> Script:
    """Each request gets the next answer; the last one again and again."""
    left = list(answers)

    async def script(_: Request, stream: trio.abc.Stream) -> None:
        await stream.send_all(left.pop(0) if len(left) > 1 else left[0])

    return script


class Versioned:
    """A body with an ETag that serves ranges and may cut each answer after so many bytes."""

    def __init__(self, body: bytes, etag: str, *, cut: int | None = None) -> None:
        self.body = body
        self.etag = etag
        self.cut = cut

    async def __call__(self, request: Request, stream: trio.abc.Stream) -> None:
        if request.headers.get("if-none-match") == self.etag:
            await stream.send_all(head(304, f"ETag: {self.etag}"))
            return
        first = 0
        status, lines = 200, [f"ETag: {self.etag}", "Accept-Ranges: bytes"]
        if "range" in request.headers and request.headers.get("if-range") == self.etag:
            first = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
            status = 206
            last = len(self.body) - 1
            lines.append(f"Content-Range: bytes {first}-{last}/{len(self.body)}")
        rest = self.body[first:]
        sent = rest if self.cut is None else rest[: self.cut]
        await stream.send_all(head(status, f"Content-Length: {len(rest)}", *lines) + sent)
