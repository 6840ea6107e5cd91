"""One dispatch: an entity of ITH, downloaded once and delivered to each of its nodes."""

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
from proxy.machines.delivery import Outcome


class DispatchState(Enum):
    """The states of a dispatch."""

    ACCEPTED = "The order is being written to the ledger. Nothing else happens before that."
    QUEUED = "The dispatch waits for a free download. The priority sets the order."
    FETCHING = "The entity is being downloaded into the local PACS."
    BACKING_OFF = "The download failed. The dispatch waits before the next attempt."
    DELIVERING = "The content is in the local PACS. The deliveries run."
    HELD = "The proxy is paused. Nothing is downloaded."
    COMPLETED = "Every named node of this proxy has every instance."
    FAILED = "At least one node lacks an instance. The error has the reason."
    CANCELLED = "Every delivery that was not complete was cancelled."
    DUPLICATE = "The same order was accepted before. It is not carried out twice."


class Recorded(Event, frozen=True):
    """The order is durable."""


class RecordedWhilePaused(Event, frozen=True):
    """The order is durable, and the proxy is paused."""


class AlreadyKnown(Event, frozen=True):
    """The ledger holds an order with the same correlation id and entity."""


class TurnGranted(Event, frozen=True):
    """A download is free, and the turn of this dispatch has come."""


class FetchAdvanced(Event, frozen=True):
    """More of the archive arrived."""

    percent: int


class Fetched(Event, frozen=True):
    """The entity is complete in the local PACS, and each delivery is planned."""

    files_total: int


class FetchFailed(Event, frozen=True):
    """The download failed and may succeed later."""

    error: str
    retry_in: float


class FetchExhausted(Event, frozen=True):
    """The download failed for good, or there is nothing to send in it."""

    error: str


class RefetchExhausted(Event, frozen=True):
    """The lost objects cannot be fetched again; the rest of the content is there."""

    error: str


class ContentLost(Event, frozen=True):
    """A delivery found an object missing, cut or damaged on this host's disk."""

    source: ClassVar[Source] = Source.SUPERVISOR
    error: str


class RetryDue(Event, frozen=True):
    """The back-off is over."""

    source: ClassVar[Source] = Source.TIMER


class HoldRequested(Event, frozen=True):
    """The proxy pauses or stops."""

    source: ClassVar[Source] = Source.SUPERVISOR
    reason: str


class ResumeRequested(Event, frozen=True):
    """The proxy is active again."""

    source: ClassVar[Source] = Source.SUPERVISOR


class AllDelivered(Event, frozen=True):
    """The last delivery is over, and all are completed."""

    source: ClassVar[Source] = Source.SUPERVISOR


class SomeFailed(Event, frozen=True):
    """The last delivery is over, and at least one failed."""

    source: ClassVar[Source] = Source.SUPERVISOR
    error: str


class AllCancelled(Event, frozen=True):
    """The last delivery is over; none failed, at least one was cancelled."""

    source: ClassVar[Source] = Source.SUPERVISOR
    error: str


class DispatchData(msgspec.Struct, frozen=True):
    """The data of a dispatch beside its state; ``retry_in`` in seconds.

    ``refetches`` counts the repeated downloads after the loss of an object.
    """

    attempts: int = 0
    refetches: int = 0
    retry_in: float = 0.0
    percent: int = 0
    files_total: int = 0
    error: str | None = None


class ReportDownload(msgspec.Struct, frozen=True):
    """Output: report the progress of the download to ITH, for each node."""

    percent: int


class HandOver(msgspec.Struct, frozen=True):
    """Output: let the deliveries begin."""

    files_total: int


class TakeBack(msgspec.Struct, frozen=True):
    """Output: let no delivery begin another attempt before the content is handed over again."""


class GiveUp(msgspec.Struct, frozen=True):
    """Output: end every delivery with this error."""

    error: str


class Withdraw(msgspec.Struct, frozen=True):
    """Output: end this run and its deliveries; repeat the outcome if the first one is over."""


class CloseDispatch(msgspec.Struct, frozen=True):
    """Output: write the outcome to the ledger and close the dispatch towards ITH."""

    outcome: Outcome
    work: DispatchData


DispatchOutput: TypeAlias = ReportDownload | HandOver | TakeBack | GiveUp | Withdraw | CloseDispatch
_Result: TypeAlias = tuple[DispatchData, tuple[DispatchOutput, ...]]

replace = msgspec.structs.replace

REFETCHES = 2
"""The most repeated downloads of one dispatch after the loss of an object on this host."""


def withdraw(work: DispatchData, event: AlreadyKnown) -> _Result:
    """End this run, because the first dispatch reports the order."""
    return work, (Withdraw(),)


def report_start(work: DispatchData, event: TurnGranted) -> _Result:
    """Report that the download begins."""
    work = replace(work, percent=0)
    return work, (ReportDownload(0),)


def report_advance(work: DispatchData, event: FetchAdvanced) -> _Result:
    """Report the progress of the download."""
    work = replace(work, percent=event.percent)
    return work, (ReportDownload(event.percent),)


