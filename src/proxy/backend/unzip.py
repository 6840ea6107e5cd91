"""Iterate over the files in a zip archive (APPNOTE.TXT), zip64 and data descriptors included.

The central directory decides which files there are, and the checksum whether one is whole: names,
local headers and sizes may say what they like. Each file stands alone; one that cannot be read
raises :class:`proxy.backend.faults.EntryUnread` when it is, and the next one can be.
"""

from __future__ import annotations

import lzma
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import islice, zip_longest
from typing import BinaryIO

from proxy.backend.central import LOCAL, Record, directory_in, records
from proxy.backend.entry import Entry, Refused
from proxy.backend.faults import Unread, damaged, damaged_entry, unreadable_entry
from proxy.backend.inflate import METHODS, STORED
from proxy.backend.limits import Meter

ENCRYPTED = 0x1 | 0x40
LOCAL_FIELDS = struct.Struct("<4s22xHH")
"""The signature of a local header, and the lengths of what follows it (APPNOTE 4.3.7)."""

SPLIT_MARKER = 4
"""Bytes before the first entry of an archive that was planned as a split one (APPNOTE 8.5.4)."""

CHUNK = 256 * 1024
"""Packed bytes that are read at a time; a checkpoint lies between two chunks."""


def unzip(file: BinaryIO, meter: Meter) -> Iterator[Entry]:
    """Yield the files of a zip archive in the order of their bytes; directories are left out.

    Bytes before them are a file as well: a program that unpacks them, or another archive.
    Raises :class:`proxy.errors.ArchiveError` if there is no directory or an archive exceeds a
    limit; and, behind all files, if the directory is damaged.
    """
    directory = directory_in(file)
    if directory is None:
        raise damaged()
    found, broken = _read_to_the_end(records(file, directory, meter))
    found.sort()
    packed = min(found[0].offset, directory.start) if found else directory.start
    if packed > SPLIT_MARKER:
        meter.entry()
        before = _Content(file, 0, packed, None, method=STORED, meter=meter)
        yield Entry(before, packed, partial(int, packed))
    for record, following in zip_longest(found, islice(found, 1, None)):
        meter.entry()
        if record.is_directory or (following and record[:3] == following[:3]):
            continue  # of two records of the same bytes one is enough
        packed += record.packed
        yield Entry(
            _opened(file, record, following, meter), None, partial(int, packed), _called(record)
        )
    if broken is not None:
        raise broken


def _read_to_the_end(found: Iterator[Record]) -> tuple[list[Record], Unread | None]:
    """Return all records before the end or the damage, and the error for the damage."""
    listed: list[Record] = []
    try:
        for each in found:
            listed.append(each)  # noqa: PERF402 - those before an error count
    except Unread as error:
        if error.spoils:
            raise
        return listed, error
    return listed, None


def _opened(
    file: BinaryIO, record: Record, following: Record | None, meter: Meter
) -> _Content | Refused:
    """Return the content of a file, or what raises the reason why it cannot be read."""
    if record.flags & ENCRYPTED:
        return Refused(unreadable_entry("is encrypted"))
    if record.method not in METHODS:
        return Refused(unreadable_entry("is packed by a method that is not supported"))
    header = _bytes_at(file, record.offset, LOCAL_FIELDS.size)
    if len(header) < LOCAL_FIELDS.size or not header.startswith(LOCAL):
        return Refused(damaged_entry())
    _, name, extra = LOCAL_FIELDS.unpack(header)
    start = record.offset + LOCAL_FIELDS.size + name + extra
    if following and start + record.packed > following.offset:
        # Only a bomb uses one byte twice.
        return Refused(damaged_entry("overlaps another one"))
    return _Content(file, start, record.packed, record.crc, method=record.method, meter=meter)


def _called(record: Record) -> str | None:
    """Return the type that the attributes declare in place of a file, or None."""
    if record.mode in {0, stat.S_IFREG, stat.S_IFDIR}:
        return None
    return "link" if record.mode == stat.S_IFLNK else "device"


class _Content:
    """The content of a file that takes ``size`` bytes ``at`` a place; ``crc`` None: unknown."""

    def __init__(
        self, file: BinaryIO, at: int, size: int, crc: int | None, *, method: int, meter: Meter
    ) -> None:
        self._file = file
        self._at = at
        self._left = size
        self._expected = crc
        self._crc = 0
        self._is_stored = method == STORED
        self._decoder = METHODS[method]()
        self._meter = meter

    def read(self, size: int, /) -> bytes:
        """Return ``size`` bytes, fewer only at the end, where the checksum is verified."""
        parts = []
        missing = size
        while missing:
            try:
                part, is_end = self._next(missing)
            except (zlib.error, lzma.LZMAError, EOFError, ValueError, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # bz2 raises it without a number
                raise damaged_entry() from None
            if part:
                parts.append(part)
            missing -= len(part)
            if is_end:
                break
        block = b"".join(parts)
        self._crc = zlib.crc32(block, self._crc)
        if missing and self._expected not in {None, self._crc}:
            raise damaged_entry()
        return block

    def _next(self, size: int) -> tuple[bytes, bool]:
        """Return up to ``size`` bytes, and whether the content ends behind them."""
        self._meter.checkpoint()
        packed = b""
        if self._decoder.needs_input:
            chunk = size if self._is_stored else CHUNK
            packed = _bytes_at(self._file, self._at, min(self._left, chunk))
            self._at += len(packed)
            self._left -= len(packed)
        part = self._decoder.decompress(packed, size)
        return part, not (part or packed)


def _bytes_at(file: BinaryIO, position: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, position) if 0 <= position < 2**63 else b""
