from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from itertools import product
from pathlib import Path
from typing import TypeVar

import trio
from hypothesis import settings, stateful
from hypothesis import strategies as st
from trio.testing import MockClock

from proxy.ledger import CachedEntity, InstanceState, Ledger
from proxy.model import Entity, EntityType, Instance
from proxy.runtime.offload import Inline
from tests.ledger.make import (
    OTHER_SESSION,
    SCAN,
    SESSION,
    SUBJECT,
    changed,
    fast_directory,
    instance,
    order,
    uid,
)
from tests.ledger.reference import OPEN, Reference, Tombstone

T = TypeVar("T")
EXAMPLES = int(os.environ.get("ITH_PROXY_EXAMPLES", "20"))
NODES = ("n1", "n2")
UNIVERSE = [
    instance(n, study=study, series=series, content=content, patient_id=f"P-{study % 2}")
    for study, series, n, content in product((1, 2), (1, 2), (1, 2), "ab")
]
# One object under two instances.
UNIVERSE.append(changed(UNIVERSE[-1], sha256=UNIVERSE[0].sha256, size=UNIVERSE[0].size))

entities = st.sampled_from([SUBJECT, SESSION, OTHER_SESSION, SCAN])
nodes = st.sampled_from(NODES)
numbers = st.integers(0, 10)


