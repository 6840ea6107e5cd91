from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.work.scheduler import URGENT, Job, Scheduler
from tests.machines.walk import UNHURRIED

RANKS = st.integers(0, 3)
CHOICE = st.randoms(use_true_random=False)


@dataclass
class Dispatch:
    """A job with instances to send at the pool; it comes again each time it is done."""

    rank: int
    length: int
    sent: int = 0
    turns: int = 0
    job: Job | None = None
    backlog: int = 0
    waited: int = 0
    passed: int = 0


@dataclass
class Pool:
    """A node whose jobs end at random times. A job that must yield leaves at once."""

    scheduler: Scheduler
    dispatches: list[Dispatch] = field(default_factory=list)
    began: list[Dispatch] = field(default_factory=list)

    def come(self, dispatch: Dispatch) -> None:
        dispatch.backlog, dispatch.waited = len(self.scheduler.waiting), 0
        dispatch.passed = any(each.rank > URGENT for each in self.scheduler.served)
        dispatch.job = self.scheduler.job(dispatch.rank, flow=id(dispatch))
        if dispatch not in self.dispatches:
            self.dispatches.append(dispatch)
        self.serve()

    def serve(self) -> None:
        for job in self.scheduler.serve():
            dispatch = self.owner(job)
            dispatch.turns += 1
            self.begin(dispatch)

    def begin(self, dispatch: Dispatch) -> None:
        dispatch.sent += 1
        self.began.append(dispatch)
        for each in self.dispatches:
            if each.job in self.scheduler.waiting:
                each.waited += 1
                each.passed += dispatch.rank > URGENT

    def owner(self, job: Job) -> Dispatch:
        return next(each for each in self.dispatches if each.job is job)

    def answer(self, job: Job) -> None:
        """The node answers for the instance in flight."""
        dispatch = self.owner(job)
        done = dispatch.sent % dispatch.length == 0
        if not done and self.scheduler.may_continue(job):
            self.begin(dispatch)
        else:
            self.scheduler.leave(job)
            self.serve()
            self.come(dispatch)

    @property
    def waiting(self) -> list[Dispatch]:
        return [each for each in self.dispatches if each.job in self.scheduler.waiting]


@settings(UNHURRIED, max_examples=80)
@given(
    limit=st.integers(1, 3),
    quantum=st.sampled_from([3, None]),
    several=st.lists(st.tuples(RANKS, st.integers(1, 30)), min_size=1, max_size=7),
    chance=CHOICE,
)
@example(limit=1, quantum=3, several=[(0, 30)] * 5 + [(3, 30)] * 2, chance=Random(1))
@example(limit=1, quantum=None, several=[(0, 30)] * 5 + [(3, 30)] * 2, chance=Random(1))
def test_nobody_waits_for_ever_and_urgent_ones_for_one_instance(
    limit: int, quantum: int | None, several: list[tuple[int, int]], chance: Random
) -> None:
    aging = 5
    pool = Pool(Scheduler(limit, quantum=quantum, aging=aging))
    bound = aging + 1 + sum(length for _, length in several)
    still_to_come = several[:]
    for _ in range(600):
        if still_to_come and chance.random() < 0.1:
            pool.come(Dispatch(*still_to_come.pop()))
        if pool.scheduler.served:
            pool.answer(chance.choice(pool.scheduler.served))
        for each in pool.waiting:
            assert each.waited <= (each.backlog + 1) * bound
            if each.rank == URGENT:
                assert each.passed <= 1


def test_an_urgent_one_is_next_after_the_instance_in_flight() -> None:
    scheduler = Scheduler(1, quantum=50, aging=100)
    normal = scheduler.job(2)
    assert scheduler.serve() == [normal]
    assert scheduler.may_continue(normal)
    high, urgent = scheduler.job(1), scheduler.job(URGENT)
    assert scheduler.serve() == []
    assert not scheduler.may_continue(normal)
    scheduler.leave(normal)
    assert scheduler.serve() == [urgent]
    scheduler.leave(urgent)
    assert scheduler.serve() == [high]


