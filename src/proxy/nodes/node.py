"""A node: a DICOM destination at the site."""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias

import msgspec

Repush: TypeAlias = Literal["all", "new", "never"]
"""The instances, among those a node has confirmed, to send again: all, changed ones, or none."""


NewScans: TypeAlias = Literal["read", "write", "any", "none"]
"""The nodes that new scans are sent to, by their permission."""


class Permission(Enum):
    """The permission of a node, in the words of the platform (protocol.md 4.2, 6.1)."""

    READ = "read"
    WRITE = "write"
    READ_WRITE = "read_write"

    def gets_new_scans(self, wanted: NewScans) -> bool:
        """Whether new scans are sent to a node with this permission."""
        if wanted in {"any", "none"}:
            return wanted == "any"
        return self is Permission.READ_WRITE or self.value == wanted


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A DICOM destination, its address checked.

    The fields of None have no value at ITH: then the site's settings, or the program's defaults,
    apply. ``whole_studies`` says that a delivery to it yields to no other. Seconds for
    ``connection_timeout`` and ``retry_delay``; ``max_pdu_size`` in bytes, 0 for unlimited.
    ``retry_count`` counts the attempts after the first.
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
    whole_studies: bool = False

    @property
    def identity(self) -> str:
        """The key of the node's confirmations in the ledger: another address is another node."""
        return f"{self.ae_title}@{self.host}:{self.port}"

    @property
    def address(self) -> tuple[str, int, str, str | None]:
        """The values that a running association depends on: host, port and both AE titles."""
        return self.host, self.port, self.ae_title, self.calling_ae_title
