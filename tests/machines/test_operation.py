from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from proxy.fsm import Event, Step
from proxy.machines import policy
from proxy.machines.operation import (
    ACTIVE,
    DRAINING,
    OPERATION,
    PAUSED,
    STOPPED,
    Drained,
    DrainRequested,
    DrainTimedOut,
    HoldWork,
    LastLockReleased,
    LockReleased,
    OperationOutput,
    OperationState,
    PauseLock,
    PauseLocks,
    PauseReason,
    PauseRequested,
    ResumeWork,
    SaveLocks,
    StopRequested,
    StopWork,
)
from proxy.runtime.runner import Run
from tests.machines.story import names, now, told, untouched
from tests.machines.walk import UNHURRIED, Walk, walk
from tests.support.machine_suite import oracle_agrees, running, sweep_legal
from tests.support.schedules import cancelled_at_every_step, in_every_order

EVERYWHERE = names("ACTIVE PAUSED DRAINING STOPPED")
LEGAL = {
    # ITH and the operator speak when they like
    "PauseRequested": EVERYWHERE,
    "LockReleased": EVERYWHERE,
    "LastLockReleased": EVERYWHERE,
    "DrainRequested": EVERYWHERE,
    "StopRequested": EVERYWHERE,
    # the last association may end at any time, asked for or not
    "Drained": EVERYWHERE,
    # only who drains is in a hurry
    "DrainTimedOut": names("DRAINING"),
}
BACKEND, OPERATOR = PauseLock
NONE = PauseLocks()
BY_ITH = PauseLocks(backend=PauseReason("paused by ITH"))
BY_OPERATOR = PauseLocks(operator=PauseReason("maintenance"))
BY_BOTH = PauseLocks(PauseReason("paused by ITH"), PauseReason("maintenance"))

pause = PauseRequested(BACKEND, "paused by ITH")
pause_too = PauseRequested(OPERATOR, "maintenance")


def test_what_may_come_when() -> None:
    sweep_legal(OPERATION, LEGAL, NONE)


def test_a_foreign_interpreter_agrees() -> None:
    assert oracle_agrees(OPERATION, NONE) == 4 * 7


async def test_pause_and_resume(autojump_clock: MockClock) -> None:
    async with running(OPERATION, NONE, ACTIVE) as bench:
        held = [SaveLocks(BY_ITH), HoldWork("paused by ITH")]
        assert told(bench, pause) == (PAUSED, BY_ITH, held)
        released = [SaveLocks(NONE), ResumeWork()]
        assert told(bench, LastLockReleased(BACKEND)) == (ACTIVE, NONE, released)


async def test_a_pause_of_two_ends_with_the_second(autojump_clock: MockClock) -> None:
    async with running(OPERATION, NONE, ACTIVE) as bench:
        bench.run.tell(pause)
        assert told(bench, pause_too) == (PAUSED, BY_BOTH, [SaveLocks(BY_BOTH)])
        left = [SaveLocks(BY_OPERATOR)]
        assert told(bench, LockReleased(BACKEND)) == (PAUSED, BY_OPERATOR, left)
        outputs = [SaveLocks(NONE), ResumeWork()]
        assert told(bench, LastLockReleased(OPERATOR)) == (ACTIVE, NONE, outputs)


@pytest.mark.parametrize(("first", "second"), [(BACKEND, OPERATOR), (OPERATOR, BACKEND)])
@pytest.mark.parametrize("given_first", PauseLock)
async def test_both_locks_must_be_open_in_whatever_order_they_were_taken(
    first: PauseLock, second: PauseLock, given_first: PauseLock, autojump_clock: MockClock
) -> None:
    async with running(OPERATION, NONE, ACTIVE) as bench:
        bench.run.tell(PauseRequested(first, first.name, 11.0))
        bench.run.tell(PauseRequested(second, second.name, 12.0))
        assert bench.run.data.held == {
            first: PauseReason(first.name, 11.0),
            second: PauseReason(second.name, 12.0),
        }
        (left,) = {*PauseLock} - {given_first}
        bench.run.tell(policy.release(bench.run.data, given_first))
        assert (bench.run.state, bench.run.data.reason) == (PAUSED, left.name)
        bench.run.tell(policy.release(bench.run.data, given_first))  # twice is once
        assert bench.run.state is PAUSED
        bench.run.tell(policy.release(bench.run.data, left))
        assert (bench.run.state, bench.run.data) == (ACTIVE, NONE)


