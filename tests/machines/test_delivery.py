from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from proxy.fsm import Event, Step
from proxy.machines import policy
from proxy.machines.delivery import (
    ABORTING,
    BACKING_OFF,
    CANCELLED,
    COMPLETED,
    DELIVERY,
    ENDING,
    FAILED,
    HELD,
    IDLE,
    OVER,
    STOPPING,
    STORING,
    WAITING,
    WIRED,
    AllStored,
    AttemptFailed,
    AttemptsExhausted,
    BackOffKept,
    CancelRequested,
    CloseDelivery,
    ContentLost,
    ContentReady,
    DeliveryOutput,
    DeliveryProgress,
    DeliveryState,
    Followed,
    GiveUpRequested,
    HoldRequested,
    InstanceFound,
    InstanceRefused,
    InstanceStored,
    NodeCrowded,
    NodeMoved,
    Outcome,
    Purpose,
    RefusalReason,
    ReportProgress,
    RestartRequested,
    ResumeRequested,
    SaveAttempt,
    SomeRefused,
    StoppedToCancel,
    StoppedToGoOn,
    StoppedToHold,
    TurnGranted,
    TurnYielded,
)
from proxy.runtime.runner import Run
from tests.machines.story import failed, names, now, told, untouched
from tests.machines.walk import Walk, walk
from tests.support.machine_suite import oracle_agrees, running, sweep_legal
from tests.support.schedules import cancelled_at_every_step, in_every_order

EVERYWHERE = names("WAITING STORING BACKING_OFF HELD STOPPING ABORTING COMPLETED FAILED CANCELLED")
ON_THE_WIRE = names("STORING STOPPING ABORTING")
# a request may end the wait for a turn in the instant in which the turn comes
NO_LONGER_WAITING = names("WAITING HELD FAILED CANCELLED")
LEGAL = {
    # the supervisor speaks when it likes
    "ContentReady": EVERYWHERE,
    "HoldRequested": EVERYWHERE,
    "ResumeRequested": EVERYWHERE,
    "RestartRequested": EVERYWHERE,
    "NodeMoved": EVERYWHERE,
    "CancelRequested": EVERYWHERE,
    "GiveUpRequested": EVERYWHERE,
    "TurnGranted": NO_LONGER_WAITING,
    "Followed": NO_LONGER_WAITING,
    "BackOffKept": NO_LONGER_WAITING,
    # a node that is down costs an attempt without a turn
    "AttemptFailed": NO_LONGER_WAITING | ON_THE_WIRE,
    "AttemptsExhausted": NO_LONGER_WAITING | ON_THE_WIRE,
    # only an association brings answers
    "InstanceStored": ON_THE_WIRE,
    "InstanceFound": ON_THE_WIRE,
    "InstanceRefused": ON_THE_WIRE,
    "AllStored": ON_THE_WIRE,
    "SomeRefused": ON_THE_WIRE,
    "StoppedToGoOn": ON_THE_WIRE,
    "StoppedToHold": ON_THE_WIRE,
    "StoppedToCancel": ON_THE_WIRE,
    "TurnYielded": ON_THE_WIRE,
    "NodeCrowded": ON_THE_WIRE,
    "ContentLost": ON_THE_WIRE,
    "ActivityFailed": names("WAITING") | ON_THE_WIRE,
    "RetryDue": names("BACKING_OFF"),
    "StopTimedOut": names("STOPPING"),
}
NEW = DeliveryProgress()
SOME = DeliveryProgress(files_total=3, files_stored=1)

hold = HoldRequested("paused by ITH")
cancel = CancelRequested("session deleted in ITH")
restart = RestartRequested("the node's address changed")
give_up = GiveUpRequested("not found")
fails = AttemptFailed("connection refused", 8)
exhausted = AttemptsExhausted("no acceptable context")

STOPS = [
    (restart, Purpose.RESTART, StoppedToGoOn(), WAITING),
    (hold, Purpose.HOLD, StoppedToHold(), HELD),
    (cancel, Purpose.CANCEL, StoppedToCancel(), CANCELLED),
]
"""The request of a stop, its purpose, the fact that ends it, and the next state."""
each_stop = pytest.mark.parametrize(("request_", "purpose", "ended", "leads_to"), STOPS)


def over(outcome: Outcome, progress: DeliveryProgress) -> list[DeliveryOutput]:
    return [CloseDelivery(outcome, progress)]


