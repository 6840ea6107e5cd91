"""The DICOM upper layer's protocol machine, requestor's side: PS3.8 Table 9-10 as a table.

States carry the standard's numbers, events its Evt numbers, rows its action names, so that the
page made from this table can be laid beside the standard's. Here is no socket and no byte:
``proxy.dicom.association`` tells the events and does what the outputs say.
"""

# Longer than other modules: one machine is one file, read from top to bottom.

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from proxy.fsm import Event, Ignore, Machine, Row, ignore, limit, row, stay
from proxy.machines.upper_layer import (
    PROVIDER_ABORT,
    UNEXPECTED_PDU,
    USER_ABORT,
    Abort,
    AbortCame,
    AbortRequested,
    AnswerTimedOut,
    ArtimExpired,
    AssociateAccepted,
    AssociateRejected,
    AssociateRequestCame,
    AssociateRequested,
    AssociationOutput,
    Clocks,
    Close,
    Connect,
    ConnectionOpened,
    DataCame,
    DataRequested,
    Indicate,
    InvalidPduCame,
    Pdu,
    Primitive,
    ReleaseAnswered,
    ReleaseReplyCame,
    ReleaseRequestCame,
    ReleaseRequested,
    ReleaseTimedOut,
    Send,
    TransportClosed,
    TransportTimedOut,
)

_Result: TypeAlias = "tuple[Clocks, tuple[AssociationOutput, ...]]"


class AssociationState(Enum):
    """Where an association is; the numbers are those of PS3.8 section 9.2.1."""

    Sta1 = "Idle: nothing was asked for yet."
    Sta4 = "Waiting for the transport connection to open."
    Sta5 = "Waiting for A-ASSOCIATE-AC or A-ASSOCIATE-RJ."
    Sta6 = "Established: ready for data transfer."
    Sta7 = "We asked for release and wait for A-RELEASE-RP."
    Sta8 = "The node asked for release; our answer is due."
    Sta9 = "Release collision, requestor's side: our answer is due."
    Sta11 = "Release collision, requestor's side: waiting for A-RELEASE-RP."
    Sta13 = "Waiting for the transport connection to close; ARTIM runs."
    Sta1Again = "Idle again, transport connection closed. An association is used once."


def ae_1(clocks: Clocks, _: AssociateRequested) -> _Result:
    """Ask for the transport connection."""
    return clocks, (Connect(),)


def ae_2(clocks: Clocks, _: ConnectionOpened) -> _Result:
    """Send A-ASSOCIATE-RQ."""
    return clocks, (Send(Pdu.ASSOCIATE_RQ),)


def ae_3(clocks: Clocks, event: AssociateAccepted) -> _Result:
    """Confirm the association."""
    return clocks, (Indicate(Primitive.ACCEPTED, event),)


def ae_4(clocks: Clocks, event: AssociateRejected) -> _Result:
    """Confirm the rejection; close."""
    return clocks, (Indicate(Primitive.REJECTED, event), Close())


def send_data(clocks: Clocks, _: DataRequested) -> _Result:
    """DT-1 and AR-7: send the message."""
    return clocks, (Send(Pdu.DATA),)


def indicate_data(clocks: Clocks, event: DataCame) -> _Result:
    """DT-2 and AR-6: hand on what came."""
    return clocks, (Indicate(Primitive.DATA, event),)


def ar_1(clocks: Clocks, _: ReleaseRequested) -> _Result:
    """Send A-RELEASE-RQ."""
    return clocks, (Send(Pdu.RELEASE_RQ),)


def indicate_release(clocks: Clocks, event: ReleaseRequestCame) -> _Result:
    """AR-2 and AR-8: the node asks for release."""
    return clocks, (Indicate(Primitive.RELEASE, event),)


def ar_3(clocks: Clocks, event: ReleaseReplyCame) -> _Result:
    """Confirm the release; close."""
    return clocks, (Indicate(Primitive.RELEASED, event), Close())


def answer_release(clocks: Clocks, _: ReleaseAnswered) -> _Result:
    """AR-4 and AR-9: send A-RELEASE-RP."""
    return clocks, (Send(Pdu.RELEASE_RP),)


def aa_1(clocks: Clocks, _: Event) -> _Result:
    """Send A-ABORT, source service user."""
    return clocks, (Abort(USER_ABORT),)


def aa_1_timed_out(clocks: Clocks, event: AnswerTimedOut) -> _Result:
    """Send A-ABORT, source service user; the service user is told why."""
    return clocks, (Abort(USER_ABORT), Indicate(Primitive.ABORTED, event))


