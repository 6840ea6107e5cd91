"""The messages on the control socket, and the path of the socket.

The answer :class:`Status` is also what ``ith-proxy status --json`` prints: a field may be added,
none is renamed or removed while ``schema`` says 1. States are the words of the statecharts in
lower case, times are UTC. There is no patient data in it and no name of a subject or session.
"""

from __future__ import annotations

import os
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from proxy.errors import StateDirectoryError

SOCKET = "control.sock"

PATH_BYTES = 107 if sys.platform == "linux" else 103
"""The longest path a Unix socket can be bound to (unix(7)), without the zero at its end."""

REQUEST_BYTES = 4096
REASON_LENGTH = 200


class ControlRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A request of the operator; only a pause has a reason."""

    command: Literal["status", "pause", "resume"]
    reason: Annotated[str, msgspec.Meta(max_length=REASON_LENGTH)] = ""


class LockStatus(msgspec.Struct, frozen=True):
    """One holder of the pause; ``since`` is None if it was not kept."""

    lock: Literal["backend", "operator"]
    reason: str
    since: datetime | None


class OperationStatus(msgspec.Struct, frozen=True):
    """Whether the proxy works, and the holders of a pause."""

    state: str
    since: datetime
    locks: tuple[LockStatus, ...]


class ConnectionStatus(msgspec.Struct, frozen=True):
    """The link to ITH; it has been online, or offline, ``since`` that time."""

    state: str
    online: bool
    since: datetime
    error: str | None


class NodeStatus(msgspec.Struct, frozen=True):
    """One node of the site.

    ``associations`` is the present limit of associations at a time, since the node refused more;
    None if the limit is that of the settings.
    """

    node_id: str
    ae_title: str
    state: str
    error: str | None
    associations: int | None = None


class DeliveryStatus(msgspec.Struct, frozen=True):
    """The progress of a dispatch at one node; ``files_total`` is 0 until it is known.

    ``error`` is the reason why it is held, waits or ended; None if there is none.
    """

    node_id: str
    state: str
    files_stored: int
    files_refused: int
    files_total: int
    error: str | None


class DispatchStatus(msgspec.Struct, frozen=True):
    """One dispatch that is not over."""

    correlation_id: str
    entity_type: str
    priority: str
    state: str
    error: str | None
    deliveries: tuple[DeliveryStatus, ...]


class Attention(msgspec.Struct, frozen=True):
    """A problem that needs a person's attention, and its remedy."""

    problem: str
    hint: str


class Note(msgspec.Struct, frozen=True):
    """A fact that needs no attention, and its meaning."""

    fact: str
    meaning: str


class Status(msgspec.Struct, frozen=True, tag_field="schema", tag="ith-proxy/status/1"):
    """The proxy at one moment; counts are by state, dispatches oldest first.

    ``event_counts`` has the number of events received from ITH since the start, by type, and the
    numbers of those that were not acted upon: ``foreign`` (for another workspace or proxy),
    ``early`` (before the id of this proxy was known), ``broken``, ``unknown``, ``failed``.
    """

    version: str
    at: datetime
    healthy: bool
    attention: tuple[Attention, ...]
    operation: OperationStatus
    connection: ConnectionStatus
    node_counts: dict[str, int]
    nodes: tuple[NodeStatus, ...]
    dispatch_counts: dict[str, int]
    dispatches: tuple[DispatchStatus, ...]
    queued_reports: int
    disk_usage_gb: float
    notes: tuple[Note, ...] = ()
    event_counts: dict[str, int] = {}


class Refusal(msgspec.Struct, frozen=True, tag_field="schema", tag="ith-proxy/refusal/1"):
    """The reason why a request was refused, and the remedy."""

    problem: str
    hint: str = ""


ControlAnswer: TypeAlias = Status | Refusal


def socket_path(state_dir: Path) -> Path:
    """Return the path of the control socket; raises StateDirectoryError if it is too long."""
    path = state_dir / SOCKET
    size = len(os.fsencode(path))
    if size > PATH_BYTES:
        sentence = f"The path of the control socket has {size} bytes; {PATH_BYTES} are possible"
        hint = f"Choose a state directory with a shorter path: {path} is too long for a socket."
        raise StateDirectoryError(sentence, hint=hint)
    return path


def a_socket() -> socket.socket:
    """Make a socket for the control socket's path."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
