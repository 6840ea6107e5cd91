"""The site's nodes as configured, each with its run; and what a change of one leads to.

Owned by the supervisor. A change touches the deliveries to that node and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio

from proxy.activities.node import NodeActivities
from proxy.dispatches import REMOVED, Dispatches
from proxy.logs import log
from proxy.machines import node
from proxy.machines.node import NODE, Health, NodeOutput
from proxy.nodes import Node, diff
from proxy.runner import Run
from proxy.slots import Slots
from proxy.work import NodeAtWork, Site, log_fault

TURN_INSTANCES = 50
"""So many a delivery may send in its turn while another of the same priority waits."""
PATIENT_INSTANCES = 100
"""After so many the delivery that has waited longest is served one, whatever its priority."""


class Roster:
    """Owns the runs of the nodes."""

    def __init__(self, site: Site, dispatches: Dispatches, nursery: trio.Nursery) -> None:
        self._site = site
        self._dispatches = dispatches
        self._nursery = nursery

    def apply(self, wanted: Sequence[Node]) -> None:
        """Make the nodes at work those that are wanted."""
        at_work = self._site.nodes
        change = diff([each.node for each in at_work.values()], wanted)
        for configured in change.removed:
            self._remove(at_work.pop(configured.node_id))
        for configured in change.added:
            self._add(configured)
        for configured in wanted:
            at_work[configured.node_id].node = configured
        for configured in change.moved:
            at_work[configured.node_id].asking.cancel("the node's address changed")
            at_work[configured.node_id].run.tell(node.ChangeRequested())
            self._dispatches.restart_node(configured.node_id, "the node's address changed")
        for configured in change.deactivated:
            at_work[configured.node_id].run.tell(node.DisableRequested())
        for configured in change.activated:
            at_work[configured.node_id].run.tell(node.EnableRequested())
        log("nodes.applied", nodes_total=len(at_work))

    def _add(self, configured: Node) -> None:
        site = self._site
        slots = Slots(
            site.settings.dicom.associations_per_node,
            quantum=TURN_INSTANCES,
            patience=PATIENT_INSTANCES,
        )
        each = NodeAtWork(configured, slots)
        activities = NodeActivities(site, each)
        each.run = Run(
            NODE, Health(), activities.all(), partial(self._on_node, each), on_fault=log_fault
        )
        site.nodes[configured.node_id] = each
        if not configured.is_active:
            each.run.tell(node.DisableRequested())
        self._nursery.start_soon(each.run.run)

    def _remove(self, each: NodeAtWork) -> None:
        self._dispatches.cancel_node(each.id, REMOVED)
        each.run.tell(node.RemoveRequested())

    def _on_node(self, each: NodeAtWork, output: NodeOutput) -> None:
        match output:
            case node.GateOpened():
                log("node.admitted", node_id=each.id)
                self._dispatches.wake_node(each.id)
            case node.GateClosed(error):
                log("node.given_up", level="warning", node_id=each.id, problem=error)
            case node.HoldDeliveries():
                self._dispatches.hold_node(each.id, "the node is set inactive")
            case node.ResumeDeliveries():
                self._dispatches.resume_node(each.id)