def hand_over(work: DispatchData, event: Fetched) -> _Result:
    """Let the deliveries begin."""
    work = replace(work, files_total=event.files_total, percent=100, error=None)
    return work, (ReportDownload(100), HandOver(event.files_total))


def take_back(work: DispatchData, event: ContentLost) -> _Result:
    """Let the deliveries wait for the content, and count the repeated download."""
    work = replace(work, attempts=0, refetches=work.refetches + 1, error=event.error)
    return work, (TakeBack(),)


def hand_over_the_rest(work: DispatchData, event: RefetchExhausted) -> _Result:
    """Let the deliveries go on without the lost objects, which are not fetched once more."""
    work = replace(work, refetches=REFETCHES, error=event.error)
    return work, (HandOver(work.files_total),)


def keep_error(work: DispatchData, event: FetchFailed) -> _Result:
    """Count the attempt, keep its error and the time to wait."""
    attempts = work.attempts + 1
    return replace(work, attempts=attempts, error=event.error, retry_in=event.retry_in), ()


def give_up(work: DispatchData, event: FetchExhausted) -> _Result:
    """End every delivery, then close."""
    work = replace(work, error=event.error)
    return work, (GiveUp(event.error), CloseDispatch(Outcome.FAILED, work))


def give_up_on_fault(work: DispatchData, event: ActivityFailed) -> _Result:
    """End every delivery and report that the proxy itself failed."""
    work = replace(work, error=f"internal error: {event.error}")
    return work, (GiveUp(work.error or ""), CloseDispatch(Outcome.FAILED, work))


def close_completed(work: DispatchData, event: AllDelivered) -> _Result:
    """Report that every node has every instance."""
    return work, (CloseDispatch(Outcome.COMPLETED, work),)


def close_failed(work: DispatchData, event: SomeFailed) -> _Result:
    """Report that at least one node lacks an instance, with the reason."""
    work = replace(work, error=event.error)
    return work, (CloseDispatch(Outcome.FAILED, work),)


def close_cancelled(work: DispatchData, event: AllCancelled) -> _Result:
    """Report that the dispatch ended on request, with the reason of the request."""
    work = replace(work, error=event.error)
    return work, (CloseDispatch(Outcome.CANCELLED, work),)


(
    ACCEPTED,
    QUEUED,
    FETCHING,
    BACKING_OFF,
    DELIVERING,
    HELD,
    COMPLETED,
    FAILED,
    CANCELLED,
    DUPLICATE,
) = DispatchState
OPEN = group(
    "OPEN",
    ACCEPTED,
    QUEUED,
    BACKING_OFF,
    FETCHING,
    DELIVERING,
    HELD,
    doc="The dispatch is not over, and its deliveries may end it at any time.",
)
OVER = group(
    "OVER",
    COMPLETED,
    FAILED,
    CANCELLED,
    DUPLICATE,
    doc="The dispatch is over, and its outcome is in the ledger.",
)

