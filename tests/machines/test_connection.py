from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from proxy.fsm import Event, Step
from proxy.machines.connection import (
    BACKING_OFF,
    CLOSED,
    CLOSING,
    CONNECTING,
    CONNECTION,
    EVICTED,
    HANDSHAKING,
    OFFLINE,
    ONLINE,
    REFUSED,
    WIRED,
    AnnounceOffline,
    AnnounceOnline,
    CloseRequested,
    ConnectionData,
    ConnectionOutput,
    ConnectionState,
    ConnectRequested,
    ConnectTimedOut,
    HandshakeDone,
    HandshakeTimedOut,
    KeyRefused,
    KeyTaken,
    LinkClosed,
    LinkDropped,
    LinkOpened,
    StayedUp,
)
from proxy.runtime.runner import Run
from tests.machines.story import failed, names, now, told, untouched
from tests.machines.walk import Walk, walk
from tests.support.machine_suite import oracle_agrees, running, sweep_legal
from tests.support.schedules import cancelled_at_every_step, in_every_order

EVERYWHERE = names(
    "OFFLINE CONNECTING HANDSHAKING ONLINE BACKING_OFF REFUSED EVICTED CLOSING CLOSED"
)
LINK_ALIVE = names("CONNECTING HANDSHAKING ONLINE CLOSING")
# a time limit or a close may come in the instant in which the link has one more thing to say
LAST_BREATH = LINK_ALIVE | names("BACKING_OFF CLOSED")
LEGAL = {
    "ConnectRequested": EVERYWHERE,
    "CloseRequested": EVERYWHERE,
    "LinkOpened": LAST_BREATH,
    "HandshakeDone": LAST_BREATH,
    "LinkDropped": LAST_BREATH,
    "KeyRefused": LAST_BREATH,
    "KeyTaken": LAST_BREATH,
    "LinkClosed": LAST_BREATH,
    "ActivityFailed": LINK_ALIVE,
    "ConnectTimedOut": names("CONNECTING"),
    "HandshakeTimedOut": names("HANDSHAKING"),
    "StayedUp": names("ONLINE"),
    "RetryDue": names("BACKING_OFF REFUSED EVICTED"),
    "CloseTimedOut": names("CLOSING"),
}
LINK = ConnectionData()
WAITS = (BACKING_OFF, REFUSED, EVICTED)

dropped = LinkDropped("the cable", 7.0)
refused = KeyRefused("401")
taken = KeyTaken("4002")


def test_what_may_come_when() -> None:
    sweep_legal(CONNECTION, LEGAL, LINK)


def test_a_foreign_interpreter_agrees() -> None:
    assert oracle_agrees(CONNECTION, LINK) == 9 * 14


async def test_a_link_is_made(autojump_clock: MockClock) -> None:
    async with running(CONNECTION, LINK, OFFLINE) as bench:
        assert told(bench, ConnectRequested()) == (CONNECTING, LINK, [])
        assert told(bench, LinkOpened()) == (HANDSHAKING, LINK, [])
        assert told(bench, HandshakeDone()) == (ONLINE, LINK, [AnnounceOnline()])
        await trio.sleep(80_000)
        assert now(bench) == (ONLINE, LINK, [AnnounceOnline()])
    assert CONNECTION.seconds(ONLINE, LINK) == math.inf  # nothing to forget, nothing to say


async def test_nobody_connects_before_it_is_wanted(autojump_clock: MockClock) -> None:
    async with running(CONNECTION, LINK, OFFLINE) as bench:
        await trio.sleep(80_000)
        assert bench.run.state is OFFLINE


async def test_only_a_link_that_stays_up_resets_the_back_off(autojump_clock: MockClock) -> None:
    async with running(CONNECTION, ConnectionData(attempts=3), HANDSHAKING) as bench:
        told(bench, HandshakeDone())
        await trio.sleep(59)
        assert bench.run.data.attempts == 3
        await trio.sleep(2)
        assert now(bench) == (ONLINE, LINK, [AnnounceOnline()])