def test_what_may_come_when() -> None:
    sweep_legal(DELIVERY, LEGAL, NEW)


def test_a_foreign_interpreter_agrees() -> None:
    assert oracle_agrees(DELIVERY, NEW) == 9 * 26


@pytest.mark.parametrize("away", [True, False])
async def test_whether_the_node_was_away_is_remembered_until_the_next_failure(
    away: bool, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, NEW, WAITING) as bench:
        bench.run.data = DeliveryProgress(away=not away)
        kept = DeliveryProgress(attempts=1, retry_in=8, error="closed", away=away)
        failed_so = AttemptFailed("closed", 8, away=away)
        assert told(bench, failed_so) == (BACKING_OFF, kept, [SaveAttempt(kept)])
    async with running(DELIVERY, NEW, WAITING) as bench:
        assert told(bench, BackOffKept(1, 8, "closed", away=away)) == (BACKING_OFF, kept, [])


async def test_every_instance_is_stored(autojump_clock: MockClock) -> None:
    async with running(DELIVERY, NEW, WAITING) as bench:
        assert told(bench, ContentReady(3, 1, 0)) == (WAITING, SOME, [])
        await trio.sleep(80_000)
        assert told(bench, TurnGranted()) == (STORING, SOME, [ReportProgress(SOME)])
        two, three = replace(SOME, files_stored=2), replace(SOME, files_stored=3)
        assert told(bench, InstanceStored()) == (STORING, two, [ReportProgress(two)])
        assert told(bench, InstanceStored()) == (STORING, three, [ReportProgress(three)])
        assert told(bench, AllStored()) == (COMPLETED, three, over(Outcome.COMPLETED, three))
        assert bench.run.over


async def test_a_refused_instance_fails_the_delivery_after_the_others(
    autojump_clock: MockClock,
) -> None:
    async with running(DELIVERY, SOME, STORING) as bench:
        refused = replace(SOME, files_refused=1, refusals=(RefusalReason("out of resources"),))
        assert told(bench, InstanceRefused("out of resources")) == (STORING, refused, [])
        two = replace(refused, files_stored=2)
        assert told(bench, InstanceStored()) == (STORING, two, [ReportProgress(two)])
        event = policy.settled(two)
        error = "1 of 3 instances refused: out of resources"
        assert event == SomeRefused(error)
        given_up = replace(two, error=error)
        assert told(bench, event) == (FAILED, given_up, over(Outcome.FAILED, given_up))


async def test_what_the_node_is_found_to_have_is_not_sent_again(
    autojump_clock: MockClock,
) -> None:
    async with running(DELIVERY, SOME, STORING) as bench:
        bench.run.data = replace(SOME, attempts=2, error="no answer came")
        two = replace(bench.run.data, files_stored=2, attempts=0)
        assert told(bench, InstanceFound()) == (STORING, two, [ReportProgress(two)])
        three = replace(two, files_stored=3)
        assert told(bench, InstanceStored()) == (STORING, three, [ReportProgress(three)])
        assert told(bench, policy.settled(three))[0] is COMPLETED