def test_who_is_hurried_is_as_urgent_as_that_in_the_line_and_at_work() -> None:
    scheduler = Scheduler(1, quantum=50, aging=100)
    high = scheduler.job(1, flow="high")
    assert scheduler.serve() == [high]
    normal, low = scheduler.job(2, flow="normal"), scheduler.job(3, flow="low")
    scheduler.promote("low", 2)
    scheduler.promote("low", 3)
    assert scheduler.may_continue(high)
    scheduler.promote("low", URGENT)
    assert not scheduler.may_continue(high)
    scheduler.leave(high)
    assert scheduler.serve() == [low]
    scheduler.job(1, flow="high")
    assert scheduler.may_continue(low)
    scheduler.promote("normal", URGENT)
    assert [scheduler.may_continue(low) for _ in range(49)] == [True] * 48 + [False]
    scheduler.leave(low)
    assert scheduler.serve() == [normal]


def test_one_who_waits_has_one_leave_for_it() -> None:
    scheduler = Scheduler(3, quantum=1, aging=100)
    jobs = [scheduler.job(2, flow=number) for number in range(3)]
    assert scheduler.serve() == jobs
    scheduler.job(URGENT)
    assert [scheduler.may_continue(job) for job in jobs] == [False, True, True]
    scheduler.job(2, flow=3)
    assert [scheduler.may_continue(job) for job in jobs] == [False, False, True]


def test_who_waits_in_vain_is_served_one_instance_among_the_urgent() -> None:
    pool = Pool(Scheduler(1, quantum=None, aging=10))
    low = Dispatch(3, 99)
    for dispatch in (Dispatch(URGENT, 8), Dispatch(URGENT, 8), low):
        pool.come(dispatch)
    for _ in range(100):
        pool.answer(pool.scheduler.served[0])
    assert [at for at, each in enumerate(pool.began) if each is low] == list(range(24, 101, 25))


def test_nobody_is_interrupted_for_one_who_waits_in_vain() -> None:
    scheduler = Scheduler(1, quantum=None, aging=2)
    normal = scheduler.job(2)
    assert scheduler.serve() == [normal]
    low, urgent = scheduler.job(3), scheduler.job(URGENT)
    scheduler.promote(None, 3)
    waiting = scheduler.job(3, flow="waiting")
    scheduler.leave(urgent)
    assert all(scheduler.may_continue(normal) for _ in range(50))
    urgent = scheduler.job(URGENT, flow="urgent")
    assert not scheduler.may_continue(normal)
    scheduler.leave(normal)
    assert scheduler.serve() == [urgent]
    scheduler.leave(urgent)
    assert scheduler.serve() == [low]
    assert waiting in scheduler.waiting


def test_one_who_was_interrupted_goes_on_before_younger_equal_ones() -> None:
    scheduler = Scheduler(1, quantum=None, aging=1000)
    first = scheduler.job(2, 1, "first")
    assert scheduler.serve() == [first]
    second, urgent = scheduler.job(2, 2, "second"), scheduler.job(URGENT, 3, "urgent")
    assert not scheduler.may_continue(first)
    scheduler.leave(first)
    assert scheduler.serve() == [urgent]
    again = scheduler.job(2, 1, "first")
    scheduler.leave(urgent)
    assert scheduler.serve() == [again]
    assert all(scheduler.may_continue(again) for _ in range(1000))
    assert second in scheduler.waiting


