"""Helpers for the test file of every machine: sweeps over all cells, and a run on a workbench."""

from __future__ import annotations

import types
import typing
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec
import trio
from statemachine.io import load
from trio.testing import wait_all_tasks_blocked

from proxy.fsm import Event, IllegalEvent, Machine
from proxy.fsm.scxml import scxml
from proxy.runtime.runner import Activity, Run

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output

T = TypeVar("T", bound=msgspec.Struct)

MakeEvent: TypeAlias = Callable[[type[Event]], Event]


def example(event: type[Event]) -> Event:
    """Make an event whose required fields hold some value of their type."""
    return _struct(event)


def example_data(machine: Machine[Any, Any, Any]) -> Any:
    """Make some data of the kind that the machine's actions take."""
    action = next((row.action for row in machine.rows if row.action), None)
    return _value(next(iter(typing.get_type_hints(action).values()))) if action else None


def _value(kind: Any) -> object:
    if kind in {str, int, float, bool, bytes}:
        return kind(1) if kind is not bytes else b"1"
    if typing.get_origin(kind) in {typing.Union, types.UnionType, typing.Literal}:
        first = typing.get_args(kind)[0]
        return first if typing.get_origin(kind) is typing.Literal else _value(first)
    origin = typing.get_origin(kind) or kind
    if origin in {tuple, frozenset, dict, list}:
        return origin()
    if isinstance(origin, type) and issubclass(origin, Enum):
        return next(iter(origin))
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        return _struct(origin)
    raise TypeError(f"no example of {kind}: give make_event")


def _struct(kind: type[T]) -> T:
    fields = msgspec.structs.fields(kind)
    return kind(**{field.name: _value(field.type) for field in fields if field.required})


def sweep_legal(
    machine: Machine[S, D, O],
    legal: Mapping[str, set[str]],
    data: D,
    make_event: MakeEvent = example,
) -> None:
    """Hold every cell against ``legal``, typed by hand: event name to the states it may come in.

    A legal cell is a row or an ignore; in any other the event must raise.
    """
    assert set(legal) == {event.__name__ for event in machine.events}
    wrong = []
    for event in machine.events:
        for state in machine.states:
            try:
                machine.step(state, data, make_event(event))
            except IllegalEvent:
                possible = False
            else:
                possible = True
            if possible != (state.name in legal[event.__name__]):
                wrong.append(f"{event.__name__} in {state.name}: taken is {possible}")
    assert not wrong, "\n".join(wrong)
    assert set().union(*legal.values()) <= {state.name for state in machine.states}


def oracle_agrees(machine: Machine[S, D, O], data: D, make_event: MakeEvent = example) -> int:
    """Hold every cell against a foreign interpreter of the machine's SCXML; return their number."""
    chart: Any = load(scxml(machine), format="scxml")
    groups = {group.name for group in machine.groups}
    wrong = []
    for state in machine.states:
        for event in machine.events:
            foreign = chart()
            for step in path(machine, state):
                foreign.send(step.__name__)
            if state not in machine.final:
                foreign.send(event.__name__)
                after = {*foreign.configuration_values} - groups
            else:
                after = {state.name} if foreign.is_terminated else set()
            try:
                ours = machine.step(state, data, make_event(event)).after
            except IllegalEvent:
                ours = state
            if after != {ours.name}:
                wrong.append(f"{event.__name__} in {state.name}: {ours.name}, there {after}")
    assert not wrong, "\n".join(wrong)
    return len(machine.states) * len(machine.events)


def dead_cells(machine: Machine[S, D, O]) -> list[str]:
    """Name the cells that are filled although their event can never come there."""
    return [
        f"{entry.id}: {event.__name__} in {state.name}"
        for (state, event), entry in machine.cells.items()
        if state not in machine.can_occur(event)
    ]


def path(machine: Machine[S, D, O], state: S) -> tuple[type[Event], ...]:
    """Return the events of a shortest way from the initial state to ``state``."""
    found: dict[S, tuple[type[Event], ...]] = {machine.initial: ()}
    todo = deque(found)
    while todo:
        source = todo.popleft()
        for (before, event), cell in machine.cells.items():
            after = cell.leads_to(before)
            if before is source and after not in found:
                found[after] = (*found[source], event)
                todo.append(after)
    return found[state]


class Bench(Generic[S, D, O]):
    """A run whose activities do nothing until they are made to fail."""

    def __init__(self, machine: Machine[S, D, O], data: D) -> None:
        self.outputs: list[O] = []
        self.faults: list[Exception] = []
        self._crash = trio.Event()
        activities: dict[str, Activity[S, D, O]] = dict.fromkeys(machine.activities, self._act)
        self.run = Run(machine, data, activities, self.outputs.append, on_fault=self.faults.append)

    async def fail(self) -> None:
        """Let the activity that is alive fail, and wait for what follows."""
        await wait_all_tasks_blocked()
        self._crash.set()
        self._crash = trio.Event()
        await wait_all_tasks_blocked()

    async def _act(self, run: Run[S, D, O]) -> None:
        await self._crash.wait()
        raise RuntimeError("the test lets the activity fail")


@asynccontextmanager
async def running(
    machine: Machine[S, D, O], data: D, at: S, make_event: MakeEvent = example
) -> AsyncIterator[Bench[S, D, O]]:
    """Run ``machine`` on a workbench, brought to the state ``at``; needs a virtual clock.

    Tell ``bench.run`` events, sleep over a limit, or let the activity fail, and look at the
    run's state and data and at ``bench.outputs``, which begin empty.
    """
    bench = Bench(machine, data)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.run.run)
        for event in path(machine, at):
            await wait_all_tasks_blocked()
            bench.run.tell(make_event(event))
        await wait_all_tasks_blocked()
        bench.outputs.clear()
        yield bench
        nursery.cancel_scope.cancel("the test is over")
