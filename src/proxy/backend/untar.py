"""Iterate over the files in a tar archive, once and forwards: v7, ustar, pax and GNU.

Only an entry's type and size matter here, so headers are read one by one; ``tarfile`` would keep
them all, load a name of any length, and take a broken header for the end of the archive.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from proxy.backend.content import is_tar_header
from proxy.backend.entry import BLOCK, Entry, Readable, unreadable, without_content
from proxy.backend.faults import damaged, damaged_entry, translated, unreadable_entry
from proxy.backend.limits import Meter

TAR_BLOCK = 512
NAME = slice(0, 100)
SIZE = slice(124, 136)
TYPE = slice(156, 157)
MAX_EXTENSION = 1024 * 1024

CONTINUED = b"M"
"""The GNU type of the part of a file on a further volume (GNU tar manual, "Standard")."""

NO_CONTENT = {
    tarfile.LNKTYPE: "link",
    tarfile.SYMTYPE: "link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "device",
}
"""Types without content, whatever size the header gives; all unknown types are files (POSIX)."""

EXTENSIONS = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
"""Headers whose data describe the entry after them."""

PAX_SIZE = re.compile(rb"(?:^|\n)\d+ size=(\d{1,19})(?=\n)")
PAX_SPARSE = b" GNU.sparse."


def untar(stream: Readable, packed: Callable[[], int], meter: Meter) -> Iterator[Entry]:
    """Yield the files of a tar archive; directories are left out.

    ``packed`` returns how many bytes of the file were used for the bytes ``stream`` gave so far.
    Concatenated archives are read as one; other bytes behind the end are no part of it, and zeros
    at the end are not asked for. A header that is damaged costs the file behind it alone: what can
    be taken for a header again is. Raises :class:`proxy.errors.ArchiveError` if the archive ends
    within a file or a header, or exceeds a limit.
    """
    tape = _Tape(stream, packed, meter)
    pax = _Pax()
    for header in _headers(tape):
        kind = header[TYPE]
        if kind in EXTENSIONS:
            extension = tape.extension(_size(header[SIZE]))
            if kind in {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}:
                pax = _Pax.of(extension)
            continue
        meter.entry()
        if not is_tar_header(header):
            yield unreadable(damaged_entry())
        elif kind in NO_CONTENT:
            yield without_content(NO_CONTENT[kind])
        else:
            size = _size(header[SIZE]) if pax.size is None else pax.size
            if not _is_directory(header, size):
                yield from _file(tape, header, size, is_sparse=pax.is_sparse)
        pax = _Pax()
    while tape.read(BLOCK):
        pass  # to the end of the gzip stream, where its checksum is verified


def _headers(tape: _Tape) -> Iterator[bytes]:
    """Yield the headers; of a damaged one and all that follows until the next, the first block."""
    at_end = is_lost = False
    while header := tape.counted(TAR_BLOCK):
        if not any(header):
            at_end = not is_lost
        elif is_tar_header(header):
            at_end = is_lost = False
            yield header
        elif at_end:
            return
        elif len(header) < TAR_BLOCK:
            raise damaged()
        elif not is_lost:
            is_lost = True
            yield header


def _file(tape: _Tape, header: bytes, size: int, *, is_sparse: bool) -> Iterator[Entry]:
    """Yield the file behind its ``header``, and skip what was not read of it."""
    if header[TYPE] == tarfile.GNUTYPE_SPARSE:
        is_sparse = True
        tape.skip_sparse_map(header)
    section = _Section(tape, size)
    if is_sparse:
        yield unreadable(unreadable_entry("is sparse"))
    elif header[TYPE] == CONTINUED:
        yield unreadable(unreadable_entry("is a part of another one"))
    else:
        yield Entry(section, size, tape.packed)
    section.skip()
    tape.read(-size % TAR_BLOCK)  # may be lacking at the end of the archive


class _Tape:
    """The unpacked bytes of the archive; every read and every skip is a cancellation point."""

    def __init__(self, stream: Readable, packed: Callable[[], int], meter: Meter) -> None:
        self.packed = packed
        self._stream = stream
        self._meter = meter

    def read(self, size: int) -> bytes:
        self._meter.checkpoint()
        with translated():
            return self._stream.read(size)

    def counted(self, size: int) -> bytes:
        """Read and count bytes that are not content of a file."""
        block = self.read(size)
        self._meter.unpacked(len(block), self.packed())
        return block

    def skip_sparse_map(self, header: bytes) -> None:
        """Skip the blocks with the rest of a sparse file's map (GNU tar manual, "Standard")."""
        more = header[482]
        while more:
            block = self.counted(TAR_BLOCK)
            if len(block) < TAR_BLOCK:
                raise damaged()
            more = block[504]

    def skip(self, size: int) -> None:
        while size > 0:
            block = self.read(min(size, BLOCK))
            if not block:
                raise damaged()
            size -= len(block)

    def extension(self, size: int) -> bytes:
        """Read the data of an extension header, with its padding."""
        if not 0 <= size <= MAX_EXTENSION:
            raise damaged("has a header that is too large")
        padded = size + -size % TAR_BLOCK
        data = self.counted(padded)
        if len(data) < padded:
            raise damaged()
        return data[:size]


class _Section:
    """The next ``size`` bytes of the tape."""

    def __init__(self, tape: _Tape, size: int) -> None:
        if size < 0:
            raise damaged()
        self._tape = tape
        self._left = size

    def read(self, size: int, /) -> bytes:
        block = self._tape.read(min(size, self._left))
        self._left -= len(block)
        return block

    def skip(self) -> None:
        self._tape.skip(self._left)
        self._left = 0


def _is_directory(header: bytes, size: int) -> bool:
    """Whether the header is that of a directory, in the format of 1979 by its name."""
    kind = header[TYPE]
    is_old = kind == tarfile.AREGTYPE and header[NAME].rstrip(b"\0").endswith(b"/")
    return kind == tarfile.DIRTYPE or (is_old and not size)


def _size(field: bytes) -> int:
    """Return the size in a header: octal digits, or GNU tar's big-endian number."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    with translated():
        return int(field.split(b"\0")[0].strip() or b"0", 8)


class _Pax(NamedTuple):
    """What a pax extended header says of the file after it: its size may be beyond the header's."""

    size: int | None = None
    is_sparse: bool = False

    @classmethod
    def of(cls, records: bytes) -> _Pax:
        found = PAX_SIZE.findall(records)
        return cls(int(found[-1]) if found else None, PAX_SPARSE in records)
