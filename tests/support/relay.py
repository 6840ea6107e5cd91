"""A line to a node that swallows one of its C-STORE responses and goes dead with it.

    async with relay(node, swallow=3) as line:
        ...  # line.port, line.stores: what was asked of the node, by SOP Instance UID

By then the node has stored the instance, and the other end cannot know. What passes is read with
pynetdicom, nothing of the proxy's.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio
from pydicom.dataset import Dataset
from pynetdicom import dsutils
from pynetdicom.pdu import P_DATA_TF

from proxy.demo.node import DemoNode
from tests.support.peers import Node

C_STORE_RQ, C_FIND_RQ, C_STORE_RSP = 0x0001, 0x0020, 0x8001
P_DATA = 4


class Relay:
    """One line for as many connections as come; ``swallow`` counts responses over all of them."""

    def __init__(self, node: Node | DemoNode, port: int, swallow: int) -> None:
        self.host = "127.0.0.1"
        self.port = port
        self.ae_title = node.ae_title
        self.stores: Counter[str] = Counter()
        self.finds = 0
        self._node = node
        self._responses = 0
        self._swallow = swallow

    async def carry(self, client: trio.SocketStream) -> None:
        """Carry PDUs both ways until one end closes or a response is swallowed."""
        node = await trio.open_tcp_stream(self._node.host, self._node.port)
        with suppress(trio.BrokenResourceError):
            async with client, node, trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on, client, node, nursery.cancel_scope)
                nursery.start_soon(self._pass_on, node, client, nursery.cancel_scope)

    async def _pass_on(
        self, source: trio.SocketStream, sink: trio.SocketStream, line: trio.CancelScope
    ) -> None:
        unread = b""
        with suppress(trio.BrokenResourceError):
            while chunk := await source.receive_some():
                unread += chunk
                while (length := _length(unread)) and len(unread) >= length:
                    pdu, unread = unread[:length], unread[length:]
                    if self._is_swallowed(pdu):
                        line.cancel("the line is dead")
                    await sink.send_all(pdu)
        line.cancel("one end closed")

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
async def relay(node: Node | DemoNode, *, swallow: int) -> AsyncIterator[Relay]:
    """Lay a line to ``node`` while the block lasts."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    line = Relay(node, listener.socket.getsockname()[1], swallow)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, line.carry, [listener])
        yield line
        nursery.cancel_scope.cancel("the test is over")


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
