from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.machines import delivery, dispatch, node, policy
from proxy.machines.delivery import (
    DELIVERY,
    ENDING,
    DeliveryProgress,
    DeliveryState,
    Outcome,
    Purpose,
)
from proxy.machines.dispatch import DispatchState
from proxy.machines.failures import Remedy
from tests.machines.walk import UNHURRIED

DONE, FAILED, CANCELLED = Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED

chances = st.floats(0, 1, exclude_max=True)
seconds = st.floats(0.001, 10_000)
counts = st.integers(0, 1000)
stops = st.sampled_from([None, *Purpose])
progresses = st.builds(DeliveryProgress, counts, counts, counts, attempts=counts, stop=stops)


@UNHURRIED
@given(st.integers(1, 10**9), seconds, seconds, chances)
def test_a_wait_is_never_too_short_nor_above_the_cap(
    attempt: int, base: float, cap: float, uniform: float
) -> None:
    wait = policy.full_jitter(attempt, base, cap, uniform)
    first = min(base, cap)
    assert first * 0.0999 <= wait <= cap
    if attempt < 30:
        assert wait <= base * 2**attempt / 2


@UNHURRIED
@given(st.integers(1, 10**6), seconds, seconds, chances, chances)
def test_a_wait_grows_with_the_attempts_and_with_chance(
    attempt: int, base: float, cap: float, one: float, other: float
) -> None:
    low, high = sorted([one, other])
    wait = policy.full_jitter(attempt, base, cap, low)
    assert wait <= policy.full_jitter(attempt + 1, base, cap, low)
    assert wait <= policy.full_jitter(attempt, base, cap, high)


def test_waits_by_hand() -> None:
    waits = [policy.full_jitter(attempt, 5, 60, 0.5) for attempt in range(1, 7)]
    assert waits == pytest.approx([2.75, 5.5, 11, 22, 33, 33])
    assert policy.full_jitter(1, 5, 60, 0) == 0.5


def attempt(
    failed: int, allowed: int, remedy: Remedy = Remedy.RETRY_LATER
) -> delivery.AttemptFailed | delivery.AttemptsExhausted:
    return policy.after_attempt(
        DeliveryProgress(attempts=failed),
        "reset",
        remedy,
        retry_count=allowed,
        retry_delay=10,
        retry_max=60,
        uniform=0.5,
    )


def test_a_retry_count_is_of_tries_after_the_first() -> None:
    waits = [attempt(failed, 3) for failed in range(4)]
    assert waits == [
        delivery.AttemptFailed("reset", 5.5),
        delivery.AttemptFailed("reset", 11.0),
        delivery.AttemptFailed("reset", 22.0),
        delivery.AttemptsExhausted("reset"),
    ]
    assert attempt(0, 0) == delivery.AttemptsExhausted("reset")


@UNHURRIED
@given(counts, counts)
def test_what_cannot_be_repeated_is_not(failed: int, allowed: int) -> None:
    assert attempt(failed, allowed, Remedy.NEVER) == delivery.AttemptsExhausted("reset")


def fetch(
    failed: int, *, permanent: bool = False, retry_after: float = 0.0, refetches: int = 0
) -> dispatch.FetchFailed | dispatch.FetchExhausted | dispatch.RefetchExhausted:
    return policy.after_fetch(
        dispatch.DispatchData(attempts=failed, refetches=refetches),
        "timeout",
        permanent=permanent,
        attempts=3,
        cap=60,
        uniform=0.5,
        retry_after=retry_after,
    )


def test_what_is_to_be_repeated_at_once_is_so_often_and_no_oftener() -> None:
    assert attempt(0, 2, Remedy.RETRY_NOW) == delivery.AttemptFailed("reset", 0.0)
    assert attempt(1, 2, Remedy.RETRY_NOW) == delivery.AttemptFailed("reset", 0.0)
    assert attempt(2, 2, Remedy.RETRY_NOW) == delivery.AttemptsExhausted("reset")


