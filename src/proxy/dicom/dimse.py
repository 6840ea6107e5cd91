"""The messages of C-STORE, C-ECHO and C-FIND, requested by us (PS3.7 sections 6.3 and 9.3).

Bytes in, values out. A command set is always in Implicit VR Little Endian; so is the identifier of
a C-FIND here, since its context is proposed in no other syntax. Bytes that cannot be understood
raise :class:`InvalidMessage`.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import msgspec

from proxy.dicom.pdu import Pdv

VERIFICATION = "1.2.840.10008.1.1"
LONGEST_UID = 64
MAX_SET_BYTES = 65536
"""The longest command set or identifier that is read."""

C_STORE_RSP = 0x8001
C_FIND_RSP = 0x8020
C_ECHO_RSP = 0x8030

_ELEMENT = struct.Struct("<HHI")
_NO_DATA_SET = 0x0101
_SOME_DATA_SET = 0x0001
_PENDING = (0xFF00, 0xFF01)
_SUCCESSES_AND_WARNINGS = (0x0000, 0x0001, 0x0107, 0x0116)
"""Besides Bxxx, all warnings."""


class DimsePriority(IntEnum):
    """(0000,0700), PS3.7 section 9.3.1; most nodes ignore it."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


class InvalidMessage(Exception):
    """A message that cannot be read, or is not the expected one."""


class Response(msgspec.Struct, frozen=True):
    """The content of a response; a missing text is empty, a missing number None.

    ``comment`` is the node's free text and may hold patient data: it must not leave the site.
    ``identifier`` is the data set of a pending response, as received.
    """

    command_field: int
    message_id: int
    status: int
    sop_instance_uid: str = ""
    comment: str = ""
    error_id: int | None = None
    offending_elements: tuple[str, ...] = ()
    identifier: bytes = b""

    @property
    def is_failure(self) -> bool:
        """Whether the status is of the class Failure (PS3.7 annex C)."""
        return not (
            self.status in _SUCCESSES_AND_WARNINGS
            or 0xB000 <= self.status <= 0xBFFF
            or self.is_pending
        )

    @property
    def is_pending(self) -> bool:
        """Whether more responses follow, which only C-FIND has (PS3.4 Table C.4-1)."""
        return self.command_field == C_FIND_RSP and self.status in _PENDING


def encode_store_request(
    sop_class_uid: str,
    sop_instance_uid: str,
    message_id: int,
    priority: DimsePriority = DimsePriority.MEDIUM,
) -> bytes:
    """Encode C-STORE-RQ (PS3.7 Table 9.3-1)."""
    return _command(
        encode_uid(0x0002, sop_class_uid)
        + _us(0x0100, 0x0001)
        + _us(0x0110, message_id)
        + _us(0x0700, priority)
        + _us(0x0800, _SOME_DATA_SET)
        + encode_uid(0x1000, sop_instance_uid)
    )


def encode_find_request(sop_class_uid: str, message_id: int) -> bytes:
    """Encode C-FIND-RQ (PS3.7 Table 9.3-3)."""
    return _command(
        encode_uid(0x0002, sop_class_uid)
        + _us(0x0100, 0x0020)
        + _us(0x0110, message_id)
        + _us(0x0700, DimsePriority.MEDIUM)
        + _us(0x0800, _SOME_DATA_SET)
    )


def encode_echo_request(message_id: int) -> bytes:
    """Encode C-ECHO-RQ (PS3.7 Table 9.3-12)."""
    return _command(
        encode_uid(0x0002, VERIFICATION)
        + _us(0x0100, 0x0030)
        + _us(0x0110, message_id)
        + _us(0x0800, _NO_DATA_SET)
    )


