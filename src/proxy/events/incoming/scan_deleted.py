"""``scan.deleted``: remove one scan from the local PACS (protocol.md 2.11)."""

from __future__ import annotations

from typing import Annotated, Self, TypeAlias

from msgspec import Meta

from proxy.events.base import Id, IncomingEvent, IncomingPayload

SeriesNumber: TypeAlias = Annotated[int, Meta(gt=-(10**11), lt=10**11)]
"""The longest number of an Integer String (PS3.5 6.2); the ledger cannot look for more digits."""


class ScanDeletedPayload(IncomingPayload, frozen=True, kw_only=True):
    """The study and ``scan_number`` (SeriesNumber) are the key; ITH sends no SeriesInstanceUID."""

    study_instance_uid: Id
    scan_number: SeriesNumber
    subject_id: str | None = None
    session_id: str | None = None


class ScanDeletedEvent(IncomingEvent, frozen=True, kw_only=True, tag="scan.deleted"):
    """The scan is gone from ITH and goes from the local PACS."""

    payload: ScanDeletedPayload

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str,
        scan_id: str | None,
        study_instance_uid: str,
        scan_number: int,
        subject_id: str | None = None,
        session_id: str | None = None,
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make the event as ITH would."""
        return cls._make(
            ScanDeletedPayload(
                study_instance_uid=study_instance_uid,
                scan_number=scan_number,
                subject_id=subject_id,
                session_id=session_id,
            ),
            workspace_id=workspace_id,
            entity_type="scan",
            entity_id=scan_id,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
