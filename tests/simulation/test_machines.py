"""The machines and the policy of a small site, driven by lists of moves.

No trio, no socket, no disk: see ``proxy.simulation.machines``. A failure is a list of a few moves;
``told`` tells its story.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, find, given, note, settings
from hypothesis import strategies as st

from proxy.fsm import Event, Ignore, IllegalEvent, Machine, Row
from proxy.machines import connection, delivery, dispatch, node, operation, policy
from proxy.machines.delivery import DELIVERY, DeliveryProgress, Outcome, Purpose
from proxy.machines.dispatch import DISPATCH
from proxy.simulation.machines.__main__ import main
from proxy.simulation.machines.moves import Move, all_moves, found, play, shrunk, told
from proxy.simulation.machines.rules import LARGE, Limits, Rules, charts
from proxy.simulation.machines.tasks import Broken, Chart
from proxy.simulation.machines.walk import walk
from proxy.work.scheduler import Job, Scheduler
from tests.support.machine_suite import example, example_data

pytestmark = pytest.mark.pure

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output
Action: TypeAlias = Callable[[Any, Any], tuple[Any, tuple[Any, ...]]]

changed = msgspec.structs.replace

UNTOLD = {
    "CON-87": "the link's activity tells an orderly close in CLOSING alone, and never leaves that",
    "DLV-95": "policy.last_word turns them into the stop before they are told",
    "NOD-96": "a delivery that is given its turn tells of a trial where the node is given up alone",
    "OPS-92": "the second signal is told as StopRequested",
    "OPS-93": "it is waited for after the first signal alone",
}
"""Entries of the tables that the program never takes, and why: whoever may tell it does not."""

MOVES = all_moves(Limits())
assert len(MOVES) < 256
CODES = (None, *MOVES, *(move for move in MOVES if move.kind in {"answer", "time"}), *MOVES)[:256]
"""One move for each byte, but 0, which is none: so a list shrinks by becoming zeros."""

QUICK = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)


def moves_of(codes: bytes) -> list[Move]:
    return [move for code in codes if (move := CODES[code]) is not None]


lists_of_moves = st.binary(min_size=50, max_size=50).map(moves_of)


# The program's own tables and policy -------------------------------------------------------------


@settings(QUICK, max_examples=200)
@given(lists_of_moves)
def test_whatever_comes_nothing_breaks_and_everything_ends(moves: list[Move]) -> None:
    rules = Rules()
    if found(rules, moves):
        note("\n".join(told(rules, moves)))
    play(rules, moves)


def test_fast_walks_take_every_row_and_find_nothing() -> None:
    small, large = Rules(), Rules(limits=LARGE)
    left = {each.id for chart in charts(small) for each in chart.machine.entries}
    for seed in range(1, 60):
        for rules in (small, large):
            walked = walk(rules, seed, 10_000)
            assert walked.error is None, "\n".join(told(rules, shrunk(rules, walked.moves)))
            left -= {each for chart in charts(rules) for each in +chart.taken}
        if left == UNTOLD.keys():
            break
    assert left == UNTOLD.keys()


def test_the_same_seed_gives_the_same_walk() -> None:
    one, again, other = (Rules() for _ in range(3))
    for rules, seed in ((one, 3), (again, 3), (other, 4)):
        walk(rules, seed, 5_000)
    assert [each.taken for each in charts(one)] == [each.taken for each in charts(again)]
    assert [each.taken for each in charts(one)] != [each.taken for each in charts(other)]


@pytest.mark.parametrize("chart", charts(Rules()), ids=lambda chart: chart.machine.name)
def test_a_chart_does_what_its_machine_does(chart: Chart[Any, Any, Any]) -> None:
    machine, data = chart.machine, example_data(chart.machine)
    for state, place in chart.places.items():
        for event in map(example, machine.events):
            cell = place.cells.get(type(event))
            try:
                step = machine.step(state, data, event)
            except IllegalEvent:
                assert cell is None
                continue
            assert cell is not None
            assert (cell.id, cell.place.state) == (step.row, step.after)
            outcome = cell.action(data, event) if cell.action else (data, ())
            assert outcome == (step.data, step.outputs)


def test_the_command_prints_how_fast_and_what_was_taken() -> None:
    result = CliRunner().invoke(main, ["--steps", "3000", "--seed", "2"])
    assert result.exit_code == 0
    assert result.output.count("steps a second") == 2
    assert [line.split()[0] for line in result.output.splitlines()[2:]] == [
        chart.machine.name for chart in charts(Rules())
    ]


# Planted defects ---------------------------------------------------------------------------------


def acting(machine: Machine[S, D, O], id: str, action: Action | None) -> Chart[S, D, O]:
    """Return the machine with another action in one of its rows."""
    rows = tuple(replace(row, action=action) if row.id == id else row for row in machine.rows)
    assert rows != machine.rows
    return Chart(replace(machine, rows=rows))


def losing(machine: Machine[S, D, O], id: str) -> Chart[S, D, O]:
    """Return the machine with the cells of one of its rows doing nothing."""
    chart = Chart(machine)
    nothing: Ignore[S] = Ignore("PLANTED", (), (), "planted")
    for state, event in machine.claimed(row_of(machine, id)):
        chart.put(state, event, nothing)
    return chart


def spreading(
    machine: Machine[S, D, O], states: tuple[S, ...], rows: dict[type[Event], str]
) -> Chart[S, D, O]:
    """Return the machine with rows that are taken in more states, by their events."""
    chart = Chart(machine)
    for event, row in rows.items():
        for state in states:
            chart.put(state, event, row_of(machine, row))
    return chart


def row_of(machine: Machine[S, D, O], id: str) -> Row[S, D, O]:
    return next(row for row in machine.rows if row.id == id)


def told_twice(action: Action) -> Action:
    def act(data: Any, event: Any) -> tuple[Any, tuple[Any, ...]]:
        data, outputs = action(data, event)
        return data, (*outputs, *outputs)

    return act


def told_to_nobody(action: Action) -> Action:
    return lambda data, event: (action(data, event)[0], ())


def uncounted(progress: DeliveryProgress, event: delivery.AttemptFailed) -> Any:
    kept, _ = delivery.keep_attempt(progress, event)
    kept = changed(kept, attempts=progress.attempts)
    return kept, (delivery.SaveAttempt(kept),)


class Leaky(Scheduler):
    """A scheduler that keeps the place of who leaves."""

    def leave(self, job: Job) -> None:
        if job in self.waiting:
            self.waiting.remove(job)


def one_more(decide: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Let a policy take a limit for one more than it is."""
    return lambda *facts, **named: decide(*facts, **{**named, name: named[name] + 1})