def test_a_download_is_tried_so_many_times_in_all() -> None:
    assert [fetch(failed) for failed in range(3)] == [
        dispatch.FetchFailed("timeout", 2.75),
        dispatch.FetchFailed("timeout", 5.5),
        dispatch.FetchExhausted("timeout"),
    ]
    assert fetch(0, permanent=True) == dispatch.FetchExhausted("timeout")


def test_a_download_of_what_was_lost_ends_no_dispatch() -> None:
    assert [fetch(failed, refetches=1) for failed in range(3)] == [
        dispatch.FetchFailed("timeout", 2.75),
        dispatch.FetchFailed("timeout", 5.5),
        dispatch.RefetchExhausted("timeout"),
    ]
    assert fetch(0, permanent=True, refetches=2) == dispatch.RefetchExhausted("timeout")


def test_lost_content_is_fetched_again_so_often_and_no_oftener() -> None:
    lost = dispatch.ContentLost("damaged")
    for state in DispatchState:
        for refetches in range(4):
            told = policy.content_lost(state, dispatch.DispatchData(refetches=refetches), "damaged")
            final = state is DispatchState.DELIVERING and refetches >= 2
            assert told == (None if final or state in dispatch.OVER else lost)


@pytest.mark.parametrize(("asked", "wait"), [(0, 2.75), (2, 2.75), (30, 30), (90, 60)])
def test_ith_may_ask_for_a_longer_wait_up_to_the_cap(asked: float, wait: float) -> None:
    assert fetch(0, retry_after=asked) == dispatch.FetchFailed("timeout", wait)


@UNHURRIED
@given(progresses)
def test_all_stored_means_that_something_was_and_nothing_is_missing(
    progress: DeliveryProgress,
) -> None:
    settled = policy.settled(progress) == delivery.AllStored()
    assert settled == (0 < progress.files_total <= progress.files_stored)


def test_what_was_refused_is_told_with_the_node_s_reason_and_no_other() -> None:
    progress = DeliveryProgress(
        5, 3, 2, error="paused by ITH", refusals=(delivery.RefusalReason("out of resources"),)
    )
    assert policy.settled(progress) == delivery.SomeRefused(
        "2 of 5 instances refused: out of resources"
    )
    assert policy.settled(replace(progress, refusals=())) == delivery.SomeRefused(
        "2 of 5 instances refused: the node refused them"
    )


def test_nothing_to_send_is_no_success() -> None:
    assert policy.settled(DeliveryProgress()) == delivery.SomeRefused(policy.DELETED)


def test_what_was_passed_over_is_told_apart_from_what_is_damaged() -> None:
    assert policy.settled(DeliveryProgress(7, 5), 1) == delivery.SomeRefused(
        "1 of 7 instances came damaged from ITH or were lost here; "
        "1 of 7 files may hold images and could not be read: they are damaged, encrypted, too "
        "large, or packed in a way that is not supported; the log of the proxy has the reason for "
        "each"
    )
    only = policy.settled(DeliveryProgress(7, 6), 1)
    assert isinstance(only, delivery.SomeRefused)
    assert only.error.startswith("1 of 7 files may hold images and could not be read")


def test_what_cannot_be_sent_is_told_with_the_reason() -> None:
    assert policy.settled(DeliveryProgress(7, 5), 0, 1, "cannot be sent: two objects") == (
        delivery.SomeRefused(
            "1 of 7 instances cannot be sent: two objects; "
            "1 of 7 instances came damaged from ITH or were lost here"
        )
    )
    assert policy.settled(DeliveryProgress(7, 4, 2), 0, 1, "cannot be sent") == (
        delivery.SomeRefused(
            "2 of 7 instances refused: the node refused them; 1 of 7 instances cannot be sent"
        )
    )
    assert policy.settled(DeliveryProgress(7, 6), 0, 1) == delivery.SomeRefused(
        "1 of 7 instances came damaged from ITH and cannot be sent"
    )


