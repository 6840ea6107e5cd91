"""The events, outputs and clocks of the association machine: the DICOM upper layer.

The events are those of PS3.8 section 9.2.1, with their numbers. The outputs are requests of its
actions to the wire and to the service user. The table is in ``proxy.machines.association``.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, TypeAlias

import msgspec

from proxy.fsm import Event, Source

USER_ABORT = 0
PROVIDER_ABORT = 2
UNRECOGNIZED_PDU = 1
UNEXPECTED_PDU = 2


class Clocks(msgspec.Struct, frozen=True):
    """The time limits of an association, in seconds."""

    connect: float = 10.0
    """For the TCP connection, name look-up included (Sta4)."""
    answer: float = 30.0
    """For the answer to A-ASSOCIATE-RQ (Sta5)."""
    stall: float = 60.0
    """For the node to take one more byte of a message."""
    response: float = 60.0
    """For the response to a message, from the moment its last byte was taken …"""
    response_per_megabyte: float = 1.0
    """… and as much more for each megabyte sent, because the node may write it to a disk first."""
    release: float = 5.0
    """For the answer to A-RELEASE-RQ (Sta7, Sta11)."""
    abort: float = 0.05
    """The ARTIM timer: for the node to close the connection after A-ABORT (Sta13)."""


class AssociateRequested(Event, frozen=True):
    """Evt1: the service user asks for an association (A-ASSOCIATE request primitive)."""

    source: ClassVar[Source] = Source.USER


class ConnectionOpened(Event, frozen=True):
    """Evt2: the transport connection is open (transport connect confirmation)."""

    source: ClassVar[Source] = Source.PEER


class AssociateAccepted(Event, frozen=True):
    """Evt3: an A-ASSOCIATE-AC PDU came."""

    source: ClassVar[Source] = Source.PEER


class AssociateRejected(Event, frozen=True):
    """Evt4: an A-ASSOCIATE-RJ PDU came; the numbers are those of PS3.8 Table 9-21."""

    source: ClassVar[Source] = Source.PEER
    result: int
    rejected_by: int
    reason: int


class AssociateRequestCame(Event, frozen=True):
    """Evt6: an A-ASSOCIATE-RQ PDU came."""

    source: ClassVar[Source] = Source.PEER


class DataRequested(Event, frozen=True):
    """Evt9: the service user sends a message (P-DATA request primitive); one event per message."""

    source: ClassVar[Source] = Source.USER


class DataCame(Event, frozen=True):
    """Evt10: a P-DATA-TF PDU came."""

    source: ClassVar[Source] = Source.PEER


class ReleaseRequested(Event, frozen=True):
    """Evt11: the service user has nothing more to send (A-RELEASE request primitive)."""

    source: ClassVar[Source] = Source.USER


class ReleaseRequestCame(Event, frozen=True):
    """Evt12: an A-RELEASE-RQ PDU came."""

    source: ClassVar[Source] = Source.PEER


class ReleaseReplyCame(Event, frozen=True):
    """Evt13: an A-RELEASE-RP PDU came."""

    source: ClassVar[Source] = Source.PEER


class ReleaseAnswered(Event, frozen=True):
    """Evt14: the service user agrees to the release (A-RELEASE response primitive)."""

    source: ClassVar[Source] = Source.USER


class AbortRequested(Event, frozen=True):
    """Evt15: the service user gives up (A-ABORT request primitive)."""

    source: ClassVar[Source] = Source.USER


class AbortCame(Event, frozen=True):
    """Evt16: an A-ABORT PDU came; the numbers are those of PS3.8 Table 9-26."""

    source: ClassVar[Source] = Source.PEER
    aborted_by: int
    reason: int


class TransportClosed(Event, frozen=True):
    """Evt17: the transport connection is closed, or could not be opened."""

    source: ClassVar[Source] = Source.PEER


class ArtimExpired(Event, frozen=True):
    """Evt18: the ARTIM timer expired."""

    source: ClassVar[Source] = Source.TIMER


class InvalidPduCame(Event, frozen=True):
    """Evt19: an unrecognized or invalid PDU came; ``reason`` goes into our A-ABORT."""

    source: ClassVar[Source] = Source.PEER
    reason: int = UNRECOGNIZED_PDU


class TransportTimedOut(Event, frozen=True):
    """Not in the standard: the transport connection did not open in time."""

    source: ClassVar[Source] = Source.TIMER


class AnswerTimedOut(Event, frozen=True):
    """Not in the standard: the node did not answer A-ASSOCIATE-RQ in time."""

    source: ClassVar[Source] = Source.TIMER


class ReleaseTimedOut(Event, frozen=True):
    """Not in the standard: the node did not answer A-RELEASE-RQ in time."""

    source: ClassVar[Source] = Source.TIMER


class Pdu(Enum):
    """The PDUs a requestor sends, A-ABORT aside."""

    ASSOCIATE_RQ = "A-ASSOCIATE-RQ"
    DATA = "P-DATA-TF"
    RELEASE_RQ = "A-RELEASE-RQ"
    RELEASE_RP = "A-RELEASE-RP"


class Primitive(Enum):
    """The primitives indicated to the service user (PS3.7 section 9.3, PS3.8 section 7)."""

    ACCEPTED = "A-ASSOCIATE confirmation, accepted"
    REJECTED = "A-ASSOCIATE confirmation, rejected"
    DATA = "P-DATA indication"
    RELEASE = "A-RELEASE indication"
    RELEASED = "A-RELEASE confirmation"
    ABORTED = "A-ABORT or A-P-ABORT indication"


class Connect(msgspec.Struct, frozen=True):
    """A request to open the transport connection."""


class Send(msgspec.Struct, frozen=True):
    """One PDU, or the PDUs of one message, to send."""

    pdu: Pdu


class Abort(msgspec.Struct, frozen=True):
    """An A-ABORT PDU to send, if the wire takes it at once."""

    source: int
    reason: int = 0


class Indicate(msgspec.Struct, frozen=True):
    """A primitive for the service user, and the event it is about."""

    primitive: Primitive
    cause: Event


class Close(msgspec.Struct, frozen=True):
    """A request to close the transport connection."""


AssociationOutput: TypeAlias = "Connect | Send | Abort | Indicate | Close"
