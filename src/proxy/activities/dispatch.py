"""A dispatch: its run, its one download, its deliveries, and the effects of its outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import trio
from msgspec.structs import replace

from proxy.activities.delivery.attempt import Assignment
from proxy.activities.delivery.delivery import Delivery, SavedBackOff
from proxy.activities.node import NodeAtWork
from proxy.backend.archive import Unsent, unpack
from proxy.backend.rest import NotModified
from proxy.errors import ArchiveError, BackendError
from proxy.ledger import Accepted, PendingResult, RecordedDelivery, Undeliverable, Unfinished
from proxy.logs import bound, log
from proxy.machines import dispatch, policy
from proxy.machines.delivery import DeliveryProgress, Outcome
from proxy.machines.dispatch import DISPATCH, DispatchData, DispatchOutput, DispatchState
from proxy.machines.operation import OperationState
from proxy.model import EntityType, Order
from proxy.nodes import Effect
from proxy.pacs.header import read_instance
from proxy.reporting.reports import Reports
from proxy.runtime import marks
from proxy.runtime.marks import Mark
from proxy.runtime.runner import Run
from proxy.work.fair_queue import FairQueue, Granted
from proxy.work.runs import Content, DispatchRun, OperationRun, OrderGroup, log_fault
from proxy.work.services import Services

MOST_WARNINGS = 100
"""So many instances of an archive that cannot be sent are told of one by one."""
FETCH_ATTEMPTS = 5
"""Whole downloads that are tried; each of them resumes by itself first."""


class DispatchRegistry:
    """The dispatches at work, oldest first; written by the dispatches themselves.

    Each is also found by its entity: in a flood of orders no look is at all of them.
    """

    def __init__(self) -> None:
        self._all: dict[Dispatch, None] = {}
        self._by_entity: dict[tuple[EntityType, str], list[Dispatch]] = {}

    def __iter__(self) -> Iterator[Dispatch]:
        return iter([*self._all])

    def __len__(self) -> int:
        return len(self._all)

    def add(self, added: Dispatch) -> None:
        """Take in one more."""
        self._all[added] = None
        self._by_entity.setdefault(added.key, []).append(added)

    def remove(self, over: Dispatch) -> None:
        """Forget one that is over."""
        del self._all[over]
        same = self._by_entity[over.key]
        same.remove(over)
        if not same:
            del self._by_entity[over.key]

    def of(self, key: tuple[EntityType, str]) -> Sequence[Dispatch]:
        """Return those of the entity with this key, oldest first."""
        return self._by_entity.get(key, ())

    def group(self, order: Order) -> OrderGroup:
        """Return the group of this order; an empty one where none is at work."""
        same = (each.group for each in self.of(order.entity.key) if each.order.is_same(order))
        return next(same, OrderGroup())

    @property
    def deliveries(self) -> list[Delivery]:
        """The deliveries that are not over, oldest dispatch first."""
        return [
            delivery
            for each in self
            for delivery in each.deliveries.values()
            if not delivery.run.over
        ]


class Dispatch(Granted):
    """One order at work, from its acceptance to the end of its last delivery.

    ``deliveries`` are by node id; ``content`` is what they see of it. ``is_fresh`` says that the
    cached entity was asked of ITH after this order came.
    """

    def __init__(
        self,
        order: Order,
        group: OrderGroup,
        *,
        services: Services,
        reports: Reports,
        operation: OperationRun,
        registry: DispatchRegistry,
        downloads: FairQueue,
        nodes: Mapping[str, NodeAtWork],
        unfinished: Unfinished | None = None,
    ) -> None:
        """Begin an order that came now, or go on with one that was ``unfinished`` at a restart."""
        self.order = order
        self.key = order.entity.key
        self.group = group
        self.is_fresh = False
        self.deliveries: dict[str, Delivery] = {}
        self._services = services
        self._reports = reports
        self._operation = operation
        self._registry = registry
        self._downloads = downloads
        self._rank = order.priority.rank
        self.content = Content()
        self._scope = trio.CancelScope()
        self._acceptance: PendingResult[Accepted] | None = None
        self._outcome: tuple[Outcome, str | None] | None = None
        """The outcome, while it is not in the ledger."""
        self.run: DispatchRun = Run(
            DISPATCH,
            DispatchData(),
            {"record": self._record, "wait_for_turn": self._wait_for_turn, "fetch": self._fetch},
            self._on_output,
            on_fault=log_fault,
        )
        if unfinished is None:
            self._acceptance = services.ledger.accept(order)
            marks.reached(Mark.ORDER_POSTED)
            known, so_far = {}, {}
        else:
            known = {each.node_id: each for each in unfinished.deliveries}
            so_far = self._recover(unfinished)
        self._deliver(nodes, known, so_far)
        if unfinished is not None and unfinished.deleted is not None:
            for each in self.deliveries.values():
                each.cancel(policy.deleted(unfinished.deleted.value))
        group.node_ids.update(order.node_ids)
        group.dispatches.append(self.run)
        registry.add(self)
        log(
            "dispatch.started", correlation_id=order.correlation_id, deliveries=len(self.deliveries)
        )

    @property
    def dispatch_id(self) -> int:
        """The ledger's id, 0 until the order is recorded."""
        return self.content.dispatch_id

    # -- The start --------------------------------------------------------------------------------

    def _recover(self, unfinished: Unfinished) -> dict[str, DeliveryProgress]:
        """Take up what the ledger kept; return how far each node was."""
        self.group.recall(unfinished.over)
        content = self.content
        content.dispatch_id = unfinished.dispatch_id
        content.planned = max((each.counts.total for each in unfinished.deliveries), default=0)
        content.undeliverable = unfinished.undeliverable
        so_far = self.group.progress()
        for each in unfinished.deliveries:
            counted = content.counted(each.counts)
            so_far[each.node_id] = DeliveryProgress(
                counted.files_total if content.planned else 0,
                counted.files_stored,
                counted.files_refused,
                error=each.error,
            )
            if each.outcome is not None:
                self.group.endings[each.node_id] = (Outcome(each.outcome), so_far[each.node_id])
        self._reports.recover(self.order, so_far)
        return so_far

    def _deliver(
        self,
        nodes: Mapping[str, NodeAtWork],
        known: Mapping[str, RecordedDelivery],
        so_far: Mapping[str, DeliveryProgress],
    ) -> None:
        """Prepare a delivery to each node that has had none; one that is gone ends here."""
        for node_id in self.order.node_ids:
            if node_id in self.group.endings:
                continue
            progress = so_far.get(node_id, DeliveryProgress())
            if node_id not in nodes:
                self._end(node_id, Outcome.CANCELLED, replace(progress, error=Effect.CANCEL.value))
                continue
            delivery = Delivery(
                Assignment(self._services, self.order, self.content, nodes[node_id]),
                group=self.group,
                operation=self._operation,
                reports=self._reports,
                so_far=progress,
                back_off=self._back_off(known.get(node_id)),
                refetch=self._refetch,
                on_over=self._delivery_over,
            )
            self.deliveries[node_id] = delivery
            self.group.deliveries.append((node_id, delivery.run))

    def _back_off(self, known: RecordedDelivery | None) -> SavedBackOff | None:
        if known is None or known.next_attempt_at is None:
            return None
        left = max(known.next_attempt_at - self._services.clock.now(), 0.0)
        # The wall clock may have been set meanwhile.
        left = min(left, self._services.settings.dicom.retry_max_seconds)
        due = trio.current_time() + left
        return SavedBackOff(known.attempts, due, known.error or "", known.away)

    async def work(self) -> None:
        """Run the dispatch and its deliveries to their ends."""
        order = self.order
        with (
            self._scope,
            bound(
                correlation_id=order.correlation_id,
                entity_type=order.entity.type,
                entity_id=order.entity.id,
            ),
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.run.run)
                await self.run.until(*(set(DispatchState) - {DispatchState.ACCEPTED}))
                if self.run.state is not DispatchState.DUPLICATE:
                    self._begin_deliveries(nursery)
        self.release_grant()
        self._registry.remove(self)

    def _begin_deliveries(self, nursery: trio.Nursery) -> None:
        if self._acceptance is not None:  # come just now, it may name nodes that it named before
            self._reports.again(self.order, self.group.endings, is_over=False)
        for each in self.deliveries.values():
            each.recorded()
            nursery.start_soon(each.run.run)
        if not self.run.over:
            self._close_if_over()

    # -- Requests ---------------------------------------------------------------------------------

    def hold(self, reason: str) -> None:
        """Download nothing until the hold ends."""
        self.run.tell(dispatch.HoldRequested(reason))
        if self.run.state is DispatchState.HELD:
            self.release_grant()  # granted in this instant, it would be in no activity's hands

    def resume(self) -> None:
        """Go on."""
        self.run.tell(dispatch.ResumeRequested())

    def _refetch(self, error: str) -> bool:
        """Fetch lost content again; False where that was done too often."""
        lost = policy.content_lost(self.run.state, self.run.data, error)
        if lost is not None:
            self.run.tell(lost)
        return lost is not None

    # -- Activities -------------------------------------------------------------------------------

    async def _record(self, run: DispatchRun) -> None:
        """Write the order to the ledger; a node that another dispatch of it serves is left out."""
        if self._acceptance is not None:
            accepted = await self._acceptance
            self.group.recall(accepted.over)
            if not accepted.is_new:
                self.content.is_recorded = True
                run.tell(dispatch.AlreadyKnown())
                return
            self.content.dispatch_id = accepted.dispatch_id
            self._withdraw(self.deliveries.keys() - set(accepted.node_ids))
        self.content.is_recorded = True
        if self._operation.state is OperationState.ACTIVE:
            run.tell(dispatch.Recorded())
        else:
            run.tell(dispatch.RecordedWhilePaused())

    async def _wait_for_turn(self, run: DispatchRun) -> None:
        """Wait for a free download, and until no other dispatch downloads the same entity."""
        order = self.order
        self.release_grant()  # one that was granted in the instant of a hold
        while self.grant is None:
            for other in self._others():
                await other.run.until(*(set(DispatchState) - {DispatchState.FETCHING}))
            self.grant = await self._downloads.acquire(
                order.priority.rank, self.dispatch_id, flow=frozenset(order.node_ids)
            )
            if any(other.run.state is DispatchState.FETCHING for other in self._others()):
                self.release_grant()
        run.tell(dispatch.TurnGranted())
        if run.state is not DispatchState.FETCHING:
            self.release_grant()

    async def _fetch(self, run: DispatchRun) -> None:
        """Bring the entity into the local PACS, plan each delivery, and say how it went."""
        try:
            cached = await self._services.ledger.cached_entity(self.order.entity)
            if cached is None or not (self.content.planned or self.is_fresh):
                try:
                    await self._cache(run)
                except OSError as error:
                    raise BackendError.of_disk("The content cannot be kept", error) from None
            run.tell(dispatch.Fetched(await self._plan()))
        except BackendError as error:
            log("dispatch.fetch_failed", level="warning", error=error, permanent=error.permanent)
            run.tell(
                policy.after_fetch(
                    run.data,
                    error.in_full,
                    permanent=error.permanent,
                    attempts=FETCH_ATTEMPTS,
                    cap=self._services.settings.dicom.retry_max_seconds,
                    uniform=self._services.rng.random(),
                    retry_after=error.retry_after or 0.0,
                )
            )
        finally:
            self.release_grant()

    async def _cache(self, run: DispatchRun) -> None:
        """Download the entity, unless ITH says that the cached one is what it has.

        The other dispatches of it that have been accepted by now need not ask again.
        """
        services, order = self._services, self.order
        served = [self, *(other for other in self._others() if other.dispatch_id)]
        cached = await services.ledger.cached_entity(order.entity)
        async with services.pacs.staging(self.dispatch_id) as staging:
            got = await services.backend.download(
                order.entity,
                order.workspace_id,
                staging / "archive",
                cached.etag if cached else None,
                partial(_tell_progress, run),
            )
            if isinstance(got, NotModified):
                log("dispatch.held_already")
                for each in served:
                    each.is_fresh = True
                return
            unpacked = await services.offload(
                unpack,
                got.path,
                staging / "entries",
                services.archive_limits,
                services.offload.check_cancelled,
                read_instance,
                # If the second download has the same damage, it is ITH's: the rest is sent.
                comes_again=run.data.attempts == 0,
            )
            passed_over = sum(unpacked.passed_over.values())
            unsent = len(unpacked.unsent)
            undeliverable = Undeliverable(unsent, passed_over, _said_of(unpacked.unsent))
            log("dispatch.fetched", entries=len(unpacked.instances), bytes=got.size)
            for reason, count in sorted(unpacked.skipped.items()):
                log("archive.skipped", reason=reason, entries=count)
            for reason, count in sorted(unpacked.passed_over.items()):
                log("archive.passed_over", level="warning", reason=reason, entries=count)
            _log_unsent(unpacked.unsent)
            for each in served:
                each.note_undeliverable(undeliverable)
            await services.pacs.take_in(
                order.entity,
                [(each.path, each.instance) for each in unpacked.instances],
                # What is lacking is to come again, not to be taken for all there is.
                None if any(undeliverable) else got.etag,
                # What was deleted before the youngest order is wanted again by that one.
                dispatch_id=max(each.dispatch_id for each in served),
            )
            for each in served:
                each.is_fresh = True

    def note_undeliverable(self, undeliverable: Undeliverable) -> None:
        """Keep how much of the archive no node can be given."""
        self.content.undeliverable = undeliverable
        self._services.ledger.post_undeliverable(self.dispatch_id, undeliverable)

    def _others(self) -> list[Dispatch]:
        """Return the other dispatches of the same entity."""
        return [other for other in self._registry.of(self.key) if other is not self]

    async def _plan(self) -> int:
        """Plan every delivery from the cached entity; return the number of instances."""
        total = await self._services.ledger.plan(self.dispatch_id)
        marks.reached(Mark.CONTENT_PLANNED)
        if not total:
            raise ArchiveError("nothing to send: the content was deleted", permanent=True)
        planned = total
        for each in self.deliveries.values():
            # After a restart also what a node answered for and a deletion has taken since.
            planned = max(planned, await each.planned())
        self.content.planned = planned
        return total + self.content.files_lost

    # -- Outputs ----------------------------------------------------------------------------------

    def _on_output(self, output: DispatchOutput) -> None:
        order = self.order
        match output:
            case dispatch.ReportDownload(percent):
                still_open = [node_id for node_id, d in self.deliveries.items() if not d.run.over]
                self._reports.downloading(order, still_open, percent)
            case dispatch.HandOver():
                self._hand_over()
            case dispatch.TakeBack():
                self.content.ready = trio.Event()
                self._count_backlog(-1)
                if self._operation.state is not OperationState.ACTIVE:
                    self.hold(self._operation.data.reason)
            case dispatch.GiveUp(error):
                self.content.given_up = error
                for each in self.deliveries.values():
                    each.give_up(error)
                self._hand_over()  # one that still sends need not wait to find out
            case dispatch.Withdraw():
                self._withdraw([*self.deliveries])  # they are those of the first one
                self._reports.again(order, self.group.endings, is_over=self.group.is_over)
                self._scope.cancel("the order is known")
            case dispatch.CloseDispatch(outcome, data):
                self._outcome = (outcome, data.error)
                self._keep_outcome()

    def _withdraw(self, node_ids: Iterable[str]) -> None:
        """Leave out deliveries that another dispatch of the order serves."""
        for node_id in node_ids:
            self.group.withdraw(self.deliveries.pop(node_id).run)

    def _hand_over(self) -> None:
        """Let the deliveries begin, and count them as a backlog of their nodes."""
        self.content.ready.set()
        self._count_backlog(1)

    def _count_backlog(self, change: int) -> None:
        for each in self.deliveries.values():
            each.node.backlog[self._rank] += change * (not each.run.over)

    def _delivery_over(self, node_id: str, outcome: Outcome, progress: DeliveryProgress) -> None:
        """Do what the end of a delivery leads to."""
        backlog = self.deliveries[node_id].node.backlog
        backlog[self._rank] -= self.content.ready.is_set()
        self._downloads.serve()
        self._end(node_id, outcome, progress)
        self._close_if_over()

    def _end(self, node_id: str, outcome: Outcome, progress: DeliveryProgress) -> None:
        """Keep and report how the delivery to a node ended."""
        self.group.endings[node_id] = (outcome, progress)
        ledger = self._services.ledger
        ledger.post_delivery_over(self.dispatch_id, node_id, outcome.value, progress.error)
        self._reports.delivery_over(self.order, node_id, outcome, progress)
        marks.reached(Mark.DELIVERY_OVER)
        log(
            "delivery.over",
            node_id=node_id,
            status=outcome.value,
            files_sent=progress.files_stored,
            files_total=progress.files_total,
            problem=progress.error,
        )

    def _close_if_over(self) -> None:
        """Close the dispatch with its last delivery, and the order with its last dispatch."""
        if not self._are_over:
            return
        if not self.run.over:
            self.run.tell(policy.dispatch_over(self.group.endings))
        self._keep_outcome()
        if self.group.is_over:
            self._reports.order_over(self.order, self.group.endings)

    def _keep_outcome(self) -> None:
        """Write the outcome to the ledger, which then forgets the instances.

        A delivery that still sends after a defect has ended the dispatch needs them until it ends.
        """
        if self._outcome is None or not self._are_over:
            return
        (outcome, error), self._outcome = self._outcome, None
        self._services.ledger.post_dispatch_over(self.dispatch_id, outcome.value, error)
        log("dispatch.over", correlation_id=self.order.correlation_id, status=outcome.value)

    @property
    def _are_over(self) -> bool:
        return all(each.run.over for each in self.deliveries.values())


