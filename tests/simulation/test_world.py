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
    EntityLevel,
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
