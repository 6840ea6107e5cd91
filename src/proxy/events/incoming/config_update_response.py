"""``config_update_response``: ITH's answer to our ``config_update`` (protocol.md 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from proxy.events.base import ControlMessage


class ConfigUpdateResponse(ControlMessage, frozen=True, kw_only=True, tag="config_update_response"):
    """``status`` is ``success``, or another word and ``error`` has the reason."""

    status: str
    fields_updated: tuple[str, ...] = ()
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether ITH took the update."""
        return self.status == "success"

    @classmethod
    def create(
        cls, *, status: str, fields_updated: Sequence[str] = (), error: str | None = None
    ) -> Self:
        """Make the message as ITH would."""
        return cls(status=status, fields_updated=tuple(fields_updated), error=error)
