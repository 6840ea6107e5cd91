"""The seam to chance: how long to wait before another try, and ids that nobody else has."""

from __future__ import annotations

from random import SystemRandom
from typing import Final, Protocol


class Random(Protocol):
    """What is asked of chance; ``random.Random`` and its subclasses answer."""

    def random(self) -> float:
        """A number, uniform in [0, 1)."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """A whole number of ``k`` bits, each as likely as the other."""
        ...


SYSTEM_RANDOM: Final = SystemRandom()
"""The operating system's: no two proxies draw the same."""
