from __future__ import annotations

from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from proxy.fsm import Event, Step
from proxy.machines.delivery import Outcome
from proxy.machines.dispatch import (
    ACCEPTED,
    BACKING_OFF,
    CANCELLED,
    COMPLETED,
    DELIVERING,
    DISPATCH,
    DUPLICATE,
    FAILED,
    FETCHING,
    HELD,
    OPEN,
    OVER,
    QUEUED,
    REFETCHES,
    AllCancelled,
    AllDelivered,
    AlreadyKnown,
    CloseDispatch,
    ContentLost,
    DispatchData,
    DispatchOutput,
    DispatchState,
    FetchAdvanced,
    Fetched,
    FetchExhausted,
    FetchFailed,
    GiveUp,
    HandOver,
    HoldRequested,
    Recorded,
    RecordedWhilePaused,
    RefetchExhausted,
    ReportDownload,
    ResumeRequested,
    SomeFailed,
    TakeBack,
    TurnGranted,
    Withdraw,
)
from proxy.runtime.runner import Run
from proxy.work.fair_queue import FairQueue, Grant
from tests.machines.story import failed, names, now, told, untouched
from tests.machines.walk import Walk, walk
from tests.support.machine_suite import oracle_agrees, running, sweep_legal
from tests.support.schedules import cancelled_at_every_step, in_every_order

EVERYWHERE = names(
    "ACCEPTED QUEUED FETCHING BACKING_OFF DELIVERING HELD COMPLETED FAILED CANCELLED DUPLICATE"
)
# every delivery may end, by request, in the instant in which an activity has one more thing to say
ENDED = names("COMPLETED FAILED CANCELLED")
FETCH_SAYS = names("FETCHING HELD QUEUED") | ENDED  # held, or held and resumed, in that instant
LEGAL = {
    "Recorded": names("ACCEPTED") | ENDED,
    "RecordedWhilePaused": names("ACCEPTED") | ENDED,
    "AlreadyKnown": names("ACCEPTED") | ENDED,
    "TurnGranted": names("QUEUED HELD") | ENDED,
    "FetchAdvanced": FETCH_SAYS,
    "Fetched": FETCH_SAYS,
    "FetchFailed": FETCH_SAYS,
    "FetchExhausted": FETCH_SAYS,
    "RefetchExhausted": FETCH_SAYS,
    "RetryDue": names("BACKING_OFF"),
    "ActivityFailed": names("ACCEPTED QUEUED FETCHING"),
    # the supervisor speaks when it likes
    "HoldRequested": EVERYWHERE,
    "ResumeRequested": EVERYWHERE,
    "ContentLost": EVERYWHERE,
    "AllDelivered": EVERYWHERE,
    "SomeFailed": EVERYWHERE,
    "AllCancelled": EVERYWHERE,
}
NEW = DispatchData()
hold = HoldRequested("paused by ITH")


CLOSED = (COMPLETED, FAILED, CANCELLED)


def over(outcome: Outcome, work: DispatchData) -> list[DispatchOutput]:
    return [CloseDispatch(outcome, work)]


def test_what_may_come_when() -> None:
    sweep_legal(DISPATCH, LEGAL, NEW)


def test_a_foreign_interpreter_agrees() -> None:
    assert oracle_agrees(DISPATCH, NEW) == 10 * 17


async def test_fetched_and_delivered(autojump_clock: MockClock) -> None:
    async with running(DISPATCH, NEW, ACCEPTED) as bench:
        assert told(bench, Recorded()) == (QUEUED, NEW, [])
        assert told(bench, TurnGranted()) == (FETCHING, NEW, [ReportDownload(0)])
        half = DispatchData(percent=50)
        assert told(bench, FetchAdvanced(50)) == (FETCHING, half, [ReportDownload(50)])
        whole = DispatchData(percent=100, files_total=9)
        assert told(bench, Fetched(9)) == (DELIVERING, whole, [ReportDownload(100), HandOver(9)])
        await trio.sleep(80_000)
        assert told(bench, AllDelivered()) == (COMPLETED, whole, over(Outcome.COMPLETED, whole))


