"""One file of an archive, as every kind of archive gives it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from proxy.backend.faults import damaged, translated
from proxy.backend.limits import Meter

BLOCK = 1024 * 1024
"""Bytes read, hashed and written at a time; a checkpoint lies between two blocks."""


class Readable(Protocol):
    """What content is read from."""

    def read(self, size: int, /) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        ...


class Entry(NamedTuple):
    """One file of an archive, valid until the next one is asked for.

    ``stream`` gives ``size`` bytes; None stands for all there are. ``packed`` returns of how many
    bytes the archive has made what it gave so far. ``called`` is what the archive says that this
    is in place of a file: content decides, so it only names what turns out to be no image.
    """

    stream: Readable
    size: int | None
    packed: Callable[[], int]
    called: str | None = None

    def read(self) -> bytes:
        """Return the next block; it is for the caller to count."""
        with translated():
            return self.stream.read(BLOCK)


def without_content(called: str) -> Entry:
    """Build an entry that has nothing to read."""
    return Entry(io.BytesIO(), 0, int, called)


def blocks(entry: Entry, first: bytes, meter: Meter) -> Iterator[bytes]:
    """Yield the content of ``entry`` from its ``first`` block on, counted as a file to be written.

    Raises :class:`proxy.errors.ArchiveError` where a limit is exceeded, or the size is another
    than the archive said.
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
    """Give the content of ``entry`` as a file of its own, which is in ``staging`` till the end.

    Raises what :func:`blocks` raises.
    """
    with tempfile.NamedTemporaryFile(dir=staging) as file:
        file.writelines(blocks(entry, first, meter))
        file.flush()
        with Path(file.name).open("rb") as unpacked:
            yield unpacked
