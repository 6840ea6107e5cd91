"""``proxy.nodes_changed``: the list of nodes changed (protocol.md 2.13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from proxy.events.base import IncomingPayload, ProxyEvent


class NodesChangedPayload(IncomingPayload, frozen=True, kw_only=True):
    """The nodes as received: ``proxy.nodes`` reads them one by one, so that each can fail alone."""

    nodes: tuple[object, ...]
    changed_action: str = "updated"


class ProxyNodesChangedEvent(ProxyEvent, frozen=True, kw_only=True, tag="proxy.nodes_changed"):
    """Nodes were added, removed, updated or replaced."""

    payload: NodesChangedPayload

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str,
        proxy_id: str | None,
        nodes: Sequence[object],
        changed_action: str = "updated",
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make the event as ITH would."""
        return cls._make(
            NodesChangedPayload(nodes=tuple(nodes), changed_action=changed_action),
            workspace_id=workspace_id,
            entity_type="proxy",
            entity_id=proxy_id,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
