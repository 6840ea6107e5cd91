"""The locks on the pause as the ledger keeps them: what was paused stays paused after a restart.

Read and written by the supervisor. A document of an earlier version, with one reason for both
locks, can be read; and an earlier version can read ours.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from proxy.logs import log
from proxy.machines.operation import PauseLock, PauseLocks, PauseReason

LOCKS_DOCUMENT = "locks"


class LocksDocument(msgspec.Struct):
    """The held locks; earlier versions kept one ``reason`` for both together."""

    held: tuple[PauseLock, ...] = ()
    reason: str = ""
    wishes: dict[PauseLock, PauseReason] = {}


def locks_document(locks: PauseLocks) -> bytes:
    """Write the locks down."""
    held = locks.held
    return msgspec.json.encode(LocksDocument(tuple(held), locks.reason, dict(held)))


def read_locks(document: bytes | None) -> Mapping[PauseLock, PauseReason] | None:
    """Read the locks that are held; None where that is not kept, or cannot be read."""
    if not document:
        return None
    try:
        kept = msgspec.json.decode(document, type=LocksDocument)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        hint = "Pause the proxy again if it is meant to be paused."
        log("operation.locks_unreadable", level="error", hint=hint)
        return None
    return {lock: kept.wishes.get(lock, PauseReason(kept.reason)) for lock in kept.held}
