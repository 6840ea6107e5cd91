"""The connection of a simulated node: PDUs in, answers out, and misbehaviour in place of them."""

from __future__ import annotations

from random import Random
from typing import NoReturn

import trio

from proxy.simulation import node_bytes as codec
from proxy.simulation.misbehaviour import ALWAYS, Kind, Misbehaviour, Misbehaviours
from proxy.simulation.node_bytes import Violation

BURST_BYTES = 65536
MAX_CONTROL_BYTES = 1 << 20
"""The longest PDU without data that is read."""

FLOODS = (
    codec.PDU.pack(codec.P_DATA_TF, 0, 0),
    codec.RELEASE_REQUEST,
    codec.PDU.pack(codec.P_DATA_TF, 0, 6) + codec.PDV.pack(2, 1, 1),
    codec.data(1, codec.response({0x0100: b"\x01\x00"}, codec.SUCCESS, 0xFFFF), 0, is_command=True),
    codec.PDU.pack(codec.P_DATA_TF, 0, 0xFFFFFFFF),
)
OTHER_PROTOCOLS = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    b"\x15\x03\x01\x00\x02\x02\x28",
    b"220 mail.example ESMTP\r\n",
)
HUGE_PDU = codec.PDU.pack(codec.P_DATA_TF, 0, 0xFFFFFFFF) + bytes(60_000)


class ConnectionOver(Exception):
    """The connection is over, or is to be closed now."""


class NodeWire:
    """One connection; ``limit`` is the length of the longest P-DATA-TF to come, 0 for any."""

    def __init__(
        self,
        stream: trio.abc.Stream,
        rng: Random,
        answer_s: tuple[float, float],
        misbehaviours: Misbehaviours,
    ) -> None:
        self.limit = 0
        self._stream = stream
        self._rng = rng
        self._answer_s = answer_s
        self._misbehaviours = misbehaviours
        self._fires = misbehaviours.fires
        self._unread = bytearray()

    async def pdu(self) -> tuple[int, bytes]:
        """Read a PDU: its type and content."""
        await self._fill(6)
        kind, _, length = codec.PDU.unpack_from(self._unread)
        if not codec.ASSOCIATE_RQ <= kind <= codec.ABORT:
            raise Violation(f"PDU {kind:02X}H", codec.UNRECOGNIZED_PDU)
        limit = self.limit if kind == codec.P_DATA_TF else MAX_CONTROL_BYTES
        if limit and length > limit:
            raise Violation(f"PDU {kind:02X}H of {length} bytes")
        await self._fill(6 + length)
        body = bytes(memoryview(self._unread)[6 : 6 + length])
        del self._unread[: 6 + length]
        return kind, body

    async def _fill(self, count: int) -> None:
        """Receive until ``count`` bytes are there."""
        while (missing := count - len(self._unread)) > 0:
            await self._receive(missing if self._misbehaviours.count_bytes else BURST_BYTES)

    async def _receive(self, most: int) -> None:
        chunk = await self._stream.receive_some(most)
        if not chunk:
            raise ConnectionOver
        self._unread += chunk

    def put_back(self, fragments: bytes) -> None:
        """Have fragments that came behind a command come next, in a P-DATA-TF of their own."""
        if fragments:
            self._unread[:0] = codec.PDU.pack(codec.P_DATA_TF, 0, len(fragments)) + fragments

    async def wait_for_data(self, count: int) -> None:
        """Receive until ``count`` bytes of the data set are there, or its end is."""
        while True:
            ahead, is_end = self._data_ahead()
            if is_end or ahead >= count:
                return
            await self._receive(count - ahead)

    def _data_ahead(self) -> tuple[int, bool]:
        """Return how much of the data set is there, not taken yet, and whether its end is."""
        unread = self._unread
        count = at = 0
        while at + 6 <= len(unread):
            kind, _, length = codec.PDU.unpack_from(unread, at)
            if kind != codec.P_DATA_TF:
                return count, True
            at, end = at + 6, at + 6 + length
            while at < end and at + 6 <= len(unread):
                size, _, control = codec.PDV.unpack_from(unread, at)
                at += 4 + size
                count += min(size - 2, len(unread) - at + size - 2)
                if control & 2 and at <= len(unread):
                    return count, True
            at = end
        return count, False

    async def answer(self, content: bytes) -> None:
        """Send an answer after the time that it takes, or what comes in place of it."""
        await self.take_time()
        await self.send(content)

    async def take_time(self) -> None:
        """Let the time pass that an answer takes."""
        await trio.sleep(self._rng.uniform(*self._answer_s))
        if late := self._fires(Kind.LATE):
            await trio.sleep(late.seconds)

    async def send(self, content: bytes) -> None:
        """Send an answer, or misbehave."""
        if garbage := self._fires(Kind.GARBAGE):
            choice = garbage.code % (1 + len(OTHER_PROTOCOLS))
            by_chance = b"\xff" + self._rng.randbytes(255)
            await self._send_last(OTHER_PROTOCOLS[choice - 1] if choice else by_chance)
        if self._fires(Kind.HALF_PDU):
            await self._send_last(content[: len(content) // 2])
        if self._fires(Kind.HUGE_PDU):
            await self._send_last(HUGE_PDU)
        if flood := self._fires(Kind.FLOOD):
            await self._flood(flood)
        if drip := self._fires(Kind.DRIP):
            for at in range(len(content) - 1):
                await self._stream.send_all(content[at : at + 1])
                await trio.sleep(drip.seconds)
            content = content[-1:]
        await self._stream.send_all(content)

    async def send_now(self, content: bytes) -> None:
        """Send what is no answer."""
        await self._stream.send_all(content)

    async def abort(self, code: int) -> NoReturn:
        """Send A-ABORT and end; ``code`` is 0xSSTT: source, reason."""
        await self._stream.send_all(codec.abort(code))
        raise ConnectionOver

    async def be_silent(self) -> NoReturn:
        """Read on, and ignore it."""
        while await self._stream.receive_some(BURST_BYTES):
            pass
        raise ConnectionOver

    async def _send_last(self, content: bytes) -> NoReturn:
        await self._stream.send_all(content)
        await self.be_silent()

    async def _flood(self, flood: Misbehaviour) -> NoReturn:
        pdu = FLOODS[flood.code % len(FLOODS)]
        each = BURST_BYTES // len(pdu)
        burst = pdu * each
        left = -(-flood.after // len(pdu)) or ALWAYS
        while left > 0:
            await self._stream.send_all(burst[: left * len(pdu)])
            left -= each
            if flood.seconds:
                await trio.sleep(flood.seconds)
        await self.be_silent()
