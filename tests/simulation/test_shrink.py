from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.simulation.scenario import Corruption, Incident, Scenario
from proxy.simulation.shrink import MAX_RUNS, shrink

pytestmark = pytest.mark.pure


def of(count: int) -> Scenario:
    incidents = tuple(Corruption(at=float(number)) for number in range(count))
    return Scenario(1, 0.0, 1, "both", incidents)


def needs(*times: float) -> Callable[[Scenario], bool]:
    """Make the function that a scenario fails if it has the incidents of all these times."""
    return lambda scenario: {*times} <= {each.at for each in scenario.incidents}


def times(incidents: tuple[Incident, ...]) -> list[float]:
    return [each.at for each in incidents]


@given(st.data())
def test_a_failure_of_two_incidents_shrinks_to_these(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 40))
    two = data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True))
    small = shrink(of(count), needs(*two))
    assert times(small.scenario.incidents) == sorted(two)
    assert small.runs <= MAX_RUNS


def test_a_failure_without_any_incident_keeps_one() -> None:
    small = shrink(of(16), lambda scenario: True)
    assert len(small.scenario.incidents) == 1
    assert small.runs <= 8


def test_what_needs_every_incident_is_left_as_it_is() -> None:
    scenario = of(12)
    assert shrink(scenario, needs(*range(12))).scenario == scenario


def test_it_gives_up_after_so_many_runs_and_returns_what_fails() -> None:
    fails = needs(*range(0, 40, 13))
    small = shrink(of(40), fails, max_runs=25)
    assert small.runs == 25
    assert fails(small.scenario)
    assert len(small.scenario.incidents) < 40


def test_each_run_is_told_with_what_is_left() -> None:
    told: list[tuple[int, int]] = []
    shrunk = shrink(of(8), needs(5.0), on_run=lambda runs, left: told.append((runs, left)))
    assert [runs for runs, _ in told] == [*range(1, shrunk.runs + 1)]
    lefts = [left for _, left in told]
    assert lefts[0] == 8
    assert lefts == sorted(lefts, reverse=True)
    assert lefts[-1] < 8
