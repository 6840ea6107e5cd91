from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from proxy.fsm import (
    STAY,
    WHEN_OVER,
    ActivityFailed,
    Event,
    IllegalEvent,
    Machine,
    Row,
    Source,
    group,
    ignore,
    limit,
    row,
    state,
)
from tests.support.machine_suite import dead_cells, sweep_legal
from tests.support.sample import (
    FERRY,
    HOME,
    MOORED,
    PARTS,
    SAILING,
    SUNK,
    TURNING,
    UNDER_WAY,
    Called,
    Loaded,
    Log,
    Passed,
    Sighted,
    State,
    Turned,
)

LEGAL = {
    "Loaded": {"MOORED", "HOME"},
    "Sighted": {"MOORED", "SAILING", "TURNING", "HOME"},
    "Passed": {"MOORED", "SAILING", "TURNING", "HOME"},
    "Called": {"MOORED", "SAILING", "TURNING", "SUNK", "HOME"},
    "Turned": {"TURNING"},
    "ActivityFailed": {"MOORED", "SAILING", "TURNING"},
}


def build(**parts: Any) -> Machine[State, Log, str]:
    return Machine(**{**PARTS, **parts})


def without(kind: str, *ids: str) -> dict[str, Any]:
    return {kind: tuple(entry for entry in PARTS[kind] if entry.id not in ids)}


def also(kind: str, *entries: object) -> dict[str, Any]:
    return {kind: (*PARTS[kind], *entries)}


def define(*changed: Any) -> dict[str, Any]:
    states = [d.state for d in changed]
    others = (d for d in PARTS["definitions"] if d.state not in states)
    return {"definitions": (*others, *changed)}


class Horn(Event, frozen=True):
    """The state's own activity sounds the horn."""


class Flare(Event, frozen=True):
    """Somebody sees a flare."""

    source: ClassVar[Source] = Source.PEER


FLAWS: list[tuple[dict[str, Any], str]] = [
    (
        also("rows", row("FRY-07", MOORED, Called, SAILING, doc="Two at once.")),
        "FRY-07 and FRY-03 both claim MOORED x Called",
    ),
    (without("rows", "FRY-06"), "SUNK is unreachable"),
    (
        also("rows", row("FRY-07", HOME, Called, SUNK, doc="")),
        "FRY-07 is of a final state, where nothing happens",
    ),
    (
        also("ignores", ignore("FRY-95", (TURNING, SUNK), Loaded, doc="")),
        "FRY-95 is of a final state, where nothing happens",
    ),
    (
        {**without("rows", "FRY-03", "FRY-06"), "final": frozenset({HOME})},
        "SAILING can never finish",
    ),
    (
        also("rows", row("FRY-01", SAILING, Horn, STAY, doc="Again.")),
        "id FRY-01 is used twice",
    ),
    (
        define(state(HOME, untimed="it is over")),
        "HOME needs one definition, or none if it is final",
    ),
    (
        {"definitions": PARTS["definitions"][1:]},
        "MOORED needs one definition, or none if it is final",
    ),
    (
        also("definitions", state(MOORED, do="load", untimed="twice")),
        "MOORED needs one definition, or none if it is final",
    ),
    (
        define(state(SAILING, do="steer")),
        "SAILING needs a limit or the reason why it has none",
    ),
    (
        define(
            state(TURNING, do="steer", untimed="why", after=limit(lambda log: 1.0, Turned, "1 s"))
        ),
        "TURNING needs a limit or the reason why it has none",
    ),
    (
        define(state(TURNING, do="steer", after=limit(lambda log: 1.0, Sighted, "1 s"))),
        "Sighted is sent by a limit: its source must be TIMER",
    ),
    (without("ignores", "FRY-90"), "Called can occur in TURNING and has no cell there"),
    (without("ignores", "FRY-93"), "Sighted can occur in MOORED and has no cell there"),
    (without("rows", "FRY-05"), "Turned can occur in TURNING and has no cell there"),
    (
        {"rows": tuple(r for r in PARTS["rows"] if ActivityFailed not in r.on)},
        "ActivityFailed can occur in MOORED and has no cell there",
    ),
    (
        {
            **without("rows", "FRY-06"),
            **also("ignores", ignore("FRY-95", MOORED, ActivityFailed, doc="Never mind.")),
        },
        "FRY-95 stays with an activity that failed",
    ),
    (
        {
            "rows": (
                *without("rows", "FRY-06")["rows"],
                row("FRY-06", (MOORED, TURNING), ActivityFailed, SUNK, doc="A leak."),
                row("FRY-07", SAILING, ActivityFailed, TURNING, doc="Who steers?"),
            )
        },
        "FRY-07 stays with an activity that failed",
    ),
    (
        {"groups": (*PARTS["groups"], group("OUT", MOORED, TURNING, doc="Out."))},
        "TURNING is in two groups",
    ),
    ({"groups": (group("HOME", SAILING, TURNING, doc="Home."),)}, "HOME is the name of two"),
    (
        {"groups": (group("GONE", TURNING, SUNK, doc="Gone."),)},
        "GONE mixes final states with others",
    ),
    ({"retired": {"FRY-02": WHEN_OVER}}, "id FRY-02 is used twice"),
    ({"retired": {"FRY-96": "FRY-97"}}, "FRY-97 takes over from FRY-96 and is no id"),
    (
        also(
            "rows",
            row("FRY-07", UNDER_WAY, Loaded, SUNK, doc="", otherwise=True),
            row("FRY-08", TURNING, Loaded, SUNK, doc="", otherwise=True),
        ),
        "FRY-08 and FRY-07 both claim TURNING x Loaded",
    ),
]