async def test_a_link_that_is_lost_early_waits_longer(autojump_clock: MockClock) -> None:
    async with running(CONNECTION, ConnectionData(attempts=3), ONLINE) as bench:
        lost = ConnectionData(attempts=4, error="the cable", retry_in=7)
        assert told(bench, dropped) == (BACKING_OFF, lost, [AnnounceOffline("the cable")])
        await trio.sleep(6.5)
        assert bench.run.state is BACKING_OFF
        await trio.sleep(1)
        assert bench.run.state is CONNECTING


@pytest.mark.parametrize("state", [CONNECTING, HANDSHAKING])
async def test_an_attempt_that_fails_was_never_online(
    state: ConnectionState, autojump_clock: MockClock
) -> None:
    async with running(CONNECTION, LINK, state) as bench:
        failed_once = ConnectionData(attempts=1, error="the cable", retry_in=7)
        assert told(bench, dropped) == (BACKING_OFF, failed_once, [])


@pytest.mark.parametrize(
    ("state", "seconds", "error"),
    [
        (CONNECTING, 20, "ITH did not answer in time"),
        (HANDSHAKING, 10, "ITH opened the WebSocket and then sent nothing"),
    ],
)
async def test_a_silent_ith_is_a_failed_attempt(
    state: ConnectionState, seconds: float, error: str, autojump_clock: MockClock
) -> None:
    async with running(CONNECTION, LINK, state) as bench:
        await trio.sleep(seconds - 0.5)
        assert bench.run.state is state
        await trio.sleep(1)
        assert now(bench) == (BACKING_OFF, ConnectionData(attempts=1, error=error, retry_in=10), [])


async def test_time_outs_wait_twice_as_long_each_time(autojump_clock: MockClock) -> None:
    waits = []
    async with running(CONNECTION, LINK, CONNECTING) as bench:
        for _ in range(8):
            await bench.run.until(BACKING_OFF)
            waits.append(bench.run.data.retry_in)
            await bench.run.until(CONNECTING)
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]


@pytest.mark.parametrize("attempts", [33, 1_100, 10**9])
@pytest.mark.parametrize("event", [ConnectTimedOut(), HandshakeTimedOut()])
def test_an_outage_of_any_length_is_borne(attempts: int, event: Event) -> None:
    state = CONNECTING if isinstance(event, ConnectTimedOut) else HANDSHAKING
    step = CONNECTION.step(state, ConnectionData(attempts=attempts), event)
    assert step.data.retry_in == LINK.refused_seconds
    assert step.data.attempts == attempts + 1


@pytest.mark.parametrize("state", WIRED)
async def test_a_refused_key_waits_long(state: ConnectionState, autojump_clock: MockClock) -> None:
    async with running(CONNECTION, ConnectionData(attempts=2), state) as bench:
        kept = ConnectionData(attempts=2, error="401")
        assert told(bench, refused) == (REFUSED, kept, [AnnounceOffline("401")])
        await trio.sleep(299)
        assert bench.run.state is REFUSED
        await trio.sleep(2)
        assert bench.run.state is CONNECTING


@pytest.mark.parametrize("state", WIRED)
async def test_who_is_evicted_does_not_evict_at_once(
    state: ConnectionState, autojump_clock: MockClock
) -> None:
    async with running(CONNECTION, ConnectionData(evicted_seconds=100), state) as bench:
        kept = ConnectionData(evicted_seconds=100, error="4002")
        assert told(bench, taken) == (EVICTED, kept, [AnnounceOffline("4002")])
        await trio.sleep(99)
        assert bench.run.state is EVICTED
        await trio.sleep(2)
        assert bench.run.state is CONNECTING


@pytest.mark.parametrize("state", WAITS)
async def test_the_operator_can_cut_a_wait_short(
    state: ConnectionState, autojump_clock: MockClock
) -> None:
    async with running(CONNECTION, LINK, state) as bench:
        kept = bench.run.data
        assert told(bench, ConnectRequested()) == (CONNECTING, kept, [])


