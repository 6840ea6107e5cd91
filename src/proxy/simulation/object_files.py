"""The objects' files through a crash: which of them a loss of the power may take, damage or revive.

The program syncs none of them. So each one that came within the kernel's delay may be missing, cut,
zero in its tail, still under its former name, or whole; one that was removed may be there again.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from enum import Enum
from itertools import count
from pathlib import Path
from random import Random
from typing import NamedTuple

from proxy.simulation.vfs import SECTOR

OBJECTS, STAGING = "objects", "staging"

WRITEBACK_S = 30.0
"""Seconds after which the kernel has written back what nobody synced."""


class _Fate(Enum):
    """What a loss of the power makes of a file that was not written back."""

    WHOLE = "it is as it was written"
    MISSING = "it is not there"
    CUT = "its end is missing"
    ZEROED = "its end is zero"
    UNMOVED = "it has the name from before it was moved"


_SHARES = {
    _Fate.WHOLE: 4,
    _Fate.MISSING: 2,
    _Fate.CUT: 2,
    _Fate.ZEROED: 2,
    _Fate.UNMOVED: 1,
}


class _Version(NamedTuple):
    """One file under the name of an object; it ``came`` at this time of the disk's clock.

    ``link`` is a name of ours for it, so that it can be had when the program has removed it.
    """

    inode: int
    came: float
    link: Path


class ObjectFiles:
    """The objects and the staging of one state directory."""

    def __init__(self, directory: Path, links: Path, elapsed: Callable[[], float]) -> None:
        """Take the directory; its files are durable.

        ``links`` is made, for names of ours: on the same file system, outside of the directory.
        ``elapsed`` is the disk's clock, in seconds.
        """
        self._directory = directory
        self._links = links
        self._elapsed = elapsed
        self._numbers = count(1)
        self._present: dict[str, _Version] = {}
        self._former: dict[str, tuple[_Version, float]] = {}
        """The file that was under an object's name before, and until when."""
        self._changed_at: float | None = None
        self._has_unseen = False
        links.mkdir(mode=0o700)
        self._look(-math.inf)

    def close(self) -> None:
        """Remove the names of ours."""
        shutil.rmtree(self._links)

    def changing(self, *, is_removal: bool) -> None:
        """Take notice that an object has come just now, or is about to be removed.

        All that changes at one time of the clock is looked at together, later; but what has come
        is looked at before anything goes, since it may be that.
        """
        now = self._elapsed()
        is_later = self._changed_at is not None and self._changed_at != now
        if is_later or (is_removal and self._has_unseen):
            self._look_at_changes()
        self._changed_at = now
        self._has_unseen |= not is_removal

    def kill(self, into: Path) -> None:
        """Leave all files in the directory ``into``, and go on there.

        Objects are linked, because nothing writes to one again; staging is copied.
        """
        self._look_at_changes()
        for entry in objects_in(self._directory):
            os.link(entry, _placed(into, entry.name))
        for number, path in enumerate(files_in(self._directory / STAGING), 1):
            shutil.copyfile(path, _staged(into, number))
        self._directory = into

    def lose_power(self, into: Path, rng: Random) -> None:
        """Leave in the directory ``into`` what a loss of the power now may leave."""
        self._look_at_changes()
        since = self._elapsed() - WRITEBACK_S
        numbers = count(1)
        for name in sorted({*self._present, *self._former}):
            version = self._present.get(name)
            former, until = self._former.get(name, (None, -math.inf))
            if until > since and rng.random() < 0.5:
                version = former
            if version is None:
                continue
            fate = _drawn(rng) if version.came > since else _Fate.WHOLE
            if fate is _Fate.WHOLE:
                os.link(version.link, _placed(into, name))
            elif fate is _Fate.UNMOVED:
                os.link(version.link, _staged(into, next(numbers)))
            else:
                _leave(version.link, _placed(into, name), fate, rng)
        for path in files_in(self._directory / STAGING):
            _leave(path, _staged(into, next(numbers)), _drawn(rng), rng)

    def _look_at_changes(self) -> None:
        self._look(self._elapsed() if self._changed_at is None else self._changed_at)
        self._changed_at = None
        self._has_unseen = False

    def _look(self, at: float) -> None:
        """See which objects have come and gone; what is new came at this time."""
        found = {entry.name: entry for entry in objects_in(self._directory)}
        for name in [name for name in self._present if name not in found]:
            self._former[name] = (self._present.pop(name), at)
        for name, entry in found.items():
            version, inode = self._present.get(name), entry.inode()
            if version is not None:
                if version.inode == inode:
                    continue
                self._former[name] = (version, at)
            link = self._links / str(next(self._numbers))
            os.link(entry, link)
            self._present[name] = _Version(inode, at, link)


def objects_in(directory: Path) -> list[os.DirEntry[str]]:
    """Return the objects of a state directory, by name."""
    objects = directory / OBJECTS
    shards = _scanned(objects) if objects.exists() else ()
    return sorted((each for shard in shards for each in _scanned(shard)), key=lambda e: e.name)


def files_in(directory: Path) -> list[Path]:
    """Return the regular files below a directory, by path."""
    paths = (Path(top, name) for top, _, names in os.walk(directory) for name in names)
    return sorted(path for path in paths if path.is_file())


def _scanned(directory: os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        yield from entries


def _drawn(rng: Random) -> _Fate:
    (fate,) = rng.choices([*_SHARES], [*_SHARES.values()])
    return fate


def _leave(path: Path, place: Path, fate: _Fate, rng: Random) -> None:
    """Leave a file at a place, as its fate has it."""
    if fate is _Fate.MISSING:
        return
    content = path.read_bytes()
    if fate is _Fate.CUT:
        content = content[: rng.randrange(len(content) or 1)]
    elif fate is _Fate.ZEROED:
        end = rng.randrange(0, len(content) or 1, SECTOR)
        content = content[:end] + bytes(len(content) - end)
    place.write_bytes(content)


def _placed(directory: Path, name: str) -> Path:
    """The path of an object, whose folder is made."""
    folder = directory / OBJECTS / name[:2]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / name


def _staged(directory: Path, number: int) -> Path:
    """A path in staging; any will do, since the next start removes all of it."""
    folder = directory / STAGING / "1"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / f"{number:08d}"
