"""A message whose name this version does not know."""

from __future__ import annotations

from proxy.events.base import Message


class UnknownEvent(Message, frozen=True, kw_only=True):
    """Kept as received and reported, never fatal: ITH may be newer than this proxy.

    ``event_type`` is the event's name, or the ``type`` of a control message: letters, digits,
    ``.``, ``_`` and ``-`` only, so it may be logged. ``payload`` is the unread content.
    """

    event_type: str
    workspace_id: str = ""
    timestamp: str = ""
    correlation_id: str = ""
    entity_type: str | None = None
    entity_id: str | None = None
    payload: object = None
