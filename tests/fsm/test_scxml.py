from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from proxy.fsm import STAY, Machine, Row, ignore, row
from proxy.fsm.scxml import scxml
from proxy.machines import MACHINES
from tests.support.machine_suite import example_data, oracle_agrees, path
from tests.support.sample import (
    FERRY,
    HOME,
    MOORED,
    SUNK,
    TURNING,
    UNDER_WAY,
    Called,
    Loaded,
    Log,
)

SCXML = "{http://www.w3.org/2005/07/scxml}"
TABLE = "{urn:ith-proxy:table}"
ALL: list[Machine[Any, Any, Any]] = [FERRY, *MACHINES]


def parsed(machine: Machine[Any, Any, Any]) -> ET.Element:
    return ET.fromstring(scxml(machine).encode())  # noqa: S314 - our own


@pytest.mark.parametrize("machine", ALL, ids=lambda machine: machine.name)
def test_a_foreign_interpreter_agrees_on_every_cell(machine: Machine[Any, Any, Any]) -> None:
    cells = oracle_agrees(machine, example_data(machine))
    assert cells == len(machine.states) * len(machine.events) >= 25


@pytest.mark.parametrize("machine", ALL, ids=lambda machine: machine.name)
def test_the_document_has_every_state_and_every_row(machine: Machine[Any, Any, Any]) -> None:
    root = parsed(machine)
    assert root.tag == f"{SCXML}scxml"
    assert root.attrib["initial"] == machine.initial.name
    final = {state.attrib["id"] for state in root.findall(f"{SCXML}final")}
    assert final == {state.name for state in machine.final}
    groups = [state for state in root if state.find(f"{SCXML}state") is not None]
    assert {
        group.attrib["id"]: [state.attrib["id"] for state in group.findall(f"{SCXML}state")]
        for group in groups
    } == {
        group.name: [state.name for state in group]
        for group in machine.groups
        if not machine.final >= {*group}
    }
    above = {state: group for group in groups for state in group.findall(f"{SCXML}state")}
    rows = set()
    for state in (*(s for s in root if s not in groups), *above):
        steps = [step for step in state if step.tag == f"{SCXML}transition"]
        own = {event for step in steps for event in step.attrib["event"].split()}
        steps += above.get(state, [])
        for step in steps:
            if step.tag == f"{SCXML}transition":
                rows |= {
                    (state.attrib["id"], step.attrib[f"{TABLE}row"], event, step.get("target"))
                    for event in step.attrib["event"].split()
                    if step in [*state] or event not in own
                }
    assert rows == {
        (state.name, cell.id, event.__name__, None if cell.target is STAY else cell.target.name)
        for (state, event), cell in machine.cells.items()
        if isinstance(cell, Row)
    }


def test_a_row_that_yields_to_an_ignore_is_not_written_for_the_whole_group() -> None:
    """In SCXML the ignore is no transition: that of the group would be taken in its place."""
    back: Row[Any, Log, str] = row(
        "FRY-07", UNDER_WAY, Loaded, MOORED, otherwise=True, doc="Back, for one more car."
    )
    turns = ignore("FRY-95", TURNING, Loaded, doc="It comes back already.")
    machine = replace(FERRY, rows=(*FERRY.rows, back), ignores=(*FERRY.ignores, turns))
    oracle_agrees(machine, example_data(machine))
    (taken,) = [
        state.attrib["id"]
        for state in parsed(machine).iter(f"{SCXML}state")
        for step in state.findall(f"{SCXML}transition")
        if step.attrib[f"{TABLE}row"] == back.id
    ]
    assert taken == "SAILING"


def test_a_sentence_is_quoted() -> None:
    means = {state.attrib["id"]: state.attrib[f"{TABLE}means"] for state in parsed(FERRY)}
    assert means["MOORED"] == "At the pier | with space."
    assert means["UNDER_WAY"] == "The ferry | is at sea."


def test_a_shortest_way_leads_to_each_state() -> None:
    assert path(FERRY, MOORED) == ()
    assert path(FERRY, TURNING) == (Loaded, Called)
    assert path(FERRY, HOME) == (Called,)
    assert len(path(FERRY, SUNK)) == 1


def test_the_oracle_finds_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support import machine_suite

    def wrong(machine: Machine[Any, Any, Any]) -> str:
        return scxml(machine).replace('target="TURNING"', 'target="MOORED"')

    monkeypatch.setattr(machine_suite, "scxml", wrong)
    with pytest.raises(AssertionError, match=r"Called in SAILING: TURNING, there {'MOORED'}"):
        oracle_agrees(FERRY, Log())
