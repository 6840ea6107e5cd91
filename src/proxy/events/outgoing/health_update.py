"""``health_update``: whether the proxy is online, and its nodes reachable (protocol.md 2.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self, TypeAlias, get_args

import msgspec

from proxy.events.base import ControlMessage

HealthStatus: TypeAlias = Literal["online", "offline", "error"]


class NodeHealth(msgspec.Struct, frozen=True):
    """Whether one active node answered its last C-ECHO."""

    node_id: str
    is_reachable: bool


class HealthUpdate(
    ControlMessage, frozen=True, kw_only=True, tag="health_update", omit_defaults=True
):
    """The deployed backend's heartbeat; ``nodes`` is left out if there are none."""

    proxy_status: HealthStatus
    proxy_version: str
    nodes: tuple[NodeHealth, ...] = ()

    @classmethod
    def create(
        cls,
        *,
        proxy_status: HealthStatus,
        proxy_version: str,
        nodes: Mapping[str, bool] | None = None,
    ) -> Self:
        """Make the message; ``nodes`` maps the ids of the active nodes to "reachable".

        Raises ``ValueError`` for a status that ITH would not understand.
        """
        if proxy_status not in get_args(HealthStatus):
            words = ", ".join(get_args(HealthStatus))
            raise ValueError(f"proxy_status must be one of {words}, not {proxy_status!r}")
        reached = tuple(NodeHealth(node_id, up) for node_id, up in (nodes or {}).items())
        return cls(proxy_status=proxy_status, proxy_version=proxy_version, nodes=reached)
