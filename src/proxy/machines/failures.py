"""Look up the meaning and the remedy of a code of the network, an association or a C-STORE.

``proxy.dicom`` takes an error's sentence and hint from here, the deliveries take the remedy.
Every code falls into exactly one row of the table.
"""

from __future__ import annotations

from collections.abc import Iterator

from proxy.errors import (
    AssociationLost,
    AssociationRejected,
    InstanceUnusable,
    NodeError,
    NodeUnreachable,
)
from proxy.machines.failure_table import FAILURES, Failure, Layer, Remedy

__all__ = [
    "FAILURES",
    "Failure",
    "Layer",
    "Remedy",
    "classify_abort",
    "classify_context",
    "classify_error",
    "classify_local",
    "classify_loss",
    "classify_rejection",
    "classify_store",
    "classify_transport",
    "is_answer",
    "unreadable",
    "unusable",
]


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
    """Whether the error proves that a DICOM node is there: it rejected or aborted."""
    return isinstance(error, AssociationRejected) or (
        isinstance(error, AssociationLost) and error.code == "abort"
    )


def classify_rejection(result: int, source: int, reason: int) -> Failure:
    """Look up an A-ASSOCIATE-RJ by source and reason first: the result byte is often wrong."""
    found = _REJECTION.get(f"{source}/{reason}") or _REJECTION.get(f"result {result}")
    return found or _REJECTION["*"]


def classify_abort(source: int, reason: int) -> Failure:
    """Look up an A-ABORT; the reason counts only where the service provider is the source."""
    return _ABORT.get(f"{source}/{reason}", _ABORT["*"])


def classify_context(result: int | None) -> Failure:
    """Look up the refusal of a presentation context; None means that it was not answered."""
    return _CONTEXT.get(f"result {result}", _CONTEXT["*"])


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
