"""Iterate over the files in a tar archive, once and forwards: ustar, pax and GNU.

Only an entry's type and size matter here, so headers are read one by one with
``tarfile.TarInfo.frombuf``; ``tarfile`` itself would keep them all, load a name of any length,
and take a broken header for the end of the archive.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator

from proxy.backend.entry import BLOCK, Entry, Readable, damaged, skipped, translated, unreadable
from proxy.backend.limits import Meter

TAR_BLOCK = 512
MAX_EXTENSION = 1024 * 1024
REGULAR = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
LINKS = frozenset({tarfile.LNKTYPE, tarfile.SYMTYPE})
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
    """Yield the files of a tar archive; directories are passed over.

    ``packed`` returns how many bytes of the file have been used for what ``stream`` gave so far.
    Raises :class:`proxy.errors.ArchiveError` where the archive is damaged, lacks its end,
    exceeds a limit, or holds a sparse file.
    """
    tape = _Tape(stream, packed, meter)
    pax_size: int | None = None
    while any(header := tape.read(TAR_BLOCK)):
        with translated():
            member = tarfile.TarInfo.frombuf(header, "latin-1", "strict")
        if member.type in EXTENSIONS:
            extension = tape.extension(member.size)
            if member.type in {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}:
                pax_size = _pax_size(extension)
            continue
        meter.entry()
        size = member.size if pax_size is None else pax_size
        pax_size = None
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise unreadable("a sparse file")
        if member.type in REGULAR:
            section = _Section(tape, size)
            yield Entry(section, size)
            section.skip()
            tape.skip(-size % TAR_BLOCK)
        elif member.type != tarfile.DIRTYPE:
            yield skipped("link" if member.type in LINKS else "device")
    if len(header) < TAR_BLOCK:
        raise damaged()
    while tape.read(BLOCK):
        pass  # to the end of the gzip stream, where its checksum is compared


class _Tape:
    """The unpacked bytes of the archive, counted."""

    def __init__(self, stream: Readable, packed: Callable[[], int], meter: Meter) -> None:
        self._stream = stream
        self._packed = packed
        self._meter = meter

    def read(self, size: int) -> bytes:
        with translated():
            block = self._stream.read(size)
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
        data = self.read(padded)
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
    """Return the size in a pax extended header, which may exceed what a plain header can say."""
    if PAX_SPARSE in records:
        raise unreadable("a sparse file")
    found = PAX_SIZE.findall(records)
    return int(found[-1]) if found else None
