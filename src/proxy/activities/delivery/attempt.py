"""One attempt of a delivery: the instances that its node has not answered for are sent to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count

from msgspec.structs import replace

from proxy.activities.node import NodeAtWork
from proxy.dicom.association import Association, associate
from proxy.dicom.contexts import Offers, proposals_for
from proxy.dicom.find import FIND, can_ask, find, is_answered
from proxy.dicom.pdu import Proposal
from proxy.dicom.storage import StoreResult, store
from proxy.errors import AssociationLost, InstanceUnusable, NodeError, NotConverted
from proxy.ledger import Counts, InstanceState
from proxy.logs import log
from proxy.machines import delivery, node, policy
from proxy.machines.delivery import DeliveryProgress, DeliveryState
from proxy.machines.failures import (
    Layer,
    Remedy,
    blames_contexts,
    classify_error,
    classify_local,
    is_answer,
)
from proxy.machines.policy import Ending
from proxy.model import EXPLICIT_VR_BIG_ENDIAN, Instance, Order, shown
from proxy.runtime import marks
from proxy.runtime.marks import Mark
from proxy.work.runs import Content, DeliveryRun
from proxy.work.services import Services

CHANGED = "ITH changed it since the node got it, and repush is never. Set it to new to send it."
"""The reason for an instance that is not sent, because the node has another content of it."""
MOST_WARNINGS = 10
"""So many refused instances are told of one by one in an attempt, for each reason."""
ROOM_INSTANCES = 100
"""After so many without complaint a node that complained is given one association more."""


class Attempt:
    """Lives for one attempt; what lasts longer belongs to the delivery and is given.

    ``tried`` counts how often each instance was sent, ``query`` knows whether the node can be
    asked, ``offers`` knows which contexts it takes. ``may_continue`` says whether another instance
    may be sent in the present turn. ``refetch`` has a lost content fetched again, and returns False
    where that is not allowed.
    """

    def __init__(
        self,
        assignment: Assignment,
        run: DeliveryRun,
        query: InstanceQuery,
        offers: Offers,
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
        self._offers = offers
        self._tried = tried
        self._may_continue = may_continue
        self._refetch = refetch
        self._feedback = NodeFeedback(assignment.node)
        self._stored_before = run.data.files_stored
        self._takes_titles: bool | None = None
        self._begun_twice: set[Proposal] = set()
        self._warned: Counter[str] = Counter()

    def close(self) -> None:
        """Tell the node's run what the attempt says of the node."""
        node_id = self._node.node_id
        for reason, refused in self._warned.items():
            if refused > MOST_WARNINGS:
                log("instances.refused", node_id=node_id, problem=reason, count=refused)
        self._feedback.end(self._run.data.files_stored - self._stored_before)

    async def send_all(self) -> Ending:
        """Send what the node has not answered for; return how that ended."""
        await self._withhold_changed()
        left = await self.unsent.read()
        self._offers.begin()
        is_first = True
        while True:
            left = [instance for instance in left if await self.unsent.has(instance)]
            # One at which an attempt ended goes last: it must not keep the others from the node.
            left.sort(key=self._tried.__getitem__)
            if left and self._run.state is not DeliveryState.STORING:
                return policy.stopped(self._run.data)
            unwanted = self._refuse_for_good(left)
            in_doubt = await self._query.in_doubt()
            proposals = self._offers.next(left, spare=bool(in_doubt))
            if not proposals:
                return await self._end_without(unwanted)
            if not is_first and not self._may_continue():
                return delivery.TurnYielded()
            is_first = False
            offered = {*proposals}
            part = [each for each in left if not offered.isdisjoint(proposals_for(each))]
            ending = await self._associate(proposals, part, in_doubt)
            if ending is not None:
                return ending

    async def _associate(
        self, proposals: Sequence[Proposal], part: Sequence[Instance], in_doubt: set[Instance]
    ) -> Ending | None:
        """Send what one association can carry; None where another one may carry more."""
        doubtful = [instance for instance in part if instance in in_doubt]
        self._feedback.accepted = self._feedback.answered = False
        try:
            return await self._send(proposals, part, doubtful)
        except NodeError as error:
            row = blames_contexts(error)
            over_question = doubtful and self._query.has_left
            if (
                row is None
                or over_question
                or self._feedback.answered
                or not await self._takes_our_titles()
            ):
                return self._after_error(error)
            log("delivery.contexts_refused", node_id=self._node.node_id, error=error)
            # The question may be what it does not take: next time there is none.
            if not (doubtful and self._query.give_up()) and not self._tries_another(proposals):
                self._offers.ended(proposals, row, part)
            return None

    def _tries_another(self, proposals: Sequence[Proposal]) -> bool:
        """Whether to begin once with another instance: the first may be what ends associations."""
        if len(proposals) > 1 or not self._feedback.accepted or proposals[0] in self._begun_twice:
            return False
        self._begun_twice.add(proposals[0])
        return True

    async def _takes_our_titles(self) -> bool:
        """Whether the node takes associations under these AE titles: then its no is to contexts.

        Asked once in an attempt, unless the node is given up: the attempt itself is its test then.
        """
        if self._node.run.state not in node.OPEN:
            return False
        if self._takes_titles is None:
            self._takes_titles = False
            with self._run.only_in(DeliveryState.STORING):
                self._takes_titles = await self._node.takes_our_titles()
        return self._takes_titles

    def _refuse_for_good(self, left: list[Instance]) -> list[Instance]:
        """Note the refusals that are final, and take them out of ``left``.

        Returns those that the node did not take in this attempt, and may take in the next one.
        """
        unwanted = []
        for instance in [*left]:
            failure = self._offers.refusal(instance)
            if failure is None:
                continue
            if failure.remedy is Remedy.RETRY_LATER:
                unwanted.append(instance)
            else:
                self._answered(instance, StoreResult(failure))
                self.unsent.answered(instance)
                left.remove(instance)
        return unwanted

    async def _end_without(self, unwanted: Sequence[Instance]) -> Ending:
        """Return how an attempt ends in which the node took no contexts for ``unwanted``.

        It is not the node's fault. They count as refused once no attempt is left.
        """
        failures = [(each, self._offers.refusal(each)) for each in unwanted]
        refused = [(each, failure) for each, failure in failures if failure is not None]
        if not refused:
            return await self.settled()
        reason = delivery.RefusalReason(refused[0][1].in_full)
        for instance, failure in refused:
            reason = reason.also(_named(instance, StoreResult(failure)))
        ending = self._failed(reason.in_full)
        if not isinstance(ending, delivery.AttemptsExhausted):
            return ending
        for instance, failure in refused:
            self._refuse(instance, StoreResult(failure))
        return await self.settled()

    async def settled(self) -> Ending:
        """Return how it ends where nothing is left to send, by what the ledger counts."""
        assignment, run = self._assignment, self._run
        counts = await assignment.counts()
        run.tell(assignment.content.counted(counts))
        voided = await assignment.voided(counts)
        if voided is not None:
            return delivery.SomeRefused(voided)
        unsent, passed_over, why = assignment.content.undeliverable
        return policy.settled(run.data, passed_over, unsent, why)

    async def _withhold_changed(self) -> None:
        """Refuse, where repush is never, what the node has with another content."""
        if self._assignment.node.repush != "never":
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
        to, run = self._node, self._run
        target, clocks = to.target, to.clocks
        begun = count()

        def may_begin() -> bool:
            """Whether another question or instance may be sent; the turn was for the first."""
            return not next(begun) or self._may_continue()

        async with AsyncExitStack() as stack:
            opened: list[Association] = []
            stack.callback(self._log_release, opened)
            with run.only_in(DeliveryState.STORING) as opening:
                await to.echoed()
                offered = [*proposals, FIND] if in_doubt else proposals
                association = await stack.enter_async_context(
                    associate(self._services.network, target, offered, clocks)
                )
                self._feedback.accepted = True
                opened.append(association)
                stack.enter_context(to.associated())
                to.run.tell(node.NodeAnswered())
                usable = [each for each in part if association.contexts.is_usable(each)]
                if usable or not in_doubt:
                    self._offers.accepted(association.contexts, part)
                else:  # The question may have taken the one context that the node had.
                    self._query.give_up()
                if not await self._query.ask(association, in_doubt, self._settle_doubt, may_begin):
                    return delivery.TurnYielded()
            if opening.cancelled_caught:
                return policy.stopped(run.data)
            sender = InstanceSender(self._services, run, association)
            stack.callback(partial(sender.log, to.node_id))
            for instance in usable:
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

    def _log_release(self, opened: Sequence[Association]) -> None:
        """Tell the log of a release without its answer: the counts stand."""
        for association in opened:
            problem = association.release_problem
            if problem is not None:
                log("delivery.release_unanswered", node_id=self._node.node_id, error=problem)

    def _settle_doubt(self, instance: Instance, is_there: bool) -> None:
        """Count what the node says it has, with whatever content; the rest is sent again."""
        self._feedback.answered = True
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
            self._feedback.answered |= result is not None and result.status is not None
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
                self._refuse(instance, result)
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

    def _refuse(self, instance: Instance, result: StoreResult) -> None:
        """Note that the node does not take an instance, and say which."""
        self._note(instance, InstanceState.REFUSED, result)
        reason = result.failure.sentence
        self._warned[reason] += 1
        if self._warned[reason] <= MOST_WARNINGS:
            log(
                "instance.refused",
                level="warning",
                node_id=self._node.node_id,
                instance_uid=instance.sop_instance_uid,
                sop_class=shown(instance.sop_class_uid),
                transfer_syntax=shown(instance.transfer_syntax_uid),
                dicom_status=result.status,
                problem=reason,
                hint=result.failure.hint or None,
            )
        named = _named(instance, result)
        self._run.tell(delivery.InstanceRefused(result.failure.in_full, named))

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


