"""Unpack a downloaded archive into DICOM instances, one file each, named by a counter.

Only the content decides whether a file is an instance; names and depth in the archive play no part
and become no path. An archive within the archive is unpacked as well, one level deep. All other
files are counted: as skipped if they hold no image, as passed over if they may hold one. Blocking;
the caller runs it through ``Offload``. The reader of DICOM files comes in as ``read``, so that this
package and ``pacs`` stay independent.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, TypeAlias

import msgspec

from proxy.backend.content import ARCHIVES, SEALED, ContentKind, kind_of
from proxy.backend.entry import BLOCK, Entry, blocks
from proxy.backend.faults import BeyondLimit, EntryUnread, Unread
from proxy.backend.hidden import hidden_in
from proxy.backend.limits import ArchiveLimits, Meter, NestedMeter
from proxy.backend.members import members
from proxy.errors import ArchiveError, BackendError, DicomUnreadable, NotDicom
from proxy.model import Instance
from proxy.runtime import marks
from proxy.runtime.marks import Mark

__all__ = ["ArchiveLimits", "StagedInstance", "Unpacked", "Unsent", "unpack"]

CONFLICT = "two different objects with one UID, of which the first is sent"

ReadInstance: TypeAlias = Callable[[Path, str], Instance]
"""Reads one DICOM file, given its path and SHA-256; raises NotDicom or DicomUnreadable."""

CANDIDATES = frozenset({ContentKind.DICOM, ContentKind.OTHER})
"""The kinds that ``ReadInstance`` decides on."""

CANNOT_BE_UNPACKED = "cannot be unpacked"
TOO_DEEP = "is in an archive within the archive"


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
    the members that may hold an image and were not read: files and archives that are damaged,
    encrypted, beyond a limit, of a kind that cannot be unpacked, or too deep. ``damaged`` counts
    DICOM files that cannot be sent because a UID is missing, ``conflicting`` instances left out
    because an earlier one of the same study, series and SOP instance UID has other content;
    ``unsent`` has both. All counts but ``skipped`` are losses to report.
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
    *,
    comes_again: bool = False,
) -> Unpacked:
    """Unpack ``archive`` into the directory ``staging``, which no other call uses.

    Leftovers of a killed run in ``staging`` are removed first; after an error, ``staging`` is
    removed. ``checkpoint`` is called between entries and blocks and may raise to cancel. Raises
    :class:`ArchiveError` if the archive exceeds a limit, or holds no instance that can be read;
    with ``comes_again`` for any damage too, because another download may bring it undamaged.
    """
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(mode=0o700, parents=True)
    try:
        return _Unpacking(
            archive, staging, limits, checkpoint, read, comes_again=comes_again
        ).unpack()
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
        *,
        comes_again: bool,
    ) -> None:
        self._archive = archive
        self._staging = staging
        self._read = read
        self._comes_again = comes_again
        self._outer = Meter(limits, staging, checkpoint)
        self._inner = NestedMeter(limits, staging, checkpoint, archive.stat().st_size)
        self._meter = self._outer
        """The meter of the archive that is read; ``_inner`` within an archive of the archive."""
        self._files = 0
        self._instances: dict[tuple[str, str, str], StagedInstance] = {}
        self._skipped: Counter[str] = Counter()
        self._passed_over: Counter[str] = Counter()
        self._unread: Unread | None = None
        self._damaged = 0
        self._conflicting = 0
        self._unsent: list[Unsent] = []

    def unpack(self) -> Unpacked:
        with self._archive.open("rb") as file:
            try:
                self._take_all(file)
            except Unread as error:
                if error.spoils or self._comes_again or not self._instances:
                    raise
                self._pass_over("archive", error)
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

    def _take_all(self, archive: BinaryIO) -> None:
        for entry in members(archive, self._staging, self._meter):
            self._files += 1
            try:
                self._take(entry)
            except EntryUnread as error:
                # Within another archive, whose checksums were right, it is as it was packed.
                if self._comes_again and not error.permanent and not self._is_nested:
                    raise
                self._pass_over("file", error)

    def _take(self, entry: Entry) -> None:
        head = entry.read()
        kind = kind_of(head)
        if kind in SEALED:
            self._passed_over[_reason(kind.value, CANNOT_BE_UNPACKED)] += 1
            return
        if _is_settled(head, kind):
            self._meter.unpacked(len(head), entry.packed())
            self._skipped[entry.called or kind.value] += 1
            return
        if not self._is_nested:
            self._inner.begin()
        path = self._staging / f"{self._files:08d}"
        is_kept = False
        try:
            if kind in CANDIDATES:
                is_kept = self._keep(path, self._write(path, entry, head, self._meter), entry)
            else:
                self._write(path, entry, head, self._inner)
                self._look_into(path, kind, entry.called or kind.value)
        except BeyondLimit as error:
            if self._is_nested or kind in CANDIDATES:
                raise
            self._pass_over(kind.value, error)
        finally:
            if not is_kept:
                path.unlink(missing_ok=True)

    @property
    def _is_nested(self) -> bool:
        return self._meter is self._inner

    def _look_into(self, path: Path, begins_as: ContentKind, word: str) -> None:
        """Unpack a file that is an archive, or hides one, and count it otherwise."""
        with path.open("rb") as file:
            kind = begins_as if begins_as in ARCHIVES else hidden_in(file)
            if kind is None:
                self._skipped[word] += 1
            elif kind is not begins_as and kind is not ContentKind.ZIP:
                self._passed_over[_reason(kind.value, CANNOT_BE_UNPACKED)] += 1
            elif self._is_nested:
                self._passed_over[_reason(kind.value, TOO_DEEP)] += 1
            else:
                self._unpack_nested(file, kind, word)

    def _unpack_nested(self, file: BinaryIO, kind: ContentKind, word: str) -> None:
        """Take what is in an archive within the archive; one without any DICOM is one file."""
        instances, losses, skipped = len(self._instances), self._losses, self._skipped.copy()
        self._meter = self._inner
        try:
            self._take_all(file)
        except Unread as error:
            if error.spoils:
                self._forget_all_but(instances)
            self._pass_over(kind.value, error)
        finally:
            self._meter = self._outer
        if (len(self._instances), self._losses) == (instances, losses):
            self._skipped = skipped
            self._skipped[word] += 1

    @property
    def _losses(self) -> int:
        return self._passed_over.total() + self._damaged + self._conflicting

    def _forget_all_but(self, first: int) -> None:
        while len(self._instances) > first:
            _, staged = self._instances.popitem()
            staged.path.unlink()

    def _write(self, path: Path, entry: Entry, head: bytes, meter: Meter) -> str:
        """Write an entry's content; return its hash."""
        digest = hashlib.sha256()
        with path.open("xb") as file:
            for block in blocks(entry, head, meter):
                digest.update(block)
                marks.reached(Mark.ENTRY_WRITTEN)
                file.write(block)
        return digest.hexdigest()

    def _keep(self, path: Path, sha256: str, entry: Entry) -> bool:
        """Take the file as an instance; False if it is none, or its UIDs were taken before."""
        try:
            instance = self._read(path, sha256)
        except NotDicom as error:
            self._look_into(path, ContentKind.OTHER, entry.called or error.reason)
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

    def _pass_over(self, what: str, error: Unread) -> None:
        """Count a file or an archive that was not read completely."""
        self._passed_over[_reason(what, error.what)] += 1
        if self._unread is None or self._unread.permanent:
            self._unread = error

    def _nothing_found(self) -> ArchiveError:
        unsent = Counter(f"DICOM ({each.reason})" for each in self._unsent)
        counts = self._skipped + self._passed_over + unsent
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
        files = f"{self._files} file{'' if self._files == 1 else 's'}"
        hint = "Check in ITH whether the dispatched entity holds images."
        if self._unread is not None:
            hint = self._unread.hint
        elif self._passed_over:
            hint = "Have what is in them uploaded to ITH as plain files."
        return ArchiveError(
            f"There is no DICOM instance in the archive ({files}{': ' if listed else ''}{listed})",
            permanent=self._unread is None or self._unread.permanent,
            hint=hint,
        )


def _is_settled(head: bytes, kind: ContentKind) -> bool:
    """Whether the first block alone shows that the file holds no archive."""
    is_whole = kind not in ARCHIVES | CANDIDATES and len(head) < BLOCK
    return is_whole and not hidden_in(io.BytesIO(head))


def _reason(what: str, why: str) -> str:
    return f"{what} that {why}"
