"""The PDUs of the DICOM upper layer as a requestor sends and receives them (PS3.8 section 9.3).

Bytes in, values out; no socket. :class:`PduReader` cuts a stream into PDUs and never holds more
than one of bounded length, whatever length is announced.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import msgspec

from proxy.machines.upper_layer import UNRECOGNIZED_PDU

MAX_RECEIVED_BYTES = 1 << 20
"""The longest PDU that is read. We announce less, and a longer answer is invalid."""

ALLOWANCE = 1000
"""The most PDUs and fragments that may answer one request; an answer needs a few."""

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLEMENTATION_CLASS_UID = "2.25.210114928081464648474414623819894397032"
IMPLEMENTATION_VERSION = "ITH-PROXY-2"

RELEASE_RQ = bytes((5, 0, 0, 0, 0, 4, 0, 0, 0, 0))
RELEASE_RP = bytes((6, 0, 0, 0, 0, 4, 0, 0, 0, 0))
NOT_SPECIFIED = 0
INVALID_PARAMETER = 6

_PDV = struct.Struct(">BBIIBB")
_FIXED_FIELDS = 68
_HEAD_BYTES = 64


class InvalidPdu(Exception):
    """A PDU that cannot be understood; ``reason`` is the one A-ABORT gives (PS3.8 Table 9-26).

    ``head`` is its beginning, as far as it has come.
    """

    def __init__(self, fault: str, reason: int = INVALID_PARAMETER, head: bytes = b"") -> None:
        super().__init__(fault)
        self.reason = reason
        self.head = head


class Proposal(msgspec.Struct, frozen=True):
    """One presentation context to propose."""

    sop_class_uid: str
    transfer_syntax_uids: tuple[str, ...]


class Accept(msgspec.Struct, frozen=True):
    """A-ASSOCIATE-AC: for each context its result and syntax, and the longest PDU the node reads.

    If the node answers a context twice, an acceptance goes before a refusal.
    ``max_pdu_size`` is the length after the six bytes of PDU header; 0 is unlimited.
    """

    contexts: dict[int, tuple[int, str]]
    max_pdu_size: int


class Reject(msgspec.Struct, frozen=True):
    """A-ASSOCIATE-RJ."""

    result: int
    source: int
    reason: int


class AssociateRequest(msgspec.Struct, frozen=True):
    """A-ASSOCIATE-RQ, which nobody should send to a requestor."""


class Pdv(msgspec.Struct, frozen=True):
    """A fragment of a message."""

    context_id: int
    is_command: bool
    is_last: bool
    fragment: bytes


class Data(msgspec.Struct, frozen=True):
    """P-DATA-TF."""

    pdvs: tuple[Pdv, ...]


class ReleaseRequest(msgspec.Struct, frozen=True):
    """A-RELEASE-RQ."""


class ReleaseReply(msgspec.Struct, frozen=True):
    """A-RELEASE-RP."""


class PeerAbort(msgspec.Struct, frozen=True):
    """A-ABORT."""

    source: int
    reason: int


Received: TypeAlias = (
    Accept | Reject | AssociateRequest | Data | ReleaseRequest | ReleaseReply | PeerAbort
)


def encode_associate_request(
    called_ae_title: str,
    calling_ae_title: str,
    proposals: Mapping[int, Proposal],
    max_pdu_size: int,
) -> bytes:
    """Encode A-ASSOCIATE-RQ; ``proposals`` by presentation context id."""
    items = _item(0x10, APPLICATION_CONTEXT.encode())
    for context_id, proposal in proposals.items():
        syntaxes = b"".join(_item(0x40, uid.encode()) for uid in proposal.transfer_syntax_uids)
        abstract = _item(0x30, proposal.sop_class_uid.encode("latin-1"))
        items += _item(0x20, bytes((context_id, 0, 0, 0)) + abstract + syntaxes)
    items += _item(
        0x50,
        _item(0x51, max_pdu_size.to_bytes(4, "big"))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
        + _item(0x55, IMPLEMENTATION_VERSION.encode()),
    )
    titles = encode_ae_title(called_ae_title) + encode_ae_title(calling_ae_title)
    return _pdu(1, struct.pack(">HH", 1, 0) + titles + bytes(32) + items)


def encode_ae_title(title: str) -> bytes:
    """Encode an AE title in its 16 bytes (PS3.5 section 6.2); ``ValueError`` if it is none."""
    trimmed = title.strip(" ")
    plain = trimmed.isascii() and trimmed.isprintable() and "\\" not in trimmed
    if not (plain and 1 <= len(trimmed) <= 16):
        raise ValueError("an AE title is 1 to 16 plain ASCII characters without backslash")
    return trimmed.encode("ascii").ljust(16)


def encode_abort(source: int, reason: int) -> bytes:
    """Encode A-ABORT."""
    return _pdu(7, bytes((0, 0, source, reason)))


def encode_pdv_header(context_id: int, length: int, *, is_command: bool, is_last: bool) -> bytes:
    """Encode the headers of a P-DATA-TF PDU with one PDV of ``length`` bytes."""
    return _PDV.pack(4, 0, length + 6, length + 2, context_id, is_command | is_last << 1)


def fragments(
    data: memoryview, context_id: int, size: int, *, is_command: bool = False, is_last: bool = True
) -> Iterator[bytes | memoryview]:
    """Cut ``data`` into fragments of ``size`` bytes, each behind the headers of its own PDU."""
    full = encode_pdv_header(context_id, size, is_command=is_command, is_last=False)
    at = 0
    while len(data) - at > size:
        yield full
        yield data[at : at + size]
        at += size
    rest = len(data) - at
    yield encode_pdv_header(context_id, rest, is_command=is_command, is_last=is_last)
    yield data[at:]


class PduReader:
    """Cuts the received bytes into PDUs.

    After an invalid PDU the stream cannot be cut any more: ``is_broken`` is set, and all further
    bytes are dropped.
    """

    def __init__(self, limit: int = MAX_RECEIVED_BYTES) -> None:
        self.is_broken = False
        self._limit = limit
        self._unread = bytearray()
        self._allowance = ALLOWANCE

    def allow(self) -> None:
        """Renew the allowance of PDUs for the answer to a further request."""
        self._allowance = ALLOWANCE

    def feed(self, data: bytes) -> None:
        """Add bytes; take the PDUs from :meth:`pdus` then."""
        if not self.is_broken:
            self._unread += data

    def pdus(self) -> Iterator[Received]:
        """Take the PDUs that are complete.

        Raises :class:`InvalidPdu` for an unknown type, an over-long length or broken contents, and
        if more arrives than the allowance.
        """
        try:
            while (received := self._next()) is not None:
                yield received
        except InvalidPdu:
            self.is_broken = True
            self._unread.clear()
            raise

    def _next(self) -> Received | None:
        head = bytes(self._unread[:_HEAD_BYTES])
        if len(head) < 6:
            return None
        kind, length = head[0], int.from_bytes(head[2:6], "big")
        if kind not in _DECODERS:
            raise InvalidPdu(f"unknown PDU type {kind:02X}H", UNRECOGNIZED_PDU, head)
        if length > self._limit:
            raise InvalidPdu(f"a PDU of {length} bytes", head=head)
        if len(self._unread) < 6 + length:
            return None
        body = bytes(self._unread[6 : 6 + length])
        del self._unread[: 6 + length]
        try:
            received = _DECODERS[kind](body)
        except (IndexError, ValueError, struct.error) as error:
            raise InvalidPdu(f"a broken PDU of type {kind:02X}H") from error
        self._allowance -= len(received.pdvs) + 1 if isinstance(received, Data) else 1
        if self._allowance < 0:
            raise InvalidPdu("more than was asked for", NOT_SPECIFIED)
        return received


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body)) + body


def _items(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk through items or sub-items; the caller skips unknown ones."""
    at = count = 0
    while at < len(body):
        count += 1
        if count > ALLOWANCE:
            raise ValueError("items without end")
        kind, _, length = struct.unpack_from(">BBH", body, at)
        content = body[at + 4 : at + 4 + length]
        if len(content) < length:
            raise ValueError("an item is longer than its container")
        yield kind, content
        at += 4 + length