def _named(instance: Instance, result: StoreResult) -> str:
    """Name what a node does not take: a context by its UIDs, else the instance by its numbers.

    The ledger keeps the text, and no UID of an instance may outlive a deletion in it.
    """
    named = f"SOP class {shown(instance.sop_class_uid)}"
    if result.failure.layer is Layer.CONTEXT:
        return f"{named}, transfer syntax {shown(instance.transfer_syntax_uid)}"
    numbers = (("instance", instance.instance_number), ("series", instance.series_number))
    for what, number in numbers:
        named += "" if number is None else f", {what} {number}"
    return named if result.status is None else f"{named}, status {result.status:04X}"


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
    retries, delay = assignment.node.retries
    return policy.after_attempt(
        run.data,
        error,
        remedy,
        retry_count=retries,
        retry_delay=delay,
        retry_max=services.settings.dicom.retry_max_seconds,
        uniform=services.rng.random(),
        away=away,
    )


class UnsentInstances:
    """The instances that the node has not answered for.

    ``is_outdated`` says that ITH deleted something since they were read.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._instances: set[Instance] | None = None
        self.is_outdated = False

    async def read(self) -> list[Instance]:
        """Return the instances that are left, in the order to send them, and track them."""
        listed = await self._list()
        self._instances = set(listed)
        return listed

    async def has(self, instance: Instance) -> bool:
        """Whether an instance is still to be sent.

        That its file is there does not say so: files go after the rows, and a later order for a
        deleted entity brings its files back, for its own nodes.
        """
        if self.is_outdated and self._instances:
            self._instances &= set(await self._list())
        return instance in (self._instances or ())

    def answered(self, instance: Instance) -> None:
        """Note that the node has answered for an instance."""
        if self._instances:
            self._instances.discard(instance)

    @property
    def is_empty(self) -> bool:
        """Whether it is known that nothing is left."""
        return self._instances == set()

    async def _list(self) -> list[Instance]:
        self.is_outdated = False  # the ledger answers in turn: after the deletions up to now
        ledger = self._assignment.services.ledger
        return await ledger.to_send(self._assignment.dispatch_id, self._assignment.node_id)


class InstanceQuery:
    """The questions of one delivery to its node.

    A node that leaves over a question is not asked again: else each attempt would end there, and
    the delivery would fail for what it can do without. ``has_left`` says that it did.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self.has_left = False

    def give_up(self) -> bool:
        """Ask nothing more; return whether anything might have been asked."""
        might, self.has_left = not self.has_left, True
        return might

    async def in_doubt(self) -> set[Instance]:
        """Return the instances to ask for: none where all are sent, whatever the node has."""
        if self.has_left or self._assignment.node.repush == "all":
            return set()
        node, ledger = self._assignment.node.configured, self._assignment.services.ledger
        dispatch_id = self._assignment.dispatch_id
        in_doubt = await ledger.in_doubt(dispatch_id, node.node_id, node.identity)
        return {each for each in in_doubt if can_ask(each)}

    async def ask(
        self,
        association: Association,
        in_doubt: Sequence[Instance],
        settle: Callable[[Instance, bool], None],
        may_begin: Callable[[], bool],
    ) -> bool:
        """Ask for one after the other; ``settle`` is told of each whether the node has it.

        A question takes the node's time as an instance does. Returns False where ``may_begin`` did
        not allow one; the instances that were not asked for stay in doubt.

        Raises :class:`proxy.errors.AssociationLost`.
        """
        if not in_doubt or not is_answered(association):
            return True
        asked = found = 0
        try:
            for instance in in_doubt:
                if not may_begin():
                    break
                is_there = await find(association, instance)
                settle(instance, is_there)
                asked += 1
                found += is_there
        except AssociationLost:
            self.has_left = True
            raise
        log("delivery.asked", node_id=self._assignment.node_id, count=asked, found=found)
        return asked == len(in_doubt)


