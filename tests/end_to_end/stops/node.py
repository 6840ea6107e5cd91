"""A node that behaves up to one phase of an association, and stalls there for good.

Raw sockets, and encoders that are not the proxy's. The node itself records its input, its answers,
and the moment its end of the connection was gone.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import trio
from pydicom.dataset import Dataset
from pynetdicom import dsutils
from pynetdicom.pdu import A_ASSOCIATE_RQ

from tests.dicom.scripted import Peer, accept, command, data, pdv, reject, response

INSTANCES = 3
"""The number of instances sent; the phases within a C-STORE are those of the second."""
LOOK_S = 0.02
KERNEL_LOOK_S = 0.05
"""Between two looks at the kernel's table of connections: some milliseconds of work each time."""
DRIP_S = 1.0
SMALL_WINDOW = 64 * 1024
VERIFICATION = "1.2.840.10008.1.1"
ESTABLISHED, SYN_SENT = 1, "02"
C_STORE_RSP, C_ECHO_RSP = 0x8001, 0x8030


class Phase(Enum):
    """The phases in which a node stalls; the table prints the values."""

    SYN = "SYN unanswered"
    ASSOCIATE = "A-ASSOCIATE-RQ unanswered"
    ASSOCIATE_DRIP = "A-ASSOCIATE-AC at 1 byte/s"
    ZERO_WINDOW = "zero window in an instance"
    RESPONSE = "C-STORE-RSP missing"
    RESPONSE_DRIP = "C-STORE-RSP at 1 byte/s"
    RELEASE = "A-RELEASE-RP missing"

    @property
    def is_opening(self) -> bool:
        """Whether there is no association yet: nothing is in flight, and no grace is due."""
        return self in {Phase.SYN, Phase.ASSOCIATE, Phase.ASSOCIATE_DRIP}


