"""The types of a machine's table: events, states, groups of states, rows, ignores, limits.

Data alone; ``proxy.fsm.kernel`` makes a machine of it and checks it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Final, Generic, Self, TypeAlias, TypeVar, overload

import msgspec

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
E = TypeVar("E", bound="Event")
F = TypeVar("F", bound="Event")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output

Action: TypeAlias = Callable[[D, Any], tuple[D, tuple[O, ...]]]
"""Makes the new data and the outputs of the data and the event."""


class Source(Enum):
    """The cause of an event; the value is the text for reviewers."""

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
    """The state's activity ended with an unforeseen error, which is in the log."""

    error: str


class Stay(Enum):
    """The target of a row that leaves the machine where it is: UML's internal transition."""

    STAY = "(stays)"


STAY: Final = Stay.STAY


class Group(tuple[S, ...]):
    """States with something in common: UML's composite state, SCXML's compound state.

    It stands for its states wherever sources are named; the machine is always in one of those.
    """

    name: str
    doc: str

    def __new__(cls, name: str, states: tuple[S, ...], doc: str) -> Self:
        """Build a group of ``states``, which a tuple holds as it is."""
        made = super().__new__(cls, states)
        made.name, made.doc = name, doc
        return made


@dataclass(frozen=True, slots=True)
class Row(Generic[S, D, O]):
    """``sources --on / action--> target``, for each of the sources and each of the events.

    A row that is ``otherwise`` yields: it takes the cells that no other row or ignore claims.
    """

    id: str
    sources: tuple[S, ...]
    on: tuple[type[Event], ...]
    target: S | Stay
    action: Action[D, O] | None
    doc: str
    traces: tuple[str, ...]
    otherwise: bool

    def leads_to(self, state: S) -> S:
        """Return the state that follows on ``state``."""
        return state if isinstance(self.target, Stay) else self.target


@dataclass(frozen=True, slots=True)
class Ignore(Generic[S]):
    """Cells that do nothing on purpose, with the reason."""

    id: str
    sources: tuple[S, ...]
    on: tuple[type[Event], ...]
    doc: str

    def leads_to(self, state: S) -> S:
        """Return ``state``: nothing happens."""
        return state


@dataclass(frozen=True, slots=True)
class Limit(Generic[D]):
    """The time limit of a state, in seconds from the run's data, and the event at its end."""

    seconds: Callable[[D], float]
    event: type[Event]
    doc: str


@dataclass(frozen=True, slots=True)
class StateDef(Generic[S, D]):
    """The definition of one state: its activity (UML's ``do``) and its limit (UML's ``after``)."""

    state: S
    do: str | None
    after: Limit[D] | None
    untimed: str | None


@overload
def row(
    id: str,
    sources: S | tuple[S, ...],
    on: type[E] | tuple[type[E], ...],
    target: S | Stay,
    action: Callable[[D, E], tuple[D, tuple[O, ...]]] | None = None,
    *,
    doc: str,
    traces: tuple[str, ...] = (),
    otherwise: bool = False,
) -> Row[S, D, O]: ...
@overload
def row(
    id: str,
    sources: S | tuple[S, ...],
    on: tuple[type[E], type[F]],
    target: S | Stay,
    action: Callable[[D, E | F], tuple[D, tuple[O, ...]]],
    *,
    doc: str,
    traces: tuple[str, ...] = (),
    otherwise: bool = False,
) -> Row[S, D, O]: ...
def row(
    id: str,
    sources: S | tuple[S, ...],
    on: type[Event] | tuple[type[Event], ...],
    target: S | Stay,
    action: Action[D, O] | None = None,
    *,
    doc: str,
    traces: tuple[str, ...] = (),
    otherwise: bool = False,
) -> Row[S, D, O]:
    """Build a :class:`Row`; type checkers hold ``action`` to the classes in ``on``."""
    return Row(id, _states(sources), _events(on), target, action, doc, traces, otherwise)


def ignore(
    id: str,
    sources: S | tuple[S, ...],
    on: type[Event] | tuple[type[Event], ...],
    *,
    doc: str,
) -> Ignore[S]:
    """Build an :class:`Ignore`."""
    return Ignore(id, _states(sources), _events(on), doc)


def group(name: str, *states: S, doc: str) -> Group[S]:
    """Build a :class:`Group`; ``doc`` says in a sentence what its states have in common."""
    return Group(name, states, doc)


def limit(seconds: Callable[[D], float], event: type[Event], doc: str) -> Limit[D]:
    """Build a :class:`Limit`; ``doc`` names the setting and its default."""
    return Limit(seconds, event, doc)


def state(
    state: S, *, do: str | None = None, after: Limit[D] | None = None, untimed: str | None = None
) -> StateDef[S, D]:
    """Build a :class:`StateDef`; ``untimed`` is the reason of a state without a limit."""
    return StateDef(state, do, after, untimed)


def _states(sources: S | tuple[S, ...]) -> tuple[S, ...]:
    return sources if isinstance(sources, tuple) else (sources,)


def _events(on: type[Event] | tuple[type[Event], ...]) -> tuple[type[Event], ...]:
    return on if isinstance(on, tuple) else (on,)
