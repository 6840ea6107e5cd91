"""A network in memory, for a virtual clock: the node's end is a stream that a test's script uses.

    network = VirtualNetwork({("pacs", 104): script})

Each direction holds ``capacity`` bytes; a full one blocks its writer as a TCP window would.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import trio

from proxy.errors import AssociationLost
from proxy.runtime.wire import Buffer, Wire, lost, unreachable

CAPACITY = 100_000


class Pipe:
    """Bytes on their way in one direction; ``changed`` wakes the tasks that wait at either end."""

    def __init__(self, capacity: int, changed: trio.lowlevel.ParkingLot) -> None:
        self.held = bytearray()
        self.ended = False
        self._capacity = capacity
        self._changed = changed

    @property
    def space(self) -> int:
        return self._capacity - len(self.held)

    def put(self, data: Buffer) -> int:
        taken = min(len(data), self.space)
        self.held += data[:taken]
        self._changed.unpark_all()
        return taken

    def take(self, most: int = 65536) -> bytes:
        taken = bytes(self.held[:most])
        del self.held[:most]
        self._changed.unpark_all()
        return taken

    def end(self) -> None:
        self.ended = True
        self._changed.unpark_all()


class VirtualWire:
    """Our end."""

    def __init__(self, outward: Pipe, inward: Pipe, changed: trio.lowlevel.ParkingLot) -> None:
        self.local = "192.0.2.10"
        self.was_reset = False
        self._outward = outward
        self._inward = inward
        self._changed = changed

    async def send_some(self, buffers: Sequence[Buffer]) -> int:
        await trio.lowlevel.checkpoint()
        while not self._outward.space and not self._inward.ended:
            if self._inward.held:
                return 0
            await self._changed.park()
        self._raise_if_gone()
        taken = 0
        for buffer in buffers:
            count = self._outward.put(buffer)
            taken += count
            if count < len(buffer):
                break
        return taken

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while (data := self.receive_now()) is None:
            await self._changed.park()
        return data

    def receive_now(self) -> bytes | None:
        if self._inward.held or self._inward.ended:
            return self._inward.take()
        return None

    def send_now(self, data: bytes) -> bool:
        if self._outward.space < len(data) or self._outward.ended:
            return False
        return self._outward.put(data) == len(data)

    def queued(self) -> int:
        return len(self._outward.held)

    def close(self, *, reset: bool = False) -> None:
        if not self._outward.ended:
            self.was_reset = reset
            if reset:
                self._outward.held.clear()
            self._outward.end()

    def _raise_if_gone(self) -> None:
        if self._inward.ended:
            raise self._gone()

    def _gone(self) -> AssociationLost:
        return lost("closed")


class VirtualStream(trio.abc.Stream):
    """The node's end, used by a script as it would use a socket's stream."""

    def __init__(self, outward: Pipe, inward: Pipe, changed: trio.lowlevel.ParkingLot) -> None:
        self._outward = outward
        self._inward = inward
        self._changed = changed

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        left = memoryview(bytes(data))
        await trio.lowlevel.checkpoint()
        while left:
            if taken := self._outward.put(left):
                left = left[taken:]
            else:
                await self._changed.park()

    async def wait_send_all_might_not_block(self) -> None:
        while not self._outward.space:
            await self._changed.park()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not (self._inward.held or self._inward.ended):
            await self._changed.park()
        return self._inward.take(max_bytes or 65536)

    async def aclose(self) -> None:
        self._outward.end()
        await trio.lowlevel.checkpoint()


Handler: TypeAlias = Callable[[VirtualStream], Awaitable[None]]


class VirtualNetwork:
    """Nodes by host and port; each connection is handled in ``nursery``."""

    def __init__(
        self,
        nursery: trio.Nursery,
        nodes: Mapping[tuple[str, int], Handler],
        *,
        capacity: int = CAPACITY,
        delay: float = 0.001,
    ) -> None:
        self.wires: list[VirtualWire] = []
        self._nursery = nursery
        self._nodes = nodes
        self._capacity = capacity
        self._delay = delay

    async def connect(self, host: str, port: int) -> Wire:
        await trio.sleep(self._delay)
        handler = self._nodes.get((host, port))
        if handler is None:
            raise unreachable("ECONNREFUSED")
        changed = trio.lowlevel.ParkingLot()
        there, back = Pipe(self._capacity, changed), Pipe(self._capacity, changed)
        wire = VirtualWire(there, back, changed)
        self.wires.append(wire)
        self._nursery.start_soon(self._handle, handler, VirtualStream(back, there, changed))
        return wire

    async def _handle(self, handler: Handler, stream: VirtualStream) -> None:
        async with stream:
            await handler(stream)