def aa_2(clocks: Clocks, _: Event) -> _Result:
    """Close."""
    return clocks, (Close(),)


def aa_2_timed_out(clocks: Clocks, event: TransportTimedOut) -> _Result:
    """Close; the service user is told why."""
    return clocks, (Indicate(Primitive.ABORTED, event), Close())


def aa_3(clocks: Clocks, event: AbortCame) -> _Result:
    """Indicate the node's abort; close."""
    return clocks, (Indicate(Primitive.ABORTED, event), Close())


def aa_4(clocks: Clocks, event: TransportClosed) -> _Result:
    """Indicate the loss of the connection; our end is closed as well."""
    return clocks, (Indicate(Primitive.ABORTED, event), Close())


def aa_7(clocks: Clocks, event: AssociateRequestCame | InvalidPduCame) -> _Result:
    """Send A-ABORT, source service provider."""
    return clocks, (Abort(PROVIDER_ABORT, _fault(event)),)


def aa_8(clocks: Clocks, event: Event) -> _Result:
    """Send A-ABORT, source service provider; indicate it."""
    return clocks, (Abort(PROVIDER_ABORT, _fault(event)), Indicate(Primitive.ABORTED, event))


def _fault(event: Event) -> int:
    return event.reason if isinstance(event, InvalidPduCame) else UNEXPECTED_PDU


Sta1 = AssociationState.Sta1
Sta4 = AssociationState.Sta4
Sta5 = AssociationState.Sta5
Sta6 = AssociationState.Sta6
Sta7 = AssociationState.Sta7
Sta8 = AssociationState.Sta8
Sta9 = AssociationState.Sta9
Sta11 = AssociationState.Sta11
Sta13 = AssociationState.Sta13
Sta1Again = AssociationState.Sta1Again

_TALKING = (Sta5, Sta6, Sta7, Sta8, Sta9, Sta11)


def _unexpected(
    id: str, sources: tuple[AssociationState, ...], on: type[Event]
) -> Row[AssociationState, Clocks, AssociationOutput]:
    return row(
        id,
        sources,
        on,
        Sta13,
        aa_8,
        doc="AA-8: send A-ABORT; indicate A-P-ABORT.",
        traces=("REQ-REL-09", "REQ-DCM-01", "REQ-DCM-06"),
    )


def _too_late(id: str, on: type[Event]) -> Ignore[AssociationState]:
    return ignore(id, Sta13, on, doc="AA-6: ignore the PDU.")