async def test_a_download_is_tried_again(autojump_clock: MockClock) -> None:
    async with running(DISPATCH, NEW, FETCHING) as bench:
        bench.run.tell(FetchAdvanced(40))
        waiting = DispatchData(attempts=1, retry_in=8, percent=40, error="timeout")
        assert told(bench, FetchFailed("timeout", 8)) == (BACKING_OFF, waiting, [])
        await trio.sleep(7)
        assert bench.run.state is BACKING_OFF
        await trio.sleep(2)
        assert now(bench) == (QUEUED, waiting, [])
        again = replace(waiting, percent=0)
        assert told(bench, TurnGranted()) == (FETCHING, again, [ReportDownload(0)])
        whole = replace(waiting, percent=100, files_total=9, error=None)
        assert told(bench, Fetched(9)) == (DELIVERING, whole, [ReportDownload(100), HandOver(9)])


async def test_what_cannot_be_fetched_ends_every_delivery(autojump_clock: MockClock) -> None:
    async with running(DISPATCH, NEW, FETCHING) as bench:
        work = DispatchData(error="not found")
        outputs = [GiveUp("not found"), *over(Outcome.FAILED, work)]
        assert told(bench, FetchExhausted("not found")) == (FAILED, work, outputs)
        assert untouched(bench, SomeFailed("1 of 1 nodes lack instances"))


async def test_what_this_host_lost_is_fetched_again(autojump_clock: MockClock) -> None:
    async with running(DISPATCH, NEW, DELIVERING) as bench:
        kept = bench.run.data
        lost = replace(kept, refetches=1, error="damaged")
        assert told(bench, ContentLost("damaged")) == (QUEUED, lost, [TakeBack()])
        assert untouched(bench, ContentLost("gone"))
        again = replace(lost, percent=0)
        assert told(bench, TurnGranted()) == (FETCHING, again, [ReportDownload(0)])
        assert untouched(bench, ContentLost("gone"))
        whole = replace(again, percent=100, files_total=9, error=None)
        assert told(bench, Fetched(9)) == (DELIVERING, whole, [ReportDownload(100), HandOver(9)])
        twice = replace(whole, refetches=2, error="gone")
        assert told(bench, ContentLost("gone")) == (QUEUED, twice, [TakeBack()])


async def test_the_attempts_of_a_repeated_download_are_counted_from_zero(
    autojump_clock: MockClock,
) -> None:
    async with running(DISPATCH, DispatchData(attempts=3), DELIVERING) as bench:
        bench.run.tell(ContentLost("damaged"))
        assert bench.run.data.attempts == 0


async def test_what_cannot_be_had_again_keeps_nobody_from_the_rest(
    autojump_clock: MockClock,
) -> None:
    async with running(DISPATCH, NEW, FETCHING) as bench:
        rest = DispatchData(refetches=REFETCHES, error="not found")
        assert told(bench, RefetchExhausted("not found")) == (DELIVERING, rest, [HandOver(0)])


@pytest.mark.parametrize("state", [ACCEPTED, QUEUED, FETCHING, BACKING_OFF, HELD, *OVER])
async def test_what_is_lost_while_it_is_not_delivered_changes_nothing(
    state: DispatchState, autojump_clock: MockClock
) -> None:
    async with running(DISPATCH, NEW, state) as bench:
        assert untouched(bench, ContentLost("gone"))


async def test_the_same_order_again_is_withdrawn(autojump_clock: MockClock) -> None:
    async with running(DISPATCH, NEW, ACCEPTED) as bench:
        assert told(bench, AlreadyKnown()) == (DUPLICATE, NEW, [Withdraw()])


