from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from proxy.fsm import (
    ActivityFailed,
    Event,
    IllegalEvent,
    Machine,
    Source,
    ignore,
    limit,
    row,
    stay,
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
    Called,
    Loaded,
    Log,
    Sighted,
    State,
    Turned,
)

LEGAL = {
    "Loaded": {"MOORED", "HOME"},
    "Sighted": {"MOORED", "SAILING", "TURNING", "HOME"},
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


def stays(*changed: Any) -> dict[str, Any]:
    states = [s.state for s in changed]
    return {"stays": (*(s for s in PARTS["stays"] if s.state not in states), *changed)}


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
        {**without("ignores", "FRY-91"), **also("rows", row("FRY-07", HOME, Called, SUNK, doc=""))},
        "FRY-07 leaves a final state",
    ),
    (
        {**without("rows", "FRY-03", "FRY-06"), "final": frozenset({HOME})},
        "SAILING can never finish",
    ),
    (
        also("rows", row("FRY-01", SAILING, Horn, None, doc="Again.")),
        "id FRY-01 is used twice",
    ),
    (stays(stay(HOME, unlimited="it is over")), "HOME needs one stay, or none if it is final"),
    ({"stays": PARTS["stays"][1:]}, "MOORED needs one stay, or none if it is final"),
    (
        also("stays", stay(MOORED, does="load", unlimited="twice")),
        "MOORED needs one stay, or none if it is final",
    ),
    (
        stays(stay(SAILING, does="steer")),
        "SAILING needs a limit or the reason why it has none",
    ),
    (
        stays(
            stay(
                TURNING, does="steer", unlimited="why", limit=limit(lambda log: 1.0, Turned, "1 s")
            )
        ),
        "TURNING needs a limit or the reason why it has none",
    ),
    (
        stays(stay(TURNING, does="steer", limit=limit(lambda log: 1.0, Sighted, "1 s"))),
        "Sighted is told by a limit: its source must be TIMER",
    ),
    (without("ignores", "FRY-91"), "Called can occur in SUNK and has no cell there"),
    (without("ignores", "FRY-92"), "Loaded can occur in HOME and has no cell there"),
    (without("rows", "FRY-05"), "Turned can occur in TURNING and has no cell there"),
    (
        {"rows": tuple(r for r in PARTS["rows"] if r.on is not ActivityFailed)},
        "ActivityFailed can occur in MOORED and has no cell there",
    ),
    (
        {
            **without("rows", "FRY-06"),
            **also("ignores", ignore("FRY-94", MOORED, ActivityFailed, doc="Never mind.")),
        },
        "FRY-94 stays with an activity that failed",
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
        build(**without("ignores", "FRY-91", "FRY-92", "FRY-93"))


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
    step = FERRY.step(SUNK, log, Called())
    assert (step.row, step.before, step.after) == ("FRY-91", SUNK, SUNK)
    assert (step.data, step.outputs) == (log, ())


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
    assert FERRY.events == (Loaded, Sighted, Called, Turned, ActivityFailed)
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
    ferry = build(
        **also("rows", row("FRY-07", MOORED, Flare, None, doc="Look."))
        | also("ignores", ignore("FRY-94", HOME, Flare, doc="Too late."))
    )
    assert ferry.can_occur(Flare) == {MOORED, HOME}


def test_the_facts_of_a_machine_without_activities_occur_where_its_user_tells_them() -> None:
    stays = tuple(replace(s, does=None) for s in PARTS["stays"])
    assert build(stays=stays).can_occur(Sighted) == {MOORED, SAILING, TURNING, HOME}


def test_the_sample_has_no_dead_cell() -> None:
    assert dead_cells(FERRY) == []


def test_a_dead_cell_is_found() -> None:
    ferry = build(**also("ignores", ignore("FRY-94", SUNK, Turned, doc="Cannot be.")))
    assert dead_cells(ferry) == ["FRY-94: Turned in SUNK"]
