"""Wall clocks that a test sets, and chance that it decides."""

from __future__ import annotations

import random
from dataclasses import dataclass

import trio

NOON = 1_800_000_000.0
"""Any moment, in UTC seconds."""


@dataclass
class SetClock:
    """It stands still until the test sets it."""

    seconds: float

    def now(self) -> float:
        return self.seconds


@dataclass
class VirtualClock:
    """It goes with trio's clock, and shows ``ahead`` where that shows 0."""

    ahead: float = NOON

    def now(self) -> float:
        return self.ahead + trio.current_time()


class Always(random.Random):
    """It draws the same number in [0, 1) until the test sets another."""

    def __init__(self, drawn: float) -> None:
        super().__init__(0)
        self.drawn = drawn

    def random(self) -> float:
        return self.drawn
