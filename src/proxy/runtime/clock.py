"""The seam to the wall clock: what time it is, for records, frames and people.

How long something takes, and when it is due, is asked of :func:`trio.current_time` alone. That is
a seam already: a simulation gives ``trio.run`` another clock, and a :class:`Clock` that follows it.
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

    def now(self) -> float:
        """The present time in UTC seconds since 1970."""
        return time.time()


SYSTEM_CLOCK: Final = SystemClock()
