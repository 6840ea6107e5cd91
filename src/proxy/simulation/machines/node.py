"""A node: its run, its C-ECHO, its fair queue; as ``proxy.activities.node`` and its feedback."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from proxy.fsm import ActivityFailed, Event
from proxy.machines import node
from proxy.machines.delivery import DeliveryState
from proxy.machines.failures import Remedy
from proxy.machines.node import Health, NodeOutput, NodeState
from proxy.nodes import Effect
from proxy.simulation.machines.queue import Queue
from proxy.simulation.machines.tasks import (
    ANSWER,
    CUT,
    OPENING,
    Broken,
    ModelRun,
    Steps,
    Unforeseen,
)

if TYPE_CHECKING:
    from proxy.simulation.machines.delivery import ModelDelivery
    from proxy.simulation.machines.site import Site

UNANSWERED, FAULTY = 1, 5
"""Answers to a C-ECHO: there is none; the activity has a defect. Any other one is an answer."""

INTERVAL_S, LONGEST_S = 30.0, 300.0


class ModelNode(ModelRun[NodeState, Health, NodeOutput]):
    """One configured node at work; another ``address`` is another node."""

    __slots__ = (
        "_has_opened",
        "address",
        "backlog",
        "established",
        "leaders",
        "node_id",
        "queue",
        "site",
        "trials",
        "wired",
    )

    def __init__(self, site: Site, node_id: str, address: int, *, is_active: bool) -> None:
        rules = site.rules
        ceiling = rules.limits.associations
        super().__init__(site.clock, rules.node, Health(associations=ceiling, ceiling=ceiling))
        self.site = site
        self.node_id = node_id
        self.address = address
        self.queue = Queue(
            rules.scheduler(ceiling, quantum=rules.limits.quantum, aging=rules.limits.aging)
        )
        self.leaders: dict[int, ModelDelivery] = {}
        self.wired: dict[int, ModelDelivery] = {}
        self.backlog: Counter[int] = Counter()
        self.established = 0
        self.trials = 0
        self._has_opened = False
        if not is_active:
            self.tell(node.DisableRequested())

    @property
    def name(self) -> str:
        """What it is called."""
        return f"node {self.node_id}"

    def count_failure(self, error: str, *, is_probe: bool) -> None:
        """Count one more failure."""
        self.tell(
            self.site.rules.node_failed(
                self.data,
                error,
                is_open=self.place.group == "GIVEN_UP",
                is_probe=is_probe,
                threshold=self.site.rules.limits.breaker,
                interval=INTERVAL_S,
                cap=LONGEST_S,
                uniform=0.5,
            )
        )

    def may_be_tried(self) -> bool:
        """Whether a delivery may try it."""
        return self.site.rules.may_try(self.state, self.data)

    def apply(self, effect: Effect) -> None:
        """Do to the node what a change of the configuration does to it."""
        match effect:
            case Effect.CANCEL:
                self.tell(node.RemoveRequested())
            case Effect.HOLD:
                self.tell(node.DisableRequested())
            case Effect.RESUME:
                self.tell(node.EnableRequested())
            case Effect.RESTART:
                self.cut()
                self.tell(node.ChangeRequested())

    # -- Activities -------------------------------------------------------------------------------

    def _probe(self) -> Steps[None]:
        while not (yield from self._ask()):
            pass

    def _probe_regularly(self) -> Steps[None]:
        while True:
            yield ANSWER  # the interval is over
            if not self.queue.in_use:
                yield from self._ask()

    def _ask(self) -> Steps[bool]:
        answer = yield OPENING
        if answer == CUT:
            return False
        if answer == FAULTY:
            raise Unforeseen("planned")
        if answer != UNANSWERED:
            self.tell(node.NodeEchoed())
        elif self.queue.in_use:
            yield OPENING  # a delivery that talks to the node will tell
            return False
        else:
            self.count_failure("no answer", is_probe=True)
        return True

    # -- Outputs and invariants -------------------------------------------------------------------

    def emit(self, output: NodeOutput) -> None:
        """Let deliveries go, or limit the associations."""
        match output:
            case node.OpenGate():
                for each in self.site.deliveries():
                    if each.node.node_id == self.node_id:
                        each.wake_up()
            case node.LimitAssociations(associations):
                self.queue.limit = associations
            case node.CloseGate():
                pass

    def check(self, before: NodeState, event: Event) -> None:
        """A breaker opens in time, is tried once between two probes, and wakes who waited."""
        group = self.place.group
        if group == "OPEN" and self.data.failures >= self.site.rules.limits.breaker:
            raise Broken(f"{self.name}: {self.data.failures} failures in a row, and still open")
        if not 1 <= self.data.associations <= self.data.ceiling:
            raise Broken(f"{self.name}: {self.data.associations} associations")
        is_given_up = group == "GIVEN_UP"
        if is_given_up and isinstance(event, node.TrialBegun):
            self.trials += 1
            if self.trials > 1:
                raise Broken(f"{self.name}: tried twice between two probes")
        elif not is_given_up or isinstance(event, ActivityFailed) or _is_failed_probe(event):
            self.trials = 0
        if before is not self.state is NodeState.ONLINE:
            self._has_opened |= before is not NodeState.SUSPECT

    def look(self) -> None:
        """Who waited for a node that is back goes; the queue has as many places as allowed."""
        if self._has_opened:
            self._has_opened = False
            for each in self.site.deliveries():
                is_waiting = each.state is DeliveryState.BACKING_OFF and each.data.away
                if is_waiting and each.node is self:
                    raise Broken(f"{each.name}: waits for a node that is back")
        if self.queue.limit != self.data.associations:
            raise Broken(f"{self.name}: {self.queue.limit} places in the queue")

    activities: ClassVar = {
        "probe_first": _probe,
        "probe_regularly": _probe_regularly,
        "probe_once": _probe,
    }


def _is_failed_probe(event: Event) -> bool:
    return isinstance(event, node.BreakerTripped) and event.by_probe


class Feedback:
    """What one attempt says of its node, as ``proxy.activities.delivery.feedback``."""

    __slots__ = ("_address", "_complained", "_given", "_node", "accepted")

    def __init__(self, node: ModelNode) -> None:
        self.accepted = False
        self._node = node
        self._address = node.address
        self._given = node.data.associations
        self._complained = False

    @property
    def _has_moved(self) -> bool:
        return self._node.address != self._address

    @property
    def address(self) -> int:
        """Where the attempt is made."""
        return self._address

    def blame(self, remedy: Remedy) -> Remedy:
        """Count an error against the node, if it is one; return what to do about it."""
        if remedy is Remedy.RETRY_LATER and self._node.established and not self.accepted:
            return Remedy.FEWER_ASSOCIATIONS
        if remedy not in {Remedy.FEWER_ASSOCIATIONS, Remedy.RETRY_NOW} and not self._has_moved:
            self._node.count_failure(remedy.name, is_probe=False)
        return remedy

    def complain(self) -> None:
        """Have the node given fewer associations at a time."""
        self._complained = True
        fewer = self._node.site.rules.congested(self._node.data, given=self._given)
        if fewer is not None and not self._has_moved:
            self._node.tell(fewer)

    def end(self, stored: int) -> None:
        """Count what the node stored, unless it complained."""
        if not self._complained and not self._has_moved:
            rules = self._node.site.rules
            self._node.tell(rules.coped(self._node.data, stored, threshold=rules.limits.room))
