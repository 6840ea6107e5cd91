"""The dispatches at work: started, held, resumed, cancelled, and what their outputs lead to.

Owned by the supervisor. The runs of one dispatch and of its deliveries live in one cancel scope.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

import trio
from msgspec.structs import replace

from proxy.activities.delivery.counts import is_void, not_less
from proxy.activities.delivery.delivery import DeliveryActivities
from proxy.activities.dispatch import DispatchActivities
from proxy.ledger import Delivery, Unfinished
from proxy.logs import bound, log
from proxy.machines import delivery, dispatch, policy
from proxy.machines.delivery import (
    DELIVERY,
    DeliveryOutput,
    DeliveryProgress,
    DeliveryState,
    Outcome,
)
from proxy.machines.dispatch import DISPATCH, DispatchData, DispatchOutput, DispatchState
from proxy.machines.node import NodeState
from proxy.machines.operation import OperationState
from proxy.model import Entity, Order
from proxy.nodes import Effect
from proxy.reporting.reports import Reports
from proxy.runtime.runner import Run
from proxy.work.runs import (
    DeliveryAtWork,
    DispatchAtWork,
    NodeAtWork,
    SavedBackOff,
    Site,
    log_fault,
)


class Dispatches:
    """Owns the runs of dispatches and deliveries."""

    def __init__(self, site: Site, reports: Reports, nursery: trio.Nursery) -> None:
        self._site = site
        self._reports = reports
        self._nursery = nursery

    def start(self, order: Order) -> None:
        """Begin a dispatch; the same order again, while it runs, is the same dispatch."""
        whole = self._site.dispatches.whole(order)
        if whole.serves(order):
            log("dispatch.known", correlation_id=order.correlation_id)
            self._reports.again(order, whole.endings, is_over=whole.is_over)
            return
        self._start(DispatchAtWork(order, whole, acceptance=self._site.ledger.accept(order)))

    def recover(self, unfinished: Unfinished) -> None:
        """Go on with what the ledger says was not over when the program ended."""
        whole = self._site.dispatches.whole(unfinished.order)
        whole.recall(unfinished.over)
        at = DispatchAtWork(
            unfinished.order,
            whole,
            dispatch_id=unfinished.dispatch_id,
            planned=max((each.counts.total for each in unfinished.deliveries), default=0),
            undeliverable=unfinished.undeliverable,
        )
        known = at.so_far = whole.progress()
        for each in unfinished.deliveries:
            ready = at.ready(each.counts)
            known[each.node_id] = DeliveryProgress(
                ready.files_total if at.planned else 0,
                ready.files_stored,
                ready.files_refused,
                error=each.error,
            )
            if each.outcome is not None:
                whole.endings[each.node_id] = (Outcome(each.outcome), known[each.node_id])
            elif unfinished.is_deleted:
                at.to_cancel[each.node_id] = policy.DELETED
        self._reports.recover(at.order, known)
        self._start(at, {each.node_id: each for each in unfinished.deliveries})

    def _start(self, at: DispatchAtWork, known: Mapping[str, Delivery] = {}) -> None:
        site = self._site
        activities = DispatchActivities(site, at)
        at.run = Run(
            DISPATCH,
            DispatchData(),
            activities.all(),
            partial(self._on_dispatch, at),
            on_fault=log_fault,
        )
        for node_id in at.order.node_ids:
            if node_id in at.whole.endings:
                continue
            if node_id in site.nodes:
                node = site.nodes[node_id]
                at.deliveries[node_id] = self._delivery(at, node, known.get(node_id))
            else:
                so_far = replace(
                    at.so_far.get(node_id, DeliveryProgress()), error=Effect.CANCEL.value
                )
                self._end(at, node_id, Outcome.CANCELLED, so_far)
        site.dispatches.add(at)
        log(
            "dispatch.started",
            correlation_id=at.order.correlation_id,
            deliveries=len(at.deliveries),
        )
        self._nursery.start_soon(self._work, at)

    def _delivery(
        self, at: DispatchAtWork, node: NodeAtWork, known: Delivery | None
    ) -> DeliveryAtWork:
        each, so_far = DeliveryAtWork(at, node), at.so_far.get(node.node_id, DeliveryProgress())
        each.run = Run(
            DELIVERY,
            replace(so_far, grace=self._site.settings.dicom.cancel_seconds),
            DeliveryActivities(self._site, each).all(),
            partial(self._on_delivery, each),
            on_fault=log_fault,
        )
        if known is not None and known.next_attempt_at is not None:
            left = max(known.next_attempt_at - self._site.clock.now(), 0.0)
            # The wall clock may have been set meanwhile.
            left = min(left, self._site.settings.dicom.retry_max_seconds)
            due = trio.current_time() + left
            each.kept = SavedBackOff(known.attempts, due, known.error or "", known.away)
        reason = self._held_because(node)
        if reason is not None:
            each.run.tell(delivery.HoldRequested(reason))
        return each

    async def _work(self, at: DispatchAtWork) -> None:
        """Run one dispatch and its deliveries to their ends."""
        order = at.order
        with (
            at.scope,
            bound(
                correlation_id=order.correlation_id,
                entity_type=order.entity.type,
                entity_id=order.entity.id,
            ),
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(at.run.run)
                await at.run.until(*(set(DispatchState) - {DispatchState.ACCEPTED}))
                if at.run.state is not DispatchState.DUPLICATE:
                    self._begin_deliveries(at, nursery)
        at.release_grant()
        self._site.dispatches.remove(at)

    def _begin_deliveries(self, at: DispatchAtWork, nursery: trio.Nursery) -> None:
        if at.acceptance is not None:  # come just now, it may name nodes that it named before
            self._reports.again(at.order, at.whole.endings, is_over=False)
        for node_id, each in at.deliveries.items():
            if node_id in at.to_cancel:
                each.run.tell(delivery.CancelRequested(at.to_cancel[node_id]))
            nursery.start_soon(each.run.run)
        if not at.run.over:
            self._close_if_over(at)

    # -- What the supervisor asks for -----------------------------------------------------------

    def hold(self, reason: str) -> None:
        """Hold everything."""
        for at in self._site.dispatches:
            at.run.tell(dispatch.HoldRequested(reason))
            if at.run.state is DispatchState.HELD:
                at.release_grant()  # granted in this instant, it would be in no activity's hands
        for each in self._site.deliveries:
            each.run.tell(delivery.HoldRequested(reason))

    def resume(self) -> None:
        """Let everything go on that nothing else holds."""
        for at in self._site.dispatches:
            at.run.tell(dispatch.ResumeRequested())
        for each in self._site.deliveries:
            self._resume(each)

    def apply(self, effect: Effect, each: DeliveryAtWork) -> None:
        """Do to a delivery what a change of the configuration does to it."""
        match effect:
            case Effect.CANCEL:
                self._cancel(each, effect.value)
            case Effect.HOLD:
                each.run.tell(delivery.HoldRequested(effect.value))
            case Effect.RESUME:
                self._resume(each)
            case Effect.RESTART:
                each.kept = None
                each.run.tell(delivery.NodeMoved())
                each.run.tell(delivery.RestartRequested(effect.value))

    def wake_node(self, node_id: str) -> None:
        """End the back-off of the deliveries that wait for a node to be back.

        One to which the node has said "not now" waits for its time.
        """
        for each in self._site.deliveries:
            if each.node_id == node_id:
                if each.kept and each.kept.away:
                    each.kept = None  # held since a restart, it would go back to that
                if each.run.state is DeliveryState.BACKING_OFF and each.run.data.away:
                    each.run.tell(delivery.RestartRequested("the node answers again"))

    def cancel_entity(self, matches: Callable[[Entity], bool], reason: str) -> None:
        """Cancel every dispatch of the entities that match."""
        for each in self._site.deliveries:
            if matches(each.dispatch.order.entity):
                self._cancel(each, reason)

    async def recount(
        self, reason: str, touched: Collection[tuple[int, str]] | None = None
    ) -> None:
        """Tell deliveries what a deletion left of them; one with nothing left is cancelled.

        ``touched`` are those that it took something of, by dispatch and node id; None for all.
        """
        for each in self._site.deliveries:
            at = each.dispatch
            if at.planned and (touched is None or (at.dispatch_id, each.node_id) in touched):
                counts = await self._site.ledger.counts(at.dispatch_id, each.node_id)
                each.run.tell(at.ready(not_less(counts, each.run.data)))
                if await is_void(self._site, each, counts):
                    self._cancel(each, reason)

    def _cancel(self, each: DeliveryAtWork, reason: str) -> None:
        """Cancel a delivery; while the order is being recorded, as soon as it is."""
        if each.dispatch.run.state is DispatchState.ACCEPTED:
            each.dispatch.to_cancel[each.node_id] = reason
        else:
            each.run.tell(delivery.CancelRequested(reason))

    def _resume(self, each: DeliveryAtWork) -> None:
        """Let a delivery go on where nothing else holds it."""
        if self._held_because(each.node) is None:
            event = policy.resume(each.run.state, each.run.data)
            if event is not None:
                each.run.tell(event)

    def _held_because(self, node: NodeAtWork) -> str | None:
        operation = self._site.operation
        if operation.state is not OperationState.ACTIVE:
            return operation.data.reason or "the proxy is stopping"
        return Effect.HOLD.value if node.run.state is NodeState.DISABLED else None

    # -- What the machines put out --------------------------------------------------------------

    def _on_dispatch(self, at: DispatchAtWork, output: DispatchOutput) -> None:
        order = at.order
        match output:
            case dispatch.ReportDownload(percent):
                still_open = [node_id for node_id, d in at.deliveries.items() if not d.run.over]
                self._reports.downloading(order, still_open, percent)
            case dispatch.HandOver():
                self._hand_over(at)
            case dispatch.TakeBack():
                at.content = trio.Event()
                for each in at.deliveries.values():
                    each.node.backlog[order.priority.rank] -= not each.run.over
                if self._site.operation.state is not OperationState.ACTIVE:
                    at.run.tell(dispatch.HoldRequested(self._site.operation.data.reason))
            case dispatch.GiveUp(error):
                for each in at.deliveries.values():
                    each.run.tell(delivery.GiveUpRequested(error))
                self._hand_over(at)  # one that still sends need not wait to find out
            case dispatch.Withdraw():
                at.deliveries.clear()  # they are those of the first one
                self._reports.again(order, at.whole.endings, is_over=at.whole.is_over)
                at.scope.cancel("the order is known")
            case dispatch.CloseDispatch(outcome, work):
                self._site.ledger.post_dispatch_over(at.dispatch_id, outcome.value, work.error)
                log("dispatch.over", correlation_id=order.correlation_id, status=outcome.value)

    def _on_delivery(self, each: DeliveryAtWork, output: DeliveryOutput) -> None:
        at, node_id = each.dispatch, each.node_id
        each.tell_followers()
        match output:
            case delivery.ReportProgress(progress):
                every = at.whole.progress().values() if self._reports.aggregate else [progress]
                self._reports.processing(at.order, node_id, every)
            case delivery.SaveAttempt(progress):
                self._site.ledger.post_attempt(
                    at.dispatch_id,
                    node_id,
                    progress.attempts,
                    self._site.clock.now() + progress.retry_in if progress.attempts else None,
                    progress.error or "",
                    away=progress.away,
                )
            case delivery.CloseDelivery(outcome, progress):
                each.node.leave(each)
                each.node.backlog[at.order.priority.rank] -= at.content.is_set()
                self._site.downloads.serve()
                self._end(at, node_id, outcome, progress)
                self._close_if_over(at)

    def _end(
        self, at: DispatchAtWork, node_id: str, outcome: Outcome, progress: DeliveryProgress
    ) -> None:
        at.whole.endings[node_id] = (outcome, progress)
        self._site.ledger.post_delivery_over(at.dispatch_id, node_id, outcome.value, progress.error)
        self._reports.delivery_over(at.order, node_id, outcome, progress)
        log(
            "delivery.over",
            node_id=node_id,
            status=outcome.value,
            files_sent=progress.files_stored,
            files_total=progress.files_total,
            problem=progress.error,
        )

    def _hand_over(self, at: DispatchAtWork) -> None:
        """Let the deliveries begin, and count them as ahead of their nodes."""
        at.content.set()
        for each in at.deliveries.values():
            each.node.backlog[at.order.priority.rank] += not each.run.over

    def _close_if_over(self, at: DispatchAtWork) -> None:
        """Close the dispatch with its last delivery, and the order with its last dispatch."""
        if any(not each.run.over for each in at.deliveries.values()):
            return
        if not at.run.over:
            at.run.tell(policy.dispatch_over(at.whole.endings))
        if at.whole.is_over:
            self._reports.order_over(at.order, at.whole.endings)
