"""The seam to chance: the jitter of waiting times, and fresh ids."""

from __future__ import annotations

from random import SystemRandom
from typing import Final, Protocol


class Random(Protocol):
    """A source of random numbers; ``random.Random`` and its subclasses are such sources."""

    def random(self) -> float:
        """A number, uniform in [0, 1)."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """A whole number of ``k`` bits, each as likely as the other."""
        ...


SYSTEM_RANDOM: Final = SystemRandom()
"""The operating system's: no two proxies draw the same."""
