"""The assignment of a delivery: bring the content of one order to one node."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from proxy.activities.node import NodeAtWork
from proxy.activities.target import repush_for
from proxy.ledger import Counts
from proxy.machines import policy
from proxy.machines.delivery import DeliveryProgress
from proxy.model import Order
from proxy.nodes import Repush
from proxy.work.runs import Content
from proxy.work.services import Services


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

    @property
    def repush(self) -> Repush:
        """The choice among the instances that the node has confirmed before."""
        return repush_for(self.services.settings.dispatch, self.node.configured)

    # -- The ledger's counts ----------------------------------------------------------------------

    async def counts(self) -> Counts:
        """Return what the ledger counts of this delivery."""
        return await self.services.ledger.counts(self.dispatch_id, self.node_id)

    async def settle(self) -> Counts:
        """Count as stored what the node has confirmed, to whatever dispatch."""
        node = self.node.configured
        return await self.services.ledger.settle(
            self.dispatch_id, node.node_id, node.identity, resend=self.repush == "all"
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
