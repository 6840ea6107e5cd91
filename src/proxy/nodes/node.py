"""A node: a DICOM destination at the site."""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias

import msgspec

Repush: TypeAlias = Literal["all", "new", "never"]
"""What a later dispatch sends of what a node has confirmed: all, what is new, nothing of it."""


NewScans: TypeAlias = Literal["read", "write", "any", "none"]
"""Which nodes new scans are for, by what they may do."""


class Permission(Enum):
    """What a node may do with the proxy, in the words of the platform (protocol.md 4.2, 6.1)."""

    READ = "read"
    WRITE = "write"
    READ_WRITE = "read_write"

    def gets_new_scans(self, wanted: NewScans) -> bool:
        """Whether a node that may do this is one of those that new scans are for."""
        if wanted in {"any", "none"}:
            return wanted == "any"
        return self is Permission.READ_WRITE or self.value == wanted


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A DICOM destination, its address checked.

    The last six are None where ITH does not say: the site's settings, or the program's defaults,
    hold then. Seconds for ``connection_timeout`` and ``retry_delay``; ``max_pdu_size`` in bytes,
    0 for unlimited. ``retry_count`` counts the tries after the first.
    """

    node_id: str
    name: str
    ae_title: str
    host: str
    port: int
    is_active: bool = True
    permission: Permission = Permission.READ_WRITE
    description: str = ""
    storage_path: str = ""
    connection_timeout: float | None = None
    max_pdu_size: int | None = None
    retry_count: int | None = None
    retry_delay: float | None = None
    calling_ae_title: str | None = None
    repush: Repush | None = None

    @property
    def identity(self) -> str:
        """By what the ledger remembers what the node has: at another address it is another."""
        return f"{self.ae_title}@{self.host}:{self.port}"

    @property
    def address(self) -> tuple[str, int, str, str | None]:
        """What a running association depends on: host, port and both AE titles."""
        return self.host, self.port, self.ae_title, self.calling_ae_title