def decode_response(command: bytes) -> Response:
    """Decode C-STORE-RSP, C-FIND-RSP or C-ECHO-RSP (PS3.7 Tables 9.3-2, 9.3-4 and 9.3-13).

    An unreadable comment, error id or list of elements does not invalidate the status.
    """
    elements = decode_elements(command)
    return Response(
        command_field=_number(elements, 0x0100),
        message_id=_number(elements, 0x0120),
        status=_number(elements, 0x0900),
        sop_instance_uid=decode_uid(elements.get(0x1000, b"")),
        comment=decode_text(elements.get(0x0902, b"")),
        error_id=_number(elements, 0x0903) if len(elements.get(0x0903, b"")) == 2 else None,
        offending_elements=_tags(elements.get(0x0901, b"")),
    )


class MessageReader:
    """Joins the fragments of responses, which may be spread over PDVs and PDUs."""

    def __init__(self) -> None:
        self._joined = b""
        self._pending: Response | None = None

    def add(self, pdv: Pdv) -> Response | None:
        """Add a fragment; return the response if it was the last one.

        A pending response has an identifier, which follows it; no other has a data set
        (PS3.7 sections 9.1.1.1, 9.1.2.1 and 9.1.5.1).

        Raises :class:`InvalidMessage`.
        """
        if pdv.is_command is (self._pending is not None):
            raise InvalidMessage("a data set that is not due, or none that is due")
        self._joined += pdv.fragment
        if len(self._joined) > MAX_SET_BYTES:
            raise InvalidMessage("a command set or identifier without end")
        if not pdv.is_last:
            return None
        whole, self._joined = self._joined, b""
        if self._pending is not None:
            response, self._pending = self._pending, None
            return msgspec.structs.replace(response, identifier=whole)
        response = decode_response(whole)
        if response.is_pending:
            self._pending = response
            return None
        return response


def encode_element(tag: int, value: bytes) -> bytes:
    """Encode an element whose value has an even length."""
    return _ELEMENT.pack(tag >> 16, tag & 0xFFFF, len(value)) + value


def encode_uid(tag: int, uid: str) -> bytes:
    """Encode a UI element (PS3.5 section 9.1), of whatever characters it has."""
    value = uid.encode("latin-1")
    return encode_element(tag, value + b"\0" * (len(value) % 2))


def decode_elements(encoded: bytes) -> dict[int, bytes]:
    """Read the values by tag; a sequence of undefined length cannot be read.

    Raises :class:`InvalidMessage`.
    """
    found = {}
    at = 0
    while at < len(encoded):
        try:
            group, element, length = _ELEMENT.unpack_from(encoded, at)
        except struct.error as error:
            raise InvalidMessage("it ends within an element's head") from error
        at += _ELEMENT.size
        if length > len(encoded) - at:
            raise InvalidMessage("an element that is longer than its container")
        found[group << 16 | element] = encoded[at : at + length]
        at += length
    return found


def decode_text(value: bytes) -> str:
    """Read the comment, which is LO: the node's character set is not known here."""
    return value.decode("ascii", "replace").strip("\0 ")


def decode_uid(value: bytes) -> str:
    """Read a UID without its padding, of whatever characters it has."""
    return value.decode("latin-1").rstrip("\0 ")


def is_same_uid(answered: str, sent: str) -> bool:
    """Whether a node's answer names the UID that it was sent, as far as nodes keep odd ones.

    Blanks do not count, nor what is behind a null byte or the 64 characters that a UID may have.
    """
    both = [uid.partition("\0")[0].replace(" ", "")[:LONGEST_UID] for uid in (answered, sent)]
    return answered == sent or both[0] == both[1]


def _command(elements: bytes) -> bytes:
    return encode_element(0x0000, len(elements).to_bytes(4, "little")) + elements


def _us(tag: int, value: int) -> bytes:
    return encode_element(tag, value.to_bytes(2, "little"))


def _number(elements: dict[int, bytes], element: int) -> int:
    """Read a US; an empty one must not pass for 0, which is success."""
    value = elements.get(element, b"")
    if len(value) != 2:
        raise InvalidMessage(f"a response without (0000,{element:04X})")
    return int.from_bytes(value, "little")


def _tags(value: bytes) -> tuple[str, ...]:
    pairs = struct.iter_unpack("<HH", value[: len(value) // 4 * 4])
    return tuple(f"({group:04X},{element:04X})" for group, element in pairs)
