"""Iterate over the files in a zip archive (APPNOTE.TXT), zip64 and data descriptors included.

``zipfile`` does the reading; what it would take on trust is checked here first.
"""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from proxy.backend.entry import BLOCK, Entry, Metered, damaged, skipped, translated, unreadable
from proxy.backend.limits import Meter, too_large

METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Those whose decompressor bounds its output; bzip2's and LZMA's may fill the memory."""

ENCRYPTED = 0x1 | 0x40
LOCAL_HEADER = 30
"""Bytes of the fixed part of an entry's local header (APPNOTE 4.3.7)."""

MAX_DIRECTORY = 64 * 1024 * 1024
DIRECTORY_SIGNATURE = b"PK\x01\x02"


def unzip(file: BinaryIO, meter: Meter) -> Iterator[Entry]:
    """Yield the files of a zip archive in the order of their bytes; directories are passed over.

    Raises :class:`proxy.errors.ArchiveError` where the archive is damaged, exceeds a limit, or
    holds a file that is encrypted or packed by a method other than deflate.
    """
    with (
        _Guarded(io.FileIO(file.fileno(), closefd=False), meter.limits.entries) as guarded,
        _opened(guarded) as archive,
    ):
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        _refuse_overlaps(infos, archive.start_dir)
        packed = 0
        for info in infos:
            meter.entry()
            if info.is_dir() and not info.file_size:
                continue
            mode = stat.S_IFMT(info.external_attr >> 16)
            if mode not in {0, stat.S_IFREG}:
                yield skipped("link" if mode == stat.S_IFLNK else "device")
                continue
            if info.flag_bits & ENCRYPTED:
                raise unreadable("encrypted files")
            if info.compress_type not in METHODS:
                raise unreadable("files packed by an unknown method")
            packed += info.compress_size
            with translated():
                stream = archive.open(info)
            with stream:
                yield Entry(Metered(stream, meter, packed), info.file_size)


class _Guarded(io.BufferedReader):
    """The archive as a file that does not let ``zipfile`` load a huge central directory.

    It reads the directory as one block and makes an object of each of its entries.
    """

    def __init__(self, raw: io.RawIOBase, max_entries: int) -> None:
        super().__init__(raw)
        self._max_entries = max_entries

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise unreadable("a directory that is too large")
        block = super().read(size)
        if len(block) > BLOCK and block.count(DIRECTORY_SIGNATURE) > self._max_entries:
            raise too_large(f"The archive has more than {self._max_entries} entries", "entries")
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