ASSOCIATION: Machine[AssociationState, Clocks, AssociationOutput] = Machine(
    name="association",
    purpose="One DICOM association that we request: PS3.8 Table 9-10, the requestor's rows.",
    initial=Sta1,
    final=frozenset({Sta1Again}),
    stays=(
        stay(Sta1, unlimited="The service user asks as soon as the machine exists."),
        stay(Sta4, limit=limit(lambda c: c.connect, TransportTimedOut, "Clocks.connect, 10 s")),
        stay(Sta5, limit=limit(lambda c: c.answer, AnswerTimedOut, "Clocks.answer, 30 s")),
        stay(
            Sta6,
            unlimited="Each message has its own limits: Clocks.stall while it is sent, "
            "Clocks.response until it is answered. Between messages the service user decides.",
        ),
        stay(Sta7, limit=limit(lambda c: c.release, ReleaseTimedOut, "Clocks.release, 5 s")),
        stay(Sta8, unlimited="The service user answers at once."),
        stay(Sta9, unlimited="The service user answers at once."),
        stay(Sta11, limit=limit(lambda c: c.release, ReleaseTimedOut, "Clocks.release, 5 s")),
        stay(Sta13, limit=limit(lambda c: c.abort, ArtimExpired, "ARTIM: Clocks.abort, 0.05 s")),
    ),
    rows=(
        row(
            "ASC-01",
            Sta1,
            AssociateRequested,
            Sta4,
            ae_1,
            doc="AE-1: ask for the connection.",
            traces=("REQ-DCM-01", "REQ-DCM-02"),
        ),
        row(
            "ASC-02",
            Sta4,
            ConnectionOpened,
            Sta5,
            ae_2,
            doc="AE-2: send A-ASSOCIATE-RQ.",
            traces=("REQ-DCM-01", "REQ-DCM-02"),
        ),
        row(
            "ASC-03",
            Sta5,
            AssociateAccepted,
            Sta6,
            ae_3,
            doc="AE-3: confirm the acceptance.",
            traces=("REQ-DCM-01", "REQ-DCM-02"),
        ),
        row(
            "ASC-04",
            Sta5,
            AssociateRejected,
            Sta1Again,
            ae_4,
            doc="AE-4: confirm the rejection and close.",
            traces=("REQ-DCM-01", "REQ-DCM-02"),
        ),
        row(
            "ASC-05",
            Sta6,
            DataRequested,
            None,
            send_data,
            doc="DT-1: send P-DATA-TF.",
            traces=("REQ-DCM-01", "REQ-DCM-03"),
        ),
        row(
            "ASC-06",
            Sta6,
            DataCame,
            None,
            indicate_data,
            doc="DT-2: indicate P-DATA.",
            traces=("REQ-DCM-01", "REQ-DCM-03"),
        ),
        row(
            "ASC-07",
            Sta6,
            ReleaseRequested,
            Sta7,
            ar_1,
            doc="AR-1: send A-RELEASE-RQ.",
            traces=("REQ-DCM-01", "REQ-DCM-04"),
        ),
        row(
            "ASC-08",
            Sta6,
            ReleaseRequestCame,
            Sta8,
            indicate_release,
            doc="AR-2: indicate it.",
            traces=("REQ-DCM-01", "REQ-DCM-04"),
        ),
        row(
            "ASC-09",
            Sta7,
            DataCame,
            None,
            indicate_data,
            doc="AR-6: indicate P-DATA.",
            traces=("REQ-DCM-01", "REQ-DCM-04"),
        ),
        row(
            "ASC-10",
            Sta7,
            ReleaseRequestCame,
            Sta9,
            indicate_release,
            doc="AR-8: both asked for release; the requestor answers first.",
            traces=("REQ-DCM-01", "REQ-DCM-04"),
        ),
        row(
            "ASC-11",
            (Sta7, Sta11),
            ReleaseReplyCame,
            Sta1Again,
            ar_3,
            doc="AR-3: confirm the release and close.",
            traces=("REQ-DCM-01", "REQ-DCM-04"),
        ),
        row(
            "ASC-12",
            Sta8,
            DataRequested,
            None,
            send_data,
            doc="AR-7: send P-DATA-TF.",
            traces=("REQ-DCM-01", "REQ-DCM-04"),
        ),
        row(
            "ASC-13",
            Sta8,
            ReleaseAnswered,
            Sta13,
            answer_release,
            doc="AR-4: send A-RELEASE-RP.",
            traces=("REQ-DCM-01", "REQ-DCM-04"),
        ),
        row(
            "ASC-14",
            Sta9,
            ReleaseAnswered,
            Sta11,
            answer_release,
            doc="AR-9: send A-RELEASE-RP.",
            traces=("REQ-DCM-01", "REQ-DCM-04"),
        ),
        row(
            "ASC-15",
            Sta4,
            AbortRequested,
            Sta1Again,
            aa_2,
            doc="AA-2: close; nothing was sent.",
            traces=("REQ-REL-06", "REQ-DCM-01", "REQ-DCM-05"),
        ),
        row(
            "ASC-16",
            _TALKING,
            AbortRequested,
            Sta13,
            aa_1,
            doc="AA-1: send A-ABORT.",
            traces=("REQ-REL-06", "REQ-DCM-01", "REQ-DCM-05"),
        ),
        row(
            "ASC-17",
            _TALKING,
            AbortCame,
            Sta1Again,
            aa_3,
            doc="AA-3: indicate the node's abort and close.",
            traces=("REQ-DCM-01", "REQ-DCM-05"),
        ),
        row(
            "ASC-18",
            (Sta4, *_TALKING),
            TransportClosed,
            Sta1Again,
            aa_4,
            doc="AA-4: indicate A-P-ABORT.",
            traces=("REQ-DCM-01", "REQ-DCM-05"),
        ),
        _unexpected("ASC-19", (Sta6, Sta7, Sta8, Sta9, Sta11), AssociateAccepted),
        _unexpected("ASC-20", (Sta6, Sta7, Sta8, Sta9, Sta11), AssociateRejected),
        _unexpected("ASC-21", _TALKING, AssociateRequestCame),
        _unexpected("ASC-22", (Sta5, Sta8, Sta9, Sta11), DataCame),
        _unexpected("ASC-23", (Sta5, Sta8, Sta9, Sta11), ReleaseRequestCame),
        _unexpected("ASC-24", (Sta5, Sta6, Sta8, Sta9), ReleaseReplyCame),
        _unexpected("ASC-25", _TALKING, InvalidPduCame),
        row(
            "ASC-26",
            Sta13,
            AssociateRequestCame,
            None,
            aa_7,
            doc="AA-7: send A-ABORT.",
            traces=("REQ-DCM-01", "REQ-DCM-06"),
        ),
        row(
            "ASC-27",
            Sta13,
            InvalidPduCame,
            None,
            aa_7,
            doc="AA-7: send A-ABORT.",
            traces=("REQ-REL-09", "REQ-DCM-01", "REQ-DCM-06"),
        ),
        row(
            "ASC-28",
            Sta13,
            AbortCame,
            Sta1Again,
            aa_2,
            doc="AA-2: stop ARTIM and close.",
            traces=("REQ-DCM-01", "REQ-DCM-05"),
        ),
        row(
            "ASC-29",
            Sta13,
            TransportClosed,
            Sta1Again,
            aa_2,
            doc="AR-5: stop ARTIM.",
            traces=("REQ-DCM-01", "REQ-DCM-05"),
        ),
        row(
            "ASC-30",
            Sta13,
            ArtimExpired,
            Sta1Again,
            aa_2,
            doc="AA-2: close.",
            traces=("REQ-DCM-01", "REQ-DCM-07"),
        ),
        row(
            "ASC-31",
            Sta4,
            TransportTimedOut,
            Sta1Again,
            aa_2_timed_out,
            doc="AA-2, as if Evt15 had come: close.",
            traces=("REQ-DCM-01", "REQ-DCM-07"),
        ),
        row(
            "ASC-32",
            Sta5,
            AnswerTimedOut,
            Sta13,
            aa_1_timed_out,
            doc="AA-1, as if Evt15 had come: send A-ABORT.",
            traces=("REQ-DCM-01", "REQ-DCM-07"),
        ),
        row(
            "ASC-33",
            (Sta7, Sta11),
            ReleaseTimedOut,
            Sta13,
            aa_1,
            doc="AA-1, as if Evt15 had come: send A-ABORT. Every message is settled: no failure.",
            traces=("REQ-DCM-01", "REQ-DCM-04", "REQ-DCM-07"),
        ),
    ),
    ignores=(
        _too_late("ASC-90", AssociateAccepted),
        _too_late("ASC-91", AssociateRejected),
        _too_late("ASC-92", DataCame),
        _too_late("ASC-93", ReleaseRequestCame),
        _too_late("ASC-94", ReleaseReplyCame),
        ignore(
            "ASC-95",
            (Sta4, *_TALKING, Sta13, Sta1Again),
            AssociateRequested,
            doc="An association is asked for once.",
        ),
        ignore(
            "ASC-96",
            (Sta1, Sta4, Sta5, Sta7, Sta9, Sta11, Sta13, Sta1Again),
            DataRequested,
            doc="No association to send on; no Send comes out, and the service user sees it.",
        ),
        ignore(
            "ASC-97",
            (Sta1, Sta4, Sta5, Sta7, Sta8, Sta9, Sta11, Sta13, Sta1Again),
            ReleaseRequested,
            doc="No association to release, or it is being released.",
        ),
        ignore(
            "ASC-98",
            (Sta1, Sta4, Sta5, Sta6, Sta7, Sta11, Sta13, Sta1Again),
            ReleaseAnswered,
            doc="The node has not asked for release, or was answered.",
        ),
        ignore(
            "ASC-99",
            (Sta1, Sta13, Sta1Again),
            AbortRequested,
            doc="Nothing to abort, or it was aborted.",
        ),
    ),
    notes=(
        "The states of an acceptor (Sta2, Sta3, Sta10, Sta12) and its events (Evt5, Evt7, Evt8) "
        "are not ours: we only request associations on this side.",
        "Table 9-10 returns to Sta1. A requestor's association object is used once, so its Sta1 "
        "is drawn twice: Sta1 before, and Sta1Again, final, after.",
        "The standard leaves requests in a wrong state blank. A request may come at any time, so "
        "ASC-95 to ASC-99 say what becomes of it.",
        "The time limits of Sta4, Sta5, Sta7 and Sta11 are ours; the standard has ARTIM alone.",
        "InvalidPduCame is told of what cannot be understood, and where more PDUs and fragments "
        "come than an answer needs (1,000 for each message). Nothing behind it is read, and in the "
        "end the connection is reset.",
        "DataRequested is told once for a message. Its PDUs are one activity within Sta6.",
        "No state names an activity: one task steps the machine from the methods of "
        "proxy.dicom.association.Association, and waits there under the limit of the state.",
    ),
)
