"""The durable memory of the program: one SQLite file, one writer, every answer already on disk."""

from proxy.ledger.ledger import Ledger
from proxy.ledger.records import (
    Accepted,
    Counts,
    Deleted,
    Delivery,
    Holding,
    InstanceState,
    Lacking,
    Outcome,
    Over,
    Report,
    Unfinished,
)
from proxy.ledger.writer import Answer

__all__ = [
    "Accepted",
    "Answer",
    "Counts",
    "Deleted",
    "Delivery",
    "Holding",
    "InstanceState",
    "Lacking",
    "Ledger",
    "Outcome",
    "Over",
    "Report",
    "Unfinished",
]
