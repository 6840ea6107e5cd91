from __future__ import annotations

from random import Random

import pytest

from proxy.machines import MACHINES
from proxy.runtime.marks import Mark
from proxy.simulation.scenario import LONG_SERIES, MEETINGS, Aimed, OrderSent, Scenario, draw
from proxy.simulation.steering import AIMS, ROWS, UNREACHABLE, aim_of, moments, rare, strikes_for

pytestmark = pytest.mark.pure

SEEDS = range(40)


def short(scenario: Scenario) -> list[OrderSent]:
    return [each for each in scenario.orders if each.session != LONG_SERIES]


def aimed(scenario: Scenario) -> list[Aimed]:
    return [each for each in scenario.incidents if isinstance(each, Aimed)]


def test_what_few_worlds_have_reached_is_rare_and_the_rarest_comes_first() -> None:
    reached = dict.fromkeys(AIMS, 10)
    assert rare(reached, 1000) == ()
    reached |= {"DLV-20": 9, Mark.OBJECT_REMOVED.name: 0, "CON-10": 3}
    assert rare(reached, 1000) == (Mark.OBJECT_REMOVED.name, "CON-10", "DLV-20")


def test_what_no_world_reaches_is_no_aim() -> None:
    assert UNREACHABLE.keys() <= ROWS.keys()
    assert UNREACHABLE.keys().isdisjoint(rare({}, 100))
    assert rare({}, 100) == tuple(aim for aim in AIMS if aim not in UNREACHABLE)


def test_nothing_is_rare_before_the_first_world() -> None:
    assert rare({}, 0) == ()


def test_every_other_world_has_an_aim_and_each_aim_has_its_worlds() -> None:
    aims = [aim_of(seed, ("A", "B", "C")) for seed in range(12)]
    assert aims == ["", "A", "", "B", "", "C", "", "A", "", "B", "", "C"]
    assert {aim_of(seed, ()) for seed in SEEDS} == {""}


@pytest.mark.parametrize("aim", AIMS)
def test_every_aim_has_moments_at_which_something_may_happen(aim: str) -> None:
    leads = [lead for seed in SEEDS for lead in strikes_for(aim, Random(seed))]
    assert {lead.moment for lead in leads} <= {*moments(), *ROWS}


def test_a_row_is_struck_at_in_the_states_that_it_leaves_and_on_the_way_there() -> None:
    at = {lead.moment for seed in range(200) for lead in strikes_for("DLV-21", Random(seed))}
    assert {"delivery STOPPING", "delivery ABORTING", "delivery STORING", "DLV-20"} <= at
    assert not [moment for moment in at if moment.startswith(("connection", "node"))]


def test_moments_are_marks_and_states_that_a_machine_comes_into() -> None:
    assert len({*moments()}) == len(moments())
    states = {f"{machine.name} {state.name}" for machine in MACHINES for state in machine.states}
    assert {*moments()} <= states | {mark.name for mark in Mark}
    assert "delivery STORING" in moments()
    assert "connection OFFLINE" not in moments()


def test_what_meets_is_for_rows_and_at_moments() -> None:
    assert {aim for aims in MEETINGS for aim in aims} <= {*ROWS} - UNREACHABLE.keys()
    struck = {moment for meeting in MEETINGS.values() for moment, _ in meeting}
    assert struck <= {*moments(), *ROWS}


def test_the_same_seed_with_the_same_aim_draws_the_same_scenario() -> None:
    for seed in SEEDS:
        assert draw(seed, "DLV-21") == draw(seed, "DLV-21")
        assert draw(seed, "DLV-21") != draw(seed)
        assert draw(seed, "") == draw(seed)


def test_an_aim_adds_incidents_at_moments_and_keeps_the_orders() -> None:
    for seed in SEEDS:
        scenario = draw(seed, "DLV-21")
        assert aimed(scenario)
        assert short(scenario) == short(draw(seed, "CON-16")) == short(draw(seed))
        assert scenario.command == f"ith-proxy sim --seed {seed} --aim DLV-21"
    assert draw(7).command == "ith-proxy sim --seed 7"
