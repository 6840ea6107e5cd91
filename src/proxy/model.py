"""The terms that several packages share: an entity of ITH, an instance, an order to dispatch."""

from __future__ import annotations

import re
from enum import Enum

import msgspec

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
"""The transfer syntaxes without compressed pixel data (PS3.5 annex A); big endian is retired."""

DEFLATED = frozenset(
    {DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)
"""The transfer syntaxes with a deflated data set (PS3.5 A.5, A.7, A.12): one stream, any length."""


_UID = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+")
_LONGEST_UID = 64


def shown(uid: str) -> str:
    """Return a UID as the log and ITH may read it: one that breaks PS3.5 9.1 may hold a name."""
    is_one = len(uid) <= _LONGEST_UID and _UID.fullmatch(uid)
    return uid if is_one else "(a UID that breaks PS3.5 9.1)"


class EntityType(Enum):
    """The three kinds of entities that ITH dispatches; the values are those of the wire."""

    SUBJECT = "subject"
    SESSION = "session"
    SCAN = "scan"


class Entity(msgspec.Struct, frozen=True):
    """An entity of ITH: a subject (patient), session (study) or scan (series).

    Ids are opaque strings. ``subject_id`` and ``session_id`` are the parents that the download
    URL needs (protocol.md 3); None if the entity has no such parent.
    """

    type: EntityType
    id: str
    subject_id: str | None = None
    session_id: str | None = None

    @property
    def key(self) -> tuple[EntityType, str]:
        """The type and id, which identify the entity even if its parents are not known."""
        return self.type, self.id


class Priority(Enum):
    """The urgency that ITH gives a dispatch; the order of the enum is the order of service."""

    URGENT = "urgent"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 is served first."""
        return list(Priority).index(self)


class Order(msgspec.Struct, frozen=True):
    """One dispatch as ITH ordered it, for those nodes that are ours."""

    entity: Entity
    node_ids: tuple[str, ...]
    correlation_id: str
    workspace_id: str
    priority: Priority = Priority.NORMAL

    def is_same(self, other: Order) -> bool:
        """Whether both are the same order of ITH; a repeated order may name other nodes."""
        return bool(self.correlation_id) and (self.correlation_id, self.entity.key) == (
            other.correlation_id,
            other.entity.key,
        )


class Instance(msgspec.Struct, frozen=True):
    """One DICOM instance in the local PACS.

    ``sha256`` (hex) names its file. In the file the data set begins at ``offset``, after the file
    meta group, and ends at ``size``, both in bytes.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    sha256: str
    size: int
    offset: int
    series_number: int | None = None
    instance_number: int | None = None
    patient_id: str = ""
