"""Finite-state machines as tables of data: read, checked and drawn, never run from here."""

from proxy.fsm.kernel import IllegalEvent, Machine, Step
from proxy.fsm.table import (
    ActivityFailed,
    Event,
    Ignore,
    Limit,
    Row,
    Source,
    Stay,
    ignore,
    limit,
    row,
    stay,
)

__all__ = [
    "ActivityFailed",
    "Event",
    "Ignore",
    "IllegalEvent",
    "Limit",
    "Machine",
    "Row",
    "Source",
    "Stay",
    "Step",
    "ignore",
    "limit",
    "row",
    "stay",
]
