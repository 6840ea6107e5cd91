"""The types of the runs, and the two values that runs of one order share.

A :class:`Content` has one writer, the dispatch. An :class:`OrderGroup` is the common value of the
dispatches of one order: an order may come again and name more nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from proxy.ledger import Counts, Over, Undeliverable
from proxy.logs import log
from proxy.machines.delivery import (
    ContentReady,
    DeliveryOutput,
    DeliveryProgress,
    DeliveryState,
    Outcome,
)
from proxy.machines.dispatch import DispatchData, DispatchOutput, DispatchState
from proxy.machines.node import Health, NodeOutput, NodeState
from proxy.machines.operation import OperationOutput, OperationState, PauseLocks
from proxy.model import Order
from proxy.runtime.runner import Run

OperationRun = Run[OperationState, PauseLocks, OperationOutput]
NodeRun = Run[NodeState, Health, NodeOutput]
DispatchRun = Run[DispatchState, DispatchData, DispatchOutput]
DeliveryRun = Run[DeliveryState, DeliveryProgress, DeliveryOutput]


@dataclass(eq=False)
class Content:
    """The content of one dispatch, as its deliveries see it; written by the dispatch alone.

    ``dispatch_id`` is the ledger's, 0 until the order is recorded. ``is_recorded`` says
    that the dispatch has gone on from there, after a restart too. ``planned`` is the number of
    instances that the ledger has planned for each node, 0 until it knows. ``undeliverable`` counts
    entries of the archive that no node can be given. ``given_up`` is the reason why the content
    cannot be had. ``ready`` is set once deliveries may begin, and replaced where an object is lost.
    """

    dispatch_id: int = 0
    is_recorded: bool = False
    planned: int = 0
    undeliverable: Undeliverable = field(default_factory=Undeliverable)
    given_up: str | None = None
    ready: trio.Event = field(default_factory=trio.Event)

    @property
    def files_lost(self) -> int:
        """The number of files from ITH that cannot be sent to any node."""
        return self.undeliverable.damaged + self.undeliverable.passed_over

    def counted(self, counts: Counts) -> ContentReady:
        """Return the fact for a delivery with the counts of the ledger."""
        return ContentReady(counts.total + self.files_lost, counts.stored, counts.refused)


@dataclass(eq=False)
class OrderGroup:
    """The running dispatches of one order, and the outcomes of its deliveries.

    ``node_ids`` are the nodes that they name. ``endings`` has, by node id, every delivery that is
    over, of any dispatch of the order.
    """

    node_ids: set[str] = field(default_factory=set)
    dispatches: list[DispatchRun] = field(default_factory=list)
    deliveries: list[tuple[str, DeliveryRun]] = field(default_factory=list)
    endings: dict[str, tuple[Outcome, DeliveryProgress]] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether no dispatch and no delivery of the order is running."""
        return all(run.over for run in self.dispatches) and all(
            run.over for _, run in self.deliveries
        )

    def serves(self, order: Order) -> bool:
        """Whether every node of this order has a delivery, or had one."""
        return self.node_ids.union(self.endings).issuperset(order.node_ids)

    def recall(self, over: Iterable[Over]) -> None:
        """Load the deliveries from the ledger that were over before."""
        for each in over:
            counts = each.counts
            progress = DeliveryProgress(
                counts.total, counts.stored, counts.refused, error=each.error
            )
            self.endings.setdefault(each.node_id, (Outcome(each.outcome), progress))

    def withdraw(self, run: DeliveryRun) -> None:
        """Leave out a delivery that another dispatch of the order serves."""
        self.deliveries = [each for each in self.deliveries if each[1] is not run]

    def progress(self) -> dict[str, DeliveryProgress]:
        """Return the progress at each node, whether its delivery is over or not."""
        running = {node_id: run.data for node_id, run in self.deliveries}
        return running | {node_id: progress for node_id, (_, progress) in self.endings.items()}


def log_fault(error: Exception) -> None:
    """Log an unforeseen fault of an activity; its machine handles the consequence."""
    log("activity.failed", level="error", error=error)
