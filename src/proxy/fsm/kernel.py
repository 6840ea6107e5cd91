"""Read and check the tables of finite-state machines; no input or output.

A machine has states (an ``Enum`` whose values are sentences), events (``Event`` classes) and rows.
A row says: *in these states, on these events, run this action and go to that state*.
:meth:`Machine.step` looks up the one cell of a (state, event) pair and returns what happened as a
value. This module neither sleeps nor sends nor cancels: ``proxy.runtime.runner`` does that with the
returned values.

A cell of the (state x event) matrix is a row, an :class:`Ignore` with its reason, or blank. In a
final state nothing happens: the cell of every event that can reach one is *over*, and no entry is
written for it. A blank cell is a claim that the event cannot occur there. The claim is checked when
the machine is built, by the sources of its events (:class:`Source`) and the rules of the runner:

* a request may come at any time, so its whole line of the matrix must be filled;
* a time limit can end only in the state that has the limit;
* an activity lives exactly as long as the states that name it, and is cancelled when a request or a
  limit moves the machine elsewhere. Until its next checkpoint it may send one more fact, so a fact
  needs a cell in every such neighbour too;
* the failure of an activity is reported only while its states last, and must lead out of them.

An event that reaches a blank cell all the same is a defect: :class:`IllegalEvent`, no move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import product
from typing import Final, Generic, TypeVar

from proxy.fsm.table import Action, ActivityFailed, Event, Group, Ignore, Row, Source, StateDef

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output

WHEN_OVER: Final = "over"
"""The row id of a :class:`Step` for an event that came in a final state."""


class IllegalEvent(Exception):
    """An event reached a state whose cell is blank. The machine did not move."""

    def __init__(self, machine: str, state: Enum, event: Event) -> None:
        super().__init__(f"{machine}: {type(event).__name__} in {state.name}")
        self.machine = machine
        self.state = state
        self.event = event


@dataclass(frozen=True, slots=True)
class Step(Generic[S, D, O]):
    """The effect of one event; ``row`` is the id of the row or ignore taken, or ``WHEN_OVER``."""

    row: str
    before: S
    after: S
    data: D
    outputs: tuple[O, ...]


@dataclass(frozen=True)
class Machine(Generic[S, D, O]):
    """A checked table. Building one with a flaw raises ``ValueError`` that lists all flaws.

    ``groups`` are disjoint. ``retired`` names the ids that are not to be given again, each with the
    id that took over its cells, or ``WHEN_OVER``. A machine is ``captioned`` if the names of its
    states are numbers: its diagram shows their sentences as well.
    """

    name: str
    purpose: str
    initial: S
    final: frozenset[S]
    definitions: tuple[StateDef[S, D], ...]
    rows: tuple[Row[S, D, O], ...]
    ignores: tuple[Ignore[S], ...] = ()
    groups: tuple[Group[S], ...] = ()
    retired: Mapping[str, str] = field(default_factory=dict)
    captioned: bool = False
    notes: tuple[str, ...] = ()
    cells: Mapping[tuple[S, type[Event]], Row[S, D, O] | Ignore[S]] = field(init=False, repr=False)
    definition: Mapping[S, StateDef[S, D]] = field(init=False, repr=False)
    """By state, what goes on in it; final states have none."""
    activities: tuple[str, ...] = field(init=False, repr=False)
    """The names of the activities, in the order of first use."""
    _steps: Mapping[tuple[S, type[Event]], tuple[str, S, Action[D, O] | None]] = field(
        init=False, repr=False
    )
    """By cell, the id of its entry, the state that follows, and the action."""

    def __post_init__(self) -> None:
        cells: dict[tuple[S, type[Event]], Row[S, D, O] | Ignore[S]] = {}
        flaws = []
        for entry in sorted(self.entries, key=_yields):
            for pair in product(entry.sources, entry.on):
                other = cells.setdefault(pair, entry)
                if other is not entry and _yields(other) == _yields(entry):
                    claim = f"{pair[0].name} x {pair[1].__name__}"
                    flaws.append(f"{entry.id} and {other.id} both claim {claim}")
        activities = tuple(dict.fromkeys(d.do for d in self.definitions if d.do is not None))
        object.__setattr__(self, "activities", activities)
        object.__setattr__(self, "cells", cells)
        object.__setattr__(self, "definition", {each.state: each for each in self.definitions})
        flaws += self._flaws()
        if flaws:
            raise ValueError(f"{self.name}: " + "; ".join(flaws))
        over = Ignore(
            WHEN_OVER,
            tuple(s for s in self.states if s in self.final),
            self.events,
            "In a final state nothing happens.",
        )
        for event in self.events:
            cells |= {(state, event): over for state in self.can_occur(event) & self.final}
        steps = {
            pair: (
                entry.id,
                entry.leads_to(pair[0]),
                entry.action if isinstance(entry, Row) else None,
            )
            for pair, entry in cells.items()
        }
        object.__setattr__(self, "_steps", steps)

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
        return tuple(dict.fromkeys(event for entry in self.entries for event in entry.on))

    def activity(self, state: S) -> str | None:
        """Return the name of the activity that lives in ``state``, if any."""
        found = self.definition.get(state)
        return found.do if found else None

    def group(self, state: S) -> Group[S] | None:
        """Return the group that ``state`` is of, if any."""
        return next((g for g in self.groups if state in g), None)

    def seconds(self, state: S, data: D) -> float:
        """Return the seconds that ``state`` may last with ``data``; infinity without a limit."""
        found = self.definition.get(state)
        return found.after.seconds(data) if found and found.after else math.inf

    def claimed(self, entry: Row[S, D, O] | Ignore[S]) -> tuple[tuple[S, type[Event]], ...]:
        """Return the cells of a row or ignore; a row that yields has fewer than it names."""
        pairs = product(entry.sources, entry.on)
        return tuple(pair for pair in pairs if self.cells[pair] is entry)

    def step(self, state: S, data: D, event: Event) -> Step[S, D, O]:
        """Look up one event. Pure: the caller keeps the returned state and data."""
        found = self._steps.get((state, type(event)))
        if found is None:
            raise IllegalEvent(self.name, state, event)
        entry, after, action = found
        data, outputs = action(data, event) if action else (data, ())
        return Step(entry, state, after, data, outputs)

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
                cell.leads_to(state)
                for (source, event), cell in self.cells.items()
                if source is state and by(event)
            ]
        return frozenset(seen)

    def can_occur(self, event: type[Event]) -> frozenset[S]:
        """The states in which ``event`` can reach the machine; see the module's docstring."""
        if event.source.any_time:
            return frozenset(self.states)
        if event.source is Source.TIMER:
            limits = ((d.state, d.after) for d in self.definitions)
            return frozenset(state for state, after in limits if after and after.event is event)
        if event is ActivityFailed:
            return frozenset(d.state for d in self.definitions if d.do)
        if not self.activities:  # its user sends the facts, and only the table knows the states
            return frozenset(s for s, on in self.cells if on is event)
        tellers = {self.activity(s) for s, on in self.cells if on is event} - {None}
        alive = [d.state for d in self.definitions if d.do in tellers]
        return self.reachable(alive, lambda on: on.source.any_time or on.source is Source.TIMER)

    def _flaws(self) -> Iterator[str]:
        reached = self.reachable([self.initial])
        yield from (f"{s.name} is unreachable" for s in self.states if s not in reached)
        yield from (
            f"{entry.id} is of a final state, where nothing happens"
            for entry in self.entries
            if self.final & {*entry.sources}
        )
        yield from (
            f"{s.name} can never finish"
            for s in self.states
            if self.final and self.final.isdisjoint(self.reachable([s]))
        )
        ids = [*self.retired, *(entry.id for entry in self.entries)]
        yield from (f"id {i} is used twice" for i in dict.fromkeys(ids) if ids.count(i) > 1)
        yield from (
            f"{heir} takes over from {former} and is no id"
            for former, heir in self.retired.items()
            if heir != WHEN_OVER and heir not in ids[len(self.retired) :]
        )
        yield from self._definition_flaws()
        yield from self._group_flaws()
        limits = [d.after.event for d in self.definitions if d.after]
        faults: tuple[type[Event], ...] = (ActivityFailed,) if self.activities else ()
        yield from (
            f"{event.__name__} can occur in {state.name} and has no cell there"
            for event in dict.fromkeys((*self.events, *limits, *faults))
            for state in self.states
            if state in self.can_occur(event) - self.final and (state, event) not in self.cells
        )
        yield from (
            f"{entry.id} stays with an activity that failed"
            for (state, event), entry in self.cells.items()
            if event is ActivityFailed and self.activity(state)
            if self.activity(entry.leads_to(state)) == self.activity(state)
        )

    def _definition_flaws(self) -> Iterator[str]:
        described = [d.state for d in self.definitions]
        for state in self.states:
            if described.count(state) != (state not in self.final):
                yield f"{state.name} needs one definition, or none if it is final"
        for d in self.definitions:
            if (d.after is None) == (d.untimed is None):
                yield f"{d.state.name} needs a limit or the reason why it has none"
            if d.after and d.after.event.source is not Source.TIMER:
                yield f"{d.after.event.__name__} is sent by a limit: its source must be TIMER"

    def _group_flaws(self) -> Iterator[str]:
        grouped = [state for group in self.groups for state in group]
        yield from (
            f"{s.name} is in two groups" for s in dict.fromkeys(grouped) if grouped.count(s) > 1
        )
        yield from (
            f"{group.name} mixes final states with others"
            for group in self.groups
            if len({state in self.final for state in group}) > 1
        )
        names = [*(s.name for s in self.states), *(group.name for group in self.groups)]
        yield from (
            f"{name} is the name of two" for name in dict.fromkeys(names) if names.count(name) > 1
        )


def _yields(entry: Row[S, D, O] | Ignore[S]) -> bool:
    return isinstance(entry, Row) and entry.otherwise
