"""A receiver that discards as fast as it can: ``sink.py LISTENER [reject]``.

LISTENER is the number of a listening socket that it inherits; it serves one association after the
other. The kernel throws the data sets away (``MSG_TRUNC``, see tcp(7)): no byte of them gets
here. With ``reject`` no association is taken. It is for senders that behave.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator

MAX_PDU = 128 * 1024
ASSOCIATE_RQ, DATA, RELEASE_RQ = 1, 4, 5
"""The types of PDU that a sender sends (PS3.8 section 9.3)."""

ASSOCIATE_RJ = bytes((3, 0, 0, 0, 0, 4, 0, 1, 1, 1))
RELEASE_RP = bytes((6, 0, 0, 0, 0, 4, 0, 0, 0, 0))
FIXED_FIELDS = 68
APPLICATION_CONTEXT, IMPLEMENTATION = b"1.2.840.10008.3.1.1.1", b"1.2.826.0.1.3680043.8.498.1"
COMMAND, LAST = 1, 2
"""Bits of a PDV's message control header (PS3.8 section E.2)."""

SOP_CLASS, FIELD, MESSAGE_ID, ANSWERED_ID = 0x0002, 0x0100, 0x0110, 0x0120
DATA_SET, STATUS, SOP_INSTANCE = 0x0800, 0x0900, 0x1000
"""Elements of group 0000 (PS3.7 section E.1)."""

C_STORE_RSP, NO_DATA_SET, SUCCESS = b"\x01\x80", b"\x01\x01", b"\0\0"


def main(listener: socket.socket, *, rejects: bool) -> None:
    """Serve until the process is ended."""
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve(connection, rejects=rejects)


def serve(connection: socket.socket, *, rejects: bool) -> None:
    """Answer what comes over one connection until its association is over."""
    waste = bytearray(MAX_PDU)
    command = b""
    while header := take(connection, 6):
        kind, length = struct.unpack(">BxI", header)
        if kind == ASSOCIATE_RQ:
            request = take(connection, length)
            connection.sendall(ASSOCIATE_RJ if rejects else accept(request))
        elif kind == RELEASE_RQ:
            take(connection, length)
            connection.sendall(RELEASE_RP)
        elif kind == DATA:
            while length:
                size, context_id, control = struct.unpack(">IBB", take(connection, 6))
                length -= 4 + size
                if control & COMMAND:
                    command += take(connection, size - 2)
                    continue
                connection.recv_into(waste, size - 2, socket.MSG_TRUNC | socket.MSG_WAITALL)
                if control & LAST:
                    connection.sendall(response(context_id, command))
                    command = b""
        else:
            return


def take(connection: socket.socket, count: int) -> bytes:
    """Receive so many bytes; fewer at the end of the stream."""
    return connection.recv(count, socket.MSG_WAITALL)


def accept(request: bytes) -> bytes:
    """Accept every context that is proposed, with its first transfer syntax."""
    contexts = b""
    for kind, content in items(request[FIXED_FIELDS:]):
        if kind == 0x20:
            syntax = next(uid for sub_kind, uid in items(content[4:]) if sub_kind == 0x40)
            contexts += item(0x21, content[:1] + bytes(3) + item(0x40, syntax))
    user = item(0x51, MAX_PDU.to_bytes(4, "big")) + item(0x52, IMPLEMENTATION)
    body = item(0x10, APPLICATION_CONTEXT) + contexts + item(0x50, user)
    return pdu(2, request[:FIXED_FIELDS] + body)


def response(context_id: int, command: bytes) -> bytes:
    """Say success to a C-STORE (PS3.7 section 9.3.1.2)."""
    asked = dict(elements(command))
    body = (
        element(SOP_CLASS, asked[SOP_CLASS])
        + element(FIELD, C_STORE_RSP)
        + element(ANSWERED_ID, asked[MESSAGE_ID])
        + element(DATA_SET, NO_DATA_SET)
        + element(STATUS, SUCCESS)
        + element(SOP_INSTANCE, asked[SOP_INSTANCE])
    )
    whole = element(0, len(body).to_bytes(4, "little")) + body
    return pdu(4, struct.pack(">IBB", len(whole) + 2, context_id, COMMAND | LAST) + whole)


def pdu(kind: int, body: bytes) -> bytes:
    """Put its header before a PDU."""
    return struct.pack(">BxI", kind, len(body)) + body


def item(kind: int, content: bytes) -> bytes:
    """Put its header before an item of an association's answer."""
    return struct.pack(">BxH", kind, len(content)) + content


def items(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk through items."""
    at = 0
    while at < len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        yield kind, body[at + 4 : at + 4 + length]
        at += 4 + length


def element(number: int, value: bytes) -> bytes:
    """Encode an element of a command set, in Implicit VR Little Endian."""
    return struct.pack("<HHI", 0, number, len(value)) + value


def elements(command: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk through a command set."""
    at = 0
    while at < len(command):
        number, length = struct.unpack_from("<2xHI", command, at)
        yield number, command[at + 8 : at + 8 + length]
        at += 8 + length


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), rejects="reject" in sys.argv[2:])
