"""``ping``: ITH asks whether the link is alive (protocol.md 2.3)."""

from __future__ import annotations

from typing import Literal, Self

from msgspec import UNSET, UnsetType, field

from proxy.events.base import IncomingPayload, WebSocketEvent


class PingPayload(IncomingPayload, frozen=True, kw_only=True):
    """Empty."""


class PingEvent(WebSocketEvent, frozen=True, kw_only=True, tag="ping"):
    """ITH requests a pong; ``type`` is set if the ping is a control message (protocol.md 1.5)."""

    payload: PingPayload = field(default_factory=PingPayload)
    type: Literal["ping"] | UnsetType = UNSET

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str = "",
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make a ping as an event."""
        return cls._make(
            PingPayload(),
            workspace_id=workspace_id,
            entity_type=None,
            entity_id=None,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
