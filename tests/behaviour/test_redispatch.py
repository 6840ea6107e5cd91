"""The same entity for the same node once more: at the same time, later, or after a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from proxy.demo import frames
from proxy.demo.archives import zip_session
from proxy.demo.backend import DemoBackend
from proxy.demo.node import DemoNode
from proxy.demo.sample import Study, ct_series
from proxy.machines.delivery import DeliveryProgress, DeliveryState
from proxy.machines.dispatch import DispatchState
from proxy.machines.node import NodeState
from proxy.nodes import Repush
from tests.support.clocks import Always
from tests.support.program import (
    Program,
    configure,
    described,
    offer,
    running_program,
    some_nodes,
    uids,
)


@pytest.fixture
async def nodes(backend: DemoBackend, nodes: list[DemoNode]) -> list[DemoNode]:
    configure(backend, nodes)
    return nodes


def dispatch(program: Program, *node_ids: str, session_id: str = "sess-1") -> str:
    return program.tell(frames.session_dispatch(session_id, list(node_ids)))


def assert_sound(program: Program, order: str, node_ids: str, files: int) -> None:
    """Each node's stream, and the closing one, end once and tell the truth."""
    for node_id in (*node_ids, None):
        stream = program.stream(order, node_id)
        assert [p["status"] for p in stream].count("completed") == 1
        assert stream[-1]["status"] == "completed"
        assert stream[-1]["files_sent"] == files * (1 if node_id else len(node_ids))
        assert [p["progress"] for p in stream] == sorted(p["progress"] for p in stream)


# At the same time -----------------------------------------------------------------------------


@pytest.mark.parametrize("repush", ["all", "new", "never"])
@pytest.mark.parametrize("moment", ["at once", "downloading", "sending"])
async def test_two_orders_at_a_time_are_one_download_and_one_delivery(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], moment: str, repush: Repush
) -> None:
    instances = offer(backend, slices=8)
    for node in nodes:
        node.script.delay_s = 0.03
    if moment == "downloading":
        backend.rest.archives["session", "sess-1"].bytes_per_s = 30_000
    async with running_program(directory, backend, repush=repush) as program:
        await program.configured()
        first = dispatch(program, "a")
        if moment == "downloading":
            await program.until(lambda: program.dispatch_state(first) is DispatchState.FETCHING)
        if moment == "sending":
            await program.until(lambda: len(nodes[0].holds) >= 3)
        second = dispatch(program, "a", "b")
        for order in (first, second):
            assert (await program.over(order))["status"] == "completed"
        await program.idle()
        assert [len(node.arrivals) for node in nodes] == [8, 8]
        assert all(node.holds.keys() == uids(instances) for node in nodes)
        assert sum(d.sent > 0 and d.status == 200 for d in backend.rest.downloads) == 1
        assert_sound(program, first, "a", 8)
        assert_sound(program, second, "ab", 8)
        assert "processing" in {p["status"] for p in program.stream(second, "a")}
        assert program.registry.nodes["a"].leaders == {}


async def test_who_joins_is_told_how_far_the_delivery_is(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend, slices=8)
    nodes[0].script.delay_s = 0.06
    async with running_program(directory, backend) as program:
        await program.configured()
        dispatch(program, "a")
        second = dispatch(program, "a")
        await program.over(second)
        sent = {p["files_sent"] for p in program.stream(second, "a")}
        assert len(sent & set(range(1, 8))) >= 4


