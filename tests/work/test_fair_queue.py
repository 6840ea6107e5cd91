from __future__ import annotations

from collections.abc import Callable

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from proxy.work.fair_queue import FairQueue, Grant
from tests.machines.walk import UNHURRIED
from tests.support.schedules import cancelled_at_every_step, in_every_order


async def test_a_free_slot_is_taken_at_once() -> None:
    queue = FairQueue(2)
    await queue.acquire(0)
    await queue.acquire(3)
    assert (queue.in_use, queue.waiting) == (2, 0)


async def test_a_turn_is_given_back_once() -> None:
    queue = FairQueue(2)
    first, _second = await queue.acquire(0), await queue.acquire(0)
    first.release()
    first.release()
    assert queue.in_use == 1


async def test_to_take_is_a_checkpoint_even_if_a_slot_is_free() -> None:
    queue = FairQueue(1)
    with assert_checkpoints():
        await queue.acquire(0)


async def test_who_is_cancelled_takes_nothing() -> None:
    queue = FairQueue(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await queue.acquire(0)
    assert scope.cancelled_caught
    assert (queue.in_use, queue.waiting) == (0, 0)


async def line_up(
    queue: FairQueue, ranks: list[int], nursery: trio.Nursery
) -> list[tuple[int, int]]:
    """Let takers queue in this order; the returned list grows as they are served."""
    served: list[tuple[int, int]] = []

    async def taker(rank: int, arrival: int) -> None:
        turn = await queue.acquire(rank)
        served.append((rank, arrival))
        await trio.sleep(1)
        turn.release()

    for arrival, rank in enumerate(ranks):
        nursery.start_soon(taker, rank, arrival)
        await wait_all_tasks_blocked()
    return served


async def test_the_most_urgent_is_next_then_the_first_to_come(autojump_clock: MockClock) -> None:
    queue = FairQueue(1)
    turn = await queue.acquire(0)
    async with trio.open_nursery() as nursery:
        served = await line_up(queue, [2, 1, 0, 1, 0, 3], nursery)
        assert (queue.in_use, queue.waiting) == (1, 6)
        turn.release()
    assert served == [(0, 2), (0, 4), (1, 1), (1, 3), (2, 0), (3, 5)]
    assert (queue.in_use, queue.waiting) == (0, 0)


async def test_nobody_jumps_the_queue(autojump_clock: MockClock) -> None:
    queue = FairQueue(1)
    turn = await queue.acquire(0)
    async with trio.open_nursery() as nursery:
        served = await line_up(queue, [3], nursery)
        turn.release()  # handed to the one who waits, whom nobody has run yet
        await queue.acquire(0)
        assert served == [(3, 0)]


async def test_who_is_cancelled_leaves_the_queue(autojump_clock: MockClock) -> None:
    queue = FairQueue(1)
    turn = await queue.acquire(0)
    async with trio.open_nursery() as nursery:
        served = await line_up(queue, [1, 1], nursery)
        with trio.move_on_after(1):
            await queue.acquire(0)
        assert queue.waiting == 2
        turn.release()
    assert served == [(1, 0), (1, 1)]
    assert queue.in_use == 0


def test_a_turn_that_comes_with_the_cancellation_goes_to_the_next() -> None:
    async def scenario() -> tuple[int, int, int]:
        queue = FairQueue(1)
        turn = await queue.acquire(0)
        got: list[Grant] = []

        async def take(scope: trio.CancelScope) -> None:
            with scope:
                got.append(await queue.acquire(0))

        async def at_one(act: Callable[[], None]) -> None:
            await trio.sleep(1)
            act()

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, scope)
            nursery.start_soon(at_one, turn.release)
            nursery.start_soon(at_one, scope.cancel)
            await trio.sleep(2)
            with trio.move_on_after(1):
                next_one = await queue.acquire(0)
                next_one.release()
        return len(got), queue.in_use, queue.waiting

    # the turn was had, and is still; or it was not, and is free
    assert in_every_order(scenario).keys() == {(1, 1, 0), (0, 0, 0)}


