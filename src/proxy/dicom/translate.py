"""From PDUs to the association machine's events, and from its events to our errors."""

from __future__ import annotations

from proxy.dicom import pdu
from proxy.errors import AssociationLost, AssociationRejected, NodeError
from proxy.fsm import Event
from proxy.machines import upper_layer as ul
from proxy.machines.failures import classify_abort, classify_rejection
from proxy.runtime.wire import lost, unreachable

_PLAIN: dict[type[pdu.Received], type[Event]] = {
    pdu.Accept: ul.AssociateAccepted,
    pdu.AssociateRequest: ul.AssociateRequestCame,
    pdu.Data: ul.DataCame,
    pdu.ReleaseRequest: ul.ReleaseRequestCame,
    pdu.ReleaseReply: ul.ReleaseReplyCame,
}


def event_of(received: pdu.Received) -> Event:
    """Return the event that a received PDU is (PS3.8 Table 9-10)."""
    match received:
        case pdu.Reject(result, source, reason):
            return ul.AssociateRejected(result, source, reason)
        case pdu.PeerAbort(source, reason):
            return ul.AbortCame(source, reason)
        case _:
            return _PLAIN[type(received)]()


def error_of(primitive: ul.Primitive, cause: Event) -> NodeError:
    """Build the operator's error for an association that ended, or did not begin."""
    match primitive, cause:
        case ul.Primitive.REJECTED, ul.AssociateRejected(result, source, reason):
            failure = classify_rejection(result, source, reason)
            return AssociationRejected(result, source, reason, failure.sentence, hint=failure.hint)
        case ul.Primitive.RELEASE, _:
            return lost("released")
        case _, ul.AbortCame(source, reason):
            failure = classify_abort(source, reason)
            return AssociationLost(
                "abort", failure.sentence, source=source, reason=reason, hint=failure.hint
            )
        case _, ul.TransportTimedOut():
            return unreachable("timeout")
        case _:
            return lost("timeout" if isinstance(cause, ul.AnswerTimedOut) else "protocol")