@settings(UNHURRIED, max_examples=60)
@given(
    limit=st.integers(1, 3),
    quantum=st.sampled_from([1, 3, None]),
    ranks=st.lists(RANKS, min_size=1, max_size=8),
    chance=CHOICE,
)
def test_one_that_must_not_be_interrupted_is_not(
    limit: int, quantum: int | None, ranks: list[int], chance: Random
) -> None:
    scheduler = Scheduler(limit, quantum=quantum, aging=3)
    unbroken = scheduler.job(3, flow="unbroken", unbroken=True)
    assert scheduler.serve() == [unbroken]
    others = [scheduler.job(rank, flow=number) for number, rank in enumerate(ranks)]
    for _ in range(40):
        scheduler.serve()
        scheduler.limit = chance.randint(1, 3)
        assert scheduler.may_continue(unbroken)
        for each in others:
            if each in scheduler.served and not scheduler.may_continue(each):
                scheduler.leave(each)
    scheduler.leave(unbroken)
    scheduler.serve()
    assert scheduler.served or not scheduler.waiting


def test_an_urgent_one_that_was_overtaken_is_not_overtaken_again() -> None:
    scheduler = Scheduler(1, quantum=1, aging=2)
    scheduler.job(URGENT)
    (holder,) = scheduler.serve()
    for rank in (3, 3, 3, URGENT, URGENT, URGENT, URGENT, URGENT, URGENT):
        scheduler.job(rank, flow=rank)
    begun = []
    while scheduler.served:
        scheduler.leave(holder)
        if scheduler.waiting:
            (holder,) = scheduler.serve()
            begun.append(holder.rank)
    assert begun == [0, 0, 3, 0, 0, 0, 0, 3, 3]


def test_those_who_wait_in_vain_take_no_more_than_their_share() -> None:
    pool = Pool(Scheduler(1, quantum=3, aging=10))
    for rank, length in ((1, 10), (3, 999), (3, 999), (3, 999)):
        pool.come(Dispatch(rank, length))
    for _ in range(330):
        pool.answer(pool.scheduler.served[0])
    high, *lows = (each.sent for each in pool.dispatches)
    assert high >= 10 * sum(lows)
    assert max(lows) - min(lows) <= 1
    assert min(lows) >= 9


@settings(UNHURRIED, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 5000), min_size=2, max_size=6),
    quantum=st.integers(1, 20),
)
def test_equal_ones_have_equal_shares_of_a_node_however_long_they_are(
    lengths: list[int], quantum: int
) -> None:
    pool = Pool(Scheduler(1, quantum=quantum, aging=2 * quantum))
    for length in lengths:
        pool.come(Dispatch(2, length))
    wanted = [each for each in pool.dispatches if each.length >= quantum]
    for _ in range(400):
        pool.answer(pool.scheduler.served[0])
        sent = [each.sent for each in wanted if each.length % quantum == 0 or each.length > 400]
        assert not sent or max(sent) - min(sent) <= quantum


@settings(UNHURRIED, max_examples=60)
@given(limit=st.integers(1, 3), number=st.integers(2, 7), chance=CHOICE)
def test_no_equal_one_has_two_turns_while_another_waits(
    limit: int, number: int, chance: Random
) -> None:
    pool = Pool(Scheduler(limit, quantum=4, aging=1000))
    for _ in range(number):
        pool.come(Dispatch(2, 5000))
    since: dict[int, list[int]] = {}
    for _ in range(300):
        pool.answer(chance.choice(pool.scheduler.served))
        turns = [each.turns for each in pool.dispatches]
        waiting = {id(each.job) for each in pool.waiting}
        since = {key: since.get(key, turns) for key in waiting}
        for before in since.values():
            assert all(now - then <= 1 for then, now in zip(before, turns, strict=True))


