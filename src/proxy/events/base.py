"""The bases of all messages: an event has seven fields, a control message has its ``type``.

The bases of incoming events also name the fields that a canonical frame must *not* have, so that
the one-pass decoder of ``codec`` hands every other frame to the tolerant reader.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from secrets import randbits
from typing import Annotated, Any, Literal, Self, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

Id: TypeAlias = Annotated[str, Meta(min_length=1)]
"""An id of ITH: opaque, never empty."""

PriorityWord: TypeAlias = Literal["low", "normal", "high", "urgent"]


def wire_time(seconds: float) -> str:
    """A time in UTC seconds since 1970 as the wire has it: ISO 8601, UTC, milliseconds, ``Z``."""
    at = datetime.fromtimestamp(seconds, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_correlation_id(getrandbits: Callable[[int], int] = randbits) -> str:
    """A fresh id that ties reports to a request: ``corr_`` and 12 hexadecimal digits."""
    return f"corr_{getrandbits(48):012x}"


class Message(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Base of all values that can be written as a JSON object."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, strings and numbers, ready for ``json.dumps``."""
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return plain

    def to_json(self) -> str:
        """Return the text of a frame."""
        return msgspec.json.encode(self.to_dict()).decode()


class ControlMessage(Message, frozen=True, kw_only=True, tag_field="type"):
    """Base of the messages that belong to the link itself and are named by ``type``."""

    @property
    def type(self) -> str:
        """The message's name on the wire."""
        return str(self.__struct_config__.tag)


class WebSocketEvent(Message, frozen=True, kw_only=True, tag_field="event_type"):
    """Base of all events: ``event_type`` and six more fields (protocol.md 2).

    ``workspace_id`` and ``timestamp`` of a received event are empty if ITH sent none;
    ``correlation_id`` is never empty.
    """

    workspace_id: str = ""
    timestamp: str = ""
    correlation_id: Id
    entity_type: str | None = None
    entity_id: str | None = None
    payload: msgspec.Struct

    @property
    def event_type(self) -> str:
        """The event's dotted name on the wire."""
        return str(self.__struct_config__.tag)

    @classmethod
    def _make(
        cls,
        payload: msgspec.Struct,
        *,
        workspace_id: str,
        entity_type: str | None,
        entity_id: str | None,
        timestamp: str | None,
        correlation_id: str | None,
    ) -> Self:
        """Fill in time and correlation id if the caller of ``create`` gave none."""
        return cls(
            workspace_id=workspace_id,
            timestamp=timestamp or wire_time(time.time()),
            correlation_id=correlation_id or new_correlation_id(),
            entity_type=entity_type,
            entity_id=entity_id,
            payload=payload,
        )


class IncomingPayload(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Base of the payloads of incoming events.

    A payload with an ``event_type`` is itself the event, in its envelope (protocol.md 1.6). The
    field accepts only "absent", so such a frame goes to the tolerant reader.
    """

    event_type: UnsetType = UNSET

    @classmethod
    def canonical(cls, raw: dict[str, object]) -> dict[str, object]:
        """Return ``raw`` with other generations' spellings turned into the fields' names."""
        return raw


class IncomingEvent(WebSocketEvent, frozen=True, kw_only=True):
    """Base of the events that ITH sends; ``type`` belongs to control messages and is read first."""

    type: UnsetType = UNSET


class ProxyEvent(IncomingEvent, frozen=True, kw_only=True):
    """Base of the three changes of a proxy; ``entity_id`` names the proxy, None means the receiver.

    An unreadable ``entity_id`` is not None: it may be another proxy's.
    """


class DispatchPayload(IncomingPayload, frozen=True, kw_only=True):
    """The payload of all dispatches: the ids of the nodes, ours or not, and the urgency."""

    nodes: tuple[Id, ...]
    priority: PriorityWord = "normal"


class DispatchEvent(IncomingEvent, frozen=True, kw_only=True):
    """Base of the three dispatches: download the entity, store it at the nodes."""

    entity_id: Id
    payload: DispatchPayload