async def test_an_order_that_comes_in_a_pause_is_kept(autojump_clock: MockClock) -> None:
    async with running(DISPATCH, NEW, ACCEPTED) as bench:
        assert untouched(bench, hold)
        assert told(bench, RecordedWhilePaused()) == (HELD, NEW, [])
        await trio.sleep(80_000)
        assert untouched(bench, hold)
        assert told(bench, ResumeRequested()) == (QUEUED, NEW, [])


@pytest.mark.parametrize("state", [QUEUED, FETCHING, BACKING_OFF])
async def test_a_pause_ends_a_download(state: DispatchState, autojump_clock: MockClock) -> None:
    async with running(DISPATCH, NEW, state) as bench:
        kept = bench.run.data
        assert told(bench, hold) == (HELD, kept, [])
        assert told(bench, ResumeRequested()) == (QUEUED, kept, [])


async def test_a_pause_leaves_the_deliveries_to_themselves(autojump_clock: MockClock) -> None:
    async with running(DISPATCH, NEW, DELIVERING) as bench:
        assert untouched(bench, hold)
        assert untouched(bench, ResumeRequested())


@pytest.mark.parametrize("state", [ACCEPTED, QUEUED, FETCHING, BACKING_OFF])
async def test_what_is_not_held_is_not_resumed(
    state: DispatchState, autojump_clock: MockClock
) -> None:
    async with running(DISPATCH, NEW, state) as bench:
        assert untouched(bench, ResumeRequested())


@pytest.mark.parametrize("state", OPEN)
async def test_it_ends_with_its_last_delivery(
    state: DispatchState, autojump_clock: MockClock
) -> None:
    for event, end, outcome in (
        (AllDelivered(), COMPLETED, Outcome.COMPLETED),
        (SomeFailed("1 of 2"), FAILED, Outcome.FAILED),
        (AllCancelled("deleted"), CANCELLED, Outcome.CANCELLED),
    ):
        async with running(DISPATCH, NEW, state) as bench:
            error = getattr(event, "error", bench.run.data.error)
            work = replace(bench.run.data, error=error)
            assert told(bench, event) == (end, work, over(outcome, work))


@pytest.mark.parametrize("state", [ACCEPTED, QUEUED, FETCHING])
async def test_a_defect_ends_one_dispatch(state: DispatchState, autojump_clock: MockClock) -> None:
    async with running(DISPATCH, NEW, state) as bench:
        error = "internal error: RuntimeError"
        work = DispatchData(error=error)
        assert await failed(bench) == (FAILED, work, [GiveUp(error), *over(Outcome.FAILED, work)])


@pytest.mark.parametrize("state", CLOSED)
async def test_recorded_in_the_instant_it_ended(
    state: DispatchState, autojump_clock: MockClock
) -> None:
    async with running(DISPATCH, NEW, state) as bench:
        assert untouched(bench, Recorded())
        assert untouched(bench, RecordedWhilePaused())
        assert untouched(bench, AlreadyKnown())


@pytest.mark.parametrize("state", [HELD, *CLOSED])
async def test_a_turn_that_comes_too_late_is_not_used(
    state: DispatchState, autojump_clock: MockClock
) -> None:
    async with running(DISPATCH, NEW, state) as bench:
        assert untouched(bench, TurnGranted())


@pytest.mark.parametrize("state", [QUEUED, HELD, *CLOSED])
async def test_a_download_that_was_stopped_has_no_say(
    state: DispatchState, autojump_clock: MockClock
) -> None:
    async with running(DISPATCH, NEW, state) as bench:
        assert untouched(bench, FetchAdvanced(70))
        assert untouched(bench, Fetched(9))
        assert untouched(bench, FetchFailed("reset", 1))
        assert untouched(bench, FetchExhausted("not found"))
        assert untouched(bench, RefetchExhausted("not found"))


@pytest.mark.parametrize("state", OVER)
@pytest.mark.parametrize(
    "event", [hold, ResumeRequested(), AllDelivered(), SomeFailed("late"), AllCancelled("late")]
)
async def test_over_is_over(event: Event, state: DispatchState, autojump_clock: MockClock) -> None:
    async with running(DISPATCH, NEW, state) as bench:
        assert untouched(bench, event)


