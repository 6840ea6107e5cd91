from __future__ import annotations

import re
from enum import Enum
from typing import Any

import pytest

from proxy.fsm import Event, Machine, Row, stay
from proxy.fsm import row as make_row
from proxy.fsm.draw import arrows, mermaid, word
from proxy.machines import MACHINES
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


class PowerCame(Event, frozen=True):
    """Power is back."""


class PowerWent(Event, frozen=True):
    """Power is gone."""


class LampWent(Event, frozen=True):
    """The lamp is broken."""


ALL: list[Machine[Any, Any, Any]] = [FERRY, *MACHINES]
GOLDEN = """\
%%{init: {"themeVariables": {"fontSize": "13px"}}}%%
stateDiagram-v2
state "MOORED" as MOORED
MOORED : do / load
state "SAILING" as SAILING
SAILING : do / steer
SAILING : FRY-02 Sighted / count_buoy
state "TURNING" as TURNING
TURNING : do / steer
TURNING : FRY-02 Sighted / count_buoy
state "SUNK" as SUNK
state "HOME" as HOME
[*] --> MOORED
MOORED --> SAILING : FRY-01 Loaded
MOORED --> HOME : FRY-03 Called
SAILING --> TURNING : FRY-04 Called
TURNING --> MOORED : FRY-05 Turned
MOORED --> SUNK : FRY-06 ActivityFailed
SAILING --> SUNK : FRY-06 ActivityFailed
TURNING --> SUNK : FRY-06 ActivityFailed
SUNK --> [*]
HOME --> [*]
"""


def test_the_sample_looks_like_this() -> None:
    assert mermaid(FERRY) == GOLDEN


def read(text: str) -> set[tuple[str, str, str]]:
    """Read a diagram back: which state, on which row, becomes which; an independent reader."""
    junctions = set(re.findall(r"^state (\w+) <<choice>>$", text, re.MULTILINE))
    gathered: dict[str, list[str]] = {}
    found = set()
    for source, target, labels in re.findall(r"^(\w+) --> (\w+)(?: : (.+))?$", text, re.MULTILINE):
        if target in junctions:
            assert not labels
            gathered.setdefault(target, []).append(source)
            continue
        for label in labels.split("<br/>"):
            for state in gathered.get(source, [source]):
                found.add((state, label.split()[0], target))
    inside = re.findall(r"^(\w+) : (?!do)(\S+) \w+(?: / \w+)?$", text, re.MULTILINE)
    states = re.findall(r'^state "(\w+)"', text, re.MULTILINE)
    final = re.findall(r"^(\w+) --> \[\*\]$", text, re.MULTILINE)
    for note in re.findall(
        r"^note right of \w+\nin every state that is not final\n(.*?)\nend note$",
        text,
        re.MULTILINE | re.DOTALL,
    ):
        inside += [
            (s, row.split()[0]) for s in states if s not in final for row in note.split("\n")
        ]
    return found | {(state, row, state) for state, row in inside}


@pytest.mark.parametrize("machine", ALL, ids=lambda machine: machine.name)
def test_the_diagram_shows_every_row_from_every_source_and_nothing_else(
    machine: Machine[Any, Any, Any],
) -> None:
    table = {
        (source.name, row.id, (source if row.target is None else row.target).name)
        for row in machine.rows
        for source in row.sources
    }
    assert read(mermaid(machine)) == table


@pytest.mark.parametrize("machine", ALL, ids=lambda machine: machine.name)
def test_one_arrow_joins_two_states_at_most(machine: Machine[Any, Any, Any]) -> None:
    pairs = re.findall(r"^(\S+ --> \S+)", mermaid(machine), re.MULTILINE)
    assert len(pairs) == len(set(pairs))


def test_states_that_share_rows_are_gathered_where_that_saves_arrows() -> None:
    class Light(Enum):
        RED = "Stop."
        AMBER = "Look."
        GREEN = "Go."
        DARK = "No power."
        BROKEN = "No lamp."

    red, amber, green, dark, broken = Light
    lit = (red, amber, green)
    light: Machine[Light, None, None] = Machine(
        name="light",
        purpose="A light.",
        initial=red,
        final=frozenset({dark, broken}),
        stays=tuple(stay(state, unlimited="for now") for state in lit),
        rows=(
            make_row("LGT-01", red, PowerCame, green, doc="On."),
            make_row("LGT-02", green, PowerCame, amber, doc="On."),
            make_row("LGT-03", lit, PowerWent, dark, doc="Out."),
            make_row("LGT-04", lit, LampWent, broken, doc="Out."),
        ),
    )
    junctions, found = arrows(light)
    assert junctions == {"junction_1": {*lit}}
    assert found == {
        ("RED", "junction_1"): [],
        ("AMBER", "junction_1"): [],
        ("GREEN", "junction_1"): [],
        ("RED", "GREEN"): ["LGT-01 PowerCame"],
        ("GREEN", "AMBER"): ["LGT-02 PowerCame"],
        ("junction_1", "DARK"): ["LGT-03 PowerWent"],
        ("junction_1", "BROKEN"): ["LGT-04 LampWent"],
    }


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
        "FRY-02", UNDER_WAY, Sighted, None, lambda log, _: (log, ()), doc=""
    )
    refused("FRY-02", row)
