"""Finite-state machines as tables of data: they are read, checked and drawn here, and not run."""

from proxy.fsm.kernel import WHEN_OVER, IllegalEvent, Machine, Step
from proxy.fsm.table import (
    STAY,
    ActivityFailed,
    Event,
    Group,
    Ignore,
    Limit,
    Row,
    Source,
    StateDef,
    Stay,
    group,
    ignore,
    limit,
    row,
    state,
)

__all__ = [
    "STAY",
    "WHEN_OVER",
    "ActivityFailed",
    "Event",
    "Group",
    "Ignore",
    "IllegalEvent",
    "Limit",
    "Machine",
    "Row",
    "Source",
    "StateDef",
    "Stay",
    "Step",
    "group",
    "ignore",
    "limit",
    "row",
    "state",
]
