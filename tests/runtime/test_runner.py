from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, ClassVar

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from proxy.fsm import (
    ActivityFailed,
    Event,
    IllegalEvent,
    Machine,
    Source,
    Step,
    ignore,
    row,
    state,
)
from proxy.runtime.runner import Run, observing
from tests.support.sample import (
    FERRY,
    HOME,
    MOORED,
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
from tests.support.schedules import cancelled_at_every_step, in_every_order

pytestmark = pytest.mark.pure

Ferry = Run[State, Log, str]
Act = Callable[[Ferry], Awaitable[None]]


async def forever(_: Ferry) -> None:
    await trio.sleep_forever()


def ferry(
    load: Act = forever,
    steer: Act = forever,
    emit: Callable[[str], None] = lambda _: None,
    on_fault: Callable[[Exception], None] | None = None,
    log: Log | None = None,
) -> Ferry:
    acts = {"load": load, "steer": steer}
    return Run(FERRY, log or Log(), acts, emit, on_fault=on_fault)


async def sail(run: Ferry) -> None:
    run.tell(Loaded(3))
    await trio.sleep_forever()


class Diary:
    """Activities that write down when they begin and end, and take a second to clean up."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, float]] = []

    def write(self, line: str) -> None:
        self.lines.append((line, trio.current_time()))

    def keep(self, name: str, then: Act = forever) -> Act:
        async def act(run: Ferry) -> None:
            self.write(f"{name} begins")
            try:
                await then(run)
            finally:
                with trio.move_on_after(1, shield=True):
                    await trio.sleep_forever()
                self.write(f"{name} ends")

        return act


def test_the_activities_must_be_those_of_the_machine() -> None:
    with pytest.raises(
        ValueError, match=r"ferry: activities \['load'\] given, \['load', 'steer'\]"
    ):
        Run(FERRY, Log(), {"load": forever}, lambda _: None)


async def test_a_step_hands_its_outputs_on_and_keeps_its_data() -> None:
    said: list[str] = []
    run = ferry(emit=said.append)
    step = run.tell(Loaded(3))
    assert (run.state, run.data, said) == (SAILING, Log(cars=3), ["horn", "3 cars"])
    assert (step.row, step.before, step.after) == ("FRY-01", MOORED, SAILING)


async def test_a_block_goes_on_in_its_state_alone(autojump_clock: MockClock) -> None:
    run = ferry()
    with run.only_in(MOORED) as moored:
        await trio.sleep(1)
    with run.only_in(MOORED) as left:
        run.tell(Loaded(3))
        await trio.sleep(1)
    with run.only_in(MOORED) as never:
        await trio.sleep(1)
    with run.only_in(SAILING) as sailing:
        run.tell(Sighted())
        await trio.sleep(1)
    caught = [scope.cancelled_caught for scope in (moored, left, never, sailing)]
    assert caught == [False, True, True, False]


async def test_an_illegal_event_raises_and_nothing_moves() -> None:
    said: list[str] = []
    run = ferry(emit=said.append)
    with pytest.raises(IllegalEvent, match="ferry: Turned in MOORED"):
        run.tell(Turned())
    assert (run.state, run.data, said) == (MOORED, Log(), [])


async def test_observers_see_a_step_before_its_outputs_are_handed_on() -> None:
    seen: list[str] = []

    def observe(run: Run[Any, Any, Any], step: Step[Any, Any, Any]) -> None:
        seen.append(f"{run.machine.name} {step.row} {run.state.name}")

    with observing(observe):
        ferry(emit=seen.append).tell(Loaded(1))
    assert seen == ["ferry FRY-01 SAILING", "horn", "1 cars"]


def test_an_observer_of_one_run_sees_that_one_alone() -> None:
    seen: list[tuple[Ferry, str]] = []
    said: list[str] = []
    run, other = ferry(emit=said.append), ferry()
    run.tell(Loaded(1))
    run.observe(lambda run, step: seen.append((run, step.row)))
    run.observe(lambda _, step: said.append(step.row))
    other.tell(Loaded(1))
    run.tell(Sighted())
    assert seen == [(run, "FRY-02")]
    assert said == ["horn", "1 cars", "FRY-02"]


def test_a_run_is_observed_if_it_is_made_in_the_block() -> None:
    seen: list[tuple[str, str]] = []

    def note(name: str) -> AbstractContextManager[None]:
        return observing(lambda _, step: seen.append((name, step.row)))

    before = ferry()
    with note("outer"):
        outer = ferry()
        with note("inner"):
            inner = ferry()
            before.tell(Loaded(1))
            outer.tell(Loaded(1))
            inner.tell(Called())
        late = ferry()
    after = ferry()
    late.tell(Called())
    after.tell(Called())
    assert seen == [
        ("outer", "FRY-01"),
        ("outer", "FRY-03"),
        ("inner", "FRY-03"),
        ("outer", "FRY-03"),
    ]
    outer.tell(Sighted())  # to its end, beyond that of the block
    assert seen[4:] == [("outer", "FRY-02")]


def test_a_block_that_raises_observes_no_longer() -> None:
    seen: list[str] = []
    with pytest.raises(ZeroDivisionError), observing(lambda _, step: seen.append(step.row)):
        raise ZeroDivisionError
    ferry().tell(Called())
    assert seen == []


async def test_a_run_that_a_task_makes_is_observed_if_the_task_was_started_in_the_block() -> None:
    seen: list[str] = []
    may_make = trio.Event()

    async def make(event: Event) -> None:
        await may_make.wait()
        ferry().tell(event)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(make, Loaded(1))
        with observing(lambda _, step: seen.append(step.row)):
            nursery.start_soon(make, Called())
            may_make.set()
            await wait_all_tasks_blocked()
        nursery.start_soon(make, Loaded(1))
    assert seen == ["FRY-03"]


async def test_an_activity_lives_through_the_states_that_share_it_and_no_longer(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    run = ferry(diary.keep("load", sail), diary.keep("steer"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.run)
        await trio.sleep(10)
        run.tell(Called())
        assert run.state is TURNING
        await trio.sleep(10)
        assert run.state is SAILING
        nursery.cancel_scope.cancel()
    start = diary.lines[0][1]
    begun = [(line, round(time - start, 3)) for line, time in diary.lines][:5]
    assert begun == [
        ("load begins", 0),
        ("load ends", 1),
        ("steer begins", 1),
        ("steer ends", 16),  # called at 10, turned at 15, a second to clean up
        ("load begins", 16),
    ]


async def test_a_run_ends_with_its_machine(autojump_clock: MockClock) -> None:
    diary = Diary()
    run = ferry(diary.keep("load"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.run)
        await wait_all_tasks_blocked()
        run.tell(Called())
    assert run.over
    assert [line for line, _ in diary.lines] == ["load begins", "load ends"]


async def test_a_run_that_is_over_does_nothing() -> None:
    run = ferry()
    run.tell(Called())
    await run.run()
    assert run.state is HOME


async def test_a_limit_is_told_on_time_and_counts_from_when_the_state_began(
    autojump_clock: MockClock,
) -> None:
    run = ferry(log=Log(turn=7))
    run.tell(Loaded(1))
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.run)
        await trio.sleep(4)
        run.tell(Called())
        await trio.sleep(6.5)
        assert run.state is TURNING
        await run.until(MOORED)
        assert trio.current_time() - start == pytest.approx(11)
        nursery.cancel_scope.cancel()


async def test_an_event_that_stays_does_not_prolong_a_limit(autojump_clock: MockClock) -> None:
    run = ferry()
    run.tell(Loaded(1))
    run.tell(Called())
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.run)
        await trio.sleep(4)
        run.tell(Sighted())
        await run.until(MOORED)
        assert trio.current_time() - start == pytest.approx(5)
        nursery.cancel_scope.cancel()


async def test_waiting_for_a_state_costs_nothing_while_an_activity_cleans_up(
    autojump_clock: MockClock,
) -> None:
    diary = Diary()
    run = ferry(diary.keep("load", sail), diary.keep("steer"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.run)
        with trio.fail_after(60):  # a busy wait would keep the clock from jumping
            await run.until(TURNING, SAILING)
            run.tell(Called())
            await run.until(MOORED)
        nursery.cancel_scope.cancel()


async def test_a_fault_is_noted_and_becomes_an_event() -> None:
    faults: list[Exception] = []

    async def leak(_: Ferry) -> None:
        raise OSError("a plank")

    run = ferry(leak, on_fault=faults.append)
    await run.run()
    assert run.state is SUNK
    assert [str(fault) for fault in faults] == ["a plank"]


async def test_a_fault_needs_nobody_to_note_it() -> None:
    async def leak(_: Ferry) -> None:
        raise OSError("a plank")

    run = ferry(leak)
    await run.run()
    assert run.state is SUNK


async def test_the_event_names_the_kind_of_fault_and_not_its_text() -> None:
    told: list[Event] = []

    class Eavesdropper(Run[State, Log, str]):
        def tell(self, event: Event) -> Step[State, Log, str]:
            told.append(event)
            return super().tell(event)

    async def leak(_: Ferry) -> None:
        raise OSError("a plank")

    await Eavesdropper(FERRY, Log(), {"load": leak, "steer": forever}, lambda _: None).run()
    assert told == [ActivityFailed("OSError")]


async def test_an_illegal_event_of_an_activity_is_a_fault_of_that_run_alone() -> None:
    async def mistaken(run: Ferry) -> None:
        run.tell(Turned())

    run = ferry(mistaken)
    await run.run()
    assert run.state is SUNK


async def test_a_fault_in_the_clean_up_is_noted_and_undoes_nothing(
    autojump_clock: MockClock,
) -> None:
    faults: list[Exception] = []

    async def drop(run: Ferry) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("the anchor")

    run = ferry(drop, on_fault=faults.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.run)
        await wait_all_tasks_blocked()
        run.tell(Called())
    assert run.state is HOME
    assert [str(fault) for fault in faults] == ["the anchor"]


async def test_a_fault_beside_a_cancellation_is_noted_and_contained() -> None:
    faults: list[Exception] = []

    async def crew(run: Ferry) -> None:
        async def mate() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("the rope")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mate)
            nursery.start_soon(trio.sleep_forever)

    run = ferry(crew, on_fault=faults.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.run)
        await wait_all_tasks_blocked()
        run.tell(Called())
    assert run.state is HOME
    assert [str(fault) for fault in faults] == ["the rope"]


async def test_an_activity_that_ends_and_tells_nothing_is_a_fault() -> None:
    async def lazy(_: Ferry) -> None:
        await trio.lowlevel.checkpoint()

    run = ferry(lazy)
    await run.run()
    assert run.state is SUNK


async def test_an_activity_may_end_where_a_limit_moves_the_machine_on(
    autojump_clock: MockClock,
) -> None:
    async def turn(run: Ferry) -> None:
        await run.until(TURNING)

    run = ferry(steer=turn)
    run.tell(Loaded(1))
    run.tell(Called())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.run)
        await run.until(MOORED)
        nursery.cancel_scope.cancel()


class Lamp(Enum):
    """A lamp that can be lit again in the instant it goes out."""

    ON = "Lit."
    OFF = "Dark."
    GONE = "Thrown away."


class Burnt(Event, frozen=True):
    """The bulb is burnt."""


class OffWanted(Event, frozen=True):
    """Somebody wants it dark."""

    source: ClassVar[Source] = Source.USER


class OnWanted(Event, frozen=True):
    """Somebody wants it lit."""

    source: ClassVar[Source] = Source.USER


class Thrown(Event, frozen=True):
    """Somebody throws it away."""

    source: ClassVar[Source] = Source.USER


ON, OFF, GONE = Lamp
LAMP: Machine[Lamp, None, str] = Machine(
    name="lamp",
    purpose="A lamp.",
    initial=ON,
    final=frozenset({GONE}),
    definitions=(state(ON, do="glow", untimed="it lasts"), state(OFF, untimed="it lasts")),
    rows=(
        row("LMP-01", ON, Burnt, OFF, doc="Dark."),
        row("LMP-02", ON, OffWanted, OFF, doc="Dark."),
        row("LMP-03", OFF, OnWanted, ON, doc="Lit."),
        row("LMP-04", (ON, OFF), Thrown, GONE, doc="Over."),
        row("LMP-05", ON, ActivityFailed, OFF, doc="Dark."),
    ),
    ignores=(
        ignore("LMP-90", OFF, Burnt, doc="Burnt in the instant it was put out."),
        ignore("LMP-91", OFF, OffWanted, doc="Dark."),
        ignore("LMP-92", ON, OnWanted, doc="Lit."),
    ),
)


async def test_a_state_that_is_left_and_entered_again_restarts_its_activity() -> None:
    begun = 0

    async def glow(_: Run[Lamp, None, str]) -> None:
        nonlocal begun
        begun += 1
        await trio.sleep_forever()

    run = Run(LAMP, None, {"glow": glow}, lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.run)
        await wait_all_tasks_blocked()
        run.tell(OffWanted())
        run.tell(OnWanted())
        await wait_all_tasks_blocked()
        run.tell(Thrown())
    assert begun == 2


def test_an_activity_that_ends_in_the_instant_of_a_request_is_begun_again() -> None:
    async def scenario() -> int:
        begun = 0

        async def glow(run: Run[Lamp, None, str]) -> None:
            nonlocal begun
            begun += 1
            if begun == 1:
                await trio.sleep(1)
                run.tell(Burnt())
            else:
                await trio.sleep_forever()

        run = Run(LAMP, None, {"glow": glow}, lambda _: None)

        async def light() -> None:
            await trio.sleep(1)
            run.tell(OnWanted())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.run)
            nursery.start_soon(light)
            await trio.sleep(2)
            run.tell(Thrown())
        return begun

    # lit again, or asked too early and still dark; never a lit lamp in which nothing glows
    assert in_every_order(scenario).keys() == {1, 2}


def test_a_request_and_a_fact_of_the_same_instant_are_taken_in_either_order() -> None:
    async def scenario() -> str:
        async def load(run: Ferry) -> None:
            await trio.sleep(1)
            run.tell(Loaded(3))
            await trio.sleep_forever()

        run = ferry(load)

        async def call() -> None:
            await trio.sleep(1)
            run.tell(Called())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.run)
            nursery.start_soon(call)
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
        return run.state.name

    assert in_every_order(scenario).keys() == {"HOME", "TURNING"}


def test_a_limit_a_fact_and_a_request_of_the_same_instant_are_taken_in_any_order() -> None:
    async def scenario() -> tuple[str, int]:
        async def steer(run: Ferry) -> None:
            await trio.sleep(5)
            run.tell(Sighted())
            await trio.sleep_forever()

        run = ferry(steer=steer)
        run.tell(Loaded(3))
        run.tell(Called())

        async def call() -> None:
            await trio.sleep(5)
            run.tell(Called())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.run)
            nursery.start_soon(call)
            await trio.sleep(6)
            nursery.cancel_scope.cancel()
        return run.state.name, run.data.buoys

    results: Counter[tuple[str, int]] = in_every_order(scenario)
    assert {("HOME", 0), ("HOME", 1), ("MOORED", 0), ("MOORED", 1)} == results.keys()


def test_a_limit_that_is_over_in_the_instant_of_a_move_is_not_told() -> None:
    async def scenario() -> str:
        rows: list[str] = []
        run = ferry()
        run.observe(lambda _, step: rows.append(step.row))
        run.tell(Loaded(3))
        run.tell(Called())

        async def sink() -> None:
            await trio.sleep(5)
            if run.state is TURNING:
                run.tell(ActivityFailed("made by the test"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.run)
            nursery.start_soon(sink)
            await trio.sleep(6)
            nursery.cancel_scope.cancel()
        return rows[-1]

    assert in_every_order(scenario).keys() == {"FRY-05", "FRY-06"}


def test_a_cancelled_run_leaves_nothing_wherever_it_is_cancelled() -> None:
    diary = Diary()

    async def scenario() -> None:
        diary.lines.clear()
        run = ferry(diary.keep("load", sail), diary.keep("steer"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.run)
            await run.until(SAILING)
            await trio.sleep(3)
            run.tell(Called())
            await run.until(MOORED)
            run.tell(Called())

    def check() -> None:
        lines = [line for line, _ in diary.lines]
        assert lines[1::2] == [line.replace("begins", "ends") for line in lines[::2]]

    assert cancelled_at_every_step(scenario, check) > 10
