"""The meaning and the remedy of each code of the network, an association or a C-STORE.

``proxy.dicom`` takes an error's sentence and hint from here, the deliveries take the remedy.
Every code falls into exactly one row of the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import msgspec

from proxy.errors import (
    AssociationLost,
    AssociationRejected,
    InstanceUnusable,
    NodeError,
    NodeUnreachable,
)


class Layer(Enum):
    """The layer at which a failure is noticed."""

    TRANSPORT = "transport"
    ASSOCIATION = "association"
    ABORT = "abort"
    CONTEXT = "context"
    STORE = "store"
    LOCAL = "local"


class Remedy(Enum):
    """The handling of the instance, or of the association, after a failure."""

    STORED = "stored"
    STORED_WITH_WARNING = "stored with a warning of the node"
    RETRY_NOW = "try again at once, on a new association"
    RETRY_LATER = "try again after a pause, a limited number of times"
    FEWER_ASSOCIATIONS = "try again after a pause, with fewer associations at a time"
    OTHER_SYNTAX = "try once in another transfer syntax, else never"
    FETCH_AGAIN = "fetch it from ITH again, twice at most, else never"
    ASK_NODE = "outcome unknown: ask the node whether it has it, else send it again"
    NEVER = "not again until somebody changes something"


class Failure(msgspec.Struct, frozen=True):
    """One row: ``codes`` of one layer, the remedy, and the sentences about it.

    A code is an errno name or word (transport, local), ``source/reason`` (association, abort),
    ``result N`` (association, context), a word about the association (context), a status or a
    range of statuses in hexadecimal (store); ``*`` is every code that no other row of the layer
    names. ``sentence`` is about the node, for ITH and the log. ``hint`` is an instruction for the
    operator.
    """

    id: str
    layer: Layer
    codes: tuple[str, ...]
    remedy: Remedy
    sentence: str
    hint: str
    source: str

    @property
    def in_full(self) -> str:
        """The sentence and the hint."""
        return f"{self.sentence}. {self.hint}" if self.hint else self.sentence


def _transport(id: str, codes: str, remedy: Remedy, sentence: str, hint: str) -> Failure:
    return Failure(id, Layer.TRANSPORT, tuple(codes.split()), remedy, sentence, hint, "RFC 9293")


def _rejection(id: str, codes: str, remedy: Remedy, sentence: str, hint: str) -> Failure:
    layer, source = Layer.ASSOCIATION, "PS3.8 Table 9-21"
    return Failure(id, layer, tuple(codes.split(",")), remedy, sentence, hint, source)


def _abort(id: str, codes: str, remedy: Remedy, sentence: str, hint: str) -> Failure:
    return Failure(
        id, Layer.ABORT, tuple(codes.split()), remedy, sentence, hint, "PS3.8 Table 9-26"
    )


def _context(id: str, codes: str, remedy: Remedy, sentence: str, hint: str) -> Failure:
    layer, source = Layer.CONTEXT, "PS3.8 Table 9-18"
    return Failure(id, layer, tuple(codes.split(",")), remedy, sentence, hint, source)


def _store(
    id: str,
    codes: str,
    remedy: Remedy,
    sentence: str,
    hint: str,
    *,
    source: str = "PS3.7 annex C",
) -> Failure:
    return Failure(id, Layer.STORE, tuple(codes.split()), remedy, sentence, hint, source)


def _local(
    id: str,
    codes: str,
    remedy: Remedy,
    sentence: str,
    hint: str,
    *,
    source: str = "PS3.10 section 7",
) -> Failure:
    return Failure(id, Layer.LOCAL, tuple(codes.split()), remedy, sentence, hint, source)


_ADDRESS = "Check the node's address and port, and that a route and the firewall allow it."
_STRANGER = "What answers at the node's address and port is no DICOM node"
_WHERE = "Check the node's address and port. The log and the status of the proxy say more."
"""Not what answers: ITH must not learn from reports what other hosts of the site serve."""
_OUR_DISK = (
    "Check this host's disk and memory. What was lost is fetched from ITH again, twice at most."
)
_ITS_LOG = "Look into the node's log."
_NOT_TAKEN = (
    f"{_ITS_LOG} It did so before it answered anything, and takes other associations under the "
    "same AE titles: it may not take the SOP class or the transfer syntax, or be full."
)
_ADD_SYNTAX = "Add the object's transfer syntax to those the node accepts."

FAILURES: tuple[Failure, ...] = (
    _transport(
        "FLR-01",
        "ECONNREFUSED",
        Remedy.RETRY_LATER,
        "The node's host refuses the connection: no program listens on that port",
        "Start the node's DICOM service, or correct the port.",
    ),
    _transport(
        "FLR-02",
        "EHOSTUNREACH ENETUNREACH EHOSTDOWN ENETDOWN",
        Remedy.RETRY_LATER,
        "There is no route to the node's host",
        _ADDRESS,
    ),
    _transport(
        "FLR-03",
        "timeout ETIMEDOUT",
        Remedy.RETRY_LATER,
        "The node's host does not answer the connection request",
        _ADDRESS + " A firewall that drops packets looks like this.",
    ),
    _transport(
        "FLR-04",
        "dns",
        Remedy.RETRY_LATER,
        "The node's host name cannot be resolved",
        "Correct the host name or the name server's entry, or configure the address itself.",
    ),
    _transport(
        "FLR-05",
        "EACCES EPERM",
        Remedy.RETRY_LATER,
        "This host's own rules forbid the connection to the node",
        "Check the local firewall and the service's sandbox.",
    ),
    _transport(
        "FLR-06",
        "EMFILE ENFILE ENOBUFS ENOMEM EADDRNOTAVAIL",
        Remedy.FEWER_ASSOCIATIONS,
        "This host has no socket, memory or port left for the connection",
        "Raise the limit of open files, or lower the number of associations.",
    ),
    _transport(
        "FLR-07",
        "closed ECONNRESET EPIPE ECONNABORTED",
        Remedy.RETRY_LATER,
        "The node closed the connection without a word",
        _ITS_LOG + " A node that wants TLS, or does not know this host, also does this.",
    ),
    _transport(
        "FLR-08",
        "stalled",
        Remedy.RETRY_LATER,
        "The node stopped reading in the middle of a message",
        "Check the node's disk and load. " + _ITS_LOG,
    ),
    _transport(
        "FLR-09",
        "silent",
        Remedy.RETRY_LATER,
        "The node did not answer in time",
        "Check the node's disk and load, or raise the time limit. " + _ITS_LOG,
    ),
    _transport(
        "FLR-10",
        "tls",
        Remedy.NEVER,
        _STRANGER,
        _WHERE,
    ),
    _transport(
        "FLR-11",
        "protocol",
        Remedy.RETRY_LATER,
        "The node's answer is not valid DICOM",
        "Check that the port is a DICOM port. " + _ITS_LOG,
    ),
    _transport(
        "FLR-12",
        "released",
        Remedy.RETRY_NOW,
        "The node released the association before we were done",
        _ITS_LOG,
    ),
    _transport(
        "FLR-13",
        "pdu",
        Remedy.NEVER,
        "The node announces a maximum PDU size that leaves no space for a message",
        "Correct the maximum PDU size in the node's settings: 16384 bytes suit every node.",
    ),
    _transport("FLR-14", "stranger", Remedy.RETRY_LATER, _STRANGER, _WHERE),
    _transport("FLR-19", "*", Remedy.RETRY_LATER, "The connection to the node failed", _ADDRESS),
    _rejection(
        "FLR-20",
        "1/3",
        Remedy.RETRY_LATER,
        "The node rejects our calling AE title",
        "It is tried again, for a node that starts may say so. Ask the node's administrator to add "
        "our AE title and address, or configure the AE title "
        "the node expects.",
    ),
    _rejection(
        "FLR-21",
        "1/7",
        Remedy.RETRY_LATER,
        "The node rejects the called AE title",
        "It is tried again, for a node that starts may say so. Correct the node's AE title. "
        "Capital letters matter.",
    ),
    _rejection(
        "FLR-22",
        "1/2",
        Remedy.NEVER,
        "The node does not support the DICOM application context",
        "Check that address and port are those of a DICOM storage service.",
    ),
    _rejection(
        "FLR-23",
        "2/2",
        Remedy.NEVER,
        "The node does not support version 1 of the DICOM upper layer protocol",
        "Check that address and port are those of a DICOM storage service.",
    ),
    _rejection(
        "FLR-24",
        "3/1",
        Remedy.FEWER_ASSOCIATIONS,
        "The node is congested at present",
        "Nothing; it is tried again, and the node is given fewer associations at a time.",
    ),
    _rejection(
        "FLR-25",
        "3/2",
        Remedy.FEWER_ASSOCIATIONS,
        "The node has reached its limit of associations",
        "Lower the number of associations to this node, or raise the node's limit.",
    ),
    _rejection(
        "FLR-28",
        "result 2",
        Remedy.RETRY_LATER,
        "The node rejects the association for now",
        "Nothing; it is tried again. " + _ITS_LOG,
    ),
    _rejection(
        "FLR-29",
        "result 1,*",
        Remedy.RETRY_LATER,
        "The node rejects the association and gives no reason",
        "It is tried again, for a node that starts may do so. Check both AE titles and that the "
        "node knows this host's address. " + _ITS_LOG,
    ),
    _abort(
        "FLR-30",
        "2/2",
        Remedy.RETRY_LATER,
        "The node aborted the association: a PDU was unexpected",
        "Report it, with the versions of both sides. " + _ITS_LOG,
    ),
    _abort(
        "FLR-31",
        "2/1 2/4 2/5 2/6",
        Remedy.RETRY_LATER,
        "The node aborted the association: it did not understand a PDU",
        "Report it, with the versions of both sides. " + _ITS_LOG,
    ),
    _abort(
        "FLR-39",
        "*",
        Remedy.RETRY_LATER,
        "The node aborted the association",
        _ITS_LOG + " A node that restarts or is full also does this.",
    ),
    _context(
        "FLR-40",
        "result 1,result 2",
        Remedy.NEVER,
        "The node did not accept the kind of object, and gives no reason",
        _ITS_LOG,
    ),
    _context(
        "FLR-41",
        "result 3",
        Remedy.NEVER,
        "The node does not store this kind of object (SOP class)",
        "Add the SOP class to the node's storage classes, or send to another node.",
    ),
    _context(
        "FLR-42",
        "result 4",
        Remedy.OTHER_SYNTAX,
        "The node does not take the object's compression or encoding (transfer syntax)",
        _ADD_SYNTAX + " Compressed pixel data are never decompressed here; what is uncompressed is "
        "converted where the node takes Implicit or Explicit VR Little Endian.",
    ),
    _context(
        "FLR-43",
        "result 0",
        Remedy.NEVER,
        "The node accepted the kind of object in a transfer syntax that was not proposed",
        "Report it, with the node's version. " + _ITS_LOG,
    ),
    _context(
        "FLR-44",
        "rejected",
        Remedy.RETRY_LATER,
        "The node rejects every association for this kind of object, and takes others under the "
        "same AE titles",
        "Add the SOP class and the transfer syntax to those the node accepts. " + _ITS_LOG,
    ),
    _context(
        "FLR-45",
        "aborted",
        Remedy.RETRY_LATER,
        "The node aborted the association",
        _NOT_TAKEN,
    ),
    _context(
        "FLR-46",
        "closed",
        Remedy.RETRY_LATER,
        "The node closed the connection without a word",
        _NOT_TAKEN,
    ),
    _context(
        "FLR-47",
        "released",
        Remedy.RETRY_LATER,
        "The node released the association before we were done",
        _NOT_TAKEN,
    ),
    _context(
        "FLR-49",
        "*",
        Remedy.NEVER,
        "The node's answer left out the kind of object",
        "Report it, with the node's version. " + _ITS_LOG,
    ),
    _store("FLR-50", "0000", Remedy.STORED, "Stored", ""),
    _store(
        "FLR-51",
        "B000",
        Remedy.STORED_WITH_WARNING,
        "Stored; the node changed elements (coercion)",
        "Nothing, unless the node's administrator did not mean it.",
        source="PS3.4 Table B.2-1",
    ),
    _store(
        "FLR-52",
        "B006",
        Remedy.STORED_WITH_WARNING,
        "Stored; the node left elements out",
        "Nothing, unless the elements are needed there.",
        source="PS3.4 Table B.2-1",
    ),
    _store(
        "FLR-53",
        "B007",
        Remedy.STORED_WITH_WARNING,
        "Stored; the node finds that the object does not match its SOP class",
        "Tell the maker of the object's source.",
        source="PS3.4 Table B.2-1",
    ),
    _store(
        "FLR-54",
        "0001 0107 0116 B001-B005 B008-BFFF",
        Remedy.STORED_WITH_WARNING,
        "Stored with a warning",
        "The node's comment says more. " + _ITS_LOG,
    ),
    _store(
        "FLR-55",
        "0111",
        Remedy.STORED,
        "The node had it already",
        "Nothing.",
    ),
    _store(
        "FLR-60",
        "A700-A7FF",
        Remedy.FEWER_ASSOCIATIONS,
        "The node is out of resources",
        "Free space on the node's disk. Sending goes on more slowly.",
        source="PS3.4 Table B.2-1",
    ),
    _store(
        "FLR-61",
        "A900",
        Remedy.OTHER_SYNTAX,
        "The node finds that the object does not match its SOP class",
        "Look into the node's log; the object itself may be faulty. Another encoding was tried "
        "too, if the node takes one.",
        source="PS3.4 Table B.2-1",
    ),
    _store(
        "FLR-62",
        "A901-A9FF",
        Remedy.NEVER,
        "The node finds that the object does not match its SOP class",
        "Look into the node's log; the object itself may be faulty.",
        source="PS3.4 Table B.2-1",
    ),
    _store(
        "FLR-63",
        "C000-CFFF",
        Remedy.NEVER,
        "The node cannot understand the object",
        "Look into the node's log; its comment often names the element.",
        source="PS3.4 Table B.2-1",
    ),
    _store(
        "FLR-64",
        "0122",
        Remedy.NEVER,
        "The node does not store this kind of object (SOP class)",
        "Add the SOP class to the node's storage classes, or send to another node.",
    ),
    _store(
        "FLR-65",
        "0117 0118 0119",
        Remedy.NEVER,
        "The node finds a UID or class of the object invalid",
        "The object is faulty; tell the maker of its source.",
    ),
    _store(
        "FLR-66",
        "0124",
        Remedy.NEVER,
        "The node does not allow us to store",
        "Ask the node's administrator to permit storing to our AE title.",
    ),
    _store(
        "FLR-67",
        "0213 0214",
        Remedy.RETRY_LATER,
        "The node is short of resources",
        "Check the node's disk and load.",
        source="PS3.7 annex C; PS3.2 prints 0214 for 0213",
    ),
    _store(
        "FLR-68",
        "0110 0112",
        Remedy.RETRY_LATER,
        "The node failed while it processed the object",
        _ITS_LOG,
        source="PS3.7 annex C; PS3.2 prints 0112 for 0110",
    ),
    _store(
        "FLR-69",
        "*",
        Remedy.RETRY_LATER,
        "The node answered with a failure that the standard does not name",
        "The node's comment says more. " + _ITS_LOG,
    ),
    Failure(
        "FLR-70",
        Layer.STORE,
        ("unknown",),
        Remedy.ASK_NODE,
        "Everything was sent and no answer came",
        "Nothing; the node is asked for it (C-FIND) where it offers that, else it is sent again.",
        "PS3.4 section C.4.1",
    ),
    _local(
        "FLR-80",
        "read",
        Remedy.RETRY_LATER,
        "The local file of the object cannot be read",
        "Check this host's disk.",
    ),
    _local(
        "FLR-81",
        "short",
        Remedy.FETCH_AGAIN,
        "The local file of the object is shorter than it was",
        _OUR_DISK,
    ),
    _local(
        "FLR-82",
        "odd",
        Remedy.NEVER,
        "The object was not sent: its data set has an odd number of bytes, so it is damaged",
        "Have the object's source write it again. Some nodes abort the association because of it.",
    ),
    _local(
        "FLR-83",
        "large",
        Remedy.NEVER,
        "The node does not take the object as it is encoded, and it is too large (over "
        "1 GiB) to be converted",
        _ADD_SYNTAX,
        source="PS3.5 section 10.1",
    ),
    _local(
        "FLR-84",
        "encoding",
        Remedy.NEVER,
        "The node does not take the object as it is encoded, and it is not encoded well "
        "enough to be converted",
        _ADD_SYNTAX + " Or have the object's source write it again.",
        source="PS3.5 section 10.1",
    ),
    _local(
        "FLR-85",
        "copy",
        Remedy.RETRY_LATER,
        "The node wants the object in another transfer syntax, and the copy could not be written",
        "Free disk space on this host: more than limits.reserve_gb must be left.",
        source="PS3.5 section 10.1",
    ),
    _local(
        "FLR-86",
        "gone",
        Remedy.FETCH_AGAIN,
        "The local file of the object is gone",
        _OUR_DISK,
    ),
    _local(
        "FLR-87",
        "damaged",
        Remedy.FETCH_AGAIN,
        "The local file of the object differs from the one that ITH sent: its hash (SHA-256) "
        "is another",
        _OUR_DISK,
    ),
    _local(
        "FLR-89",
        "*",
        Remedy.NEVER,
        "The local file is not a DICOM object that can be sent",
        "Tell the maker of the object's source.",
    ),
)


def _by_code(layer: Layer) -> dict[str, Failure]:
    return {code: row for row in FAILURES if row.layer is layer for code in row.codes}


def _ranges() -> Iterator[tuple[int, int, Failure]]:
    for code, failure in _by_code(Layer.STORE).items():
        if code not in {"*", "unknown"}:
            first, _, last = code.partition("-")
            yield int(first, 16), int(last or first, 16), failure


_TRANSPORT = _by_code(Layer.TRANSPORT)
_REJECTION = _by_code(Layer.ASSOCIATION)
_ABORT = _by_code(Layer.ABORT)
_CONTEXT = _by_code(Layer.CONTEXT)
_STORE = _by_code(Layer.STORE)
_LOCAL = _by_code(Layer.LOCAL)
_STATUSES = tuple(_ranges())


def classify_transport(code: str) -> Failure:
    """Look up the reason of a missing connection: an errno name, ``timeout`` or ``dns``."""
    return _TRANSPORT.get(code, _TRANSPORT["*"])


def classify_loss(code: str) -> Failure:
    """Look up a code of ``AssociationLost``; its ``timeout`` means a missing answer."""
    return classify_transport("silent" if code == "timeout" else code)


def classify_error(error: NodeError) -> Failure:
    """Look up an error of the network or the association."""
    match error:
        case NodeUnreachable(code=code):
            return classify_transport(code)
        case AssociationRejected(result=result, source=source, reason=reason):
            return classify_rejection(result, source, reason)
        case AssociationLost(source=int(source), reason=int(reason)):
            return classify_abort(source, reason)
        case AssociationLost(code=code):
            return classify_loss(code)
        case _:
            return classify_transport("*")


def is_answer(error: NodeError) -> bool:
    """Whether the error proves that a DICOM node is there: it answered, rejected or aborted."""
    return isinstance(error, AssociationRejected) or (
        isinstance(error, AssociationLost) and error.code in {"abort", "pdu"}
    )


def blames_contexts(error: NodeError) -> Failure | None:
    """Return the row for an error by which a node may mean the contexts that were proposed.

    None for any other error. Only a node that takes associations under the same AE titles at that
    time means them; a node that starts gives the same answers.
    """
    match error:
        case AssociationRejected(source=source, reason=reason):
            says_why = f"{source}/{reason}" in _REJECTION
            return None if says_why else _CONTEXT["rejected"]
        case AssociationLost(code="abort"):
            return _CONTEXT["aborted"]
        case AssociationLost(code="closed" | "released" as code):
            return _CONTEXT[code]
        case _:
            return None


def classify_rejection(result: int, source: int, reason: int) -> Failure:
    """Look up an A-ASSOCIATE-RJ by source and reason first: the result byte is often wrong."""
    found = _REJECTION.get(f"{source}/{reason}") or _REJECTION.get(f"result {result}")
    return found or _REJECTION["*"]


def classify_abort(source: int, reason: int) -> Failure:
    """Look up an A-ABORT; the reason counts only where the service provider is the source."""
    return _ABORT.get(f"{source}/{reason}", _ABORT["*"])


def classify_context(result: int | str | None) -> Failure:
    """Look up the refusal of a presentation context; None means that it was not answered.

    A word is about the association for it: ``rejected``, ``aborted``, ``closed``, ``released``.
    """
    code = result if isinstance(result, str) else f"result {result}"
    return _CONTEXT.get(code, _CONTEXT["*"])


def classify_store(status: int | None) -> Failure:
    """Look up a C-STORE status; None means that all bytes were sent and no usable response came."""
    if status is None:
        return _STORE["unknown"]
    found = (row for first, last, row in _STATUSES if first <= status <= last)
    return next(found, _STORE["*"])


def classify_local(code: str) -> Failure:
    """Look up the problem of a local file."""
    return _LOCAL.get(code, _LOCAL["*"])


def unreadable(error: OSError) -> InstanceUnusable:
    """Build the error for a local file that is missing, or cannot be read at present."""
    return unusable("gone" if isinstance(error, FileNotFoundError) else "read")


def unusable(code: str) -> InstanceUnusable:
    """Build the error for a local file that cannot be sent."""
    failure = classify_local(code)
    return InstanceUnusable(code, failure.sentence, hint=failure.hint)
