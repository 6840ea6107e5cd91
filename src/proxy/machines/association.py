"""The DICOM upper layer's protocol machine, requestor's side: PS3.8 Table 9-10 as a table.

States carry the standard's numbers, events its Evt numbers, and rows its action names, so the page
can be compared with the standard's. This module handles no socket and no byte:
``proxy.dicom.association`` sends the events and carries out the outputs.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from proxy.fsm import STAY, Event, Machine, group, ignore, limit, row, state
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
    """The states of an association; the numbers are those of PS3.8 section 9.2.1."""

    Sta1 = "Idle: nothing was asked for yet."
    Sta4 = "Waiting for the transport connection to open."
    Sta5 = "Waiting for A-ASSOCIATE-AC or A-ASSOCIATE-RJ."
    Sta6 = "Established: ready for data transfer."
    Sta7 = "We asked for release and wait for A-RELEASE-RP."
    Sta8 = "The node asked for release, and our answer is due."
    Sta9 = "Release collision: our answer is due."
    Sta11 = "Release collision: waiting for A-RELEASE-RP."
    Sta13 = "Waiting for the transport connection to close, while ARTIM runs."
    Sta1Again = "Idle again, transport connection closed: an association is used once."


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
    """DT-2 and AR-6: pass the data on."""
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
    """Send A-ABORT, source service user; report the reason to the service user."""
    return clocks, (Abort(USER_ABORT), Indicate(Primitive.ABORTED, event))


def aa_2(clocks: Clocks, _: Event) -> _Result:
    """Close."""
    return clocks, (Close(),)


def aa_2_timed_out(clocks: Clocks, event: TransportTimedOut) -> _Result:
    """Close; report the reason to the service user."""
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

TALKING = group(
    "TALKING",
    Sta5,
    Sta6,
    Sta7,
    Sta8,
    Sta9,
    Sta11,
    doc="The transport connection is open, and the node has our A-ASSOCIATE-RQ.",
)

ASSOCIATION: Machine[AssociationState, Clocks, AssociationOutput] = Machine(
    name="association",
    purpose="One DICOM association that we request: PS3.8 Table 9-10, the requestor's rows.",
    initial=Sta1,
    final=frozenset({Sta1Again}),
    groups=(TALKING,),
    captioned=True,
    definitions=(
        state(Sta1, untimed="The service user asks as soon as the machine exists."),
        state(Sta4, after=limit(lambda c: c.connect, TransportTimedOut, "Clocks.connect, 10 s")),
        state(Sta5, after=limit(lambda c: c.answer, AnswerTimedOut, "Clocks.answer, 30 s")),
        state(
            Sta6,
            untimed="Each message has its own limits: Clocks.stall while it is sent, "
            "Clocks.response until it is answered. Between messages the service user decides.",
        ),
        state(Sta7, after=limit(lambda c: c.release, ReleaseTimedOut, "Clocks.release, 5 s")),
        state(Sta8, untimed="The service user answers at once."),
        state(Sta9, untimed="The service user answers at once."),
        state(Sta11, after=limit(lambda c: c.release, ReleaseTimedOut, "Clocks.release, 5 s")),
        state(Sta13, after=limit(lambda c: c.abort, ArtimExpired, "ARTIM: Clocks.abort, 0.05 s")),
    ),
    rows=(
        row(
            "ASC-01",
            Sta1,
            AssociateRequested,
            Sta4,
            ae_1,
            doc="AE-1: the transport connection is asked for.",
            traces=("REQ-DCM-01", "REQ-DCM-02"),
        ),
        row(
            "ASC-02",
            Sta4,
            ConnectionOpened,
            Sta5,
            ae_2,
            doc="AE-2: A-ASSOCIATE-RQ is sent.",
            traces=("REQ-DCM-01", "REQ-DCM-02"),
        ),
        row(
            "ASC-03",
            Sta5,
            AssociateAccepted,
            Sta6,
            ae_3,
            doc="AE-3: the acceptance is confirmed.",
            traces=("REQ-DCM-01", "REQ-DCM-02"),
        ),
        row(
            "ASC-04",
            Sta5,
            AssociateRejected,
            Sta1Again,
            ae_4,
            doc="AE-4: the rejection is confirmed and our end closed.",
            traces=("REQ-DCM-01", "REQ-DCM-02"),
        ),
        row(
            "ASC-05",
            (Sta6, Sta8),
            DataRequested,
            STAY,
            send_data,
            doc="DT-1 in Sta6, AR-7 in Sta8: P-DATA-TF is sent.",
            traces=("REQ-DCM-01", "REQ-DCM-03", "REQ-DCM-04"),
        ),
        row(
            "ASC-06",
            (Sta6, Sta7),
            DataCame,
            STAY,
            indicate_data,
            doc="DT-2 in Sta6, AR-6 in Sta7: P-DATA is indicated.",
            traces=("REQ-DCM-01", "REQ-DCM-03", "REQ-DCM-04"),
        ),
        row(
            "ASC-07",
            Sta6,
            ReleaseRequested,
            Sta7,
            ar_1,
            doc="AR-1: A-RELEASE-RQ is sent.",
            traces=("REQ-DCM-01", "REQ-DCM-04"),
        ),
        row(
            "ASC-08",
            Sta6,
            ReleaseRequestCame,
            Sta8,
            indicate_release,
            doc="AR-2: the node's request is indicated.",
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
            doc="AR-3: the release is confirmed and our end closed.",
            traces=("REQ-DCM-01", "REQ-DCM-04"),
        ),
        row(
            "ASC-13",
            Sta8,
            ReleaseAnswered,
            Sta13,
            answer_release,
            doc="AR-4: A-RELEASE-RP is sent.",
            traces=("REQ-DCM-01", "REQ-DCM-04"),
        ),
        row(
            "ASC-14",
            Sta9,
            ReleaseAnswered,
            Sta11,
            answer_release,
            doc="AR-9: A-RELEASE-RP is sent, and the node's is still due.",
            traces=("REQ-DCM-01", "REQ-DCM-04"),
        ),
        row(
            "ASC-15",
            Sta4,
            AbortRequested,
            Sta1Again,
            aa_2,
            doc="AA-2: our end is closed; nothing was sent.",
            traces=("REQ-REL-06", "REQ-DCM-01", "REQ-DCM-05"),
        ),
        row(
            "ASC-16",
            TALKING,
            AbortRequested,
            Sta13,
            aa_1,
            doc="AA-1: A-ABORT is sent.",
            traces=("REQ-REL-06", "REQ-DCM-01", "REQ-DCM-05"),
        ),
        row(
            "ASC-17",
            TALKING,
            AbortCame,
            Sta1Again,
            aa_3,
            doc="AA-3: the node's abort is indicated and our end closed.",
            traces=("REQ-DCM-01", "REQ-DCM-05"),
        ),
        row(
            "ASC-18",
            (Sta4, *TALKING),
            TransportClosed,
            Sta1Again,
            aa_4,
            doc="AA-4: A-P-ABORT is indicated.",
            traces=("REQ-DCM-01", "REQ-DCM-05"),
        ),
        row(
            "ASC-19",
            TALKING,
            (
                AssociateAccepted,
                AssociateRejected,
                AssociateRequestCame,
                DataCame,
                ReleaseRequestCame,
                ReleaseReplyCame,
                InvalidPduCame,
            ),
            Sta13,
            aa_8,
            doc="AA-8: a PDU that no other row expects is answered by A-ABORT, and A-P-ABORT is "
            "indicated.",
            otherwise=True,
            traces=("REQ-DCM-01", "REQ-DCM-06", "REQ-REL-09"),
        ),
        row(
            "ASC-26",
            Sta13,
            (AssociateRequestCame, InvalidPduCame),
            STAY,
            aa_7,
            doc="AA-7: A-ABORT is sent once more.",
            traces=("REQ-DCM-01", "REQ-DCM-06", "REQ-REL-09"),
        ),
        row(
            "ASC-28",
            Sta13,
            (AbortCame, TransportClosed, ArtimExpired),
            Sta1Again,
            aa_2,
            doc="AA-2, or AR-5 after TransportClosed: ARTIM stops and our end is closed.",
            traces=("REQ-DCM-01", "REQ-DCM-05", "REQ-DCM-07"),
        ),
        row(
            "ASC-31",
            Sta4,
            TransportTimedOut,
            Sta1Again,
            aa_2_timed_out,
            doc="AA-2, as if Evt15 had come: our end is closed.",
            traces=("REQ-DCM-01", "REQ-DCM-07"),
        ),
        row(
            "ASC-32",
            Sta5,
            AnswerTimedOut,
            Sta13,
            aa_1_timed_out,
            doc="AA-1, as if Evt15 had come: A-ABORT is sent.",
            traces=("REQ-DCM-01", "REQ-DCM-07"),
        ),
        row(
            "ASC-33",
            (Sta7, Sta11),
            ReleaseTimedOut,
            Sta13,
            aa_1,
            doc="AA-1, as if Evt15 had come: A-ABORT is sent, and because every message is settled "
            "this is no failure.",
            traces=("REQ-DCM-01", "REQ-DCM-04", "REQ-DCM-07"),
        ),
    ),
    ignores=(
        ignore(
            "ASC-90",
            Sta13,
            (AssociateAccepted, AssociateRejected, DataCame, ReleaseRequestCame, ReleaseReplyCame),
            doc="AA-6: the PDU came too late, and is ignored.",
        ),
        ignore(
            "ASC-95",
            (Sta4, *TALKING, Sta13),
            AssociateRequested,
            doc="An association is requested only once.",
        ),
        ignore(
            "ASC-96",
            (Sta1, Sta4, Sta5, Sta7, Sta9, Sta11, Sta13),
            DataRequested,
            doc="There is no association to send on; the missing Send shows this to the "
            "service user.",
        ),
        ignore(
            "ASC-97",
            (Sta1, Sta4, Sta5, Sta7, Sta8, Sta9, Sta11, Sta13),
            ReleaseRequested,
            doc="There is no association to release, or it is being released.",
        ),
        ignore(
            "ASC-98",
            (Sta1, Sta4, Sta5, Sta6, Sta7, Sta11, Sta13),
            ReleaseAnswered,
            doc="The node has not asked for release, or was answered.",
        ),
        ignore(
            "ASC-99",
            (Sta1, Sta13),
            AbortRequested,
            doc="There is nothing to abort, or it was aborted.",
        ),
    ),
    retired={
        "ASC-09": "ASC-06",
        "ASC-12": "ASC-05",
        "ASC-20": "ASC-19",
        "ASC-21": "ASC-19",
        "ASC-22": "ASC-19",
        "ASC-23": "ASC-19",
        "ASC-24": "ASC-19",
        "ASC-25": "ASC-19",
        "ASC-27": "ASC-26",
        "ASC-29": "ASC-28",
        "ASC-30": "ASC-28",
        "ASC-91": "ASC-90",
        "ASC-92": "ASC-90",
        "ASC-93": "ASC-90",
        "ASC-94": "ASC-90",
    },
    notes=(
        "The states of an acceptor (Sta2, Sta3, Sta10, Sta12) and its events (Evt5, Evt7, "
        "Evt8) do not occur: this side only requests associations.",
        "Table 9-10 returns to Sta1. A requestor's association object is used once, so its Sta1 "
        "is drawn twice: Sta1 before, and Sta1Again, final, after.",
        "The standard leaves requests in a wrong state blank. A request may come at any time, "
        "so ASC-95 to ASC-99 define its effect.",
        "The time limits of Sta4, Sta5, Sta7 and Sta11 are additions; the standard has ARTIM "
        "alone.",
        "InvalidPduCame is sent for a PDU that cannot be understood, and for more PDUs and "
        "fragments than an answer needs (1,000 for each message). No further byte is read, and "
        "in the end the connection is reset.",
        "DataRequested is sent once for a message. The PDUs of the message are one activity "
        "within Sta6.",
        "No state names an activity: one task steps the machine from the methods of "
        "proxy.dicom.association.Association, and waits there under the limit of the state.",
    ),
)
