"""The activities of a delivery: waiting for its turn, storing the instances, settling a stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import count

import trio

from proxy.activities.delivery.counts import is_void
from proxy.activities.delivery.feedback import NodeFeedback
from proxy.activities.delivery.query import InstanceQuery
from proxy.activities.delivery.sender import InstanceSender
from proxy.activities.delivery.unsent import UnsentInstances
from proxy.activities.target import clocks_for, repush_for, retries_for, target_for
from proxy.dicom.association import associate
from proxy.dicom.contexts import MAX_CONTEXTS, plan
from proxy.dicom.find import FIND
from proxy.dicom.pdu import Proposal
from proxy.dicom.storage import StoreResult
from proxy.errors import InstanceUnusable, NodeError
from proxy.ledger import Counts, InstanceState
from proxy.logs import log
from proxy.machines import delivery, node, policy
from proxy.machines.delivery import DeliveryOutput, DeliveryProgress, DeliveryState
from proxy.machines.failures import Remedy, classify_local, is_answer
from proxy.machines.policy import Ending
from proxy.model import Instance
from proxy.runtime.runner import Activity
from proxy.work.runs import DeliveryAtWork, DeliveryRun, Site

CHANGED = "ITH changed it since the node got it, and repush is never. Set it to new to send it."
"""Why an instance is not sent that the node has with another content."""


class DeliveryActivities:
    """Brings the instances of one dispatch to one node."""

    def __init__(self, site: Site, at: DeliveryAtWork) -> None:
        self._site = site
        self._dispatch = at.dispatch
        self._at = at
        self._tries: Counter[Instance] = Counter()
        self._left = UnsentInstances(site, at)
        self._asking = InstanceQuery(site, at)
        self._trial = NodeFeedback(site, at.node)

    def all(self) -> dict[str, Activity[DeliveryState, DeliveryProgress, DeliveryOutput]]:
        """The activities by the names the machine gives them."""
        return {
            "wait_for_turn": self.wait_for_turn,
            "store_instances": self.store_instances,
            "settle": self.settle,
        }

    async def wait_for_turn(self, run: DeliveryRun) -> None:
        """Wait for the content and a free association; a node that is down costs an attempt.

        A delivery that has nothing to send needs neither the node nor an association, and one
        that a restart took out of a back-off goes back to it.
        """
        if self._at.kept is not None:
            attempts, due, error, away = self._at.kept
            wait = max(due - trio.current_time(), 0.0)
            run.tell(delivery.BackOffKept(attempts, wait, error, away))
            if run.state is DeliveryState.BACKING_OFF:
                self._at.kept = None
            return
        await self._dispatch.content.wait()
        if self._dispatch.run.over:  # given up while this one still sent
            run.tell(delivery.GiveUpRequested(self._dispatch.run.data.error or ""))
            return
        await self._follow(run)
        to = self._at.node.run
        counts = await self._settle()
        run.tell(self._dispatch.ready(counts))
        if counts.stored + counts.refused >= counts.total:
            run.tell(delivery.TurnGranted())
            return
        if policy.may_try(to.state, to.data):
            await self._at.take_turn()
        if not policy.may_try(to.state, to.data):  # it may have been given up meanwhile
            self._at.release_grant()
            run.tell(self._failed(run, f"node is offline: {to.data.error}", away=True))
            return
        run.tell(delivery.TurnGranted())
        if run.state is not DeliveryState.STORING:
            self._at.release_grant()
        elif to.state not in node.OPEN:
            to.tell(node.TrialBegun())

    async def _follow(self, run: DeliveryRun) -> None:
        """Count along while another dispatch brings the entity, as urgently as this one wants."""
        entity, leaders = self._dispatch.order.entity, self._at.node.leaders
        while (leader := leaders.setdefault(entity.key, self._at)) is not self._at:
            moved = leader.moved
            leader.promote(self._at.rank)
            ready = self._dispatch.ready(await self._settle())
            run.tell(delivery.Followed(ready.files_total, ready.files_stored, ready.files_refused))
            await moved.wait()

    async def _settle(self) -> Counts:
        """Count as stored what the node has confirmed, to whatever dispatch."""
        node = self._at.node.node
        return await self._site.ledger.settle(
            self._dispatch.dispatch_id,
            node.node_id,
            node.identity,
            anew=repush_for(self._site.settings.dispatch, node) == "all",
        )

    async def store_instances(self, run: DeliveryRun) -> None:
        """Store the instances one by one for as long as the delivery is STORING and has its turn.

        Told to stop or to yield, it ends after the one in flight: C-STORE has no cancel, and half
        an object would leave the node guessing. Where none is in flight yet, a stop ends it at
        once. The turn is given back once the association is gone, so that no node has more of
        them than allowed.
        """
        had = run.data.files_stored
        self._trial = NodeFeedback(self._site, self._at.node)
        try:
            ending = await self._attempt(run)
        finally:
            self._trial.end(run.data.files_stored - had)
            self._at.release_grant()
        run.tell(policy.last_word(run.data, ending))

    async def settle(self, run: DeliveryRun) -> None:
        """The association is cut: do what the stop was for, unless only the release was missing."""
        all_answered = self._left.is_nothing
        run.tell(await self._settled(run) if all_answered else policy.stopped(run.data))

    async def _attempt(self, run: DeliveryRun) -> Ending:
        """Send what the node has not answered for; say how that ended."""
        self._left.forget()
        ledger, dispatch_id = self._site.ledger, self._dispatch.dispatch_id
        configured = self._at.node.node
        if repush_for(self._site.settings.dispatch, configured) == "never":
            changed = await ledger.withhold(dispatch_id, configured.node_id, configured.identity)
            for _ in range(changed):
                run.tell(delivery.InstanceRefused(CHANGED))
        to_send = await self._left.read()
        in_doubt = await self._asking.in_doubt()
        # One at which an attempt ended goes last: it must not keep the others from the node.
        to_send.sort(key=self._tries.__getitem__)
        for number, proposals in enumerate(plan(to_send, MAX_CONTEXTS - bool(in_doubt))):
            if number and not self._at.may_continue():
                return delivery.TurnYielded()
            offered = {(p.sop_class_uid, *p.transfer_syntax_uids) for p in proposals}
            part = [i for i in to_send if (i.sop_class_uid, i.transfer_syntax_uid) in offered]
            try:
                doubtful = [instance for instance in part if instance in in_doubt]
                ending = await self._send(run, proposals, part, doubtful)
            except NodeError as error:
                return self._after_error(run, error)
            if ending is not None:
                return ending
        return await self._settled(run)

    async def _settled(self, run: DeliveryRun) -> Ending:
        """How it ends where nothing is left to send, by what the ledger counts."""
        counts = await self._site.ledger.counts(self._dispatch.dispatch_id, self._at.node_id)
        run.tell(self._dispatch.ready(counts))
        if await is_void(self._site, self._at, counts):
            return delivery.SomeRefused(policy.DELETED)
        return policy.settled(run.data, self._dispatch.undeliverable.passed_over)

    async def _send(
        self,
        run: DeliveryRun,
        proposals: Sequence[Proposal],
        part: Sequence[Instance],
        in_doubt: Sequence[Instance],
    ) -> Ending | None:
        """Send what one association can carry; None if all of it is answered for."""
        dicom, to = self._site.settings.dicom, self._at.node
        target, clocks = target_for(dicom, to.node), clocks_for(dicom, to.node)
        self._trial.accepted = False
        begun = count()

        def may_begin() -> bool:
            """Whether another question or instance may be sent; the turn was for the first."""
            return not next(begun) or self._at.may_continue()

        async with AsyncExitStack() as stack:
            with run.only_in(DeliveryState.STORING) as opening:
                await to.asked()
                offered = [*proposals, FIND] if in_doubt else proposals
                association = await stack.enter_async_context(
                    associate(self._site.network, target, offered, clocks)
                )
                self._trial.accepted = True
                stack.enter_context(to.talking())
                to.run.tell(node.NodeAnswered())
                settle = partial(self._settle_doubt, run)
                if not await self._asking.ask(association, in_doubt, settle, may_begin):
                    return delivery.TurnYielded()
            if opening.cancelled_caught:
                return policy.stopped(run.data)
            storing = InstanceSender(self._site, run, association)
            stack.callback(storing.log, to.node_id)
            for instance in part:
                is_left = await self._left.has(instance)
                if run.state is not DeliveryState.STORING:
                    return policy.stopped(run.data)
                if not is_left:
                    continue
                if not may_begin():
                    return delivery.TurnYielded()
                ending = await self._store(run, storing, instance)
                if ending is not None:
                    return ending
                self._left.answered(instance)
        return None

    def _settle_doubt(self, run: DeliveryRun, instance: Instance, is_there: bool) -> None:
        """Count what the node says it has, with whatever content; the rest is sent again."""
        self._note(instance, InstanceState.STORED if is_there else InstanceState.PLANNED)
        if is_there:
            run.tell(delivery.InstanceFound())
            self._left.answered(instance)

    async def _store(
        self, run: DeliveryRun, storing: InstanceSender, instance: Instance
    ) -> Ending | None:
        """Send one instance and note what the node said; an ending where the attempt is over."""
        self._note(instance, InstanceState.SENDING)
        self._tries[instance] += 1
        try:
            result = await storing.store(instance)
        except InstanceUnusable as error:
            self._note(instance, InstanceState.PLANNED)
            ending = await self._unusable(run, instance, error)
            # An association that was aborted over it can carry nothing more.
            return ending or (None if storing.association.established else delivery.ContentLost())
        except BaseException:
            sent = storing.association.sent_whole
            self._note(instance, InstanceState.UNKNOWN if sent else InstanceState.PLANNED)
            raise
        if result is None:
            self._note(instance, InstanceState.PLANNED)
            return policy.stopped(run.data)
        return self._answered(run, instance, result)

    async def _unusable(
        self, run: DeliveryRun, instance: Instance, error: InstanceUnusable
    ) -> Ending | None:
        """What it means that an instance cannot be read as it came; a deletion may have taken it.

        What is lost of the content is fetched again with all of it, while that is allowed.
        """
        is_lost = classify_local(error.code).remedy is Remedy.FETCH_AGAIN
        if not is_lost or await self._site.pacs.is_whole(instance):
            return self._failed(run, error.in_full)
        if not await self._left.has(instance):
            return None
        uid = instance.sop_instance_uid
        log("instance.lost", level="error", node_id=self._at.node_id, instance_uid=uid, error=error)
        of = self._dispatch.run
        lost = policy.content_lost(of.state, of.data, error.in_full)
        if lost is not None:
            of.tell(lost)
            return delivery.ContentLost()
        self._note(instance, InstanceState.REFUSED)
        run.tell(delivery.InstanceRefused(error.in_full))
        return None

    def _answered(self, run: DeliveryRun, instance: Instance, result: StoreResult) -> Ending | None:
        """Note the node's answer in the ledger before the machine, hence ITH, hears of it."""
        sentence = result.failure.in_full
        match result.failure.remedy:
            case Remedy.STORED | Remedy.STORED_WITH_WARNING as remedy:
                self._note(instance, InstanceState[remedy.name], result)
                run.tell(delivery.InstanceStored())
            case Remedy.NEVER | Remedy.OTHER_SYNTAX:
                self._note(instance, InstanceState.REFUSED, result)
                run.tell(delivery.InstanceRefused(sentence))
            case Remedy.ASK_NODE:
                self._note(instance, InstanceState.UNKNOWN, result)
                return self._failed(run, sentence)
            case (
                Remedy.RETRY_NOW
                | Remedy.RETRY_LATER
                | Remedy.FEWER_ASSOCIATIONS
                | Remedy.FETCH_AGAIN
            ):
                self._note(instance, InstanceState.PLANNED, result)
                return self._failed(run, sentence, result.failure.remedy)
        return None

    def _note(
        self, instance: Instance, state: InstanceState, result: StoreResult | None = None
    ) -> None:
        self._site.ledger.post_result(
            self._dispatch.dispatch_id,
            self._at.node_id,
            instance,
            state,
            result.status if result else None,
            result.comment if result else None,
            confirmed_by=self._trial.node.identity if result and result.confirms_content else None,
        )

    def _after_error(self, run: DeliveryRun, error: NodeError) -> Ending:
        """What it means that the association could not be had, or was lost."""
        to = self._at.node
        log("delivery.attempt_failed", level="warning", node_id=to.node_id, error=error)
        remedy = self._trial.blame(error)
        failed = self._failed(run, error.in_full, remedy, away=not is_answer(error))
        is_crowded = remedy is Remedy.FEWER_ASSOCIATIONS and to.queue.in_use > 1
        return delivery.NodeCrowded() if is_crowded else failed

    def _failed(
        self,
        run: DeliveryRun,
        error: str,
        remedy: Remedy = Remedy.RETRY_LATER,
        *,
        away: bool = False,
    ) -> Ending:
        """What a failed attempt means; a stop is stronger than a retry."""
        if remedy is Remedy.FEWER_ASSOCIATIONS:
            self._trial.complain()
        if run.data.stop is not None:
            return policy.stopped(run.data)
        dicom = self._site.settings.dicom
        count, delay = retries_for(dicom, self._at.node.node)
        return policy.after_attempt(
            run.data,
            error,
            remedy,
            retry_count=count,
            retry_delay=delay,
            retry_max=dicom.retry_max_seconds,
            uniform=self._site.rng.random(),
            away=away,
        )
