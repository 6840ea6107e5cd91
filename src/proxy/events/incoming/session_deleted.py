"""``session.deleted``: remove one session from the local PACS (protocol.md 2.10)."""

from __future__ import annotations

from typing import Self

from proxy.events.base import Id, IncomingEvent, IncomingPayload


class SessionDeletedPayload(IncomingPayload, frozen=True, kw_only=True):
    """``study_instance_uid`` is the key; the rest is for people."""

    study_instance_uid: Id
    subject_id: str | None = None
    session_label: str | None = None


class SessionDeletedEvent(IncomingEvent, frozen=True, kw_only=True, tag="session.deleted"):
    """The session is gone from ITH and goes from the local PACS."""

    payload: SessionDeletedPayload

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str,
        session_id: str | None,
        study_instance_uid: str,
        subject_id: str | None = None,
        session_label: str | None = None,
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make the event as ITH would."""
        return cls._make(
            SessionDeletedPayload(
                study_instance_uid=study_instance_uid,
                subject_id=subject_id,
                session_label=session_label,
            ),
            workspace_id=workspace_id,
            entity_type="session",
            entity_id=session_id,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
