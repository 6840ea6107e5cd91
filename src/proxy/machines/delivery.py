"""One delivery: the instances of one dispatch, sent to one DICOM node."""

# Longer than other modules: one machine is one file, read from top to bottom.

from __future__ import annotations

from enum import Enum
from typing import ClassVar, TypeAlias

import msgspec

from proxy.fsm import (
    STAY,
    WHEN_OVER,
    ActivityFailed,
    Event,
    Machine,
    Source,
    group,
    ignore,
    limit,
    row,
    state,
)


class DeliveryState(Enum):
    """Where a delivery is."""

    WAITING = "Waiting for the content, for the node and for its turn to have an association."
    STORING = "The node is asked for what is in doubt, then C-STORE requests are sent to it."
    BACKING_OFF = "The node failed. Waiting before the next attempt."
    HELD = "Nothing is sent until the hold ends. What the node has is kept in the ledger."
    STOPPING = "Told to stop. The C-STORE in flight may end within the grace."
    ABORTING = "The C-STORE in flight did not end in time. The association is cut."
    COMPLETED = "The node said of every instance that it has it."
    FAILED = "Given up. The error says why."
    CANCELLED = "Ended on request before the node had every instance."


class Outcome(Enum):
    """How a delivery or a dispatch ended; the ledger's words."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Purpose(Enum):
    """What a stop is for; a later one of the list is stronger and is never weakened."""

    RESTART = "restart"
    HOLD = "hold"
    CANCEL = "cancel"

    @property
    def strength(self) -> int:
        """A larger one wins."""
        return list(Purpose).index(self)


class ContentReady(Event, frozen=True):
    """The instances are in the local PACS; the ledger knows what the node has of them."""

    source: ClassVar[Source] = Source.SUPERVISOR
    files_total: int
    files_stored: int
    files_refused: int


class Followed(Event, frozen=True):
    """Another dispatch brings the same entity to the node: the ledger counts what is there now."""

    files_total: int
    files_stored: int
    files_refused: int


class BackOffKept(Event, frozen=True):
    """A restart came into a back-off: the ledger kept the attempts and the next one's time."""

    attempts: int
    retry_in: float
    error: str
    away: bool = False


class TurnGranted(Event, frozen=True):
    """The content is there, the node takes work and an association is free."""


class TurnYielded(Event, frozen=True):
    """The association is gone: between two instances, another delivery's turn came."""


class NodeCrowded(Event, frozen=True):
    """The node takes no association beside those that it has of ours: to be tried after them."""


class ContentLost(Event, frozen=True):
    """The association is gone: an object is not on this host's disk as it came from ITH."""


class InstanceStored(Event, frozen=True):
    """The node answered a C-STORE with success or a warning."""


class InstanceFound(Event, frozen=True):
    """Asked by C-FIND for an instance whose C-STORE had no answer, the node said it has it."""


class InstanceRefused(Event, frozen=True):
    """The node will never take this instance as it is."""

    error: str


class AllStored(Event, frozen=True):
    """Nothing is left to send and the node has every instance."""


class SomeRefused(Event, frozen=True):
    """Nothing is left to send, but the node does not have everything."""

    error: str


class AttemptFailed(Event, frozen=True):
    """The attempt failed and the node's settings allow another one.

    ``away``: the node did not answer.
    """

    error: str
    retry_in: float
    away: bool = False


class AttemptsExhausted(Event, frozen=True):
    """The attempt failed and no further one is allowed, or none can help."""

    error: str


class RetryDue(Event, frozen=True):
    """The back-off is over."""

    source: ClassVar[Source] = Source.TIMER


class StopTimedOut(Event, frozen=True):
    """The C-STORE in flight did not end within the grace."""

    source: ClassVar[Source] = Source.TIMER


class StoppedToGoOn(Event, frozen=True):
    """The association is gone, and the delivery goes on from the ledger."""


class StoppedToHold(Event, frozen=True):
    """The association is gone, and the delivery is held."""


class StoppedToCancel(Event, frozen=True):
    """The association is gone, and the delivery ends."""


class RestartRequested(Event, frozen=True):
    """The node changed or came back: go on at once, over a fresh association."""

    source: ClassVar[Source] = Source.SUPERVISOR
    reason: str


class NodeMoved(Event, frozen=True):
    """The node is at another address, or known by another name: it is another node."""

    source: ClassVar[Source] = Source.SUPERVISOR


class HoldRequested(Event, frozen=True):
    """The proxy pauses or stops, or the node is set inactive."""

    source: ClassVar[Source] = Source.SUPERVISOR
    reason: str


