"""Standard error as a stream that never waits: without a reader, lines are lost, not work."""

from __future__ import annotations

import atexit
import io
import os
import select
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, TextIO

from proxy.logs.fields import DROPPED
from proxy.logs.lines import log

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

LINES = 10_000
BYTES = 1024**2
"""The most lines and bytes that wait for a reader."""

FLUSH_SECONDS = 1.0
"""Seconds that the end of the program waits for lines not written yet."""


def standard_error() -> TextIO:
    """Return standard error as a stream that never waits, which ``sys.stderr`` is from now on.

    A stream that replaces it (in a test) is left as it is. A closed standard file becomes
    /dev/null, so that no file of this program gets its number, and with it text that others write
    to standard error.
    """
    is_untouched = sys.stderr is sys.__stderr__
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    if sys.stderr is None:
        sys.stderr = os.fdopen(number, "w", encoding="utf-8")
        return sys.stderr
    os.close(number)
    if is_untouched:
        spool = Spool(sys.stderr.fileno())
        atexit.register(spool.drain)
        sys.stderr = io.TextIOWrapper(
            spool, encoding=sys.stderr.encoding, errors=sys.stderr.errors, write_through=True
        )
    return sys.stderr


class Spool(io.RawIOBase):
    """A file that a thread of its own writes to, so that no caller waits for the file's reader.

    Each write is a line. It is written to the file completely and in order, or lost and counted,
    because the queue is full or the system refuses it. After the first line that is lost to a full
    queue no other is taken until the queue is written: so there is one gap, and a line in its
    place tells its size, as soon as one can be written.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0
        """The number of lines missing after the last one in the queue."""
        self._idle = False
        self._changed = threading.Condition()
        # The interpreter must be able to end while the thread waits for the reader.
        self._thread = threading.Thread(target=self._run, name="standard-error", daemon=True)
        self._thread.start()

    def writable(self) -> bool:
        """Whether this can be written, for the text stream around it: always."""
        return True

    def fileno(self) -> int:
        """Return the number of the file."""
        return self._number

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._number)

    def write(self, line: ReadableBuffer, /) -> int:
        """Take a line, without waiting for anything."""
        data = bytes(line)
        if threading.current_thread() is self._thread:  # its own lines need not queue
            self._written = self._write_out(data)
            return len(data)
        with self._changed:
            full = len(self._lines) >= LINES or self._bytes + len(data) > BYTES
            if full or self._lost:
                self._lost += 1
                DROPPED["line"] += 1
            else:
                self._lines.append(data)
                self._bytes += len(data)
            self._changed.notify_all()
        return len(data)

    def drain(self) -> None:
        """Wait until all is written, for :data:`FLUSH_SECONDS` at most."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._idle and not self._lines and not self._lost, FLUSH_SECONDS
            )

    def _run(self) -> None:
        lost = 0
        while True:
            missing, line = self._next()
            lost += missing
            if lost and self._say(lost):
                lost = 0
            if not self._write_out(line):
                DROPPED["line"] += 1
                lost += 1

    def _next(self) -> tuple[int, bytes]:
        """Wait for the next line; after the last one, return the number missing and no line."""
        with self._changed:
            self._idle = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._lines or self._lost)
            self._idle = False
            if self._lines:
                line = self._lines.popleft()
                self._bytes -= len(line)
                return 0, line
            lost, self._lost = self._lost, 0
            return lost, b""

    def _say(self, lost: int) -> bool:
        """Write the number of lines missing here; return whether that could be written."""
        self._written = False
        log("log.dropped", level="error", count=lost)
        return self._written

    def _write_out(self, line: bytes) -> bool:
        """Write a line to the file, however long it takes; return whether that was possible."""
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._number, rest) :]
            except BlockingIOError:  # another process that shares the file has made it so
                ready = select.poll()
                ready.register(self._number, select.POLLOUT)
                ready.poll()
            except OSError:
                return False
        return True