@pytest.mark.parametrize(
    ("stop", "event"),
    [
        (None, delivery.StoppedToGoOn()),
        (Purpose.RESTART, delivery.StoppedToGoOn()),
        (Purpose.HOLD, delivery.StoppedToHold()),
        (Purpose.CANCEL, delivery.StoppedToCancel()),
    ],
)
def test_a_stop_leads_to_what_it_is_for(stop: Purpose | None, event: object) -> None:
    assert policy.stopped(DeliveryProgress(stop=stop)) == event


@UNHURRIED
@given(st.sampled_from(DeliveryState), progresses)
def test_a_resume_is_told_only_where_it_weakens_no_more_than_a_hold(
    state: DeliveryState, progress: DeliveryProgress
) -> None:
    told = policy.resume(state, progress) is not None
    assert told == (state not in ENDING or progress.stop is Purpose.HOLD)


@UNHURRIED
@given(st.sampled_from(ENDING), progresses)
def test_a_resume_never_weakens_a_cancel(state: DeliveryState, progress: DeliveryProgress) -> None:
    cancelled = replace(progress, stop=Purpose.CANCEL)
    assert policy.resume(state, cancelled) is None
    event = policy.resume(state, progress)
    if event:
        assert DELIVERY.step(state, progress, event).data.stop is Purpose.RESTART


ENDINGS: list[policy.Ending] = [
    delivery.AllStored(),
    delivery.SomeRefused("refused"),
    delivery.AttemptFailed("reset", 1),
    delivery.AttemptsExhausted("rejected"),
    delivery.ContentLost(),
    delivery.StoppedToGoOn(),
    delivery.StoppedToHold(),
    delivery.StoppedToCancel(),
]


@pytest.mark.parametrize(("stop", "ending"), list(product([None, *Purpose], ENDINGS)))
def test_the_last_word_is_the_node_s_then_the_stop_s_then_the_attempt_s(
    stop: Purpose | None, ending: policy.Ending
) -> None:
    progress = DeliveryProgress(stop=stop)
    word = policy.last_word(progress, ending)
    node_spoke = isinstance(ending, delivery.AllStored | delivery.SomeRefused)
    attempt_failed = isinstance(
        ending, delivery.AttemptFailed | delivery.AttemptsExhausted | delivery.ContentLost
    )
    if node_spoke or (attempt_failed and stop is None):
        assert word is ending
    else:
        assert word == policy.stopped(progress)


def ended(endings: Iterable[tuple[Outcome, str | None]], *, files_total: int = 4) -> policy.Endings:
    return {
        f"node_{number}": (outcome, DeliveryProgress(files_total, error=error))
        for number, (outcome, error) in enumerate(endings)
    }


TRUTH = {
    (DONE, DONE): dispatch.AllDelivered,
    (DONE, FAILED): dispatch.SomeFailed,
    (DONE, CANCELLED): dispatch.AllCancelled,
    (FAILED, DONE): dispatch.SomeFailed,
    (FAILED, FAILED): dispatch.SomeFailed,
    (FAILED, CANCELLED): dispatch.SomeFailed,
    (CANCELLED, DONE): dispatch.AllCancelled,
    (CANCELLED, FAILED): dispatch.SomeFailed,
    (CANCELLED, CANCELLED): dispatch.AllCancelled,
}


@pytest.mark.parametrize("outcomes", TRUTH)
def test_a_dispatch_is_completed_only_if_every_node_has_everything(
    outcomes: tuple[Outcome, Outcome],
) -> None:
    endings = ended((outcome, None) for outcome in outcomes)
    assert type(policy.dispatch_over(endings)) is TRUTH[outcomes]


