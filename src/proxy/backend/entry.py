"""One file of an archive, in the same form for every kind of archive."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from proxy.backend.faults import EntryUnread, damaged, translated
from proxy.backend.limits import Meter
from proxy.runtime import marks
from proxy.runtime.marks import Mark

BLOCK = 1024 * 1024
"""Bytes read, hashed and written at a time; a checkpoint lies between two blocks."""


class Readable(Protocol):
    """A source of content."""

    def read(self, size: int, /) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        ...


class Entry(NamedTuple):
    """One file of an archive, valid until the next one is asked for.

    ``stream`` gives ``size`` bytes; None means all until its end. ``packed`` returns how many bytes
    of the archive were used for the content of all entries so far. ``called`` is the type, such as
    a link, that the archive declares in place of a file: content decides, so it only names an
    entry that turns out to be no image.
    """

    stream: Readable
    size: int | None
    packed: Callable[[], int]
    called: str | None = None

    def read(self) -> bytes:
        """Return the next block; the caller counts it."""
        with translated():
            return self.stream.read(BLOCK)


def without_content(called: str) -> Entry:
    """Build an entry that has nothing to read."""
    return Entry(io.BytesIO(), 0, int, called)


class Refused:
    """In place of the content of a file that cannot be read: raises the reason."""

    def __init__(self, error: EntryUnread) -> None:
        self._error = error

    def read(self, size: int, /) -> bytes:
        """Raise the error."""
        raise self._error


def unreadable(error: EntryUnread) -> Entry:
    """Build the entry of a file that cannot be read."""
    return Entry(Refused(error), None, int)


def blocks(entry: Entry, first: bytes, meter: Meter) -> Iterator[bytes]:
    """Yield the content of ``entry`` from its ``first`` block on, counted as a file to be written.

    Raises :class:`proxy.errors.ArchiveError` if a limit is exceeded, or the size is not the one
    that the archive declares.
    """
    size = 0
    block = first
    while block:
        size += len(block)
        meter.unpacked(len(block), entry.packed())
        meter.written(size)
        yield block
        block = entry.read()
    if entry.size not in {None, size}:
        raise damaged()


@contextmanager
def spooled(entry: Entry, first: bytes, staging: Path, meter: Meter) -> Iterator[BinaryIO]:
    """Yield the content of ``entry`` as a file in ``staging``, which is removed at the end.

    Raises the errors of :func:`blocks`.
    """
    with tempfile.NamedTemporaryFile(dir=staging) as file:
        for block in blocks(entry, first, meter):
            marks.reached(Mark.ENTRY_WRITTEN)
            file.write(block)
        file.flush()
        with Path(file.name).open("rb") as unpacked:
            yield unpacked
