"""One delivery: the instances of one dispatch, sent to one DICOM node."""

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
    """The states of a delivery."""

    WAITING = "The delivery waits for the content, for the node and for a free association."
    STORING = "The node is asked for the instances in doubt, then C-STORE requests are sent to it."
    BACKING_OFF = "The attempt failed. The delivery waits before the next one."
    HELD = "Nothing is sent until the hold ends. The ledger keeps the state of each instance."
    STOPPING = "The delivery stops. The C-STORE in flight may end within the grace period."
    ABORTING = "The C-STORE in flight did not end in time. The association is cut."
    COMPLETED = "The node has every instance."
    FAILED = "The delivery is given up. The error has the reason."
    CANCELLED = "The delivery ended on request before the node had every instance."


class Outcome(Enum):
    """The outcome of a delivery or a dispatch, as the ledger writes it."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Purpose(Enum):
    """The purpose of a stop; a later one of the list is stronger and is never weakened."""

    RESTART = "restart"
    HOLD = "hold"
    CANCEL = "cancel"

    @property
    def strength(self) -> int:
        """The place in the list: a larger one wins."""
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
    """The program restarted in a back-off; the ledger kept the attempts and the next one's time."""

    attempts: int
    retry_in: float
    error: str
    away: bool = False


class TurnGranted(Event, frozen=True):
    """The content is there, the node takes work and an association is free."""


class TurnYielded(Event, frozen=True):
    """The association was closed between two instances for the turn of another delivery."""


class NodeCrowded(Event, frozen=True):
    """The node accepts no association beside those of this proxy that are open."""


class ContentLost(Event, frozen=True):
    """The association was closed because an object on this host's disk is lost or damaged."""


class InstanceStored(Event, frozen=True):
    """The node answered a C-STORE with success or a warning."""


class InstanceFound(Event, frozen=True):
    """The node answered C-FIND that it has an instance whose C-STORE had no answer."""


class InstanceRefused(Event, frozen=True):
    """The node will never take this instance as it is.

    ``named`` are the UIDs of what it refused; a UID that may hold a name is masked.
    """

    error: str
    named: str = ""


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
    """The attempt failed, and no further one is allowed or can help."""

    error: str


class RetryDue(Event, frozen=True):
    """The back-off is over."""

    source: ClassVar[Source] = Source.TIMER


class StopTimedOut(Event, frozen=True):
    """The C-STORE in flight did not end within the grace period."""

    source: ClassVar[Source] = Source.TIMER


class StoppedToGoOn(Event, frozen=True):
    """The association is gone, and the delivery goes on from the ledger."""


class StoppedToHold(Event, frozen=True):
    """The association is gone, and the delivery is held."""


class StoppedToCancel(Event, frozen=True):
    """The association is gone, and the delivery ends."""


class RestartRequested(Event, frozen=True):
    """The node changed or came back: go on at once, over a new association."""

    source: ClassVar[Source] = Source.SUPERVISOR
    reason: str


class NodeMoved(Event, frozen=True):
    """The node has another address or AE title, so it counts as another node."""

    source: ClassVar[Source] = Source.SUPERVISOR


class HoldRequested(Event, frozen=True):
    """The proxy pauses or stops, or the node is set inactive."""

    source: ClassVar[Source] = Source.SUPERVISOR
    reason: str


class ResumeRequested(Event, frozen=True):
    """No hold is left; sent only if the stop under way, if any, is a hold."""

    source: ClassVar[Source] = Source.SUPERVISOR


class CancelRequested(Event, frozen=True):
    """The entity was deleted or the node removed."""

    source: ClassVar[Source] = Source.SUPERVISOR
    reason: str


class GiveUpRequested(Event, frozen=True):
    """The content cannot be fetched."""

    source: ClassVar[Source] = Source.SUPERVISOR
    error: str


MOST_REASONS, MOST_NAMED = 5, 10
"""So many reasons for refusals are told, and so many of what was refused for each."""


class RefusalReason(msgspec.Struct, frozen=True):
    """One reason for which instances were refused; ``more`` counts those that are not named."""

    error: str
    named: tuple[str, ...] = ()
    more: int = 0

    @property
    def in_full(self) -> str:
        """The reason, and what was refused for it."""
        if not self.named:
            return self.error
        more = f" and {self.more} more" if self.more else ""
        return f"{self.error.removesuffix('.')}. Refused: {'; '.join(self.named)}{more}"

    def also(self, named: str) -> RefusalReason:
        """Return the refusal of one more; what was named already is not named again."""
        if not named or named in self.named:
            return self
        if len(self.named) < MOST_NAMED:
            return msgspec.structs.replace(self, named=(*self.named, named))
        return msgspec.structs.replace(self, more=self.more + 1)


