"""The node manager: keeps the nodes at work equal to the configuration.

What a change touches is decided by :func:`proxy.nodes.affected`.
"""

from __future__ import annotations

import trio

from proxy.activities.node import NodeAtWork
from proxy.logs import log
from proxy.nodes import Configuration, affected
from proxy.supervision.dispatches import Dispatches
from proxy.supervision.registry import Registry
from proxy.work.services import Services


class NodeManager:
    """Adds, changes and removes nodes at work, and tells the deliveries that a change affects."""

    def __init__(
        self, services: Services, registry: Registry, dispatches: Dispatches, nursery: trio.Nursery
    ) -> None:
        self._services = services
        self._registry = registry
        self._dispatches = dispatches
        self._nursery = nursery

    def apply(self, old: Configuration | None, new: Configuration) -> None:
        """Make the nodes at work those of the new configuration."""
        at_work = self._registry.nodes
        wanted = {each.node_id: each for each in new.effective_nodes}
        nodes = affected(at_work.values(), old, new) if old else ()
        deliveries = affected(self._registry.dispatches.deliveries, old, new) if old else ()
        for node_id in [*at_work]:
            if node_id in wanted:
                at_work[node_id].configured = wanted.pop(node_id)
            else:
                del at_work[node_id]
        for node, effect in nodes:
            node.apply(effect)
        for delivery, effect in deliveries:
            delivery.apply(effect)
        for configured in wanted.values():
            added = NodeAtWork(self._services, configured, on_open=self._dispatches.wake_node)
            at_work[configured.node_id] = added
            self._nursery.start_soon(added.run.run)
        log(
            "nodes.applied",
            nodes_total=len(at_work),
            deliveries=len({each for each, _ in deliveries}),
        )
