"""``proxy.config_changed``: the proxy's own configuration changed (protocol.md 2.14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from proxy.events.base import IncomingPayload, ProxyEvent


class ConfigChangedPayload(IncomingPayload, frozen=True, kw_only=True):
    """The names of the changed fields and the new values, empty if ITH sent only names."""

    changed_fields: tuple[str, ...]
    new_config: dict[str, object]

    @classmethod
    def canonical(cls, raw: dict[str, object]) -> dict[str, object]:
        """Read ``config`` as ``new_config``, and name its keys if ITH did not."""
        config = raw.get("config") if raw.get("new_config") is None else raw["new_config"]
        fields = raw.get("changed_fields")
        if fields is None and isinstance(config, dict):
            fields = list(config)
        return {**raw, "new_config": {} if config is None else config, "changed_fields": fields}


class ProxyConfigChangedEvent(ProxyEvent, frozen=True, kw_only=True, tag="proxy.config_changed"):
    """Fields of the proxy's configuration have new values."""

    payload: ConfigChangedPayload

    @classmethod
    def create(
        cls,
        *,
        workspace_id: str,
        proxy_id: str | None,
        changed_fields: Sequence[str],
        new_config: Mapping[str, object],
        timestamp: str | None = None,
        correlation_id: str | None = None,
    ) -> Self:
        """Make the event as ITH would."""
        return cls._make(
            ConfigChangedPayload(changed_fields=tuple(changed_fields), new_config=dict(new_config)),
            workspace_id=workspace_id,
            entity_type="proxy",
            entity_id=proxy_id,
            timestamp=timestamp,
            correlation_id=correlation_id,
        )
