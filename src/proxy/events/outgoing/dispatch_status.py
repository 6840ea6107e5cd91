"""``dispatch.status``: the progress of a dispatch (protocol.md 2.16)."""

from __future__ import annotations

from typing import Literal, Self, TypeAlias, get_args

import msgspec

from proxy.events.base import WebSocketEvent

StatusWord: TypeAlias = Literal["downloading", "processing", "completed", "failed"]
"""The four words the deployed backend knows."""

FINAL: frozenset[StatusWord] = frozenset({"completed", "failed"})
"""The words that end a stream of reports."""


class DispatchStatusPayload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``progress`` is in percent; without ``node_id`` it is that of the dispatch."""

    node_id: str | None = None
    status: StatusWord
    progress: int
    files_sent: int
    files_total: int
    error: str | None = None


class DispatchStatusEvent(WebSocketEvent, frozen=True, kw_only=True, tag="dispatch.status"):
    """The state of the delivery to one node or, without ``node_id``, of the dispatch."""

    payload: DispatchStatusPayload

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str,
        entity_type: str,
        entity_id: str,
        status: StatusWord,
        node_id: str | None = None,
        progress: int = 0,
        files_sent: int = 0,
        files_total: int = 0,
        error: str | None = None,
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make a report; ``correlation_id`` is the dispatch event's.

        Raises ``ValueError`` for a word, a number or an error text that ITH would not understand.
        """
        if status not in get_args(StatusWord):
            words = ", ".join(get_args(StatusWord))
            raise ValueError(f"status must be one of {words}, not {status!r}")
        if not 0 <= progress <= 100:
            raise ValueError(f"progress must be 0 to 100 percent, not {progress}")
        if min(files_sent, files_total) < 0:
            raise ValueError("files_sent and files_total must not be negative")
        if error and status != "failed":
            raise ValueError(f"error belongs to status failed only, not to {status}")
        return cls._make(
            DispatchStatusPayload(
                node_id=node_id,
                status=status,
                progress=progress,
                files_sent=files_sent,
                files_total=files_total,
                error=error or None,
            ),
            workspace_id=workspace_id,
            entity_type=entity_type,
            entity_id=entity_id,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
