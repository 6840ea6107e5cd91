"""Decisions the machines leave out: pure functions that turn what is known into an exact fact.

Machines have no guards. Who tells a machine something first asks here which fact it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from proxy.machines import delivery, dispatch, node, operation
from proxy.machines.delivery import DeliveryProgress, DeliveryState, Outcome, Purpose
from proxy.machines.dispatch import DispatchState
from proxy.machines.failure_table import Remedy
from proxy.machines.node import NodeState

Ending: TypeAlias = (
    delivery.AllStored
    | delivery.SomeRefused
    | delivery.AttemptFailed
    | delivery.AttemptsExhausted
    | delivery.TurnYielded
    | delivery.NodeCrowded
    | delivery.ContentLost
    | delivery.StoppedToGoOn
    | delivery.StoppedToHold
    | delivery.StoppedToCancel
)
"""How an attempt to store can end."""

Endings: TypeAlias = Mapping[str, tuple[Outcome, DeliveryProgress]]
"""How deliveries ended, by node id."""


DELETED = "deleted in ITH; a node keeps what it was sent, for DICOM has no delete"
"""Why a delivery ends of which nothing is left to send."""


def full_jitter(attempt: int, base: float, cap: float, uniform: float) -> float:
    """Seconds to wait before try ``attempt`` + 1, spread over the whole interval.

    ``attempt`` counts from 1, ``uniform`` is drawn from [0, 1). A tenth of the interval is kept as
    a floor, so that bad luck cannot make a tight loop.
    """
    ceiling = min(cap, base * 2.0 ** min(attempt - 1, 32))
    return ceiling * (0.1 + 0.9 * uniform)


def after_attempt(
    progress: DeliveryProgress,
    error: str,
    remedy: Remedy,
    *,
    retry_count: int,
    retry_delay: float,
    retry_max: float,
    uniform: float,
    away: bool = False,
) -> delivery.AttemptFailed | delivery.AttemptsExhausted:
    """What a failed attempt to deliver means: another one at once or later, or the end.

    ``away`` says that the node did not answer: if it does, that need not be waited for.
    """
    if remedy is Remedy.NEVER or progress.attempts >= retry_count:
        return delivery.AttemptsExhausted(error)
    if remedy is Remedy.RETRY_NOW:
        return delivery.AttemptFailed(error, 0.0, away)
    wait = full_jitter(progress.attempts + 1, retry_delay, retry_max, uniform)
    return delivery.AttemptFailed(error, wait, away)


def after_fetch(
    work: dispatch.DispatchData,
    error: str,
    *,
    permanent: bool,
    attempts: int,
    cap: float,
    uniform: float,
    retry_after: float = 0.0,
) -> dispatch.FetchFailed | dispatch.FetchExhausted | dispatch.RefetchExhausted:
    """What a failed download means: another attempt later, or the end.

    The end of a download of what was there before is not that of the dispatch. ``retry_after`` is
    how many seconds ITH asked for; it is kept up to ``cap``.
    """
    if permanent or work.attempts + 1 >= attempts:
        if work.refetches:
            return dispatch.RefetchExhausted(error)
        return dispatch.FetchExhausted(error)
    wait = full_jitter(work.attempts + 1, 5.0, cap, uniform)
    return dispatch.FetchFailed(error, max(wait, min(retry_after, cap)))


def content_lost(
    state: DispatchState, work: dispatch.DispatchData, error: str
) -> dispatch.ContentLost | None:
    """What to tell a dispatch of whose content something is lost; None if that is final."""
    is_final = state is DispatchState.DELIVERING and work.refetches >= dispatch.REFETCHES
    return None if is_final or state in dispatch.OVER else dispatch.ContentLost(error)


def deleted(kind: str) -> str:
    """Return the reason why a delivery ends that a deletion, of a ``kind`` of entity, touched."""
    return f"{kind} {DELETED}"


def settled(
    progress: DeliveryProgress, passed_over: int = 0
) -> delivery.AllStored | delivery.SomeRefused:
    """How a delivery ends that has nothing left to send; nothing at all is no success.

    Of what was to be sent, ``passed_over`` are archives within the archive.
    """
    if not progress.files_total:
        return delivery.SomeRefused(DELETED)
    if progress.files_stored >= progress.files_total:
        return delivery.AllStored()
    refused, total = progress.files_refused, progress.files_total
    unusable = total - progress.files_stored - refused - passed_over
    sentences = []
    if refused:
        why = progress.refusal or "the node refused them"
        sentences.append(f"{refused} of {total} instances refused: {why}")
    if unusable > 0:
        sentences.append(f"{unusable} of {total} instances came damaged from ITH or were lost here")
    if passed_over:
        sentences.append(
            f"{passed_over} of {total} files are archives within the archive, which hold images or "
            "cannot be read; they were not unpacked"
        )
    return delivery.SomeRefused("; ".join(sentences))


def stopped(
    progress: DeliveryProgress,
) -> delivery.StoppedToGoOn | delivery.StoppedToHold | delivery.StoppedToCancel:
    """What follows once the association of a stopped delivery is gone."""
    if progress.stop is Purpose.CANCEL:
        return delivery.StoppedToCancel()
    if progress.stop is Purpose.HOLD:
        return delivery.StoppedToHold()
    return delivery.StoppedToGoOn()


def last_word(progress: DeliveryProgress, ending: Ending) -> Ending:
    """What to tell when the association is gone: a stop that came meanwhile is in ``progress``.

    Only what the node said of every instance is stronger than a stop.
    """
    if isinstance(ending, delivery.AllStored | delivery.SomeRefused):
        return ending
    own = (
        delivery.AttemptFailed
        | delivery.AttemptsExhausted
        | delivery.TurnYielded
        | delivery.NodeCrowded
        | delivery.ContentLost
    )
    return ending if isinstance(ending, own) and progress.stop is None else stopped(progress)


def resume(state: DeliveryState, progress: DeliveryProgress) -> delivery.ResumeRequested | None:
    """The resume to tell a delivery; None where it must not be told: its stop is no hold."""
    stopping = state in {DeliveryState.STOPPING, DeliveryState.ABORTING}
    if stopping and progress.stop is not Purpose.HOLD:
        return None
    return delivery.ResumeRequested()


def verdict(endings: Endings) -> tuple[Outcome, str]:
    """How an order ended as a whole, and why if it is not completed.

    The error is that of the first node by id, so that an answer given again is the same; where
    there was nothing to send, it is not a node's.
    """
    ended = [endings[node_id] for node_id in sorted(endings)]
    errors = {outcome: progress.error for outcome, progress in reversed(ended)}
    if Outcome.FAILED in errors:
        failed = sum(outcome is not Outcome.COMPLETED for outcome, _ in ended)
        error = errors[Outcome.FAILED] or "failed"
        if any(progress.files_total for _, progress in ended):
            error = f"{failed} of {len(ended)} nodes lack instances: {error}"
        return Outcome.FAILED, error
    if Outcome.CANCELLED in errors:
        return Outcome.CANCELLED, errors[Outcome.CANCELLED] or "cancelled"
    return Outcome.COMPLETED, ""


def dispatch_over(
    endings: Endings,
) -> dispatch.AllDelivered | dispatch.SomeFailed | dispatch.AllCancelled:
    """What a dispatch is told with its last delivery."""
    outcome, error = verdict(endings)
    if outcome is Outcome.FAILED:
        return dispatch.SomeFailed(error)
    if outcome is Outcome.CANCELLED:
        return dispatch.AllCancelled(error)
    return dispatch.AllDelivered()


def node_failed(
    health: node.Health,
    error: str,
    *,
    is_open: bool,
    is_probe: bool,
    threshold: int,
    interval: float,
    cap: float,
    uniform: float,
) -> node.NodeFailed | node.BreakerTripped:
    """What one more failure of a node means; ``threshold`` failures in a row trip the breaker.

    One that ``is_open`` stays so with each probe that fails, and the next is twice as far off.
    What was tried before it opened, and fails since, is no news.
    """
    failures = health.failures + 1
    trips_breaker = is_probe if is_open else failures >= threshold
    if not trips_breaker:
        return node.NodeFailed(error)
    trips = max(failures - threshold + 1, 1)
    wait = full_jitter(trips, interval, cap, uniform)
    return node.BreakerTripped(error, wait, by_probe=is_probe)


def may_try(state: NodeState, health: node.Health) -> bool:
    """Whether a delivery may try a node; one that was given up, once after each failed probe."""
    given_up = state in {NodeState.OFFLINE, NodeState.PROBING}
    return state in node.OPEN or (given_up and not health.is_tried)


def congested(health: node.Health, *, given: int) -> node.CongestionReported | None:
    """What it means that a node had no room for one of the ``given`` that it was given then.

    None where it is given fewer by now: the same congestion, of which another one told before.
    """
    return node.CongestionReported() if given <= health.associations else None


def coped(
    health: node.Health, stored: int, *, threshold: int
) -> node.InstancesStored | node.LimitIncreaseEarned:
    """What it means that a node stored so many instances over one association, uncomplaining."""
    if health.associations < health.ceiling and health.coped + stored >= threshold:
        return node.LimitIncreaseEarned()
    return node.InstancesStored(stored)


def release(
    locks: operation.PauseLocks, lock: operation.PauseLock
) -> operation.LockReleased | operation.LastLockReleased:
    """What it means that ``lock`` is given back."""
    if locks.held.keys() - {lock}:
        return operation.LockReleased(lock)
    return operation.LastLockReleased(lock)