class NodeFeedback:
    """The feedback of one attempt at a node as it is configured now.

    ``accepted`` says that the node accepted the association, ``answered`` that it answered a
    message over it. A node that moves meanwhile is another one: nothing of this is counted for
    that.
    """

    def __init__(self, node: NodeAtWork) -> None:
        self.configured = node.configured
        self.accepted = self.answered = False
        self._node = node
        self._given = node.run.data.associations
        self._complained = False

    @property
    def _has_moved(self) -> bool:
        return self._node.configured.address != self.configured.address

    def blame(self, error: NodeError) -> Remedy:
        """Count an error against the node, if it is one; return what to do about it.

        An answer is none: a node that rejects or aborts is there, for orders that it takes. An
        association that is not to be had beside one that the node has accepted is a matter of
        congestion: many take one at a time, and let the next one wait without a word.
        """
        remedy = classify_error(error).remedy
        self._node.found = error.found
        if remedy is Remedy.RETRY_LATER and self._node.established and not self.accepted:
            return Remedy.FEWER_ASSOCIATIONS
        if remedy not in {Remedy.FEWER_ASSOCIATIONS, Remedy.RETRY_NOW} and not self._has_moved:
            if is_answer(error):
                self._node.run.tell(node.NodeEchoed())
            else:
                self._node.failed(error.in_full, is_probe=False)
        return remedy

    def complain(self) -> None:
        """Have the node given fewer associations at a time: it was congested."""
        self._complained = True
        fewer = policy.congested(self._node.run.data, given=self._given)
        if fewer is not None and not self._has_moved:
            self._node.run.tell(fewer)

    def end(self, stored: int) -> None:
        """Count for the node what it stored in this attempt, unless it complained."""
        if not self._complained and not self._has_moved:
            run = self._node.run
            run.tell(policy.coped(run.data, stored, threshold=ROOM_INSTANCES))


