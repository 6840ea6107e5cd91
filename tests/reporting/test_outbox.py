from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from trio.testing import MockClock, wait_all_tasks_blocked

from proxy.events.outgoing import DispatchStatusEvent
from proxy.ledger import Ledger
from proxy.reporting.outbox import Outbox, Parcel
from proxy.runtime.offload import Inline
from tests.ledger.make import SlowOffload, fast_directory
from tests.reporting.make import label_of, over, progress_of, underway


@pytest.fixture
async def ledger(tmp_path: Path, autojump_clock: MockClock) -> AsyncIterator[Ledger]:
    async with Ledger.open(tmp_path / "ledger.db", Inline()) as opened:
        yield opened


@pytest.fixture
async def outbox(ledger: Ledger) -> Outbox:
    made = Outbox(ledger)
    await made.load()
    return made


async def send_all(outbox: Outbox, within: float = 0.0) -> list[str]:
    """Take and send until nothing more comes within so many seconds; return the labels."""
    return [*map(label_of, await send_frames(outbox, within))]


async def send_frames(outbox: Outbox, within: float = 0.0) -> list[str]:
    frames = []
    while True:
        with trio.move_on_after(within + 0.001):
            parcel = await outbox.take()
            outbox.sent(parcel)
            frames.append(parcel.frame)
            continue
        return frames


async def send_progress(outbox: Outbox, within: float = 0.0) -> list[tuple[str, int]]:
    """Do as ``send_all``; return each label with its progress."""
    frames = await send_frames(outbox, within)
    return [(label_of(frame), progress_of(frame)) for frame in frames]


async def test_what_is_put_is_taken(outbox: Outbox, autojump_clock: MockClock) -> None:
    outbox.put("k", underway("10%", 10))
    assert await send_all(outbox) == ["10%"]
    outbox.put("k", over())
    assert await send_all(outbox) == ["done"]