class DeliveryProgress(msgspec.Struct, frozen=True):
    """The data of a delivery beside its state; durations in seconds.

    ``attempts`` counts the failed attempts since an instance was last stored or found, or the node
    moved. ``away`` says that the last attempt failed because the node did not answer. ``refusals``
    are the reasons for refused instances, the last one first, ``error`` is that of the last failure
    or stop. ``stop`` is the purpose of the stop under way.
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
    refusals: tuple[RefusalReason, ...] = ()


class ReportProgress(msgspec.Struct, frozen=True):
    """Output: report the progress of the delivery to ITH."""

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
    """Take over the counts of the ledger."""
    return replace(
        progress,
        files_total=event.files_total,
        files_stored=event.files_stored,
        files_refused=event.files_refused,
    ), ()


def report_followed(progress: DeliveryProgress, event: Followed) -> _Result:
    """Take over the counts of the ledger, and report the progress."""
    progress = replace(
        progress,
        files_total=event.files_total,
        files_stored=event.files_stored,
        files_refused=event.files_refused,
    )
    return progress, (ReportProgress(progress),)


def take_up_attempts(progress: DeliveryProgress, event: BackOffKept) -> _Result:
    """Go on counting the attempts, and wait for the rest of the time."""
    return replace(
        progress,
        attempts=event.attempts,
        retry_in=event.retry_in,
        error=event.error,
        away=event.away,
    ), ()


def report_advance(progress: DeliveryProgress, event: TurnGranted) -> _Result:
    """Report that sending begins."""
    return progress, (ReportProgress(progress),)


def count_stored(progress: DeliveryProgress, event: InstanceStored | InstanceFound) -> _Result:
    """Count the instance, forget earlier failures, and report the progress."""
    stored = progress.files_stored + 1
    progress = replace(progress, files_stored=stored, attempts=0)
    return progress, (ReportProgress(progress),)


def count_refused(progress: DeliveryProgress, event: InstanceRefused) -> _Result:
    """Count the refusal, keep its reason and what was refused."""
    refused = progress.files_refused + 1
    same = [each for each in progress.refusals if each.error == event.error]
    others = [each for each in progress.refusals if each.error != event.error]
    latest = (same[0] if same else RefusalReason(event.error)).also(event.named)
    refusals = (latest, *others)[:MOST_REASONS]
    return replace(progress, files_refused=refused, refusals=refusals), ()


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
    """Begin to count the attempts from zero."""
    progress = replace(progress, attempts=0)
    return progress, (SaveAttempt(progress),)


def want_restart(progress: DeliveryProgress, event: RestartRequested) -> _Result:
    """Remember to go on afterwards, unless the stop has a stronger purpose."""
    return _stronger(progress, Purpose.RESTART, event.reason), ()


def want_hold(progress: DeliveryProgress, event: HoldRequested) -> _Result:
    """Remember to hold afterwards, unless the stop has a stronger purpose."""
    return _stronger(progress, Purpose.HOLD, event.reason), ()


def want_cancel(progress: DeliveryProgress, event: CancelRequested) -> _Result:
    """Remember to end afterwards."""
    return _stronger(progress, Purpose.CANCEL, event.reason), ()


def _stronger(progress: DeliveryProgress, purpose: Purpose, reason: str) -> DeliveryProgress:
    if progress.stop and progress.stop.strength >= purpose.strength:
        return progress
    return replace(progress, stop=purpose, error=reason)


def want_to_go_on(progress: DeliveryProgress, event: ResumeRequested) -> _Result:
    """Go on afterwards, over a new association, because a restart may be due beneath the hold."""
    return replace(progress, stop=Purpose.RESTART), ()


def forget_stop(progress: DeliveryProgress, event: StoppedToGoOn | StoppedToHold) -> _Result:
    """Forget the stop, which is done."""
    return replace(progress, stop=None), ()


def report_completed(progress: DeliveryProgress, event: AllStored) -> _Result:
    """Report that the node has every instance."""
    progress = replace(progress, error=None, stop=None)
    return progress, (CloseDelivery(Outcome.COMPLETED, progress),)


def report_failed(
    progress: DeliveryProgress, event: SomeRefused | AttemptsExhausted | GiveUpRequested
) -> _Result:
    """Report that the delivery failed, with the reason."""
    progress = replace(progress, error=event.error, stop=None)
    return progress, (CloseDelivery(Outcome.FAILED, progress),)


def report_fault(progress: DeliveryProgress, event: ActivityFailed) -> _Result:
    """Report that the proxy itself failed."""
    progress = replace(progress, error=f"internal error: {event.error}", stop=None)
    return progress, (CloseDelivery(Outcome.FAILED, progress),)


def report_cancelled(progress: DeliveryProgress, event: CancelRequested) -> _Result:
    """Report that the delivery ended on request, with the reason of the request."""
    progress = replace(progress, error=event.reason, stop=None)
    return progress, (CloseDelivery(Outcome.CANCELLED, progress),)


def report_stopped(progress: DeliveryProgress, event: StoppedToCancel) -> _Result:
    """Report that the delivery ended on request; the stop kept the reason."""
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
            untimed="it lasts as long as the download and the turns of others; an attempt at a "
            "node that is down ends it",
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
        state(HELD, untimed="a pause lasts until its locks are released"),
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
            doc="The download is complete, or a deletion took a part of it.",
            traces=("REQ-EVT-05", "REQ-PROT-49", "REQ-REL-13"),
        ),
        row(
            "DLV-02",
            WAITING,
            TurnGranted,
            STORING,
            report_advance,
            doc="The turn of the delivery has come.",
            traces=("REQ-EVT-05", "REQ-PROT-44", "BEH-08"),
        ),
        row(
            "DLV-03",
            WIRED,
            (InstanceStored, InstanceFound),
            STAY,
            count_stored,
            doc="The node has one instance more, which need not be sent again.",
            traces=("REQ-PROM-1", "REQ-REL-03", "BEH-31", "BEH-50", "BEH-51"),
        ),
        row(
            "DLV-04",
            WIRED,
            InstanceRefused,
            STAY,
            count_refused,
            doc="A refused instance does not stop the others.",
            traces=("REQ-PROM-1", "REQ-DCM-10"),
        ),
        row(
            "DLV-05",
            WIRED,
            AllStored,
            COMPLETED,
            report_completed,
            doc="The node has every instance, even if a stop was under way.",
            traces=("REQ-PROM-1", "BEH-05"),
        ),
        row(
            "DLV-06",
            WIRED,
            SomeRefused,
            FAILED,
            report_failed,
            doc="Another attempt cannot help.",
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
            doc="The stop now ends in a hold.",
            traces=("REQ-PROM-3", "BEH-45"),
        ),
        row(
            "DLV-13",
            HELD,
            ResumeRequested,
            WAITING,
            doc="The delivery goes on with the instances that the node lacks.",
            traces=("REQ-REL-04", "BEH-46"),
        ),
        row(
            "DLV-14",
            ENDING,
            ResumeRequested,
            STAY,
            want_to_go_on,
            doc="The delivery goes on once the instance in flight has ended or is cut.",
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
            doc="The failed attempts were those at another node.",
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
            doc="A cancellation is the strongest stop.",
            traces=("REQ-REL-06", "REQ-REL-13"),
        ),
        row(
            "DLV-22",
            IDLE,
            GiveUpRequested,
            FAILED,
            report_failed,
            doc="Without content there is nothing to send.",
            traces=("REQ-PROT-34", "REQ-PROT-39", "BEH-05"),
        ),
        row(
            "DLV-23",
            STOPPING,
            StopTimedOut,
            ABORTING,
            doc="The grace period for the instance in flight is over.",
            traces=("REQ-PROM-3", "REQ-REL-06", "BEH-45"),
        ),
        row(
            "DLV-24",
            WIRED,
            StoppedToGoOn,
            WAITING,
            forget_stop,
            doc="The delivery goes on over a new association.",
            traces=("REQ-PROM-3", "REQ-PROT-51", "REQ-REL-04"),
        ),
        row(
            "DLV-25",
            WIRED,
            StoppedToHold,
            HELD,
            forget_stop,
            doc="The unsent instances stay in the ledger.",
            traces=("REQ-REL-04", "REQ-OPS-01", "BEH-45"),
        ),
        row(
            "DLV-26",
            WIRED,
            StoppedToCancel,
            CANCELLED,
            report_stopped,
            doc="The association is closed, and the delivery is over.",
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
            doc="The delivery goes on when its turn comes again, and a yield counts as no "
            "failed attempt.",
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
            doc="A restart of the program does not shorten a back-off.",
            traces=("REQ-OPS-04",),
        ),
    ),
    ignores=(
        ignore(
            "DLV-82",
            HELD,
            (TurnGranted, Followed, BackOffKept),
            doc="The hold came first, and the delivery waits for a turn again when it goes on.",
        ),
        ignore(
            "DLV-83",
            (HELD, *ENDING),
            (AttemptFailed, AttemptsExhausted),
            doc="The stop came first and is stronger; a held delivery notices the fact again "
            "in its next attempt.",
        ),
        ignore(
            "DLV-85",
            HELD,
            (HoldRequested, RestartRequested),
            doc="A held delivery stays held until it is resumed.",
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
            doc="No association is open, and the next attempt uses the new data of the node.",
        ),
        ignore(
            "DLV-93", WIRED, GiveUpRequested, doc="The content is there, because it is being sent."
        ),
        ignore(
            "DLV-95",
            ENDING,
            (TurnYielded, NodeCrowded, ContentLost),
            doc="The stop decides about the end of the association, whatever else ended it.",
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
        "The ledger keeps the state of each instance at the node, the failed attempts, the "
        "time of the next one, and the outcome. After a restart a delivery that was not over "
        "begins in WAITING, or goes on with its back-off, and sends the rest.",
        "An instance is in doubt when it was sent and no answer came, or when the program "
        "ended meanwhile. An attempt begins by asking the node for these instances by C-FIND, "
        "if the node offers that. An instance that the node reports to have counts as stored. "
        "Every other one is sent again.",
        "A stop has two steps: STOPPING lets the C-STORE in flight end, because C-STORE has no "
        "cancel; ABORTING cuts the association. An instance is counted only when the node "
        "answered.",
        "A turn lasts until the delivery ends, unless another delivery at the same node is "
        "more urgent, or is as urgent and waits while dicom.turn_instances are sent. A yield "
        "counts as no failed attempt. A node with whole_studies lets no delivery yield.",
    ),
)
