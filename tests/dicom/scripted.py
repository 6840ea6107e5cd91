"""A node over a real socket that does exactly what a test's script says, bytes and all.

Its encoders are this file's and pynetdicom's; nothing of ``proxy.dicom`` is used.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import trio
from pydicom.dataset import Dataset
from pynetdicom import dsutils
from pynetdicom.pdu import A_ASSOCIATE_RQ

from proxy.dicom.association import Target
from proxy.machines.upper_layer import Clocks
from tests.support.waiting import PATIENCE_S

CLOCKS = Clocks(
    connect=60, answer=60, stall=60, response=60, response_per_megabyte=0, release=0.3, abort=0.05
)
"""For tests in which nothing is late."""

RELEASE_RQ = bytes.fromhex("05000000000400000000")
RELEASE_RP = bytes.fromhex("06000000000400000000")
ASSOCIATE_RQ = bytes.fromhex("0100 0000 0044 0001 0000") + bytes(64)
GARBAGE = bytes.fromhex("4500 0000 0004 0000 0000")


def abort(source: int = 0, reason: int = 0) -> bytes:
    return bytes((7, 0, 0, 0, 0, 4, 0, 0, source, reason))


def reject(result: int, source: int, reason: int) -> bytes:
    return bytes((3, 0, 0, 0, 0, 4, 0, result, source, reason))


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def accept(
    contexts: dict[int, tuple[int, str]], max_pdu_size: int = 16384, extra: bytes = b""
) -> bytes:
    """A-ASSOCIATE-AC: context id to result and syntax; ``extra`` are more user sub-items."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for context_id, (result, syntax) in contexts.items():
        answer = bytes((context_id, 0, result, 0)) + item(0x40, syntax.encode())
        items += item(0x21, answer)
    user = item(0x51, max_pdu_size.to_bytes(4, "big")) + item(0x52, b"1.2.3.4") + extra
    body = bytes((0, 1, 0, 0)) + b"NODE".ljust(16) * 2 + bytes(32) + items + item(0x50, user)
    return struct.pack(">BBI", 2, 0, len(body)) + body


def pdv(fragment: bytes, *, control: int = 3, context_id: int = 1) -> bytes:
    return struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment


def data(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return struct.pack(">BBI", 4, 0, len(body)) + body


def command(elements: Dataset) -> bytes:
    """Encode a command set by pynetdicom, with its group length."""
    encoded = dsutils.encode(elements, is_implicit_vr=True, is_little_endian=True)
    assert encoded is not None
    return struct.pack("<HHII", 0, 0, 4, len(encoded)) + encoded


def response(status: int, message_id: int = 1, uid: str = "", kind: int = 0x8001) -> Dataset:
    elements = Dataset()
    elements.CommandField = kind
    elements.MessageIDBeingRespondedTo = message_id
    elements.CommandDataSetType = 0x0101
    elements.Status = status
    if uid:
        elements.AffectedSOPInstanceUID = uid
    return elements


class Peer:
    """The node's end of one connection; ``context_id`` is that of the last message."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.context_id = 1
        self._unread = bytearray()

    async def send(self, *parts: bytes) -> None:
        await self.stream.send_all(b"".join(parts))

    async def pdu(self) -> tuple[int, bytes]:
        """Read one PDU: its type and what follows its length."""
        header = await self._exactly(6)
        return header[0], await self._exactly(int.from_bytes(header[2:], "big"))

    async def request(self) -> dict[int, str]:
        """Read A-ASSOCIATE-RQ; return the first syntax of each context proposed."""
        kind, body = await self.pdu()
        assert kind == 1
        request = A_ASSOCIATE_RQ()
        request.decode(struct.pack(">BBI", 1, 0, len(body)) + body)
        return {c.context_id or 0: str(c.transfer_syntax[0]) for c in request.presentation_context}

    async def accept_all(self, max_pdu_size: int = 16384, extra: bytes = b"") -> None:
        """Read A-ASSOCIATE-RQ and accept everything."""
        proposed = await self.request()
        contexts = {context_id: (0, syntax) for context_id, syntax in proposed.items()}
        await self.send(accept(contexts, max_pdu_size, extra))

    async def message(self, *, has_data: bool = True) -> tuple[bytes, bytes]:
        """Read one message: command set, data set."""
        parts = {1: b"", 0: b""}
        last: set[int] = set()
        while last != ({0, 1} if has_data else {1}):
            kind, body = await self.pdu()
            assert kind == 4, f"PDU {kind}"
            at = 0
            while at < len(body):
                length, _, control = struct.unpack_from(">IBB", body, at)
                parts[control & 1] += body[at + 6 : at + 4 + length]
                at += 4 + length
                if control & 2:
                    last.add(control & 1)
        return parts[1], parts[0]

    async def command_or_release(self) -> bytes | None:
        """Read one message and return its command set; answer a request for release with None."""
        message = await self.message_or_release()
        return message and message[0]

    async def message_or_release(self) -> tuple[bytes, bytes] | None:
        """Read one message: command set, data set; answer a request for release with None."""
        parts = {1: b"", 0: b""}
        while True:
            kind, body = await self.pdu()
            if kind == 5:
                await self.send(RELEASE_RP)
                return None
            length, self.context_id, control = struct.unpack_from(">IBB", body)
            assert length + 4 == len(body)
            parts[control & 1] += body[6:]
            # (0000,0800) is 0101H where no data set follows
            has_data = b"\x00\x00\x00\x08\x02\x00\x00\x00\x01\x01" not in parts[1]
            if control == 2 or (control == 3 and not has_data):
                return parts[1], parts[0]

    def read_ahead(self, chunk: bytes | bytearray) -> None:
        """Keep what a script has read from the stream itself."""
        self._unread += chunk

    async def message_rest(self) -> None:
        """Read P-DATA-TF up to the last fragment of a data set."""
        while True:
            kind, body = await self.pdu()
            assert kind == 4
            if body[5] == 2:
                return

    async def until_end(self) -> bytes:
        """Read to the end of the stream, however it comes."""
        try:
            while chunk := await self.stream.receive_some():
                self._unread += chunk
        except trio.BrokenResourceError:
            pass
        return bytes(self._unread)

    async def finish(self) -> None:
        """Read A-RELEASE-RQ, answer, and wait for the other end to close."""
        kind, _ = await self.pdu()
        assert kind == 5
        await self.send(RELEASE_RP)
        await self.until_end()

    def reset(self) -> None:
        """Close with a TCP reset."""
        assert isinstance(self.stream, trio.SocketStream)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()

    async def _exactly(self, count: int) -> bytes:
        while len(self._unread) < count:
            chunk = await self.stream.receive_some()
            assert chunk, "the association's side closed"
            self._unread += chunk
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        return taken


Script: TypeAlias = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def scripted(*scripts: Script, receive_buffer: int = 0) -> AsyncIterator[Target]:
    """Listen, and follow one script for each connection that comes; each must be followed."""
    done = trio.Event()
    left = list(scripts)

    async def handle(stream: trio.SocketStream) -> None:
        script = left.pop(0)
        async with stream:
            await script(Peer(stream))
        if not left:
            done.set()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    if receive_buffer:
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, [listener])
        yield Target("127.0.0.1", listener.socket.getsockname()[1], "NODE", "ITH")
        with trio.fail_after(PATIENCE_S):
            await done.wait()
        nursery.cancel_scope.cancel("the scripts are done")
