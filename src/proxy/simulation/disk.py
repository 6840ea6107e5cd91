"""The disk of a simulated machine, for one state directory: what it refuses, loses and damages.

    with Disk.running(directory, clock) as disk, marks.marking(hook):
        # The hook calls disk.reached(mark), then it may strike.
        ...  # serve() with disk.directory, until the hook calls:
        disk.crash(elsewhere, rng, power=True)
        ...  # serve() with disk.directory, which is elsewhere now

The files are real, best on a file system in memory. The ledger's are watched as SQLite writes and
syncs them, the objects' are found by the marks.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from random import Random
from typing import NamedTuple

import apsw
import trio

from proxy.runtime.clock import Clock
from proxy.runtime.marks import Mark
from proxy.simulation.object_files import ObjectFiles, files_in, objects_in
from proxy.simulation.vfs import (
    FileOperation,
    Medium,
    Opened,
    Synced,
    WatchedVFS,
    Written,
    watching,
)

LEDGER = "ledger.db"

CUT_SHARE = 0.25
"""Of damage to an object at rest, the share that cuts it; the other flips bits."""


class DiskError(Enum):
    """An error of a disk; the value is the number of the operating system."""

    FULL = errno.ENOSPC
    IO = errno.EIO


class DiskPart(Enum):
    """A kind of writes."""

    LEDGER = "a write or sync of SQLite"
    CONTENT = "a write of a download, or of an unpacked or converted file"
    MOVES = "the move of a finished file to the name of its object"

    __hash__ = object.__hash__  # an enum hashes its name; a world does so a thousand times


_PARTS = {
    Mark.BLOCK_WRITTEN: DiskPart.CONTENT,
    Mark.ENTRY_WRITTEN: DiskPart.CONTENT,
    Mark.OBJECT_MOVED: DiskPart.MOVES,
}


class Damage(NamedTuple):
    """Damage at rest: the file's name, and the bits that were flipped in the byte at an offset.

    ``mask`` is 0 where the file was cut at the offset.
    """

    name: str
    offset: int
    mask: int


class _Failing:
    """A fault that lets some writes through, and then fails some."""

    __slots__ = ("error", "left", "part", "times")

    def __init__(self, error: DiskError, part: DiskPart | None, left: int, times: float) -> None:
        self.error = error
        self.part = part
        self.left = left
        self.times = times

    def strikes(self, part: DiskPart) -> bool:
        """Count one more write of this part; whether it is to fail."""
        if self.part not in {part, None} or self.times <= 0:
            return False
        if self.left > 0:
            self.left -= 1
            return False
        self.times -= 1
        return True


class Disk:
    """One disk, through all incarnations of the program on it; made by :meth:`running`.

    ``directory`` is the state directory of the present one. ``writes`` counts the writes and syncs
    of all of them, by part, those that failed included.
    """

    def __init__(self, directory: Path, clock: Clock, elapsed: Callable[[], float]) -> None:
        self.directory = directory
        self.writes = dict.fromkeys(DiskPart, 0)
        self.before_write: Callable[[], None] = _nothing
        """Called before each write and sync of the ledger; it may crash the machine there."""
        self.on_operation: Callable[[FileOperation], None] = _nothing
        """Told of all that SQLite does to the ledger's files, before it is done."""
        self._clock = clock
        self._elapsed = elapsed
        self._failing: list[_Failing] = []
        self._objects = self._find_objects()
        self._vfs = self._watch()
        self._former: list[WatchedVFS] = []
        found = _ledger(directory)
        self._medium = Medium({path.name: path.read_bytes() for path in found})
        self._written_at = {path.name: path.stat().st_mtime for path in found}
        self._synced_at = {**self._written_at}

    @classmethod
    @contextmanager
    def running(
        cls, directory: Path, clock: Clock, *, elapsed: Callable[[], float] = trio.current_time
    ) -> Iterator[Disk]:
        """Have the ledgers that are opened in the block on a disk, and no other database.

        ``directory`` exists, and what is in it is durable. ``clock`` gives files their times.
        ``elapsed`` measures in seconds how long ago a file was written, whatever happens to the
        clock.
        """
        with watching():
            disk = cls(directory, clock, elapsed)
            try:
                yield disk
            finally:
                disk._close()

    def _close(self) -> None:
        for vfs in (*self._former, self._vfs):
            vfs.unregister()
        self._objects.close()

    # -- Faults -----------------------------------------------------------------------------------

    def fail(
        self, error: DiskError, part: DiskPart | None = None, *, after: int = 0, times: float = 1
    ) -> None:
        """Let so many writes and syncs through from now on, then fail so many.

        Without a part all of them count. ``times`` may be infinite. Several such faults count each
        for itself.
        """
        self._failing.append(_Failing(error, part, after, times))

    def heal(self) -> None:
        """Fail nothing any more."""
        self._failing.clear()

    def reached(self, mark: Mark) -> None:
        """Take notice of a mark of the present incarnation.

        Raises OSError where a write is to fail.
        """
        part = _PARTS.get(mark)
        if part is not None:
            error = self._error(part)
            if error is not None:
                raise OSError(error.value, os.strerror(error.value))
        elif mark is Mark.OBJECT_ADOPTED or mark is Mark.OBJECT_REMOVED:
            self._objects.changing(is_removal=mark is Mark.OBJECT_REMOVED)

    def corrupt(self, rng: Random) -> Damage | None:
        """Flip bits in an object at rest, or cut it; return which, None where there is none."""
        return _damaged([Path(entry) for entry in objects_in(self.directory)], rng, CUT_SHARE)

    def corrupt_ledger(self, rng: Random) -> Damage | None:
        """Flip bits in the ledger at rest, or in its log; return where, None if both are empty."""
        damage = _damaged(_ledger(self.directory), rng, cut_share=0.0)
        if damage is not None:
            self._medium.flip(*damage)
        return damage

    def traces(self, uids: Iterable[str]) -> list[str]:
        """Return the files that hold one of the UIDs as bytes, by their path in the directory.

        The ledger's log and freed pages count. A UID that begins another is found with it: the
        ledger puts nothing between two texts.
        """
        wanted = [uid.encode() for uid in uids]
        return [
            str(path.relative_to(self.directory))
            for path in files_in(self.directory)
            if _holds_any(path.read_bytes(), wanted)
        ]

    # -- Crashes ----------------------------------------------------------------------------------

    def crash(self, into: Path, rng: Random, *, power: bool) -> None:
        """End an incarnation here and now; the next one finds the state directory ``into``.

        It is made, on the same file system. Without loss of the power it holds all that was
        written; with it, what may be left of that. This may be called within a write, and what the
        ended incarnation does later is of no effect. It is for an orderly end as well: only here
        the ledger's files get the times of the clock.
        """
        into.mkdir(mode=0o700)
        for path in self.directory.iterdir():
            if path.is_file() and not path.name.startswith(LEDGER):
                shutil.copyfile(path, into / path.name)
        if power:
            self._lose_power(into, rng)
        else:
            for path in _ledger(self.directory):
                shutil.copyfile(path, into / path.name)
            self._objects.kill(into)
        for path in _ledger(into):
            os.utime(path, (self._written_at.get(path.name, self._clock.now()),) * 2)
        self.directory = into
        self._vfs.blind()
        self._former.append(self._vfs)
        self._vfs = self._watch()
        if power:
            self._objects.close()
            self._objects = self._find_objects()

    def _lose_power(self, into: Path, rng: Random) -> None:
        left = self._medium.after_power_loss(rng)
        for name, content in left.items():
            (into / name).write_bytes(content)
        self._medium = Medium(left)
        self._written_at = {**self._synced_at}
        self._objects.lose_power(into, rng)

    # -- The seams --------------------------------------------------------------------------------

    def _find_objects(self) -> ObjectFiles:
        links = self.directory.with_name(f"{self.directory.name}-links")
        return ObjectFiles(self.directory, links, self._elapsed)

    def _watch(self) -> WatchedVFS:
        vfs = WatchedVFS(self._note)
        vfs.before_write = self._before_write
        apsw.set_default_vfs(vfs.name)
        return vfs

    def _before_write(self) -> None:
        vfs = self._vfs
        self.before_write()
        if self._vfs is not vfs:
            return  # the incarnation that writes has just ended
        error = self._error(DiskPart.LEDGER)
        if error is DiskError.FULL:
            raise apsw.FullError("the simulated disk is full")
        if error is DiskError.IO:
            raise apsw.IOError("the simulated disk failed")

    def _error(self, part: DiskPart) -> DiskError | None:
        """Count one more write; return how it is to fail, if it is."""
        self.writes[part] += 1
        errors = [each.error for each in self._failing if each.strikes(part)]
        return errors[0] if errors else None

    def _note(self, done: FileOperation) -> None:
        self.on_operation(done)
        self._medium.note(done)
        match done:
            case Opened(name):
                self._written_at.setdefault(name, self._clock.now())
            case Written(name):
                self._written_at[name] = self._clock.now()
            case Synced(name):
                self._synced_at[name] = self._written_at[name]
            case _:
                pass


def _ledger(directory: Path) -> list[Path]:
    """The ledger's file and those beside it."""
    return sorted(directory.glob(f"{LEDGER}*"))


def _damaged(paths: Iterable[Path], rng: Random, cut_share: float) -> Damage | None:
    """Damage one of the files that are not empty."""
    files = [path for path in paths if path.stat().st_size]
    if not files:
        return None
    path = rng.choice(files)
    offset = rng.randrange(path.stat().st_size)
    mask = 0 if rng.random() < cut_share else rng.randrange(1, 256)
    if mask:
        with path.open("r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ mask]))
    else:
        os.truncate(path, offset)
    return Damage(path.name, offset, mask)


def _holds_any(content: bytes, wanted: Iterable[bytes]) -> bool:
    return any(each in content for each in wanted)


def _nothing(*_: object) -> None:
    pass
