"""``subject.dispatch``: store everything of one subject at nodes (protocol.md 2.6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from proxy.events.base import DispatchEvent, DispatchPayload, PriorityWord


class SubjectDispatchPayload(DispatchPayload, frozen=True, kw_only=True):
    """``subject_identifier`` is a label for people, and may identify a patient."""

    subject_identifier: str | None = None


class SubjectDispatchEvent(DispatchEvent, frozen=True, kw_only=True, tag="subject.dispatch"):
    """Download the subject ``entity_id`` and store it at the nodes."""

    payload: SubjectDispatchPayload

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str,
        subject_id: str,
        nodes: Sequence[str],
        subject_identifier: str | None = None,
        priority: PriorityWord = "normal",
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make the event as ITH would."""
        return cls._make(
            SubjectDispatchPayload(
                nodes=tuple(nodes), priority=priority, subject_identifier=subject_identifier
            ),
            workspace_id=workspace_id,
            entity_type="subject",
            entity_id=subject_id,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
