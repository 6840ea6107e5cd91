"""``proxy.heartbeat``: the state of the proxy itself (protocol.md 2.17)."""

from __future__ import annotations

from typing import Any, Literal, Self, TypeAlias, get_args

import msgspec

from proxy.events.base import WebSocketEvent

ProxyStatus: TypeAlias = Literal["active", "inactive", "error"]


class ProxyHeartbeatPayload(msgspec.Struct, frozen=True, kw_only=True):
    """``disk_usage_gb`` is used space in GiB; ``extras`` lie beside the six fields on the wire."""

    status: ProxyStatus
    nodes_online: int
    nodes_total: int
    active_dispatches: int
    disk_usage_gb: float
    version: str
    extras: dict[str, object] = msgspec.field(default_factory=dict)


class ProxyHeartbeatEvent(WebSocketEvent, frozen=True, kw_only=True, tag="proxy.heartbeat"):
    """The proxy's health, sent from time to time."""

    payload: ProxyHeartbeatPayload

    def to_dict(self) -> dict[str, Any]:
        """Return the event with the extras merged into its payload."""
        plain = super().to_dict()
        extras = plain["payload"].pop("extras")
        return {**plain, "payload": {**extras, **plain["payload"]}}

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str,
        proxy_id: str | None,
        status: ProxyStatus,
        nodes_online: int,
        nodes_total: int,
        version: str,
        active_dispatches: int = 0,
        disk_usage_gb: float = 0.0,
        timestamp: str | None = None,
        correlation_id: str | None = None,
        **extras: object,
    ) -> Self:
        """Make a heartbeat; further keywords become further fields of the payload.

        Raises ``ValueError`` for a status that ITH would not understand.
        """
        if status not in get_args(ProxyStatus):
            words = ", ".join(get_args(ProxyStatus))
            raise ValueError(f"status must be one of {words}, not {status!r}")
        return cls._make(
            ProxyHeartbeatPayload(
                status=status,
                nodes_online=nodes_online,
                nodes_total=nodes_total,
                active_dispatches=active_dispatches,
                disk_usage_gb=disk_usage_gb,
                version=version,
                extras=extras,
            ),
            workspace_id=workspace_id,
            entity_type="proxy",
            entity_id=proxy_id,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
