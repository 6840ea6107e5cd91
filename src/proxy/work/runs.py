"""What is at work: the runs the supervisor owns, and what their activities share.

Data only; each is equal to itself alone. The supervisor makes these and tells their runs what
happened outside; the activities (``proxy.activities``) read them and tell their own run what
happened inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from proxy.backend.archive import ArchiveLimits
from proxy.backend.rest import Backend
from proxy.ledger import Accepted, Counts, Ledger, Over, PendingResult, Undeliverable
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
from proxy.model import Entity, EntityType, Order
from proxy.nodes import Configuration, Node
from proxy.pacs.local import LocalPacs
from proxy.runtime.clock import Clock
from proxy.runtime.offload import Offload
from proxy.runtime.rng import Random
from proxy.runtime.runner import Run
from proxy.runtime.wire import Network
from proxy.settings import Settings
from proxy.work.fair_queue import FairQueue, Granted
from proxy.work.scheduler import backlog_limit

OperationRun = Run[OperationState, PauseLocks, OperationOutput]
NodeRun = Run[NodeState, Health, NodeOutput]
DispatchRun = Run[DispatchState, DispatchData, DispatchOutput]
DeliveryRun = Run[DeliveryState, DeliveryProgress, DeliveryOutput]


@dataclass(eq=False)
class NodeAtWork:
    """One configured node, its run, and the turns to have an association with it."""

    node: Node
    queue: FairQueue
    leaders: dict[tuple[EntityType, str], DeliveryAtWork] = field(default_factory=dict)
    """The one delivery of each entity that may send; the others follow it."""
    run: NodeRun = field(init=False)
    asking: trio.CancelScope = field(default_factory=trio.CancelScope)
    """Of the C-ECHO under way, if there is one."""
    echo: trio.Lock = field(default_factory=trio.Lock)
    """Held while a C-ECHO has an association."""
    established: int = 0
    """How many deliveries have an association with it that it accepted."""
    backlog: Counter[int] = field(default_factory=Counter)
    """How many deliveries to it have their content and are not over, by the rank of priority."""

    @property
    def node_id(self) -> str:
        """ITH's id of the node."""
        return self.node.node_id

    async def asked(self) -> None:
        """Wait for the end of a C-ECHO: the node may take no association beside it."""
        async with self.echo:
            pass

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Count an association as established while the block lasts."""
        self.established += 1
        try:
            yield
        finally:
            self.established -= 1

    def leave(self, delivery: DeliveryAtWork) -> None:
        """Let another delivery of the entity send; this one is over."""
        key = delivery.dispatch.order.entity.key
        if self.leaders.get(key) is delivery:
            del self.leaders[key]


class SavedBackOff(NamedTuple):
    """The back-off into which a restart came; ``due`` on trio's clock.

    The rest is what the delivery knew of it: failed attempts, the error, whether the node was away.
    """

    attempts: int
    due: float
    error: str
    away: bool


@dataclass(eq=False)
class DeliveryAtWork(Granted):
    """One delivery of ``dispatch``: its node, its run, and its turn while it has one.

    ``kept`` is the back-off into which a restart came, if it did. ``moved`` is set, and made anew,
    whenever the delivery got farther: for those that follow it. ``rank`` is that of the most urgent
    of them all. ``is_outdated`` says that ITH deleted something since the delivery read what is
    left to send.
    """

    dispatch: DispatchAtWork
    node: NodeAtWork
    run: DeliveryRun = field(init=False)
    kept: SavedBackOff | None = None
    moved: trio.Event = field(default_factory=trio.Event)
    is_outdated: bool = False
    rank: int = field(init=False)

    def __post_init__(self) -> None:
        self.rank = self.dispatch.order.priority.rank

    @property
    def node_id(self) -> str:
        """ITH's id of the node."""
        return self.node.node_id

    def tell_followers(self) -> None:
        """Let the deliveries that follow this one look at the ledger."""
        self.moved.set()
        self.moved = trio.Event()

    async def take_turn(self) -> None:
        """Wait for a turn to have an association with the node."""
        dispatch_id = self.dispatch.dispatch_id
        self.grant = await self.node.queue.acquire(self.rank, dispatch_id, flow=dispatch_id)

    def promote(self, rank: int) -> None:
        """Send as urgently as one that follows wants to be sent."""
        if rank < self.rank:
            self.rank = rank
            self.node.queue.promote(self.dispatch.dispatch_id, rank)

    def may_continue(self) -> bool:
        """Whether another instance may be sent in the present turn."""
        return self.grant is not None and self.grant.may_continue()


