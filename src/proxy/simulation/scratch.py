"""Directories for worlds, in memory where there is some; those of processes that died are removed.

Each directory is locked for as long as it is in use. The kernel ends the lock with the process,
even one that is killed. So a directory that can be locked belongs to nobody.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

MEMORY = Path("/dev/shm")  # noqa: S108 - the directories in it are made safely
PREFIX = "ith-proxy-world-"


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Have an empty directory, which is removed after the block."""
    place = _place()
    while True:
        directory = Path(tempfile.mkdtemp(dir=place, prefix=PREFIX))
        with _locked(directory) as is_ours:
            if not is_ours:
                continue  # another process swept it before it was locked
            try:
                yield directory
            finally:
                shutil.rmtree(directory)
            return


@cache
def _place() -> Path:
    """Return where directories are made, once what is left there was swept."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    sweep(place)
    return place


def sweep(place: Path) -> None:
    """Remove the directories that processes have left which are dead now."""
    for directory in place.glob(f"{PREFIX}*"):
        with suppress(OSError), _locked(directory) as is_free:
            if is_free:
                shutil.rmtree(directory)


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Lock a directory for the block; False if another process has locked or removed it."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield directory.exists()
    finally:
        os.close(descriptor)
