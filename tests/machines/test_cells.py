"""No cell of a machine changes unnoticed: the tables as they are, against those of before.

``cells.json`` holds every cell of the six machines before rows were merged: state, event, then the
id, the target (null: it stays), the action and the kind. What was merged since then is known from
the machines' own lists of retired ids.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.fsm import STAY, WHEN_OVER, Machine, Row
from proxy.machines import MACHINES

Cells = dict[tuple[str, str], tuple[str, str | None, str | None, str]]

FROZEN = json.loads(Path(__file__).with_name("cells.json").read_text())
each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def before(machine: Machine[Any, Any, Any]) -> Cells:
    return {
        (state, event): tuple(cell)
        for state, line in FROZEN[machine.name].items()
        for event, cell in line.items()
    }


def now(machine: Machine[Any, Any, Any]) -> Cells:
    return {
        (state.name, event.__name__): (
            cell.id,
            cell.target.name if isinstance(cell, Row) and cell.target is not STAY else None,
            cell.action.__name__ if isinstance(cell, Row) and cell.action else None,
            "row" if isinstance(cell, Row) else "ignore",
        )
        for (state, event), cell in machine.cells.items()
    }


@each_machine
def test_every_cell_is_what_it_was_but_for_its_id(machine: Machine[Any, Any, Any]) -> None:
    final = {state.name for state in machine.final}
    expected = {
        (state, event): (WHEN_OVER, None, None, "ignore")
        if state in final
        else (machine.retired.get(former, former), *what)
        for (state, event), (former, *what) in before(machine).items()
    }
    assert now(machine) == expected


@each_machine
def test_nothing_happened_in_a_final_state_before_either(machine: Machine[Any, Any, Any]) -> None:
    final = {state.name for state in machine.final}
    kinds = {cell[3] for (state, _), cell in before(machine).items() if state in final}
    assert kinds == {"ignore"}


@each_machine
def test_an_id_is_given_once(machine: Machine[Any, Any, Any]) -> None:
    first = {cell[0] for cell in before(machine).values()}
    given = {entry.id for entry in machine.entries}
    assert not given & machine.retired.keys()
    assert first <= given | machine.retired.keys()


@each_machine
def test_a_retired_id_has_an_heir_that_lives(machine: Machine[Any, Any, Any]) -> None:
    assert {*machine.retired.values()} <= {WHEN_OVER, *(entry.id for entry in machine.entries)}


def test_the_tables_stay_short() -> None:
    assert sum(len(machine.entries) for machine in MACHINES) <= 145
