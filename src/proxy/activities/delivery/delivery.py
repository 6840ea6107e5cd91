"""A delivery: its run, its turn at the node, its attempts, and the effects of its outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import trio
from msgspec.structs import replace

from proxy.activities.delivery.attempt import (
    Assignment,
    Attempt,
    InstanceQuery,
    after_failure,
    not_less,
)
from proxy.dicom.contexts import Offers
from proxy.machines import delivery, node, policy
from proxy.machines.delivery import (
    DELIVERY,
    DeliveryOutput,
    DeliveryProgress,
    DeliveryState,
    Outcome,
)
from proxy.machines.node import NodeState
from proxy.machines.operation import OperationState
from proxy.model import Instance
from proxy.nodes import Effect
from proxy.reporting.reports import Reports
from proxy.runtime.runner import Run
from proxy.work.fair_queue import Granted
from proxy.work.runs import DeliveryRun, OperationRun, OrderGroup, log_fault


class SavedBackOff(NamedTuple):
    """The back-off into which a restart came; ``due`` on trio's clock.

    The rest is what the delivery knew of it: failed attempts, the error, whether the node was away.
    """

    attempts: int
    due: float
    error: str
    away: bool


class Delivery(Granted):
    """One delivery, from the acceptance of its order to its outcome.

    ``advanced`` is set, and replaced, whenever the delivery got farther: for those that follow it.
    """

    def __init__(
        self,
        assignment: Assignment,
        *,
        group: OrderGroup,
        operation: OperationRun,
        reports: Reports,
        so_far: DeliveryProgress,
        back_off: SavedBackOff | None,
        refetch: Callable[[str], bool],
        on_over: Callable[[str, Outcome, DeliveryProgress], None],
    ) -> None:
        """Prepare a delivery; ``refetch`` has lost content fetched, ``on_over`` is told the end."""
        self.node = assignment.node
        self.order = assignment.order
        self.advanced = trio.Event()
        self._assignment = assignment
        self._services = assignment.services
        self._content = assignment.content
        self._group = group
        self._operation = operation
        self._reports = reports
        self._back_off = back_off
        self._refetch = refetch
        self._on_over = on_over
        self._rank = assignment.order.priority.rank
        self._entity = assignment.order.entity.key
        self._query = InstanceQuery(assignment)
        self._offers = Offers()
        self._tried: Counter[Instance] = Counter()
        self._attempt: Attempt | None = None
        self._cancel_reason: str | None = None
        self.run: DeliveryRun = Run(
            DELIVERY,
            replace(so_far, grace=self._services.settings.dicom.cancel_seconds),
            {
                "wait_for_turn": self._wait_for_turn,
                "store_instances": self._store_instances,
                "settle": self._settle,
            },
            self._on_output,
            on_fault=log_fault,
        )
        reason = self._held_because()
        if reason is not None:
            self.hold(reason)

    @property
    def node_id(self) -> str:
        """ITH's id of the node."""
        return self.node.node_id

    @property
    def ledger_key(self) -> tuple[int, str] | None:
        """The delivery's key in the ledger: dispatch and node id; None before it was planned."""
        content = self._content
        return (content.dispatch_id, self.node_id) if content.planned else None

    # -- Requests ---------------------------------------------------------------------------------

    def hold(self, reason: str) -> None:
        """Send nothing until the hold ends."""
        self.run.tell(delivery.HoldRequested(reason))

    def resume(self) -> None:
        """Go on where nothing else holds the delivery."""
        if self._held_because() is None:
            event = policy.resume(self.run.state, self.run.data)
            if event is not None:
                self.run.tell(event)

    def cancel(self, reason: str) -> None:
        """End before the node has every instance; while the order is recorded, as soon as it is."""
        if self._content.is_recorded:
            self.run.tell(delivery.CancelRequested(reason))
        else:
            self._cancel_reason = reason

    def recorded(self) -> None:
        """Take notice that the order is in the ledger."""
        if self._cancel_reason is not None:
            self.run.tell(delivery.CancelRequested(self._cancel_reason))

    def give_up(self, error: str) -> None:
        """End because the content cannot be had."""
        self.run.tell(delivery.GiveUpRequested(error))

    def apply(self, effect: Effect) -> None:
        """Do to the delivery what a change of its node does to it."""
        match effect:
            case Effect.CANCEL:
                self.cancel(effect.value)
            case Effect.HOLD:
                self.hold(effect.value)
            case Effect.RESUME:
                self.resume()
            case Effect.RESTART:
                self._back_off = None
                self._offers = Offers()
                self.run.tell(delivery.NodeMoved())
                self.run.tell(delivery.RestartRequested(effect.value))

    def wake(self) -> None:
        """End a back-off from a node that was away: it is back.

        One to which the node has said "not now" waits for its time.
        """
        if self._back_off and self._back_off.away:  # held since a restart, it goes back to that
            self._back_off = self._back_off._replace(due=trio.current_time())
        if self.run.state is DeliveryState.BACKING_OFF and self.run.data.away:
            self.run.tell(delivery.RestartRequested("the node answers again"))

    def promote(self, rank: int) -> None:
        """Send as urgently as one that follows wants to be sent."""
        if rank < self._rank:
            self._rank = rank
            self.node.queue.promote(self._content.dispatch_id, rank)

    def outdate(self) -> None:
        """Read the instances that are left again: ITH deleted something."""
        if self._attempt is not None:
            self._attempt.unsent.is_outdated = True

    async def recount(self) -> None:
        """Count the instances that a deletion left; end where none is left."""
        counts = await self._assignment.counts()
        self.run.tell(self._content.counted(not_less(counts, self.run.data)))
        voided = await self._assignment.voided(counts)
        if voided is not None:
            self.cancel(voided)

    async def planned(self) -> int:
        """Count what the node has of the planned content; return the number of instances."""
        counts = await self._assignment.settle()
        self.run.tell(self._content.counted(counts))
        return counts.total

    def _held_because(self) -> str | None:
        if self._operation.state is not OperationState.ACTIVE:
            return self._operation.data.reason or "the proxy is stopping"
        return Effect.HOLD.value if self.node.run.state is NodeState.DISABLED else None

    # -- Activities -------------------------------------------------------------------------------

    async def _wait_for_turn(self, run: DeliveryRun) -> None:
        """Wait for the content and a free association; a node that is down costs an attempt.

        A delivery that has nothing to send needs neither the node nor an association, and one
        that a restart took out of a back-off goes back to it.
        """
        if self._back_off is not None:
            attempts, due, error, away = self._back_off
            wait = max(due - trio.current_time(), 0.0)
            run.tell(delivery.BackOffKept(attempts, wait, error, away))
            if run.state is DeliveryState.BACKING_OFF:
                self._back_off = None
            return
        if not self._content.ready.is_set():
            self._step_down()  # it may be fetched again only after what those that follow wait for
        await self._content.ready.wait()
        if self._content.given_up is not None:  # while this one still sent
            self.give_up(self._content.given_up)
            return
        await self._follow(run)
        to = self.node.run
        counts = await self._assignment.settle()
        run.tell(self._content.counted(counts))
        if counts.stored + counts.refused >= counts.total:
            run.tell(delivery.TurnGranted())
            return
        if policy.may_try(to.state, to.data):
            dispatch_id = self._content.dispatch_id
            self.grant = await self.node.queue.acquire(
                self._rank,
                dispatch_id,
                flow=dispatch_id,
                unbroken=self.node.configured.whole_studies,
            )
        if not policy.may_try(to.state, to.data):  # it may have been given up meanwhile
            self.release_grant()
            error = f"node is offline: {to.data.error}"
            run.tell(after_failure(self._assignment, run, error, away=True))
            return
        run.tell(delivery.TurnGranted())
        if run.state is not DeliveryState.STORING:
            self.release_grant()
        elif to.state not in node.OPEN:
            to.tell(node.TrialBegun())

    async def _follow(self, run: DeliveryRun) -> None:
        """Count along while another dispatch brings the entity, as urgently as this one wants.

        One that ended in the instant in which it might lead must not: nobody would follow it to an
        end.
        """
        leaders, entity = self.node.leaders, self._entity
        while not run.over and (leader := leaders.setdefault(entity, self)) is not self:
            advanced = leader.advanced
            leader.promote(self._rank)
            ready = self._content.counted(await self._assignment.settle())
            run.tell(delivery.Followed(ready.files_total, ready.files_stored, ready.files_refused))
            await advanced.wait()

    def _step_down(self) -> None:
        """Let another delivery of the entity lead."""
        leaders, entity = self.node.leaders, self._entity
        if leaders.get(entity) is self:
            del leaders[entity]
            self._tell_followers()

    def _tell_followers(self) -> None:
        self.advanced.set()
        self.advanced = trio.Event()

    async def _store_instances(self, run: DeliveryRun) -> None:
        """Store the instances one by one for as long as the delivery is STORING and has its turn.

        Told to stop or to yield, it ends after the one in flight: C-STORE has no cancel, and half
        an object would leave the node guessing. Where none is in flight yet, a stop ends it at
        once. The turn ends once the association is gone, so that no node has more of them than
        allowed.
        """
        attempt = self._attempt = Attempt(
            self._assignment,
            run,
            self._query,
            self._offers,
            self._tried,
            may_continue=lambda: self.grant is not None and self.grant.may_continue(),
            refetch=self._refetch,
        )
        try:
            ending = await attempt.send_all()
        finally:
            attempt.close()
            self.release_grant()
        run.tell(policy.last_word(run.data, ending))

    async def _settle(self, run: DeliveryRun) -> None:
        """The association is cut: do what the stop was for, unless only the release was missing."""
        attempt = self._attempt
        all_answered = attempt is not None and attempt.unsent.is_empty
        run.tell(await attempt.settled() if attempt and all_answered else policy.stopped(run.data))

    # -- Outputs ----------------------------------------------------------------------------------

    def _on_output(self, output: DeliveryOutput) -> None:
        self._tell_followers()
        match output:
            case delivery.ReportProgress(progress):
                is_joint = self._reports.aggregate
                every = self._group.progress().values() if is_joint else [progress]
                self._reports.processing(self.order, self.node_id, every)
            case delivery.SaveAttempt(progress):
                now = self._services.clock.now()
                self._services.ledger.post_attempt(
                    self._content.dispatch_id,
                    self.node_id,
                    progress.attempts,
                    now + progress.retry_in if progress.attempts else None,
                    progress.error or "",
                    away=progress.away,
                )
            case delivery.CloseDelivery(outcome, progress):
                self._step_down()
                self._on_over(self.node_id, outcome, progress)