class DispatchWalk(Walk):
    machine = DISPATCH
    start = NEW

    def exact(self, event: Event) -> Event | None:
        """Nothing is said of what is lost once more after the last fetch: its delivery fails."""
        lost_again = isinstance(event, ContentLost) and self.data.refetches >= REFETCHES
        return None if lost_again else event

    def check(self, event: Event, step: Step[Any, Any, Any]) -> None:
        assert isinstance(event, ContentLost) or step.data.attempts >= self.data.attempts
        assert step.data.refetches >= self.data.refetches
        if step.after is DELIVERING and self.state is not DELIVERING:
            assert isinstance(event, Fetched | RefetchExhausted)
            assert step.outputs[-1] == HandOver(step.data.files_total)
        if self.state is DELIVERING and step.after not in {DELIVERING, *OVER}:
            assert step.outputs == (TakeBack(),)
        if step.after is COMPLETED:
            assert self.state is COMPLETED or isinstance(event, AllDelivered)
        if step.after is HELD and isinstance(event, HoldRequested):
            assert step.data == self.data

    def look(self) -> None:
        ends = [output for output in self.outputs if isinstance(output, CloseDispatch)]
        withdrawn = [output for output in self.outputs if isinstance(output, Withdraw)]
        assert len(ends) == (self.state in CLOSED)
        assert len(withdrawn) == (self.state is DUPLICATE)
        if ends:
            assert self.outputs[-1] is ends[0]
            assert ends[0].outcome.name == self.state.name
            assert ends[0].work == self.data
        turns = [o for o in self.outputs if isinstance(o, HandOver | TakeBack)]
        assert all(isinstance(each, HandOver) for each in turns[::2])
        assert all(isinstance(each, TakeBack) for each in turns[1::2])
        gave_up = any(isinstance(output, GiveUp) for output in self.outputs)
        assert not gave_up or self.state is FAILED


def test_it_is_closed_exactly_once_and_that_is_the_last_word() -> None:
    walk(DispatchWalk)


class Fetcher:
    """Activities that take a second for each thing they do, and one download at a time."""

    def __init__(self, slots: FairQueue, fetches: list[Event] | None = None) -> None:
        self.queue = slots
        self.turn: Grant | None = None
        self.fetches = fetches or [Fetched(9)]
        self.downloads = 0
        self.outputs: list[DispatchOutput] = []
        activities = {"record": self.record, "wait_for_turn": self.wait, "fetch": self.fetch}
        self.run = Run(DISPATCH, NEW, activities, self.outputs.append)

    def give_back(self) -> None:
        if self.turn:
            self.turn.release()
            self.turn = None

    async def record(self, run: Run[DispatchState, DispatchData, DispatchOutput]) -> None:
        await trio.sleep(1)
        run.tell(Recorded())

    async def wait(self, run: Run[DispatchState, DispatchData, DispatchOutput]) -> None:
        self.give_back()  # granted in the instant of a pause, and never used
        await trio.sleep(1)
        self.turn = await self.queue.acquire(0)
        run.tell(TurnGranted())
        if run.state is not FETCHING:
            self.give_back()

    async def fetch(self, run: Run[DispatchState, DispatchData, DispatchOutput]) -> None:
        self.downloads += 1
        try:
            for percent in (30, 60):
                await trio.sleep(1)
                run.tell(FetchAdvanced(percent))
            await trio.sleep(1)
            run.tell(self.fetches.pop(0))
        finally:
            self.downloads -= 1
            self.give_back()

    async def live(self, *requests: tuple[float, Event], deliver: float = 5) -> None:
        async def ask(at: float, event: Event) -> None:
            await trio.sleep(at)
            self.run.tell(event)

        async def deliveries() -> None:
            await self.run.until(DELIVERING, *OVER)
            await trio.sleep(deliver)
            self.run.tell(AllDelivered())

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.run.run)
                nursery.start_soon(deliveries)
                for at, event in requests:
                    nursery.start_soon(ask, at, event)
        finally:
            self.give_back()


