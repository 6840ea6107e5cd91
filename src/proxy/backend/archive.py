"""Unpack a downloaded archive into DICOM instances, one file each, named by a counter.

Content alone decides what is an instance; names and depth in the archive play no part and become
no path. Everything else in the archive is skipped and counted. All or nothing: an archive that
is damaged anywhere leaves no file. Blocking; the caller runs it through ``Offload``. What is
known of DICOM comes in as ``read``, so that this room and ``pacs`` stay independent.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from proxy.backend.content import HEAD_BYTES, Kind, kind_of
from proxy.backend.entry import BLOCK, Entry, Metered, damaged
from proxy.backend.limits import ArchiveLimits, Meter
from proxy.backend.untar import untar
from proxy.backend.unzip import unzip
from proxy.errors import ArchiveError, BackendError, DicomUnreadable, NotDicom
from proxy.model import Instance

__all__ = ["ArchiveLimits", "StagedInstance", "Unpacked", "unpack"]

ReadInstance: TypeAlias = Callable[[Path, str], Instance]
"""Reads one DICOM file, given its path and SHA-256; raises NotDicom or DicomUnreadable."""

CANDIDATES = frozenset({Kind.DICOM, Kind.OTHER})


class StagedInstance(msgspec.Struct, frozen=True):
    """An unpacked instance and the file it is in."""

    path: Path
    instance: Instance


class Unpacked(msgspec.Struct, frozen=True):
    """What came out of an archive.

    ``skipped`` counts, by reason, what is no loss. ``damaged`` counts DICOM files that cannot be
    sent for want of a UID, ``conflicting`` instances left out because an earlier one of the same
    study, series and SOP instance UID has other content: each of these is a loss to report.
    """

    instances: tuple[StagedInstance, ...]
    skipped: Mapping[str, int]
    damaged: int = 0
    conflicting: int = 0


def unpack(
    archive: Path,
    staging: Path,
    limits: ArchiveLimits,
    checkpoint: Callable[[], None],
    read: ReadInstance,
) -> Unpacked:
    """Unpack ``archive`` into the directory ``staging``, which is this call's own.

    What a killed run left in ``staging`` is removed first; whenever this raises, ``staging``
    goes. ``checkpoint`` is called between entries and blocks and may raise to cancel. Raises
    :class:`ArchiveError` where the archive is damaged, exceeds a limit, or holds no instance.
    """
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(mode=0o700, parents=True)
    try:
        return _Unpacking(staging, Meter(limits, staging, checkpoint), read).unpack(archive)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown error")
        shutil.rmtree(staging, ignore_errors=True)
        raise BackendError(
            f"The archive cannot be unpacked on this machine: {name}",
            permanent=False,
            hint="Look at the disk that holds the state directory: space, permissions, health.",
        ) from None
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _entries(archive: Path, meter: Meter) -> Iterator[Entry]:
    """Yield the files in ``archive``; a file that is no archive is its own only entry."""
    with archive.open("rb") as file:
        kind = kind_of(file.read(HEAD_BYTES))
        file.seek(0)
        if kind is Kind.TAR:
            yield from untar(file, file.tell, meter)
        elif kind is Kind.GZIP:
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield from untar(unzipped, file.tell, meter)
        elif kind is Kind.ZIP or (kind is not Kind.DICOM and zipfile.is_zipfile(file)):
            yield from unzip(file, meter)
        else:
            size = os.fstat(file.fileno()).st_size
            file.seek(0)
            yield Entry(Metered(file, meter, size), size)


class _Unpacking:
    """The state of one call of :func:`unpack`."""

    def __init__(self, staging: Path, meter: Meter, read: ReadInstance) -> None:
        self._staging = staging
        self._meter = meter
        self._read = read
        self._files = 0
        self._instances: dict[tuple[str, str, str], StagedInstance] = {}
        self._skipped: Counter[str] = Counter()
        self._damaged = 0
        self._conflicting = 0

    def unpack(self, archive: Path) -> Unpacked:
        for entry in _entries(archive, self._meter):
            self._files += 1
            if entry.skip is not None:
                self._skipped[entry.skip] += 1
            else:
                self._take(entry)
        if not self._instances:
            raise self._nothing_found()
        return Unpacked(
            tuple(self._instances.values()), dict(self._skipped), self._damaged, self._conflicting
        )

    def _take(self, entry: Entry) -> None:
        block = entry.stream.read(BLOCK)
        kind = kind_of(block[:HEAD_BYTES])
        if kind not in CANDIDATES:
            self._skipped[kind.value] += 1
            return
        path = self._staging / f"{self._files:08d}"
        sha256 = self._write(path, block, entry)
        if not self._keep(path, sha256):
            path.unlink()

    def _write(self, path: Path, block: bytes, entry: Entry) -> str:
        """Write an entry's content; return its hash."""
        digest = hashlib.sha256()
        size = 0
        with path.open("xb", buffering=0) as file:
            while block:
                size += len(block)
                self._meter.written(size)
                digest.update(block)
                file.write(block)
                block = entry.stream.read(BLOCK)
        if size != entry.size:
            raise damaged()
        return digest.hexdigest()

    def _keep(self, path: Path, sha256: str) -> bool:
        """Take the file as an instance; False where it is none, or is there already."""
        try:
            instance = self._read(path, sha256)
        except NotDicom as error:
            self._skipped[error.reason] += 1
            return False
        except DicomUnreadable:
            self._damaged += 1
            return False
        key = (
            instance.study_instance_uid,
            instance.series_instance_uid,
            instance.sop_instance_uid,
        )
        first = self._instances.setdefault(key, StagedInstance(path, instance))
        if first.path == path:
            return True
        if first.instance.sha256 == sha256:
            self._skipped["duplicate"] += 1
        else:
            self._conflicting += 1
        return False

    def _nothing_found(self) -> ArchiveError:
        counts = self._skipped + Counter({"damaged DICOM": self._damaged})
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
        files = f"{self._files} file{'' if self._files == 1 else 's'}"
        return ArchiveError(
            f"There is no DICOM instance in the archive ({files}{': ' if listed else ''}{listed})",
            permanent=True,
            hint="Look in ITH whether what was dispatched holds images.",
        )