class LedgerMachine(stateful.RuleBasedStateMachine):
    """Every rule opens the ledger again, so it sees only the durable content."""

    def __init__(self) -> None:
        super().__init__()
        self.context = fast_directory()
        self.path = Path(self.context.__enter__()) / "ledger.db"
        self.reference = Reference()

    def teardown(self) -> None:
        self.context.__exit__(None, None, None)

    def ask(self, question: Callable[[Ledger], Awaitable[T]]) -> T:
        async def main() -> T:
            async with Ledger.open(self.path, Inline()) as ledger:
                return await question(ledger)

        return trio.run(main, clock=MockClock(autojump_threshold=0))

    def dispatch(self, number: int) -> int:
        return number % len(self.reference.dispatches) + 1

    @stateful.rule(
        entity=entities,
        node_ids=st.lists(nodes, min_size=1, max_size=2, unique=True),
        correlation=st.sampled_from(["a", "b", "c"]),
    )
    def accept(self, entity: Entity, node_ids: list[str], correlation: str) -> None:
        wanted = order(*node_ids, entity=entity, correlation_id=correlation)
        accepted = self.ask(lambda ledger: ledger.accept(wanted))
        assert (accepted.dispatch_id, accepted.is_new) == self.reference.accept(wanted)

    @stateful.rule(
        entity=entities,
        found=st.sets(st.sampled_from(UNIVERSE), max_size=6),
        etag=st.sampled_from([None, '"v1"', '"v2"']),
        asked_by=st.none() | numbers,
    )
    def keep(
        self, entity: Entity, found: set[Instance], etag: str | None, asked_by: int | None
    ) -> None:
        orphans = self.ask(lambda ledger: ledger.keep(entity, [*found], etag, dispatch_id=asked_by))
        assert set(orphans) == self.reference.keep(entity, found, etag, asked_by)

    @stateful.precondition(lambda self: self.reference.dispatches)
    @stateful.rule(number=numbers)
    def plan(self, number: int) -> None:
        asked = self.dispatch(number)
        assert self.ask(lambda ledger: ledger.plan(asked)) == self.reference.plan(asked)

    @stateful.precondition(lambda self: self.reference.dispatches)
    @stateful.rule(
        number=numbers,
        node=nodes,
        results=st.lists(
            st.tuples(st.sampled_from(UNIVERSE), st.sampled_from(InstanceState)), max_size=8
        ),
    )
    def result(self, number: int, node: str, results: list[tuple[Instance, InstanceState]]) -> None:
        asked = self.dispatch(number)

        async def post(ledger: Ledger) -> None:
            for sent, state in results:
                ledger.post_result(asked, node, sent, state, 0, None)

        self.ask(post)
        for sent, state in results:
            self.reference.result(asked, node, sent, state)

    @stateful.precondition(lambda self: self.reference.dispatches)
    @stateful.rule(number=numbers, node=nodes)
    def delivery_over(self, number: int, node: str) -> None:
        asked = self.dispatch(number)

        async def post(ledger: Ledger) -> None:
            ledger.post_delivery_over(asked, node, "completed", None)

        self.ask(post)
        self.reference.delivery_over(asked, node, "completed")

    @stateful.precondition(lambda self: self.reference.dispatches)
    @stateful.rule(number=numbers)
    def dispatch_over(self, number: int) -> None:
        asked = self.dispatch(number)

        async def post(ledger: Ledger) -> None:
            ledger.post_dispatch_over(asked, "completed", None)

        self.ask(post)
        self.reference.dispatch_over(asked)

    @stateful.rule(
        id=st.sampled_from([None, "sess-1", "sess-2"]),
        study=st.sampled_from([None, uid(1), uid(2)]),
    )
    def delete_session(self, id: str | None, study: str | None) -> None:
        deleted = self.ask(lambda ledger: ledger.delete_session(id, study))
        tombstone = Tombstone(EntityType.SESSION, id, study, None, None, 0)
        assert (deleted.instances, set(deleted.orphans)) == self.reference.delete(tombstone)

    @stateful.rule(
        id=st.sampled_from([None, "scan-1"]),
        study=st.sampled_from([None, uid(1), uid(2)]),
        number=st.sampled_from([None, 1, 2]),
    )
    def delete_scan(self, id: str | None, study: str | None, number: int | None) -> None:
        deleted = self.ask(lambda ledger: ledger.delete_scan(study, number, scan_id=id))
        tombstone = Tombstone(EntityType.SCAN, id, study, number, None, 0)
        assert (deleted.instances, set(deleted.orphans)) == self.reference.delete(tombstone)

    @stateful.rule(
        id=st.sampled_from([None, "subj-1"]), patient=st.sampled_from([None, "P-0", "P-1"])
    )
    def delete_subject(self, id: str | None, patient: str | None) -> None:
        deleted = self.ask(lambda ledger: ledger.delete_subject(id, patient))
        tombstone = Tombstone(EntityType.SUBJECT, id, None, None, patient, 0)
        assert (deleted.instances, set(deleted.orphans)) == self.reference.delete(tombstone)

    @stateful.rule(lost=st.sampled_from(UNIVERSE))
    def lose(self, lost: Instance) -> None:
        dropped = self.ask(lambda ledger: ledger.lose([lost.sha256]))
        assert dropped == self.reference.lose(lost.sha256)

    @stateful.rule()
    def release_unused(self) -> None:
        orphans = self.ask(lambda ledger: ledger.release_unused())
        assert set(orphans) == self.reference.release_unused()

    @stateful.invariant()
    def agrees(self) -> None:
        self.ask(self.compare)

    async def compare(self, ledger: Ledger) -> None:
        expected = self.reference
        sizes = {i.sha256: i.size for i in expected.instances}
        assert await ledger.all_objects() == sizes
        hashes = [i.sha256 for i in UNIVERSE]
        assert await ledger.referenced(hashes) == sizes.keys()
        for entity in (SUBJECT, SESSION, OTHER_SESSION, SCAN):
            held = expected.holdings.get(entity)
            holding = CachedEntity(held[0], len(held[1])) if held else None
            assert await ledger.cached_entity(entity) == holding
        unfinished = {u.dispatch_id: u for u in await ledger.unfinished()}
        assert list(unfinished) == [d.id for d in expected.dispatches if not d.over]
        for dispatch in expected.dispatches:
            for node, way in dispatch.ways.items():
                assert await ledger.counts(dispatch.id, node) == way.counts()
                to_send = await ledger.to_send(dispatch.id, node)
                assert set(to_send) == {i for i, s in way.states.items() if s in OPEN}
                assert [place(i) for i in to_send] == sorted(map(place, to_send))
            if dispatch.over:
                continue
            found = unfinished[dispatch.id]
            assert found.order.entity == dispatch.order.entity
            assert {d.node_id: (d.outcome, d.counts) for d in found.deliveries} == {
                node: (way.outcome, way.counts()) for node, way in dispatch.ways.items()
            }
            assert (found.deleted is not None) == any(
                t.newest >= dispatch.id and t.is_over(dispatch.order.entity)
                for t in expected.tombstones
            )


def place(sent: Instance) -> tuple[object, ...]:
    number, count = sent.series_number, sent.instance_number
    return sent.study_instance_uid, number, sent.series_instance_uid, count


TestLedgerAgainstReference = LedgerMachine.TestCase
TestLedgerAgainstReference.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=20, deadline=None
)
