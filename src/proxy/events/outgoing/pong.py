"""``pong``: the answer to a ping (protocol.md 1.5, 2.3)."""

from __future__ import annotations

from typing import Literal, Self

import msgspec

from proxy.events.base import WebSocketEvent


class PongPayload(msgspec.Struct, frozen=True):
    """Empty."""


class PongEvent(WebSocketEvent, frozen=True, kw_only=True, tag="pong"):
    """The proxy is alive; it has ``event_type`` and ``type``, so either dialect can read it."""

    payload: PongPayload
    type: Literal["pong"] = "pong"

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str = "",
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make a pong; ``correlation_id`` is the ping's if the two should be tied."""
        return cls._make(
            PongPayload(),
            workspace_id=workspace_id,
            entity_type=None,
            entity_id=None,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
