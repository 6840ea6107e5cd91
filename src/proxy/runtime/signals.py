"""The signals of the process: caught from its first moment, and heeded once the service can.

This imports nothing heavy, so that signals are caught before what takes long to import.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Final

STANDARD_INPUT = 0

STOPPING: Final = frozenset({signal.SIGTERM, signal.SIGINT})
"""Caught whatever the parent process had ignored: there must be a way to stop."""

NO_RELOAD = "Nothing is reloaded yet: a restart takes up new settings."
NO_FILE = "It does nothing here: the log goes to standard error, and no file need be opened anew."


class ProcessSignals:
    """The signals of this process, caught from when this is made: none of them is lost.

    SIGTERM and SIGINT stop the program, and so does SIGHUP where a terminal is standard input:
    it was closed. Else SIGHUP is in ``ignored``, which says of each signal without effect what
    to know about it. What the parent process had ignored, as nohup does, stays so. SIGQUIT and
    all others keep their meaning, as a way to end a program that heeds nothing.
    """

    def __init__(self) -> None:
        ignored: dict[int, str] = {signal.SIGUSR1: NO_FILE, signal.SIGUSR2: NO_FILE}
        if not os.isatty(STANDARD_INPUT):  # asked now: once it is closed, it is none any longer
            ignored[signal.SIGHUP] = NO_RELOAD
        self.ignored: Mapping[int, str] = ignored
        others = (signal.SIGHUP, *ignored)
        self._caught = STOPPING.union(
            number for number in others if signal.getsignal(number) is not signal.SIG_IGN
        )
        self._noted: dict[int, None] = {}
        for number in self._caught:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Keep a signal until somebody receives it, one of a kind, as the kernel does."""
        self._noted[number] = None

    @contextmanager
    def received(self) -> Iterator[AsyncIterator[int]]:
        """Lend the signals as they come, first those that have come already."""
        import trio  # noqa: PLC0415 - see above

        with trio.open_signal_receiver(*self._caught) as coming:
            while self._noted:
                signal.raise_signal(self._noted.popitem()[0])
            yield coming