@pytest.mark.parametrize(
    ("parts", "flaw"), FLAWS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_flawed_table_cannot_be_built(parts: dict[str, Any], flaw: str) -> None:
    with pytest.raises(ValueError, match=r"^ferry: ") as caught:
        build(**parts)
    assert flaw in str(caught.value).removeprefix("ferry: ").split("; ")


def test_all_flaws_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"ferry: .*; .*; "):
        build(**without("ignores", "FRY-90", "FRY-93"))


def test_every_cell_is_as_listed_by_hand() -> None:
    sweep_legal(FERRY, LEGAL, Log())


def test_the_sweep_finds_a_wrong_cell() -> None:
    with pytest.raises(AssertionError, match="Turned in SUNK: taken is False"):
        sweep_legal(FERRY, {**LEGAL, "Turned": {"TURNING", "SUNK"}}, Log())


def test_a_step_returns_what_happened_and_changes_nothing() -> None:
    log = Log()
    step = FERRY.step(MOORED, log, Loaded(3))
    assert step.row == "FRY-01"
    assert (step.before, step.after) == (MOORED, SAILING)
    assert (step.data, step.outputs) == (Log(cars=3), ("horn", "3 cars"))
    assert log == Log()
    assert FERRY.step(MOORED, log, Loaded(3)) == step


def test_a_row_without_a_target_stays() -> None:
    step = FERRY.step(TURNING, Log(), Sighted())
    assert (step.after, step.data.buoys, step.outputs) == (TURNING, 1, ())


def test_a_row_without_an_action_keeps_the_data() -> None:
    log = Log(cars=2)
    step = FERRY.step(SAILING, log, Called())
    assert (step.after, step.data, step.outputs) == (TURNING, log, ())


def test_an_ignore_is_named_and_does_nothing() -> None:
    log = Log(cars=2)
    step = FERRY.step(TURNING, log, Called())
    assert (step.row, step.before, step.after) == ("FRY-90", TURNING, TURNING)
    assert (step.data, step.outputs) == (log, ())


@pytest.mark.parametrize("event", [Loaded(1), Sighted(), Passed(), Called()])
def test_in_a_final_state_nothing_happens(event: Event) -> None:
    log = Log(cars=2)
    step = FERRY.step(HOME, log, event)
    assert (step.row, step.before, step.after) == (WHEN_OVER, HOME, HOME)
    assert (step.data, step.outputs) == (log, ())


@pytest.mark.parametrize("event", [Loaded(1), Sighted(), Turned(), ActivityFailed("x")])
def test_what_cannot_reach_a_final_state_is_a_defect_there(event: Event) -> None:
    with pytest.raises(IllegalEvent, match="in SUNK"):
        FERRY.step(SUNK, Log(), event)


def test_a_row_of_several_events_takes_each() -> None:
    assert FERRY.step(SAILING, Log(), Sighted()) == FERRY.step(SAILING, Log(), Passed())


