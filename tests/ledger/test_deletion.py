from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from random import Random
from typing import TypeAlias

import pytest
import trio
from trio.testing import MockClock

from proxy.ledger import CachedEntity, Counts, Deleted, InstanceState, Ledger, PendingResult
from proxy.model import Entity, EntityType, Instance
from proxy.runtime.offload import Inline
from tests.ledger.make import OTHER_SESSION, SCAN, SESSION, SUBJECT, changed, instance, order, uid

ONE = [instance(n, series=s) for s, n in product((1, 2), (1, 2))]
TWO = [instance(n, study=2) for n in (1, 2)]
STORED = InstanceState.STORED
STRANGER = Entity(EntityType.SESSION, "sess-9", subject_id="subj-9")


def hashes(*groups: Iterable[Instance]) -> set[str]:
    return {i.sha256 for group in groups for i in group}


async def keep_all(ledger: Ledger) -> None:
    """A subject of two sessions, fetched as a whole, by session, and one scan of it."""
    await ledger.keep(SUBJECT, ONE + TWO, '"subject"')
    await ledger.keep(SESSION, ONE, '"session"')
    await ledger.keep(OTHER_SESSION, TWO, '"other"')
    await ledger.keep(SCAN, ONE[:2], '"scan"')
    await ledger.keep(STRANGER, [instance(1, study=9, patient_id="P-9")], '"stranger"')


async def held(ledger: Ledger) -> list[CachedEntity | None]:
    return [
        await ledger.cached_entity(e) for e in (SUBJECT, SESSION, OTHER_SESSION, SCAN, STRANGER)
    ]


WHOLE = [
    CachedEntity('"subject"', 6),
    CachedEntity('"session"', 4),
    CachedEntity('"other"', 2),
    CachedEntity('"scan"', 2),
    CachedEntity('"stranger"', 1),
]


@pytest.mark.parametrize(
    ("session_id", "study"), [("sess-1", uid(1)), (None, uid(1)), ("sess-1", None), ("?", uid(1))]
)
async def test_a_session_goes_by_its_id_or_its_study(
    ledger: Ledger, session_id: str | None, study: str | None, autojump_clock: MockClock
) -> None:
    await keep_all(ledger)
    deleted = await ledger.delete_session(session_id, study)
    assert deleted.instances == 4
    assert set(deleted.orphans) == hashes(ONE)
    assert await held(ledger) == [CachedEntity(None, 2), None, WHOLE[2], None, WHOLE[4]]


@pytest.mark.parametrize(
    ("study", "number", "scan_id"),
    [(uid(1), 1, None), (uid(1), 1, "scan-1"), (None, None, "scan-1"), (None, 1, "scan-1")],
)
async def test_a_scan_goes_by_study_and_number_or_by_its_id(
    ledger: Ledger,
    study: str | None,
    number: int | None,
    scan_id: str | None,
    autojump_clock: MockClock,
) -> None:
    await keep_all(ledger)
    deleted = await ledger.delete_scan(study, number, scan_id=scan_id)
    assert deleted.instances == 2
    assert set(deleted.orphans) == hashes(ONE[:2])
    expected = [CachedEntity(None, 4), CachedEntity(None, 2), WHOLE[2], None, WHOLE[4]]
    assert await held(ledger) == expected


@pytest.mark.parametrize(
    ("subject_id", "identifier"), [("subj-1", "P-0042"), (None, "P-0042"), ("subj-1", None)]
)
async def test_a_subject_goes_by_its_id_or_its_patient_id(
    ledger: Ledger, subject_id: str | None, identifier: str | None, autojump_clock: MockClock
) -> None:
    await keep_all(ledger)
    deleted = await ledger.delete_subject(subject_id, identifier)
    assert deleted.instances == 6
    assert set(deleted.orphans) == hashes(ONE, TWO)
    assert await held(ledger) == [None, None, None, None, WHOLE[4]]


async def test_every_series_of_the_number_goes(ledger: Ledger, autojump_clock: MockClock) -> None:
    twin = changed(ONE[0], series_instance_uid="1.2.3", sha256="f" * 64)
    await ledger.keep(SESSION, [*ONE, twin], None)
    assert (await ledger.delete_scan(uid(1), 1)).instances == 3


