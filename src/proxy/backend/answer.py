"""The answer to the WebSocket upgrade, examined before trio-websocket reads it.

That library reads the body of a refusal to its end, and goes on waiting if the connection ends
before the WebSocket is open. Here the status line decides, and an early end is an error.
``upgrade`` wraps its connection in this stream.
"""

from __future__ import annotations

import re

import trio

from proxy.errors import LinkLost

STATUS_BYTES = 16
"""Bytes that suffice to recognise HTTP; h11 limits the length of the head."""
LONGEST_WAIT_S = 3600.0

STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)\b")
RETRY_AFTER = re.compile(rb"\r\nretry-after:[ \t]*(\d{1,9})[ \t]*\r\n", re.IGNORECASE)

Connection = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class UpgradeRejected(LinkLost):
    """ITH, or a gateway before it, answered the upgrade with another HTTP status than 101."""

    def __init__(self, status: int, retry_after: float = 0.0) -> None:
        moved = status in {301, 302, 303, 307, 308, 404}
        hint = "Check ith.url and ith.websocket_path." if moved else ""
        super().__init__(f"ITH answered the upgrade with HTTP {status}", hint=hint)
        self.status = status
        self.retry_after = retry_after


class UpgradeStream(trio.abc.Stream):
    """The connection to ITH; until ``is_open``, any end of it raises :class:`LinkLost`."""

    def __init__(self, stream: Connection) -> None:
        self.is_open = False
        self._stream = stream
        self._head = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive; raises :class:`LinkLost` if the WebSocket cannot be opened."""
        if self.is_open:
            return await self._stream.receive_some(max_bytes)
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise _hung_up() from None
        self._examine(bytes(data))
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send; raises :class:`LinkLost` if the WebSocket cannot be opened."""
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            if self.is_open:
                raise
            raise _hung_up() from None

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the connection takes bytes."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    def _examine(self, data: bytes) -> None:
        """Examine the answer's head as far as it has arrived; raise if the status is not 101."""
        self._head += data
        head, end, _ = self._head.partition(b"\r\n\r\n")
        status = STATUS.match(head)
        if (end or len(head) >= STATUS_BYTES) and status is None:
            raise LinkLost("the server at ITH's address does not speak HTTP", hint="Check ith.url.")
        if not end and not data:
            raise _hung_up()
        if end and status and status[1] != b"101":
            asked = RETRY_AFTER.search(head + b"\r\n")
            wait = min(float(asked[1]), LONGEST_WAIT_S) if asked else 0.0
            raise UpgradeRejected(int(status[1]), wait)


def _hung_up() -> LinkLost:
    return LinkLost(
        "the connection ended before ITH answered the upgrade",
        hint="Check that no gateway of the network forbids WebSockets to ITH.",
    )
