"""Iterate over the files in a tar archive, once and forwards: v7, ustar, pax and GNU.

Only an entry's type and size matter here, so headers are read one by one with
``tarfile.TarInfo.frombuf``; ``tarfile`` itself would keep them all, load a name of any length,
and take a broken header for the end of the archive.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator

from proxy.backend.content import is_tar_header
from proxy.backend.entry import BLOCK, Entry, Readable, without_content
from proxy.backend.faults import damaged, translated, unreadable
from proxy.backend.limits import Meter

TAR_BLOCK = 512
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
    Concatenated archives are read as one; other bytes behind the end are no part of it. Raises
    :class:`proxy.errors.ArchiveError` if the archive is damaged, lacks its end, exceeds a limit,
    or holds an incomplete file.
    """
    tape = _Tape(stream, packed, meter)
    pax_size: int | None = None
    at_end = False
    while header := tape.counted(TAR_BLOCK):
        if len(header) == TAR_BLOCK and not any(header):
            at_end = True
            continue
        if at_end and not is_tar_header(header):
            break
        at_end = False
        with translated():
            member = tarfile.TarInfo.frombuf(header, "latin-1", "strict")
        kind = header[TYPE]  # tarfile takes an old file whose name ends in "/" for a directory
        if kind in EXTENSIONS:
            extension = tape.extension(member.size)
            if kind in {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}:
                pax_size = _pax_size(extension)
            continue
        meter.entry()
        size = member.size if pax_size is None else pax_size
        pax_size = None
        if kind == tarfile.GNUTYPE_SPARSE:
            raise unreadable("holds a sparse file")
        if kind == CONTINUED:
            raise unreadable("holds a part of a file")
        if kind in NO_CONTENT:
            yield without_content(NO_CONTENT[kind])
        elif kind != tarfile.DIRTYPE and (size or member.type != tarfile.DIRTYPE):
            section = _Section(tape, size)
            yield Entry(section, size, packed)
            section.skip()
            tape.skip(-size % TAR_BLOCK)
    if not at_end:
        raise damaged()
    while tape.read(BLOCK):
        pass  # to the end of the gzip stream, where its checksum is verified


class _Tape:
    """The unpacked bytes of the archive; every read and every skip is a cancellation point."""

    def __init__(self, stream: Readable, packed: Callable[[], int], meter: Meter) -> None:
        self._stream = stream
        self._packed = packed
        self._meter = meter

    def read(self, size: int) -> bytes:
        self._meter.checkpoint()
        with translated():
            return self._stream.read(size)

    def counted(self, size: int) -> bytes:
        """Read and count bytes that are not content of a file."""
        block = self.read(size)
        self._meter.unpacked(len(block), self._packed())
        return block

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


def _pax_size(records: bytes) -> int | None:
    """Return the size in a pax extended header, which may exceed the range of a plain header."""
    if PAX_SPARSE in records:
        raise unreadable("holds a sparse file")
    found = PAX_SIZE.findall(records)
    return int(found[-1]) if found else None
