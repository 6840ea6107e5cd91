"""The seam to the wall clock, for the times in records, in frames and on screens.

Durations and deadlines use :func:`trio.current_time` alone. That is a seam already: a simulation
gives ``trio.run`` another clock, and the program a :class:`Clock` that follows it.
"""

from __future__ import annotations

import time
from typing import Final, Protocol


class Clock(Protocol):
    """Tells the wall-clock time; it may be set at any moment, so it measures nothing."""

    def now(self) -> float:
        """The present time in UTC seconds since 1970."""
        ...


class SystemClock:
    """The clock of this machine."""

    now = staticmethod(time.time)


SYSTEM_CLOCK: Final = SystemClock()