class StallingNode:
    """One node. C-ECHO works; without a phase, or when it stalls, it rejects the others.

    ``reached`` is set when it stalls, ``gone_at`` is when the connection was no more, ``whole``
    and ``answered`` are the SOP instance UIDs it has had in full and has said success of.
    """

    ae_title = "NODE"
    host = "127.0.0.1"

    def __init__(self, phase: Phase | None = None) -> None:
        self.port = 0
        self.echoed = trio.Event()
        self.rejected = trio.Event()
        self.reached = trio.Event()
        self.gone = trio.Event()
        self.gone_at = 0.0
        self.whole: set[str] = set()
        self.answered: set[str] = set()
        self.connections = 0
        """The number of open connections, as this end sees it."""
        self._phase = phase
        self._accepting = trio.CancelScope()
        self._deaf = trio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[StallingNode]:
        """Listen while the block lasts."""
        with trio.socket.socket() as self._listener:
            if self._phase is Phase.ZERO_WINDOW:
                self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
            await self._listener.bind((self.host, 0))
            self._listener.listen(16)
            self.port = self._listener.getsockname()[1]
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._accept)
                yield self
                self._nursery.cancel_scope.cancel("the node ends")

    async def prepare(self) -> None:
        """Be ready to stall: for an unanswered SYN, let the queue of the listener be full."""
        if self._phase is Phase.SYN:
            self._accepting.cancel("the node accepts no more")
            await self._deaf.wait()
            self._listener.listen(0)
            await self._nursery.start(self._be_deaf)

    async def _be_deaf(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Have the queue full for as long as one waits; answer admit_all afterwards."""
        with trio.socket.socket() as filler:
            await filler.connect((self.host, self.port))
            task_status.started()
            await self._watch_syn()
        self._listener.listen(16)
        self._accepting = trio.CancelScope()
        await self._accept()

    async def _watch_syn(self) -> None:
        while not (first := self._askers()):  # noqa: ASYNC110 - only the kernel knows
            await trio.sleep(KERNEL_LOOK_S)
        self.reached.set()
        while first & self._askers():  # noqa: ASYNC110 - as above
            await trio.sleep(KERNEL_LOOK_S)
        self._note_gone()

    def _askers(self) -> frozenset[int]:
        """The ports of those who wait for the answer to a SYN; only the kernel knows."""
        tick = int(trio.current_time() / KERNEL_LOOK_S)
        return frozenset(asker for asker, asked in _unanswered(tick) if asked == self.port)

    async def _accept(self) -> None:
        with self._accepting:
            while True:
                accepted, _ = await self._listener.accept()
                self._nursery.start_soon(self._serve, accepted)
        self._deaf.set()

    async def _serve(self, accepted: trio.socket.SocketType) -> None:
        self.connections += 1
        try:
            async with trio.SocketStream(accepted) as stream:
                await self._play(Peer(stream), accepted)
        except (trio.BrokenResourceError, AssertionError):
            pass  # the proxy went away: what was to come of it shows elsewhere
        finally:
            self.connections -= 1

    async def _play(self, peer: Peer, at: trio.socket.SocketType) -> None:
        abstract_syntaxes, contexts = _proposed(*await peer.pdu())
        if abstract_syntaxes == {VERIFICATION}:
            await peer.send(accept(contexts))
            await self._answer(peer, 0, has_data=False)
            self.echoed.set()
            await peer.finish()
        elif self._phase is None or self.reached.is_set():
            await peer.send(reject(1, 1, 7))
            self.rejected.set()
            await peer.until_end()
        elif self._phase is Phase.ASSOCIATE:
            await self._stall(at)
        elif self._phase is Phase.ASSOCIATE_DRIP:
            await self._drip(peer, at, accept(contexts))
        else:
            await peer.send(accept(contexts))
            await self._store(peer, at)

    async def _store(self, peer: Peer, at: trio.socket.SocketType) -> None:
        """Take the first instance, stall within the second, or take all and stall after them."""
        await self._answer(peer, 0)
        match self._phase:
            case Phase.ZERO_WINDOW:
                for _ in range(4):
                    await peer.pdu()
                await _until_full(at)
                await self._stall(at)
            case Phase.RESPONSE:
                await self._request(peer)
                await self._stall(at)
            case Phase.RESPONSE_DRIP:
                await self._drip(peer, at, _store_response(await self._request(peer)))
            case _:
                for _ in range(INSTANCES - 1):
                    await self._answer(peer, 0)
                kind, _ = await peer.pdu()
                assert kind == 5
                await self._stall(at)

    async def _request(self, peer: Peer, *, has_data: bool = True) -> Dataset:
        """Read one message and note the instance that is whole with it."""
        encoded, _ = await peer.message(has_data=has_data)
        request = dsutils.decode(BytesIO(encoded), True, True)
        if has_data:
            self.whole.add(str(request.AffectedSOPInstanceUID))
        return request

    async def _answer(self, peer: Peer, status: int, *, has_data: bool = True) -> None:
        request = await self._request(peer, has_data=has_data)
        if has_data:
            self.answered.add(str(request.AffectedSOPInstanceUID))
            await peer.send(_store_response(request, status))
        else:
            answer = response(status, request.MessageID, kind=C_ECHO_RSP)
            await peer.send(data(pdv(command(answer))))

    async def _stall(self, at: trio.socket.SocketType) -> None:
        """Do nothing any more until the connection is gone."""
        self.reached.set()
        while _state(at) == ESTABLISHED:  # noqa: ASYNC110 - as above
            await trio.sleep(LOOK_S)
        self._note_gone()

    async def _drip(self, peer: Peer, at: trio.socket.SocketType, content: bytes) -> None:
        """Send a byte each second until the connection is gone."""

        async def send() -> None:
            for byte in content:
                await peer.send(bytes((byte,)))
                await trio.sleep(DRIP_S)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await self._stall(at)
            nursery.cancel_scope.cancel("the connection is gone")

    def _note_gone(self) -> None:
        self.gone_at = trio.current_time()
        self.gone.set()


def _proposed(kind: int, body: bytes) -> tuple[set[str], dict[int, tuple[int, str]]]:
    """Decode A-ASSOCIATE-RQ: the abstract syntaxes, and an acceptance of every context."""
    assert kind == 1
    request = A_ASSOCIATE_RQ()
    request.decode(struct.pack(">BBI", 1, 0, len(body)) + body)
    contexts = request.presentation_context
    abstract_syntaxes = {str(context.abstract_syntax) for context in contexts}
    return abstract_syntaxes, {c.context_id or 0: (0, str(c.transfer_syntax[0])) for c in contexts}


def _store_response(request: Dataset, status: int = 0) -> bytes:
    uid = str(request.AffectedSOPInstanceUID)
    return data(pdv(command(response(status, request.MessageID, uid, kind=C_STORE_RSP))))


def _state(at: trio.socket.SocketType) -> int:
    """The state of a TCP connection (TCP_INFO's first byte): heard without reading from it."""
    return at.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


async def _until_full(at: trio.socket.SocketType) -> None:
    """Wait until nothing more comes in, though nothing was read: the window is closed."""
    before = -1
    while (queued := _unread(at)) != before:
        before = queued
        await trio.sleep(5 * LOOK_S)


def _unread(at: trio.socket.SocketType) -> int:
    count = bytearray(4)
    fcntl.ioctl(at.fileno(), termios.FIONREAD, count)
    return int.from_bytes(count, sys.byteorder)


@lru_cache(maxsize=1)
def _unanswered(tick: int) -> frozenset[tuple[int, int]]:
    """From which port of this host to which a SYN was sent that is not answered."""
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    ports = (
        [int(address.partition(":")[2], 16) for address in row[1:3]]
        for row in rows
        if row[3] == SYN_SENT
    )
    return frozenset((asker, asked) for asker, asked in ports)
