"""A frame that is no message."""

from __future__ import annotations

import msgspec


class BrokenFrame(msgspec.Struct, frozen=True):
    """Counted and logged, never fatal; the link stays up.

    ``reason`` names the event type and the field at most, never content of the frame. ``size`` is
    the frame's length in bytes, or in characters if it came as text. ``event_type`` is empty if
    even that could not be read.
    """

    reason: str
    size: int
    event_type: str = ""
