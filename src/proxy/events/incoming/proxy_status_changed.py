"""``proxy.status_changed``: ITH pauses or resumes the proxy (protocol.md 2.15, 6.4)."""

from __future__ import annotations

from typing import Self

from proxy.events.base import IncomingPayload, ProxyEvent

_MEANS_ACTIVE = {"active": True, "inactive": False, "maintenance": False, "error": False}


class StatusChangedPayload(IncomingPayload, frozen=True, kw_only=True):
    """``is_active`` decides; ``new_status`` and ``reason`` are for people."""

    new_status: str
    is_active: bool
    reason: str | None = None

    @classmethod
    def canonical(cls, raw: dict[str, object]) -> dict[str, object]:
        """Read ``status`` as ``new_status``, and derive a missing word or flag from the other."""
        word = raw.get("status") if raw.get("new_status") is None else raw["new_status"]
        flag = raw.get("is_active")
        if flag is None and isinstance(word, str):
            flag = _MEANS_ACTIVE.get(word.strip().lower())
        if word is None and isinstance(flag, bool):
            word = "active" if flag else "inactive"
        return {**raw, "new_status": word, "is_active": flag}


class ProxyStatusChangedEvent(ProxyEvent, frozen=True, kw_only=True, tag="proxy.status_changed"):
    """The proxy must pause, or go on."""

    payload: StatusChangedPayload

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str,
        proxy_id: str | None,
        new_status: str,
        is_active: bool,
        reason: str | None = None,
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make the event as ITH would."""
        return cls._make(
            StatusChangedPayload(new_status=new_status, is_active=is_active, reason=reason),
            workspace_id=workspace_id,
            entity_type="proxy",
            entity_id=proxy_id,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