def test_a_group_stands_for_its_states() -> None:
    assert [*UNDER_WAY] == [SAILING, TURNING]
    assert FERRY.group(TURNING) is UNDER_WAY
    assert FERRY.group(MOORED) is None
    assert FERRY.rows[1].sources == (SAILING, TURNING)


def test_a_row_that_yields_takes_what_is_left() -> None:
    lost: Row[State, Log, str] = row(
        "FRY-07", UNDER_WAY, (Called, Horn), SUNK, doc="Lost.", otherwise=True
    )
    ferry = build(
        **also("rows", lost), **also("ignores", ignore("FRY-95", MOORED, Horn, doc="Too late."))
    )
    for state_of in (SAILING, TURNING):
        assert ferry.step(state_of, Log(), Horn()).row == "FRY-07"
    assert ferry.step(SAILING, Log(), Called()).row == "FRY-04"
    assert ferry.step(TURNING, Log(), Called()).row == "FRY-90"
    assert ferry.claimed(ferry.rows[-1]) == ((SAILING, Horn), (TURNING, Horn))
    assert ferry.claimed(ferry.rows[1]) == FERRY.claimed(FERRY.rows[1])


def test_an_illegal_event_says_where_it_came() -> None:
    event = Turned()
    with pytest.raises(IllegalEvent, match=r"^ferry: Turned in HOME$") as caught:
        FERRY.step(HOME, Log(), event)
    assert (caught.value.machine, caught.value.state) == ("ferry", HOME)
    assert caught.value.event is event


def test_an_event_unknown_to_the_table_is_illegal() -> None:
    with pytest.raises(IllegalEvent, match="Horn in MOORED"):
        FERRY.step(MOORED, Log(), Horn())


def test_states_events_and_activities_come_in_the_order_of_the_declarations() -> None:
    assert FERRY.states == (MOORED, SAILING, TURNING, SUNK, HOME)
    assert FERRY.events == (Loaded, Sighted, Passed, Called, Turned, ActivityFailed)
    assert FERRY.activities == ("load", "steer")
    assert FERRY.activity(TURNING) == "steer"
    assert FERRY.activity(HOME) is None


def test_a_limit_is_read_from_the_data() -> None:
    assert FERRY.seconds(TURNING, Log(turn=9)) == 9
    assert FERRY.seconds(SAILING, Log()) == math.inf
    assert FERRY.seconds(HOME, Log()) == math.inf


def test_what_can_be_reached() -> None:
    assert FERRY.reachable([SAILING]) == {SAILING, TURNING, MOORED, SUNK, HOME}
    assert FERRY.reachable([SAILING], lambda on: on is Called) == {SAILING, TURNING}


def test_a_request_can_occur_everywhere() -> None:
    assert FERRY.can_occur(Called) == {*FERRY.states}


def test_a_limit_is_over_only_where_it_runs() -> None:
    assert FERRY.can_occur(Turned) == {TURNING}


def test_a_failed_activity_is_told_only_where_it_lives() -> None:
    assert FERRY.can_occur(ActivityFailed) == {MOORED, SAILING, TURNING}


def test_a_fact_can_occur_wherever_requests_and_limits_lead_from_its_activity() -> None:
    assert FERRY.can_occur(Loaded) == {MOORED, HOME}
    assert FERRY.can_occur(Sighted) == {SAILING, TURNING, MOORED, HOME}


def test_what_the_peer_does_is_a_fact_of_the_activity() -> None:
    ferry = build(**also("rows", row("FRY-07", MOORED, Flare, STAY, doc="Look.")))
    assert ferry.can_occur(Flare) == {MOORED, HOME}


def test_the_facts_of_a_machine_without_activities_occur_where_its_user_tells_them() -> None:
    definitions = tuple(replace(d, do=None) for d in PARTS["definitions"])
    assert build(definitions=definitions).can_occur(Sighted) == {MOORED, SAILING, TURNING}


def test_the_sample_has_no_dead_cell() -> None:
    assert dead_cells(FERRY) == []


def test_a_dead_cell_is_found() -> None:
    ferry = build(**also("ignores", ignore("FRY-95", MOORED, Turned, doc="Cannot be.")))
    assert dead_cells(ferry) == ["FRY-95: Turned in MOORED"]
