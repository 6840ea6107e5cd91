"""The moments that matter: each has a mark in the code, at which a simulation can strike.

In the program a mark does nothing. A simulation is told of each one, counts it, and may crash the
program, cut a connection or let the disk fail just there: at random it seldom happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import TypeAlias


class Mark(Enum):
    """A moment; the value says which."""

    ORDER_POSTED = "An order is with the ledger's writer, and not yet committed."
    COMMIT_BEGUN = "The ledger begins to commit a batch."
    COMMIT_DONE = "The batch is durable, and nobody who waits for it has gone on."
    BLOCK_WRITTEN = "A block of a download is about to be written to the disk."
    DOWNLOAD_DONE = "The archive is complete on the disk, and not yet unpacked."
    ENTRY_WRITTEN = "A block of an unpacked or converted file is about to be written to the disk."
    OBJECT_MOVED = "A finished file is about to be moved to its final name, as an object."
    OBJECT_ADOPTED = "An object has its final name, and no row of the ledger yet."
    CONTENT_KEPT = "The rows of an entity are durable, and nothing is planned yet."
    CONTENT_PLANNED = "The instances of a dispatch are planned, and no delivery knows it."
    INSTANCE_READ = "The content of an instance was opened, and not yet sent."
    INSTANCE_SENT = "The last byte of an instance has left, and the node has not answered."
    INSTANCE_ANSWERED = "The node has answered, and the answer is not yet in the ledger."
    DELIVERY_OVER = "The end of a delivery is posted to the ledger, with its report."
    REPORT_TAKEN = "A report is taken from the outbox, and not yet with the link."
    REPORT_SENT = "A final report is with the link, and its arrival is not proven."
    REPORT_PROVEN = "The arrival of reports is proven, and they are not yet forgotten."
    DELETION_POSTED = "A deletion is with the ledger's writer, and not yet committed."
    ROWS_DELETED = "The rows of what ITH deleted are gone, and the files are not."
    OBJECT_REMOVED = "A file that no row refers to is about to be removed."
    FILES_REMOVED = "The files of what ITH deleted are gone, and no delivery has counted again."
    CONFIGURATION_APPLIED = "A configuration is applied, and its copy is not yet durable."


Hook: TypeAlias = Callable[[Mark], None]

_HOOK: ContextVar[Hook | None] = ContextVar("_HOOK", default=None)


def reached(mark: Mark) -> None:
    """Say that the moment has come.

    At ``BLOCK_WRITTEN`` and ``ENTRY_WRITTEN``, which come directly before a write, a hook may raise
    OSError: the program takes it for the disk's own.
    """
    hook = _HOOK.get()
    if hook is not None:
        hook(mark)


@contextmanager
def marking(hook: Hook) -> Iterator[None]:
    """Have ``hook`` told of every mark that is reached by this task or by those started in it.

    It is told in the thread that reaches the mark.
    """
    token = _HOOK.set(hook)
    try:
        yield
    finally:
        _HOOK.reset(token)
