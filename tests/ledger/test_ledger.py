from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock

from proxy.ledger import CachedEntity, Counts, InstanceState, Ledger, Over, Report, Undeliverable
from proxy.model import Entity, EntityType, Order
from proxy.runtime.offload import Inline
from tests.ledger.make import OTHER_SESSION, SCAN, SESSION, SUBJECT, changed, instance, order, uid
from tests.support.clocks import SetClock

STORED, REFUSED, UNKNOWN = InstanceState.STORED, InstanceState.REFUSED, InstanceState.UNKNOWN
WARNED, PLANNED = InstanceState.STORED_WITH_WARNING, InstanceState.PLANNED


async def planned(ledger: Ledger, *numbers: int, nodes: tuple[str, ...] = ("n1",)) -> int:
    accepted = await ledger.accept(order(*nodes))
    await ledger.keep(SESSION, [instance(n) for n in numbers], '"v1"')
    await ledger.plan(accepted.dispatch_id)
    return accepted.dispatch_id


async def test_a_document_is_read_as_it_was_put_last(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    assert await ledger.document("configuration") is None
    ledger.post_document("configuration", b"one")
    ledger.post_document("configuration", b"two \x00\xff")
    assert await ledger.document("configuration") == b"two \x00\xff"


async def test_everything_posted_is_there_after_an_orderly_exit(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "ledger.db"
    async with Ledger.open(path, Inline()) as ledger:
        assert ledger.last_written == 0
        for n in range(100):
            ledger.post_document(f"d{n}", b"x")
    async with Ledger.open(path, Inline()) as ledger:
        assert [await ledger.document(f"d{n}") for n in range(100)] == [b"x"] * 100
        assert not ledger.was_unclean
        assert ledger.last_written > 0


async def test_a_repeated_order_is_the_same_dispatch(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    first = await ledger.accept(order("n1", "n2"))
    again = await ledger.accept(order("n2", "n1"))
    assert (first.is_new, again.is_new) == (True, False)
    assert again.dispatch_id == first.dispatch_id
    assert set(again.node_ids) == {"n1", "n2"}
    assert len(await ledger.unfinished()) == 1


async def test_a_repeated_order_is_recognised_when_its_dispatch_is_over(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    first = await ledger.accept(order())
    ledger.post_dispatch_over(first.dispatch_id, "completed", None)
    again = await ledger.accept(order())
    assert (again.is_new, again.dispatch_id) == (False, first.dispatch_id)
    assert await ledger.unfinished() == []


async def test_the_same_correlation_id_for_another_entity_is_another_dispatch(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    first = await ledger.accept(order())
    second = await ledger.accept(order(entity=OTHER_SESSION))
    third = await ledger.accept(order(entity=Entity(EntityType.SCAN, SESSION.id)))
    assert [second.is_new, third.is_new] == [True, True]
    assert len({first.dispatch_id, second.dispatch_id, third.dispatch_id}) == 3


async def test_orders_without_correlation_id_are_never_the_same(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    first = await ledger.accept(order(correlation_id=""))
    second = await ledger.accept(order(correlation_id=""))
    assert second.is_new
    assert second.dispatch_id != first.dispatch_id


async def test_an_additional_node_gets_a_dispatch_of_its_own(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    first = await ledger.accept(order("n1"))
    more = await ledger.accept(order("n1", "n2", "n2"))
    assert more.is_new
    assert more.node_ids == ("n2",)
    assert [u.order.node_ids for u in await ledger.unfinished()] == [("n1",), ("n2",)]
    newest = await ledger.accept(order("n1", "n2"))
    assert (newest.is_new, newest.dispatch_id) == (False, more.dispatch_id)
    assert first.dispatch_id != more.dispatch_id


async def test_what_cannot_be_sent_is_known_after_a_restart(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    what = Undeliverable(damaged=2, passed_over=1, why="cannot be sent: they name no class")
    async with Ledger.open(tmp_path / "ledger.db", Inline()) as ledger:
        first = await ledger.accept(order("n1"))
        ledger.post_undeliverable(first.dispatch_id, what)
    async with Ledger.open(tmp_path / "ledger.db", Inline()) as ledger:
        (found,) = await ledger.unfinished()
        assert found.undeliverable == what


async def test_a_repeated_order_tells_how_it_ended_at_all_nodes_before(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "ledger.db"
    gone = Over("n1", "failed", "gone", Counts(total=3))
    async with Ledger.open(path, Inline()) as ledger:
        first = await ledger.accept(order("n1"))
        assert first.over == ()
        ledger.post_undeliverable(first.dispatch_id, Undeliverable(damaged=2, passed_over=1))
        ledger.post_delivery_over(first.dispatch_id, "n1", "failed", "gone")
        assert (await ledger.accept(order("n1", "n2"))).over == ()
        ledger.post_dispatch_over(first.dispatch_id, "failed", "gone")
        third = await ledger.accept(order("n3"))
        assert third.over == (gone,)
        await ledger.accept(order("n1", correlation_id=""))
        ledger.post_delivery_over(third.dispatch_id, "n3", "completed", None)
        ledger.post_dispatch_over(third.dispatch_id, "completed", None)
    over = (gone, Over("n3", "completed", None, Counts()))
    async with Ledger.open(path, Inline()) as ledger:
        found = {each.order.node_ids: each.over for each in await ledger.unfinished()}
        assert found == {("n2",): over, ("n1",): ()}
        again = await ledger.accept(order("n3"))
        assert (again.is_new, again.over) == (False, over)


async def test_an_order_for_no_node_is_refused_alone(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    ledger.post_document("beside", b"kept")
    nobody = Order(SESSION, (), "corr_1", "ws-1")
    with pytest.raises(ValueError, match="at least one node"):
        await ledger.accept(nobody)
    assert await ledger.document("beside") == b"kept"


async def test_an_unfinished_dispatch_comes_back_with_all_it_was(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "ledger.db"
    wanted = order("n2", "n1", entity=SCAN)
    async with Ledger.open(path, Inline()) as ledger:
        accepted = await ledger.accept(wanted)
        ledger.post_attempt(accepted.dispatch_id, "n1", 3, 1_790_000_000.5, "refused: \udc80 busy")
        ledger.post_delivery_over(accepted.dispatch_id, "n2", "failed", "gone")
        ledger.post_delivery_over(accepted.dispatch_id, "n2", "completed", None)
        ledger.post_attempt(accepted.dispatch_id, "n2", 9, 1.0, "too late")
    async with Ledger.open(path, Inline()) as ledger:
        (found,) = await ledger.unfinished()
    assert found.order == wanted
    assert found.dispatch_id == accepted.dispatch_id
    assert found.deleted is None
    second, first = found.deliveries
    assert (first.node_id, first.attempts, first.next_attempt_at) == ("n1", 3, 1_790_000_000.5)
    assert (first.error, first.is_final, first.counts) == ("refused: ? busy", False, Counts())
    assert (second.node_id, second.outcome, second.error) == ("n2", "failed", "gone")
    assert (second.is_final, second.attempts, second.next_attempt_at) == (True, 0, None)


async def test_results_are_counted_and_answered_instances_not_sent_again(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    dispatch = await planned(ledger, 1, 2, 3, 4, 5, 6, nodes=("n1", "n2"))
    assert await ledger.counts(dispatch, "n1") == Counts(total=6)
    ledger.post_result(dispatch, "n1", instance(1), InstanceState.SENDING)
    ledger.post_result(dispatch, "n1", instance(2), STORED, 0x0000)
    ledger.post_result(dispatch, "n1", instance(3), WARNED, 0xB000, "coerced \udcff")
    ledger.post_result(dispatch, "n1", instance(4), REFUSED, 0xA900, None)
    ledger.post_result(dispatch, "n1", instance(5), UNKNOWN)
    expected = Counts(total=6, stored=2, refused=1, unknown=1)
    assert await ledger.counts(dispatch, "n1") == expected
    assert [i.instance_number for i in await ledger.to_send(dispatch, "n1")] == [1, 5, 6]
    assert len(await ledger.to_send(dispatch, "n2")) == 6
    (found,) = await ledger.unfinished()
    assert [d.counts for d in found.deliveries] == [expected, Counts(total=6)]


async def test_in_doubt_is_what_was_sent_without_an_answer(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    dispatch = await planned(ledger, 1, 2, 3, 4, 5, nodes=("n1", "n2"))
    ledger.post_result(dispatch, "n1", instance(1), InstanceState.SENDING)
    ledger.post_result(dispatch, "n1", instance(2), UNKNOWN)
    ledger.post_result(dispatch, "n1", instance(3), STORED, 0x0000)
    ledger.post_result(dispatch, "n1", instance(4), REFUSED, 0xA900)
    ledger.post_result(dispatch, "n2", instance(5), UNKNOWN)
    assert set(await ledger.in_doubt(dispatch, "n1", "N1")) == {instance(1), instance(2)}
    assert await ledger.in_doubt(dispatch, "n2", "N2") == [instance(5)]
    ledger.post_result(dispatch, "n1", instance(1), STORED)
    ledger.post_result(dispatch, "n1", instance(2), PLANNED)
    assert await ledger.in_doubt(dispatch, "n1", "N1") == []


async def test_what_a_node_has_with_another_content_is_beyond_doubt(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    first = await planned(ledger, 1, 2)
    for number in (1, 2):
        ledger.post_result(first, "n1", instance(number), STORED, 0, confirmed_by="N1")
    ledger.post_dispatch_over(first, "completed", None)
    second = (await ledger.accept(order(correlation_id="corr_2"))).dispatch_id
    newer = instance(1, content="b")
    await ledger.keep(SESSION, [newer, instance(2)], '"v2"')
    await ledger.plan(second)
    for each in (newer, instance(2)):
        ledger.post_result(second, "n1", each, UNKNOWN)
    assert await ledger.in_doubt(second, "n1", "N1") == [instance(2)]
    assert set(await ledger.in_doubt(second, "n1", "another")) == {newer, instance(2)}


async def test_an_answer_stays_whatever_is_posted_after_it(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    dispatch = await planned(ledger, 1, 2)
    ledger.post_result(dispatch, "n1", instance(1), STORED, 0)
    ledger.post_result(dispatch, "n1", instance(2), REFUSED, 0xC000)
    for late in (PLANNED, UNKNOWN, InstanceState.SENDING, REFUSED, STORED):
        ledger.post_result(dispatch, "n1", instance(1), late)
        ledger.post_result(dispatch, "n1", instance(2), late)
    assert await ledger.counts(dispatch, "n1") == Counts(total=2, stored=1, refused=1)
    assert await ledger.to_send(dispatch, "n1") == []


async def test_an_instance_that_may_be_asked_again_goes_back_to_planned(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    dispatch = await planned(ledger, 1)
    ledger.post_result(dispatch, "n1", instance(1), InstanceState.SENDING)
    ledger.post_result(dispatch, "n1", instance(1), PLANNED, 0xA700, "out of resources")
    assert await ledger.to_send(dispatch, "n1") == [instance(1)]


async def test_instances_come_in_the_order_of_study_series_and_number(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    wanted = [
        instance(1, study=1, series=2),
        instance(2, study=1, series=2),
        instance(10, study=1, series=2),
        instance(1, study=1, series=10),
        instance(1, study=2, series=1),
    ]
    accepted = await ledger.accept(order())
    await ledger.keep(SESSION, [wanted[n] for n in (4, 2, 0, 3, 1)], None)
    assert await ledger.plan(accepted.dispatch_id) == 5
    assert await ledger.to_send(accepted.dispatch_id, "n1") == wanted


async def test_one_sop_uid_in_two_series_and_with_two_contents_is_several_instances(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    first = instance(1)
    elsewhere = changed(first, series_instance_uid="1.9")
    newer = instance(1, content="b")
    accepted = await ledger.accept(order())
    await ledger.keep(SESSION, [first, elsewhere, newer, first], None)
    assert await ledger.plan(accepted.dispatch_id) == 3
    ledger.post_result(accepted.dispatch_id, "n1", elsewhere, STORED, 0)
    assert set(await ledger.to_send(accepted.dispatch_id, "n1")) == {first, newer}


async def test_planning_again_keeps_states_and_follows_what_is_held(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    dispatch = await planned(ledger, 1, 2, 3, nodes=("n1", "n2"))
    ledger.post_result(dispatch, "n1", instance(1), STORED, 0)
    ledger.post_result(dispatch, "n1", instance(2), InstanceState.SENDING)
    assert await ledger.plan(dispatch) == 3
    assert await ledger.counts(dispatch, "n1") == Counts(total=3, stored=1)

    orphans = await ledger.keep(SESSION, [instance(2, content="b"), instance(3)], '"v2"')
    assert orphans == (), "what is on its way to a node is still needed"
    assert await ledger.plan(dispatch) == 3
    assert await ledger.to_send(dispatch, "n1") == [instance(2, content="b"), instance(3)]
    assert await ledger.counts(dispatch, "n1") == Counts(total=3, stored=1)


async def test_nothing_is_planned_of_what_is_not_held(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    accepted = await ledger.accept(order())
    assert await ledger.plan(accepted.dispatch_id) == 0
    assert await ledger.plan(999) == 0
    assert await ledger.counts(999, "n1") == Counts()


async def test_a_final_delivery_is_not_planned_for(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    accepted = await ledger.accept(order("n1", "n2"))
    ledger.post_delivery_over(accepted.dispatch_id, "n1", "cancelled", "removed")
    await ledger.keep(SESSION, [instance(1)], None)
    await ledger.plan(accepted.dispatch_id)
    assert await ledger.to_send(accepted.dispatch_id, "n1") == []
    assert await ledger.to_send(accepted.dispatch_id, "n2") == [instance(1)]


async def test_counts_stay_when_the_dispatch_is_over(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    dispatch = await planned(ledger, 1, 2, 3)
    ledger.post_result(dispatch, "n1", instance(1), STORED, 0)
    ledger.post_result(dispatch, "n1", instance(2), UNKNOWN)
    before = await ledger.counts(dispatch, "n1")
    ledger.post_dispatch_over(dispatch, "failed", "node gone")
    ledger.post_dispatch_over(dispatch, "completed", None)
    ledger.post_result(dispatch, "n1", instance(3), STORED, 0)
    assert await ledger.counts(dispatch, "n1") == before == Counts(total=3, stored=1, unknown=1)
    assert await ledger.to_send(dispatch, "n1") == []
    assert await ledger.plan(dispatch) == 0


async def test_dispatches_that_are_over_can_be_forgotten(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    assert await ledger.last_dispatch_id() == 0
    old = await ledger.accept(order(correlation_id="old"))
    ledger.post_dispatch_over(old.dispatch_id, "completed", None)
    running = await ledger.accept(order(correlation_id="running"))
    late = await ledger.accept(order(correlation_id="late"))
    ledger.post_dispatch_over(late.dispatch_id, "completed", None)
    assert await ledger.forget_dispatches(up_to=running.dispatch_id) == 1
    for known in ("running", "late"):
        assert (await ledger.accept(order(correlation_id=known))).is_new is False
    assert await ledger.forget_dispatches(up_to=late.dispatch_id) == 1
    assert await ledger.last_dispatch_id() == late.dispatch_id
    again = await ledger.accept(order(correlation_id="old"))
    assert again.is_new
    assert again.dispatch_id > running.dispatch_id > old.dispatch_id


async def test_a_holding_is_replaced_and_what_nothing_needs_is_released(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    assert await ledger.cached_entity(SESSION) is None
    assert await ledger.keep(SESSION, [instance(1), instance(2)], '"v1"') == ()
    assert await ledger.cached_entity(SESSION) == CachedEntity('"v1"', 2)
    await ledger.keep(SUBJECT, [instance(2), instance(3)], None)
    orphans = await ledger.keep(SESSION, [instance(4)], '"v2"')
    assert orphans == (instance(1).sha256,)
    assert await ledger.cached_entity(SESSION) == CachedEntity('"v2"', 1)
    assert await ledger.cached_entity(SUBJECT) == CachedEntity(None, 2)
    assert (await ledger.all_objects()).keys() == {instance(n).sha256 for n in (2, 3, 4)}


async def test_objects_are_told_with_their_sizes_and_by_when_they_were_kept(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    clock = SetClock(1000.0)
    async with Ledger.open(tmp_path / "l.db", Inline(), clock=clock) as ledger:
        await ledger.keep(SESSION, [instance(1)], None)
        clock.seconds = 2000.0
        await ledger.keep(OTHER_SESSION, [instance(22, study=2)], None)
        assert await ledger.all_objects(1500.0) == {instance(22, study=2).sha256: 8}
        assert (await ledger.all_objects())[instance(1).sha256] == 7
        known = instance(1).sha256
        assert await ledger.referenced([known, "0" * 64]) == {known}


async def test_a_lost_object_drops_its_holdings_and_stays_planned(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    dispatch = await planned(ledger, 1, 2)
    await ledger.keep(OTHER_SESSION, [instance(9, study=2)], None)
    ledger.post_result(dispatch, "n1", instance(1), STORED, 0)
    ledger.post_result(dispatch, "n1", instance(2), UNKNOWN)
    assert await ledger.lose([instance(1).sha256, instance(2).sha256]) == 1
    assert await ledger.cached_entity(SESSION) is None
    assert await ledger.cached_entity(OTHER_SESSION) is not None
    assert await ledger.counts(dispatch, "n1") == Counts(total=2, stored=1, unknown=1)
    assert await ledger.to_send(dispatch, "n1") == [instance(2)]
    await ledger.keep(SESSION, [instance(1), instance(2)], '"v1"')
    assert await ledger.plan(dispatch) == 2
    assert await ledger.to_send(dispatch, "n1") == [instance(2)]
    assert await ledger.counts(dispatch, "n1") == Counts(total=2, stored=1, unknown=1)


async def test_what_nothing_needs_any_more_is_released_on_request(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    dispatch = await planned(ledger, 1)
    await ledger.keep(SESSION, [instance(1, content="b")], None)
    assert await ledger.release_unused() == ()
    ledger.post_dispatch_over(dispatch, "completed", None)
    assert await ledger.release_unused() == (instance(1).sha256,)
    assert (await ledger.all_objects()).keys() == {instance(1, content="b").sha256}


async def test_reports_keep_their_order_and_ids_grow_over_a_restart(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "ledger.db"
    async with Ledger.open(path, Inline()) as ledger:
        ids = [ledger.post_report(key, f"frame {key}") for key in "cab"]
        assert ids == sorted(ids)
        ledger.post_forget(ids[:1])
    async with Ledger.open(path, Inline()) as ledger:
        assert await ledger.reports() == [
            Report(ids[1], "a", "frame a"),
            Report(ids[2], "b", "frame b"),
        ]
        assert ledger.post_report("d", "frame d") > ids[2]


async def test_uids_and_patient_ids_are_in_no_error(
    ledger: Ledger, autojump_clock: MockClock
) -> None:
    canary = "CANARY^\udc80"
    broken = changed(instance(1), patient_id=canary)
    with pytest.raises(UnicodeEncodeError) as caught:
        await ledger.keep(SESSION, [broken], None)
    assert "CANARY" not in str(caught.value)
    assert await ledger.cached_entity(SESSION) is None
    assert uid(1) not in str(caught.value)
