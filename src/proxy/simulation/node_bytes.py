"""The bytes that a simulated node reads and writes: PDUs, messages, the UIDs in a data set.

Written from PS3.8 section 9.3, PS3.7 sections 6.3 and 9.3 and PS3.5 chapter 7, for one that accepts
associations. What breaks the standard raises :class:`Violation`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ = 1, 2, 3
P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = 4, 5, 6, 7

VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
QUERY_CLASSES = "1.2.840.10008.5.1.4.1.2."
"""How the UIDs of the Query/Retrieve SOP classes begin."""
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

C_STORE, C_FIND, C_ECHO, C_CANCEL = 0x0001, 0x0020, 0x0030, 0x0FFF
IS_RESPONSE = 0x8000
SUCCESS, DUPLICATE, UNRECOGNIZED_OPERATION = 0x0000, 0x0111, 0x0211
IDENTIFIER_DOES_NOT_MATCH, PENDING = 0xA900, 0xFF00
NO_DATA_SET, SOME_DATA_SET = 0x0101, 0x0001

# Reasons of A-ABORT by the service provider (PS3.8 Table 9-26).
UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 1, 2, 6

SOP_INSTANCE_UID, LEVEL = 0x00080018, 0x00080052
STUDY_UID, SERIES_UID = 0x0020000D, 0x0020000E

PDU = struct.Struct(">BBI")
PDV = struct.Struct(">IBB")
RELEASE_REQUEST = PDU.pack(RELEASE_RQ, 0, 4) + bytes(4)
RELEASE_REPLY = PDU.pack(RELEASE_RP, 0, 4) + bytes(4)

_ITEM = struct.Struct(">BBH")
_ELEMENT = struct.Struct("<HHI")
_US_ELEMENT = struct.Struct("<HHIH")
_GROUP_LENGTH = struct.Struct("<HHII")
_FIXED_FIELDS = 68
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_IMPLEMENTATION = b"2.25.9748891011850586499244988506389658390"
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Those whose length has four bytes in explicit VR (PS3.5 section 7.1.2)."""


class Violation(Exception):
    """What the peer did against the standard; ``reason`` is the one for A-ABORT."""

    def __init__(self, sentence: str, reason: int = INVALID_PARAMETER) -> None:
        super().__init__(sentence)
        self.reason = reason


class Proposed(NamedTuple):
    """A presentation context in A-ASSOCIATE-RQ."""

    context_id: int
    sop_class: str
    syntaxes: tuple[str, ...]


class AssociationRequest(NamedTuple):
    """A-ASSOCIATE-RQ; ``fixed`` are the fields that the answer repeats.

    ``longest`` is the longest PDU that the requestor takes, 0 for any.
    """

    fixed: bytes
    contexts: tuple[Proposed, ...]
    longest: int


class Found(NamedTuple):
    """The UIDs of an instance; a UID that could not be read is empty."""

    study: str
    series: str
    sop_instance: str


# The upper layer -------------------------------------------------------------------------------


@lru_cache(maxsize=64)  # the requests of one program to one node are mostly the same
def read_request(body: bytes) -> AssociationRequest:
    """Read A-ASSOCIATE-RQ; unknown items are skipped."""
    contexts: dict[int, Proposed] = {}
    longest = 0
    if len(body) < _FIXED_FIELDS:
        raise Violation("an A-ASSOCIATE-RQ that is too short")
    for kind, content in _items(body, _FIXED_FIELDS):
        if kind == 0x20:
            context = _read_context(content)
            if context.context_id % 2 == 0 or context.context_id in contexts:
                raise Violation("a presentation context's id is even, or there twice")
            contexts[context.context_id] = context
        elif kind == 0x50:
            for sub_kind, value in _items(content, 0):
                if sub_kind == 0x51:
                    longest = int.from_bytes(value, "big")
    if not contexts:
        raise Violation("an A-ASSOCIATE-RQ without presentation contexts")
    return AssociationRequest(body[:_FIXED_FIELDS], tuple(contexts.values()), longest)