class ResumeRequested(Event, frozen=True):
    """No hold is left; told only where the stop under way, if any, is a hold."""

    source: ClassVar[Source] = Source.SUPERVISOR


class CancelRequested(Event, frozen=True):
    """The entity was deleted or the node removed."""

    source: ClassVar[Source] = Source.SUPERVISOR
    reason: str


class GiveUpRequested(Event, frozen=True):
    """The content cannot be had."""

    source: ClassVar[Source] = Source.SUPERVISOR
    error: str


class DeliveryProgress(msgspec.Struct, frozen=True):
    """What a delivery remembers beside its state; durations in seconds.

    ``attempts`` counts the failed attempts since an instance was last stored or found, or
    the node moved.
    ``away`` says that the last of them failed because the node did not answer.
    ``refusal`` is why the node last refused one, ``error`` what last went wrong or stopped it;
    ``stop`` is what the stop under way is for.
    """

    files_total: int = 0
    files_stored: int = 0
    files_refused: int = 0
    attempts: int = 0
    retry_in: float = 0.0
    away: bool = False
    grace: float = 3.0
    error: str | None = None
    stop: Purpose | None = None
    refusal: str | None = None


class ReportProgress(msgspec.Struct, frozen=True):
    """Output: tell ITH how far the delivery is."""

    progress: DeliveryProgress


class SaveAttempt(msgspec.Struct, frozen=True):
    """Output: write the failed attempts, if any, and the next one's time to the ledger."""

    progress: DeliveryProgress


class CloseDelivery(msgspec.Struct, frozen=True):
    """Output: write the outcome to the ledger and report it to ITH."""

    outcome: Outcome
    progress: DeliveryProgress


DeliveryOutput: TypeAlias = ReportProgress | SaveAttempt | CloseDelivery
_Result: TypeAlias = tuple[DeliveryProgress, tuple[DeliveryOutput, ...]]

replace = msgspec.structs.replace


def count_content(progress: DeliveryProgress, event: ContentReady) -> _Result:
    """Take over what the ledger counts."""
    return replace(
        progress,
        files_total=event.files_total,
        files_stored=event.files_stored,
        files_refused=event.files_refused,
    ), ()


def report_followed(progress: DeliveryProgress, event: Followed) -> _Result:
    """Take over what the ledger counts, and say how far it is."""
    progress = replace(
        progress,
        files_total=event.files_total,
        files_stored=event.files_stored,
        files_refused=event.files_refused,
    )
    return progress, (ReportProgress(progress),)


def take_up_attempts(progress: DeliveryProgress, event: BackOffKept) -> _Result:
    """Go on counting, and wait for the rest of the time."""
    return replace(
        progress,
        attempts=event.attempts,
        retry_in=event.retry_in,
        error=event.error,
        away=event.away,
    ), ()


def report_advance(progress: DeliveryProgress, event: TurnGranted) -> _Result:
    """Say that sending begins."""
    return progress, (ReportProgress(progress),)


def count_stored(progress: DeliveryProgress, event: InstanceStored | InstanceFound) -> _Result:
    """Count the instance, forget earlier failures, say how far it is."""
    stored = progress.files_stored + 1
    progress = replace(progress, files_stored=stored, attempts=0)
    return progress, (ReportProgress(progress),)


def count_refused(progress: DeliveryProgress, event: InstanceRefused) -> _Result:
    """Count the refusal and keep its reason."""
    refused = progress.files_refused + 1
    return replace(progress, files_refused=refused, refusal=event.error), ()


def keep_attempt(progress: DeliveryProgress, event: AttemptFailed) -> _Result:
    """Count the attempt, keep its error and the time to wait."""
    attempts = progress.attempts + 1
    progress = replace(
        progress,
        attempts=attempts,
        error=event.error,
        retry_in=event.retry_in,
        away=event.away,
    )
    return progress, (SaveAttempt(progress),)


def forget_attempts(progress: DeliveryProgress, event: NodeMoved) -> _Result:
    """Begin to count again from none."""
    progress = replace(progress, attempts=0)
    return progress, (SaveAttempt(progress),)


def want_restart(progress: DeliveryProgress, event: RestartRequested) -> _Result:
    """Remember to go on afterwards, unless the stop is already for more than that."""
    return _stronger(progress, Purpose.RESTART, event.reason), ()


def want_hold(progress: DeliveryProgress, event: HoldRequested) -> _Result:
    """Remember to hold afterwards, unless the stop is already for more than that."""
    return _stronger(progress, Purpose.HOLD, event.reason), ()


