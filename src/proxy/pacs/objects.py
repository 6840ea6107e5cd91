"""DICOM objects on disk, each under the hash of its content. All of it blocks.

No name or id from outside becomes part of a path: an object is ``objects/ab/<sha256>``, a
download in progress ``staging/<number>/``, a copy for one C-STORE ``staging/copies/<number>``.
Directories are 0700 and files 0600, symbolic links are never followed. The ledger knows the meaning
of an object; :mod:`proxy.pacs.local` keeps the two in step, and no other module changes objects.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Container, Iterable, Iterator
from itertools import count
from pathlib import Path

import msgspec

from proxy.runtime import marks
from proxy.runtime.marks import Mark

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
