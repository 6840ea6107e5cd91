from __future__ import annotations

import re
from typing import Any

import pytest

from proxy.fsm import STAY, Ignore, Machine, Row
from proxy.fsm import row as make_row
from proxy.fsm.draw import arrows, caption, mermaid, word
from proxy.machines import MACHINES
from proxy.machines.association import ASSOCIATION
from proxy.machines.delivery import DELIVERY
from tests.support.sample import (
    FERRY,
    PARTS,
    SAILING,
    TURNING,
    UNDER_WAY,
    Called,
    Log,
    Sighted,
    State,
)

ALL: list[Machine[Any, Any, Any]] = [FERRY, *MACHINES]
GOLDEN = """\
%%{init: {"themeVariables": {"fontSize": "13px"}, "themeCSS": "b {color: #0b3d91} \
b {background: #dbe9ff} i {color: #7a3000} i {background: #ffe8d1} \
foreignObject div {max-width: none !important}"}}%%
stateDiagram-v2
state "MOORED" as MOORED
MOORED : do / load
state "UNDER_WAY" as UNDER_WAY {
state "SAILING" as SAILING
SAILING : do / steer
state "TURNING" as TURNING
TURNING : do / steer
SAILING --> TURNING : FRY-04 <b>Called</b>
}
state "SUNK" as SUNK
state "HOME" as HOME
note right of UNDER_WAY
in every state of UNDER_WAY
FRY-02 Sighted, Passed / count_buoy
end note
[*] --> MOORED
MOORED --> UNDER_WAY : FRY-01 Loaded to SAILING
MOORED --> HOME : FRY-03 <b>Called</b>
UNDER_WAY --> MOORED : FRY-05 <i>Turned</i> from TURNING
MOORED --> SUNK : FRY-06 ActivityFailed
UNDER_WAY --> SUNK : FRY-06 ActivityFailed
SUNK --> [*]
HOME --> [*]
"""
LABEL = re.compile(
    r"(?P<row>\S+) (?P<events>otherwise|\w+(?:, \w+)*(?: otherwise)?)"
    r"(?: from (?P<sources>\w+(?: or \w+)*))?(?: to (?P<target>\w+))?(?: / \w+)?"
)


def test_the_sample_looks_like_this() -> None:
    assert mermaid(FERRY) == GOLDEN


class Reader:
    """An independent reader of a diagram: which states, on which row and event, become which."""

    def __init__(self, text: str) -> None:
        text = re.sub(r"</?[bi]>", "", text)
        self.groups = {
            name: re.findall(r'^state "\w+" as (\w+)$', body, re.MULTILINE)
            for name, body in re.findall(
                r'^state "[^"]+" as (\w+) {\n(.*?)^}$', text, re.MULTILINE | re.DOTALL
            )
        }
        self.states = re.findall(r'^state "\w+" as (\w+)$', text, re.MULTILINE)
        ends = re.findall(r"^(\w+) --> \[\*\]$", text, re.MULTILINE)
        self.final = {state for end in ends for state in self.groups.get(end, [end])}
        self.taken: set[tuple[str, str, str, str]] = set()
        self.yields: list[tuple[str, str, list[str], str]] = []
        notes = re.findall(r"^note right of (\w+)\n(.*?)^end note$", text, re.MULTILINE | re.DOTALL)
        self.otherwise: dict[str, list[str]] = {}
        for _, body in notes:
            head, *lines = body.splitlines()
            if found := re.fullmatch(r"(\S+) otherwise(?: / \w+)? to \w+", head):
                assert lines[0] == "on any of these without an arrow or a line"
                self.otherwise[found[1]] = lines[1:]
                continue
            open_states = [state for state in self.states if state not in self.final]
            where = {"in every state that is not final": open_states}
            where |= {f"in every state of {name}": states for name, states in self.groups.items()}
            for line in lines:
                for state in where[head]:
                    self._take(state, line, state)
        for state, line in re.findall(r"^(\w+) : (\S+-\d\d .+)$", text, re.MULTILINE):
            self._take(state, line, state)
        for start, end, labels in re.findall(r"^(\w+) --> (\w+) : (.+)$", text, re.MULTILINE):
            for label in labels.split("<br/>"):
                self._take(start, label, end)
        taken = {(state, event) for state, _, event, _ in self.taken}
        for state, row, events, target in self.yields:
            left = [event for event in events if (state, event) not in taken]
            self.taken |= {(state, row, event, target) for event in left}

    def _take(self, start: str, label: str, end: str) -> None:
        found = LABEL.fullmatch(label)
        assert found, label
        row = found["row"]
        sources = found["sources"].split(" or ") if found["sources"] else self.groups.get(start)
        target = found["target"] or end
        assert target in self.states
        assert {*(sources or [start])} <= {*self.groups.get(start, [start])}
        events = found["events"].removesuffix("otherwise").strip()
        named = events.split(", ") if events else self.otherwise[row]
        for state in sources or [start]:
            if found["events"].endswith("otherwise"):
                self.yields.append((state, row, named, target))
            else:
                self.taken |= {(state, row, event, target) for event in named}