@UNHURRIED
@given(st.lists(st.tuples(st.sampled_from(Outcome), st.text(min_size=1)), max_size=6))
def test_a_dispatch_over_says_the_first_error_and_how_many_nodes_lack_instances(
    endings: list[tuple[Outcome, str]],
) -> None:
    event = policy.dispatch_over(ended(endings))
    undeliverable = [ending for ending in endings if ending[0] is not DONE]
    failed = [error for outcome, error in endings if outcome is FAILED]
    if failed:
        error = f"{len(undeliverable)} of {len(endings)} nodes lack instances: {failed[0]}"
        assert event == dispatch.SomeFailed(error)
    elif undeliverable:
        assert event == dispatch.AllCancelled(undeliverable[0][1])
    else:
        assert event == dispatch.AllDelivered()


def test_an_end_without_an_error_still_has_words() -> None:
    assert policy.dispatch_over(ended([(FAILED, None)])) == dispatch.SomeFailed(
        "1 of 1 nodes lack instances: failed"
    )
    assert policy.dispatch_over(ended([(CANCELLED, None)])) == dispatch.AllCancelled("cancelled")


def test_where_there_was_nothing_to_send_no_node_is_to_blame() -> None:
    endings = ended([(FAILED, "ITH has no such session")] * 2, files_total=0)
    assert policy.verdict(endings) == (FAILED, "ITH has no such session")


@given(st.permutations(["a", "b", "c"]))
def test_the_verdict_is_the_same_whichever_node_ended_first(order: list[str]) -> None:
    endings = {each: (FAILED, DeliveryProgress(4, error=each)) for each in order}
    assert policy.verdict(endings) == (FAILED, "3 of 3 nodes lack instances: a")


@UNHURRIED
@given(counts, st.integers(1, 10), st.booleans(), st.booleans(), chances)
def test_the_breaker_trips_at_the_threshold_and_again_with_each_probe(
    failures: int, threshold: int, is_open: bool, is_probe: bool, uniform: float
) -> None:
    event = policy.node_failed(
        node.Health(failures),
        "reset",
        is_open=is_open,
        is_probe=is_probe,
        threshold=threshold,
        interval=10,
        cap=60,
        uniform=uniform,
    )
    if (is_open and not is_probe) or (not is_open and failures + 1 < threshold):
        assert event == node.NodeFailed("reset")
    else:
        assert isinstance(event, node.BreakerTripped)
        assert 1 <= event.probe_in <= 60


def test_probes_grow_rarer() -> None:
    waits = [
        policy.node_failed(
            node.Health(failures),
            "reset",
            is_open=failures > 2,
            is_probe=failures > 2,
            threshold=3,
            interval=10,
            cap=60,
            uniform=0.5,
        )
        for failures in range(2, 7)
    ]
    found = [event.probe_in for event in waits if isinstance(event, node.BreakerTripped)]
    assert found == pytest.approx([5.5, 11, 22, 33, 33])


@pytest.mark.parametrize(
    ("given", "now", "is_news"),
    [(4, 4, True), (3, 4, True), (1, 1, True), (4, 3, False), (4, 2, False), (2, 1, False)],
)
def test_several_refusals_under_one_limit_are_one_congestion(
    given: int, now: int, is_news: bool
) -> None:
    health = node.Health(associations=now, ceiling=4)
    expected = node.CongestionReported() if is_news else None
    assert policy.congested(health, given=given) == expected


@pytest.mark.parametrize(
    ("given", "before", "stored", "proves"),
    [
        (1, 0, 99, False),
        (1, 0, 100, True),
        (1, 60, 40, True),
        (1, 60, 39, False),
        (3, 0, 9999, True),
        (4, 0, 9999, False),
    ],
)
def test_an_increase_is_earned_by_instances_without_a_refusal_below_the_ceiling(
    given: int, before: int, stored: int, proves: bool
) -> None:
    health = node.Health(associations=given, ceiling=4, coped=before)
    told = policy.coped(health, stored, threshold=100)
    assert told == (node.LimitIncreaseEarned() if proves else node.InstancesStored(stored))