def _uid(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii")


def _decode_accept(body: bytes) -> Accept:
    if len(body) < _FIXED_FIELDS:
        raise ValueError("too short")
    contexts: dict[int, tuple[int, str]] = {}
    max_pdu_size = 0
    for kind, content in _items(body[_FIXED_FIELDS:]):
        if kind == 0x21:
            context_id, result = content[0], content[2]
            if contexts.get(context_id, (None, ""))[0] == 0:
                continue  # An id that comes twice; one of its answers is the acceptance.
            syntaxes = [_uid(v) for k, v in _items(content[4:]) if k == 0x40] if not result else []
            contexts[context_id] = (result, syntaxes[0] if syntaxes else "")
        elif kind == 0x50:
            for sub_kind, value in _items(content):
                if sub_kind == 0x51:
                    (max_pdu_size,) = struct.unpack(">I", value)
    return Accept(contexts, max_pdu_size)


def _decode_data(body: bytes) -> Data:
    pdvs = []
    at = 0
    while at < len(body):
        length, context_id, control = struct.unpack_from(">IBB", body, at)
        fragment = body[at + 6 : at + 4 + length]
        if length < 2 or len(fragment) < length - 2:
            raise ValueError("a PDV is longer than its PDU")
        pdvs.append(Pdv(context_id, bool(control & 1), bool(control & 2), fragment))
        if len(pdvs) > ALLOWANCE:
            raise ValueError("fragments without end")
        at += 4 + length
    return Data(tuple(pdvs))


_DECODERS: Mapping[int, Callable[[bytes], Received]] = {
    1: lambda _: AssociateRequest(),
    2: _decode_accept,
    3: lambda body: Reject(body[1], body[2], body[3]),
    4: _decode_data,
    5: lambda _: ReleaseRequest(),
    6: lambda _: ReleaseReply(),
    7: lambda body: PeerAbort(body[2], body[3]),
}
