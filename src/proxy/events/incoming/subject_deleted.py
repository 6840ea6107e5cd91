"""``subject.deleted``: remove everything of one subject from the local PACS (protocol.md 2.12)."""

from __future__ import annotations

from typing import Self

from proxy.events.base import Id, IncomingEvent, IncomingPayload


class SubjectDeletedPayload(IncomingPayload, frozen=True, kw_only=True):
    """``subject_identifier`` is the key: a PatientID, original or pseudonym (protocol.md 5)."""

    subject_identifier: Id


class SubjectDeletedEvent(IncomingEvent, frozen=True, kw_only=True, tag="subject.deleted"):
    """The subject is gone from ITH and goes from the local PACS."""

    payload: SubjectDeletedPayload

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str,
        subject_id: str | None,
        subject_identifier: str,
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make the event as ITH would."""
        return cls._make(
            SubjectDeletedPayload(subject_identifier=subject_identifier),
            workspace_id=workspace_id,
            entity_type="subject",
            entity_id=subject_id,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
