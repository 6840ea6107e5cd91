from __future__ import annotations

from types import ModuleType

import pytest

from proxy.dicom import pdu
from proxy.fsm import WHEN_OVER
from proxy.ledger import database
from proxy.machines import MACHINES
from proxy.runtime.marks import Mark
from proxy.simulation.many import simulate
from proxy.simulation.scenario import (
    NOON,
    Aimed,
    EntityLevel,
    Incident,
    OperatorPause,
    OrderSent,
    Scenario,
    draw,
)

ORDER = OrderSent(at=1.0, number=3, level=EntityLevel.SESSION, session=1, nodes=("a",))


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    one, again, other = simulate(draw(5)), simulate(draw(5)), simulate(draw(6))
    assert one.trace == again.trace
    assert one == again
    assert one.trace != other.trace


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        (pdu, "IMPLEMENTATION_CLASS_UID", "2.25.1"),
        (database, "APPLICATION_ID", 7),
    ],
    ids=["wire", "ledger"],
)
def test_the_trace_tells_worlds_apart_by_bytes(
    monkeypatch: pytest.MonkeyPatch, part: ModuleType, name: str, value: object
) -> None:
    scenario = Scenario(1, NOON, 2, "both", (ORDER,))
    before = simulate(scenario)
    monkeypatch.setattr(part, name, value)
    after = simulate(scenario)
    assert (before.rows, before.steps, before.violations) == (after.rows, after.steps, [])
    assert before.trace != after.trace


def test_keeping_a_history_changes_nothing() -> None:
    plain, kept = simulate(draw(9)), simulate(draw(9), with_history=True)
    assert plain.history == []
    assert kept.history
    assert (plain.trace, plain.steps, plain.rows, plain.marks) == (
        kept.trace,
        kept.steps,
        kept.rows,
        kept.marks,
    )


def test_a_world_knows_what_it_reached() -> None:
    result = simulate(Scenario(1, NOON, 2, "both", (ORDER,)))
    assert result.violations == []
    rows = {row.id for machine in MACHINES for row in machine.rows}
    ignores = {each.id for machine in MACHINES for each in machine.ignores}
    assert result.rows <= rows | ignores | {WHEN_OVER}
    assert {Mark.COMMIT_DONE.name, Mark.INSTANCE_ANSWERED.name} <= result.marks.keys()
    assert result.endings == {"completed": 2}


PAUSE = OperatorPause(at=0.0, seconds=5.0)


def at(
    moment: str, incident: Incident, *, nth: int = 0, later: float = 0.0, there: bool = False
) -> Aimed:
    return Aimed(at=0.0, moment=moment, nth=nth, later=later, there=there, incident=incident)


def test_an_incident_may_happen_at_a_mark_a_state_and_a_row() -> None:
    for moment in (Mark.INSTANCE_SENT.name, "delivery STORING", "DLV-02"):
        result = simulate(Scenario(1, NOON, 2, "both", (ORDER, at(moment, PAUSE))))
        assert result.violations == []
        assert result.faults == {f"operator pause at {moment}": 1}
        assert {"OPS-01", "DLV-11", "DLV-13"} <= result.rows


def test_an_incident_waits_for_the_moment_number_and_some_time_after_it() -> None:
    sent = Mark.INSTANCE_SENT.name
    first, second, third = (
        simulate(Scenario(1, NOON, 2, "both", (ORDER, at(sent, PAUSE, nth=nth))))
        for nth in range(3)
    )
    assert "DLV-25" in first.rows - second.rows  # the second instance is the last one
    assert second.faults == {f"operator pause at {sent}": 1}
    assert third.faults == {}
    late = simulate(Scenario(1, NOON, 2, "both", (ORDER, at(sent, PAUSE, later=60.0))))
    assert late.faults
    assert {"OPS-01", "OPS-04"} <= late.rows
    assert "DLV-11" not in late.rows


def test_an_order_may_be_repeated_at_a_moment() -> None:
    again = at("delivery STORING", ORDER, later=5.0)
    result = simulate(Scenario(1, NOON, 2, "both", (ORDER, again)))
    assert result.violations == []
    assert "DSP-03" in result.rows
    assert result.endings == {"completed": 2}
