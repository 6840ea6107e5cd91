"""A delivery: its run, its turn, its attempts; as ``proxy.activities.delivery``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from msgspec.structs import replace

from proxy.fsm import ActivityFailed, Event
from proxy.machines import delivery, node, policy
from proxy.machines.delivery import (
    DeliveryOutput,
    DeliveryProgress,
    DeliveryState,
    Outcome,
    Purpose,
)
from proxy.machines.failures import Remedy
from proxy.machines.policy import Ending
from proxy.nodes import Effect
from proxy.simulation.machines.ledger import ModelRow
from proxy.simulation.machines.node import Feedback, ModelNode
from proxy.simulation.machines.tasks import (
    ANSWER,
    CUT,
    OPENING,
    SOON,
    Broken,
    ModelRun,
    Signal,
    Steps,
    Unforeseen,
)
from proxy.work.scheduler import Job

if TYPE_CHECKING:
    from proxy.simulation.machines.dispatch import ModelDispatch

GRACE_S = 3.0
RETRY_S, LONGEST_S = 5.0, 300.0

WITHOUT_FIND = 7
"""An answer to a request for an association: it is accepted, but not for C-FIND."""
REFUSALS = {
    1: (Remedy.RETRY_LATER, True),
    2: (Remedy.FEWER_ASSOCIATIONS, False),
    3: (Remedy.NEVER, False),
    4: (Remedy.RETRY_NOW, False),
    6: (Remedy.RETRY_LATER, False),
}
"""Answers to a request for an association that refuse it: the remedy, whether the node is away."""
FAULTY = 5
"""An answer to it that the activity did not foresee."""

STORED, REFUSED, LATER, BUSY, ASK_NODE, LOST_STORED, LOST, GONE = range(8)
"""Answers to a C-STORE: success; refused; later; no resources; unknown; none, for the
association was lost and the node has it, or has it not; it was not sent, for it is not on the disk
as it came."""


COUNTED = {
    delivery.AttemptFailed,
    delivery.InstanceStored,
    delivery.InstanceFound,
    delivery.NodeMoved,
    delivery.CancelRequested,
}
ASKED = {
    delivery.TurnGranted,
    delivery.CancelRequested,
    delivery.HoldRequested,
    delivery.RestartRequested,
    delivery.ResumeRequested,
}
"""The events that the invariants count, and those that ask for a stop, or for none."""


class ModelBackOff(NamedTuple):
    """The back-off into which a restart came."""

    attempts: int
    due: float
    error: str
    away: bool


class ModelAttempt:
    """What one attempt knows. ``unsent`` are the instances left to send, once they are read."""

    __slots__ = ("_delivery", "_has_begun", "feedback", "is_outdated", "is_read", "never", "unsent")

    def __init__(self, delivery: ModelDelivery) -> None:
        self.unsent = 0
        self.is_read = False
        self.is_outdated = False
        self.feedback = Feedback(delivery.node)
        self.never = False
        self._has_begun = False
        self._delivery = delivery

    def may_begin(self) -> bool:
        """Whether another question or instance may be sent; the turn was for the first."""
        if not self._has_begun:
            self._has_begun = True
            return True
        grant = self._delivery.grant
        return grant is not None and self._delivery.node.queue.scheduler.may_continue(grant)


class ModelDelivery(ModelRun[DeliveryState, DeliveryProgress, DeliveryOutput]):
    """One delivery. ``row`` is what the ledger has of it, once the order is recorded."""

    __slots__ = (
        "_cancel_reason",
        "_has_left",
        "_is_wired",
        "_rank",
        "_stored",
        "_uncounted",
        "_wanted",
        "advanced",
        "advances",
        "attempt",
        "back_off",
        "dispatch",
        "grant",
        "is_cancelled",
        "node",
        "outcome",
        "row",
        "site",
    )

    def __init__(
        self,
        dispatch: ModelDispatch,
        node: ModelNode,
        so_far: DeliveryProgress,
        row: ModelRow | None,
    ) -> None:
        site = dispatch.site
        super().__init__(dispatch.clock, site.rules.delivery, replace(so_far, grace=GRACE_S))
        self.dispatch = dispatch
        self.site = site
        self.node: ModelNode = node
        self.row = row or ModelRow(dispatch.order.key.entity)
        self.advanced = Signal()
        self.grant: Job | None = None
        self.attempt: ModelAttempt | None = None
        self.back_off: ModelBackOff | None = None
        if row is not None and row.due is not None:
            due = min(row.due, self.clock.now + LONGEST_S)
            self.back_off = ModelBackOff(row.attempts, due, row.error, row.away)
        self.outcome: Outcome | None = None
        self.is_cancelled = False
        self._rank = dispatch.order.rank
        self._cancel_reason: str | None = None
        self._has_left = False
        self.advances = 0
        self._wanted: Purpose | None = None
        self._is_wired = False
        self._stored = 0
        self._uncounted = 0
        reason = self.held_because()
        if reason is not None:
            self.hold(reason)

    @property
    def name(self) -> str:
        """What it is called."""
        return f"delivery {self.dispatch.order.key.correlation} to {self.node.node_id}"

    # -- Requests ---------------------------------------------------------------------------------

    def held_because(self) -> str | None:
        """Why it is to be held, if so."""
        if not self.site.operation.is_active:
            return "paused"
        return Effect.HOLD.value if self.node.state is node.DISABLED else None

    def hold(self, reason: str) -> None:
        """Send nothing until the hold ends."""
        self.tell(delivery.HoldRequested(reason))

    def resume_work(self) -> None:
        """Go on where nothing else holds the delivery."""
        if self.held_because() is None:
            event = self.site.rules.resume(self.state, self.data)
            if event is not None:
                self.tell(event)

    def cancel(self, reason: str) -> None:
        """End before the node has every instance; while the order is recorded, once it is."""
        if self.dispatch.content.is_recorded:
            self.tell(delivery.CancelRequested(reason))
        else:
            self._cancel_reason = reason

    def recorded(self) -> None:
        """Take notice that the order is in the ledger."""
        if self._cancel_reason is not None:
            self.tell(delivery.CancelRequested(self._cancel_reason))

    def give_up(self, error: str) -> None:
        """End because the content cannot be had."""
        self.tell(delivery.GiveUpRequested(error))

    def apply(self, effect: Effect) -> None:
        """Do to the delivery what a change of its node does to it."""
        match effect:
            case Effect.CANCEL:
                self.cancel(effect.value)
            case Effect.HOLD:
                self.hold(effect.value)
            case Effect.RESUME:
                self.resume_work()
            case Effect.RESTART:
                self.back_off = None
                self.tell(delivery.NodeMoved())
                self.tell(delivery.RestartRequested(effect.value))

    def wake_up(self) -> None:
        """End a back-off from a node that was away."""
        if self.back_off and self.back_off.away:
            self.back_off = self.back_off._replace(due=self.clock.now)
        if self.state is DeliveryState.BACKING_OFF and self.data.away:
            self.tell(delivery.RestartRequested("the node answers again"))

    def promote(self, rank: int) -> None:
        """Send as urgently as one that follows."""
        if rank < self._rank:
            self._rank = rank
            self.node.queue.promote(self.dispatch.id, rank)

    def outdate(self) -> None:
        """Read what is left again: something was deleted."""
        if self.attempt is not None:
            self.attempt.is_outdated = True

    def recount(self) -> Steps[None]:
        """Count what a deletion left; end where nothing is left."""
        row = self.row
        counts = row.counts()
        yield SOON
        known = self.data
        counts = counts._replace(
            stored=max(counts.stored, known.files_stored),
            refused=max(counts.refused, known.files_refused),
        )
        self.tell(self.dispatch.content.counted(counts))
        voided = yield from self._voided(counts.total)
        if voided is not None:
            self.cancel(voided)

    def planned(self) -> Steps[int]:
        """Count what the node has of the planned content; return the number of instances."""
        counts = self.site.ledger.settle(self.row, self.node.address)
        yield SOON
        self.tell(self.dispatch.content.counted(counts))
        return counts.total

    def release(self) -> None:
        """Give the grant back, if there is one."""
        if self.grant is not None:
            grant, self.grant = self.grant, None
            self.node.queue.leave(grant)

    def _voided(self, total: int) -> Steps[str | None]:
        if 0 < total >= self.dispatch.content.planned:
            return None
        record = self.dispatch.record
        is_empty = record is not None and self.site.ledger.emptied(record, self.row)
        yield SOON
        return policy.deleted("session") if is_empty else None

    # -- Activities -------------------------------------------------------------------------------

    def _wait_for_turn(self) -> Steps[None]:
        if self.back_off is not None:
            attempts, due, error, away = self.back_off
            wait = max(due - self.clock.now, 0.0)
            self.tell(delivery.BackOffKept(attempts, wait, error, away))
            if self.state is DeliveryState.BACKING_OFF:
                self.back_off = None
            return
        content, to, row = self.dispatch.content, self.node, self.row
        if not content.ready.is_set:
            self._step_down()
        yield content.ready
        if content.given_up is not None:
            self.give_up(content.given_up)
            return
        yield from self._follow()
        counts = self.site.ledger.settle(row, to.address)
        yield SOON
        self.tell(content.counted(counts))
        if counts.stored + counts.refused >= counts.total:
            self.tell(delivery.TurnGranted())
            return
        if to.may_be_tried():
            number = self.dispatch.id
            self.grant = yield from to.queue.acquire(self._rank, number, number)
        if not to.may_be_tried():
            self.release()
            self.tell(self._after_failure(Remedy.RETRY_LATER, away=True))
            return
        self.tell(delivery.TurnGranted())
        if self.state is not DeliveryState.STORING:
            self.release()
        elif to.state not in node.OPEN:
            to.tell(node.TrialBegun())

    def _follow(self) -> Steps[None]:
        leaders = self.node.leaders
        entity = self.dispatch.order.key.entity
        while not self.over and (leader := leaders.setdefault(entity, self)) is not self:
            leader.promote(self._rank)
            seen = leader.advances
            counts = self.site.ledger.settle(self.row, self.node.address)
            yield SOON
            ready = self.dispatch.content.counted(counts)
            self.tell(delivery.Followed(ready.files_total, ready.files_stored, ready.files_refused))
            if leader.advances == seen:
                yield leader.advanced

    def _step_down(self) -> None:
        leaders, entity = self.node.leaders, self.dispatch.order.key.entity
        if leaders.get(entity) is self:
            del leaders[entity]
            self._tell_followers()

    def _tell_followers(self) -> None:
        self.advances += 1
        if self.advanced.waiters:
            self.advanced.fire()

    def _store_instances(self) -> Steps[None]:
        attempt = self.attempt = ModelAttempt(self)
        before = self.data.files_stored
        try:
            ending = yield from self._send_all(attempt)
        finally:
            attempt.feedback.end(self.data.files_stored - before)
            self.release()
        self.tell(self.site.rules.last_word(self.data, ending))

    def _settle(self) -> Steps[None]:
        yield ANSWER  # the association is cut, which may take its time
        attempt = self.attempt
        if attempt is not None and attempt.is_read and not attempt.unsent:
            ending = yield from self._settled()
        else:
            ending = self.site.rules.stopped(self.data)
        self.tell(ending)

    def _send_all(self, attempt: ModelAttempt) -> Steps[Ending]:
        row = self.row
        to_send = row.unanswered()
        yield SOON
        attempt.unsent, attempt.is_read = to_send, True
        in_doubt = 0 if self._has_left else row.in_doubt
        yield SOON
        if to_send:
            ending = yield from self._send(attempt, to_send, in_doubt & to_send)
            yield SOON  # the association is closed
            if ending is not None:
                return ending
        return (yield from self._settled())

    def _settled(self) -> Steps[Ending]:
        counts = self.row.counts()
        yield SOON
        self.tell(self.dispatch.content.counted(counts))
        voided = yield from self._voided(counts.total)
        if voided is not None:
            return delivery.SomeRefused(voided)
        return self.site.rules.settled(self.data)

    def _send(self, attempt: ModelAttempt, part: int, in_doubt: int) -> Steps[Ending | None]:
        """Do what one association is for; None if all of it is answered for."""
        answer = CUT if self._is_stopped() else (yield OPENING)
        if answer == CUT:
            return self.site.rules.stopped(self.data)
        if answer == FAULTY:
            raise Unforeseen("planned")
        if answer in REFUSALS:
            remedy, away = REFUSALS[answer]
            return self._after_error(attempt, remedy, away=away)
        attempt.feedback.accepted = True
        self.node.established += 1
        try:
            self.node.tell(node.NodeAnswered())
            ending = None
            if in_doubt and answer != WITHOUT_FIND:
                ending = yield from self._ask(attempt, in_doubt)
            return ending or (yield from self._send_each(attempt, part))
        finally:
            self.node.established -= 1

    def _ask(self, attempt: ModelAttempt, in_doubt: int) -> Steps[Ending | None]:
        """Ask for the instances in doubt."""
        for bit in _bits(in_doubt):
            if not attempt.may_begin():
                return delivery.TurnYielded()
            answer = CUT if self._is_stopped() else (yield OPENING)
            if answer == CUT:
                return self.site.rules.stopped(self.data)
            if answer == LOST:
                self._has_left = True
                return self._after_error(attempt, Remedy.RETRY_LATER, away=False)
            is_there = self.site.has(self.node.address, self.row.entity, bit)
            self.row.note(bit, stored=is_there, sent=False)
            if is_there:
                self._count_deleted(bit)
                self.tell(delivery.InstanceFound())
                attempt.unsent &= ~bit
        return None

    def _send_each(self, attempt: ModelAttempt, part: int) -> Steps[Ending | None]:
        """Send the instances one by one."""
        for bit in _bits(part):
            if attempt.is_outdated:
                yield from self._read_again(attempt)
            if self._is_stopped():
                return self.site.rules.stopped(self.data)
            if not attempt.unsent & bit:
                continue
            if not attempt.may_begin():
                return delivery.TurnYielded()
            self._may_send(bit)
            self.row.note(bit, sent=True)
            try:
                answer = yield ANSWER
            except GeneratorExit:  # it was sent, and the answer is not waited for
                self.site.store(attempt.feedback.address, self.row.entity, bit)
                raise
            if answer == GONE:
                ending = yield from self._unusable(attempt, bit)
            else:
                ending = self._answered(attempt, bit, answer)
            if ending is not None:
                return ending
            attempt.unsent &= ~bit
        return None

    def _is_stopped(self) -> bool:
        return self.state is not DeliveryState.STORING

    def _read_again(self, attempt: ModelAttempt) -> Steps[None]:
        if attempt.unsent:
            attempt.is_outdated = False
            left = self.row.unanswered()
            yield SOON
            attempt.unsent &= left

    def _answered(self, attempt: ModelAttempt, bit: int, answer: int) -> Ending | None:
        site, row, address = self.site, self.row, attempt.feedback.address
        if answer in {STORED, ASK_NODE, LOST_STORED}:
            site.store(address, row.entity, bit)
        if answer == STORED:
            row.note(bit, stored=True, sent=True)
            site.ledger.confirm(row, address, bit)
            self._count_deleted(bit)
            self.tell(delivery.InstanceStored())
        elif answer == REFUSED:
            row.note(bit, refused=True, sent=True)
            self.tell(delivery.InstanceRefused("refused"))
        elif answer == ASK_NODE:
            return self._failed(attempt, Remedy.RETRY_LATER)
        elif answer == LOST_STORED:
            return self._after_error(attempt, Remedy.RETRY_LATER, away=False)
        else:
            row.note(bit, sent=False)
            if answer == LOST:
                return self._after_error(attempt, Remedy.RETRY_LATER, away=True)
            is_busy = answer == BUSY
            return self._failed(
                attempt, Remedy.FEWER_ASSOCIATIONS if is_busy else Remedy.RETRY_LATER
            )
        return None

    def _count_deleted(self, bit: int) -> None:
        """Count an instance that was deleted while it was sent: the ledger does not count it."""
        if not bit & self.row.planned:
            self._uncounted += 1

    def _unusable(self, attempt: ModelAttempt, bit: int) -> Steps[Ending | None]:
        self.site.ledger.held.pop(self.row.entity, None)
        yield SOON
        yield from self._read_again(attempt)
        if not attempt.unsent & bit:
            return None
        if self.dispatch.refetch("lost"):
            return delivery.ContentLost()
        self.row.note(bit, refused=True, sent=False)
        self.tell(delivery.InstanceRefused("lost"))
        return None

    def _after_error(self, attempt: ModelAttempt, remedy: Remedy, *, away: bool) -> Ending:
        remedy = attempt.feedback.blame(remedy)
        failed = self._failed(attempt, remedy, away=away)
        is_crowded = remedy is Remedy.FEWER_ASSOCIATIONS and self.node.queue.in_use > 1
        return delivery.NodeCrowded() if is_crowded else failed

    def _failed(self, attempt: ModelAttempt, remedy: Remedy, *, away: bool = False) -> Ending:
        if remedy is Remedy.FEWER_ASSOCIATIONS:
            attempt.feedback.complain()
        attempt.never |= remedy is Remedy.NEVER
        return self._after_failure(remedy, away=away)

    def _after_failure(self, remedy: Remedy, *, away: bool) -> Ending:
        rules = self.site.rules
        if self.data.stop is not None:
            return rules.stopped(self.data)
        return rules.after_attempt(
            self.data,
            "failed",
            remedy,
            retry_count=rules.limits.retries,
            retry_delay=RETRY_S,
            retry_max=LONGEST_S,
            uniform=0.5,
            away=away,
        )

    # -- Outputs ----------------------------------------------------------------------------------

    def emit(self, output: DeliveryOutput) -> None:
        """Keep the attempts, or tell the dispatch that it is over."""
        self.advances += 1
        if self.advanced.waiters:
            self.advanced.fire()
        if isinstance(output, delivery.ReportProgress):
            return
        if isinstance(output, delivery.SaveAttempt):
            self._save(output.progress)
        else:
            self._step_down()
            self._close(output.outcome)
            self.dispatch.delivery_over(self, output.outcome, output.progress)

    def _save(self, progress: DeliveryProgress) -> None:
        row = self.row
        if row.outcome is None:
            row.attempts = progress.attempts
            row.due = self.clock.now + progress.retry_in if progress.attempts else None
            row.error, row.away = progress.error or "", progress.away

    # -- Invariants -------------------------------------------------------------------------------

    def _may_send(self, bit: int) -> None:
        """No C-STORE begins that must not."""
        if not self.site.operation.is_active or self.node.state is node.DISABLED:
            raise Broken(f"{self.name}: begins to store while {self.held_because()}")
        if self.is_cancelled:
            raise Broken(f"{self.name}: begins to store after it was cancelled")
        if self.row.stored & bit:
            raise Broken(f"{self.name}: stores again what the node has answered for")
        other = self.node.wired.setdefault(self.row.entity, self)
        if other is not self:
            raise Broken(f"{self.name}: stores at the same time as {other.name}")

    def _close(self, outcome: Outcome) -> None:
        """An outcome is told once, and is true."""
        if self.outcome is not None:
            raise Broken(f"{self.name}: told {self.outcome.name}, then {outcome.name}")
        self.outcome = outcome
        row = self.row
        stored = self.data.files_stored - self._uncounted
        if stored > row.counts().stored:
            raise Broken(f"{self.name}: tells {stored} stored of {row.counts().stored}")
        if outcome is not Outcome.COMPLETED:
            return
        progress = self.data
        if not 0 < progress.files_total == progress.files_stored:
            stored, total = progress.files_stored, progress.files_total
            raise Broken(f"{self.name}: completed with {stored} of {total}")
        if row.planned & ~row.stored or row.planned & ~self.site.everywhere(self.node.node_id, row):
            raise Broken(f"{self.name}: completed, and the node has not everything")

    def check(self, before: DeliveryState, event: Event) -> None:
        """Counts do not fall, attempts are limited, the strongest stop wins, an end has a cause."""
        after = self.state
        if type(event) in COUNTED:
            self._count(event)
        if self.data.files_stored < self._stored - self._uncounted:
            raise Broken(f"{self.name}: {self._stored} stored, then {self.data.files_stored}")
        self._stored = self.data.files_stored
        if self.place.group == "WIRED":
            self._is_wired = True
            self._ask_for_stop(event)
        elif self._is_wired:
            self._is_wired = False
            if self.node.wired.get(self.row.entity) is self:
                del self.node.wired[self.row.entity]
            self._leave_wire(after, event)
        if self.over:
            self._end(after, event)

    def _count(self, event: Event) -> None:
        after, row = self.state, self.row
        match event:
            case delivery.AttemptFailed() if after is DeliveryState.BACKING_OFF:
                row.failures += 1
                if row.failures > self.site.rules.limits.retries:
                    raise Broken(f"{self.name}: another attempt after {row.failures} failed")
            case delivery.InstanceStored() | delivery.InstanceFound() | delivery.NodeMoved():
                row.failures = 0
            case delivery.CancelRequested():
                self.is_cancelled = True
            case _:
                pass

    def _ask_for_stop(self, event: Event) -> None:
        if type(event) not in ASKED:
            return
        match event:
            case delivery.TurnGranted():
                self._wanted = None
            case delivery.CancelRequested():
                self._wanted = Purpose.CANCEL
            case delivery.HoldRequested() if self._wanted is not Purpose.CANCEL:
                self._wanted = Purpose.HOLD
            case delivery.RestartRequested() if self._wanted is None:
                self._wanted = Purpose.RESTART
            case delivery.ResumeRequested() if self._wanted is Purpose.HOLD:
                self._wanted = Purpose.RESTART
            case _:
                pass

    def _leave_wire(self, after: DeliveryState, event: Event) -> None:
        if self._wanted is None or isinstance(
            event, delivery.AllStored | delivery.SomeRefused | ActivityFailed
        ):
            return
        leads_to = {
            Purpose.RESTART: DeliveryState.WAITING,
            Purpose.HOLD: DeliveryState.HELD,
            Purpose.CANCEL: DeliveryState.CANCELLED,
        }
        if after is not leads_to[self._wanted]:
            raise Broken(f"{self.name}: to {self._wanted.name}, and now {after.name}")

    def _end(self, after: DeliveryState, event: Event) -> None:
        """Hold that it ended for a reason."""
        row = self.row
        match event:
            case delivery.AttemptsExhausted():
                never = self.attempt is not None and self.attempt.never
                if not never and row.failures < self.site.rules.limits.retries:
                    raise Broken(f"{self.name}: given up after {row.failures} failed attempts")
            case delivery.SomeRefused():
                lacks = row.planned & ~row.stored or row.folded.refused or not row.planned
                if not lacks and not self.dispatch.content.undeliverable:
                    raise Broken(f"{self.name}: failed, and the node has everything")
            case _:
                pass
        if after is DeliveryState.CANCELLED and not self.is_cancelled:
            raise Broken(f"{self.name}: cancelled, and nobody asked for it")

    def look(self) -> None:
        """It is held where something holds it, and nowhere else."""
        if self.over or not self.is_running:
            return
        reason = self.held_because()
        if self.state in delivery.ENDING:
            is_held = self.data.stop is Purpose.HOLD
            if is_held and reason is None:
                raise Broken(f"{self.name}: stops to be held, and nothing holds it")
        elif (self.state is DeliveryState.HELD) != (reason is not None):
            raise Broken(f"{self.name}: is {self.state.name}, held because of {reason}")

    activities: ClassVar = {
        "wait_for_turn": _wait_for_turn,
        "store_instances": _store_instances,
        "settle": _settle,
    }


def _bits(number: int) -> list[int]:
    """The bits of a number, lowest first."""
    found = []
    while number:
        bit = number & -number
        found.append(bit)
        number ^= bit
    return found
