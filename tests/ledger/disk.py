"""A disk that remembers every write and sync, for cutting its power, and that can fail.

Independent of the ledger: an SQLite VFS that becomes the default for the length of a block.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

SECTOR = 512
BASE = "unix"


@dataclass(frozen=True)
class Write:
    file: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    file: str
    size: int


@dataclass(frozen=True)
class Sync:
    file: str


@dataclass(frozen=True)
class Delete:
    file: str


@dataclass(frozen=True)
class Claim:
    """The content that the program knows to be durable."""

    number: int


Op = Write | Truncate | Sync | Delete | Claim


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str, filename: object, flags: list[int]) -> None:
        self._disk = disk
        self._name = name
        super().__init__(BASE, filename, flags)  # type: ignore[arg-type]

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.before_write()
        self._disk.ops.append(Write(self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.ops.append(Truncate(self._name, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.before_write()
        self._disk.ops.append(Sync(self._name))
        super().xSync(flags)


class Disk(apsw.VFS):
    """Records what SQLite does; ``before_write`` may raise to make it fail."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.before_write: Callable[[], None] = lambda: None
        super().__init__("recording-disk", BASE)

    def xOpen(self, name: object, flags: list[int]) -> _File:  # noqa: N802
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        return _File(self, Path(str(text)).name, name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: N802
        self.ops.append(Delete(Path(name).name))
        super().xDelete(name, syncdir)

    def claim(self, number: int) -> None:
        self.ops.append(Claim(number))


@contextmanager
def recording_disk() -> Iterator[Disk]:
    disk = Disk()
    apsw.set_default_vfs("recording-disk")
    try:
        yield disk
    finally:
        apsw.set_default_vfs(BASE)
        disk.unregister()


def claimed(ops: list[Op]) -> int:
    """The last claim that was made, -1 if none."""
    return max((op.number for op in ops if isinstance(op, Claim)), default=-1)


def cut_power(ops: list[Op], into: Path, chance: random.Random) -> None:
    """Write the files as a power cut after ``ops`` may leave them.

    What was synced is there. Of what was not, any subset is, in any order, and any write may be
    torn at a sector: the worst that POSIX allows.
    """
    files: dict[str, bytearray] = {}
    unsynced: dict[str, list[Write | Truncate]] = {}
    for op in ops:
        match op:
            case Write() | Truncate():
                files.setdefault(op.file, bytearray())
                unsynced.setdefault(op.file, []).append(op)
            case Sync():
                for pending in unsynced.pop(op.file, []):
                    _apply(files.setdefault(op.file, bytearray()), pending)
            case Delete():
                files.pop(op.file, None)
                unsynced.pop(op.file, None)
            case Claim():
                pass
    for name, pendings in unsynced.items():
        kept = [op for op in pendings if chance.random() < 0.5]
        if chance.random() < 0.3:
            chance.shuffle(kept)
        for op in kept:
            _apply(files[name], _torn(op, chance) if chance.random() < 0.2 else op)
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    for name, content in files.items():
        (into / name).write_bytes(content)


def _torn(op: Write | Truncate, chance: random.Random) -> Write | Truncate:
    if isinstance(op, Truncate):
        return op
    end = chance.randrange(0, len(op.data) + 1, SECTOR)
    return Write(op.file, op.offset, op.data[:end])


def _apply(content: bytearray, op: Write | Truncate) -> None:
    if isinstance(op, Truncate):
        del content[op.size :]
        return
    end = op.offset + len(op.data)
    content.extend(bytes(max(0, end - len(content))))
    content[op.offset : end] = op.data
