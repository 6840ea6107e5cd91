"""The durable memory of the program: one SQLite file, one writer, every answer already on disk."""

from proxy.ledger.ledger import Ledger
from proxy.ledger.records import (
    Accepted,
    Counts,
    Deleted,
    Delivery,
    Holding,
    InstanceState,
    Outcome,
    Over,
    Report,
    Unfinished,
)

__all__ = [
    "Accepted",
    "Counts",
    "Deleted",
    "Delivery",
    "Holding",
    "InstanceState",
    "Ledger",
    "Outcome",
    "Over",
    "Report",
    "Unfinished",
]
