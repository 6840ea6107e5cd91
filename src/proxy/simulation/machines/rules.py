"""The tables and the policy that a site works by, and its settings; a test may plant a defect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from proxy.machines import policy
from proxy.machines.connection import (
    CONNECTION,
    ConnectionData,
    ConnectionOutput,
    ConnectionState,
)
from proxy.machines.delivery import (
    DELIVERY,
    DeliveryOutput,
    DeliveryProgress,
    DeliveryState,
    ResumeRequested,
)
from proxy.machines.dispatch import (
    DISPATCH,
    AllCancelled,
    AllDelivered,
    ContentLost,
    DispatchData,
    DispatchOutput,
    DispatchState,
    FetchExhausted,
    FetchFailed,
    RefetchExhausted,
    SomeFailed,
)
from proxy.machines.node import (
    NODE,
    BreakerTripped,
    CongestionReported,
    Health,
    InstancesStored,
    LimitIncreaseEarned,
    NodeFailed,
    NodeOutput,
    NodeState,
)
from proxy.machines.operation import (
    OPERATION,
    LastLockReleased,
    LockReleased,
    OperationOutput,
    OperationState,
    PauseLocks,
)
from proxy.machines.policy import Ending, Endings
from proxy.simulation.machines.tasks import Chart
from proxy.work.scheduler import Scheduler

OperationChart: TypeAlias = Chart[OperationState, PauseLocks, OperationOutput]
ConnectionChart: TypeAlias = Chart[ConnectionState, ConnectionData, ConnectionOutput]
NodeChart: TypeAlias = Chart[NodeState, Health, NodeOutput]
DispatchChart: TypeAlias = Chart[DispatchState, DispatchData, DispatchOutput]
DeliveryChart: TypeAlias = Chart[DeliveryState, DeliveryProgress, DeliveryOutput]
AnyChart: TypeAlias = OperationChart | ConnectionChart | NodeChart | DispatchChart | DeliveryChart


@dataclass(frozen=True)
class Limits:
    """The settings of a site: so small that the limits are reached by few moves.

    ``retries`` follow a first attempt to deliver, ``downloads`` are tried in all, ``breaker``
    failures in a row give a node up, after ``room`` instances it is given one association more.
    An archive comes in ``parts``. A walk makes at most so many ``moves`` at a site. There it gives
    the answer that one hopes for so many times more often than any other: ``hoped`` has the number
    for a bad site, and for a good one.
    """

    instances: int = 2
    parts: int = 1
    nodes: int = 2
    slots: int = 3
    retries: int = 1
    downloads: int = 2
    breaker: int = 2
    room: int = 2
    associations: int = 2
    parallel_downloads: int = 1
    backlog: int = 2
    quantum: int = 1
    aging: int = 2
    moves: int = 400
    hoped: tuple[int, ...] = (4, 32)


LARGE: Final = Limits(
    instances=50,
    parts=50,
    slots=4,
    parallel_downloads=2,
    quantum=5,
    aging=10,
    moves=2000,
    hoped=(32, 256),
)
"""Larger archives, of which most steps are progress, as they are in the field."""


@dataclass(frozen=True)
class Rules:
    """What decides. The charts count the steps of all sites that work by these rules."""

    operation: OperationChart = field(default_factory=lambda: Chart(OPERATION))
    connection: ConnectionChart = field(default_factory=lambda: Chart(CONNECTION))
    node: NodeChart = field(default_factory=lambda: Chart(NODE))
    dispatch: DispatchChart = field(default_factory=lambda: Chart(DISPATCH))
    delivery: DeliveryChart = field(default_factory=lambda: Chart(DELIVERY))
    after_attempt: Callable[..., Ending] = policy.after_attempt
    after_fetch: Callable[..., FetchFailed | FetchExhausted | RefetchExhausted] = policy.after_fetch
    content_lost: Callable[[DispatchState, DispatchData, str], ContentLost | None] = (
        policy.content_lost
    )
    settled: Callable[[DeliveryProgress], Ending] = policy.settled
    stopped: Callable[[DeliveryProgress], Ending] = policy.stopped
    last_word: Callable[[DeliveryProgress, Ending], Ending] = policy.last_word
    resume: Callable[[DeliveryState, DeliveryProgress], ResumeRequested | None] = policy.resume
    dispatch_over: Callable[[Endings], AllDelivered | SomeFailed | AllCancelled] = (
        policy.dispatch_over
    )
    node_failed: Callable[..., NodeFailed | BreakerTripped] = policy.node_failed
    may_try: Callable[[NodeState, Health], bool] = policy.may_try
    congested: Callable[..., CongestionReported | None] = policy.congested
    coped: Callable[..., InstancesStored | LimitIncreaseEarned] = policy.coped
    release: Callable[..., LockReleased | LastLockReleased] = policy.release
    full_jitter: Callable[[int, float, float, float], float] = policy.full_jitter
    scheduler: Callable[..., Scheduler] = Scheduler
    limits: Limits = Limits()


def charts(rules: Rules) -> tuple[AnyChart, ...]:
    """Return the charts of a site's machines."""
    return (rules.operation, rules.connection, rules.node, rules.dispatch, rules.delivery)


def steps(rules: Rules) -> int:
    """Return how many steps the machines have made."""
    return sum(cell.taken for chart in charts(rules) for cell in chart.cells)
