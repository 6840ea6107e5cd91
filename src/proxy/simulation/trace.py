"""The trace of a world: a hash over all that it did, by which two runs of it are compared.

It covers every byte on every connection and into every file of the ledger, and each row of a
machine that was taken, with the world's time.
"""

from __future__ import annotations

import hashlib
import struct

import trio

from proxy.runtime.wire import Buffer
from proxy.simulation.vfs import FileOperation, Written

_HEAD = struct.Struct("<dqq")
ENDED, LOST = -1, -2
"""In place of a number of bytes: the sender has closed, or a reset has taken what was held."""


class Trace:
    """A hash that grows with the world."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def passed(self, pipe: int, data: Buffer) -> None:
        """Add bytes that were put into a pipe."""
        self._hash.update(_HEAD.pack(trio.current_time(), pipe, len(data)))
        self._hash.update(data)

    def ended(self, pipe: int, how: int) -> None:
        """Add the end of a pipe: ``ENDED`` or ``LOST``."""
        self._hash.update(_HEAD.pack(trio.current_time(), pipe, how))

    def wrote(self, done: FileOperation) -> None:
        """Add what SQLite did to a file of the ledger."""
        if isinstance(done, Written):
            self._hash.update(_HEAD.pack(trio.current_time(), done.offset, len(done.data)))
            self._hash.update(done.file.encode())
            self._hash.update(done.data)
        else:
            self.said(repr(done))

    def said(self, line: str) -> None:
        """Add a line of text."""
        self._hash.update(f"{trio.current_time()!r} {line}\n".encode())

    def hexdigest(self) -> str:
        """Return the hash of all that was added."""
        return self._hash.hexdigest()
