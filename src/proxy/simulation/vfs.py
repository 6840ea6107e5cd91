"""SQLite's files, watched: each write and sync is told, may fail, and may be lost with the power.

The files are real. Beside them :class:`Medium` keeps what of them has reached the medium, and what
is still in the kernel's memory alone. It is independent of the ledger.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeAlias

import apsw

SECTOR = 512
"""Bytes that are written completely or not at all, even where a write is torn."""
BASE = "unix"
"""SQLite's own access to the operating system."""

_NUMBERS = count(1)
_SYNCS_DIRECTORY = (
    apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
)
"""Kinds of files with which SQLite syncs the directory, when it syncs one for the first time."""


class Opened(NamedTuple):
    """A file was opened, and made if it was missing."""

    file: str
    syncs_directory: bool


class Written(NamedTuple):
    """Bytes were written at an offset."""

    file: str
    offset: int
    data: bytes


class Truncated(NamedTuple):
    """A file was cut to a size."""

    file: str
    size: int


class Synced(NamedTuple):
    """A file was synced."""

    file: str


class Unlinked(NamedTuple):
    """A file was deleted; ``is_durable`` says that its directory was synced as well."""

    file: str
    is_durable: bool


FileOperation: TypeAlias = Opened | Written | Truncated | Synced | Unlinked


class WatchedVFS(apsw.VFS):
    """Tells of what SQLite does to the files that it opens while this is its default.

    It gives always the same seed to SQLite's chance, which is in the bytes of every log.
    ``tell`` hears of each operation before it is done. ``before_write`` is called before each
    write and sync is told, and may raise apsw.FullError or apsw.IOError to make it fail.
    """

    def __init__(self, tell: Callable[[FileOperation], None]) -> None:
        self.tell = tell
        self.before_write: Callable[[], None] = _nothing
        self.name = f"watched-{next(_NUMBERS)}"
        super().__init__(self.name, BASE)

    def blind(self) -> None:
        """Tell nothing more, and let nothing more fail: nobody cares for these files any longer."""
        self.tell = _nothing
        self.before_write = _nothing

    def xOpen(  # noqa: N802 - SQLite's name
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        """Open a file, watched; one without a name is SQLite's own affair."""
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        if text is None:
            return apsw.VFSFile(BASE, name, flags)
        file = Path(text).name
        self.tell(Opened(file, syncs_directory=bool(flags[0] & _SYNCS_DIRECTORY)))
        return _WatchedFile(self, file, name, flags)

    def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: N802
        """Delete a file."""
        self.tell(Unlinked(Path(name).name, syncdir))
        super().xDelete(name, syncdir)

    def xRandomness(self, numbytes: int) -> bytes:  # noqa: N802
        """Give the seed of SQLite's chance."""
        return bytes(numbytes)


class _WatchedFile(apsw.VFSFile):
    def __init__(
        self, vfs: WatchedVFS, file: str, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        self._vfs = vfs
        self._file = file
        super().__init__(BASE, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._vfs.before_write()
        self._vfs.tell(Written(self._file, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._vfs.tell(Truncated(self._file, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._vfs.before_write()
        self._vfs.tell(Synced(self._file))
        super().xSync(flags)


@contextmanager
def watching() -> Iterator[None]:
    """Let a :class:`WatchedVFS` be SQLite's default in the block: what it changes is put back.

    An error of the disk that SQLite does not pass on is passed over: apsw would say it.
    """

    def pass_over(said: sys.UnraisableHookArgs) -> None:
        if not isinstance(said.exc_value, apsw.FullError | apsw.IOError):
            hook(said)

    hook, sys.unraisablehook = sys.unraisablehook, pass_over
    apsw.randomness(0)  # SQLite asks its default for a new seed when it next needs chance
    try:
        yield
    finally:
        sys.unraisablehook = hook
        apsw.set_default_vfs(BASE)
        apsw.randomness(0)


@contextmanager
def watched(tell: Callable[[FileOperation], None]) -> Iterator[WatchedVFS]:
    """Have what SQLite opens in the block watched."""
    with watching():
        vfs = WatchedVFS(tell)
        apsw.set_default_vfs(vfs.name)
        try:
            yield vfs
        finally:
            vfs.unregister()


class _File:
    """One file: its bytes on the medium, and what has not reached it, in its order."""

    __slots__ = ("durable", "has_durable_name", "pending", "syncs_directory")

    def __init__(self, durable: bytes, *, has_durable_name: bool) -> None:
        self.durable = bytearray(durable)
        self.pending: list[Written | Truncated] = []
        self.has_durable_name = has_durable_name
        self.syncs_directory = False


class Medium:
    """What of the files of one directory would be there after the power fails.

    What was synced is there. Of what was not, any subset is, in any order, and any write may be
    torn at a sector; a file without a durable name may be missing, and one that was deleted may be
    there: the worst that POSIX allows.
    """

    def __init__(self, files: Mapping[str, bytes] = {}) -> None:
        """Begin with these files, by name, all of them durable."""
        self._files = {
            name: _File(content, has_durable_name=True) for name, content in files.items()
        }
        self._deleted: dict[str, _File] = {}

    def note(self, done: FileOperation) -> None:
        """Take notice of one more operation; bytes are copied once, when they are synced."""
        match done:
            case Opened(name, syncs_directory):
                file = self._named(name)
                file.syncs_directory |= syncs_directory
            case Written(name) | Truncated(name):
                self._named(name).pending.append(done)
            case Synced(name):
                file = self._named(name)
                for pending in file.pending:
                    _apply(file.durable, pending)
                file.pending.clear()
                if file.syncs_directory:
                    file.syncs_directory = False
                    self._sync_directory()
            case Unlinked(name, is_durable):
                deleted = self._files.pop(name, None)
                if deleted is not None and deleted.has_durable_name:
                    self._deleted[name] = deleted
                if is_durable:
                    self._sync_directory()

    def after_power_loss(self, rng: Random) -> dict[str, bytes]:
        """Return the files, by name, as a loss of the power now may leave them."""
        left = {
            name: _left(file, rng)
            for name, file in self._files.items()
            if file.has_durable_name or rng.random() < 0.5
        }
        for name, file in self._deleted.items():
            if name not in left and rng.random() < 0.5:
                left[name] = _left(file, rng)
        return left

    def flip(self, name: str, offset: int, mask: int) -> None:
        """Flip bits in a byte of a file, if the byte has reached the medium."""
        durable = self._files[name].durable
        if offset < len(durable):
            durable[offset] ^= mask

    def _named(self, name: str) -> _File:
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = _File(b"", has_durable_name=False)
        return file

    def _sync_directory(self) -> None:
        self._deleted.clear()
        for file in self._files.values():
            file.has_durable_name = True


def _left(file: _File, rng: Random) -> bytes:
    content = bytearray(file.durable)
    kept = [done for done in file.pending if rng.random() < 0.5]
    if rng.random() < 0.3:
        rng.shuffle(kept)
    for done in kept:
        _apply(content, _torn(done, rng) if rng.random() < 0.2 else done)
    return bytes(content)


def _torn(done: Written | Truncated, rng: Random) -> Written | Truncated:
    if isinstance(done, Truncated):
        return done
    end = rng.randrange(0, len(done.data) + 1, SECTOR)
    return Written(done.file, done.offset, done.data[:end])


def _apply(content: bytearray, done: Written | Truncated) -> None:
    if isinstance(done, Truncated):
        del content[done.size :]
        return
    end = done.offset + len(done.data)
    if end > len(content):
        content.extend(bytes(end - len(content)))
    content[done.offset : end] = done.data


def _nothing(*_: object) -> None:
    pass