def _said_of(unsent: Sequence[Unsent]) -> str:
    """Say of the instances that cannot be sent why not."""
    if not unsent:
        return ""
    came_damaged = all(each.first_entry is None for each in unsent)
    what = "came damaged from ITH and cannot be sent" if came_damaged else "cannot be sent"
    return f"{what}: {_reasons(unsent)}"


def _reasons(unsent: Iterable[Unsent]) -> str:
    """Name the reasons for which instances cannot be sent, and how many there are of each."""
    counts = Counter(each.reason for each in unsent)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{reason} ({count})" for reason, count in counts.most_common())


def _log_unsent(unsent: Sequence[Unsent]) -> None:
    """Tell the log which instances cannot be sent, the first ones one by one."""
    for each in unsent[:MOST_WARNINGS]:
        log(
            "instance.unsent",
            level="warning",
            entry=each.entry,
            first_entry=each.first_entry,
            sop_class=each.sop_class_uid or None,
            instance_uid=each.sop_instance_uid or None,
            reason=each.reason,
        )
    if unsent:
        log("archive.damaged", level="warning", entries=len(unsent), reason=_reasons(unsent))


def _tell_progress(run: DispatchRun, received: int, total: int | None) -> None:
    """Tell the run how far the download is, where that is known and in whole percent."""
    if total:
        percent = min(100 * received // total, 99)
        if percent > run.data.percent:
            run.tell(dispatch.FetchAdvanced(percent))