class InstanceSender:
    """Stores what one delivery sends over one association, and counts what it converted."""

    def __init__(self, services: Services, run: DeliveryRun, association: Association) -> None:
        self.association = association
        self._pacs = services.pacs
        self._reserve_bytes = services.archive_limits.reserve_bytes
        self._run = run
        self._converted = 0

    async def store(self, instance: Instance) -> StoreResult | None:
        """Send one instance; None where a stop came while it was converted, so nothing was sent.

        It is sent as it is. If the node does not take its transfer syntax, or finds that it does
        not match its SOP class, it is sent once more in a syntax that was accepted beside it. A
        data set of odd length is padded if that is due to its values.
        Raises what :func:`proxy.dicom.storage.store` does.
        """
        association = self.association
        result = await store(association, instance, self._pacs.path(instance))
        is_odd = result.failure.codes == ("odd",)
        if result.failure.remedy is not Remedy.OTHER_SYNTAX and not is_odd:
            return result
        uids = instance.sop_class_uid, instance.transfer_syntax_uid
        syntax = association.contexts.fallback(*uids)
        if is_odd and instance.transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN:
            return await self._store_converted(instance, instance.transfer_syntax_uid, result)
        return result if syntax is None else await self._store_converted(instance, syntax)

    async def _store_converted(
        self, instance: Instance, syntax: str, otherwise: StoreResult | None = None
    ) -> StoreResult | None:
        """Send a copy in ``syntax``; return ``otherwise``, or the reason, if none can be made."""
        async with AsyncExitStack() as stack:
            with self._run.only_in(DeliveryState.STORING):
                try:
                    path, converted = await stack.enter_async_context(
                        self._pacs.converted(instance, syntax, self._reserve_bytes)
                    )
                except NotConverted as error:
                    return otherwise or StoreResult(classify_local(error.code))
            if self._run.state is not DeliveryState.STORING:
                return None
            result = await store(self.association, converted, path)
            self._converted += 1
            return result

    def log(self, node_id: str) -> None:
        """Tell the log how many instances were sent converted."""
        if self._converted:
            log("delivery.converted", node_id=node_id, count=self._converted)


