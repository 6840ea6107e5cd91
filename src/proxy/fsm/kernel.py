"""A finite-state machine is a table. This module reads and checks tables; it does no I/O.

A machine has states (an ``Enum`` whose values are sentences), events (``Event`` classes) and
rows. A row says: *in these states, on this event, run this action and go to that state*.
:meth:`Machine.step` looks up the one cell of a (state, event) pair and returns what happened
as a value. Nothing here sleeps, sends or cancels: ``proxy.runtime.runner``
does, with what it is given.

A cell of the (state x event) matrix is a row, an :class:`Ignore` with its reason, or blank. A
blank cell is a claim that the event cannot occur there. The claim is checked when the machine
is built, from where its events come (:class:`Source`) and how the runner works:

* a request may come at any time, so its whole line of the matrix must be filled;
* a time limit is told only in the state that has the limit;
* an activity lives exactly as long as the states that name it, and is cancelled when a request
  or a limit moves the machine elsewhere. Until its next checkpoint it may tell one more fact,
  so a fact needs a cell in every such neighbour too;
* that an activity failed is told only while its states last, and must lead out of them.

An event that reaches a blank cell all the same is a defect: :class:`IllegalEvent`, no move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from proxy.fsm.table import ActivityFailed, Event, Ignore, Row, Source, Stay

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output


class IllegalEvent(Exception):
    """An event reached a state whose cell is blank. The machine did not move."""

    def __init__(self, machine: str, state: Enum, event: Event) -> None:
        super().__init__(f"{machine}: {type(event).__name__} in {state.name}")
        self.machine = machine
        self.state = state
        self.event = event


@dataclass(frozen=True, slots=True)
class Step(Generic[S, D, O]):
    """What one event did; ``row`` is the id of the row or ignore that was taken."""

    row: str
    before: S
    after: S
    data: D
    outputs: tuple[O, ...]


@dataclass(frozen=True)
class Machine(Generic[S, D, O]):
    """A checked table. Building one with a flaw raises ``ValueError`` that lists all flaws."""

    name: str
    purpose: str
    initial: S
    final: frozenset[S]
    stays: tuple[Stay[S, D], ...]
    rows: tuple[Row[S, D, O], ...]
    ignores: tuple[Ignore[S], ...] = ()
    notes: tuple[str, ...] = ()
    cells: Mapping[tuple[S, type[Event]], Row[S, D, O] | Ignore[S]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        cells: dict[tuple[S, type[Event]], Row[S, D, O] | Ignore[S]] = {}
        flaws = []
        for entry in self.entries:
            for state in entry.sources:
                other = cells.setdefault((state, entry.on), entry)
                if other is not entry:
                    claim = f"{state.name} x {entry.on.__name__}"
                    flaws.append(f"{entry.id} and {other.id} both claim {claim}")
        object.__setattr__(self, "cells", cells)
        flaws += self._flaws()
        if flaws:
            raise ValueError(f"{self.name}: " + "; ".join(flaws))

    @property
    def entries(self) -> tuple[Row[S, D, O] | Ignore[S], ...]:
        """Rows and ignores together."""
        return (*self.rows, *self.ignores)

    @property
    def states(self) -> tuple[S, ...]:
        """Every state, in the order the enum declares them."""
        return tuple(type(self.initial))

    @property
    def events(self) -> tuple[type[Event], ...]:
        """Every event class the table names, in the order of first use."""
        return tuple(dict.fromkeys(entry.on for entry in self.entries))

    @property
    def activities(self) -> tuple[str, ...]:
        """The names of the activities, in the order of first use."""
        return tuple(dict.fromkeys(s.does for s in self.stays if s.does is not None))

    def stay(self, state: S) -> Stay[S, D] | None:
        """Return what goes on in ``state``; None for a final state."""
        return next((s for s in self.stays if s.state is state), None)

    def activity(self, state: S) -> str | None:
        """Return the name of the activity that lives in ``state``, if any."""
        found = self.stay(state)
        return found.does if found else None

    def seconds(self, state: S, data: D) -> float:
        """How long ``state`` may last with ``data``; infinity where it has no limit."""
        found = self.stay(state)
        return found.limit.seconds(data) if found and found.limit else math.inf

    def step(self, state: S, data: D, event: Event) -> Step[S, D, O]:
        """Look up one event. Pure: the caller keeps the returned state and data."""
        cell = self.cells.get((state, type(event)))
        if cell is None:
            raise IllegalEvent(self.name, state, event)
        if isinstance(cell, Ignore):
            return Step(cell.id, state, state, data, ())
        data, outputs = cell.action(data, event) if cell.action else (data, ())
        return Step(cell.id, state, state if cell.target is None else cell.target, data, outputs)

    def reachable(
        self, start: Iterable[S], by: Callable[[type[Event]], bool] = lambda _: True
    ) -> frozenset[S]:
        """The states that some sequence of the events chosen by ``by`` leads to from ``start``."""
        seen: set[S] = set()
        todo = list(start)
        while todo:
            state = todo.pop()
            if state in seen:
                continue
            seen.add(state)
            todo += [
                r.target
                for r in self.rows
                if state in r.sources and r.target is not None and by(r.on)
            ]
        return frozenset(seen)

    def can_occur(self, event: type[Event]) -> frozenset[S]:
        """The states in which ``event`` can reach the machine; see the module's docstring."""
        if event.source.any_time:
            return frozenset(self.states)
        if event.source is Source.TIMER:
            return frozenset(s.state for s in self.stays if s.limit and s.limit.event is event)
        if event is ActivityFailed:
            return frozenset(s.state for s in self.stays if s.does)
        if not self.activities:  # its user tells it the facts, and only the table says where
            return frozenset(s for s, on in self.cells if on is event)
        tellers = {self.activity(s) for s, on in self.cells if on is event} - {None}
        alive = [s.state for s in self.stays if s.does in tellers]
        return self.reachable(alive, lambda on: on.source.any_time or on.source is Source.TIMER)

    def _flaws(self) -> Iterator[str]:
        reached = self.reachable([self.initial])
        yield from (f"{s.name} is unreachable" for s in self.states if s not in reached)
        yield from (f"{r.id} leaves a final state" for r in self.rows if self.final & {*r.sources})
        yield from (
            f"{s.name} can never finish"
            for s in self.states
            if self.final and self.final.isdisjoint(self.reachable([s]))
        )
        ids = [entry.id for entry in self.entries]
        yield from (f"id {i} is used twice" for i in dict.fromkeys(ids) if ids.count(i) > 1)
        yield from self._stay_flaws()
        limits = [s.limit.event for s in self.stays if s.limit]
        faults: tuple[type[Event], ...] = (ActivityFailed,) if self.activities else ()
        yield from (
            f"{event.__name__} can occur in {state.name} and has no cell there"
            for event in dict.fromkeys((*self.events, *limits, *faults))
            for state in self.states
            if state in self.can_occur(event) and (state, event) not in self.cells
        )
        yield from (
            f"{entry.id} stays with an activity that failed"
            for entry in self.entries
            if entry.on is ActivityFailed
            for state in entry.sources
            if self.activity(state) and self.activity(_after(entry, state)) == self.activity(state)
        )

    def _stay_flaws(self) -> Iterator[str]:
        described = [s.state for s in self.stays]
        for state in self.states:
            if described.count(state) != (state not in self.final):
                yield f"{state.name} needs one stay, or none if it is final"
        for s in self.stays:
            if (s.limit is None) == (s.unlimited is None):
                yield f"{s.state.name} needs a limit or the reason why it has none"
            if s.limit and s.limit.event.source is not Source.TIMER:
                yield f"{s.limit.event.__name__} is told by a limit: its source must be TIMER"


def _after(entry: Row[S, D, O] | Ignore[S], state: S) -> S:
    return state if isinstance(entry, Ignore) or entry.target is None else entry.target
