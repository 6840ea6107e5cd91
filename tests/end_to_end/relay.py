"""A relay before a real node: it slows the node down and counts who came.

    with storescp(tmp_path, "+B") as disk:
        async with relayed(disk, delay_s=0.02) as slow:
            ...  # slow.port is the one to be configured

It forwards bytes and understands none of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from tests.end_to_end.site import Peer

BLOCK = 65536


class Relay:
    """``delay_s`` passes before each part of what the node answers; it may be changed any time.

    ``connections`` counts all there were, ``open`` those that there are.
    """

    def __init__(self, node: Peer, delay_s: float, host: str) -> None:
        self.ae_title = node.ae_title
        self.host = host
        self.port = 0
        self.delay_s = delay_s
        self.connections = 0
        self.open = 0
        self._node = node

    async def serve(self, caller: trio.SocketStream) -> None:
        """Bring one caller to the node, until either of them hangs up."""
        self.connections += 1
        self.open += 1
        try:
            async with (
                await trio.open_tcp_stream(self._node.host, self._node.port) as node,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._forward, caller, node, nursery.cancel_scope)
                nursery.start_soon(self._answer, node, caller, nursery.cancel_scope)
        finally:
            self.open -= 1

    async def _forward(
        self, source: trio.SocketStream, target: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        try:
            while block := await source.receive_some(BLOCK):
                await target.send_all(block)
        except trio.BrokenResourceError:
            pass  # a reset ends a connection too
        both.cancel("one side hung up")

    async def _answer(
        self, source: trio.SocketStream, target: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        try:
            while block := await source.receive_some(BLOCK):
                await trio.sleep(self.delay_s)
                await target.send_all(block)
        except trio.BrokenResourceError:
            pass  # as above
        both.cancel("one side hung up")


@asynccontextmanager
async def relayed(
    node: Peer, delay_s: float = 0.0, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Relay]:
    """Run a relay while the block lasts, on a free port if none is given."""
    relay = Relay(node, delay_s, host)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, relay.serve, port, host=host)
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        relay.port = listeners[0].socket.getsockname()[1]
        yield relay
        nursery.cancel_scope.cancel("the relay ends")