async def test_a_download_that_fails_twice_and_is_paused_once(autojump_clock: MockClock) -> None:
    slots = FairQueue(1)
    fetches: list[Event] = [FetchFailed("reset", 10), FetchFailed("reset", 20), Fetched(9)]
    at = Fetcher(slots, fetches)
    await at.live((7, hold), (17, ResumeRequested()))
    assert at.run.state is COMPLETED
    tries = [ReportDownload(0), ReportDownload(30), ReportDownload(60)]
    ends = [ReportDownload(100), HandOver(9), CloseDispatch(Outcome.COMPLETED, at.run.data)]
    assert at.outputs == [*tries, *tries, *tries, *ends]
    assert at.run.data == DispatchData(attempts=2, retry_in=20, percent=100, files_total=9)
    assert (slots.in_use, at.downloads) == (0, 0)


@pytest.mark.parametrize("instant", [1, 2, 3, 4, 5])
def test_a_pause_in_the_instant_something_is_said(instant: float) -> None:
    async def scenario() -> tuple[DispatchState, int, int]:
        at = Fetcher(FairQueue(1), [Fetched(9), Fetched(9)])
        with trio.fail_after(100):
            await at.live((instant, hold), (instant, ResumeRequested()), (50, ResumeRequested()))
        ends = [output for output in at.outputs if isinstance(output, CloseDispatch)]
        return at.run.state, len(ends), at.queue.in_use + at.downloads

    assert in_every_order(scenario).keys() == {(COMPLETED, 1, 0)}


@pytest.mark.parametrize("event", [hold, AllCancelled("deleted")])
def test_a_download_may_be_stopped_before_it_began(event: Event) -> None:
    async def scenario() -> tuple[DispatchState, int]:
        at = Fetcher(FairQueue(1))

        async def stop() -> None:
            await at.run.until(FETCHING)
            at.run.tell(event)

        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(at.live, (50, ResumeRequested()))
                nursery.start_soon(stop)
        return at.run.state, at.queue.in_use + at.downloads

    assert in_every_order(scenario).keys() == {(COMPLETED if event is hold else CANCELLED, 0)}


@pytest.mark.parametrize("instant", [1, 2, 3, 4, 5, 10])
def test_an_end_in_the_instant_something_is_said(instant: float) -> None:
    async def scenario() -> tuple[int, int]:
        at = Fetcher(FairQueue(1))
        with trio.fail_after(100):
            await at.live((instant, AllCancelled("deleted")), (instant, hold))
        assert at.run.state in {CANCELLED, COMPLETED}
        assert isinstance(at.outputs[-1], CloseDispatch)
        ends = [output for output in at.outputs if isinstance(output, CloseDispatch)]
        return len(ends), at.queue.in_use + at.downloads

    assert in_every_order(scenario).keys() == {(1, 0)}


def test_wherever_it_is_cancelled_every_turn_is_given_back() -> None:
    slots = FairQueue(1)
    world: list[Fetcher] = []

    async def scenario() -> None:
        world[:] = [Fetcher(slots, [FetchFailed("reset", 10), Fetched(9)]), Fetcher(slots)]
        async with trio.open_nursery() as nursery:
            for each in world:
                nursery.start_soon(each.live, (6, hold), (9, ResumeRequested()))

    def check() -> None:
        assert (slots.in_use, slots.waiting) == (0, 0)
        for each in world:
            assert each.downloads == 0
            ends = [output for output in each.outputs if isinstance(output, CloseDispatch)]
            assert len(ends) == each.run.over
            assert ends == each.outputs[-1:] or not ends

    assert cancelled_at_every_step(scenario, check) > 40
    assert [each.run.state for each in world] == [COMPLETED, COMPLETED]
