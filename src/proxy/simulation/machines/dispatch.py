"""A dispatch: its run, its download, its deliveries; as ``proxy.activities.dispatch``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace

from proxy.fsm import Event
from proxy.machines import dispatch
from proxy.machines.delivery import ContentReady, DeliveryProgress, Outcome
from proxy.machines.dispatch import DispatchData, DispatchOutput, DispatchState
from proxy.nodes import Effect
from proxy.simulation.machines.delivery import ModelDelivery
from proxy.simulation.machines.ledger import ModelAccepted, ModelCounts, ModelOrder, ModelRecord
from proxy.simulation.machines.tasks import (
    ANSWER,
    SOON,
    Broken,
    ModelRun,
    Signal,
    Steps,
    Task,
    Unforeseen,
)
from proxy.work.scheduler import Job

if TYPE_CHECKING:
    from proxy.simulation.machines.site import Site

WHOLE, ADVANCED, LATER, NEVER, DAMAGED, FAULTY, UNCHANGED, ASKED_TO_WAIT = range(8)
"""Answers of ITH to a download: the next part, or the last; some bytes of it; a failure, for now or
for good; an archive of which something is damaged; a defect here; it is what we have; a failure,
and for how long."""

LONGEST_S = 300.0

COUNTED = {
    dispatch.TurnGranted,
    dispatch.FetchFailed,
    dispatch.FetchExhausted,
    dispatch.RefetchExhausted,
    dispatch.ContentLost,
}
"""The events that the invariants count."""


class NotFetched(Exception):
    """The download failed."""

    def __init__(self, *, permanent: bool, retry_after: float = 0.0) -> None:
        super().__init__("not fetched")
        self.permanent = permanent
        self.retry_after = retry_after


class ModelContent:
    """The content of one dispatch, as its deliveries see it."""

    __slots__ = ("given_up", "is_recorded", "planned", "ready", "undeliverable")

    def __init__(self) -> None:
        self.is_recorded = False
        self.planned = 0
        self.undeliverable = 0
        self.given_up: str | None = None
        self.ready = Signal()

    def counted(self, counts: ModelCounts) -> ContentReady:
        """Return the fact that tells a delivery what the ledger counts of it."""
        return ContentReady(counts.total + self.undeliverable, counts.stored, counts.refused)


@dataclass(eq=False)
class ModelGroup:
    """The dispatches of one order, and how its deliveries ended."""

    node_ids: set[str] = field(default_factory=set)
    dispatches: list[ModelDispatch] = field(default_factory=list)
    deliveries: list[ModelDelivery] = field(default_factory=list)
    endings: dict[str, tuple[Outcome, DeliveryProgress]] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether no dispatch and no delivery of the order is at work."""
        return all(each.over for each in self.dispatches) and all(
            each.over for each in self.deliveries
        )

    def recall(self, over: Iterable[tuple[str, Outcome, ModelCounts, str]]) -> None:
        """Take up what the ledger knows of deliveries that were over before."""
        for node_id, outcome, counts, error in over:
            self.endings.setdefault(node_id, (outcome, DeliveryProgress(*counts, error=error)))


