"""The local PACS: the ledger's rows and the objects on disk, kept in step.

When an entity is taken in, objects come first and rows second; when one is deleted, rows go first
and objects second. So an interruption leaves at most objects that no row refers to, and those are
removed at once, or at the next start by :meth:`LocalPacs.janitor`. The supervisor calls this; it
sends nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from itertools import count, islice
from pathlib import Path

import msgspec
import trio

from proxy.ledger import Deleted, Ledger, PendingResult
from proxy.model import Entity, Instance
from proxy.pacs.convert import convert
from proxy.runtime import marks
from proxy.runtime.marks import Mark
from proxy.runtime.offload import Offload

CHUNK = 256
"""Files that one blocking call moves or hashes; a cancellation is heard between calls."""
CLEAN_UP_S = 30.0
"""Seconds that a deletion, or the clean-up of an interrupted one, may delay a cancellation."""
UNSYNCED_S = 300.0
"""Seconds back in which a power cut may have damaged objects; the kernel writes back within 30."""


class Checked(msgspec.Struct, frozen=True):
    """The janitor's result: unknown files removed, objects damaged, entities to fetch again."""

    removed: int
    damaged: int
    dropped: int


class LocalPacs:
    """The entities of ITH that this machine holds."""

    def __init__(self, ledger: Ledger, objects: Objects, offload: Offload) -> None:
        self._ledger = ledger
        self._objects = objects
        self._offload = offload
        # An object that is adopted for one entity must not be removed for another meanwhile.
        self._lock = trio.Lock()

    @property
    def usage_gb(self) -> float:
        """The size of the objects on disk, in units of 1024³ bytes."""
        return self._objects.usage_bytes() / 1024**3

    def path(self, instance: Instance) -> Path:
        """Return the file of an instance that is held."""
        return self._objects.path(instance.sha256)

    @asynccontextmanager
    async def staging(self, dispatch_id: int) -> AsyncIterator[Path]:
        """Lend a directory for the download of a dispatch; it is removed at the end."""
        directory = await self._offload(self._objects.staging, dispatch_id)
        try:
            yield directory
        finally:
            with trio.move_on_after(CLEAN_UP_S, shield=True):
                await self._offload(self._objects.clear_staging, dispatch_id)

    @asynccontextmanager
    async def converted(
        self, instance: Instance, transfer_syntax_uid: str, reserve_bytes: int
    ) -> AsyncIterator[tuple[Path, Instance]]:
        """Lend a copy of an instance in another transfer syntax; it is removed at the end.

        A cancellation ends the conversion between two blocks, and so does a disk with less than
        ``reserve_bytes`` free. Raises the errors of :func:`proxy.pacs.convert.convert`.
        """
        copy = await self._offload(self._objects.new_copy)

        def checkpoint() -> None:
            self._offload.check_cancelled()
            if shutil.disk_usage(copy.parent).free < reserve_bytes:
                raise OSError(errno.ENOSPC, "the reserve is not touched")

        try:
            converted = await self._offload(
                convert, self.path(instance), instance, transfer_syntax_uid, copy, checkpoint
            )
            yield copy, converted
        finally:
            with trio.move_on_after(CLEAN_UP_S, shield=True):
                await self._offload(self._objects.discard_copy, copy)

    async def take_in(
        self,
        entity: Entity,
        staged: Sequence[tuple[Path, Instance]],
        etag: str | None,
        *,
        dispatch_id: int | None = None,
    ) -> None:
        """Take a complete entity from staging; it replaces the instances held of it before.

        On return it is durable in the ledger and its files have left staging. If the dispatch is
        given that it was fetched for, instances that ITH deleted since that order are left out.
        After a cancellation it is held either completely or as before, and no object stays that no
        row refers to.
        """
        async with self._lock:
            adopted: list[str] = []
            try:
                files = iter(staged)
                while chunk := list(islice(files, CHUNK)):
                    adopted += [instance.sha256 for _, instance in chunk]
                    await self._offload(self._adopt, chunk)
                instances = [instance for _, instance in staged]
                orphans = await self._ledger.keep(entity, instances, etag, dispatch_id=dispatch_id)
                marks.reached(Mark.CONTENT_KEPT)
            except BaseException:
                with trio.move_on_after(CLEAN_UP_S, shield=True):
                    await self._remove_unreferenced(adopted)
                raise
            await self._remove(orphans)

    def delete_session(
        self,
        session_id: str | None,
        study_instance_uid: str | None,
        *,
        subject_id: str | None = None,
    ) -> Awaitable[Deleted]:
        """Delete a session: the instances held under its id, and every instance of the study.

        As with the other two, its place among orders and other deletions is that of this call.
        The rows are deleted even if nothing awaits the answer, and a cancellation is heard only
        when the files are removed; files left by a kill are removed by the janitor of the next
        start.
        """
        return self._finish(
            self._ledger.delete_session(session_id, study_instance_uid, subject_id=subject_id)
        )

    def delete_scan(
        self,
        study_instance_uid: str | None,
        series_number: int | None,
        *,
        scan_id: str | None = None,
        session_id: str | None = None,
        subject_id: str | None = None,
    ) -> Awaitable[Deleted]:
        """Delete a scan: all series of that number in the study, and instances held by its id."""
        return self._finish(
            self._ledger.delete_scan(
                study_instance_uid,
                series_number,
                scan_id=scan_id,
                session_id=session_id,
                subject_id=subject_id,
            )
        )

    def delete_subject(
        self, subject_id: str | None, subject_identifier: str | None
    ) -> Awaitable[Deleted]:
        """Delete a subject: instances held under its id, and every instance of that PatientID."""
        return self._finish(self._ledger.delete_subject(subject_id, subject_identifier))

    async def janitor(self) -> Checked:
        """Bring rows and objects in step; for the start, before anything else uses them.

        It checks the size of every object, and the content of those that were taken in shortly
        before the former run ended, because they may not have reached the disk. The entities of
        missing and damaged objects are to be fetched again. Then everything is removed that no row
        refers to, and all staging.
        """
        async with self._lock:
            await self._ledger.release_unused()
            known = await self._ledger.all_objects()
            damaged = await self._find(self._objects.has, known)
            recent = await self._ledger.all_objects(self._ledger.last_written - UNSYNCED_S)
            for sha256 in damaged:
                recent.pop(sha256, None)
            damaged += await self._find(self._objects.is_whole, recent)
            dropped = await self._ledger.lose(damaged)
            intact = known.keys() - damaged
            swept = await self._offload(self._objects.sweep, intact)
            return Checked(swept.removed, len(damaged), dropped)

    async def is_whole(self, instance: Instance) -> bool:
        """Whether an object is as it came from ITH, byte for byte; if not, it is dropped.

        Then the entities it belongs to are to be fetched again; plans to send it are not changed.
        """
        async with self._lock:
            if not await self._find(self._objects.is_whole, {instance.sha256: instance.size}):
                return True
            await self._ledger.lose([instance.sha256])
            await self._remove([instance.sha256])
            return False

    async def _finish(self, answer: PendingResult[Deleted]) -> Deleted:
        """Carry a deletion out. Only a cancellation sets a limit: a slow disk is no fault."""
        try:
            return await self._remove_deleted(answer)
        except trio.Cancelled:
            with trio.move_on_after(CLEAN_UP_S, shield=True):
                await self._remove_deleted(answer)
            raise

    async def _remove_deleted(self, answer: PendingResult[Deleted]) -> Deleted:
        """Remove the files of a deletion, but for those that were taken in again meanwhile."""
        deleted = await answer
        marks.reached(Mark.ROWS_DELETED)
        async with self._lock:
            await self._remove_unreferenced(deleted.orphans)
        return deleted

    async def _remove(self, hashes: Sequence[str]) -> None:
        """Remove objects; a cancellation is heard afterwards."""
        try:
            await self._offload(self._objects.remove, hashes)
        except trio.Cancelled:
            with trio.move_on_after(CLEAN_UP_S, shield=True):
                await self._offload(self._objects.remove, hashes)
            raise

    async def _remove_unreferenced(self, hashes: Sequence[str]) -> None:
        referenced = await self._ledger.referenced(hashes)
        await self._remove([sha256 for sha256 in hashes if sha256 not in referenced])

    def _adopt(self, chunk: Sequence[tuple[Path, Instance]]) -> None:
        for path, instance in chunk:
            self._objects.adopt(path, instance.sha256)

    async def _find(
        self, is_good: Callable[[str, int], bool], sizes: Mapping[str, int]
    ) -> list[str]:
        """Return the objects that are not good; they are checked chunk by chunk."""

        def bad(chunk: Sequence[tuple[str, int]]) -> list[str]:
            return [sha256 for sha256, size in chunk if not is_good(sha256, size)]

        found: list[str] = []
        todo = iter(sizes.items())
        while chunk := list(islice(todo, CHUNK)):
            found += await self._offload(bad, chunk)
        return found


