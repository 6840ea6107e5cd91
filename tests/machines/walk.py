"""Walk a machine at random, by the cells it has, and hold each step against what must be true."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from proxy.fsm import Event, Machine, Step


class Walk(RuleBasedStateMachine):
    """The pure machine, with any event that has a cell; no runner, no clock."""

    machine: ClassVar[Machine[Any, Any, Any]]
    start: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        self.state = self.machine.initial
        self.data = self.start
        self.outputs: list[Any] = []

    @rule(draw=st.data())
    def tell(self, draw: st.DataObject) -> None:
        """Tell one event."""
        here = [event for state, event in self.machine.cells if state is self.state]
        event = self.exact(draw.draw(st.sampled_from(here).flatmap(some)))
        if event is None:
            return
        step = self.machine.step(self.state, self.data, event)
        if self.state in self.machine.final:
            assert (step.after, step.data, step.outputs) == (self.state, self.data, ())
        self.check(event, step)
        self.state, self.data = step.after, step.data
        self.outputs += step.outputs
        self.look()

    def exact(self, event: Event) -> Event | None:
        """Return the event that a policy chooses instead; None for no event."""
        return event

    def check(self, event: Event, step: Step[Any, Any, Any]) -> None:
        """Hold one step, not taken yet, against what must be true."""

    def look(self) -> None:
        """Hold state, data and all outputs so far against what must be true."""


UNHURRIED = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
"""Hypothesis on a computer that does other things as well."""


def walk(machine: type[Walk]) -> None:
    """Take many walks."""
    many = settings(UNHURRIED, max_examples=60, stateful_step_count=40)
    run_state_machine_as_test(machine, settings=many)


def some(event: type[Event]) -> st.SearchStrategy[Event]:
    """Draw an event of this class."""
    fields = msgspec.structs.fields(event)
    return st.builds(event, **{field.name: _values(field.type) for field in fields})


def _values(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    return {
        bool: st.booleans(),
        int: st.integers(0, 100),
        float: st.floats(0, 1000),
        str: st.sampled_from(["one reason", "another reason"]),
    }[kind]