def _read_context(content: bytes) -> Proposed:
    if len(content) < 4:
        raise Violation("a presentation context that is too short")
    parts = [*_items(content, 4)]
    classes = [_uid(value) for kind, value in parts if kind == 0x30]
    syntaxes = tuple(_uid(value) for kind, value in parts if kind == 0x40)
    if len(classes) != 1 or not syntaxes:
        raise Violation("a presentation context without SOP class or transfer syntax")
    return Proposed(content[0], classes[0], syntaxes)


def accept(
    request: AssociationRequest, answers: Mapping[int, tuple[int, str]], longest: int
) -> bytes:
    """Write A-ASSOCIATE-AC: result and transfer syntax for each context."""
    parts = [request.fixed, _item(0x10, _APPLICATION_CONTEXT)]
    for context_id, (result, syntax) in answers.items():
        parts.append(_item(0x21, bytes((context_id, 0, result, 0)) + _item(0x40, syntax.encode())))
    user = _item(0x51, longest.to_bytes(4, "big")) + _item(0x52, _IMPLEMENTATION)
    parts.append(_item(0x50, user + _item(0x55, b"SIMULATED")))
    body = b"".join(parts)
    return PDU.pack(ASSOCIATE_AC, 0, len(body)) + body


def reject(code: int) -> bytes:
    """Write A-ASSOCIATE-RJ; ``code`` is 0xRRSSTT: result, source, reason."""
    return PDU.pack(ASSOCIATE_RJ, 0, 4) + code.to_bytes(4, "big")


def abort(code: int) -> bytes:
    """Write A-ABORT; ``code`` is 0xSSTT: source, reason."""
    return PDU.pack(ABORT, 0, 4) + code.to_bytes(4, "big")