_SHA256 = re.compile(r"[0-9a-f]{64}")


class Swept(msgspec.Struct, frozen=True):
    """The result of a sweep: files and directories removed, objects and bytes kept."""

    removed: int
    objects: int
    bytes: int


class Objects:
    """The objects under one directory. Two calls at once must not concern the same object."""

    def __init__(self, root: Path) -> None:
        """Use ``root`` for objects and staging; both are made if they are missing."""
        self._objects = _private_directory(root / "objects")
        self._staging = _private_directory(root / "staging")
        self._bytes = 0
        self._copies = count(1)

    def usage_bytes(self) -> int:
        """Return the size of the objects: as of the last sweep, kept up to date since."""
        return self._bytes

    def path(self, sha256: str) -> Path:
        """Return the path of an object, stored or not. Raises ValueError if this is no hash."""
        if not _SHA256.fullmatch(sha256):
            raise ValueError("an object's name is 64 lower-case hexadecimal digits")
        return self._objects / sha256[:2] / sha256

    def staging(self, number: int) -> Path:
        """Return the directory for the download of dispatch ``number``, made if it is missing.

        Files that an interrupted download left since the last sweep are still in it.
        """
        return _private_directory(self._staging / str(int(number)))

    def clear_staging(self, number: int) -> None:
        """Remove a download's directory and everything in it."""
        shutil.rmtree(self._staging / str(int(number)), ignore_errors=True)

    def new_copy(self) -> Path:
        """Return a path for a copy of an object; the next sweep removes a copy that is left."""
        return _private_directory(self._staging / "copies") / str(next(self._copies))

    def discard_copy(self, copy: Path) -> None:
        """Remove a copy, if it was written."""
        copy.unlink(missing_ok=True)

    def adopt(self, staged: Path, sha256: str) -> bool:
        """Move a finished file in under its hash; return whether it was not there already.

        The caller has computed the hash while it wrote the file, so it replaces an existing one,
        which may have been damaged since. Nothing is synced: an object from ITH can be fetched
        again, and the start after a crash checks it.
        """
        target = self.path(sha256)
        descriptor = os.open(staged, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ValueError("only a regular file can become an object")
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        former = _regular_size(target)
        _private_directory(target.parent)
        marks.reached(Mark.OBJECT_MOVED)
        staged.replace(target)
        self._bytes += found.st_size - (former or 0)
        marks.reached(Mark.OBJECT_ADOPTED)
        return former != found.st_size

    def remove(self, hashes: Iterable[str]) -> int:
        """Delete objects; missing ones are ignored. Returns the number deleted."""
        removed = 0
        for sha256 in hashes:
            target = self.path(sha256)
            size = _regular_size(target)
            marks.reached(Mark.OBJECT_REMOVED)
            target.unlink(missing_ok=True)
            if size is not None:
                removed += 1
                self._bytes -= size
        return removed

    def has(self, sha256: str, size: int) -> bool:
        """Whether an object is there with the right size."""
        return _regular_size(self.path(sha256)) == size

    def is_whole(self, sha256: str, size: int) -> bool:
        """Whether an object is there, byte for byte: reads it all."""
        if not self.has(sha256, size):
            return False
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(self.path(sha256), flags), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError:
            return False

    def sweep(self, known: Container[str]) -> Swept:
        """Remove all staging, and all objects that are not known.

        For the start of the program, when nothing is being taken in: patient data without a row in
        the ledger must not stay.
        """
        strangers = [*self._staging.iterdir()]
        kept = size = 0
        for shard in self._objects.iterdir():
            if shard.is_symlink() or not shard.is_dir():
                strangers.append(shard)
                continue
            for entry in _entries(shard):
                if (
                    entry.is_file(follow_symlinks=False)
                    and entry.name in known
                    and _SHA256.fullmatch(entry.name)
                    and entry.name.startswith(shard.name)
                ):
                    kept += 1
                    size += entry.stat(follow_symlinks=False).st_size
                else:
                    strangers.append(Path(entry.path))
        for stranger in strangers:
            marks.reached(Mark.OBJECT_REMOVED)
            _remove(stranger)
        self._bytes = size
        return Swept(removed=len(strangers), objects=kept, bytes=size)


def _private_directory(path: Path) -> Path:
    """Make a directory for the owner alone, or make an existing one so."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)
    return path


def _regular_size(path: Path) -> int | None:
    """Return the size of a regular file, None for anything else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        yield from entries


def _remove(path: Path) -> None:
    """Remove a file, a link (not its target) or a directory with its content."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