@settings(UNHURRIED, max_examples=60)
@given(
    limit=st.integers(1, 4),
    orders=st.lists(st.sampled_from("abc"), min_size=1, max_size=40),
    chance=CHOICE,
)
def test_downloads_are_shared_by_the_nodes_they_are_for(
    limit: int, orders: list[str], chance: Random
) -> None:
    scheduler = Scheduler(limit, quantum=1, aging=1000)
    first = [scheduler.job(2, number, "a") for number in range(limit)]
    assert scheduler.serve() == first
    numbered = [*enumerate(orders, limit)]
    chance.shuffle(numbered)
    for number, node in numbered:
        scheduler.job(2, number, node)
    begun: list[Job] = []
    while scheduler.served:
        scheduler.leave(chance.choice(scheduler.served))
        begun += scheduler.serve()
    wanted = Counter(orders)
    assert Counter(each.flow for each in begun) == wanted
    had: Counter[object] = Counter()
    for each in begun:
        had[each.flow] += 1
        unserved = [had[node] for node in wanted if had[node] < wanted[node]]
        assert not unserved or max(had.values()) - min(unserved) <= 1
    for node in wanted:
        own = [each.order for each in begun if each.flow == node]
        assert own == sorted(own)


@settings(UNHURRIED, max_examples=100)
@given(
    limit=st.integers(1, 4),
    steps=st.lists(
        st.tuples(st.sampled_from(["come", "leave", "go", "promote"]), RANKS), max_size=60
    ),
    chance=CHOICE,
)
def test_no_slot_is_lost_or_given_twice(
    limit: int, steps: list[tuple[str, int]], chance: Random
) -> None:
    scheduler = Scheduler(limit, quantum=2, aging=3)
    present: list[Job] = []
    for step, rank in steps:
        match step:
            case "come":
                present.append(scheduler.job(rank, flow=rank))
            case "leave" if present:
                gone = chance.choice(present)
                scheduler.leave(gone)
                scheduler.leave(gone)
                present.remove(gone)
            case "go" if present:
                asked = chance.choice(present)
                assert not (scheduler.may_continue(asked) and asked in scheduler.waiting)
            case "promote" if present:
                scheduler.promote(chance.choice(present).flow, rank)
        begun = scheduler.serve()
        assert {*begun} <= {*scheduler.served}
        assert {*scheduler.served, *scheduler.waiting} == {*present}
        assert len(scheduler.served) + len(scheduler.waiting) == len(present)
        assert len(scheduler.served) == min(limit, len(present))


def test_who_comes_again_does_not_keep_the_others_waiting() -> None:
    scheduler = Scheduler(1, quantum=1, aging=1000)
    holder = scheduler.job(2, 1, "one")
    assert scheduler.serve() == [holder]
    rest = [scheduler.job(2, number, str(number)) for number in range(5, 1, -1)]
    served = []
    for number in range(8):
        again = scheduler.job(2, -number, f"new {number}")
        scheduler.leave(holder)
        (holder,) = scheduler.serve()
        served.append(holder)
        assert again not in served[:-1]
    assert {*rest} <= {*served}


def test_a_spare_slot_is_for_urgent_ones_alone() -> None:
    scheduler = Scheduler(1, quantum=1, aging=100, reserved=1)
    normal, high = scheduler.job(2), scheduler.job(1)
    assert scheduler.serve() == [high]
    urgent, another = scheduler.job(URGENT), scheduler.job(URGENT)
    assert scheduler.serve() == [urgent]
    scheduler.leave(high)
    assert scheduler.serve() == [another]
    scheduler.leave(urgent)
    assert scheduler.serve() == []
    scheduler.leave(another)
    assert scheduler.serve() == [normal]


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("reserved", [0, 1, 2])
def test_urgent_jobs_that_keep_coming_leave_the_oldest_a_place(limit: int, reserved: int) -> None:
    scheduler = Scheduler(limit, quantum=1, aging=8, reserved=reserved)
    for _ in range(limit + reserved + 2):
        scheduler.job(URGENT)
    scheduler.serve()
    low, passed = scheduler.job(3), 0
    while low in scheduler.waiting:
        scheduler.job(URGENT)
        scheduler.leave(scheduler.served[0])
        passed += len(scheduler.serve())
        assert passed <= 2 + 8 + 1
    assert len(scheduler.served) == limit + reserved


