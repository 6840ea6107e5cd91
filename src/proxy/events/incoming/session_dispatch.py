"""``session.dispatch``: store one session at nodes (protocol.md 2.7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from proxy.events.base import DispatchEvent, DispatchPayload, Id, PriorityWord


class SessionDispatchPayload(DispatchPayload, frozen=True, kw_only=True):
    """``subject_id`` goes into the download URL; ``session_label`` is for people."""

    subject_id: Id
    session_label: str | None = None


class SessionDispatchEvent(DispatchEvent, frozen=True, kw_only=True, tag="session.dispatch"):
    """Download the session ``entity_id`` and store it at the nodes."""

    payload: SessionDispatchPayload

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str,
        session_id: str,
        subject_id: str,
        nodes: Sequence[str],
        session_label: str | None = None,
        priority: PriorityWord = "normal",
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make the event as ITH would."""
        return cls._make(
            SessionDispatchPayload(
                nodes=tuple(nodes),
                priority=priority,
                subject_id=subject_id,
                session_label=session_label,
            ),
            workspace_id=workspace_id,
            entity_type="session",
            entity_id=session_id,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