def test_wherever_the_takers_are_cancelled_every_slot_is_free_again() -> None:
    queue = FairQueue(2)
    most = 0

    async def taker(rank: int) -> None:
        nonlocal most
        turn = await queue.acquire(rank)
        try:
            most = max(most, queue.in_use)
            await trio.sleep(1)
        finally:
            turn.release()

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            for rank in (0, 1, 0, 2, 1):
                nursery.start_soon(taker, rank)

    def check() -> None:
        assert (queue.in_use, queue.waiting) == (0, 0)

    assert cancelled_at_every_step(scenario, check) > 10
    assert most == 2


def test_wherever_those_who_yield_are_cancelled_every_slot_is_free_again() -> None:
    queue = FairQueue(2, quantum=2, aging=3)
    holding = most = yielded = 0

    async def taker(rank: int, services: int) -> None:
        nonlocal holding, most, yielded
        while services:
            turn = await queue.acquire(rank, flow=rank)
            holding += 1
            most = max(most, holding)
            try:
                while services:
                    await trio.sleep(1)
                    services -= 1
                    if services and not turn.may_continue():
                        yielded += 1
                        break
            finally:
                holding -= 1
                turn.release()

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            for rank in (2, 1, 2, 3):
                nursery.start_soon(taker, rank, 4)
            await trio.sleep(1.5)
            nursery.start_soon(taker, 0, 3)

    def check() -> None:
        assert (queue.in_use, queue.waiting, holding) == (0, 0, 0)

    assert cancelled_at_every_step(scenario, check) > 30
    assert most == 2
    assert yielded > 10


async def test_a_slot_more_is_used_at_once(autojump_clock: MockClock) -> None:
    queue = FairQueue(1)
    await queue.acquire(0)
    async with trio.open_nursery() as nursery:
        served = await line_up(queue, [1, 2], nursery)
        queue.limit = 2
        await wait_all_tasks_blocked()
        assert served == [(1, 0)]


async def test_a_turn_given_back_does_not_go_on() -> None:
    queue = FairQueue(1)
    turn = await queue.acquire(0)
    assert turn.may_continue()
    turn.release()
    assert not turn.may_continue()


@settings(UNHURRIED, max_examples=50)
@given(
    limit=st.integers(1, 4),
    takers=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(1, 5), st.integers(0, 9)),
        max_size=12,
    ),
    order=st.random_module(),
)
def test_never_more_than_the_limit_and_none_lost(
    limit: int, takers: list[tuple[int, int, int, int]], order: object
) -> None:
    queue = FairQueue(limit)
    holding = 0

    async def taker(rank: int, come: int, stay: int, aging: int) -> None:
        nonlocal holding
        await trio.sleep(come)
        with trio.move_on_after(aging):
            turn = await queue.acquire(rank)
            holding += 1
            assert holding <= limit
            assert holding <= queue.in_use <= limit
            try:
                await trio.sleep(stay)
            finally:
                holding -= 1
                turn.release()

    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            for each in takers:
                nursery.start_soon(taker, *each)

    trio.run(scenario, clock=MockClock(autojump_threshold=0))
    assert (queue.in_use, queue.waiting, holding) == (0, 0, 0)


def test_who_comes_in_the_same_instant_is_served_by_rank_and_order() -> None:
    async def scenario() -> tuple[tuple[int, int], ...]:
        queue, start = FairQueue(1), trio.Event()
        served: list[tuple[int, int]] = []

        async def taker(rank: int, order: int) -> None:
            await start.wait()
            turn = await queue.acquire(rank, order)
            served.append((rank, order))
            turn.release()

        async with trio.open_nursery() as nursery:
            for rank, order in ((3, 1), (0, 4), (2, 2), (2, 3)):
                nursery.start_soon(taker, rank, order)
            await wait_all_tasks_blocked()
            start.set()
        assert (queue.in_use, queue.waiting) == (0, 0)
        return tuple(served)

    assert in_every_order(scenario).keys() == {((0, 4), (2, 2), (2, 3), (3, 1))}


async def test_who_was_not_admitted_is_served_when_it_is(autojump_clock: MockClock) -> None:
    shut = True
    queue = FairQueue(1, admission=lambda _: lambda _: not shut)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(queue.acquire, 0)
        await wait_all_tasks_blocked()
        assert (queue.in_use, queue.waiting) == (0, 1)
        shut = False
        queue.serve()
        await wait_all_tasks_blocked()
        assert (queue.in_use, queue.waiting) == (1, 0)
