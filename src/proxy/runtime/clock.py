"""The seam to the wall clock. Durations use trio's clock, which a test can replace by itself."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time of day."""

    def now(self) -> float:
        """Return UTC seconds since 1970."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Return UTC seconds since 1970."""
        return time.time()