PLANTED: Final[dict[str, Callable[[], Rules]]] = {
    "an attempt is not counted": lambda: Rules(delivery=acting(DELIVERY, "DLV-07", uncounted)),
    "one attempt too many": lambda: Rules(
        after_attempt=one_more(policy.after_attempt, "retry_count")
    ),
    "a retry wins over a stop": lambda: Rules(
        last_word=lambda _, ending: ending,
        delivery=spreading(
            DELIVERY,
            delivery.ENDING,
            {delivery.AttemptFailed: "DLV-07", delivery.AttemptsExhausted: "DLV-08"},
        ),
    ),
    "an outcome is told twice": lambda: Rules(
        delivery=acting(DELIVERY, "DLV-05", told_twice(delivery.report_completed))
    ),
    "a hold is ignored while it stores": lambda: Rules(delivery=losing(DELIVERY, "DLV-11")),
    "a turn that comes with a hold is taken": lambda: Rules(
        delivery=spreading(DELIVERY, (delivery.HELD,), {delivery.TurnGranted: "DLV-02"})
    ),
    "a resume is lost": lambda: Rules(delivery=losing(DELIVERY, "DLV-13")),
    "a resume in a stop is lost": lambda: Rules(delivery=losing(DELIVERY, "DLV-14")),
    "a restart weakens a hold": lambda: Rules(
        delivery=acting(
            DELIVERY,
            "DLV-18",
            lambda progress, _: (changed(progress, stop=Purpose.RESTART), ()),
        )
    ),
    "a resume weakens a cancel": lambda: Rules(
        resume=lambda state, progress: delivery.ResumeRequested()
    ),
    "what is refused counts as stored": lambda: Rules(
        settled=lambda progress: (
            delivery.AllStored() if progress.files_total else policy.settled(progress)
        )
    ),
    "lost content is fetched again for ever": lambda: Rules(
        content_lost=lambda state, work, error: (
            None if state in dispatch.OVER else dispatch.ContentLost(error)
        )
    ),
    "no delivery hears that there is no content": lambda: Rules(
        dispatch=acting(
            DISPATCH,
            "DSP-08",
            lambda work, _: (work, (dispatch.CloseDispatch(Outcome.FAILED, work),)),
        )
    ),
    "no delivery hears that the content is there": lambda: Rules(
        dispatch=acting(DISPATCH, "DSP-06", told_to_nobody(dispatch.hand_over))
    ),
    "one completed delivery completes a dispatch": lambda: Rules(
        dispatch_over=lambda endings: (
            dispatch.AllDelivered()
            if Outcome.COMPLETED in {outcome for outcome, _ in endings.values()}
            else policy.dispatch_over(endings)
        )
    ),
    "a node that is back wakes nobody": lambda: Rules(
        node=acting(node.NODE, "NOD-20", node.forget_failures)
    ),
    "a trial is not noted": lambda: Rules(node=acting(node.NODE, "NOD-19", None)),
    "the breaker bears one failure more": lambda: Rules(
        node_failed=one_more(policy.node_failed, "threshold")
    ),
    "one lock given back ends the pause of both": lambda: Rules(
        release=lambda _, lock: operation.LastLockReleased(lock)
    ),
    "a pause holds nothing": lambda: Rules(
        operation=acting(operation.OPERATION, "OPS-01", operation.keep_lock)
    ),
    "the loss of the link is not announced": lambda: Rules(
        connection=acting(connection.CONNECTION, "CON-06", connection.keep_error)
    ),
    "the back-off of the link starts over too early": lambda: Rules(
        connection=acting(
            connection.CONNECTION,
            "CON-03",
            lambda link, event: connection.come_online(changed(link, attempts=0), event),
        )
    ),
    "a place is not given back": lambda: Rules(scheduler=Leaky),
}