async def test_take_waits_for_something_to_be_put(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    taken = []

    async def take() -> None:
        taken.append(label_of((await outbox.take()).frame))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.sleep(100)
        assert taken == []
        outbox.put("k", over(progress=0))
    assert taken == ["done"]


async def test_progress_is_the_latest_and_at_most_one_per_second_and_key(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    sent: list[tuple[float, str]] = []
    began = trio.current_time()

    async def link() -> None:
        while True:
            parcel = await outbox.take()
            outbox.sent(parcel)
            sent.append((round(trio.current_time() - began, 2), label_of(parcel.frame)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(link)
        for n in range(30):
            outbox.put("a", underway(f"a{n}", n))
            if n < 5:
                outbox.put("b", underway(f"b{n}", n))
            await trio.sleep(0.1)
        await trio.sleep(5)
        nursery.cancel_scope.cancel("seen enough")
    times_of_a = [time for time, label in sent if label.startswith("a")]
    assert all(b - a >= 1.0 for a, b in pairwise(times_of_a))
    assert len(times_of_a) == 4
    assert [label for _, label in sent if label.startswith("a")][-1] == "a29"
    assert [label for _, label in sent if label.startswith("b")] == ["b0", "b4"]


async def test_a_final_report_goes_at_once_and_drops_waiting_progress(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    outbox.put("k", underway("10%", 10))
    assert await send_all(outbox) == ["10%"]
    began = trio.current_time()
    outbox.put("k", underway("20%", 20))
    outbox.put("k", over())
    outbox.put("k", underway("late", 100))
    parcel = await outbox.take()
    outbox.sent(parcel)
    assert (label_of(parcel.frame), trio.current_time()) == ("done", began)
    assert await send_all(outbox, within=10) == []


async def test_final_reports_go_in_order_and_before_progress(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    outbox.put("p", underway("progress", 1))
    for n in range(5):
        outbox.put(f"k{n}", over(f"final {n}"))
    assert await send_all(outbox) == [*(f"final {n}" for n in range(5)), "progress"]


async def test_progress_never_falls(
    outbox: Outbox, ledger: Ledger, autojump_clock: MockClock
) -> None:
    outbox.put("k", underway("50", 50))
    outbox.put("k", underway("40", 40))
    assert await send_progress(outbox) == [("40", 50)]
    outbox.put("k", underway("49", 49))
    assert await send_progress(outbox, within=10) == [("49", 50)]
    outbox.put("k", underway("50 again", 50))
    assert await send_progress(outbox, within=10) == [("50 again", 50)]
    outbox.put("k", over("failed", 0, error="gone"))
    assert await send_progress(outbox) == [("failed", 50)]
    (kept,) = await ledger.reports()
    assert progress_of(kept.frame) == 50


async def test_what_a_key_has_reached_is_forgotten_with_its_final_report(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    outbox.recover("k", 40)
    outbox.put("k", underway("50", 50))
    assert (outbox.reached("k"), outbox.reached("other")) == (50, 0)
    outbox.put("k", over())
    assert outbox.reached("k") == 0
    assert await send_all(outbox, within=10) == ["done"]
    outbox.confirm(outbox.mark())
    outbox.put("k", underway("10", 10))
    assert await send_progress(outbox) == [("10", 10)]


async def test_progress_does_not_fall_below_what_an_earlier_run_has_reached(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    outbox.recover("k", 60)
    outbox.recover("k", 40)
    assert outbox.reached("k") == 60
    assert await send_all(outbox, within=10) == []
    outbox.put("k", underway("30", 30))
    assert await send_progress(outbox) == [("30", 60)]
    outbox.put("k", underway("70", 70))
    outbox.recover("k", 65)
    outbox.rewind()
    assert await send_progress(outbox, within=10) == [("70", 70)]
    outbox.put("k", over("failed", 0, error="gone"))
    assert await send_progress(outbox) == [("failed", 70)]


class Watched(DispatchStatusEvent, frozen=True, kw_only=True, tag="dispatch.status"):
    """A report whose label is noted when it is encoded."""

    encoded: ClassVar[list[str | None]] = []

    def to_dict(self) -> dict[str, Any]:
        self.encoded.append(self.entity_id)
        return super().to_dict()


async def test_progress_that_is_replaced_is_never_encoded(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    def watched(report: DispatchStatusEvent) -> Watched:
        return Watched(**structs.asdict(report))

    Watched.encoded.clear()
    for n in (*range(50), 30):
        outbox.put("k", watched(underway(f"{n}", n)))
        outbox.put("closed", watched(underway(f"closed {n}", n)))
    outbox.put("closed", watched(over()))
    assert Watched.encoded == ["done"]  # it is a row of the ledger by now
    assert await send_progress(outbox, within=10) == [("done", 100), ("30", 49)]
    assert Watched.encoded == ["done", "30"]
    outbox.put("k", watched(underway("50", 50)))
    outbox.put("k", watched(over("done too")))
    assert await send_all(outbox, within=10) == ["done too"]
    assert Watched.encoded == ["done", "30", "done too"]


async def test_nothing_leaves_before_the_ledger_has_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    slow = SlowOffload()
    async with Ledger.open(tmp_path / "l.db", slow) as ledger:
        outbox = Outbox(ledger)
        slow.seconds = 3.0
        began = trio.current_time()
        ledger.post_document("stored", b"40")
        outbox.put("k", underway("40 stored", 40))
        parcels: list[Parcel] = []

        async def take() -> None:
            parcels.append(await outbox.take())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.sleep(1.0)
            # This claim is not durable when the former one is: it must not take its place.
            ledger.post_document("stored", b"41")
            outbox.put("k", underway("41 stored", 41))
            await trio.sleep(1.0)
            assert parcels == []
        assert [(label_of(p.frame), progress_of(p.frame)) for p in parcels] == [("40 stored", 40)]
        assert trio.current_time() - began >= 3.0
        outbox.sent(parcels[0])
        assert await send_all(outbox, within=10) == ["41 stored"]


async def test_progress_overtaken_by_the_final_report_is_not_sent_after_all(
    outbox: Outbox, ledger: Ledger, autojump_clock: MockClock
) -> None:
    taken: list[str] = []

    async def take() -> None:
        taken.append(label_of((await outbox.take()).frame))

    ledger.post_document("stored", b"40")
    outbox.put("k", underway("40", 40))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.lowlevel.checkpoint()
        outbox.put("k", over())
    assert taken == ["done"]
    assert outbox._progress == {}


async def test_a_cancelled_take_has_taken_nothing(
    outbox: Outbox, ledger: Ledger, autojump_clock: MockClock
) -> None:
    outbox.put("k", over())
    with trio.CancelScope() as scope:
        scope.cancel("link lost")
        await outbox.take()
    assert await send_all(outbox) == ["done"]


async def test_a_report_is_unproven_until_what_followed_it_is_answered(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    for n in range(3):
        outbox.put(f"k{n}", over(f"f{n}"))
    outbox.sent(await outbox.take())
    outbox.sent(await outbox.take())
    mark = outbox.mark()
    outbox.sent(await outbox.take())
    assert outbox.queued == 3
    outbox.confirm(mark)
    assert [outbox.keeps(f"k{n}") for n in range(3)] == [False, False, True]
    assert outbox.queued == 1
    outbox.confirm(mark)
    outbox.confirm(outbox.mark())
    assert outbox.queued == 0
    outbox.rewind()
    assert await send_all(outbox) == []


# Proven, and kept for an hour -------------------------------------------------------------------

AN_HOUR_S = 3600.0
A_WHILE_S = 10.0


async def prove(outbox: Outbox, *labels: str) -> None:
    """Put and send final reports, each under its label as key, and have them proven."""
    for label in labels:
        outbox.put(label, over(label))
        assert await send_all(outbox) == [label]
    outbox.confirm(outbox.mark())


async def rows(ledger: Ledger) -> list[str]:
    """The labels of the reports that the ledger keeps."""
    return [label_of(report.frame) for report in await ledger.reports()]


async def test_a_final_report_is_forgotten_an_hour_after_its_proof(
    outbox: Outbox, ledger: Ledger, autojump_clock: MockClock
) -> None:
    await prove(outbox, "early")
    await trio.sleep(60)
    await prove(outbox, "late")
    await trio.sleep(AN_HOUR_S - 60)
    assert await rows(ledger) == ["early", "late"]
    outbox.confirm(outbox.mark())
    assert await rows(ledger) == ["late"]
    await trio.sleep(60)
    outbox.confirm(outbox.mark())
    assert await rows(ledger) == []


async def test_what_was_proven_on_an_earlier_link_is_said_once_more_on_each(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    await prove(outbox, "old")
    await trio.sleep(AN_HOUR_S)
    await prove(outbox, "first", "second")
    for _ in range(3):
        outbox.rewind()
        await prove(outbox, "of this link")
        assert await send_all(outbox, within=A_WHILE_S) == ["first", "second"]
        outbox.confirm(outbox.mark())
        assert await send_all(outbox, within=A_WHILE_S) == []
        outbox.put("of this link", underway("opened", 0))  # so that it is not kept
        assert await send_all(outbox) == ["opened"]


async def test_a_kept_report_is_said_after_the_unproven_and_not_on_a_short_link(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    await prove(outbox, "proven")
    outbox.put("unproven", over("unproven"))
    outbox.put("p", underway("progress", 1))
    for _ in range(30):
        outbox.rewind()
        assert await send_all(outbox, within=2.0) == ["unproven", "progress"]
    assert await send_all(outbox, within=A_WHILE_S) == ["proven"]


async def test_an_hour_without_a_link_is_no_hour(
    outbox: Outbox, ledger: Ledger, autojump_clock: MockClock
) -> None:
    await prove(outbox, "proven")
    await trio.sleep(AN_HOUR_S / 2)
    outbox.confirm(outbox.mark())
    await trio.sleep(5 * AN_HOUR_S)
    outbox.rewind()
    outbox.confirm(outbox.mark())
    assert await send_all(outbox, within=A_WHILE_S) == ["proven"]
    await trio.sleep(AN_HOUR_S / 2)
    outbox.confirm(outbox.mark())
    assert await rows(ledger) == []


async def test_what_is_kept_is_neither_queued_nor_waited_for(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    await prove(outbox, "k")
    outbox.rewind()
    await trio.sleep(A_WHILE_S)
    repeat = await outbox.take()
    outbox.sent(repeat)
    assert (label_of(repeat.frame), outbox.queued, outbox.keeps("k")) == ("k", 0, False)
    outbox.rewind()
    await trio.sleep(A_WHILE_S)
    with trio.move_on_after(0):
        await outbox.take()  # it is cancelled: from now on the report waits to be taken
    with trio.fail_after(1):
        await outbox.flushed()
    outbox.put("new", over("new"))
    with trio.move_on_after(A_WHILE_S) as waiting:
        await outbox.flushed()
    assert waiting.cancelled_caught
    assert await send_all(outbox) == ["k", "new"]
    await outbox.flushed()


@pytest.mark.parametrize("is_final", [True, False])
async def test_the_next_report_of_its_key_takes_the_place_of_a_kept_one(
    outbox: Outbox, ledger: Ledger, autojump_clock: MockClock, is_final: bool
) -> None:
    await prove(outbox, "k", "other")
    outbox.rewind()
    await trio.sleep(A_WHILE_S)
    outbox.put("k", over("again") if is_final else underway("again", 5))
    assert await rows(ledger) == (["other", "again"] if is_final else ["other"])
    assert sorted(await send_all(outbox, within=A_WHILE_S)) == ["again", "other"]
    outbox.confirm(outbox.mark())
    outbox.rewind()
    assert await send_all(outbox, within=A_WHILE_S) == (
        ["other", "again"] if is_final else ["other"]
    )


async def test_a_kept_report_that_is_replaced_while_it_is_taken_is_not_said(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    slow = SlowOffload()
    async with Ledger.open(tmp_path / "l.db", slow) as ledger:
        outbox = Outbox(ledger)
        await outbox.load()
        await prove(outbox, "k")
        outbox.rewind()
        await trio.sleep(A_WHILE_S)
        slow.seconds = 3.0
        taken: list[str] = []

        async def take() -> None:
            taken.append(label_of((await outbox.take()).frame))

        async with trio.open_nursery() as nursery:
            ledger.post_document("any", b"not durable yet")
            nursery.start_soon(take)
            await trio.sleep(1.0)
            outbox.put("k", underway("a new stream", 0))
        assert taken == ["a new stream"]


async def test_a_thousand_proven_reports_are_kept_at_most(
    outbox: Outbox, ledger: Ledger, autojump_clock: MockClock
) -> None:
    await prove(outbox, *map(str, range(1005)))
    newest = [str(n) for n in range(5, 1005)]
    assert await rows(ledger) == newest
    outbox.rewind()
    assert await send_all(outbox, within=A_WHILE_S) == newest


# A new link -------------------------------------------------------------------------------------


async def test_a_new_link_takes_again_what_is_unproven_in_its_order(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    for n in range(4):
        outbox.put(f"k{n}", over(f"f{n}"))
    outbox.sent(await outbox.take())
    proven = outbox.mark()
    outbox.sent(await outbox.take())
    stale = outbox.mark()
    await outbox.take()  # and the link is lost while it is being sent
    outbox.confirm(proven)
    outbox.rewind()
    outbox.confirm(stale)  # a pong of the old link proves nothing on the new one
    assert await send_all(outbox) == ["f1", "f2", "f3"]
    outbox.rewind()
    assert await send_all(outbox) == ["f1", "f2", "f3"]


async def test_a_new_link_is_told_the_latest_progress_again(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    for key in "abc":
        outbox.put(key, underway(f"{key}10", 10))
    assert await send_all(outbox) == ["a10", "b10", "c10"]
    outbox.put("a", underway("a20", 20))
    outbox.put("b", over("b done"))
    outbox.rewind()
    assert sorted(await send_all(outbox, within=10)) == ["a20", "b done", "c10"]


async def test_parcels_are_sent_as_they_were_taken(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    outbox.put("a", over("a"))
    outbox.put("b", over("b"))
    await outbox.take()
    second = await outbox.take()
    with pytest.raises(ValueError, match="order"):
        outbox.sent(second)


async def test_a_key_may_be_closed_twice_and_is_open_again_when_both_are_proven(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    outbox.put("k", over())
    outbox.put("k", over("done again"))
    outbox.sent(await outbox.take())
    outbox.confirm(outbox.mark())
    outbox.rewind()
    assert await send_all(outbox, within=10) == ["done again"]  # and not the first once more
    outbox.put("k", underway("late", 5))
    assert await send_all(outbox, within=10) == []
    outbox.confirm(outbox.mark())
    outbox.put("k", underway("again", 5))
    assert await send_all(outbox) == ["again"]


async def test_final_reports_survive_a_restart_and_keep_their_keys_closed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "ledger.db"
    async with Ledger.open(path, Inline()) as ledger:
        outbox = Outbox(ledger)
        await outbox.load()
        for n in range(3):
            outbox.put(f"k{n}", over(f"f{n}"))
        outbox.sent(await outbox.take())
    async with Ledger.open(path, Inline()) as ledger:
        outbox = Outbox(ledger)
        await outbox.load()
        outbox.put("k1", underway("late", 100))
        outbox.put("k3", over("f3"))
        assert await send_all(outbox, within=10) == ["f0", "f1", "f2", "f3"]
        outbox.confirm(outbox.mark())
    async with Ledger.open(path, Inline()) as ledger:
        outbox = Outbox(ledger)
        await outbox.load()  # which are proven is not known any more
        assert await send_all(outbox) == ["f0", "f1", "f2", "f3"]
        outbox.confirm(outbox.mark())
        await trio.sleep(AN_HOUR_S)
        outbox.confirm(outbox.mark())
    async with Ledger.open(path, Inline()) as ledger:
        assert await ledger.reports() == []


async def test_flushed_waits_until_the_last_final_report_is_sent(
    outbox: Outbox, autojump_clock: MockClock
) -> None:
    await outbox.flushed()
    outbox.put("a", over("a"))
    outbox.put("b", over("b"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.flushed)
        outbox.sent(await outbox.take())
        last = await outbox.take()
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        outbox.sent(last)


moves = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 99)),
    st.tuples(st.just("final"), st.sampled_from("abc"), st.just(100)),
    st.tuples(st.sampled_from(["take", "ping", "pong", "cut"]), st.just(""), st.just(0)),
    st.tuples(st.just("wait"), st.just(""), st.sampled_from([0.7, 6.0])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(moves, max_size=40))
def test_whatever_happens_ith_hears_each_end_and_nothing_falls(
    script: list[tuple[str, str, float]],
) -> None:
    async def main(path: Path) -> None:
        heard: list[list[tuple[str, int]]] = [[]]
        finals: list[str] = []
        marks: list[int] = []
        async with Ledger.open(path, Inline()) as ledger:
            outbox = Outbox(ledger)
            await outbox.load()

            async def link() -> None:
                with trio.move_on_after(0.001):
                    parcel = await outbox.take()
                    outbox.sent(parcel)
                    heard[-1].append((label_of(parcel.frame), progress_of(parcel.frame)))

            for move, key, value in script:
                match move:
                    case "put" if key not in finals:
                        outbox.put(key, underway(key, int(value)))
                    case "final" if key not in finals:
                        outbox.put(key, over(key, int(value)))
                        finals.append(key)
                    case "take":
                        await link()
                    case "ping":
                        marks.append(outbox.mark())
                    case "pong" if marks:
                        outbox.confirm(marks.pop(0))
                    case "cut":
                        marks.clear()
                        outbox.rewind()
                        heard.append([])
                    case "wait":
                        await trio.sleep(value)
                    case _:
                        pass
            heard.append([])
            outbox.rewind()
            for _ in range(20):
                await link()
                await trio.sleep(0.5)
            for on_one_link in heard:
                for key in "abc":
                    values = [v for k, v in on_one_link if k == key]
                    assert values == sorted(values)
                    assert values.count(100) <= 1
            everything = [pair for on_one_link in heard for pair in on_one_link]
            assert {k for k, v in everything if v == 100} == set(finals)
            assert {k for k, v in heard[-1] if v == 100} == set(finals)  # proven before, or not
            outbox.confirm(outbox.mark())
            assert outbox.queued == 0
            await trio.sleep(AN_HOUR_S)
            outbox.confirm(outbox.mark())
            assert await ledger.reports() == []

    with fast_directory() as directory:
        trio.run(main, directory / "l.db", clock=MockClock(autojump_threshold=0))
