"""The site: who is told what, when; and what must be true of all of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeAlias

from proxy.fsm import Event
from proxy.machines import connection, delivery, operation, policy
from proxy.machines.delivery import Outcome
from proxy.machines.dispatch import DispatchState
from proxy.machines.operation import (
    OperationOutput,
    OperationState,
    PauseLock,
    PauseLocks,
)
from proxy.nodes import Effect
from proxy.simulation.machines.connection import ModelConnection
from proxy.simulation.machines.delivery import ModelDelivery
from proxy.simulation.machines.dispatch import ModelDispatch, ModelGroup
from proxy.simulation.machines.ledger import ModelKey, ModelLedger, ModelOrder, ModelRow
from proxy.simulation.machines.node import ModelNode
from proxy.simulation.machines.queue import Queue
from proxy.simulation.machines.rules import Limits, Rules
from proxy.simulation.machines.tasks import (
    ANSWER,
    OPENING,
    SOON,
    Broken,
    ModelClock,
    ModelRun,
    Signal,
    Steps,
    Task,
)
from proxy.work.scheduler import Job, backlog_limit

DRAIN_S = 20.0

ROUNDS = 20
"""So many rounds, and one for each part of an archive and each instance, are taken at most by each
delivery until all is over, once nothing fails any longer."""


class ModelOperation(ModelRun[OperationState, PauseLocks, OperationOutput]):
    """The proxy as a whole, as ``proxy.supervision.operation``."""

    __slots__ = ("is_active", "site")

    def __init__(self, site: Site) -> None:
        super().__init__(site.clock, site.rules.operation, PauseLocks(drain_seconds=DRAIN_S))
        self.site = site
        self.is_active = True

    def check(self, before: OperationState, event: Event) -> None:
        """Note whether work goes on."""
        self.is_active = self.state is OperationState.ACTIVE

    def emit(self, output: OperationOutput) -> None:
        """Hold the work, let it go on, end it, or keep the locks."""
        site = self.site
        match output:
            case operation.HoldWork(reason):
                for each in [*site.dispatches()]:
                    each.hold(reason)
                for one in site.deliveries():
                    one.hold(reason)
            case operation.ResumeWork():
                for each in [*site.dispatches()]:
                    each.resume_work()
                for one in site.deliveries():
                    one.resume_work()
            case operation.SaveLocks(locks):
                site.ledger.locks = locks
            case operation.StopWork():
                site.is_stopping = True

    def look(self) -> None:
        """Hold that each pause that was asked for is kept, and the work goes on without any."""
        locks = self.site.locks
        if self.state is OperationState.ACTIVE and locks:
            raise Broken(f"{self.name}: active, and {len(locks)} want a pause")
        if self.state is OperationState.PAUSED and not locks:
            raise Broken(f"{self.name}: paused, and nobody wants it")
        if self.site.ledger.locks.held.keys() != locks:
            raise Broken(f"{self.name}: the locks that are kept are not those that are held")


AnyRun: TypeAlias = ModelOperation | ModelConnection | ModelNode | ModelDispatch | ModelDelivery


class Site:
    """Some nodes, and the dispatches to them.

    ``addresses`` are where the configured nodes are, ``inactive`` those that ITH set so. ``stored``
    is what there is at an address, by entity: the truth that the program does not see. ``ends`` and
    ``closed`` are what ITH was told: how each delivery ended, and of how many an order had.
    """

    __slots__ = (
        "_correlations",
        "_last_address",
        "actors",
        "addresses",
        "clock",
        "closed",
        "connection",
        "downloads",
        "ends",
        "inactive",
        "is_stopping",
        "last_orders",
        "ledger",
        "live",
        "locks",
        "node_ids",
        "nodes",
        "operation",
        "places",
        "rules",
        "slots",
        "stored",
        "tasks",
    )

    def __init__(self, rules: Rules, story: list[str] | None = None) -> None:
        self.rules = rules
        self.clock = ModelClock(story)
        self.ledger = ModelLedger()
        self.node_ids = tuple("abcdefgh"[: rules.limits.nodes])
        self.addresses = {node_id: n for n, node_id in enumerate(self.node_ids)}
        self.places = {node_id: [n] for n, node_id in enumerate(self.node_ids)}
        self.inactive: set[str] = set()
        self.stored: dict[tuple[int, int], int] = {}
        self.locks: set[PauseLock] = set()
        self.is_stopping = False
        self.ends: dict[tuple[ModelKey, str], Outcome] = {}
        self.closed: dict[ModelKey, int] = {}
        self.last_orders: list[ModelOrder | None] = [None] * rules.limits.slots
        self.connection = ModelConnection(self)
        self.connection.run()
        self.actors: list[AnyRun | None] = []
        self._correlations = 0
        self._last_address = len(self.node_ids)
        self._start()

    def _start(self) -> None:
        """Start the program, from what it kept."""
        rules, limits = self.rules, self.rules.limits
        self.is_stopping = False
        self.nodes: dict[str, ModelNode] = {}
        self.live: list[ModelDispatch] = []
        self.slots: list[ModelDispatch | None] = [None] * limits.slots
        self.actors[:] = [None] * actors(limits)
        self._make_actor(0, self.connection)
        self.tasks: list[Task] = []
        self.downloads = Queue(
            rules.scheduler(
                limits.parallel_downloads,
                quantum=1,
                aging=8,
                reserved=1,
                admission=backlog_limit(limits.backlog, self._backlog),
            )
        )
        self.operation = ModelOperation(self)
        self.operation.run()
        for lock, kept in self.ledger.locks.held.items():
            self.operation.tell(operation.PauseRequested(lock, kept.reason, kept.since))
        for node_id in self.addresses:
            self._add(node_id)
        for each in self.ledger.open:
            order = each.order._replace(node_ids=tuple(each.rows))
            self._place(ModelDispatch(self, order, self._group(order.key), each))

    def _restart(self) -> None:
        """End the program, whatever it does, and start it."""
        for task in self._all_tasks():
            if task is not self.connection:
                task.close()
        self.clock.asking &= self.connection.bit
        self.clock.awake.clear()
        if self.connection.is_awake:
            self.clock.awake.append(self.connection)
        self.clock.moved.clear()
        self.clock.limits = {
            run: due for run, due in self.clock.limits.items() if run is self.connection
        }
        self._start()

    def abandon(self) -> None:
        """End what is left of a site at which something was found, whatever comes of it."""
        for task in self._all_tasks():
            with suppress(Exception):
                task.close()

    def _all_tasks(self) -> list[Task]:
        return [*self.runs(), *self.tasks, *(each.work for each in self.live)]

    def _backlog(self, node_id: str) -> Counter[int]:
        return self.nodes[node_id].backlog if node_id in self.nodes else Counter()

    # -- What there is ----------------------------------------------------------------------------

    def dispatches(self) -> list[ModelDispatch]:
        """The dispatches at work, oldest first."""
        return self.live

    def deliveries(self) -> list[ModelDelivery]:
        """The deliveries that are not over, those of the oldest dispatch first."""
        return [each for work in self.live for each in work.deliveries.values() if not each.over]

    def runs(self) -> Iterator[AnyRun]:
        """Every run of the program."""
        yield self.operation
        yield self.connection
        yield from self.nodes.values()
        for work in self.live:
            yield from work.runs

    def everywhere(self, node_id: str, row: ModelRow) -> int:
        """What a node has of the entity of a delivery, wherever it was."""
        bits = 0
        for address in self.places[node_id]:
            bits |= self.stored.get((address, row.entity), 0)
        return bits

    def has(self, address: int, entity: int, bit: int) -> bool:
        """Whether what is at an address has an instance."""
        return bool(self.stored.get((address, entity), 0) & bit)

    def store(self, address: int, entity: int, bit: int) -> None:
        """Let what is at an address have one instance more."""
        at = (address, entity)
        self.stored[at] = self.stored.get(at, 0) | bit

    def _group(self, key: ModelKey) -> ModelGroup:
        return next((each.group for each in self.live if each.order.key == key), ModelGroup())

    def _place(self, added: ModelDispatch) -> None:
        slot = self.slots.index(None)
        self.slots[slot] = added
        at = self._first_actor(slot)
        self._make_actor(at, added)
        for n, node_id in enumerate(self.node_ids):
            if node_id in added.deliveries:
                self._make_actor(at + 1 + n, added.deliveries[node_id])
        self.last_orders[slot] = added.order
        self.live.append(added)
        added.begin()

    def remove(self, ended: ModelDispatch) -> None:
        """Forget a dispatch that is over."""
        self.live.remove(ended)
        slot = self.slots.index(ended)
        self.slots[slot] = None
        for at in range(self._first_actor(slot), self._first_actor(slot + 1)):
            self._drop_actor(at)

    def _drop_actor(self, at: int) -> None:
        """Let nothing be answered in this place."""
        run = self.actors[at]
        if run is not None:
            self.actors[at] = None
            self.clock.asking &= ~run.bit
            run.bit = 0

    def _make_actor(self, at: int, run: AnyRun) -> None:
        """Let a run be answered."""
        self.actors[at] = run
        run.bit = 1 << at

    def _first_actor(self, slot: int) -> int:
        return 1 + len(self.node_ids) + slot * (1 + len(self.node_ids))

    # -- What ITH is told -------------------------------------------------------------------------

    def told_end(self, key: ModelKey, node_id: str, outcome: Outcome) -> None:
        """Hold that the end of a delivery is told once."""
        before = self.ends.get((key, node_id))
        if before is not None:
            raise Broken(f"{key} to {node_id}: told {before.name}, then {outcome.name}")
        self.ends[key, node_id] = outcome

    def told_order_over(self, key: ModelKey, group: ModelGroup) -> None:
        """Note that the end of an order was told."""
        self.closed[key] = len(group.endings)

    def told_again(self, order: ModelOrder, group: ModelGroup) -> None:
        """Hold that ends that are told again are the same."""
        for node_id in order.node_ids:
            if node_id in group.endings:
                outcome, before = group.endings[node_id][0], self.ends.get((order.key, node_id))
                if outcome is not before:
                    raise Broken(f"{order.key} to {node_id}: told {before}, again {outcome}")
        if group.is_over:
            self.told_order_over(order.key, group)

    # -- Requests ---------------------------------------------------------------------------------

    def order(self, nodes: int, rank: int, like: int | None = None) -> None:
        """ITH orders a dispatch to some nodes, by the bits of ``nodes``.

        It is of an entity of its own, or of that of the last order in the slot ``like``.
        """
        if None not in self.slots:
            return
        self._correlations += 1
        entity = self._correlations
        if like is not None and (last := self.last_orders[like]) is not None:
            entity = last.key.entity
        node_ids = [each for n, each in enumerate(self.node_ids) if nodes >> n & 1]
        self._order(ModelOrder(ModelKey(self._correlations, entity), tuple(node_ids), rank))

    def order_again(self, slot: int, *, to_all: bool) -> None:
        """ITH repeats the last order in a slot, or names more nodes in it."""
        last = self.last_orders[slot]
        if last is not None and None in self.slots:
            self._order(last._replace(node_ids=self.node_ids) if to_all else last)

    def _order(self, order: ModelOrder) -> None:
        order = order._replace(node_ids=tuple(n for n in order.node_ids if n in self.nodes))
        if not order.node_ids:
            return
        group = self._group(order.key)
        if {*group.node_ids, *group.endings}.issuperset(order.node_ids):
            self.told_again(order, group)
        else:
            self._place(ModelDispatch(self, order, group))

    def delete(self, slot: int, *, is_whole: bool) -> None:
        """ITH deletes the entity of the last order in a slot, or its first instance."""
        last = self.last_orders[slot]
        if last is None:
            return
        entity = last.key.entity
        every = (1 << self.rules.limits.instances) - 1
        if is_whole:
            for each in self.deliveries():
                if each.dispatch.order.key.entity == entity:
                    each.cancel(policy.deleted("session"))
        touched = self.ledger.delete(entity, every if is_whole else 1, is_whole=is_whole)
        self._start_task(self._recount(touched))
        for each in self.deliveries():
            each.outdate()

    def _recount(self, touched: list[ModelRow]) -> Steps[None]:
        yield SOON
        for each in self.deliveries():
            if each.dispatch.content.planned and each.row in touched:
                yield from each.recount()

    def _start_task(self, steps: Steps[None]) -> None:
        self.tasks = [each for each in self.tasks if each.steps is not None]
        task = Task(self.clock)
        self.tasks.append(task)
        task.start(steps)

    def pause(self, lock: PauseLock) -> None:
        """ITH or the operator wants a pause."""
        self.locks.add(lock)
        self.operation.tell(operation.PauseRequested(lock, lock.value))

    def resume(self, lock: PauseLock) -> None:
        """ITH or the operator wants no pause any longer."""
        self.locks.discard(lock)
        self.operation.tell(self.rules.release(self.operation.data, lock))

    def drain(self) -> None:
        """The program is told to stop; the second time at once."""
        if self.operation.state is OperationState.DRAINING:
            self.operation.tell(operation.StopRequested("again"))
        else:
            self.operation.tell(operation.DrainRequested("signal"))
            self._start_task(self._drain())

    def _drain(self) -> Steps[None]:
        for each in self.deliveries():
            while each.state in delivery.WIRED:
                yield each.moves
        self.operation.tell(operation.Drained())

    def crash(self) -> None:
        """The program ends, and is started."""
        self.is_stopping = True

    def change(self, node_id: str, effect: Effect) -> None:
        """ITH changes a node, or says again what it has said of it."""
        if node_id not in self.nodes:
            return
        match effect:
            case Effect.CANCEL:
                del self.addresses[node_id]
            case Effect.HOLD:
                self.inactive.add(node_id)
            case Effect.RESUME:
                self.inactive.discard(node_id)
            case Effect.RESTART:
                self._last_address += 1
                self.addresses[node_id] = self.nodes[node_id].address = self._last_address
                self.places[node_id].append(self._last_address)
        changed = self.nodes[node_id]
        if effect is Effect.CANCEL:
            del self.nodes[node_id]
            self._drop_actor(1 + self.node_ids.index(node_id))
        affected = [each for each in self.deliveries() if each.node.node_id == node_id]
        changed.apply(effect)
        for each in affected:
            each.apply(effect)

    def add(self, node_id: str) -> None:
        """ITH has a removed node again."""
        if node_id not in self.addresses:
            self.addresses[node_id] = self.places[node_id][-1]
            self.inactive.discard(node_id)
            self._add(node_id)

    def _add(self, node_id: str) -> None:
        is_active = node_id not in self.inactive
        added = ModelNode(self, node_id, self.addresses[node_id], is_active=is_active)
        self.nodes[node_id] = added
        self._make_actor(1 + self.node_ids.index(node_id), added)
        added.run()

    def connect(self) -> None:
        """The service starts the link, or the operator does not want to wait."""
        if self.connection.is_done:
            self.connection = ModelConnection(self)
            self._make_actor(0, self.connection)
            self.connection.run()
        self.connection.tell(connection.ConnectRequested())

    def close(self) -> None:
        """The service closes the link."""
        self.connection.tell(connection.CloseRequested("stop"))

    # -- Time -------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let every task go on that waits for nothing but its turn."""
        self.clock.settle()

    def time_out(self) -> bool:
        """Let the time go on to the limit that is over first; False where there is none."""
        clock = self.clock
        clock.settle()
        first = min(clock.limits, key=clock.limits.__getitem__, default=None)
        if not isinstance(first, ModelRun) or clock.limits[first] == math.inf:
            return False
        clock.now = max(clock.now, clock.limits[first])
        first.time_out()
        return True

    def answer(self, actor: int, given: int) -> None:
        """Let the world outside answer, once all have had their turn."""
        if self.clock.awake:
            self.settle()
        if self.clock.asking >> actor & 1:
            run = self.actors[actor]
            assert run is not None  # noqa: S101 - for the type checker
            run.resume(given)

    def answer_first(self, actor: int, given: int) -> None:
        """Let it answer, or the run have its turn, in this instant: before the others."""
        run = self.actors[actor]
        if run is None or run.steps is None:
            return
        if run.left:
            run.late(given)
        elif run.wait is SOON or isinstance(run.wait, Signal):
            run.turn()
        else:
            run.resume(given)

    # -- Invariants -------------------------------------------------------------------------------

    def look(self) -> None:
        """Hold what was done by a move against what must be true."""
        moved = self.clock.moved
        for run in moved:
            run.look()
        moved.clear()
        if self.is_stopping:
            self._restart()
            self.look()

    def look_at_all(self) -> None:
        """Hold everything against what must be true, once all have had their turn."""
        self.settle()
        self.look()
        self.settle()
        for run in self.runs():
            run.look()
            if not run.over and self.clock.limits.get(run, math.inf) == math.inf:
                self._may_wait(run)
        for to in self.nodes.values():
            mine = [each for each in self.deliveries() if each.node is to]
            for leader in to.leaders.values():
                if leader.over:
                    raise Broken(f"{leader.name}: is over, and others follow it")
            self._places_are_held(to.name, to.queue, [each.grant for each in mine])
            for rank, count in to.backlog.items():
                if count != sum(
                    each.dispatch.content.ready.is_set and each.dispatch.order.rank == rank
                    for each in mine
                ):
                    raise Broken(f"{to.name}: a backlog of {count} is not so")
        self._places_are_held("downloads", self.downloads, [each.grant for each in self.live])

    def _places_are_held(self, name: str, queue: Queue, grants: list[Job | None]) -> None:
        served, held = {*queue.scheduler.served}, {*grants} - {None}
        if served != held:
            raise Broken(f"{name}: {len(served)} places are taken, {len(held)} are in use")

    def _may_wait(self, run: AnyRun) -> None:
        """Hold that something can move a run that waits without a limit."""
        wait = run.wait
        if run.steps is not None:
            if not isinstance(wait, Signal):
                return
            if run not in (wait.waiters or ()):
                raise Broken(f"{run.name}: waits in {run.state.name} for what has come")
            if isinstance(run, ModelDelivery) and wait is run.dispatch.content.ready:
                work = run.dispatch
                if work.over or work.state is DispatchState.DELIVERING:
                    raise Broken(f"{run.name}: waits for content that nobody brings")
        elif isinstance(run, ModelDispatch) and run.state is DispatchState.DELIVERING:
            if all(each.over for each in run.deliveries.values()):
                raise Broken(f"{run.name}: waits for deliveries that are over")
        elif run.place.do is not None:
            raise Broken(f"{run.name}: nothing is done in {run.state.name}")

    def finish(self) -> None:
        """Let nothing fail any longer, and hold that all ends."""
        self.look_at_all()
        if self.operation.state is OperationState.DRAINING:
            self.crash()
            self.look()
        for lock in [*self.locks]:
            self.resume(lock)
        for node_id in self.node_ids:
            self.add(node_id)
            self.change(node_id, Effect.RESUME)
        limits = self.rules.limits
        rounds = limits.slots * limits.nodes * (ROUNDS + limits.parts + limits.instances)
        for turn in range(rounds):
            self.settle()
            self.look()
            if not self.live:
                break
            if turn % 16 == 0:
                self.look_at_all()
            if not self._go_on(each for work in self.live for each in work.runs):
                self._go_on(self.nodes.values())
                self.time_out()
        else:
            states = [f"{each.name} is {each.state.name}" for each in self.live]
            raise Broken(f"not over after {rounds} rounds: {', '.join(states)}")
        self.look_at_all()
        self._all_is_told()

    def _go_on(self, runs: Iterable[AnyRun]) -> bool:
        """Let everything that waits for an answer go well one step; whether anything does."""
        has_moved = False
        for run in [*runs]:
            if run.steps is not None and (run.wait is ANSWER or run.wait is OPENING):
                run.resume(0)
                has_moved = True
                if self.clock.awake:
                    self.settle()
        return has_moved

    def _all_is_told(self) -> None:
        for to in self.nodes.values():
            if to.leaders or to.established:
                raise Broken(f"{to.name}: something is left of deliveries that are over")
        if self.ledger.open:
            raise Broken(f"{self.ledger.open[0].order.key}: is over, and the ledger has it as open")
        told = Counter(key for key, _ in self.ends)
        for key in self.ledger.records:
            if self.closed.get(key) != told[key]:
                raise Broken(f"{key}: the end of the order was told of {self.closed.get(key)}")


def actors(limits: Limits) -> int:
    """How many runs may be answered: the connection, the nodes, and those of each slot."""
    return 1 + limits.nodes + limits.slots * (1 + limits.nodes)
