"""Reports for tests of the outbox and of what takes from it."""

from __future__ import annotations

import json

from proxy.events.outgoing import DispatchStatusEvent


def underway(label: str, progress: int) -> DispatchStatusEvent:
    """Make a progress report that is known by its label."""
    return DispatchStatusEvent.create(
        workspace_id="ws-1",
        entity_type="session",
        entity_id=label,
        correlation_id="corr_1",
        status="processing",
        progress=progress,
    )


def over(label: str = "done", progress: int = 100, *, error: str = "") -> DispatchStatusEvent:
    """Make a final report that is known by its label; with an error it is a failed one."""
    return DispatchStatusEvent.create(
        workspace_id="ws-1",
        entity_type="session",
        entity_id=label,
        correlation_id="corr_1",
        status="failed" if error else "completed",
        progress=progress,
        error=error,
    )


def label_of(frame: str) -> str:
    return str(json.loads(frame)["entity_id"])


def progress_of(frame: str) -> int:
    return int(json.loads(frame)["payload"]["progress"])
