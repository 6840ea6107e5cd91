"""Iterate over the files in a zip archive (APPNOTE.TXT), zip64 and data descriptors included.

``zipfile`` does the reading; values that it would take on trust are checked here first.
"""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from proxy.backend.entry import Entry
from proxy.backend.faults import damaged, translated, unreadable
from proxy.backend.limits import Meter

METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The methods whose decompressor bounds its output; bzip2's and LZMA's may fill the memory."""

ENCRYPTED = 0x1 | 0x40
LOCAL_HEADER = 30
"""Bytes of the fixed part of an entry's local header (APPNOTE 4.3.7)."""

SPLIT_MARKER = 4
"""Bytes before the first entry of an archive that was planned as a split one (APPNOTE 8.5.4)."""

UNIX = frozenset({3, 19})
"""Hosts whose entries have a UNIX mode in their attributes; 19 is OS X (APPNOTE 4.4.2.2)."""

MAX_DIRECTORY = 64 * 1024 * 1024
DIRECTORY_SIGNATURE = b"PK\x01\x02"


def unzip(file: BinaryIO, meter: Meter) -> Iterator[Entry]:
    """Yield the files of a zip archive in the order of their bytes; directories are left out.

    Bytes before them are a file as well: a program that unpacks them, or another archive.
    Raises :class:`proxy.errors.ArchiveError` if the archive is damaged, exceeds a limit, or
    holds a file that is encrypted or packed by a method other than deflate.
    """
    with (
        _Guarded(io.FileIO(file.fileno(), closefd=False), meter) as guarded,
        _opened(guarded) as archive,
    ):
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        _refuse_overlaps(infos, archive.start_dir)
        packed = infos[0].header_offset if infos else archive.start_dir
        if packed > SPLIT_MARKER:
            meter.entry()
            yield Entry(_Start(guarded, packed), packed, partial(int, packed))
        for info in infos:
            meter.entry()
            mode = stat.S_IFMT(info.external_attr >> 16) if info.create_system in UNIX else 0
            if _is_directory(info, mode):
                continue
            if info.flag_bits & ENCRYPTED:
                raise unreadable("holds encrypted files")
            if info.compress_type not in METHODS:
                raise unreadable("holds files packed by an unknown method")
            packed += info.compress_size
            with translated():
                stream = archive.open(info)
            with stream:
                yield Entry(stream, info.file_size, partial(int, packed), _called(mode))


class _Start:
    """The first ``size`` bytes of the archive."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._at = 0
        self._size = size

    def read(self, size: int, /) -> bytes:
        self._file.seek(self._at)
        block = self._file.read(min(size, self._size - self._at))
        self._at += len(block)
        return block


def _is_directory(info: zipfile.ZipInfo, mode: int) -> bool:
    """Whether this is a directory: its header declares neither size nor checksum."""
    if info.file_size or info.CRC:
        return False
    return info.filename.endswith("/") or mode == stat.S_IFDIR


def _called(mode: int) -> str | None:
    """Return the type that the attributes declare in place of a file, or None."""
    if mode in {0, stat.S_IFREG, stat.S_IFDIR}:
        return None
    return "link" if mode == stat.S_IFLNK else "device"


class _Guarded(io.BufferedReader):
    """The archive as a file that does not let ``zipfile`` load a huge central directory.

    ``zipfile`` reads the directory as one block and makes an object of each of its entries.
    """

    def __init__(self, raw: io.RawIOBase, meter: Meter) -> None:
        super().__init__(raw)
        self._meter = meter

    def read(self, size: int | None = -1, /) -> bytes:
        self._meter.checkpoint()
        if size is not None and size > MAX_DIRECTORY:
            raise unreadable("has a directory that is too large")
        block = super().read(size)
        is_directory = block.startswith(DIRECTORY_SIGNATURE)
        if is_directory and block.count(DIRECTORY_SIGNATURE) > self._meter.entries_left:
            raise self._meter.too_many_entries()
        return block


def _opened(file: BinaryIO) -> zipfile.ZipFile:
    with translated():
        return zipfile.ZipFile(file)


def _refuse_overlaps(infos: list[zipfile.ZipInfo], directory: int) -> None:
    """Refuse entries that share bytes: only a bomb uses one byte twice."""
    ends = [info.header_offset for info in infos[1:]] + [directory]
    for info, end in zip(infos, ends, strict=False):
        if info.header_offset + LOCAL_HEADER + info.compress_size > end:
            raise damaged("has entries that overlap")
