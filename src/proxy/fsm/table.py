"""The words a machine is written in: events and their sources, rows, ignores, limits, stays.

Data alone; ``proxy.fsm.kernel`` makes a machine of it and checks it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
E = TypeVar("E", bound="Event")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output


class Source(Enum):
    """Who causes an event. The value is what a reviewer reads."""

    BACKEND = "ITH, through the supervisor"
    OPERATOR = "the operator, or a signal"
    SUPERVISOR = "the supervisor"
    USER = "the machine that uses this one"
    PEER = "the other end of the wire, through the activity"
    ACTIVITY = "the state's own activity"
    TIMER = "the state's time limit"

    @property
    def any_time(self) -> bool:
        """Whether such an event may come in any state."""
        return self in {Source.BACKEND, Source.OPERATOR, Source.SUPERVISOR, Source.USER}


class Event(msgspec.Struct, frozen=True):
    """Base of all events; the first line of a subclass's docstring is printed for reviewers."""

    source: ClassVar[Source] = Source.ACTIVITY


class ActivityFailed(Event, frozen=True):
    """The state's activity ended in a way nobody foresaw; the error is in the log."""

    error: str


@dataclass(frozen=True, slots=True)
class Row(Generic[S, D, O]):
    """``sources --on / action--> target``; a ``target`` of None stays put."""

    id: str
    sources: tuple[S, ...]
    on: type[Event]
    target: S | None
    action: Callable[[D, Any], tuple[D, tuple[O, ...]]] | None
    doc: str
    traces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ignore(Generic[S]):
    """A cell that does nothing on purpose, and why."""

    id: str
    sources: tuple[S, ...]
    on: type[Event]
    doc: str


@dataclass(frozen=True, slots=True)
class Limit(Generic[D]):
    """How long a state may last, in seconds of the run's data, and what is told when it is over."""

    seconds: Callable[[D], float]
    event: type[Event]
    doc: str


@dataclass(frozen=True, slots=True)
class Stay(Generic[S, D]):
    """What goes on while the machine is in one state."""

    state: S
    does: str | None
    limit: Limit[D] | None
    unlimited: str | None


def row(
    id: str,
    sources: S | tuple[S, ...],
    on: type[E],
    target: S | None,
    action: Callable[[D, E], tuple[D, tuple[O, ...]]] | None = None,
    *,
    doc: str,
    traces: tuple[str, ...] = (),
) -> Row[S, D, O]:
    """Build a :class:`Row`; type checkers hold ``action`` to the class in ``on``."""
    return Row(id, _several(sources), on, target, action, doc, traces)


def ignore(id: str, sources: S | tuple[S, ...], on: type[Event], *, doc: str) -> Ignore[S]:
    """Build an :class:`Ignore`."""
    return Ignore(id, _several(sources), on, doc)


def limit(seconds: Callable[[D], float], event: type[Event], doc: str) -> Limit[D]:
    """Build a :class:`Limit`; ``doc`` names the setting and its default."""
    return Limit(seconds, event, doc)


def stay(
    state: S,
    *,
    does: str | None = None,
    limit: Limit[D] | None = None,
    unlimited: str | None = None,
) -> Stay[S, D]:
    """Build a :class:`Stay`; a state without a limit says in ``unlimited`` why it needs none."""
    return Stay(state, does, limit, unlimited)


def _several(sources: S | tuple[S, ...]) -> tuple[S, ...]:
    return sources if isinstance(sources, tuple) else (sources,)