def test_who_is_not_admitted_is_passed_over_and_makes_nobody_leave() -> None:
    shut = {"shut"}
    scheduler = Scheduler(
        1, quantum=1, aging=2, admission=lambda _: lambda job: job.flow not in shut
    )
    first = scheduler.job(1, flow="shut")
    low, urgent = scheduler.job(3, flow="open"), scheduler.job(URGENT, flow="shut")
    assert scheduler.serve() == [low]
    assert all(scheduler.may_continue(low) for _ in range(10))
    shut.clear()
    assert not scheduler.may_continue(low)
    scheduler.leave(low)
    assert scheduler.serve() == [urgent]
    scheduler.leave(urgent)
    assert scheduler.serve() == [first]


def test_each_slot_given_counts_for_the_next_admission() -> None:
    one_each = Scheduler(
        5,
        quantum=1,
        aging=100,
        admission=lambda served: lambda job: job.flow not in {each.flow for each in served},
    )
    a, _, b = (one_each.job(2, flow=flow) for flow in "aab")
    assert one_each.serve() == [a, b]


@settings(UNHURRIED, max_examples=100)
@given(
    limit=st.integers(1, 3),
    reserved=st.integers(0, 2),
    steps=st.lists(st.tuples(st.sampled_from(["come", "leave", "shut"]), RANKS), max_size=60),
    chance=CHOICE,
)
def test_no_slot_that_somebody_may_have_is_left_free(
    limit: int, reserved: int, steps: list[tuple[str, int]], chance: Random
) -> None:
    shut: set[int] = set()
    scheduler = Scheduler(
        limit,
        quantum=1,
        aging=3,
        reserved=reserved,
        admission=lambda _: lambda job: job.flow not in shut,
    )
    for step, number in steps:
        match step:
            case "come":
                scheduler.job(number, flow=chance.randrange(4))
            case "leave" if scheduler.served:
                scheduler.leave(chance.choice(scheduler.served))
            case _:
                shut ^= {number}
        for begun in scheduler.serve():
            assert begun.flow not in shut
        others = [each for each in scheduler.served if each.rank > URGENT]
        assert len(others) <= limit
        assert len(scheduler.served) <= limit + reserved
        for each in scheduler.waiting:
            free = limit + reserved if each.rank == URGENT else limit
            assert each.flow in shut or len(scheduler.served) >= free


def test_where_the_limit_falls_the_least_urgent_leave_between_two_services() -> None:
    scheduler = Scheduler(4, quantum=50, aging=100)
    jobs = [scheduler.job(rank, flow=rank) for rank in (2, 1, 3, URGENT)]
    normal, high, low, urgent = jobs
    assert len(scheduler.serve()) == 4
    scheduler.limit = 2
    assert [scheduler.may_continue(each) for each in (urgent, high)] == [True, True]
    assert [scheduler.may_continue(each) for each in (low, normal)] == [False, False]
    assert [scheduler.may_continue(each) for each in (urgent, high)] == [True, True]
    scheduler.leave(low)
    scheduler.leave(normal)
    assert [scheduler.may_continue(each) for each in (urgent, high)] == [True, True]
    late = scheduler.job(URGENT, flow="late")
    assert scheduler.serve() == []
    assert [scheduler.may_continue(each) for each in (urgent, high)] == [True, False]
    scheduler.leave(high)
    assert scheduler.serve() == [late]


@settings(UNHURRIED, max_examples=100)
@given(before=st.integers(1, 6), after=st.integers(1, 6), ranks=st.lists(RANKS, max_size=12))
def test_a_new_limit_is_kept_after_one_service_of_each(
    before: int, after: int, ranks: list[int]
) -> None:
    scheduler = Scheduler(before, quantum=1000, aging=1000)
    for rank in ranks:
        scheduler.job(rank, flow=rank)
    scheduler.serve()
    scheduler.limit = after
    for job in sorted(scheduler.served, key=lambda each: (each.rank, each.arrival))[::-1]:
        if not scheduler.may_continue(job):
            scheduler.leave(job)
    scheduler.serve()
    assert len(scheduler.served) == min(after, len(ranks))
