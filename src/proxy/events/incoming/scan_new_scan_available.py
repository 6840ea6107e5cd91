"""``scan.new_scan_available``: a derived scan for nodes of our choice (protocol.md 2.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import msgspec

from proxy.events.base import Id, IncomingEvent, IncomingPayload, PriorityWord


class NewScanAvailablePayload(IncomingPayload, frozen=True, kw_only=True):
    """The parents go into the download URL; of the rest, ``action`` and ``priority`` matter."""

    subject_id: Id
    session_id: Id
    scan_type: str | None = None
    scan_modality: str | None = None
    source: str = "unknown"
    action: str = "pull_and_dispatch"
    priority: PriorityWord = "normal"
    metadata: dict[str, object] = msgspec.field(default_factory=dict)


class NewScanAvailableEvent(
    IncomingEvent, frozen=True, kw_only=True, tag="scan.new_scan_available"
):
    """Download the scan ``entity_id`` and store it at every eligible node (protocol.md 4.2)."""

    entity_id: Id
    payload: NewScanAvailablePayload

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str,
        scan_id: str,
        subject_id: str,
        session_id: str,
        scan_type: str | None = None,
        scan_modality: str | None = None,
        source: str = "unknown",
        action: str = "pull_and_dispatch",
        priority: PriorityWord = "normal",
        metadata: Mapping[str, object] | None = None,
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make the event as ITH would."""
        return cls._make(
            NewScanAvailablePayload(
                subject_id=subject_id,
                session_id=session_id,
                scan_type=scan_type,
                scan_modality=scan_modality,
                source=source,
                action=action,
                priority=priority,
                metadata=dict(metadata or {}),
            ),
            workspace_id=workspace_id,
            entity_type="scan",
            entity_id=scan_id,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
