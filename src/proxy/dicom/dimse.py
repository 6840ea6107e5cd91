"""The command sets of C-STORE and C-ECHO: Implicit VR Little Endian, always (PS3.7 section 6.3).

Bytes in, values out. A command set that cannot be understood is :class:`InvalidCommand`.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import msgspec

from proxy.dicom.pdu import Pdv

VERIFICATION = "1.2.840.10008.1.1"
MAX_COMMAND_BYTES = 65536

C_STORE_RSP = 0x8001
C_ECHO_RSP = 0x8030

_ELEMENT = struct.Struct("<HHI")
_NO_DATA_SET = 0x0101
_SOME_DATA_SET = 0x0001


class Priority(IntEnum):
    """(0000,0700), PS3.7 section 9.3.1; most nodes do not look at it."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


class InvalidCommand(Exception):
    """A command set that cannot be read, or is not the one that was due."""


class Response(msgspec.Struct, frozen=True):
    """What a response says; the optional texts are empty, the optional numbers None.

    ``comment`` is the node's free text and may hold patient data: for the site's own eyes.
    """

    command_field: int
    message_id: int
    status: int
    sop_instance_uid: str = ""
    comment: str = ""
    error_id: int | None = None
    offending_elements: tuple[str, ...] = ()


def encode_store_request(
    sop_class_uid: str,
    sop_instance_uid: str,
    message_id: int,
    priority: Priority = Priority.MEDIUM,
) -> bytes:
    """Encode C-STORE-RQ (PS3.7 Table 9.3-1)."""
    return _command(
        _element(0x0002, _uid(sop_class_uid))
        + _us(0x0100, 0x0001)
        + _us(0x0110, message_id)
        + _us(0x0700, priority)
        + _us(0x0800, _SOME_DATA_SET)
        + _element(0x1000, _uid(sop_instance_uid))
    )


def encode_echo_request(message_id: int) -> bytes:
    """Encode C-ECHO-RQ (PS3.7 Table 9.3-12)."""
    return _command(
        _element(0x0002, _uid(VERIFICATION))
        + _us(0x0100, 0x0030)
        + _us(0x0110, message_id)
        + _us(0x0800, _NO_DATA_SET)
    )


def decode_response(command: bytes) -> Response:
    """Decode a C-STORE-RSP or C-ECHO-RSP (PS3.7 Tables 9.3-2 and 9.3-13)."""
    elements = _elements(command)
    return Response(
        command_field=_number(elements, 0x0100),
        message_id=_number(elements, 0x0120),
        status=_number(elements, 0x0900),
        sop_instance_uid=_text(elements.get(0x1000, b"")),
        comment=_text(elements.get(0x0902, b"")),
        error_id=_number(elements, 0x0903) if elements.get(0x0903) else None,
        offending_elements=_tags(elements.get(0x0901, b"")),
    )


class CommandReader:
    """Joins the fragments of command sets, which may be spread over PDVs and PDUs."""

    def __init__(self) -> None:
        self._joined = b""

    def add(self, pdv: Pdv) -> Response | None:
        """Add a fragment; the response if it was the last one.

        Raises :class:`InvalidCommand` for fragments of a data set too: no response we ask for
        has one.
        """
        if not pdv.is_command:
            raise InvalidCommand("a data set in the response")
        self._joined += pdv.fragment
        if len(self._joined) > MAX_COMMAND_BYTES:
            raise InvalidCommand("a command set without end")
        if not pdv.is_last:
            return None
        whole, self._joined = self._joined, b""
        return decode_response(whole)


def _command(elements: bytes) -> bytes:
    return _element(0x0000, len(elements).to_bytes(4, "little")) + elements


def _element(element: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, element, len(value)) + value


def _us(element: int, value: int) -> bytes:
    return _element(element, value.to_bytes(2, "little"))


def _uid(uid: str) -> bytes:
    value = uid.encode("ascii")
    return value + b"\0" * (len(value) % 2)


def _elements(command: bytes) -> dict[int, bytes]:
    found = {}
    at = 0
    while at < len(command):
        try:
            group, element, length = _ELEMENT.unpack_from(command, at)
        except struct.error as error:
            raise InvalidCommand("a command set that ends within an element") from error
        at += _ELEMENT.size
        if length > len(command) - at:
            raise InvalidCommand("an element that is longer than its command set")
        if group == 0:
            found[element] = command[at : at + length]
        at += length
    return found


def _number(elements: dict[int, bytes], element: int) -> int:
    """Read a US; an empty one must not pass for 0, which is success."""
    value = elements.get(element, b"")
    if len(value) != 2:
        raise InvalidCommand(f"a response without (0000,{element:04X})")
    return int.from_bytes(value, "little")


def _text(value: bytes) -> str:
    """Read a UID or the comment, which is LO: the node's character set is not known here."""
    return value.decode("ascii", "replace").strip("\0 ")


def _tags(value: bytes) -> tuple[str, ...]:
    pairs = struct.iter_unpack("<HH", value[: len(value) // 4 * 4])
    return tuple(f"({group:04X},{element:04X})" for group, element in pairs)
