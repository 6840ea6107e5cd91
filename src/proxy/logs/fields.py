"""The closed list of fields that a line of the log may have, and the check of each value."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeAlias

from proxy.model import shown

FieldValue: TypeAlias = "str | int | float | bool | Enum | None"
Line: TypeAlias = "dict[str, str | int | float | bool | list[str]]"


class FieldKind(Enum):
    """The kind of value that a field holds."""

    WORD = "An id, name or code that ITH, the site's configuration or this program made."
    COUNT = "A whole number."
    MEASURE = "A number; durations are in seconds."
    FLAG = "True or false."
    UID = "A DICOM UID: written as a keyed hash."
    KIND = "A UID of a SOP class or transfer syntax: written as it is, unless it may hold a name."


def _fields(**groups: str) -> dict[str, FieldKind]:
    return {name: FieldKind[group] for group, names in groups.items() for name in names.split()}


FIELDS: Final[Mapping[str, FieldKind]] = _fields(
    WORD="""
        correlation_id workspace_id proxy_id entity_type entity_id dispatch delivery node_id
        machine run row state before after fact activity operation reason code status phase
        ae_title address host event_type method priority signal failpoint
        version python config_file state_dir problem hint error at logger
        what message_type
    """,
    COUNT="""
        attempt attempts associations bytes close_code count deliveries dicom_status dispatches
        dropped entries entry files_sent files_total first_entry found http_status limit
        nodes_online nodes_total pid port progress queued schema size
    """,
    MEASURE="seconds wait_seconds elapsed_seconds disk_usage_gb megabytes_per_second",
    FLAG="is_active is_reachable permanent resumed clean",
    UID="study_uid series_uid instance_uid",
    KIND="sop_class transfer_syntax",
)
"""Every field a line may have. One that is not patient data or a secret may be added."""

LONGEST = 300

STRICT = False
"""Raise if a line breaks the rules, as in tests. Otherwise the field is left out and counted."""

DROPPED: Counter[str] = Counter()
"""The number of times a field or line was left out, by name."""

_hash_key = os.urandom(32)


class NotAllowed(ValueError):
    """A line of the log breaks its rules; a defect of the caller."""


def hash_with(key: str) -> None:
    """Hash UIDs with a key derived from this one, so that hashes stay the same after a restart."""
    global _hash_key  # noqa: PLW0603 - the log is the process's
    _hash_key = hashlib.blake2s(key.encode(), person=b"log-uids").digest()


def hashed(uid: str) -> str:
    """Return the keyed hash that stands for a UID in the log: one UID has always the same hash."""
    return hashlib.blake2s(uid.encode(), key=_hash_key, digest_size=8).hexdigest()


def put(line: Line, name: str, value: FieldValue) -> None:
    """Put one field into a line if the rules allow it."""
    if name not in FIELDS:
        refuse(name, "is not a field of the log")
        return
    kind = FIELDS[name]
    match kind, value:
        case FieldKind.FLAG, bool():
            line[name] = value
        case _, bool():
            refuse(name, f"is a bool; {kind.value}")
        case FieldKind.WORD, Enum():
            line[name] = value.name
        case FieldKind.WORD, str():
            line[name] = value if len(value) <= LONGEST else f"{value[:LONGEST]}…"
        case FieldKind.UID, str():
            line[name] = hashed(value)
        case FieldKind.KIND, str():
            line[name] = shown(value)
        case FieldKind.COUNT, int():
            line[name] = value
        case FieldKind.MEASURE, float() | int():
            line[name] = round(value, 3)
        case _:
            refuse(name, f"is a {type(value).__name__}; {kind.value}")


def refuse(name: str, why: str) -> None:
    """Count a field or line that the rules do not allow, or raise :class:`NotAllowed`."""
    if STRICT:
        raise NotAllowed(f"{name!r} {why}")
    DROPPED[name] += 1
