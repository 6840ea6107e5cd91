"""The site's nodes as configured, each with its run; and what a change of one leads to.

Owned by the supervisor. What a change touches is decided by :func:`proxy.nodes.affected`.
"""

from __future__ import annotations

from functools import partial

import trio

from proxy.activities.node import NodeActivities
from proxy.logs import log
from proxy.machines import node
from proxy.machines.node import NODE, Health, NodeOutput
from proxy.nodes import Configuration, Effect, Node, affected
from proxy.runtime.runner import Run
from proxy.supervision.dispatches import Dispatches
from proxy.work.fair_queue import FairQueue
from proxy.work.runs import NodeAtWork, Site, log_fault

QUANTUM_INSTANCES = 50
"""So many a delivery may send in its turn while another of the same priority waits."""
AGING_INSTANCES = 100
"""After so many the delivery that has waited longest is served one, whatever its priority."""


class NodeManager:
    """Owns the runs of the nodes."""

    def __init__(self, site: Site, dispatches: Dispatches, nursery: trio.Nursery) -> None:
        self._site = site
        self._dispatches = dispatches
        self._nursery = nursery

    def apply(self, old: Configuration | None, new: Configuration) -> None:
        """Make the nodes at work those of the new configuration, and tell whom that affects."""
        at_work, wanted = self._site.nodes, {each.node_id: each for each in new.effective_nodes}
        nodes = affected(at_work.values(), old, new) if old else ()
        deliveries = affected(self._site.deliveries, old, new) if old else ()
        for node_id in [*at_work]:
            if node_id in wanted:
                at_work[node_id].node = wanted.pop(node_id)
            else:
                del at_work[node_id]
        for each, effect in nodes:
            self._tell(each, effect)
        for delivery, effect in deliveries:
            self._dispatches.apply(effect, delivery)
        for configured in wanted.values():
            self._add(configured)
        log(
            "nodes.applied",
            nodes_total=len(at_work),
            deliveries=len({each for each, _ in deliveries}),
        )

    def _add(self, configured: Node) -> None:
        site = self._site
        queue = FairQueue(
            site.settings.dicom.associations_per_node,
            quantum=QUANTUM_INSTANCES,
            aging=AGING_INSTANCES,
        )
        each = NodeAtWork(configured, queue)
        activities = NodeActivities(site, each)
        each.run = Run(
            NODE,
            Health(associations=queue.limit, ceiling=queue.limit),
            activities.all(),
            partial(self._on_node, each),
            on_fault=log_fault,
        )
        site.nodes[configured.node_id] = each
        if not configured.is_active:
            each.run.tell(node.DisableRequested())
        self._nursery.start_soon(each.run.run)

    def _tell(self, each: NodeAtWork, effect: Effect) -> None:
        """Do to a node's own run what a change of the configuration does to it."""
        match effect:
            case Effect.CANCEL:
                each.run.tell(node.RemoveRequested())
            case Effect.HOLD:
                each.run.tell(node.DisableRequested())
            case Effect.RESUME:
                each.run.tell(node.EnableRequested())
            case Effect.RESTART:
                each.asking.cancel(effect.value)
                each.run.tell(node.ChangeRequested())

    def _on_node(self, each: NodeAtWork, output: NodeOutput) -> None:
        match output:
            case node.OpenGate():
                log("node.admitted", node_id=each.node_id)
                self._dispatches.wake_node(each.node_id)
            case node.CloseGate(error):
                log("node.given_up", level="warning", node_id=each.node_id, problem=error)
            case node.LimitAssociations(associations):
                log("node.associations", node_id=each.node_id, associations=associations)
                each.queue.limit = associations