@pytest.mark.parametrize("machine", ALL, ids=lambda machine: machine.name)
def test_the_diagram_shows_every_cell_of_every_row_but_what_is_ignored(
    machine: Machine[Any, Any, Any],
) -> None:
    table = {
        (state.name, cell.id, event.__name__, cell.target.name)
        if cell.target is not STAY
        else (state.name, cell.id, event.__name__, state.name)
        for (state, event), cell in machine.cells.items()
        if isinstance(cell, Row)
    }
    read = Reader(mermaid(machine))
    ignored = {
        (state.name, event.__name__)
        for (state, event), cell in machine.cells.items()
        if isinstance(cell, Ignore)
    }
    assert {step for step in read.taken if (step[0], step[2]) not in ignored} == table
    yielding = {row for _, row, _, _ in read.yields}
    assert all(row in yielding for state, row, event, _ in read.taken if (state, event) in ignored)
    assert read.groups == {g.name: [state.name for state in g] for g in machine.groups}
    assert read.final == {state.name for state in machine.final}


@pytest.mark.parametrize("machine", ALL, ids=lambda machine: machine.name)
def test_one_arrow_joins_two_ends_at_most(machine: Machine[Any, Any, Any]) -> None:
    pairs = re.findall(r"^(\S+ --> \S+)", mermaid(machine), re.MULTILINE)
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("machine", ALL, ids=lambda machine: machine.name)
def test_no_arrow_crosses_the_border_of_a_group(machine: Machine[Any, Any, Any]) -> None:
    within, across = arrows(machine)
    grouped = {state.name: group.name for group in machine.groups for state in group}
    assert not {end for ends in across for end in ends} & grouped.keys()
    for name, found in within.items():
        assert {grouped[end] for ends in found for end in ends} <= {name}


def test_delivery_is_read_aloud_in_two_minutes() -> None:
    within, across = arrows(DELIVERY)
    assert (sum(map(len, within.values())), len(across)) == (7, 4)


def test_a_row_that_yields_says_so_on_its_arrow_and_in_a_note() -> None:
    drawn = mermaid(ASSOCIATION)
    assert "<br/>ASC-19 otherwise<br/>" in drawn
    note = "note right of TALKING\nASC-19 otherwise / aa_8 to Sta13\n"
    note += "on any of these without an arrow or a line\n"
    assert note + "AssociateAccepted\nAssociateRejected\n" in drawn


def test_a_captioned_machine_shows_the_sentences_of_its_states() -> None:
    drawn = mermaid(ASSOCIATION)
    for state in ASSOCIATION.states:
        assert f"{state.name} : {state.value}\n" in drawn
    (talking,) = ASSOCIATION.groups
    assert f'state "TALKING: {talking.doc}" as TALKING {{\n' in drawn


@pytest.mark.parametrize("text", ["Closed; over.", "One\ntwo.", "<b>", "", "Why?", ": so"])
def test_a_sentence_that_mermaid_would_misread_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        caption(text)


@pytest.mark.parametrize("machine", ALL, ids=lambda machine: machine.name)
def test_no_line_has_a_semicolon(machine: Machine[Any, Any, Any]) -> None:
    assert ";" not in mermaid(machine)


@pytest.mark.parametrize(
    "text", ["a;b", "a b", "a\nb", "", "<lambda>", "a-b-c", "ä", "DLV-01;", "1st", "a:b", "end "]
)
def test_what_mermaid_would_misread_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        word(text)


@pytest.mark.parametrize("text", ["DLV-01", "WAITING", "Sta13", "keep_error", "InstanceStored"])
def test_ids_and_identifiers_are_drawn(text: str) -> None:
    assert word(text) == text


def refused(replaced: str, row: Any) -> None:
    rows = tuple(row if old.id == replaced else old for old in PARTS["rows"])
    machine: Machine[Any, Log, str] = Machine(**{**PARTS, "rows": rows})
    with pytest.raises(ValueError, match="cannot be drawn"):
        mermaid(machine)


def test_an_id_with_a_semicolon_is_refused() -> None:
    refused("FRY-04", make_row("FRY;04", SAILING, Called, TURNING, doc=""))


def test_an_action_without_a_name_is_refused() -> None:
    row: Row[State, Log, str] = make_row(
        "FRY-02", UNDER_WAY, Sighted, STAY, lambda log, _: (log, ()), doc=""
    )
    refused("FRY-02", row)