SELDOM = {"a resume weakens a cancel"}
"""Defects that a walk of half a million steps may not find."""


@pytest.mark.parametrize("defect", [defect for defect in PLANTED if defect not in SELDOM])
def test_a_walk_finds_a_planted_defect(defect: str) -> None:
    rules = PLANTED[defect]()
    walks = (walk(rules, seed, 50_000) for seed in range(1, 11))
    failed = next((walked for walked in walks if walked.error), None)
    assert failed is not None
    moves = shrunk(rules, failed.moves)
    assert len(moves) <= 20, moves
    with pytest.raises((Broken, IllegalEvent)):
        play(rules, moves)
    play(Rules(), moves)


@pytest.mark.parametrize(
    "defect",
    [
        "an attempt is not counted",
        "an outcome is told twice",
        "a hold is ignored while it stores",
        "a resume is lost",
        "a resume in a stop is lost",
        "a resume weakens a cancel",
        "what is refused counts as stored",
        "no delivery hears that there is no content",
        "no delivery hears that the content is there",
        "one completed delivery completes a dispatch",
        "the breaker bears one failure more",
        "one lock given back ends the pause of both",
        "a pause holds nothing",
        "the loss of the link is not announced",
        "a place is not given back",
    ],
)
def test_a_planted_defect_shrinks_to_a_few_moves(defect: str) -> None:
    rules = PLANTED[defect]()
    wanted = settings(QUICK, max_examples=400)
    moves = find(lists_of_moves, lambda moves: found(rules, moves) is not None, settings=wanted)
    assert len(moves) <= 8, "\n".join(told(rules, moves))
