"""``scan.dispatch``: store one scan at nodes (protocol.md 2.8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from proxy.events.base import DispatchEvent, DispatchPayload, Id, PriorityWord


class ScanDispatchPayload(DispatchPayload, frozen=True, kw_only=True):
    """The parents go into the download URL; number and modality are for people."""

    subject_id: Id
    session_id: Id
    scan_number: int | None = None
    modality: str | None = None


class ScanDispatchEvent(DispatchEvent, frozen=True, kw_only=True, tag="scan.dispatch"):
    """Download the scan ``entity_id`` and store it at the nodes."""

    payload: ScanDispatchPayload

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str,
        scan_id: str,
        subject_id: str,
        session_id: str,
        nodes: Sequence[str],
        scan_number: int | None = None,
        modality: str | None = None,
        priority: PriorityWord = "normal",
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make the event as ITH would."""
        return cls._make(
            ScanDispatchPayload(
                nodes=tuple(nodes),
                priority=priority,
                subject_id=subject_id,
                session_id=session_id,
                scan_number=scan_number,
                modality=modality,
            ),
            workspace_id=workspace_id,
            entity_type="scan",
            entity_id=scan_id,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
