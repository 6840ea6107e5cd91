"""Pixels of a CT phantom, in plain Python: an ellipse of a body with lungs, spine and a lesion.

Fast without numpy, which this package does not need otherwise: a row is cut out of long strips
of tissue with noise, so the work grows with the number of spans and not of pixels.
"""

from __future__ import annotations

import random
import sys
from array import array
from typing import NamedTuple

STRIP = 1 << 13
AIR, LUNG, SOFT, LESION, BONE = -1000, -820, 40, 75, 620


class Ellipse(NamedTuple):
    """One organ, in fractions of the image; painted over the organs below it."""

    tissue: int
    x: float
    y: float
    half_width: float
    half_height: float


class Phantom:
    """Slices of one phantom; the same seed gives the same pixels."""

    def __init__(self, seed: int, size: int) -> None:
        self.size = size
        self._random = random.Random(f"phantom {seed}")  # noqa: S311 - noise, not a secret
        self._strips = {
            tissue: self._strip(tissue, noise)
            for tissue, noise in ((AIR, 0), (LUNG, 25), (SOFT, 12), (LESION, 10), (BONE, 60))
        }

    def slice(self, height: float) -> bytes:
        """Return the stored values at ``height`` (0 to 1), little endian signed 16 bit."""
        organs = _organs(height)
        image = array("h")
        for row in range(self.size):
            image += self._row((row + 0.5) / self.size, organs)
        if sys.byteorder == "big":
            image.byteswap()
        return image.tobytes()

    def _row(self, y: float, organs: list[Ellipse]) -> array[int]:
        row = self._cut(AIR, self.size)
        for organ in organs:
            inside = 1 - ((y - organ.y) / organ.half_height) ** 2
            if inside <= 0:
                continue
            reach = organ.half_width * inside**0.5
            start, stop = (round((organ.x + side * reach) * self.size) for side in (-1, 1))
            row[start:stop] = self._cut(organ.tissue, stop - start)
        return row

    def _cut(self, tissue: int, length: int) -> array[int]:
        offset = self._random.randrange(STRIP - length)
        return self._strips[tissue][offset : offset + length]

    def _strip(self, tissue: int, noise: int) -> array[int]:
        gauss = self._random.gauss
        return array("h", (round(gauss(tissue, noise)) for _ in range(STRIP)))


def _organs(height: float) -> list[Ellipse]:
    """Return the organs in a slice at this height, the outermost first."""
    breadth = 0.75 + 0.25 * (1 - (2 * height - 1) ** 2)
    organs = [
        Ellipse(SOFT, 0.5, 0.5, 0.43 * breadth, 0.31 * breadth),
        Ellipse(LUNG, 0.31, 0.46, 0.13 * breadth, 0.19 * breadth),
        Ellipse(LUNG, 0.69, 0.46, 0.13 * breadth, 0.19 * breadth),
        Ellipse(BONE, 0.5, 0.68, 0.055, 0.06),
        Ellipse(SOFT, 0.5, 0.68, 0.02, 0.02),
    ]
    depth = 1 - ((height - 0.5) / 0.2) ** 2
    if depth > 0:
        organs.append(Ellipse(LESION, 0.33, 0.42, 0.045 * depth**0.5, 0.045 * depth**0.5))
    return organs