@pytest.mark.parametrize("nothing", [None, ""])
async def test_what_is_not_given_matches_nothing(
    ledger: Ledger, nothing: str | None, autojump_clock: MockClock
) -> None:
    await ledger.keep(SESSION, [instance(1, patient_id="")], None)
    assert await ledger.delete_session(nothing, nothing) == Deleted(0, ())
    assert await ledger.delete_scan(nothing, 1, scan_id=nothing) == Deleted(0, ())
    assert await ledger.delete_scan(uid(1), None) == Deleted(0, ())
    assert await ledger.delete_subject(nothing, nothing) == Deleted(0, ())
    assert await ledger.cached_entity(SESSION) == CachedEntity(None, 1)


async def test_an_object_that_another_instance_shares_is_no_orphan(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    twin = instance(1, study=2)
    shared = changed(twin, sha256=ONE[0].sha256)
    await ledger.keep(SESSION, ONE, None)
    await ledger.keep(OTHER_SESSION, [shared], None)
    deleted = await ledger.delete_session("sess-1", uid(1))
    assert set(deleted.orphans) == hashes(ONE[1:])


async def test_a_delivery_goes_on_without_the_deleted_scan(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    dispatch = (await ledger.accept(order())).dispatch_id
    await ledger.keep(SESSION, ONE, None)
    await ledger.plan(dispatch)
    ledger.post_result(dispatch, "n1", ONE[0], STORED, 0)
    ledger.post_result(dispatch, "n1", ONE[1], InstanceState.SENDING)
    ledger.post_result(dispatch, "n1", ONE[2], STORED, 0)
    await ledger.delete_scan(uid(1), 1)
    ledger.post_result(dispatch, "n1", ONE[1], STORED, 0)
    assert await ledger.to_send(dispatch, "n1") == [ONE[3]]
    assert await ledger.counts(dispatch, "n1") == Counts(total=3, stored=2)
    assert await ledger.plan(dispatch) == 2
    (found,) = await ledger.unfinished()
    assert found.deleted is None
    ledger.post_result(dispatch, "n1", ONE[3], STORED, 0)
    ledger.post_dispatch_over(dispatch, "completed", None)
    assert await ledger.counts(dispatch, "n1") == Counts(total=3, stored=3)


async def test_a_download_begun_before_the_deletion_brings_nothing_back(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    dispatch = (await ledger.accept(order())).dispatch_id
    await ledger.delete_scan(uid(1), 1)
    orphans = await ledger.keep(SESSION, ONE, '"old"', dispatch_id=dispatch)
    assert set(orphans) == hashes(ONE[:2])
    assert await ledger.cached_entity(SESSION) == CachedEntity(None, 2), (
        "it is not what the etag names"
    )
    assert await ledger.plan(dispatch) == 2
    assert await ledger.to_send(dispatch, "n1") == ONE[2:]


async def test_what_was_deleted_is_not_planned_for_an_older_order(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    old = (await ledger.accept(order(correlation_id="old"))).dispatch_id
    await ledger.delete_scan(uid(1), 1)
    new = (await ledger.accept(order(correlation_id="new"))).dispatch_id
    await ledger.keep(SESSION, ONE, '"new"', dispatch_id=new)
    assert await ledger.plan(old) == 2
    assert await ledger.plan(new) == 4, "dispatched after the deletion: wanted again"
    assert await ledger.cached_entity(SESSION) == CachedEntity('"new"', 4)


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        (SUBJECT, (False, False, True)),
        (SESSION, (True, False, True)),
        (OTHER_SESSION, (False, False, True)),
        (SCAN, (True, True, True)),
        (STRANGER, (False, False, False)),
    ],
)
async def test_a_dispatch_of_what_was_deleted_is_marked(
    ledger: Ledger,
    entity: Entity,
    expected: tuple[bool, bool, bool],
    autojump_clock: MockClock,
) -> None:
    async def is_deleted() -> bool:
        (found,) = await ledger.unfinished()
        ledger.post_dispatch_over(found.dispatch_id, "cancelled", "deleted")
        return found.deleted is not None

    await ledger.accept(order(entity=entity, correlation_id="1"))
    await ledger.delete_session("sess-1", None)
    assert await is_deleted() == expected[0]
    await ledger.accept(order(entity=entity, correlation_id="2"))
    await ledger.delete_scan(uid(1), 1, scan_id="scan-1")
    assert await is_deleted() == expected[1]
    await ledger.accept(order(entity=entity, correlation_id="3"))
    await ledger.delete_subject("subj-1", None)
    assert await is_deleted() == expected[2]


async def test_a_later_dispatch_of_the_same_entity_is_not_marked(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    await ledger.accept(order(correlation_id="old"))
    await ledger.delete_session("sess-1", uid(1))
    await ledger.accept(order(correlation_id="new"))
    assert [u.deleted for u in await ledger.unfinished()] == [EntityType.SESSION, None]


async def test_a_deletion_says_how_much_of_it_nodes_have_confirmed(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    await keep_all(ledger)
    accepted = await ledger.accept(order("n1", "n2"))
    await ledger.plan(accepted.dispatch_id)
    for node_id, instances in (("n1", ONE), ("n2", ONE[:1])):
        for each in instances:
            ledger.post_result(
                accepted.dispatch_id,
                node_id,
                each,
                STORED,
                0,
                confirmed_by=f"{node_id}@host:104",
            )
    deleted = await ledger.delete_scan(uid(1), 1)
    assert (deleted.instances, deleted.confirmed) == (2, 3)
    deleted = await ledger.delete_session(SESSION.id, None)
    assert deleted.confirmed == len(ONE) - 2
    assert (await ledger.delete_session(SESSION.id, None)).confirmed == 0


SCATTERED = (12, 53, 225)
"""Seeds with which SQLite leaves a copy of a deleted row in the gap of a page: one in a hundred."""


def scattered(rng: Random, study: int) -> list[Instance]:
    """Some instances with UIDs of no order, as most are."""
    root = "1.2.826.0.1.3680043.8.498."
    return [
        changed(
            instance(number, study=study, series=number % 2),
            sop_instance_uid=f"{root}{rng.getrandbits(126):038d}",
            study_instance_uid=f"{root}{study * 7919**9:038d}",
            series_instance_uid=f"{root}{study * 7919**9 + number % 2:038d}",
            patient_id=f"SIM-{study}",
        )
        for number in range(rng.randint(1, 13))
    ]


async def left_behind(path: Path, seed: int, *, rewrite: bool) -> set[str]:
    """Keep and delete sessions by turns; return which of the deleted UIDs are in the file."""
    rng, sessions, left = Random(seed), list[list[Instance]](), set[str]()
    async with Ledger.open(path, Inline()) as ledger:
        for study in range(1, 9):
            if study in {4, 7}:
                for gone in sessions[study - 3 : study - 1]:
                    await ledger.delete_session(None, gone[0].study_instance_uid)
            sessions.append(scattered(rng, study))
            session = Entity(EntityType.SESSION, f"sess-{study}", f"subj-{study}")
            wanted = order("a", "b", "c", entity=session, correlation_id=str(study))
            dispatch = await ledger.accept(wanted)
            await ledger.keep(session, sessions[-1], None)
            await ledger.plan(dispatch.dispatch_id)
            for node in rng.sample("abc", rng.randint(1, 3)):
                for each in rng.sample(sessions[-1], len(sessions[-1])):
                    stored = (dispatch.dispatch_id, node, each, STORED, 0)
                    ledger.post_result(*stored, confirmed_by=f"{node}@1.2.3.4:104")
                    if rng.random() < 0.5:
                        await ledger.settled()
            ledger.post_dispatch_over(dispatch.dispatch_id, "completed", None)
        for gone in (sessions[4], sessions[7]):
            await ledger.delete_session(None, gone[0].study_instance_uid)
            if rewrite:
                await ledger.rewrite()
            content = await trio.Path(path).read_bytes()
            assert sessions[0][0].sop_instance_uid.encode() in content
            left |= {i.sop_instance_uid for i in gone if i.sop_instance_uid.encode() in content}
    return left


@pytest.mark.parametrize("seed", SCATTERED)
async def test_no_byte_of_what_was_deleted_is_left_in_the_file(
    directory: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await left_behind(directory / "at_once" / "ledger.db", seed, rewrite=False) == set()
    monkeypatch.setattr("proxy.ledger.ledger.VACUUM_BYTES", 0)
    assert await left_behind(directory / "large" / "ledger.db", seed, rewrite=False)
    assert await left_behind(directory / "later" / "ledger.db", seed, rewrite=True) == set()


async def test_a_delivery_is_emptied_when_nothing_of_it_exists_any_longer(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    await keep_all(ledger)
    accepted = await ledger.accept(order("n1"))
    await ledger.plan(accepted.dispatch_id)
    ledger.post_result(accepted.dispatch_id, "n1", ONE[0], STORED, 0)
    assert await ledger.emptied_by(accepted.dispatch_id, "n1") is None
    touched = frozenset({(accepted.dispatch_id, "n1")})
    assert (await ledger.delete_scan(uid(1), 1)).deliveries == touched
    assert await ledger.emptied_by(accepted.dispatch_id, "n1") is None
    assert (await ledger.delete_session(None, uid(2))).deliveries == frozenset()
    assert (await ledger.delete_scan(uid(1), 2)).deliveries == touched
    assert await ledger.emptied_by(accepted.dispatch_id, "n1") is EntityType.SCAN
    assert await ledger.counts(accepted.dispatch_id, "n1") == Counts(total=1, stored=1)


async def test_nothing_is_kept_for_a_dispatch_that_a_deletion_has_ended(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    """The download was whole when the deletion came: its last step must not undo that."""
    accepted = await ledger.accept(order("n1"))
    await ledger.delete_session(SESSION.id, uid(1))
    ledger.post_delivery_over(accepted.dispatch_id, "n1", "cancelled", None)
    ledger.post_dispatch_over(accepted.dispatch_id, "cancelled", None)
    orphans = await ledger.keep(SESSION, ONE, None, dispatch_id=accepted.dispatch_id)
    assert set(orphans) == hashes(ONE)
    assert await ledger.cached_entity(SESSION) is None
    assert await ledger.all_objects() == {}


async def test_what_one_dispatch_still_wants_is_kept_without_what_was_deleted_for_it(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    await ledger.accept(order("n1", correlation_id="corr_1"))
    await ledger.delete_scan(uid(1), 1)
    younger = await ledger.accept(order("n2", correlation_id="corr_2"))
    ledger.post_dispatch_over(younger.dispatch_id, "cancelled", None)
    orphans = await ledger.keep(SESSION, ONE, None, dispatch_id=younger.dispatch_id)
    assert set(orphans) == hashes(ONE[:2])
    assert await ledger.cached_entity(SESSION) == CachedEntity(None, 2)


Deletion: TypeAlias = Callable[[], PendingResult[Deleted]]

NAMELESS = changed(instance(1, study=7), study_instance_uid="", patient_id="", sha256="e" * 64)
"""An instance that nothing can be found by but the entity that it came with."""


@pytest.mark.parametrize("other", [[], ONE])
async def test_an_instance_without_its_identifiers_goes_with_the_entity_it_came_with(
    ledger: Ledger, other: list[Instance], autojump_clock: MockClock
) -> None:
    deletions: list[Deletion] = [
        lambda: ledger.delete_session("sess-1", None),
        lambda: ledger.delete_subject("subj-1", None),
    ]
    for delete in deletions:
        await ledger.keep(SESSION, [*other, NAMELESS], None)
        deleted = await delete()
        assert set(deleted.orphans) == hashes(other, [NAMELESS])
        assert await ledger.cached_entity(SESSION) is None


async def test_it_goes_with_what_was_deleted_beside_it(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    deletions: list[tuple[Deletion, list[Instance]]] = [
        (lambda: ledger.delete_session(None, uid(1)), ONE),
        (lambda: ledger.delete_subject(None, "P-0042"), ONE),
        (lambda: ledger.delete_scan(uid(1), 1), ONE[:2]),
    ]
    for delete, gone in deletions:
        await ledger.keep(SESSION, [*ONE, NAMELESS], None)
        await ledger.keep(STRANGER, [instance(1, study=9, patient_id="P-9")], None)
        deleted = await delete()
        assert set(deleted.orphans) == hashes(gone, [NAMELESS])
        assert await ledger.cached_entity(STRANGER) == CachedEntity(None, 1)
        await ledger.delete_session("sess-1", None)


@pytest.mark.parametrize(
    ("attribute", "left"), [("study_instance_uid", 2), ("series_number", 2), ("patient_id", 3)]
)
async def test_only_what_a_deletion_looks_for_must_be_missing(
    ledger: Ledger, attribute: str, left: int, autojump_clock: MockClock
) -> None:
    """An instance of another study or scan is not of the deleted scan, whoever the patient is."""
    nothing = None if attribute == "series_number" else ""
    lacking = changed(instance(1, series=5), sha256="e" * 64, **{attribute: nothing})
    await ledger.keep(SESSION, [*ONE, lacking], None)
    await ledger.delete_scan(uid(1), 1)
    assert await ledger.cached_entity(SESSION) == CachedEntity(None, left)


async def test_a_deletion_within_the_entity_takes_it_by_the_ids_of_the_parents(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    await ledger.keep(SESSION, [NAMELESS], None)
    assert (await ledger.delete_scan(uid(3), 3, session_id="sess-2")).instances == 0
    assert (await ledger.delete_scan(uid(3), 3, session_id="sess-1")).instances == 1
    await ledger.keep(SUBJECT, [NAMELESS], None)
    assert (await ledger.delete_session("sess-8", uid(3))).instances == 0
    assert (await ledger.delete_session("sess-8", uid(3), subject_id="subj-1")).instances == 1


async def test_a_download_from_before_the_deletion_does_not_bring_it_back(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    dispatch = (await ledger.accept(order())).dispatch_id
    await ledger.delete_scan(uid(1), 1)
    orphans = await ledger.keep(SESSION, [*ONE, NAMELESS], None, dispatch_id=dispatch)
    assert set(orphans) == hashes(ONE[:2], [NAMELESS])
    assert await ledger.plan(dispatch) == 2
    await ledger.keep(SESSION, [*ONE[2:], NAMELESS], None, dispatch_id=dispatch)
    assert await ledger.plan(dispatch) == 3, "ITH has it still: it is not of the deleted scan"


async def test_its_confirmations_go_with_it(ledger: Ledger, autojump_clock: MockClock) -> None:
    dispatch = (await ledger.accept(order())).dispatch_id
    await ledger.keep(SESSION, [NAMELESS], None)
    await ledger.plan(dispatch)
    ledger.post_result(dispatch, "n1", NAMELESS, STORED, 0, confirmed_by="A@h:1")
    ledger.post_dispatch_over(dispatch, "completed", None)
    await ledger.lose([NAMELESS.sha256])
    await ledger.release_unused()
    assert (await ledger.delete_session("sess-1", uid(3))).confirmed == 1


async def test_instances_without_study_or_series_are_kept_apart_and_sent(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    twins = [changed(NAMELESS, series_instance_uid="", sha256=each * 64) for each in "ab"]
    dispatch = (await ledger.accept(order())).dispatch_id
    await ledger.keep(SESSION, [NAMELESS, *twins], None)
    assert await ledger.plan(dispatch) == 3
    for each in await ledger.to_send(dispatch, "n1"):
        ledger.post_result(dispatch, "n1", each, STORED, 0)
    assert await ledger.counts(dispatch, "n1") == Counts(total=3, stored=3)


@pytest.mark.parametrize("odd", ["1.2\0.3", "1.2.M\xdcLLER", "1.2\\3", "1" * 5000, " 1"])
async def test_an_odd_uid_is_a_key_as_any_other(
    ledger: Ledger, odd: str, autojump_clock: MockClock
) -> None:
    strange = changed(instance(1), study_instance_uid=odd, sop_instance_uid=odd)
    dispatch = (await ledger.accept(order())).dispatch_id
    await ledger.keep(SESSION, [strange], None)
    await ledger.plan(dispatch)
    assert await ledger.to_send(dispatch, "n1") == [strange]
    ledger.post_result(dispatch, "n1", strange, STORED, 0)
    assert await ledger.to_send(dispatch, "n1") == []
    assert (await ledger.delete_session(None, odd)).instances == 1
