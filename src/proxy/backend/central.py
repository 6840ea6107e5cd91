"""Find and read the central directory of a zip archive (APPNOTE 4.3.12 to 4.3.16, 4.5.3).

The directory alone says which files there are: local headers may differ from it in every field.
What its end says of it is compared with what is there, and yields.
"""

from __future__ import annotations

import io
import stat
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from proxy.backend.faults import damaged
from proxy.backend.limits import Meter

END = b"PK\x05\x06"
END64 = b"PK\x06\x06"
LOCATOR = b"PK\x06\x07"
LOCAL = b"PK\x03\x04"
RECORD = b"PK\x01\x02"

END_FIELDS = struct.Struct("<4s6xHLL2x")
END64_FIELDS = struct.Struct("<4s28xQQQ")
LOCATOR_FIELDS = struct.Struct("<4s4xQ4x")
RECORD_FIELDS = struct.Struct("<4sxBxxHHxxxxLLLHHHxxxxLL")
"""Host, flags, method, CRC, packed and unpacked size, three lengths, attributes, offset."""

TAIL = END_FIELDS.size + 0xFFFF
"""Bytes that may lie between the start of the end record and the end of the file."""

ZIP64 = 0x0001
UNKNOWN = 0xFFFFFFFF
"""The value of a field that the extra field ``ZIP64`` has in its place."""

UNIX = frozenset({3, 19})
"""Hosts whose entries have a UNIX mode in their attributes; 19 is OS X (APPNOTE 4.4.2.2)."""


class Directory(NamedTuple):
    """The place of a central directory; ``shift`` is to be added to the offsets in it."""

    start: int
    end: int
    shift: int


class Record(NamedTuple):
    """One file by the directory; ``offset`` is that of its local header, ``mode`` that of UNIX."""

    offset: int
    packed: int
    crc: int
    flags: int
    method: int
    mode: int
    is_directory: bool


def directory_in(file: BinaryIO) -> Directory | None:
    """Return the last directory that an end record leads to; an empty one if there is no other.

    A comment, or what lies behind the archive, may hold the signature of an end record.
    """
    empty = None
    for at in _ends(file):
        found = _directory64(file, at) or _directory(file, at, END_FIELDS, at)
        if found and found.start < found.end:
            return found
        empty = empty or found
    return empty


def may_hide_directory(file: BinaryIO) -> bool:
    """Whether a file that does not begin as a zip ends as one, with files in it or damaged."""
    found = directory_in(file)
    if found and found.start < found.end:
        return True
    return any(_bytes_at(file, at - LOCATOR_FIELDS.size, 4) == LOCATOR for at in _ends(file))


def records(file: BinaryIO, directory: Directory, meter: Meter) -> Iterator[Record]:
    """Yield the records of ``directory``; a wrong number of them in its end is no matter.

    Raises :class:`proxy.errors.ArchiveError` at more entries than the meter has left, and, behind
    the last record that can be read, if that is not where the directory ends.
    """
    at = directory.start
    file.seek(at)
    left = meter.entries_left
    while len(block := file.read(RECORD_FIELDS.size)) == RECORD_FIELDS.size:
        signature, host, flags, method, crc, packed, size, *lengths, attributes, offset = (
            RECORD_FIELDS.unpack(block)
        )
        if signature != RECORD:
            break
        meter.checkpoint()
        left -= 1
        if left < 0:
            raise meter.too_many_entries()
        rest = file.read(sum(lengths))
        at += RECORD_FIELDS.size + sum(lengths)
        if UNKNOWN in {size, packed, offset}:
            extra = rest[lengths[0] : lengths[0] + lengths[1]]
            size, packed, offset = _wide(extra, size, packed, offset)
        mode = stat.S_IFMT(attributes >> 16) if host in UNIX else 0
        yield Record(
            offset + directory.shift,
            packed,
            crc,
            flags,
            method,
            mode,
            not size and not crc and (rest[: lengths[0]].endswith(b"/") or mode == stat.S_IFDIR),
        )
    if at < directory.end and _bytes_at(file, at, 4) not in {END, END64, b"PK\x05\x05"}:
        raise damaged()


def _ends(file: BinaryIO) -> Iterator[int]:
    """Yield where the signature of an end record is, from the end of the file on."""
    size = file.seek(0, io.SEEK_END)
    start = max(0, size - TAIL)
    file.seek(start)
    tail = file.read(TAIL)
    at = len(tail) - END_FIELDS.size + len(END)
    while (at := tail.rfind(END, 0, at)) >= 0:
        yield start + at
        at += len(END) - 1


def _directory64(file: BinaryIO, end: int) -> Directory | None:
    """Return the directory of the zip64 end record before the end record at ``end``, or None."""
    at = end - LOCATOR_FIELDS.size
    block = _bytes_at(file, at, LOCATOR_FIELDS.size)
    if len(block) < LOCATOR_FIELDS.size or not block.startswith(LOCATOR):
        return None
    _, told = LOCATOR_FIELDS.unpack(block)
    for place in (told, at - END64_FIELDS.size):
        if _bytes_at(file, place, 4) == END64:
            return _directory(file, place, END64_FIELDS, place)
    return None


def _directory(file: BinaryIO, at: int, fields: struct.Struct, end: int) -> Directory | None:
    """Return the directory by the end record at ``at``: right before it, or where it says."""
    block = _bytes_at(file, at, fields.size)
    if len(block) < fields.size:
        return None
    _, count, length, offset = fields.unpack(block)
    for start in (end - length, offset):
        if start < end and _bytes_at(file, start, 4) == RECORD:
            return Directory(start, end, _shift(file, start, start - offset))
    return None if count or length else Directory(end, end, 0)


def _shift(file: BinaryIO, start: int, shift: int) -> int:
    """Return ``shift`` if the first record's local header is there, or 0 if it is without it."""
    block = _bytes_at(file, start, RECORD_FIELDS.size)
    offset = int.from_bytes(block[-4:], "little")
    is_unshifted = shift and _bytes_at(file, offset + shift, 4) != LOCAL
    return 0 if is_unshifted and _bytes_at(file, offset, 4) == LOCAL else shift


def _bytes_at(file: BinaryIO, position: int, size: int) -> bytes:
    if not 0 <= position < 2**63:
        return b""
    file.seek(position)
    return file.read(size)


def _wide(extra: bytes, *fields: int) -> tuple[int, ...]:
    """Return the ``fields`` with the zip64 values in place of those that are unknown."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        data, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == ZIP64:
            wide = (value for (value,) in struct.iter_unpack("<Q", data[: len(data) // 8 * 8]))
            return tuple(next(wide, each) if each == UNKNOWN else each for each in fields)
    return fields