def want_cancel(progress: DeliveryProgress, event: CancelRequested) -> _Result:
    """Remember to end afterwards."""
    return _stronger(progress, Purpose.CANCEL, event.reason), ()


def _stronger(progress: DeliveryProgress, purpose: Purpose, reason: str) -> DeliveryProgress:
    if progress.stop and progress.stop.strength >= purpose.strength:
        return progress
    return replace(progress, stop=purpose, error=reason)


def want_to_go_on(progress: DeliveryProgress, event: ResumeRequested) -> _Result:
    """Go on afterwards: over a fresh association, because a restart may be due beneath the hold."""
    return replace(progress, stop=Purpose.RESTART), ()


def forget_stop(progress: DeliveryProgress, event: StoppedToGoOn | StoppedToHold) -> _Result:
    """The stop is done."""
    return replace(progress, stop=None), ()


def report_completed(progress: DeliveryProgress, event: AllStored) -> _Result:
    """Say that the node has everything."""
    progress = replace(progress, error=None, stop=None)
    return progress, (CloseDelivery(Outcome.COMPLETED, progress),)


def report_failed(
    progress: DeliveryProgress, event: SomeRefused | AttemptsExhausted | GiveUpRequested
) -> _Result:
    """Say that the delivery failed, and why."""
    progress = replace(progress, error=event.error, stop=None)
    return progress, (CloseDelivery(Outcome.FAILED, progress),)


def report_fault(progress: DeliveryProgress, event: ActivityFailed) -> _Result:
    """Say that the proxy itself failed."""
    progress = replace(progress, error=f"internal error: {event.error}", stop=None)
    return progress, (CloseDelivery(Outcome.FAILED, progress),)


def report_cancelled(progress: DeliveryProgress, event: CancelRequested) -> _Result:
    """Say that the delivery ended on request, and on which."""
    progress = replace(progress, error=event.reason, stop=None)
    return progress, (CloseDelivery(Outcome.CANCELLED, progress),)


def report_stopped(progress: DeliveryProgress, event: StoppedToCancel) -> _Result:
    """Say that the delivery ended on request; the stop kept the reason."""
    progress = replace(progress, stop=None)
    return progress, (CloseDelivery(Outcome.CANCELLED, progress),)


(WAITING, STORING, BACKING_OFF, HELD, STOPPING, ABORTING, COMPLETED, FAILED, CANCELLED) = (
    DeliveryState
)
IDLE = group("IDLE", WAITING, BACKING_OFF, HELD, doc="No association is open for the delivery.")
WIRED = group(
    "WIRED", STORING, STOPPING, ABORTING, doc="An association is open, or is being closed."
)
OVER = group("OVER", COMPLETED, FAILED, CANCELLED, doc="The outcome is in the ledger.")
ENDING = (STOPPING, ABORTING)