async def test_one_who_pauses_again_changes_his_reason_alone(autojump_clock: MockClock) -> None:
    async with running(OPERATION, NONE, ACTIVE) as bench:
        bench.run.tell(PauseRequested(OPERATOR, "maintenance", 11.0))
        bench.run.tell(PauseRequested(BACKEND, "paused by ITH", 12.0))
        bench.run.tell(PauseRequested(OPERATOR, "new disk", 13.0))
        wanted = PauseLocks(PauseReason("paused by ITH", 12.0), PauseReason("new disk", 11.0))
        assert now(bench) == (PAUSED, wanted, bench.outputs)
        assert bench.outputs[-1] == SaveLocks(wanted)
        assert bench.run.data.reason == "paused by ITH; new disk"


async def test_a_pause_lasts_as_long_as_it_is_wanted(autojump_clock: MockClock) -> None:
    async with running(OPERATION, NONE, ACTIVE) as bench:
        bench.run.tell(pause)
        await trio.sleep(80_000)
        assert bench.run.state is PAUSED


@pytest.mark.parametrize("release", [LockReleased(OPERATOR), LastLockReleased(OPERATOR)])
async def test_who_is_not_paused_cannot_resume(release: Event, autojump_clock: MockClock) -> None:
    async with running(OPERATION, NONE, ACTIVE) as bench:
        assert untouched(bench, release)


@pytest.mark.parametrize("locks", [NONE, BY_ITH])
async def test_drain_in_order(locks: PauseLocks, autojump_clock: MockClock) -> None:
    async with running(OPERATION, locks, PAUSED if locks.held else ACTIVE) as bench:
        kept = bench.run.data
        assert told(bench, DrainRequested("SIGTERM")) == (DRAINING, kept, [HoldWork("SIGTERM")])
        await trio.sleep(kept.drain_seconds - 1)
        assert told(bench, Drained()) == (STOPPED, kept, [StopWork("drained")])


async def test_a_drain_ends_at_its_limit(autojump_clock: MockClock) -> None:
    async with running(OPERATION, PauseLocks(drain_seconds=7), ACTIVE) as bench:
        told(bench, DrainRequested("SIGTERM"))
        await trio.sleep(6.5)
        assert bench.run.state is DRAINING
        bench.outputs.clear()
        await trio.sleep(1)
        stopped = [StopWork("the drain limit is over")]
        assert now(bench) == (STOPPED, PauseLocks(drain_seconds=7), stopped)


@pytest.mark.parametrize("state", [ACTIVE, PAUSED, DRAINING])
async def test_a_second_signal_stops_now(state: OperationState, autojump_clock: MockClock) -> None:
    async with running(OPERATION, NONE, state) as bench:
        kept = bench.run.data
        assert told(bench, StopRequested("again")) == (STOPPED, kept, [StopWork("again")])


async def test_who_drains_does_not_drain_again(autojump_clock: MockClock) -> None:
    async with running(OPERATION, NONE, DRAINING) as bench:
        assert untouched(bench, DrainRequested("again"))


async def test_locks_taken_and_given_in_a_drain_are_for_the_next_start(
    autojump_clock: MockClock,
) -> None:
    async with running(OPERATION, NONE, DRAINING) as bench:
        assert told(bench, pause) == (DRAINING, BY_ITH, [SaveLocks(BY_ITH)])
        assert told(bench, pause_too) == (DRAINING, BY_BOTH, [SaveLocks(BY_BOTH)])
        left = [SaveLocks(BY_ITH)]
        assert told(bench, LockReleased(OPERATOR)) == (DRAINING, BY_ITH, left)
        assert told(bench, LastLockReleased(BACKEND)) == (DRAINING, NONE, [SaveLocks(NONE)])


@pytest.mark.parametrize("state", [ACTIVE, PAUSED])
async def test_idle_is_not_stopped(state: OperationState, autojump_clock: MockClock) -> None:
    async with running(OPERATION, NONE, state) as bench:
        assert untouched(bench, Drained())


