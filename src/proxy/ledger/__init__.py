"""The durable memory of the program: one SQLite file, one writer, every answer already on disk."""

from proxy.ledger.database import PendingResult
from proxy.ledger.ledger import Ledger
from proxy.ledger.records import (
    Accepted,
    CachedEntity,
    Counts,
    Deleted,
    InstanceState,
    OutcomeWord,
    Over,
    RecordedDelivery,
    Report,
    Undeliverable,
    Unfinished,
)

__all__ = [
    "Accepted",
    "CachedEntity",
    "Counts",
    "Deleted",
    "InstanceState",
    "Ledger",
    "OutcomeWord",
    "Over",
    "PendingResult",
    "RecordedDelivery",
    "Report",
    "Undeliverable",
    "Unfinished",
]
