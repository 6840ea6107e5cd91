"""A small machine with one of everything, for the tests of the kernel, the drawer, the runner."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

import msgspec

from proxy.fsm import ActivityFailed, Event, Machine, Source, ignore, limit, row, stay


class State(Enum):
    """Where the ferry is."""

    MOORED = "At the pier | with room."
    SAILING = "Under way."
    TURNING = "Called back. The turn takes a while."
    SUNK = "Gone."
    HOME = "Laid up."


class Loaded(Event, frozen=True):
    """The last car is on board."""

    cars: int


class Sighted(Event, frozen=True):
    """One more buoy went by.

    This paragraph is not printed.
    """


class Called(Event, frozen=True):
    """Somebody wants the ferry back."""

    source: ClassVar[Source] = Source.OPERATOR
    reason: str = ""


class Turned(Event, frozen=True):
    """The turn took its time."""

    source: ClassVar[Source] = Source.TIMER


class Log(msgspec.Struct, frozen=True):
    """What the ferry remembers; seconds."""

    cars: int = 0
    buoys: int = 0
    turn: float = 5.0


def count_cars(log: Log, event: Loaded) -> tuple[Log, tuple[str, ...]]:
    """Count the cars & sound the horn."""
    return msgspec.structs.replace(log, cars=event.cars), ("horn", f"{event.cars} cars")


def count_buoy(log: Log, event: Sighted) -> tuple[Log, tuple[str, ...]]:
    return msgspec.structs.replace(log, buoys=log.buoys + 1), ()


MOORED, SAILING, TURNING, SUNK, HOME = State
UNDER_WAY = (SAILING, TURNING)

PARTS: dict[str, Any] = {
    "name": "ferry",
    "purpose": "A ferry,\nand its way home.",
    "initial": MOORED,
    "final": frozenset({SUNK, HOME}),
    "stays": (
        stay(MOORED, does="load", unlimited="cars come when they come"),
        stay(SAILING, does="steer", unlimited="the sea is wide"),
        stay(TURNING, does="steer", limit=limit(lambda log: log.turn, Turned, "5 s")),
    ),
    "rows": (
        row("FRY-01", MOORED, Loaded, SAILING, count_cars, doc="Cast off."),
        row("FRY-02", UNDER_WAY, Sighted, None, count_buoy, doc="Keep <count>."),
        row("FRY-03", MOORED, Called, HOME, doc="It is there.", traces=("REQ-1",)),
        row("FRY-04", SAILING, Called, TURNING, doc="Turn round."),
        row("FRY-05", TURNING, Turned, MOORED, doc="Back again."),
        row("FRY-06", (MOORED, *UNDER_WAY), ActivityFailed, SUNK, doc="A leak."),
    ),
    "ignores": (
        ignore("FRY-90", TURNING, Called, doc="It turns already."),
        ignore("FRY-91", (SUNK, HOME), Called, doc="Nobody hears."),
        ignore("FRY-92", HOME, Loaded, doc="Loaded in the instant of the call."),
        ignore("FRY-93", (MOORED, HOME), Sighted, doc="Seen in the instant of the mooring."),
    ),
    "notes": ("Nothing is kept on disk.",),
}

FERRY: Machine[State, Log, str] = Machine(**PARTS)