@pytest.mark.parametrize(
    "event",
    [
        pause,
        LockReleased(BACKEND),
        LastLockReleased(BACKEND),
        DrainRequested("late"),
        StopRequested("late"),
        Drained(),
    ],
)
async def test_stopped_is_stopped(event: Event, autojump_clock: MockClock) -> None:
    async with running(OPERATION, NONE, STOPPED) as bench:
        assert untouched(bench, event)


class OperationWalk(Walk):
    machine = OPERATION
    start = NONE

    def __init__(self) -> None:
        super().__init__()
        self.held = False

    def exact(self, event: Event) -> Event | None:
        if isinstance(event, LockReleased | LastLockReleased):
            return policy.release(self.data, event.lock)
        return event

    def check(self, event: Event, step: Step[Any, Any, Any]) -> None:
        if step.data.held != self.data.held:
            assert step.outputs[0] == SaveLocks(step.data)
        for output in step.outputs:
            if isinstance(output, HoldWork):
                self.held = True
            if isinstance(output, ResumeWork):
                assert self.held
                self.held = False

    def look(self) -> None:
        if self.state is ACTIVE:
            assert not self.data.held
        if self.state is PAUSED:
            assert self.data.held
        if self.state is not STOPPED:
            assert self.held == (self.state is not ACTIVE)
        assert bool(self.data.reason) == bool(self.data.held)
        stops = [output for output in self.outputs if isinstance(output, StopWork)]
        assert len(stops) == (self.state is STOPPED)
        assert not stops or self.outputs[-1] is stops[0]


def test_active_means_that_nobody_wants_a_pause() -> None:
    walk(OperationWalk)


@UNHURRIED
@given(st.frozensets(st.sampled_from(PauseLock)), st.sampled_from(PauseLock))
def test_the_last_lock_is_known_by_what_is_left(
    held: frozenset[PauseLock], lock: PauseLock
) -> None:
    wishes: dict[str, Any] = {each.value: PauseReason("x") for each in held}
    last = policy.release(PauseLocks(**wishes), lock) == LastLockReleased(lock)
    assert last == (not held or held == {lock})


def operation(outputs: list[OperationOutput]) -> Run[OperationState, PauseLocks, OperationOutput]:
    return Run(OPERATION, PauseLocks(drain_seconds=5), {}, outputs.append)


def test_drained_at_the_limit_with_a_second_signal() -> None:
    async def scenario() -> tuple[OperationOutput, ...]:
        outputs: list[OperationOutput] = []
        run = operation(outputs)

        async def at_five(event: Event) -> None:
            await trio.sleep(5)
            run.tell(event)

        async with trio.open_nursery() as nursery:
            run.tell(DrainRequested("SIGTERM"))
            nursery.start_soon(run.run)
            nursery.start_soon(at_five, Drained())
            nursery.start_soon(at_five, StopRequested("again"))
        return tuple(outputs[1:])

    reasons = {"drained", "again", "the drain limit is over"}
    assert in_every_order(scenario).keys() == {(StopWork(reason),) for reason in reasons}


def test_wherever_it_is_cancelled_it_stops_once_at_most() -> None:
    outputs: list[OperationOutput] = []

    async def scenario() -> None:
        outputs.clear()
        run = operation(outputs)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.run)
            for event in (pause, LastLockReleased(BACKEND), DrainRequested("SIGTERM")):
                await trio.sleep(1)
                run.tell(event)

    def check() -> None:
        whole = [
            SaveLocks(PauseLocks(PauseReason("paused by ITH"), drain_seconds=5)),
            HoldWork("paused by ITH"),
            SaveLocks(PauseLocks(drain_seconds=5)),
            ResumeWork(),
            HoldWork("SIGTERM"),
            StopWork("the drain limit is over"),
        ]
        assert outputs == whole[: len(outputs)]

    assert cancelled_at_every_step(scenario, check) > 5
    assert len(outputs) == 6


def test_a_drain_has_a_limit() -> None:
    assert OPERATION.seconds(DRAINING, PauseLocks(drain_seconds=3)) == 3
    step = OPERATION.step(DRAINING, NONE, DrainTimedOut())
    assert (step.after, step.row) == (STOPPED, "OPS-07")