def data(context_id: int, content: bytes, longest: int, *, is_command: bool) -> bytes:
    """Write a command set or a data set as P-DATA-TF, in fragments that the peer takes."""
    size = max((longest - 6) // 2 * 2, 2) if longest else len(content)
    parts = []
    for at in range(0, len(content), size):
        fragment = content[at : at + size]
        control = is_command | (at + size >= len(content)) << 1
        parts.append(PDU.pack(P_DATA_TF, 0, len(fragment) + 6))
        parts.append(PDV.pack(len(fragment) + 2, context_id, control))
        parts.append(fragment)
    return b"".join(parts)


def _items(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Read items one behind the other, from ``at`` to the end."""
    while at < len(body):
        if at + 4 > len(body):
            raise Violation("it ends in an item's head")
        kind, _, length = _ITEM.unpack_from(body, at)
        at += 4 + length
        if at > len(body):
            raise Violation("an item is longer than its container")
        yield kind, body[at - length : at]


def _item(kind: int, content: bytes) -> bytes:
    return _ITEM.pack(kind, 0, len(content)) + content


# Messages --------------------------------------------------------------------------------------


def read_command(command: bytes) -> dict[int, bytes]:
    """Read a command set: values by element of group 0000."""
    found = {}
    at = 0
    while at < len(command):
        if at + 8 > len(command):
            raise Violation("a command set ends in an element's head")
        group, element, length = _ELEMENT.unpack_from(command, at)
        at += 8 + length
        if group or at > len(command):
            raise Violation("a command set of another group, or with an element that is too long")
        found[element] = command[at - length : at]
    if int.from_bytes(found.get(0x0000, b""), "little") != len(command) - 12:
        raise Violation("a command set whose group length is wrong")
    return found


def number(command: Mapping[int, bytes], element: int) -> int:
    """Read a US of a command set."""
    value = command.get(element, b"")
    if len(value) != 2:
        raise Violation(f"a command set without (0000,{element:04X})")
    return value[0] | value[1] << 8


def uid(command: Mapping[int, bytes], element: int) -> str:
    """Read a UI of a command set."""
    value = _uid(command.get(element, b""))
    if not value:
        raise Violation(f"a command set without (0000,{element:04X})")
    return value


def response(
    request: Mapping[int, bytes],
    status: int,
    message_id: int,
    sop_instance: str = "",
    *,
    has_data_set: bool = False,
) -> bytes:
    """Write the command set of a response to ``request`` (PS3.7 section 9.3)."""
    field = number(request, 0x0100) | IS_RESPONSE
    sop_class = request.get(0x0002, b"")
    follows = SOME_DATA_SET if has_data_set else NO_DATA_SET
    elements = b"".join(
        (
            _ELEMENT.pack(0, 0x0002, len(sop_class)),
            sop_class,
            _US_ELEMENT.pack(0, 0x0100, 2, field),
            _US_ELEMENT.pack(0, 0x0120, 2, message_id),
            _US_ELEMENT.pack(0, 0x0800, 2, follows),
            _US_ELEMENT.pack(0, 0x0900, 2, status),
            _element(0x00001000, _padded(sop_instance)) if sop_instance else b"",
        )
    )
    return _GROUP_LENGTH.pack(0, 0, 4, len(elements)) + elements


def is_stored(status: int) -> bool:
    """Whether a node that answers C-STORE so has the instance: a success, a warning, 0111H."""
    return status in {SUCCESS, 0x0001, 0x0107, DUPLICATE, 0x0116} or status >> 12 == 0xB


def identifier(level: str, uids: Sequence[str], syntax: str) -> bytes:
    """Write the identifier of a C-FIND response: as many of the UIDs as the level has."""
    keys = dict(zip((STUDY_UID, SERIES_UID, SOP_INSTANCE_UID), map(_padded, uids), strict=False))
    keys[LEVEL] = level.encode() + b" " * (len(level) % 2)
    if syntax == IMPLICIT_VR_LITTLE_ENDIAN:
        return b"".join(_element(tag, keys[tag]) for tag in sorted(keys))
    parts = []
    for tag in sorted(keys):
        vr = b"CS" if tag == LEVEL else b"UI"
        parts.append(struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(keys[tag])))
        parts.append(keys[tag])
    return b"".join(parts)


def _element(tag: int, value: bytes) -> bytes:
    return _ELEMENT.pack(tag >> 16, tag & 0xFFFF, len(value)) + value


def _padded(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def _uid(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii", "replace")


# Data sets -------------------------------------------------------------------------------------


def read_uids(head: bytes, syntax: str, sop_instance: str) -> Found:
    """Read the study and the series from the beginning of a data set."""
    if syntax == DEFLATED:
        try:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, 2 * len(head))
        except zlib.error:
            head = b""
    values = read_values(head, syntax, last=SERIES_UID)
    study, series = (_uid(values.get(tag, b"")) for tag in (STUDY_UID, SERIES_UID))
    return Found(study, series, sop_instance)


def read_values(content: bytes, syntax: str, last: int) -> dict[int, bytes]:
    """Read the values by tag up to the tag ``last``, as far as lengths are defined."""
    values: dict[int, bytes] = {}
    order = ">" if syntax == BIG_ENDIAN else "<"
    implicit = struct.Struct(order + "HHI")
    explicit = struct.Struct(order + "HH2sH")
    long = struct.Struct(order + "I")
    at = 0
    while at + 8 <= len(content):
        if syntax == IMPLICIT_VR_LITTLE_ENDIAN:
            group, element, length = implicit.unpack_from(content, at)
            at += 8
        else:
            group, element, vr, length = explicit.unpack_from(content, at)
            at += 8
            if vr in _LONG_VRS:
                if at + 4 > len(content):
                    break
                (length,) = long.unpack_from(content, at)
                at += 4
        tag = group << 16 | element
        if tag > last or length == _UNDEFINED_LENGTH or at + length > len(content):
            break
        values[tag] = content[at : at + length]
        at += length
    return values