@dataclass(frozen=True, eq=False)
class Assignment:
    """The order, its content, and the node that the content goes to."""

    services: Services
    order: Order
    content: Content
    node: NodeAtWork

    @property
    def dispatch_id(self) -> int:
        """The ledger's id of the dispatch."""
        return self.content.dispatch_id

    @property
    def node_id(self) -> str:
        """ITH's id of the node."""
        return self.node.node_id

    # -- The ledger's counts ----------------------------------------------------------------------

    async def counts(self) -> Counts:
        """Return what the ledger counts of this delivery."""
        return await self.services.ledger.counts(self.dispatch_id, self.node_id)

    async def settle(self) -> Counts:
        """Count as stored what the node has confirmed, to whatever dispatch."""
        node = self.node.configured
        return await self.services.ledger.settle(
            self.dispatch_id, node.node_id, node.identity, resend=self.node.repush == "all"
        )

    async def voided(self, counts: Counts) -> str | None:
        """Return the reason where deletions took all there was to send before all of it was sent.

        What the node has does not make the delivery complete then.
        """
        if 0 < counts.total >= self.content.planned:
            return None
        kind = await self.services.ledger.emptied_by(self.dispatch_id, self.node_id)
        return policy.deleted(kind.value) if kind else None


def not_less(counts: Counts, known: DeliveryProgress) -> Counts:
    """Return the ledger's counts; while it was asked, the node may have answered for more."""
    return replace(
        counts,
        stored=max(counts.stored, known.files_stored),
        refused=max(counts.refused, known.files_refused),
    )
