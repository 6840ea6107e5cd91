"""Unpack a downloaded archive into DICOM instances, one file each, named by a counter.

Only the content decides whether a file is an instance; names and depth in the archive play no part
and become no path. All other files are examined and counted: as skipped if they hold no image, as
passed over if they may hold one. An archive that is damaged anywhere leaves no file. Blocking; the
caller runs it through ``Offload``. The reader of DICOM files comes in as ``read``, so that this
package and ``pacs`` stay independent.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from proxy.backend.content import kind_of
from proxy.backend.entry import Entry, blocks
from proxy.backend.inside import CANDIDATES, Inside, ReadInstance
from proxy.backend.limits import ArchiveLimits, CopyMeter, LookMeter, Meter
from proxy.backend.members import members
from proxy.errors import ArchiveError, BackendError, DicomUnreadable, NotDicom
from proxy.model import Instance
from proxy.runtime import marks
from proxy.runtime.marks import Mark

__all__ = ["ArchiveLimits", "StagedInstance", "Unpacked", "Unsent", "unpack"]

CONFLICT = "two different objects with one UID, of which the first is sent"


class StagedInstance(msgspec.Struct, frozen=True):
    """An unpacked instance and the file it is in."""

    path: Path
    instance: Instance


class Unsent(msgspec.Struct, frozen=True):
    """An instance that no node can be sent, and the reason.

    ``entry`` is its place among the files of the archive, from 1. ``first_entry`` is that of the
    instance which is sent in its stead, if there is one. Unknown UIDs are empty.
    """

    entry: int
    reason: str
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    first_entry: int | None = None


class Unpacked(msgspec.Struct, frozen=True):
    """The result of unpacking an archive.

    ``skipped`` counts, by reason, the members that are no loss. ``passed_over`` counts, by reason,
    the members that may hold an image and were not unpacked: archives that hold DICOM, or that
    were not read completely. ``damaged`` counts DICOM files that cannot be sent because a UID is
    missing, ``conflicting`` instances left out because an earlier one of the same study, series
    and SOP instance UID has other content; ``unsent`` has both. All counts but ``skipped`` are
    losses to report.
    """

    instances: tuple[StagedInstance, ...]
    skipped: Mapping[str, int]
    passed_over: Mapping[str, int]
    damaged: int = 0
    conflicting: int = 0
    unsent: tuple[Unsent, ...] = ()


def unpack(
    archive: Path,
    staging: Path,
    limits: ArchiveLimits,
    checkpoint: Callable[[], None],
    read: ReadInstance,
) -> Unpacked:
    """Unpack ``archive`` into the directory ``staging``, which no other call uses.

    Leftovers of a killed run in ``staging`` are removed first; after an error, ``staging`` is
    removed. ``checkpoint`` is called between entries and blocks and may raise to cancel. Raises
    :class:`ArchiveError` if the archive is damaged, exceeds a limit, or holds no instance.
    """
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(mode=0o700, parents=True)
    try:
        return _Unpacking(archive, staging, limits, checkpoint, read).unpack()
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise BackendError.of_disk("The archive cannot be unpacked", error) from None
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


class _Unpacking:
    """The state of one call of :func:`unpack`."""

    def __init__(
        self,
        archive: Path,
        staging: Path,
        limits: ArchiveLimits,
        checkpoint: Callable[[], None],
        read: ReadInstance,
    ) -> None:
        self._archive = archive
        self._staging = staging
        self._meter = Meter(limits, staging, checkpoint)
        copies = CopyMeter(limits, staging, checkpoint)
        contents = LookMeter(limits, staging, checkpoint, archive.stat().st_size)
        self._inside = Inside(staging, copies, contents, read)
        self._read = read
        self._files = 0
        self._instances: dict[tuple[str, str, str], StagedInstance] = {}
        self._skipped: Counter[str] = Counter()
        self._passed_over: Counter[str] = Counter()
        self._damaged = 0
        self._conflicting = 0
        self._unsent: list[Unsent] = []

    def unpack(self) -> Unpacked:
        with self._archive.open("rb") as file:
            for entry in members(file, self._staging, self._meter):
                self._files += 1
                self._take(entry)
        if not self._instances:
            raise self._nothing_found()
        return Unpacked(
            tuple(self._instances.values()),
            dict(self._skipped),
            dict(self._passed_over),
            self._damaged,
            self._conflicting,
            tuple(self._unsent),
        )

    def _take(self, entry: Entry) -> None:
        head = entry.read()
        kind = kind_of(head)
        if kind in CANDIDATES:
            path = self._staging / f"{self._files:08d}"
            sha256 = self._write(path, entry, head)
            if not self._keep(path, sha256, entry):
                path.unlink()
        else:
            self._leave(entry, kind.value, self._inside.of_entry(entry, head, kind))

    def _write(self, path: Path, entry: Entry, head: bytes) -> str:
        """Write an entry's content; return its hash."""
        digest = hashlib.sha256()
        with path.open("xb") as file:
            for block in blocks(entry, head, self._meter):
                digest.update(block)
                marks.reached(Mark.ENTRY_WRITTEN)
                file.write(block)
        return digest.hexdigest()

    def _keep(self, path: Path, sha256: str, entry: Entry) -> bool:
        """Take the file as an instance; False if it is none, or its UIDs were taken before."""
        try:
            instance = self._read(path, sha256)
        except NotDicom as error:
            with path.open("rb") as file:
                self._leave(entry, error.reason, self._inside.of_file(file))
            return False
        except DicomUnreadable as error:
            self._damaged += 1
            self._unsent.append(Unsent(self._files, str(error), error.sop_class_uid))
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
            place = int(first.path.name)
            uids = instance.sop_class_uid, instance.sop_instance_uid
            self._unsent.append(Unsent(self._files, CONFLICT, *uids, first_entry=place))
        return False

    def _leave(self, entry: Entry, word: str, why: str | None) -> None:
        """Count a member that is no instance: as passed over if there is a reason to."""
        if why:
            self._passed_over[why] += 1
        else:
            self._skipped[entry.called or word] += 1

    def _nothing_found(self) -> ArchiveError:
        unsent = Counter(f"DICOM ({each.reason})" for each in self._unsent)
        counts = self._skipped + self._passed_over + unsent
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
        files = f"{self._files} file{'' if self._files == 1 else 's'}"
        return ArchiveError(
            f"There is no DICOM instance in the archive ({files}{': ' if listed else ''}{listed})",
            permanent=True,
            hint="Have the archives in it uploaded to ITH as plain files: they are not unpacked."
            if self._passed_over
            else "Check in ITH whether the dispatched entity holds images.",
        )