@pytest.mark.parametrize("state", [*WIRED, CLOSING, CLOSED])
async def test_a_link_is_not_asked_for_twice(
    state: ConnectionState, autojump_clock: MockClock
) -> None:
    async with running(CONNECTION, LINK, state) as bench:
        assert untouched(bench, ConnectRequested())


@pytest.mark.parametrize("state", [OFFLINE, CONNECTING, *WAITS])
async def test_what_is_not_open_closes_at_once(
    state: ConnectionState, autojump_clock: MockClock
) -> None:
    async with running(CONNECTION, LINK, state) as bench:
        kept = bench.run.data
        assert told(bench, CloseRequested("SIGTERM")) == (CLOSED, kept, [])


@pytest.mark.parametrize("state", [HANDSHAKING, ONLINE])
async def test_an_open_link_closes_in_order(
    state: ConnectionState, autojump_clock: MockClock
) -> None:
    async with running(CONNECTION, LINK, state) as bench:
        assert told(bench, CloseRequested("SIGTERM")) == (CLOSING, LINK, [])
        assert untouched(bench, CloseRequested("SIGTERM again"))
        await trio.sleep(1.9)
        assert told(bench, LinkClosed()) == (CLOSED, LINK, [])
        assert untouched(bench, CloseRequested("SIGTERM again"))


async def test_ith_is_not_waited_for_in_a_close(autojump_clock: MockClock) -> None:
    async with running(CONNECTION, LINK, CLOSING) as bench:
        await trio.sleep(1.9)
        assert bench.run.state is CLOSING
        await trio.sleep(0.2)
        assert now(bench) == (CLOSED, LINK, [])


@pytest.mark.parametrize("event", [dropped, refused, taken])
async def test_a_link_that_ends_while_it_closes_is_closed(
    event: Event, autojump_clock: MockClock
) -> None:
    async with running(CONNECTION, LINK, CLOSING) as bench:
        assert told(bench, event) == (CLOSED, LINK, [])


@pytest.mark.parametrize("state", WIRED)
async def test_a_defect_costs_one_link_and_a_wait(
    state: ConnectionState, autojump_clock: MockClock
) -> None:
    async with running(CONNECTION, LINK, state) as bench:
        error = "internal error: RuntimeError"
        kept = ConnectionData(attempts=1, error=error, retry_in=10)
        assert await failed(bench) == (BACKING_OFF, kept, [AnnounceOffline(error)])
        assert [type(fault) for fault in bench.faults] == [RuntimeError]


async def test_a_defect_in_a_close_closes(autojump_clock: MockClock) -> None:
    async with running(CONNECTION, LINK, CLOSING) as bench:
        assert await failed(bench) == (CLOSED, LINK, [])


@pytest.mark.parametrize(
    ("event", "states"),
    [
        (LinkOpened(), [HANDSHAKING, ONLINE, BACKING_OFF, CLOSING, CLOSED]),
        (HandshakeDone(), [CONNECTING, ONLINE, BACKING_OFF, CLOSING, CLOSED]),
        (dropped, [BACKING_OFF, CLOSED]),
        (refused, [BACKING_OFF, CLOSED]),
        (taken, [BACKING_OFF, CLOSED]),
        (LinkClosed(), [CONNECTING, HANDSHAKING, ONLINE, BACKING_OFF, CLOSED]),
    ],
)
async def test_what_a_link_says_too_late_is_not_heard(
    event: Event, states: list[ConnectionState], autojump_clock: MockClock
) -> None:
    for state in states:
        async with running(CONNECTION, LINK, state) as bench:
            assert untouched(bench, event)


class ConnectionWalk(Walk):
    machine = CONNECTION
    start = LINK

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def check(self, event: Event, step: Step[Any, Any, Any]) -> None:
        before, after = self.data.attempts, step.data.attempts
        if after < before:
            assert isinstance(event, StayedUp)
        assert after in {0, before, before + 1}
        fixed = {"attempts": 0, "retry_in": 0.0, "error": None}
        assert replace(step.data, **fixed) == LINK
        if self.state is ONLINE and step.after in WAITS:
            assert [type(output) for output in step.outputs] == [AnnounceOffline]
        assert (AnnounceOnline() in step.outputs) == (
            step.after is ONLINE and self.state is not ONLINE
        )
        if step.after is BACKING_OFF and self.state is not BACKING_OFF:
            assert after == before + 1
        self.closing |= isinstance(event, CloseRequested)
        if self.closing:
            assert step.after in {CLOSING, CLOSED}
            assert not step.outputs