DELIVERY: Machine[DeliveryState, DeliveryProgress, DeliveryOutput] = Machine(
    name="delivery",
    purpose=__doc__,
    initial=WAITING,
    final=frozenset(OVER),
    groups=(IDLE, WIRED, OVER),
    definitions=(
        state(
            WAITING,
            do="wait_for_turn",
            untimed="ITH waits for the download; a node that is down costs an attempt each time",
        ),
        state(
            STORING,
            do="store_instances",
            untimed="the association has its own clocks: connect, answer, stall, response",
        ),
        state(
            BACKING_OFF,
            after=limit(
                lambda progress: progress.retry_in,
                RetryDue,
                "full jitter over the node's retry_delay, doubled for each attempt",
            ),
        ),
        state(HELD, untimed="a pause lasts as long as whoever asked for it wants"),
        state(
            STOPPING,
            do="store_instances",
            after=limit(
                lambda progress: progress.grace, StopTimedOut, "dicom.cancel_seconds (default 3 s)"
            ),
        ),
        state(ABORTING, do="settle", untimed="the association is cut before settle begins"),
    ),
    rows=(
        row(
            "DLV-01",
            (*IDLE, *WIRED),
            ContentReady,
            STAY,
            count_content,
            doc="The download is whole, or a deletion took a part of it.",
            traces=("REQ-EVT-05", "REQ-PROT-49", "REQ-REL-13"),
        ),
        row(
            "DLV-02",
            WAITING,
            TurnGranted,
            STORING,
            report_advance,
            doc="Its turn has come.",
            traces=("REQ-EVT-05", "REQ-PROT-44", "BEH-08"),
        ),
        row(
            "DLV-03",
            WIRED,
            (InstanceStored, InstanceFound),
            STAY,
            count_stored,
            doc="The node has one more, and it need not be sent again.",
            traces=("REQ-PROM-1", "REQ-REL-03", "BEH-31", "BEH-50", "BEH-51"),
        ),
        row(
            "DLV-04",
            WIRED,
            InstanceRefused,
            STAY,
            count_refused,
            doc="The other instances are sent all the same.",
            traces=("REQ-PROM-1", "REQ-DCM-10"),
        ),
        row(
            "DLV-05",
            WIRED,
            AllStored,
            COMPLETED,
            report_completed,
            doc="The node has them all, even if a stop was under way.",
            traces=("REQ-PROM-1", "BEH-05"),
        ),
        row(
            "DLV-06",
            WIRED,
            SomeRefused,
            FAILED,
            report_failed,
            doc="No other attempt can help.",
            traces=("REQ-DCM-10", "BEH-05"),
        ),
        row(
            "DLV-07",
            (WAITING, STORING),
            AttemptFailed,
            BACKING_OFF,
            keep_attempt,
            doc="The node is tried again later.",
            traces=("REQ-PROT-46", "BEH-35"),
        ),
        row(
            "DLV-08",
            (WAITING, STORING),
            AttemptsExhausted,
            FAILED,
            report_failed,
            doc="No further attempt is allowed.",
            traces=("REQ-PROT-46", "BEH-35"),
        ),
        row(
            "DLV-09",
            BACKING_OFF,
            (RetryDue, RestartRequested),
            WAITING,
            doc="The wait is over, or there is no need to wait any longer.",
            traces=("REQ-PROT-46", "BEH-35", "REQ-PROT-51", "BEH-36"),
        ),
        row(
            "DLV-10",
            (WAITING, BACKING_OFF),
            HoldRequested,
            HELD,
            doc="Nothing is in flight, so the hold begins at once.",
            traces=("REQ-PROT-53", "REQ-OPS-01", "BEH-44"),
        ),
        row(
            "DLV-11",
            STORING,
            HoldRequested,
            STOPPING,
            want_hold,
            doc="The instance in flight may end before the hold.",
            traces=("REQ-PROT-53", "REQ-OPS-01", "BEH-45"),
        ),
        row(
            "DLV-12",
            ENDING,
            HoldRequested,
            STAY,
            want_hold,
            doc="The delivery will be held instead of going on.",
            traces=("REQ-PROM-3", "BEH-45"),
        ),
        row(
            "DLV-13",
            HELD,
            ResumeRequested,
            WAITING,
            doc="It goes on with what the node lacks.",
            traces=("REQ-REL-04", "BEH-46"),
        ),
        row(
            "DLV-14",
            ENDING,
            ResumeRequested,
            STAY,
            want_to_go_on,
            doc="It goes on once the instance in flight has ended or is cut.",
            traces=("BEH-45", "BEH-46"),
        ),
        row(
            "DLV-17",
            STORING,
            RestartRequested,
            STOPPING,
            want_restart,
            doc="The instance in flight may end before the restart.",
            traces=("REQ-PROT-51", "REQ-PROT-52"),
        ),
        row(
            "DLV-18",
            ENDING,
            RestartRequested,
            STAY,
            want_restart,
            doc="A restart weakens no stop: a hold stays a hold.",
            traces=("REQ-PROM-3", "REQ-PROT-51"),
        ),
        row(
            "DLV-33",
            (*IDLE, *WIRED),
            NodeMoved,
            STAY,
            forget_attempts,
            doc="What failed, failed at another node.",
            traces=("REQ-PROT-51",),
        ),
        row(
            "DLV-19",
            IDLE,
            CancelRequested,
            CANCELLED,
            report_cancelled,
            doc="Nothing is in flight, so the delivery ends at once.",
            traces=("REQ-PROT-49", "REQ-PROT-51", "BEH-06"),
        ),
        row(
            "DLV-20",
            STORING,
            CancelRequested,
            STOPPING,
            want_cancel,
            doc="The instance in flight may end before the delivery does.",
            traces=("REQ-PROT-49", "REQ-PROT-51", "REQ-REL-06"),
        ),
        row(
            "DLV-21",
            ENDING,
            CancelRequested,
            STAY,
            want_cancel,
            doc="A cancel is the strongest stop.",
            traces=("REQ-REL-06", "REQ-REL-13"),
        ),
        row(
            "DLV-22",
            IDLE,
            GiveUpRequested,
            FAILED,
            report_failed,
            doc="There is nothing that could be sent.",
            traces=("REQ-PROT-34", "REQ-PROT-39", "BEH-05"),
        ),
        row(
            "DLV-23",
            STOPPING,
            StopTimedOut,
            ABORTING,
            doc="The grace for what is sent is over.",
            traces=("REQ-PROM-3", "REQ-REL-06", "BEH-45"),
        ),
        row(
            "DLV-24",
            WIRED,
            StoppedToGoOn,
            WAITING,
            forget_stop,
            doc="It goes on over a new association.",
            traces=("REQ-PROM-3", "REQ-PROT-51", "REQ-REL-04"),
        ),
        row(
            "DLV-25",
            WIRED,
            StoppedToHold,
            HELD,
            forget_stop,
            doc="What is left to send is in the ledger.",
            traces=("REQ-REL-04", "REQ-OPS-01", "BEH-45"),
        ),
        row(
            "DLV-26",
            WIRED,
            StoppedToCancel,
            CANCELLED,
            report_stopped,
            doc="The association is gone, and so is the delivery.",
            traces=("REQ-REL-06", "BEH-06", "BEH-58"),
        ),
        row(
            "DLV-27",
            (WAITING, *WIRED),
            ActivityFailed,
            FAILED,
            report_fault,
            doc="A defect ends one delivery and no other.",
            traces=("REQ-OPS-06",),
        ),
        row(
            "DLV-28",
            STORING,
            (TurnYielded, NodeCrowded, ContentLost),
            WAITING,
            doc="It goes on when its turn comes again; that is no failed attempt.",
            traces=("BEH-08", "BEH-09", "BEH-10", "BEH-16", "BEH-41"),
        ),
        row(
            "DLV-30",
            WAITING,
            Followed,
            STAY,
            report_followed,
            doc="One delivery serves both dispatches.",
            traces=("BEH-27", "BEH-29"),
        ),
        row(
            "DLV-29",
            WAITING,
            BackOffKept,
            BACKING_OFF,
            take_up_attempts,
            doc="A restart of the program is no reason to hurry.",
            traces=("REQ-OPS-04",),
        ),
    ),
    ignores=(
        ignore(
            "DLV-82",
            HELD,
            (TurnGranted, Followed, BackOffKept),
            doc="The hold came first: a turn is given back, and it asks again when it goes on.",
        ),
        ignore(
            "DLV-83",
            (HELD, *ENDING),
            (AttemptFailed, AttemptsExhausted),
            doc="The stop came first, and is stronger; what is held finds out again.",
        ),
        ignore(
            "DLV-85",
            HELD,
            (HoldRequested, RestartRequested),
            doc="The delivery is held, and stays so until it is resumed.",
        ),
        ignore(
            "DLV-87",
            (WAITING, STORING, BACKING_OFF),
            ResumeRequested,
            doc="The delivery is not held.",
        ),
        ignore(
            "DLV-89",
            WAITING,
            RestartRequested,
            doc="Nothing is open, and the next attempt reads how the node is now.",
        ),
        ignore(
            "DLV-93", WIRED, GiveUpRequested, doc="The content was there, for it is being sent."
        ),
        ignore(
            "DLV-95",
            ENDING,
            (TurnYielded, NodeCrowded, ContentLost),
            doc="The association ends for the stop, whatever else ended it.",
        ),
    ),
    retired={
        "DLV-31": "DLV-03",
        "DLV-15": "DLV-14",
        "DLV-16": "DLV-09",
        "DLV-32": "DLV-28",
        "DLV-34": "DLV-28",
        "DLV-80": "DLV-95",
        "DLV-84": "DLV-83",
        "DLV-90": "DLV-85",
        "DLV-96": "DLV-82",
        "DLV-97": "DLV-82",
        "DLV-98": "DLV-95",
        "DLV-81": WHEN_OVER,
        "DLV-86": WHEN_OVER,
        "DLV-88": WHEN_OVER,
        "DLV-91": WHEN_OVER,
        "DLV-92": WHEN_OVER,
        "DLV-94": WHEN_OVER,
        "DLV-99": WHEN_OVER,
    },
    notes=(
        "In the ledger: each instance's state at the node, the failed attempts, when the next is "
        "due, the outcome. After a restart a delivery that was not over begins in WAITING, or goes "
        "on with its back-off, and sends what is left.",
        "An instance is in doubt when it was sent and no answer came, or when the program ended "
        "meanwhile. An attempt begins with asking the node for these by C-FIND, if it offers that: "
        "what it says it has counts as stored, everything else is sent again.",
        "A stop is in two steps: STOPPING lets the C-STORE in flight end, because C-STORE has no "
        "cancel; ABORTING cuts the association. An instance is counted only when the node "
        "answered.",
        "A turn lasts until the delivery ends, unless another one at the same node is more urgent, "
        "or as urgent and waits while many instances are sent. Who yields counts no attempt.",
    ),
)