async def test_who_joins_goes_on_where_the_first_gives_up(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    instances = offer(backend, slices=6)
    nodes[0].script.abort_at = 3
    nodes[0].script.delay_s = 0.03
    async with running_program(directory, backend, dicom={"retry_count": 0}) as program:
        await program.configured()
        first = dispatch(program, "a")
        await program.until(lambda: program.state(first, "a") is DeliveryState.STORING)
        second = dispatch(program, "a")
        assert (await program.over(first, "a"))["files_sent"] == 2
        assert (await program.over(second, "a"))["status"] == "completed"
        assert nodes[0].holds.keys() == uids(instances)
        assert len(nodes[0].arrivals) == 7
        await program.idle()


async def test_a_restart_keeps_what_was_joined(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend, slices=8)
    nodes[0].script.delay_s = 0.05
    async with running_program(directory, backend, repush="all") as program:
        await program.configured()
        first, second = dispatch(program, "a"), dispatch(program, "a")
        await program.until(lambda: len(nodes[0].holds) >= 3)
    async with running_program(directory, backend, repush="all") as program:
        await program.configured()
        for order in (first, second):
            assert (await program.over(order))["files_sent"] == 8
        assert len(nodes[0].arrivals) <= 9
        await program.idle()


async def test_a_hold_and_a_deletion_reach_both(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    instances = offer(backend, slices=8)
    nodes[0].script.delay_s = 0.05
    async with running_program(directory, backend) as program:
        await program.configured()
        orders = [dispatch(program, "a"), dispatch(program, "a")]
        await program.until(lambda: len(nodes[0].holds) >= 2)
        program.tell(frames.status_changed(is_active=False))
        for order in orders:
            await program.until(
                lambda order=order: program.state(order, "a") is DeliveryState.HELD  # type: ignore[misc]
            )
        program.tell(frames.status_changed(is_active=True))
        await program.until(lambda: len(nodes[0].holds) >= 4)
        uid = instances[0].study_instance_uid
        program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
        for order in orders:
            assert (await program.over(order))["error"].startswith(
                "session deleted in ITH; a node keeps"
            )
        await program.idle()
        assert len(nodes[0].arrivals) == len(nodes[0].holds) < 8


async def test_who_ends_in_the_instant_in_which_it_might_lead_does_not(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    """The first one waits for the end of a C-ECHO, which a deletion ends at once, as it does all.

    Of those that follow, some hear of the first one's end before they are cancelled.
    """
    instances = offer(backend)
    nodes[0].script.echo_delay_s = 30.0
    async with running_program(directory, backend, dicom={"echo_seconds": 30.0}) as program:
        await program.configured()
        orders = [dispatch(program, "a") for _ in range(12)]

        def count(state: DeliveryState) -> int:
            at_work = [program.delivery(order, "a").run for order in orders]
            return sum(run.state is state and run.data.files_total > 0 for run in at_work)

        await program.until(lambda: count(DeliveryState.STORING) == 1)
        await program.until(lambda: count(DeliveryState.WAITING) == 11)
        await program.services.ledger.settled()
        await trio.testing.wait_all_tasks_blocked(0.01)
        uid = instances[0].study_instance_uid
        program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
        for order in orders:
            assert (await program.over(order))["status"] == "failed"
        await program.idle()
        assert program.registry.nodes["a"].leaders == {}


# Later ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("repush", "times"), [("all", 2), ("new", 1), ("never", 1)])
@pytest.mark.parametrize("by_node", [False, True])
async def test_a_later_order_sends_what_the_policy_says(  # noqa: PLR0917
    directory: Path,
    backend: DemoBackend,
    nodes: list[DemoNode],
    repush: Repush,
    times: int,
    by_node: bool,
) -> None:
    offer(backend)
    elsewise: Repush = "new" if repush == "all" else "all"
    if by_node:
        configure(backend, [described(nodes[0], metadata={"repush": repush})])
    async with running_program(
        directory, backend, repush=elsewise if by_node else repush
    ) as program:
        await program.configured()
        for _ in range(2):
            order = dispatch(program, "a")
            assert (await program.over(order))["status"] == "completed"
            assert_sound(program, order, "a", 4)
            await program.idle()
        assert len(nodes[0].arrivals) == 4 * times


async def test_nothing_new_needs_no_node(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend)
    async with running_program(directory, backend) as program:
        await program.configured()
        await program.over(dispatch(program, "a"))
        await trio.to_thread.run_sync(nodes[0].stop)
        order = dispatch(program, "a")
        assert (await program.over(order))["status"] == "completed"
        assert_sound(program, order, "a", 4)


@pytest.mark.parametrize("repush", ["new", "never"])
async def test_only_changed_content_is_sent_again(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], repush: Repush
) -> None:
    old = ct_series(Study(1), slices=4, size=16)
    new = ct_series(Study(1), slices=5, size=24)  # other pixels under the same UIDs, and one more
    assert uids(old) < uids(new)
    backend.rest.offer("session", "sess-1", zip_session(old))
    async with running_program(directory, backend, repush=repush) as program:
        await program.configured()
        await program.over(dispatch(program, "a"))
        backend.rest.offer("session", "sess-1", zip_session([*old[:2], *new[2:]]))
        ending = await program.over(dispatch(program, "a"))
        if repush == "new":
            assert (ending["status"], ending["files_sent"]) == ("completed", 5)
            assert len(nodes[0].arrivals) == 4 + 3
        else:
            assert (ending["status"], ending["files_sent"]) == ("failed", 3)
            assert "2 of 5" in ending["error"]
            assert "repush" in ending["error"]
            assert len(nodes[0].arrivals) == 4 + 1
        await program.idle()


@pytest.mark.parametrize("answer", [0xC000, 0xA700, 0x0111])
async def test_only_what_the_node_confirmed_is_taken_for_sent(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], answer: int
) -> None:
    offer(backend)
    nodes[0].script.answer = lambda arrival: answer if arrival.ordinal == 2 else 0
    async with running_program(directory, backend, dicom={"retry_count": 0}) as program:
        await program.configured()
        await program.over(dispatch(program, "a"))
        before = len(nodes[0].arrivals)
        nodes[0].script.answer = lambda _: 0
        order = dispatch(program, "a")
        assert (await program.over(order))["status"] == "completed"
        again = 1 if answer in {0xC000, 0x0111} else 4 - 1
        assert len(nodes[0].arrivals) - before == again


async def test_a_node_at_another_address_is_another_node(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend)
    async with running_program(directory, backend) as program:
        await program.configured()
        await program.over(dispatch(program, "a"))
        await program.over(dispatch(program, "b"))
        configure(backend, [described(nodes[1], id="a")])
        program.supervisor.came_online()
        await program.until(lambda: program.registry.nodes["a"].configured.port == nodes[1].port)
        await program.over(dispatch(program, "a"))  # it has it all from when it was called b
        assert [len(node.arrivals) for node in nodes] == [4, 4]
        async with some_nodes("c") as (third,):
            configure(backend, [described(third, id="a")])
            program.supervisor.came_online()
            await program.until(lambda: program.registry.nodes["a"].configured.port == third.port)
            await program.over(dispatch(program, "a"))
            assert len(third.arrivals) == 4


async def test_what_was_deleted_is_forgotten(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    instances = offer(backend)
    async with running_program(directory, backend) as program:
        await program.configured()
        await program.over(dispatch(program, "a"))
        uid = instances[0].study_instance_uid
        program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
        await program.until(lambda: program.services.pacs.usage_gb == 0)
        await program.over(dispatch(program, "a"))
        assert len(nodes[0].arrivals) == 8


# After a restart ------------------------------------------------------------------------------


async def test_a_back_off_outlasts_a_restart(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend)
    nodes[0].script.answer = lambda _: 0xA700
    waits = {"retry_delay_seconds": 2.0, "retry_max_seconds": 2.0, "retry_count": 2}
    order, due = "", 0.0
    for attempts in (1, 2):
        async with running_program(directory, backend, dicom=waits, rng=Always(0.5)) as program:
            await program.configured()
            order = order or dispatch(program, "a")
            due = await the_back_off_after(program, order, attempts, due)
            assert len(nodes[0].arrivals) == attempts
    async with running_program(directory, backend, dicom=waits) as program:
        await program.configured()
        ending = await program.over(order, "a")
        assert (ending["status"], len(nodes[0].arrivals)) == ("failed", 3)
        assert trio.current_time() >= due - 0.1


async def test_a_node_corrected_in_a_pause_is_tried_at_once_after_it(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    """The back-off that outlasted the restart was from another address."""
    offer(backend)
    wrong = {**described(nodes[0]), "port": 1}
    configure(backend, [wrong])
    waits = {"retry_delay_seconds": 300.0, "retry_max_seconds": 300.0}
    async with running_program(directory, backend, dicom=waits) as program:
        await program.configured()
        order = dispatch(program, "a")
        await program.until(lambda: program.state(order, "a") is DeliveryState.BACKING_OFF)
        program.supervisor.pause("new switch")
        await program.services.ledger.settled()
    async with running_program(directory, backend, dicom=waits) as program:
        await program.until(lambda: program.state(order, "a") is DeliveryState.HELD)
        configure(backend, nodes[:1])
        program.supervisor.came_online()
        await program.until(lambda: program.registry.nodes["a"].configured.port == nodes[0].port)
        program.supervisor.resume()
        assert (await program.over(order))["status"] == "completed"


async def test_a_node_that_comes_back_in_a_pause_after_a_restart_gets_no_attempt_more(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend)
    waits = {"retry_delay_seconds": 300.0, "retry_max_seconds": 300.0, "retry_count": 1}
    nodes[0].script.answer = lambda _: 0xA700
    await trio.to_thread.run_sync(nodes[0].stop)
    async with running_program(directory, backend, dicom=waits) as program:
        await program.configured()
        order = dispatch(program, "a")
        await program.until(lambda: program.state(order, "a") is DeliveryState.BACKING_OFF)
        program.supervisor.pause("new switch")
        await program.services.ledger.settled()
    nodes[0].start()
    async with running_program(directory, backend, dicom=waits) as program:
        await program.configured()
        await program.until(lambda: program.state(order, "a") is DeliveryState.HELD)
        await program.until(lambda: program.registry.nodes["a"].run.state is NodeState.ONLINE)
        program.supervisor.resume()
        assert (await program.over(order, "a"))["status"] == "failed"
        assert len(nodes[0].arrivals) == 1


async def the_back_off_after(program: Program, order: str, attempts: int, due: float) -> float:
    """Wait for an attempt, which must not be made before it is due; return when the next is."""

    def data() -> DeliveryProgress:
        return program.delivery(order, "a").run.data

    await program.until(lambda: program.state(order, "a"))
    before = trio.current_time()
    while data().attempts < attempts:
        before = trio.current_time()
        await trio.sleep(0.003)
    assert trio.current_time() >= due - 0.1
    assert program.state(order, "a") is DeliveryState.BACKING_OFF
    await trio.sleep(0.1)
    return before + data().retry_in


async def test_damaged_entries_are_counted_after_a_restart(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    instances = ct_series(Study(1), slices=4, size=16)
    broken = replace(instances[3], content=instances[3].content[:200])
    archive = zip_session([*instances[:3], broken])
    backend.rest.offer("session", "sess-1", archive)
    nodes[0].script.delay_s = 0.05
    async with running_program(directory, backend) as program:
        await program.configured()
        order = dispatch(program, "a")
        await program.until(lambda: len(nodes[0].holds) >= 1)
    async with running_program(directory, backend) as program:
        await program.configured()
        ending = await program.over(order, "a")
        assert (ending["status"], ending["files_sent"], ending["files_total"]) == ("failed", 3, 4)
        await program.over(order)
        await program.idle()
        program.tell(frames.session_dispatch("sess-1", ["a"], correlation_id=order))
        await program.until(lambda: len(program.finals(order)) == 4)
        assert {p["files_total"] for p in program.finals(order)} == {4}
