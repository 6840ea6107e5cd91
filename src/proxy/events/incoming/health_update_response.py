"""``health_update_response``: ITH's answer to our ``health_update`` (protocol.md 2.5)."""

from __future__ import annotations

from typing import Self

from proxy.events.base import ControlMessage


class HealthUpdateResponse(ControlMessage, frozen=True, kw_only=True, tag="health_update_response"):
    """``status`` is ``success``, or another word and ``error`` has the reason."""

    status: str
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether ITH took the update."""
        return self.status == "success"

    @classmethod
    def create(cls, *, status: str, error: str | None = None) -> Self:
        """Make the message as ITH would."""
        return cls(status=status, error=error)