DISPATCH: Machine[DispatchState, DispatchData, DispatchOutput] = Machine(
    name="dispatch",
    purpose=__doc__,
    initial=ACCEPTED,
    final=frozenset(OVER),
    groups=(OPEN, OVER),
    definitions=(
        state(
            ACCEPTED,
            do="record",
            untimed="a commit takes milliseconds; a dead disk ends the program",
        ),
        state(
            QUEUED, do="wait_for_turn", untimed="it lasts as long as the downloads before it take"
        ),
        state(FETCHING, do="fetch", untimed="the download has its own clocks and attempts"),
        state(
            BACKING_OFF,
            after=limit(
                lambda work: work.retry_in, RetryDue, "full jitter, doubled for each attempt"
            ),
        ),
        state(DELIVERING, untimed="each delivery has its own limits"),
        state(HELD, untimed="a pause lasts until its locks are released"),
    ),
    rows=(
        row(
            "DSP-01",
            ACCEPTED,
            Recorded,
            QUEUED,
            doc="The order is durable and cannot be lost any more.",
            traces=("REQ-PROM-2", "REQ-REL-01"),
        ),
        row(
            "DSP-02",
            ACCEPTED,
            RecordedWhilePaused,
            HELD,
            doc="The order is kept until the pause ends.",
            traces=("REQ-PROM-2", "BEH-44"),
        ),
        row(
            "DSP-03",
            ACCEPTED,
            AlreadyKnown,
            DUPLICATE,
            withdraw,
            doc="One order is carried out by one dispatch.",
            traces=("REQ-PROT-43", "REQ-REL-05", "BEH-25"),
        ),
        row(
            "DSP-04",
            QUEUED,
            TurnGranted,
            FETCHING,
            report_start,
            doc="The turn of the dispatch has come.",
            traces=("REQ-PROT-44", "BEH-12", "BEH-13"),
        ),
        row(
            "DSP-05",
            FETCHING,
            FetchAdvanced,
            STAY,
            report_advance,
            doc="More bytes of the archive have arrived.",
            traces=("REQ-EVT-11", "BEH-07"),
        ),
        row(
            "DSP-06",
            FETCHING,
            Fetched,
            DELIVERING,
            hand_over,
            doc="One download serves all nodes.",
            traces=("REQ-EVT-04", "REQ-EVT-05", "REQ-EVT-06"),
        ),
        row(
            "DSP-07",
            FETCHING,
            FetchFailed,
            BACKING_OFF,
            keep_error,
            doc="The download is tried again later.",
            traces=("REQ-PROT-39",),
        ),
        row(
            "DSP-08",
            FETCHING,
            FetchExhausted,
            FAILED,
            give_up,
            doc="Without content there is nothing to send.",
            traces=("REQ-PROT-34", "REQ-PROT-39"),
        ),
        row(
            "DSP-16",
            DELIVERING,
            ContentLost,
            QUEUED,
            take_back,
            doc="ITH still has the content, and the lost objects are fetched again.",
            traces=("BEH-41",),
        ),
        row(
            "DSP-17",
            FETCHING,
            RefetchExhausted,
            DELIVERING,
            hand_over_the_rest,
            doc="The rest is delivered, and each lost object fails with its reason.",
            traces=("BEH-42",),
        ),
        row(
            "DSP-09",
            BACKING_OFF,
            RetryDue,
            QUEUED,
            doc="The dispatch queues for a download again.",
            traces=("REQ-PROT-39",),
        ),
        row(
            "DSP-10",
            (QUEUED, FETCHING, BACKING_OFF),
            HoldRequested,
            HELD,
            doc="A download in progress ends at once and is repeated later.",
            traces=("REQ-PROM-3", "REQ-PROT-53", "REQ-OPS-01"),
        ),
        row(
            "DSP-11",
            HELD,
            ResumeRequested,
            QUEUED,
            doc="The pause is over, and the dispatch queues again.",
            traces=("REQ-PROT-53", "BEH-46"),
        ),
        row(
            "DSP-12",
            OPEN,
            AllDelivered,
            COMPLETED,
            close_completed,
            doc="Every node has every instance.",
            traces=("REQ-PROT-42", "BEH-04", "BEH-05"),
        ),
        row(
            "DSP-13",
            OPEN,
            SomeFailed,
            FAILED,
            close_failed,
            doc="At least one node lacks an instance.",
            traces=("REQ-PROT-35", "BEH-04", "BEH-05"),
        ),
        row(
            "DSP-14",
            OPEN,
            AllCancelled,
            CANCELLED,
            close_cancelled,
            doc="Every delivery is over; at least one was cancelled, and none failed.",
            traces=("REQ-PROT-42", "REQ-PROT-49", "BEH-06"),
        ),
        row(
            "DSP-15",
            (ACCEPTED, QUEUED, FETCHING),
            ActivityFailed,
            FAILED,
            give_up_on_fault,
            doc="A defect ends one dispatch and no other.",
            traces=("REQ-OPS-06",),
        ),
    ),
    ignores=(
        ignore("DSP-83", HELD, TurnGranted, doc="The hold came first, and the turn is given back."),
        ignore(
            "DSP-84",
            (QUEUED, HELD),
            (FetchAdvanced, Fetched, FetchFailed, FetchExhausted, RefetchExhausted),
            doc="A hold ended that download, and the next one reports the same facts.",
        ),
        ignore(
            "DSP-98",
            (ACCEPTED, QUEUED, FETCHING, BACKING_OFF, HELD),
            ContentLost,
            doc="The content is fetched before a delivery uses it.",
        ),
        ignore(
            "DSP-89",
            (ACCEPTED, DELIVERING, HELD),
            HoldRequested,
            doc="No download runs here that a hold could end: a recording goes on to DSP-02, "
            "each delivery is held by itself, and a held dispatch stays held.",
        ),
        ignore(
            "DSP-93",
            (ACCEPTED, QUEUED, FETCHING, BACKING_OFF, DELIVERING),
            ResumeRequested,
            doc="The dispatch is not held.",
        ),
    ),
    retired={
        "DSP-85": "DSP-84",
        "DSP-86": "DSP-84",
        "DSP-87": "DSP-84",
        "DSP-88": "DSP-84",
        "DSP-90": "DSP-89",
        "DSP-91": "DSP-89",
        "DSP-80": WHEN_OVER,
        "DSP-81": WHEN_OVER,
        "DSP-82": WHEN_OVER,
        "DSP-92": WHEN_OVER,
        "DSP-94": WHEN_OVER,
        "DSP-95": WHEN_OVER,
        "DSP-96": WHEN_OVER,
        "DSP-97": WHEN_OVER,
        "DSP-99": WHEN_OVER,
    },
    notes=(
        "The ledger keeps the order, from ACCEPTED on, and the outcome. After a restart a "
        "dispatch that was not over begins in ACCEPTED; an entity that is complete in the "
        "local PACS is not downloaded again.",
        "An object is compared with its SHA-256 while it is sent. If it differs, its delivery "
        "waits for the content again, which is fetched twice more at most. The other "
        "deliveries go on with the objects they have.",
        "A dispatch has no cancellation of its own: the supervisor cancels its deliveries, and "
        "the dispatch is over when its last delivery is.",
    ),
)