@pytest.mark.parametrize("state", ENDING)
async def test_found_in_the_instant_of_a_stop_counts(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        more = replace(bench.run.data, files_stored=bench.run.data.files_stored + 1)
        assert told(bench, InstanceFound()) == (state, more, [ReportProgress(more)])


async def test_what_another_dispatch_brings_is_counted_and_told(autojump_clock: MockClock) -> None:
    async with running(DELIVERY, NEW, WAITING) as bench:
        two = DeliveryProgress(files_total=3, files_stored=2)
        assert told(bench, Followed(3, 1, 0)) == (WAITING, SOME, [ReportProgress(SOME)])
        assert told(bench, Followed(3, 2, 0)) == (WAITING, two, [ReportProgress(two)])
        bench.run.tell(hold)
        assert untouched(bench, Followed(3, 3, 0))


async def test_a_back_off_that_a_restart_came_into_goes_on(autojump_clock: MockClock) -> None:
    async with running(DELIVERY, SOME, WAITING) as bench:
        kept = replace(SOME, attempts=2, retry_in=50, error="connection refused")
        assert told(bench, BackOffKept(2, 50, "connection refused")) == (BACKING_OFF, kept, [])
        await trio.sleep(49)
        assert bench.run.state is BACKING_OFF
        await trio.sleep(2)
        assert bench.run.state is WAITING
        counted = replace(kept, attempts=3, retry_in=8)
        assert told(bench, fails) == (BACKING_OFF, counted, [SaveAttempt(counted)])


async def test_a_kept_back_off_is_nothing_to_what_is_held(autojump_clock: MockClock) -> None:
    async with running(DELIVERY, SOME, HELD) as bench:
        assert untouched(bench, BackOffKept(2, 50, "connection refused"))


async def test_an_attempt_that_fails_is_repeated(autojump_clock: MockClock) -> None:
    async with running(DELIVERY, SOME, STORING) as bench:
        kept = replace(SOME, attempts=1, retry_in=8, error="connection refused")
        assert told(bench, fails) == (BACKING_OFF, kept, [SaveAttempt(kept)])
        await trio.sleep(7)
        assert bench.run.state is BACKING_OFF
        await trio.sleep(2)
        assert bench.run.state is WAITING
        assert told(bench, TurnGranted()) == (STORING, kept, [ReportProgress(kept)])
        taken = replace(kept, attempts=0, files_stored=2)
        assert told(bench, InstanceStored()) == (STORING, taken, [ReportProgress(taken)])


@pytest.mark.parametrize("event", [TurnYielded(), NodeCrowded(), ContentLost()])
async def test_who_yields_waits_for_the_next_turn_and_loses_nothing(
    event: Event, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, STORING) as bench:
        bench.run.data = kept = replace(SOME, attempts=1, error="connection refused")
        assert told(bench, event) == (WAITING, kept, [])
        await trio.sleep(80_000)
        assert told(bench, TurnGranted()) == (STORING, kept, [ReportProgress(kept)])


@pytest.mark.parametrize("event", [TurnYielded(), NodeCrowded(), ContentLost()])
@pytest.mark.parametrize("state", ENDING)
async def test_a_stop_is_stronger_than_a_yield(
    state: DeliveryState, event: Event, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        assert untouched(bench, event)


async def test_a_node_that_is_down_costs_attempts_until_none_is_left(
    autojump_clock: MockClock,
) -> None:
    async with running(DELIVERY, SOME, WAITING) as bench:
        bench.run.tell(fails)
        await bench.run.until(WAITING)
        assert bench.run.data.attempts == 1
        given_up = replace(bench.run.data, error="no acceptable context")
        assert told(bench, exhausted) == (FAILED, given_up, over(Outcome.FAILED, given_up))


async def test_no_attempt_can_help(autojump_clock: MockClock) -> None:
    async with running(DELIVERY, SOME, STORING) as bench:
        given_up = replace(SOME, error="no acceptable context")
        assert told(bench, exhausted) == (FAILED, given_up, over(Outcome.FAILED, given_up))


async def test_a_node_that_is_back_ends_the_wait(autojump_clock: MockClock) -> None:
    async with running(DELIVERY, SOME, BACKING_OFF) as bench:
        kept = bench.run.data
        assert told(bench, restart) == (WAITING, kept, [])


@pytest.mark.parametrize("state", [WAITING, BACKING_OFF])
async def test_held_before_anything_is_sent(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        kept = bench.run.data
        assert told(bench, hold) == (HELD, kept, [])
        await trio.sleep(80_000)
        assert untouched(bench, hold)
        assert untouched(bench, restart)
        assert told(bench, ResumeRequested()) == (WAITING, kept, [])


@each_stop
async def test_a_stop_lets_the_instance_in_flight_end(
    request_: HoldRequested | RestartRequested | CancelRequested,
    purpose: Purpose,
    ended: Event,
    leads_to: DeliveryState,
    autojump_clock: MockClock,
) -> None:
    async with running(DELIVERY, SOME, STORING) as bench:
        stopping = replace(SOME, stop=purpose, error=request_.reason)
        assert told(bench, request_) == (STOPPING, stopping, [])
        await trio.sleep(2)
        one_more = replace(stopping, files_stored=2)
        assert told(bench, InstanceStored()) == (STOPPING, one_more, [ReportProgress(one_more)])
        assert policy.stopped(one_more) == ended
        stopped = replace(one_more, stop=None)
        outputs = over(Outcome.CANCELLED, stopped) if leads_to is CANCELLED else []
        assert told(bench, ended) == (leads_to, stopped, outputs)


@each_stop
async def test_a_stop_does_not_wait_for_ever(
    request_: HoldRequested | RestartRequested | CancelRequested,
    purpose: Purpose,
    ended: Event,
    leads_to: DeliveryState,
    autojump_clock: MockClock,
) -> None:
    async with running(DELIVERY, SOME, STORING) as bench:
        bench.run.tell(request_)
        await trio.sleep(2.9)
        assert bench.run.state is STOPPING
        await trio.sleep(0.2)
        stopping = replace(SOME, stop=purpose, error=request_.reason)
        assert now(bench) == (ABORTING, stopping, [])
        assert told(bench, ended)[0] is leads_to


@pytest.mark.parametrize("state", [STOPPING, ABORTING])
async def test_a_stop_grows_stronger_and_never_weaker(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        bench.run.data = replace(SOME, stop=Purpose.RESTART, error="moved")
        held = replace(SOME, stop=Purpose.HOLD, error="paused by ITH")
        assert told(bench, hold) == (state, held, [])
        assert told(bench, restart) == (state, held, [])
        assert told(bench, HoldRequested("paused again")) == (state, held, [])
        dropped = replace(SOME, stop=Purpose.CANCEL, error="session deleted in ITH")
        assert told(bench, cancel) == (state, dropped, [])
        for weaker in (hold, restart, CancelRequested("another reason")):
            assert told(bench, weaker) == (state, dropped, [])
        assert policy.resume(state, dropped) is None
        assert bench.run.tell(policy.stopped(dropped)).after is CANCELLED


@pytest.mark.parametrize("state", [STOPPING, ABORTING])
async def test_a_hold_that_is_over_before_it_began_still_changes_the_association(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        bench.run.data = replace(SOME, stop=Purpose.RESTART, error="moved")
        bench.run.tell(hold)
        event = policy.resume(state, bench.run.data)
        assert event is not None
        moved = replace(SOME, stop=Purpose.RESTART, error="paused by ITH")
        assert told(bench, event) == (state, moved, [])
        again = replace(moved, stop=None)
        assert told(bench, policy.stopped(bench.run.data)) == (WAITING, again, [])


@pytest.mark.parametrize("state", IDLE)
async def test_cancelled_with_nothing_in_flight(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        gone = replace(bench.run.data, error="session deleted in ITH")
        assert told(bench, cancel) == (CANCELLED, gone, over(Outcome.CANCELLED, gone))


@pytest.mark.parametrize("state", IDLE)
async def test_given_up_with_nothing_to_send(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        without = replace(bench.run.data, error="not found")
        assert told(bench, give_up) == (FAILED, without, over(Outcome.FAILED, without))


@pytest.mark.parametrize("state", WIRED)
async def test_what_is_being_sent_is_not_given_up(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        assert untouched(bench, give_up)


@pytest.mark.parametrize("state", [*IDLE, *WIRED])
async def test_a_deletion_takes_a_part_of_it(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        less = replace(bench.run.data, files_total=2, files_stored=0, files_refused=1)
        assert told(bench, ContentReady(2, 0, 1)) == (state, less, [])


@pytest.mark.parametrize("state", ENDING)
async def test_the_last_instance_ends_while_it_stops(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, DeliveryProgress(1), state) as bench:
        bench.run.tell(cancel)
        bench.run.tell(InstanceStored())
        whole = DeliveryProgress(1, 1)
        assert told(bench, AllStored()) == (COMPLETED, whole, over(Outcome.COMPLETED, whole))


@pytest.mark.parametrize("state", ENDING)
async def test_a_refusal_while_it_stops_keeps_the_reason_of_the_stop(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        bench.run.data = SOME
        bench.run.tell(cancel)
        bench.run.tell(InstanceRefused("out of resources"))
        _, data, outputs = told(bench, StoppedToCancel())
        assert data.error == "session deleted in ITH"
        assert outputs == over(Outcome.CANCELLED, data)


@pytest.mark.parametrize("state", ENDING)
async def test_all_answered_for_while_it_stops(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        given_up = replace(bench.run.data, error="1 of 3", stop=None)
        assert told(bench, SomeRefused("1 of 3")) == (
            FAILED,
            given_up,
            over(Outcome.FAILED, given_up),
        )


@pytest.mark.parametrize("state", [WAITING, *WIRED])
async def test_a_defect_ends_one_delivery(state: DeliveryState, autojump_clock: MockClock) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        kept = replace(bench.run.data, error="internal error: RuntimeError", stop=None)
        assert await failed(bench) == (FAILED, kept, over(Outcome.FAILED, kept))


@pytest.mark.parametrize("state", [HELD, FAILED, CANCELLED])
async def test_a_turn_that_comes_too_late_is_not_used(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        assert untouched(bench, TurnGranted())


@pytest.mark.parametrize("state", [HELD, FAILED, CANCELLED, *ENDING])
async def test_a_stop_is_stronger_than_a_retry(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        assert untouched(bench, fails)
        assert untouched(bench, exhausted)


@pytest.mark.parametrize("state", [WAITING, STORING, BACKING_OFF])
async def test_what_is_not_held_is_not_resumed(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        assert untouched(bench, ResumeRequested())


@pytest.mark.parametrize("state", [*IDLE, *WIRED])
async def test_a_node_that_moves_has_failed_no_attempt(
    state: DeliveryState, autojump_clock: MockClock
) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        bench.run.data = replace(bench.run.data, attempts=2, error="connection refused")
        again = replace(bench.run.data, attempts=0)
        assert told(bench, NodeMoved()) == (state, again, [SaveAttempt(again)])


async def test_who_waits_has_nothing_to_restart(autojump_clock: MockClock) -> None:
    async with running(DELIVERY, SOME, WAITING) as bench:
        assert untouched(bench, restart)


@pytest.mark.parametrize("state", OVER)
@pytest.mark.parametrize(
    "event",
    [ContentReady(9, 9, 0), hold, ResumeRequested(), restart, NodeMoved(), cancel, give_up],
)
async def test_over_is_over(event: Event, state: DeliveryState, autojump_clock: MockClock) -> None:
    async with running(DELIVERY, SOME, state) as bench:
        assert untouched(bench, event)


class DeliveryWalk(Walk):
    machine = DELIVERY
    start = NEW

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def exact(self, event: Event) -> Event | None:
        if isinstance(event, ResumeRequested):
            return policy.resume(self.state, self.data)
        if isinstance(event, StoppedToGoOn | StoppedToHold | StoppedToCancel):
            return policy.stopped(self.data)
        if isinstance(event, AllStored | SomeRefused):
            return policy.settled(self.data)
        if isinstance(event, TurnYielded | NodeCrowded | ContentLost):
            return policy.last_word(self.data, event)
        return event

    def check(self, event: Event, step: Step[Any, Any, Any]) -> None:
        before, after = self.data, step.data
        if not isinstance(event, ContentReady | Followed):
            assert after.files_total == before.files_total
            assert 0 <= after.files_stored - before.files_stored <= 1
            assert 0 <= after.files_refused - before.files_refused <= 1
        if not isinstance(event, BackOffKept):
            assert after.attempts <= before.attempts + 1
            if after.attempts < before.attempts:
                assert isinstance(event, InstanceStored | InstanceFound | NodeMoved)
        if step.after is not self.state:
            self.moved(event, step)
        if before.stop is Purpose.CANCEL and step.after not in OVER:
            assert after.stop is Purpose.CANCEL
            assert after.error == before.error
        if before.stop and after.stop and after.stop.strength < before.stop.strength:
            assert isinstance(event, ResumeRequested)
            assert before.stop is Purpose.HOLD

    def moved(self, event: Event, step: Step[Any, Any, Any]) -> None:
        if step.after is COMPLETED:
            assert isinstance(event, AllStored)
            assert 0 < step.data.files_total <= step.data.files_stored
        if step.after is STORING:
            assert self.state is WAITING
        if isinstance(event, TurnYielded | NodeCrowded | ContentLost):
            assert (self.state, step.after, step.data) == (STORING, WAITING, self.data)
        if step.after is HELD:
            assert isinstance(event, HoldRequested) or self.data.stop is Purpose.HOLD
        if self.state is HELD:
            assert isinstance(event, ResumeRequested | CancelRequested | GiveUpRequested)
        if self.data.stop is Purpose.CANCEL:
            assert step.after in {ABORTING, *OVER}

    def look(self) -> None:
        ends = [output for output in self.outputs if isinstance(output, CloseDelivery)]
        assert len(ends) == (self.state in OVER)
        if ends:
            assert self.outputs[-1] is ends[0]
            assert ends[0].outcome.name == self.state.name
            assert ends[0].progress == self.data
            assert bool(self.data.error) == (self.state is not COMPLETED)
        assert (self.data.stop is not None) == (self.state in ENDING)


def test_it_ends_once_and_a_cancel_is_never_weakened() -> None:
    walk(DeliveryWalk)


Delivery = Run[DeliveryState, DeliveryProgress, DeliveryOutput]


class Node:
    """A scripted node: each C-STORE takes a second, the release of an association half of one.

    ``faults`` says what becomes of the n-th C-STORE instead of success.
    """

    def __init__(self, total: int = 3, faults: dict[int, Event] | None = None) -> None:
        self.total = total
        self.faults = faults or {}
        self.requests = 0
        self.holds = 0
        self.associations = 0
        self.most = 0
        self.aborted = 0
        self.outputs: list[DeliveryOutput] = []
        activities = {
            "wait_for_turn": self.wait_for_turn,
            "store_instances": self.store_instances,
            "settle": self.settle,
        }
        self.run = Run(DELIVERY, DeliveryProgress(total), activities, self.outputs.append)

    async def wait_for_turn(self, run: Delivery) -> None:
        await trio.sleep(1)
        run.tell(TurnGranted())

    async def store_instances(self, run: Delivery) -> None:
        self.associations += 1
        self.most = max(self.most, self.associations)
        try:
            ending = await self.attempt(run)
            await trio.sleep(0.5)
        except trio.Cancelled:
            self.aborted += 1
            raise
        finally:
            self.associations -= 1
        run.tell(policy.last_word(run.data, ending))

    async def attempt(self, run: Delivery) -> policy.Ending:
        while self.holds < self.total:
            if run.state is not STORING:
                return policy.stopped(run.data)
            self.requests += 1
            fault = self.faults.get(self.requests)
            if isinstance(fault, ContentReady):
                await trio.sleep_forever()
            await trio.sleep(1)
            if isinstance(fault, AttemptFailed | TurnYielded):
                return fault
            self.holds += 1
            run.tell(InstanceStored())
        return policy.settled(run.data)

    async def settle(self, run: Delivery) -> None:
        await trio.sleep(0.1)
        run.tell(policy.stopped(run.data))

    async def live(self, *requests: tuple[float, Event | Callable[[], Event | None]]) -> None:
        async def ask(at: float, event: Event | Callable[[], Event | None]) -> None:
            await trio.sleep(at)
            said = event if isinstance(event, Event) else event()
            if said is not None:
                self.run.tell(said)

        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.run.run)
                for at, event in requests:
                    nursery.start_soon(ask, at, event)

    def resume(self) -> Event | None:
        return policy.resume(self.run.state, self.run.data)

    def check(self) -> None:
        """The invariants of every run."""
        assert self.associations == 0
        assert self.most <= 1
        assert self.run.data.files_stored == self.holds
        ends = [output for output in self.outputs if isinstance(output, CloseDelivery)]
        assert len(ends) == self.run.over
        assert not ends or self.outputs[-1] is ends[0]
        sent = [o.progress.files_stored for o in self.outputs if isinstance(o, ReportProgress)]
        assert sent == sorted(sent)


STALL = ContentReady(0, 0, 0)
"""As a fault of ``Node``: the node never answers this C-STORE."""


async def test_stored_over_two_associations(autojump_clock: MockClock) -> None:
    node = Node(faults={2: AttemptFailed("reset", 10)})
    await node.live()
    node.check()
    assert (node.run.state, node.holds, node.requests) == (COMPLETED, 3, 4)
    assert [type(output) for output in node.outputs] == [
        *(ReportProgress, ReportProgress, SaveAttempt),
        *(ReportProgress, ReportProgress, ReportProgress, CloseDelivery),
    ]


async def test_stored_in_two_turns(autojump_clock: MockClock) -> None:
    node = Node(faults={2: TurnYielded()})
    await node.live()
    node.check()
    assert (node.run.state, node.holds, node.requests) == (COMPLETED, 3, 4)
    assert node.run.data.attempts == 0


@pytest.mark.parametrize("instant", [2, 2.5, 3, 3.5, 4, 4.5])
@pytest.mark.parametrize("request_", [hold, restart, cancel])
def test_a_stop_in_the_instant_of_a_yield_is_not_lost(
    request_: HoldRequested | RestartRequested | CancelRequested, instant: float
) -> None:
    async def scenario() -> DeliveryState:
        node = Node(faults={2: TurnYielded()})
        await node.live((instant, request_), (instant + 50, node.resume))
        node.check()
        return node.run.state

    expected = CANCELLED if request_ is cancel else COMPLETED
    assert in_every_order(scenario, schedules=20).keys() == {expected}


async def test_stopped_at_a_node_that_does_not_answer(autojump_clock: MockClock) -> None:
    node = Node(faults={2: STALL})
    start = trio.current_time()
    await node.live((5, cancel))
    node.check()
    assert (node.run.state, node.holds, node.aborted) == (CANCELLED, 1, 1)
    assert trio.current_time() - start == pytest.approx(8.1)


async def test_held_at_a_node_that_does_not_answer_and_resumed(autojump_clock: MockClock) -> None:
    node = Node(faults={2: STALL})
    await node.live((5, hold), (60, node.resume))
    node.check()
    assert (node.run.state, node.holds, node.aborted) == (COMPLETED, 3, 1)


INSTANTS = [1, 2, 3, 3.5, 4, 4.5, 5, 5.1]


@pytest.mark.parametrize("instant", INSTANTS)
def test_a_cancel_in_the_instant_of_an_answer_wins_unless_all_is_stored(instant: float) -> None:
    async def scenario() -> DeliveryState:
        node = Node()
        await node.live((instant, cancel), (instant, hold), (instant + 100, node.resume))
        node.check()
        assert node.run.state is CANCELLED or node.holds == 3
        return node.run.state

    assert in_every_order(scenario).keys() <= {CANCELLED, COMPLETED}


@pytest.mark.parametrize("instant", INSTANTS)
@pytest.mark.parametrize("later", [0, 0.3, 0.5, 3, 3.1])
def test_a_hold_that_ends_whenever_it_likes_leaves_nothing_held(
    instant: float, later: float
) -> None:
    async def scenario() -> tuple[DeliveryState, int]:
        node = Node(faults={2: STALL})
        await node.live(
            (instant, restart),
            (instant, hold),
            (instant + later, node.resume),
            (instant + 50, restart),
            (instant + 100, node.resume),
            (instant + 150, restart),
        )
        node.check()
        return node.run.state, node.holds

    assert in_every_order(scenario, schedules=20).keys() == {(COMPLETED, 3)}


@pytest.mark.parametrize("stronger", [hold, cancel])
def test_a_stronger_stop_while_the_association_is_released_is_not_lost(
    stronger: HoldRequested | CancelRequested,
) -> None:
    async def scenario() -> DeliveryState:
        node = Node()
        with trio.move_on_after(100):
            await node.live((1.5, restart), (2.2, stronger))
        return node.run.state

    assert in_every_order(scenario).keys() == {CANCELLED if stronger is cancel else HELD}


def test_a_stop_before_the_first_instance_still_begins_and_ends_the_association() -> None:
    async def scenario() -> tuple[DeliveryState, int, int]:
        node = Node()

        async def stop() -> None:
            await node.run.until(STORING)
            node.run.tell(cancel)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.live)
            nursery.start_soon(stop)
        node.check()
        return node.run.state, node.holds, node.most

    # the activity that uses the turn also gives it back, so it must begin
    assert in_every_order(scenario).keys() == {(CANCELLED, 0, 1)}


def test_the_grace_is_over_in_the_instant_of_the_answer() -> None:
    async def scenario() -> tuple[DeliveryState, int]:
        node = Node()
        node.run.data = DeliveryProgress(3, grace=0.5)
        await node.live((2.5, cancel))
        node.check()
        return node.run.state, node.holds

    # the answer came and was counted, or the association was cut: never one without the other
    assert in_every_order(scenario).keys() == {(CANCELLED, 1), (CANCELLED, 2)}


def test_wherever_it_is_cancelled_no_association_is_left() -> None:
    world: list[Node] = []

    async def scenario() -> None:
        world[:] = [Node(faults={2: STALL, 3: AttemptFailed("reset", 5)})]
        await world[0].live(
            (4, restart), (4.5, hold), (30, world[0].resume), (33, hold), (40, world[0].resume)
        )

    def check() -> None:
        world[0].check()

    assert cancelled_at_every_step(scenario, check) > 40
    assert (world[0].run.state, world[0].holds) == (COMPLETED, 3)
