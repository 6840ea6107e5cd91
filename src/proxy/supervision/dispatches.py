"""The dispatches: started, recovered, woken, cancelled and counted again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import trio

from proxy.activities.dispatch import Dispatch
from proxy.ledger import Unfinished
from proxy.logs import log
from proxy.model import Entity, Order
from proxy.reporting.reports import Reports
from proxy.supervision.registry import Registry
from proxy.work.services import Services


class Dispatches:
    """Starts dispatches, and passes on to deliveries what concerns several of them."""

    def __init__(
        self, services: Services, registry: Registry, reports: Reports, nursery: trio.Nursery
    ) -> None:
        self._registry = registry
        self._reports = reports
        self._nursery = nursery
        self._make = partial(
            Dispatch,
            services=services,
            reports=reports,
            operation=registry.operation.run,
            registry=registry.dispatches,
            downloads=registry.downloads,
            nodes=registry.nodes,
        )

    def start(self, order: Order) -> None:
        """Begin a dispatch; the same order again, while it runs, is the same dispatch."""
        group = self._registry.dispatches.group(order)
        if group.serves(order):
            log("dispatch.known", correlation_id=order.correlation_id)
            self._reports.again(order, group.endings, is_over=group.is_over)
            return
        self._nursery.start_soon(self._make(order, group).work)

    def recover(self, unfinished: Unfinished) -> None:
        """Go on with what the ledger says was not over when the program ended."""
        group = self._registry.dispatches.group(unfinished.order)
        dispatch = self._make(unfinished.order, group, unfinished=unfinished)
        self._nursery.start_soon(dispatch.work)

    def wake_node(self, node_id: str) -> None:
        """End the back-off of the deliveries that wait for a node to be back."""
        for each in self._registry.dispatches.deliveries:
            if each.node_id == node_id:
                each.wake()

    def cancel_entity(self, matches: Callable[[Entity], bool], reason: str) -> None:
        """Cancel every delivery of the entities that match."""
        for each in self._registry.dispatches.deliveries:
            if matches(each.order.entity):
                each.cancel(reason)

    def outdate(self) -> None:
        """Have every delivery read its unsent instances again: ITH deleted something."""
        for each in self._registry.dispatches.deliveries:
            each.outdate()

    async def recount(self, touched: Collection[tuple[int, str]] | None = None) -> None:
        """Have deliveries count the instances that a deletion left; one with none left ends.

        ``touched`` are those that it took something of, by dispatch and node id; None for all.
        """
        for each in self._registry.dispatches.deliveries:
            key = each.ledger_key
            if key is not None and (touched is None or key in touched):
                await each.recount()