def test_failures_are_forgotten_only_by_a_stable_link() -> None:
    walk(ConnectionWalk)


class Ith:
    """A scripted ITH: takes a second to open, one to speak, then lives as long as ``lives`` say."""

    def __init__(self, *lives: tuple[float, Event]) -> None:
        self.lives = list(lives)
        self.links = 0
        self.most = 0
        self.outputs: list[ConnectionOutput] = []
        self.run = Run(CONNECTION, LINK, {"keep_link": self.keep_link}, self.outputs.append)

    async def keep_link(self, run: Run[ConnectionState, ConnectionData, ConnectionOutput]) -> None:
        self.links += 1
        self.most = max(self.most, self.links)
        try:
            await trio.sleep(1)
            run.tell(LinkOpened())
            await trio.sleep(1)
            run.tell(HandshakeDone())
            seconds, end = self.lives.pop(0) if self.lives else (1e6, dropped)
            with trio.move_on_after(seconds):
                await run.until(CLOSING)
                end = LinkClosed()
                await trio.sleep(1)
        finally:
            self.links -= 1
        run.tell(end)

    async def live(self, close_at: float) -> None:
        async with trio.open_nursery() as nursery:
            self.run.tell(ConnectRequested())
            nursery.start_soon(self.run.run)
            await trio.sleep(close_at)
            self.run.tell(CloseRequested("SIGTERM"))


async def test_a_life_of_links(autojump_clock: MockClock) -> None:
    ith = Ith((100, dropped), (10, refused), (10, taken))
    start = trio.current_time()
    await ith.live(close_at=1000)
    outputs: list[ConnectionOutput] = []
    for reason in ("the cable", "401", "4002"):
        outputs += [AnnounceOnline(), AnnounceOffline(reason)]
    assert ith.outputs == [*outputs, AnnounceOnline()]
    assert ith.run.state is CLOSED
    assert trio.current_time() - start == pytest.approx(1001)


def test_a_link_that_opens_speaks_or_drops_in_the_instant_of_a_close() -> None:
    for instant in (1, 2, 3, 10):

        async def scenario(close_at: float = instant) -> tuple[ConnectionState, int, int]:
            ith = Ith((1, dropped))
            with trio.fail_after(60):
                await ith.live(close_at)
            return ith.run.state, ith.links, ith.most

        assert in_every_order(scenario).keys() == {(CLOSED, 0, 1)}


def test_a_link_that_opens_in_the_instant_of_its_time_limit_is_kept_or_tried_again() -> None:
    async def scenario() -> tuple[ConnectionOutput, ...]:
        ith = Ith()
        ith.run.data = ConnectionData(
            connect_seconds=1, handshake_seconds=1, timeout_retry_seconds=1
        )
        with trio.fail_after(60):
            await ith.live(close_at=3.5)
        assert (ith.links, ith.most) == (0, 1)
        return tuple(ith.outputs)

    assert in_every_order(scenario).keys() == {(AnnounceOnline(),), ()}


def test_wherever_it_is_cancelled_no_link_is_left() -> None:
    world: list[Ith] = []

    async def scenario() -> None:
        world[:] = [Ith((100, dropped), (10, taken))]
        await world[0].live(close_at=500)

    def check() -> None:
        ith = world[0]
        assert (ith.links, ith.most) in {(0, 1), (0, 0)}
        whole = [
            AnnounceOnline(),
            AnnounceOffline("the cable"),
            AnnounceOnline(),
            AnnounceOffline("4002"),
        ]
        assert ith.outputs == [*whole, AnnounceOnline()][: len(ith.outputs)]

    assert cancelled_at_every_step(scenario, check) > 10
    assert len(world[0].outputs) == 5
