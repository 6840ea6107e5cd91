"""One attempt of a delivery: the instances that its node has not answered for are sent to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import count

from proxy.activities.delivery.assignment import Assignment
from proxy.activities.delivery.feedback import NodeFeedback
from proxy.activities.delivery.query import InstanceQuery
from proxy.activities.delivery.sender import InstanceSender
from proxy.activities.delivery.unsent import UnsentInstances
from proxy.activities.target import clocks_for, retries_for, target_for
from proxy.dicom.association import associate
from proxy.dicom.contexts import MAX_CONTEXTS, plan
from proxy.dicom.find import FIND
from proxy.dicom.pdu import Proposal
from proxy.dicom.storage import StoreResult
from proxy.errors import InstanceUnusable, NodeError
from proxy.ledger import InstanceState
from proxy.logs import log
from proxy.machines import delivery, node, policy
from proxy.machines.delivery import DeliveryState
from proxy.machines.failures import Remedy, classify_local, is_answer
from proxy.machines.policy import Ending
from proxy.model import Instance
from proxy.runtime import marks
from proxy.runtime.marks import Mark
from proxy.work.runs import DeliveryRun

CHANGED = "ITH changed it since the node got it, and repush is never. Set it to new to send it."
"""The reason for an instance that is not sent, because the node has another content of it."""


class Attempt:
    """Lives for one attempt; what lasts longer belongs to the delivery and is given.

    ``tried`` counts how often each instance was sent, ``query`` knows whether the node can be
    asked. ``may_continue`` says whether another instance may be sent in the present turn.
    ``refetch`` has a lost content fetched again, and returns False where that is not allowed.
    """

    def __init__(
        self,
        assignment: Assignment,
        run: DeliveryRun,
        query: InstanceQuery,
        tried: Counter[Instance],
        *,
        may_continue: Callable[[], bool],
        refetch: Callable[[str], bool],
    ) -> None:
        self.unsent = UnsentInstances(assignment)
        self._assignment = assignment
        self._services = assignment.services
        self._node = assignment.node
        self._run = run
        self._query = query
        self._tried = tried
        self._may_continue = may_continue
        self._refetch = refetch
        self._feedback = NodeFeedback(assignment.node)
        self._stored_before = run.data.files_stored

    def close(self) -> None:
        """Tell the node's run what the attempt says of the node."""
        self._feedback.end(self._run.data.files_stored - self._stored_before)

    async def send_all(self) -> Ending:
        """Send what the node has not answered for; return how that ended."""
        await self._withhold_changed()
        to_send = await self.unsent.read()
        in_doubt = await self._query.in_doubt()
        # One at which an attempt ended goes last: it must not keep the others from the node.
        to_send.sort(key=self._tried.__getitem__)
        for number, proposals in enumerate(plan(to_send, MAX_CONTEXTS - bool(in_doubt))):
            if number and not self._may_continue():
                return delivery.TurnYielded()
            offered = {(p.sop_class_uid, *p.transfer_syntax_uids) for p in proposals}
            part = [i for i in to_send if (i.sop_class_uid, i.transfer_syntax_uid) in offered]
            try:
                doubtful = [instance for instance in part if instance in in_doubt]
                ending = await self._send(proposals, part, doubtful)
            except NodeError as error:
                return self._after_error(error)
            if ending is not None:
                return ending
        return await self.settled()

    async def settled(self) -> Ending:
        """Return how it ends where nothing is left to send, by what the ledger counts."""
        assignment, run = self._assignment, self._run
        counts = await assignment.counts()
        run.tell(assignment.content.counted(counts))
        voided = await assignment.voided(counts)
        if voided is not None:
            return delivery.SomeRefused(voided)
        return policy.settled(run.data, assignment.content.undeliverable.passed_over)

    async def _withhold_changed(self) -> None:
        """Refuse, where repush is never, what the node has with another content."""
        if self._assignment.repush != "never":
            return
        configured = self._node.configured
        changed = await self._services.ledger.withhold(
            self._assignment.dispatch_id, configured.node_id, configured.identity
        )
        for _ in range(changed):
            self._run.tell(delivery.InstanceRefused(CHANGED))

    async def _send(
        self, proposals: Sequence[Proposal], part: Sequence[Instance], in_doubt: Sequence[Instance]
    ) -> Ending | None:
        """Send what one association can carry; None if all of it is answered for."""
        dicom, to, run = self._services.settings.dicom, self._node, self._run
        target, clocks = target_for(dicom, to.configured), clocks_for(dicom, to.configured)
        self._feedback.accepted = False
        begun = count()

        def may_begin() -> bool:
            """Whether another question or instance may be sent; the turn was for the first."""
            return not next(begun) or self._may_continue()

        async with AsyncExitStack() as stack:
            with run.only_in(DeliveryState.STORING) as opening:
                await to.echoed()
                offered = [*proposals, FIND] if in_doubt else proposals
                association = await stack.enter_async_context(
                    associate(self._services.network, target, offered, clocks)
                )
                self._feedback.accepted = True
                stack.enter_context(to.associated())
                to.run.tell(node.NodeAnswered())
                if not await self._query.ask(association, in_doubt, self._settle_doubt, may_begin):
                    return delivery.TurnYielded()
            if opening.cancelled_caught:
                return policy.stopped(run.data)
            sender = InstanceSender(self._services, run, association)
            stack.callback(partial(sender.log, to.node_id))
            for instance in part:
                is_left = await self.unsent.has(instance)
                if run.state is not DeliveryState.STORING:
                    return policy.stopped(run.data)
                if not is_left:
                    continue
                if not may_begin():
                    return delivery.TurnYielded()
                ending = await self._store(sender, instance)
                if ending is not None:
                    return ending
                self.unsent.answered(instance)
        return None

    def _settle_doubt(self, instance: Instance, is_there: bool) -> None:
        """Count what the node says it has, with whatever content; the rest is sent again."""
        self._note(instance, InstanceState.STORED if is_there else InstanceState.PLANNED)
        if is_there:
            self._run.tell(delivery.InstanceFound())
            self.unsent.answered(instance)

    async def _store(self, sender: InstanceSender, instance: Instance) -> Ending | None:
        """Send one instance and note what the node said; an ending where the attempt is over."""
        self._note(instance, InstanceState.SENDING)
        self._tried[instance] += 1
        try:
            result = await sender.store(instance)
        except InstanceUnusable as error:
            self._note(instance, InstanceState.PLANNED)
            ending = await self._unusable(instance, error)
            # An association that was aborted over it can carry nothing more.
            return ending or (None if sender.association.established else delivery.ContentLost())
        except BaseException:
            sent = sender.association.sent_whole
            self._note(instance, InstanceState.UNKNOWN if sent else InstanceState.PLANNED)
            raise
        if result is None:
            self._note(instance, InstanceState.PLANNED)
            return policy.stopped(self._run.data)
        marks.reached(Mark.INSTANCE_ANSWERED)
        return self._answered(instance, result)

    async def _unusable(self, instance: Instance, error: InstanceUnusable) -> Ending | None:
        """Decide what follows where an instance cannot be read as it came.

        A deletion may have taken it. Where it is lost, all of the content is fetched again, while
        that is allowed.
        """
        is_lost = classify_local(error.code).remedy is Remedy.FETCH_AGAIN
        if not is_lost or await self._services.pacs.is_whole(instance):
            return self._failed(error.in_full)
        if not await self.unsent.has(instance):
            return None
        uid = instance.sop_instance_uid
        log(
            "instance.lost",
            level="error",
            node_id=self._node.node_id,
            instance_uid=uid,
            error=error,
        )
        if self._refetch(error.in_full):
            return delivery.ContentLost()
        self._note(instance, InstanceState.REFUSED)
        self._run.tell(delivery.InstanceRefused(error.in_full))
        return None

    def _answered(self, instance: Instance, result: StoreResult) -> Ending | None:
        """Note the node's answer in the ledger before the machine, hence ITH, hears of it."""
        sentence = result.failure.in_full
        match result.failure.remedy:
            case Remedy.STORED | Remedy.STORED_WITH_WARNING as remedy:
                self._note(instance, InstanceState[remedy.name], result)
                self._run.tell(delivery.InstanceStored())
            case Remedy.NEVER | Remedy.OTHER_SYNTAX:
                self._note(instance, InstanceState.REFUSED, result)
                self._run.tell(delivery.InstanceRefused(sentence))
            case Remedy.ASK_NODE:
                self._note(instance, InstanceState.UNKNOWN, result)
                return self._failed(sentence)
            case (
                Remedy.RETRY_NOW
                | Remedy.RETRY_LATER
                | Remedy.FEWER_ASSOCIATIONS
                | Remedy.FETCH_AGAIN
            ):
                self._note(instance, InstanceState.PLANNED, result)
                return self._failed(sentence, result.failure.remedy)
        return None

    def _note(
        self, instance: Instance, state: InstanceState, result: StoreResult | None = None
    ) -> None:
        confirmed = result is not None and result.confirms_content
        self._services.ledger.post_result(
            self._assignment.dispatch_id,
            self._assignment.node_id,
            instance,
            state,
            result.status if result else None,
            result.comment if result else None,
            confirmed_by=self._feedback.configured.identity if confirmed else None,
        )

    def _after_error(self, error: NodeError) -> Ending:
        """Return what it means that the association could not be had, or was lost."""
        to = self._node
        log("delivery.attempt_failed", level="warning", node_id=to.node_id, error=error)
        remedy = self._feedback.blame(error)
        failed = self._failed(error.in_full, remedy, away=not is_answer(error))
        is_crowded = remedy is Remedy.FEWER_ASSOCIATIONS and to.queue.in_use > 1
        return delivery.NodeCrowded() if is_crowded else failed

    def _failed(
        self, error: str, remedy: Remedy = Remedy.RETRY_LATER, *, away: bool = False
    ) -> Ending:
        """Return what a failed attempt means; a stop is stronger than a retry."""
        if remedy is Remedy.FEWER_ASSOCIATIONS:
            self._feedback.complain()
        return after_failure(self._assignment, self._run, error, remedy, away=away)


def after_failure(
    assignment: Assignment,
    run: DeliveryRun,
    error: str,
    remedy: Remedy = Remedy.RETRY_LATER,
    *,
    away: bool = False,
) -> Ending:
    """Return what a failed attempt means to a delivery; a stop is stronger than a retry."""
    if run.data.stop is not None:
        return policy.stopped(run.data)
    services = assignment.services
    dicom = services.settings.dicom
    retries, delay = retries_for(dicom, assignment.node.configured)
    return policy.after_attempt(
        run.data,
        error,
        remedy,
        retry_count=retries,
        retry_delay=delay,
        retry_max=dicom.retry_max_seconds,
        uniform=services.rng.random(),
        away=away,
    )
