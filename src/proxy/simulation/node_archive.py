"""The archive of a simulated node: what it received, what it holds, and the search in that."""

from __future__ import annotations

import msgspec

from proxy.simulation import node_bytes as codec
from proxy.simulation.node_bytes import Found

LEVELS = ("STUDY", "SERIES", "IMAGE")
KEYS = (codec.STUDY_UID, codec.SERIES_UID, codec.SOP_INSTANCE_UID)
"""The unique key of each level (PS3.4 section C.6.2.1)."""


class ReceivedInstance(msgspec.Struct):
    """One C-STORE, from the first byte of its command on. Times are in seconds of trio's clock.

    ``sha256`` (hex) is of the data set, empty if that did not come completely. ``kept`` tells
    whether the node held this content then. ``status`` and ``answered_at`` are None without a
    response; the time is that of the response's last byte.
    """

    at: float
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    association: int
    sha256: str = ""
    size: int = 0
    kept: bool = False
    status: int | None = None
    answered_at: float | None = None


class NodeArchive:
    """The instances that a node holds, by SOP Instance UID.

    Only the beginning of each data set is kept, which has the UIDs of study and series; it is read
    when somebody asks for them.
    """

    def __init__(self) -> None:
        self.holds: dict[str, str] = {}
        """SOP Instance UID to SHA-256 of the data set."""
        self._heads: dict[str, tuple[bytes, str]] = {}
        self._found: dict[str, Found] = {}

    def keep(self, received: ReceivedInstance, head: bytes, *, overwrites: bool) -> None:
        """Store an instance; ``head`` is the beginning of its data set."""
        uid = received.sop_instance_uid
        if overwrites or uid not in self.holds:
            self.holds[uid] = received.sha256
            self._heads[uid] = head, received.transfer_syntax_uid
            self._found.pop(uid, None)
        received.kept = self.holds[uid] == received.sha256

    def forget(self) -> None:
        """Lose everything."""
        self.holds.clear()
        self._heads.clear()
        self._found.clear()

    def find(self, level: str, keys: dict[int, bytes]) -> list[Found]:
        """Return an instance of each entity of a level that matches all keys.

        A key is a UID, a list of UIDs, or empty, and matches what could not be read.
        """
        depth = LEVELS.index(level) + 1
        asked = [_uids(keys.get(tag, b"")) for tag in KEYS[:depth]]
        named = asked[-1] if depth == len(LEVELS) else []
        candidates = [uid for uid in named if uid in self.holds] if named else self.holds
        entities: dict[tuple[str, ...], Found] = {}
        for found in map(self._found_by, candidates):
            pairs = zip(asked, found, strict=False)
            if all(not wanted or not has or has in wanted for wanted, has in pairs):
                entities.setdefault(found[:depth], found)
        return [*entities.values()]

    def _found_by(self, sop_instance: str) -> Found:
        if sop_instance not in self._found:
            head, syntax = self._heads[sop_instance]
            self._found[sop_instance] = codec.read_uids(head, syntax, sop_instance)
        return self._found[sop_instance]


def _uids(value: bytes) -> list[str]:
    text = value.decode("ascii", "replace").strip("\0 ")
    return text.split("\\") if text else []
