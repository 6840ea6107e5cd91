"""Run one machine in trio: a state's activity lives exactly as long as the state.

The supervisor owns runs; an activity reads ``run.state`` and ``run.data`` and tells facts. One
event at a time, run to completion: :meth:`Run.tell` is synchronous, so no cancellation can split
a step, and an old activity has ended, clean-up included, before the next one begins.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Any, Generic, TypeAlias, TypeVar

import trio

from proxy.fsm import ActivityFailed, Event, Machine, Step

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output

Activity: TypeAlias = "Callable[[Run[S, D, O]], Awaitable[None]]"
Observer: TypeAlias = "Callable[[Run[S, D, O], Step[S, D, O]], None]"

_OBSERVERS: ContextVar[tuple[Observer[Any, Any, Any], ...]] = ContextVar("observers", default=())
"""The observers that a run made in this context begins with."""


@contextmanager
def observing(observer: Observer[Any, Any, Any]) -> Iterator[None]:
    """Observe every run that is made in the block, or by a task that was started in it.

    A run that was made before is not observed; one that outlives the block still is.
    """
    token = _OBSERVERS.set((*_OBSERVERS.get(), observer))
    try:
        yield
    finally:
        _OBSERVERS.reset(token)


class Run(Generic[S, D, O]):
    """One machine and what it is doing now."""

    def __init__(
        self,
        machine: Machine[S, D, O],
        data: D,
        activities: Mapping[str, Activity[S, D, O]],
        emit: Callable[[O], None],
        *,
        on_fault: Callable[[Exception], None] | None = None,
    ) -> None:
        """Prepare a run; ``activities`` must be exactly those that the machine names."""
        if activities.keys() != {*machine.activities}:
            given, wanted = sorted(activities), sorted(machine.activities)
            raise ValueError(f"{machine.name}: activities {given} given, {wanted} wanted")
        self.machine = machine
        self.state = machine.initial
        self.data = data
        self._definition = machine.definition.get(machine.initial)
        self._activities = activities
        self._emit = emit
        self._on_fault = on_fault
        self._observers: list[Observer[S, D, O]] = [*_OBSERVERS.get()]
        self._moved = trio.Event()
        self._left = False
        self._only_in: list[tuple[S, trio.CancelScope]] = []

    @property
    def over(self) -> bool:
        """Whether the machine is in a final state."""
        return self.state in self.machine.final

    def observe(self, observer: Observer[S, D, O]) -> None:
        """Have ``observer`` called after each step of this run, before its outputs are passed on.

        The observers of the context in which the run was made are called first.
        """
        self._observers.append(observer)

    def tell(self, event: Event) -> Step[S, D, O]:
        """Step the machine with one event, now.

        Raises :class:`proxy.fsm.IllegalEvent`, and does not move, if the table has no cell.
        """
        machine = self.machine
        step = machine.step(self.state, self.data, event)
        self.state, self.data = step.after, step.data
        for observe in self._observers:
            observe(self, step)
        if step.after is not step.before:
            before, self._definition = self._definition, machine.definition.get(step.after)
            self._left |= not (before and self._definition and before.do == self._definition.do)
            self._moved.set()
            self._moved = trio.Event()
            for wanted, scope in self._only_in:
                self._cancel_unless(wanted, scope)
        for output in step.outputs:
            self._emit(output)
        return step

    async def until(self, *states: S) -> None:
        """Wait until the machine is in one of ``states``, for an activity that depends on it."""
        while self.state not in states:
            await self._moved.wait()

    @contextmanager
    def only_in(self, state: S) -> Iterator[trio.CancelScope]:
        """Let the block run only in ``state``, for work that an activity need not finish."""
        with trio.CancelScope() as scope:
            entry = (state, scope)
            self._only_in.append(entry)
            self._cancel_unless(*entry)
            try:
                yield scope
            finally:
                self._only_in.remove(entry)

    def _cancel_unless(self, wanted: S, scope: trio.CancelScope) -> None:
        if self.state is not wanted:
            scope.cancel(f"{self.machine.name} is now {self.state.name}")

    async def run(self) -> None:
        """Run until a final state."""
        while not self.over:
            self._left = False
            await self._live(self._definition.do if self._definition else None)

    async def _live(self, name: str | None) -> None:
        """Keep one activity alive through the adjacent states that share it."""
        async with trio.open_nursery() as nursery:
            if name is not None:
                nursery.start_soon(self._act, name)
            while not self._left:
                await self._stay()
            nursery.cancel_scope.cancel(f"{self.machine.name} is now {self.state.name}")

    async def _stay(self) -> None:
        """Stay in the present state until it is left or its limit is over."""
        moved, limit = self._moved, self._definition.after if self._definition else None
        with trio.move_on_after(self._seconds()):
            await moved.wait()
        if limit and not moved.is_set():
            self.tell(limit.event())

    def _seconds(self) -> float:
        """Return the seconds that the present state may last; infinity without a limit."""
        limit = self._definition.after if self._definition else None
        return limit.seconds(self.data) if limit else math.inf

    async def _act(self, name: str) -> None:
        """Run one activity and turn its exceptions into an event: one run's fault ends no other.

        A fault after the activity's states were left, as in its clean-up, is only noted: the
        machine has gone on, and its new state is not undone.
        """
        try:
            await self._activities[name](self)
        except* Exception as faults:  # noqa: BLE001 - the containment boundary of this program
            fault = faults.exceptions[0] if len(faults.exceptions) == 1 else faults
            if self._on_fault:
                self._on_fault(fault)
            if not self._left:
                self.tell(ActivityFailed(type(fault).__name__))
        while not self._left and self._seconds() < math.inf:
            await self._moved.wait()
        if not self._left:
            self.tell(ActivityFailed(f"{name} ended in {self.state.name} and told nothing"))
