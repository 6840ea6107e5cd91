"""A small machine with one of everything, for the tests of the kernel, the drawer, the runner."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

import msgspec

from proxy.fsm import (
    STAY,
    WHEN_OVER,
    ActivityFailed,
    Event,
    Machine,
    Source,
    group,
    ignore,
    limit,
    row,
    state,
)


class State(Enum):
    """The states of the ferry."""

    MOORED = "At the pier | with space."
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


class Passed(Event, frozen=True):
    """Another ferry went by."""


class Called(Event, frozen=True):
    """Somebody wants the ferry back."""

    source: ClassVar[Source] = Source.OPERATOR
    reason: str = ""


class Turned(Event, frozen=True):
    """The turn took its time."""

    source: ClassVar[Source] = Source.TIMER


class Log(msgspec.Struct, frozen=True):
    """The data of the ferry; seconds."""

    cars: int = 0
    buoys: int = 0
    turn: float = 5.0


def count_cars(log: Log, event: Loaded) -> tuple[Log, tuple[str, ...]]:
    """Count the cars & sound the horn."""
    return msgspec.structs.replace(log, cars=event.cars), ("horn", f"{event.cars} cars")


def count_buoy(log: Log, event: Sighted | Passed) -> tuple[Log, tuple[str, ...]]:
    return msgspec.structs.replace(log, buoys=log.buoys + 1), ()


MOORED, SAILING, TURNING, SUNK, HOME = State
UNDER_WAY = group("UNDER_WAY", SAILING, TURNING, doc="The ferry | is at sea.")

PARTS: dict[str, Any] = {
    "name": "ferry",
    "purpose": "A ferry,\nand its way home.",
    "initial": MOORED,
    "final": frozenset({SUNK, HOME}),
    "groups": (UNDER_WAY,),
    "definitions": (
        state(MOORED, do="load", untimed="cars come when they come"),
        state(SAILING, do="steer", untimed="the sea is wide"),
        state(TURNING, do="steer", after=limit(lambda log: log.turn, Turned, "5 s")),
    ),
    "rows": (
        row("FRY-01", MOORED, Loaded, SAILING, count_cars, doc="Cast off."),
        row("FRY-02", UNDER_WAY, (Sighted, Passed), STAY, count_buoy, doc="Keep <count>."),
        row("FRY-03", MOORED, Called, HOME, doc="It is there.", traces=("REQ-1",)),
        row("FRY-04", SAILING, Called, TURNING, doc="Turn round."),
        row("FRY-05", TURNING, Turned, MOORED, doc="Back again."),
        row("FRY-06", (MOORED, *UNDER_WAY), ActivityFailed, SUNK, doc="A leak."),
    ),
    "ignores": (
        ignore("FRY-90", TURNING, Called, doc="It turns already."),
        ignore("FRY-93", MOORED, (Sighted, Passed), doc="Seen in the instant of the mooring."),
    ),
    "retired": {"FRY-91": WHEN_OVER, "FRY-94": "FRY-93"},
    "notes": ("Nothing is kept on disk.",),
}

FERRY: Machine[State, Log, str] = Machine(**PARTS)
