"""A relay before a node: slows it down, counts connections, swallows one of its answers.

    with storescp(tmp_path, "+B") as disk:
        async with relay(disk, delay_s=0.02) as slow:
            ...  # slow.port is the one to be configured

    async with relay(node, swallow=3) as line:
        ...  # line.stores: what was asked of the node, by SOP Instance UID

It forwards bytes and understands none of them, but where it is to swallow a C-STORE response: it
reads those with pynetdicom, nothing of the proxy's, and goes dead with the one. By then the node
has stored the instance, and the other end cannot know.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Protocol

import trio
from pydicom.dataset import Dataset
from pynetdicom import dsutils
from pynetdicom.pdu import P_DATA_TF

BLOCK = 65536
C_STORE_RQ, C_FIND_RQ, C_STORE_RSP = 0x0001, 0x0020, 0x8001
P_DATA = 4


class Peer(Protocol):
    """The address of a node; the embedded one and the programs both have it."""

    @property
    def ae_title(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class Relay:
    """One line for as many connections as come.

    ``delay_s`` passes before each part of what the node answers; it may be changed any time.
    ``connections`` counts all there were, ``open`` those that there are. ``stores`` and ``finds``
    count the requests where a response is to be swallowed, which is counted over all connections.
    """

    def __init__(self, node: Peer, delay_s: float, swallow: int | None, host: str) -> None:
        self.ae_title = node.ae_title
        self.host = host
        self.port = 0
        self.delay_s = delay_s
        self.connections = 0
        self.open = 0
        self.stores: Counter[str] = Counter()
        self.finds = 0
        self._node = node
        self._swallow = swallow
        self._responses = 0

    async def serve(self, caller: trio.SocketStream) -> None:
        """Bring one caller to the node, until either of them hangs up."""
        self.connections += 1
        self.open += 1
        try:
            async with (
                caller,
                await trio.open_tcp_stream(self._node.host, self._node.port) as node,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._pass_on, caller, node, nursery.cancel_scope)
                nursery.start_soon(self._answer, node, caller, nursery.cancel_scope)
        finally:
            self.open -= 1

    async def _pass_on(
        self, source: trio.SocketStream, target: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError):  # a reset ends a connection too
            async with aclosing(self._parts(source, both)) as parts:
                async for part in parts:
                    await target.send_all(part)
        both.cancel("one side hung up")

    async def _answer(
        self, source: trio.SocketStream, target: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError):  # as above
            async with aclosing(self._parts(source, both)) as parts:
                async for part in parts:
                    await trio.sleep(self.delay_s)
                    await target.send_all(part)
        both.cancel("one side hung up")

    async def _parts(
        self, source: trio.SocketStream, both: trio.CancelScope
    ) -> AsyncGenerator[bytes, None]:
        """Yield the bytes as they come, PDU by PDU if one of them is to be swallowed."""
        unread = b""
        while block := await source.receive_some(BLOCK):
            if self._swallow is None:
                yield bytes(block)
                continue
            unread += block
            while (length := _length(unread)) and len(unread) >= length:
                pdu, unread = unread[:length], unread[length:]
                if self._is_swallowed(pdu):
                    both.cancel("the line is dead")
                    await trio.lowlevel.checkpoint()
                yield pdu

    def _is_swallowed(self, pdu: bytes) -> bool:
        for command in _commands(pdu):
            if command.CommandField == C_STORE_RQ:
                self.stores[str(command.AffectedSOPInstanceUID)] += 1
            self.finds += command.CommandField == C_FIND_RQ
            self._responses += command.CommandField == C_STORE_RSP
            if command.CommandField == C_STORE_RSP and self._responses == self._swallow:
                return True
        return False


@asynccontextmanager
async def relay(
    node: Peer,
    delay_s: float = 0.0,
    *,
    swallow: int | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[Relay]:
    """Run a relay to ``node`` while the block lasts, on a free port if none is given."""
    line = Relay(node, delay_s, swallow, host)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, line.serve, port, host=host)
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        line.port = listeners[0].socket.getsockname()[1]
        yield line
        nursery.cancel_scope.cancel("the relay ends")


def _length(unread: bytes) -> int:
    """The length of the first PDU with its header, 0 while that has not come."""
    return 6 + int.from_bytes(unread[2:6], "big") if len(unread) >= 6 else 0


def _commands(pdu: bytes) -> list[Dataset]:
    """The command sets in a PDU; the peers of the tests send each in one fragment."""
    if pdu[0] != P_DATA:
        return []
    data = P_DATA_TF()
    data.decode(pdu)
    values = [item.presentation_data_value or b"" for item in data.presentation_data_value_items]
    return [
        dsutils.decode(io.BytesIO(value[1:]), is_implicit_vr=True, is_little_endian=True)
        for value in values
        if value[:1] in {b"\1", b"\3"}
    ]
