"""``connected``: ITH's greeting (protocol.md 2.2)."""

from __future__ import annotations

from typing import Self

from proxy.events.base import ControlMessage, Id


class Connected(ControlMessage, frozen=True, kw_only=True, tag="connected"):
    """The key was accepted; the ids are those of its workspace and proxy."""

    workspace_id: Id
    proxy_id: Id

    @classmethod
    def create(cls, *, workspace_id: str, proxy_id: str) -> Self:
        """Make the message as ITH would."""
        return cls(workspace_id=workspace_id, proxy_id=proxy_id)
