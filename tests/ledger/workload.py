"""A workload on a ledger, one numbered step after another, and the check of its remains."""

from __future__ import annotations

from collections.abc import AsyncIterator

from proxy.ledger import InstanceState, Ledger
from proxy.model import Entity, EntityType
from tests.ledger.make import instance, order

INSTANCES = 40


def session(step: int) -> Entity:
    return Entity(EntityType.SESSION, f"sess-{step // INSTANCES}")


async def work(ledger: Ledger, steps: int, first: int = 0) -> AsyncIterator[int]:
    """Yield the number of each step as soon as the ledger says that it is durable.

    A step is a result, the report of it and a document, posted in one stretch. Every 40 steps a
    new dispatch is accepted, kept and planned, and the former one ended.
    """
    dispatch = 0
    for step in range(first, first + steps):
        number = step % INSTANCES
        if number == 0 or dispatch == 0:
            if dispatch:
                ledger.post_dispatch_over(dispatch, "completed", None)
            accepted = await ledger.accept(
                order(entity=session(step), correlation_id=f"corr_{step // INSTANCES}")
            )
            dispatch = accepted.dispatch_id
            study = step // INSTANCES
            await ledger.keep(
                session(step), [instance(n, study=study) for n in range(INSTANCES)], None
            )
            await ledger.plan(dispatch)
        sent = instance(number, study=step // INSTANCES)
        ledger.post_result(dispatch, "n1", sent, InstanceState.STORED, 0)
        ledger.post_report(f"key {step}", f"stored {step}")
        ledger.post_document("last", str(step).encode())
        await ledger.settled()
        yield step


async def check(ledger: Ledger, claimed: int) -> int:
    """Return the last step that is there, having checked that each is there whole or not at all."""
    last = int(await ledger.document("last") or -1)
    reports = await ledger.reports()
    assert [frame for _, _, frame in reports] == [f"stored {n}" for n in range(last + 1)]
    if last >= 0:
        current = await ledger.accept(
            order(entity=session(last), correlation_id=f"corr_{last // INSTANCES}")
        )
        assert not current.is_new
        counts = await ledger.counts(current.dispatch_id, "n1")
        assert (counts.total, counts.stored) == (INSTANCES, last % INSTANCES + 1)
        holding = await ledger.cached_entity(session(last))
        assert holding is not None
        assert holding.instances == INSTANCES
    assert last >= claimed, "lost what was said to be durable"
    return last
