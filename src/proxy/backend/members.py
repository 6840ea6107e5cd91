"""Iterate over the files in an archive of any kind that this program unpacks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from proxy.backend.content import HEAD_BYTES, ContentKind, kind_of
from proxy.backend.entry import BLOCK, Entry, spooled
from proxy.backend.faults import translated
from proxy.backend.gunzip import STREAMS, Gunzip
from proxy.backend.hidden import hidden_in
from proxy.backend.limits import Meter
from proxy.backend.untar import untar
from proxy.backend.unzip import unzip


def members(file: BinaryIO, staging: Path, meter: Meter) -> Iterator[Entry]:
    """Yield the files in the archive ``file``; a file that is no archive is its own only entry.

    A gzip, bzip2 or xz file counts as the file that it contains. Raises
    :class:`proxy.errors.ArchiveError` if the archive is damaged, exceeds a limit, or cannot be read
    by this program.
    """
    file.seek(0)
    kind = kind_of(file.read(HEAD_BYTES))
    file.seek(0)
    if kind is ContentKind.TAR:
        yield from untar(file, file.tell, meter)
    elif kind in STREAMS:
        yield from _gunzipped(file, kind, staging, meter)
    elif kind is ContentKind.ZIP or (
        kind is not ContentKind.DICOM and hidden_in(file) is ContentKind.ZIP
    ):
        yield from unzip(file, meter)
    else:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        yield Entry(file, size, file.tell)


def _gunzipped(file: BinaryIO, kind: ContentKind, staging: Path, meter: Meter) -> Iterator[Entry]:
    stream = io.BufferedReader(Gunzip(file, meter.checkpoint, kind), BLOCK)
    with translated():
        kind = kind_of(stream.peek(HEAD_BYTES))
    whole = Entry(stream, None, file.tell)
    if kind is ContentKind.TAR:
        yield from untar(stream, file.tell, meter)
    elif kind is ContentKind.ZIP:
        with spooled(whole, whole.read(), staging, meter) as archive:
            yield from unzip(archive, meter)
    else:
        yield whole
