"""Pure functions that classify a situation into one exact event of a machine.

Machines have no guards. The owner of a machine asks here which event applies, then sends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from proxy.machines import delivery, dispatch, node, operation
from proxy.machines.delivery import DeliveryProgress, DeliveryState, Outcome, Purpose
from proxy.machines.dispatch import DispatchState
from proxy.machines.failures import Remedy
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
"""Every event that ends an attempt to store."""

Endings: TypeAlias = Mapping[str, tuple[Outcome, DeliveryProgress]]
"""The outcome and the progress of each delivery that is over, by node id."""


DELETED = "deleted in ITH; a node keeps what it was sent, for DICOM has no delete"
"""The error of a delivery that has nothing left to send because of a deletion."""


def full_jitter(attempt: int, base: float, cap: float, uniform: float) -> float:
    """Return the seconds to wait before attempt ``attempt`` + 1, drawn at random.

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
    """Decide on another attempt after a failed one to deliver: at once, later, or never.

    ``away`` says that the node did not answer. Its next answer then ends the wait early.
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
    """Decide on another attempt after a failed download: later, or never.

    A failed repetition of a download does not end the dispatch. ``retry_after`` is the wait in
    seconds that ITH asked for; it is obeyed up to ``cap``.
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
    """Return the event for a dispatch that lost content; None if it is not fetched once more."""
    is_final = state is DispatchState.DELIVERING and work.refetches >= dispatch.REFETCHES
    return None if is_final or state in dispatch.OVER else dispatch.ContentLost(error)


def deleted(kind: str) -> str:
    """Return the reason why a delivery ends that a deletion, of a ``kind`` of entity, touched."""
    return f"{kind} {DELETED}"


def settled(
    progress: DeliveryProgress, passed_over: int = 0, unsent: int = 0, why: str = ""
) -> delivery.AllStored | delivery.SomeRefused:
    """Return the end of a delivery with nothing left to send; an empty delivery is no success.

    ``passed_over`` counts the files and archives that may hold images and could not be read,
    ``unsent`` the instances that no node can be sent, and ``why`` is what is said of those.
    """
    if not progress.files_total:
        return delivery.SomeRefused(DELETED)
    if progress.files_stored >= progress.files_total:
        return delivery.AllStored()
    refused, total = progress.files_refused, progress.files_total
    unusable = total - progress.files_stored - refused - passed_over - unsent
    sentences = []
    if refused:
        reasons = [each.in_full.removesuffix(".") for each in progress.refusals]
        refusal = ". ".join(reasons) or "the node refused them"
        sentences.append(f"{refused} of {total} instances refused: {refusal}")
    if unsent:
        sentences.append(
            f"{unsent} of {total} instances {why or 'came damaged from ITH and cannot be sent'}"
        )
    if unusable > 0:
        sentences.append(f"{unusable} of {total} instances came damaged from ITH or were lost here")
    if passed_over:
        sentences.append(
            f"{passed_over} of {total} files may hold images and could not be read: they are "
            "damaged, encrypted, too large, or packed in a way that is not supported; the log of "
            "the proxy has the reason for each"
        )
    return delivery.SomeRefused("; ".join(sentences))


def stopped(
    progress: DeliveryProgress,
) -> delivery.StoppedToGoOn | delivery.StoppedToHold | delivery.StoppedToCancel:
    """Return the event for a stopped delivery whose association is gone."""
    if progress.stop is Purpose.CANCEL:
        return delivery.StoppedToCancel()
    if progress.stop is Purpose.HOLD:
        return delivery.StoppedToHold()
    return delivery.StoppedToGoOn()


def last_word(progress: DeliveryProgress, ending: Ending) -> Ending:
    """Return the event for a delivery whose association is gone, or the stop in ``progress``.

    Only the node's answers for all instances are stronger than a stop.
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
    """Return the resume for a delivery; None while a stop that is no hold is under way."""
    stopping = state in {DeliveryState.STOPPING, DeliveryState.ABORTING}
    if stopping and progress.stop is not Purpose.HOLD:
        return None
    return delivery.ResumeRequested()


def verdict(endings: Endings) -> tuple[Outcome, str]:
    """Return the outcome of an order over all its nodes, and the error if it is not completed.

    The error is that of the first node by id, so that a repeated answer is the same. With nothing
    to send, the error names no node.
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
    """Return the event for a dispatch whose last delivery is over."""
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
    """Return the event for one more failure of a node; ``threshold`` in a row trip the breaker.

    A breaker that ``is_open`` stays open with each failed probe, and the wait before the next probe
    doubles. Attempts that began before it opened do not count.
    """
    failures = health.failures + 1
    trips_breaker = is_probe if is_open else failures >= threshold
    if not trips_breaker:
        return node.NodeFailed(error)
    trips = max(failures - threshold + 1, 1)
    wait = full_jitter(trips, interval, cap, uniform)
    return node.BreakerTripped(error, wait, by_probe=is_probe)


def may_try(state: NodeState, health: node.Health) -> bool:
    """Whether a delivery may try a node; an offline node, once after each failed probe."""
    given_up = state in {NodeState.OFFLINE, NodeState.PROBING}
    return state in node.OPEN or (given_up and not health.is_tried)


def congested(health: node.Health, *, given: int) -> node.CongestionReported | None:
    """Return the event for a node that refused one of the ``given`` associations of that moment.

    None if the limit is lower by now: another delivery has reported the same congestion.
    """
    return node.CongestionReported() if given <= health.associations else None


def coped(
    health: node.Health, stored: int, *, threshold: int
) -> node.InstancesStored | node.LimitIncreaseEarned:
    """Return the event for ``stored`` instances over one association without a complaint."""
    if health.associations < health.ceiling and health.coped + stored >= threshold:
        return node.LimitIncreaseEarned()
    return node.InstancesStored(stored)


def release(
    locks: operation.PauseLocks, lock: operation.PauseLock
) -> operation.LockReleased | operation.LastLockReleased:
    """Return the event for the release of ``lock``."""
    if locks.held.keys() - {lock}:
        return operation.LockReleased(lock)
    return operation.LastLockReleased(lock)