@dataclass(eq=False)
class OrderGroup:
    """What the dispatches of one order share: an order may come again and name more nodes.

    ``endings`` says how those of its deliveries ended that are over, whichever dispatch had them.
    """

    dispatches: list[DispatchAtWork] = field(default_factory=list)
    endings: dict[str, tuple[Outcome, DeliveryProgress]] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether no dispatch of it is at work, and no delivery of one."""
        return all(
            each.run.over and all(d.run.over for d in each.deliveries.values())
            for each in self.dispatches
        )

    def serves(self, order: Order) -> bool:
        """Whether all nodes of this order, come again, have a delivery or had one."""
        named = (node_id for each in self.dispatches for node_id in each.order.node_ids)
        return {*self.endings, *named}.issuperset(order.node_ids)

    def recall(self, over: Iterable[Over]) -> None:
        """Take up what the ledger knows of dispatches that were over before."""
        for each in over:
            counts = each.counts
            progress = DeliveryProgress(
                counts.total, counts.stored, counts.refused, error=each.error
            )
            self.endings.setdefault(each.node_id, (Outcome(each.outcome), progress))

    def progress(self) -> dict[str, DeliveryProgress]:
        """The progress at each node, whether its delivery is over or not."""
        running = {
            node_id: delivery.run.data
            for each in self.dispatches
            for node_id, delivery in each.deliveries.items()
        }
        return running | {node_id: progress for node_id, (_, progress) in self.endings.items()}


@dataclass(eq=False)
class DispatchAtWork(Granted):
    """One dispatch, its run and its deliveries by node id.

    ``dispatch_id`` is the ledger's, 0 until the order is recorded. ``planned`` is how many
    instances the ledger has planned for each node, 0 until it knows; ``content`` is set when the
    deliveries know too, and made anew where something of it is lost. ``undeliverable`` is what
    ITH sent and no node can be given, ``is_fresh`` says that what is held was asked of ITH after
    this order came. ``so_far`` says, by node id, how far the deliveries were when the program ended,
    ``to_cancel`` which are to be cancelled as soon as the order is recorded.
    """

    order: Order
    whole: OrderGroup
    deliveries: dict[str, DeliveryAtWork] = field(default_factory=dict)
    dispatch_id: int = 0
    planned: int = 0
    undeliverable: Undeliverable = field(default_factory=Undeliverable)
    is_fresh: bool = False
    so_far: dict[str, DeliveryProgress] = field(default_factory=dict)
    to_cancel: dict[str, str] = field(default_factory=dict)
    acceptance: PendingResult[Accepted] | None = None
    run: DispatchRun = field(init=False)
    content: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def ready(self, counts: Counts) -> ContentReady:
        """What a delivery is told of the ledger's counts."""
        return ContentReady(counts.total + self.undeliverable.total, counts.stored, counts.refused)


class DispatchesAtWork:
    """The dispatches at work, oldest first.

    Each is also found by its entity: in a flood of orders no look is at all of them.
    """

    def __init__(self) -> None:
        self._all: dict[DispatchAtWork, None] = {}
        self._by_entity: dict[tuple[EntityType, str], list[DispatchAtWork]] = {}

    def __iter__(self) -> Iterator[DispatchAtWork]:
        return iter([*self._all])

    def __len__(self) -> int:
        return len(self._all)

    def add(self, at: DispatchAtWork) -> None:
        """Take in one more."""
        self._all[at] = None
        at.whole.dispatches.append(at)
        self._by_entity.setdefault(at.order.entity.key, []).append(at)

    def remove(self, at: DispatchAtWork) -> None:
        """Forget one that is over."""
        del self._all[at]
        same = self._by_entity[at.order.entity.key]
        same.remove(at)
        if not same:
            del self._by_entity[at.order.entity.key]

    def of(self, entity: Entity) -> Sequence[DispatchAtWork]:
        """Those of this entity, oldest first."""
        return self._by_entity.get(entity.key, ())

    def whole(self, order: Order) -> OrderGroup:
        """What the dispatches of this order share; empty where none is at work."""
        same = (at.whole for at in self.of(order.entity) if at.order.is_same(order))
        return next(same, OrderGroup())


@dataclass(frozen=True)
class Identity:
    """Who this proxy is to ITH; empty until ITH said it."""

    workspace_id: str = ""
    proxy_id: str = ""


@dataclass
class Site:
    """What the activities of all machines share."""

    settings: Settings
    ledger: Ledger
    pacs: LocalPacs
    backend: Backend
    network: Network
    offload: Offload
    clock: Clock
    rng: Random
    archive_limits: ArchiveLimits
    identity: Identity = Identity()
    configuration: Configuration | None = None
    nodes: dict[str, NodeAtWork] = field(default_factory=dict)
    dispatches: DispatchesAtWork = field(default_factory=DispatchesAtWork)
    operation: OperationRun = field(init=False)
    downloads: FairQueue = field(init=False)

    def __post_init__(self) -> None:
        limits = self.settings.limits
        admission = backlog_limit(limits.dispatches_per_node, self._backlog)
        self.downloads = FairQueue(limits.downloads, reserved=1, admission=admission)

    def _backlog(self, node_id: str) -> Counter[int]:
        return self.nodes[node_id].backlog if node_id in self.nodes else Counter()

    @property
    def deliveries(self) -> list[DeliveryAtWork]:
        """The deliveries that are not over, oldest dispatch first."""
        return [
            delivery
            for dispatch in self.dispatches
            for delivery in dispatch.deliveries.values()
            if not delivery.run.over
        ]


def log_fault(error: Exception) -> None:
    """Log what an activity did not foresee; its machine says what follows."""
    log("activity.failed", level="error", error=error)