class ModelDispatch(ModelRun[DispatchState, DispatchData, DispatchOutput]):
    """One order at work; ``record`` is what the ledger has of it, once it is recorded."""

    __slots__ = (
        "_acceptance",
        "_failures",
        "_losses",
        "_percent",
        "_unkept",
        "content",
        "deliveries",
        "grant",
        "group",
        "is_fresh",
        "order",
        "outcome",
        "record",
        "site",
        "work",
    )

    def __init__(
        self,
        site: Site,
        order: ModelOrder,
        group: ModelGroup,
        unfinished: ModelRecord | None = None,
    ) -> None:
        super().__init__(site.clock, site.rules.dispatch, DispatchData())
        self.site = site
        self.order = order
        self.group = group
        self.content = ModelContent()
        self.deliveries: dict[str, ModelDelivery] = {}
        self.record = unfinished
        self.is_fresh = False
        self.grant: Job | None = None
        self.work = Work(self)
        self.outcome: Outcome | None = None
        self._unkept: Outcome | None = None
        self._losses = 0
        self._failures = 0
        self._percent = 0
        self._acceptance: ModelAccepted | None = None
        so_far: dict[str, DeliveryProgress] = {}
        if unfinished is None:
            self._acceptance = site.ledger.accept(order)
        else:
            so_far = self._recover(unfinished)
        self._deliver(so_far)
        if unfinished is not None and site.ledger.is_buried(unfinished):
            for each in self.deliveries.values():
                each.cancel("deleted")
        group.node_ids.update(order.node_ids)
        group.dispatches.append(self)

    @property
    def name(self) -> str:
        """What it is called."""
        return f"dispatch {self.order.key.correlation}"

    @property
    def id(self) -> int:
        """The ledger's, 0 until the order is recorded."""
        return self.record.id if self.record is not None else 0

    @property
    def runs(self) -> tuple[ModelDispatch | ModelDelivery, ...]:
        """The dispatch and its deliveries."""
        return (self, *self.deliveries.values())

    # -- The start --------------------------------------------------------------------------------

    def _recover(self, unfinished: ModelRecord) -> dict[str, DeliveryProgress]:
        group, content = self.group, self.content
        group.recall(self.site.ledger.over(self.order.key))
        rows = unfinished.rows
        content.planned = max((row.counts().total for row in rows.values()), default=0)
        content.undeliverable = unfinished.undeliverable
        so_far = {}
        for node_id, row in rows.items():
            counted = content.counted(row.counts())
            so_far[node_id] = DeliveryProgress(
                counted.files_total if content.planned else 0,
                counted.files_stored,
                counted.files_refused,
                error=row.error,
            )
            if row.outcome is not None:
                group.endings[node_id] = (row.outcome, so_far[node_id])
        return so_far

    def _deliver(self, so_far: dict[str, DeliveryProgress]) -> None:
        rows = self.record.rows if self.record is not None else {}
        for node_id in self.order.node_ids:
            if node_id in self.group.endings:
                continue
            progress = so_far.get(node_id, DeliveryProgress())
            to = self.site.nodes.get(node_id)
            if to is None:
                progress = replace(progress, error=Effect.CANCEL.value)
                self._end(node_id, Outcome.CANCELLED, progress)
                continue
            added = ModelDelivery(self, to, progress, rows.get(node_id))
            self.deliveries[node_id] = added
            self.group.deliveries.append(added)

    def begin(self) -> None:
        """Run the dispatch and its deliveries to their ends."""
        for each in self.runs:
            each.owner = self.work
        self.run()

    def begin_deliveries(self) -> None:
        """Begin, once the order is recorded."""
        if self._acceptance is not None:
            self.site.told_again(self.order, self.group)
        for each in self.deliveries.values():
            each.recorded()
            each.run()
        if not self.over:
            self._close_if_over()

    # -- Requests ---------------------------------------------------------------------------------

    def hold(self, reason: str) -> None:
        """Download nothing until the hold ends."""
        self.tell(dispatch.HoldRequested(reason))
        if self.state is DispatchState.HELD:
            self.release()

    def resume_work(self) -> None:
        """Go on."""
        self.tell(dispatch.ResumeRequested())

    def refetch(self, error: str) -> bool:
        """Fetch lost content again; False where that was done too often."""
        lost = self.site.rules.content_lost(self.state, self.data, error)
        if lost is not None:
            self.tell(lost)
        return lost is not None

    def release(self) -> None:
        """Give the grant back, if there is one."""
        if self.grant is not None:
            grant, self.grant = self.grant, None
            self.site.downloads.leave(grant)

    # -- Activities -------------------------------------------------------------------------------

    def _record(self) -> Steps[None]:
        accepted = self._acceptance
        if accepted is not None:
            yield SOON
            self.group.recall(accepted.over)
            if not accepted.is_new:
                self.content.is_recorded = True
                self.tell(dispatch.AlreadyKnown())
                return
            self.record = accepted.record
            self._withdraw(self.deliveries.keys() - set(accepted.node_ids))
            for node_id, each in self.deliveries.items():
                each.row = accepted.record.rows[node_id]
        self.content.is_recorded = True
        if self.site.operation.is_active:
            self.tell(dispatch.Recorded())
        else:
            self.tell(dispatch.RecordedWhilePaused())

    def _wait_for_turn(self) -> Steps[None]:
        self.release()
        while self.grant is None:
            for other in self._others():
                while other.state is DispatchState.FETCHING:
                    yield other.moves
            self.grant = yield from self.site.downloads.acquire(
                self.order.rank, self.id, frozenset(self.order.node_ids)
            )
            if any(other.state is DispatchState.FETCHING for other in self._others()):
                self.release()
        self.tell(dispatch.TurnGranted())
        if self.state is not DispatchState.FETCHING:
            self.release()

    def _fetch(self) -> Steps[None]:
        rules = self.site.rules
        try:
            is_held = self.order.key.entity in self.site.ledger.held
            yield SOON
            if not is_held or not (self.content.planned or self.is_fresh):
                yield from self._cache()
            total = yield from self._plan()
            self.tell(dispatch.Fetched(total))
        except NotFetched as error:
            self.tell(
                rules.after_fetch(
                    self.data,
                    "not fetched",
                    permanent=error.permanent,
                    attempts=rules.limits.downloads,
                    cap=LONGEST_S,
                    uniform=0.5,
                    retry_after=error.retry_after,
                )
            )
        finally:
            self.release()

    def _cache(self) -> Steps[None]:
        ledger, entity = self.site.ledger, self.order.key.entity
        served = [self, *(other for other in self._others() if other.id)]
        is_held = entity in ledger.held
        yield SOON
        damaged = 0
        parts, come = self.site.rules.limits.parts, 1
        while (answer := (yield ANSWER)) == ADVANCED or (answer == WHOLE and come < parts):
            if (percent := min(100 * come // parts, 99)) > self.data.percent:
                self.tell(dispatch.FetchAdvanced(percent))
            come += 1
        if answer == FAULTY:
            raise Unforeseen("planned")
        if answer in {LATER, ASKED_TO_WAIT}:
            raise NotFetched(permanent=False, retry_after=60.0 * (answer == ASKED_TO_WAIT))
        if answer == NEVER:
            raise NotFetched(permanent=True)
        if answer == UNCHANGED and is_held:
            for each in served:
                each.is_fresh = True
            return
        bits = (1 << self.site.rules.limits.instances) - 1
        if answer == DAMAGED:
            damaged = 1
            bits >>= 1
        for each in served:
            each.content.undeliverable = damaged
            if each.record is not None:
                each.record.undeliverable = damaged
        ledger.keep(entity, bits, max(each.id for each in served))
        yield SOON
        for each in served:
            each.is_fresh = True

    def _plan(self) -> Steps[int]:
        record = self.record
        total = self.site.ledger.plan(record) if record is not None else 0
        yield SOON
        if not total:
            raise NotFetched(permanent=True)
        planned = total
        for each in [*self.deliveries.values()]:
            counted = yield from each.planned()
            planned = max(planned, counted)
        self.content.planned = planned
        return total + self.content.undeliverable

    def _others(self) -> list[ModelDispatch]:
        entity = self.order.key.entity
        return [
            other
            for other in self.site.dispatches()
            if other is not self and other.order.key.entity == entity
        ]

    # -- Outputs ----------------------------------------------------------------------------------

    def emit(self, output: DispatchOutput) -> None:
        """Do what an output asks for."""
        match output:
            case dispatch.ReportDownload(percent):
                self._report(percent)
            case dispatch.HandOver():
                self._hand_over()
            case dispatch.TakeBack():
                self.content.ready = Signal()
                self._count_backlog(-1)
                if not self.site.operation.is_active:
                    self.hold("paused")
            case dispatch.GiveUp(error):
                self.content.given_up = error
                for each in self.deliveries.values():
                    each.give_up(error)
                self._hand_over()
            case dispatch.Withdraw():
                self._withdraw([*self.deliveries])
                self.site.told_again(self.order, self.group)
                self.work.is_withdrawn = True
            case dispatch.CloseDispatch(outcome):
                self._close(outcome)

    def _withdraw(self, node_ids: Iterable[str]) -> None:
        for node_id in node_ids:
            self.group.deliveries.remove(self.deliveries.pop(node_id))

    def _hand_over(self) -> None:
        self.content.ready.set()
        self._count_backlog(1)

    def _count_backlog(self, change: int) -> None:
        for each in self.deliveries.values():
            each.node.backlog[self.order.rank] += change * (not each.over)

    def delivery_over(
        self, ended: ModelDelivery, outcome: Outcome, progress: DeliveryProgress
    ) -> None:
        """Do what the end of a delivery leads to."""
        ended.node.backlog[self.order.rank] -= self.content.ready.is_set
        self.site.downloads.serve()
        self._end(ended.node.node_id, outcome, progress)
        self._close_if_over()

    def _end(self, node_id: str, outcome: Outcome, progress: DeliveryProgress) -> None:
        self.group.endings[node_id] = (outcome, progress)
        row = self.record.rows.get(node_id) if self.record is not None else None
        if row is not None and row.outcome is None:
            row.outcome, row.error, row.due = outcome, progress.error or "", None
        self.site.told_end(self.order.key, node_id, outcome)

    def _close_if_over(self) -> None:
        if not self._are_over:
            return
        if not self.over:
            self.tell(self.site.rules.dispatch_over(self.group.endings))
        self._keep_outcome()
        if self.group.is_over:
            self.site.told_order_over(self.order.key, self.group)

    def _keep_outcome(self) -> None:
        if self._unkept is not None and self._are_over and self.record is not None:
            self.site.ledger.close(self.record, self._unkept)
            self._unkept = None

    @property
    def _are_over(self) -> bool:
        return all(each.over for each in self.deliveries.values())

    # -- Invariants -------------------------------------------------------------------------------

    def _report(self, percent: int) -> None:
        """Hold that the progress of one download does not fall."""
        if percent < self._percent:
            raise Broken(f"{self.name}: {self._percent} %, then {percent} %")
        self._percent = percent

    def _close(self, outcome: Outcome) -> None:
        """Hold that an outcome is told once, and is that of the deliveries."""
        if self.outcome is not None:
            raise Broken(f"{self.name}: told {self.outcome.name}, then {outcome.name}")
        self.outcome = outcome
        endings = {ending for ending, _ in self.group.endings.values()}
        if (outcome is Outcome.COMPLETED) != (endings == {Outcome.COMPLETED}):
            raise Broken(f"{self.name}: told {outcome.name} of {len(endings)} endings")
        self._unkept = outcome
        self._keep_outcome()

    def check(self, before: DispatchState, event: Event) -> None:
        """Hold that downloads and repetitions of them are limited."""
        limits = self.site.rules.limits
        if before is DispatchState.ACCEPTED and self.state is not before:
            self.work.wake()
        if type(event) not in COUNTED:
            return
        match event:
            case dispatch.TurnGranted():
                self._percent = 0
            case dispatch.FetchFailed() if self.state is DispatchState.BACKING_OFF:
                self._failures += 1
                if self._failures >= limits.downloads:
                    raise Broken(f"{self.name}: another download after {self._failures} failed")
            case dispatch.FetchExhausted() | dispatch.RefetchExhausted():
                self._failures = 0
            case dispatch.ContentLost() if before is DispatchState.DELIVERING:
                self._failures = 0
                self._losses += 1
                if self._losses > dispatch.REFETCHES:
                    raise Broken(f"{self.name}: content fetched again {self._losses} times")
            case _:
                pass

    def look(self) -> None:
        """Hold that it is held in a pause, and at no other time."""
        if self.over or self.state in {DispatchState.ACCEPTED, DispatchState.DELIVERING}:
            return
        is_held = self.state is DispatchState.HELD
        if is_held == self.site.operation.is_active:
            raise Broken(f"{self.name}: is {self.state.name}, and the proxy is active or not")

    activities: ClassVar = {"record": _record, "wait_for_turn": _wait_for_turn, "fetch": _fetch}


class Work(Task):
    """The task of one dispatch: it begins the deliveries, and ends with the last of them."""

    __slots__ = ("_dispatch", "_has_begun", "is_withdrawn")

    def __init__(self, dispatch: ModelDispatch) -> None:
        super().__init__(dispatch.clock)
        self.is_withdrawn = False
        self._dispatch = dispatch
        self._has_begun = False

    def turn(self) -> None:
        """Begin the deliveries once the order is recorded; end after the last of them."""
        self.is_awake = False
        work = self._dispatch
        if not self._has_begun and work.state is not DispatchState.ACCEPTED:
            self._has_begun = True
            if not self.is_withdrawn:
                work.begin_deliveries()
        runs = () if self.is_withdrawn else work.runs
        if self._has_begun and all(each.is_done for each in runs):
            work.release()
            work.site.remove(work)
