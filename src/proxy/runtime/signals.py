"""The signals of the process: caught from its first moment, and acted on once the service can.

This imports nothing heavy, so that signals are caught before the slow imports.
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

NO_RELOAD = "Settings are not reloaded yet: restart the program to apply new ones."
NO_FILE = "It has no effect: the log goes to standard error, and no log file need be reopened."


class ProcessSignals:
    """The signals of this process, caught from the creation of this object on: none is lost.

    SIGTERM and SIGINT stop the program, and so does SIGHUP if standard input is a terminal: it
    was closed. Else SIGHUP is in ``ignored``, which has a hint for each signal without effect. A
    signal that the parent process ignored, as nohup does, stays ignored. SIGQUIT and all others
    keep their meaning, as a way to end a program that does not react.
    """

    def __init__(self) -> None:
        ignored: dict[int, str] = {signal.SIGUSR1: NO_FILE, signal.SIGUSR2: NO_FILE}
        if not os.isatty(STANDARD_INPUT):  # asked now: a closed terminal is none any longer
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
        """Keep a signal until it is received, one of each kind, as the kernel does."""
        self._noted[number] = None

    @contextmanager
    def received(self) -> Iterator[AsyncIterator[int]]:
        """Lend the signals as they arrive, first those that have already arrived."""
        import trio  # noqa: PLC0415 - see above

        with trio.open_signal_receiver(*self._caught) as coming:
            while self._noted:
                signal.raise_signal(self._noted.popitem()[0])
            yield coming
