"""One file of an archive, and the errors of reading one; shared by ``unzip.py`` and ``untar.py``.

Every error of the libraries becomes an :class:`ArchiveError` here, at the edge; none of them
says anything of the content, names included.
"""

from __future__ import annotations

import errno
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from proxy.backend.limits import Meter
from proxy.errors import ArchiveError

BLOCK = 1024 * 1024
"""Bytes read, hashed and written at a time; a checkpoint lies between two blocks."""


class Readable(Protocol):
    """What content is read from."""

    def read(self, size: int, /) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        ...


class Entry(NamedTuple):
    """One file of an archive, valid until the next one is asked for.

    ``skip`` says why it has no content of its own; else ``stream`` gives ``size`` bytes.
    """

    stream: Readable
    size: int
    skip: str | None = None


def skipped(reason: str) -> Entry:
    """Build an entry that has nothing to read."""
    return Entry(io.BytesIO(), 0, reason)


def damaged(what: str = "is damaged or incomplete") -> ArchiveError:
    """Build the error for an archive that another download may bring whole."""
    return ArchiveError(
        f"The archive {what}",
        permanent=False,
        hint="The download is tried again; if this stays so, the archive is broken at ITH.",
    )


def unreadable(what: str) -> ArchiveError:
    """Build the error for an archive that this program cannot read, however often it comes."""
    return ArchiveError(
        f"The archive holds {what}",
        permanent=True,
        hint="Only plain zip (stored or deflated) and tar.gz archives can be unpacked.",
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn what the libraries raise on bad input into :class:`ArchiveError`."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        struct.error,
        EOFError,
        OverflowError,
        ValueError,
    ):
        raise damaged() from None
    except NotImplementedError:
        raise unreadable("content of an unknown kind") from None
    except OSError as error:
        # gzip's own errors have no number; a position of nonsense is an invalid argument.
        if error.errno in {None, errno.EINVAL}:
            raise damaged() from None
        raise


class Metered:
    """A stream whose bytes are counted; all so far came out of ``packed`` bytes."""

    def __init__(self, stream: Readable, meter: Meter, packed: int) -> None:
        self._stream = stream
        self._meter = meter
        self._packed = packed

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, counted."""
        with translated():
            block = self._stream.read(size)
        self._meter.unpacked(len(block), self._packed)
        return block
