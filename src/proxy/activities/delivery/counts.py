"""What the ledger counts of a delivery, and what follows from it after a deletion."""

from __future__ import annotations

from msgspec.structs import replace

from proxy.ledger import Counts
from proxy.machines.delivery import DeliveryProgress
from proxy.work.runs import DeliveryAtWork, Site


async def is_void(site: Site, delivery: DeliveryAtWork, counts: Counts) -> bool:
    """Whether a deletion took all there was to send, and something of that had not been sent.

    What the node has does not make a whole of it then.
    """
    at = delivery.dispatch
    return counts.total < at.planned and await site.ledger.is_emptied(
        at.dispatch_id, delivery.node_id
    )


def not_less(counts: Counts, known: DeliveryProgress) -> Counts:
    """The ledger's counts; while it was asked, the node may have answered for more."""
    return replace(
        counts,
        stored=max(counts.stored, known.files_stored),
        refused=max(counts.refused, known.files_refused),
    )
