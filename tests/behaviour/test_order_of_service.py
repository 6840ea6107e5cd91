"""The order of service at a real node, and the independence of nodes from a dead or slow one."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from proxy.activities.node import AGING_INSTANCES
from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.encoding import SampleInstance
from proxy.demo.frames import JsonObject
from proxy.demo.node import DemoNode
from proxy.demo.node_script import Arrival
from proxy.machines.delivery import DeliveryState
from proxy.machines.dispatch import DispatchState
from tests.support.program import (
    Program,
    configure,
    described,
    offer,
    running_program,
    some_nodes,
    uids,
)
from tests.support.waiting import PATIENCE_S

ONE_AT_A_TIME = {"associations_per_node": 1}


def places(node: DemoNode, instances: list[SampleInstance]) -> list[int]:
    """Return the places of these instances among all that arrived, counted from 0."""
    own = uids(instances)
    return [at for at, each in enumerate(node.arrivals) if each.sop_instance_uid in own]


def storing_associations(node: DemoNode) -> int:
    """Return the number of associations beside those for C-ECHO, which have one each."""
    return node.tally.associations - node.tally.echoes


async def completed(program: Program, order: str, files: int) -> None:
    """The order ended well, with every instance counted once and the counts never falling."""
    ending = await program.over(order)
    assert (ending["status"], ending["files_sent"]) == ("completed", files)
    (node_id,) = {p["node_id"] for p in program.statuses(order) if p.get("node_id")}
    stream = program.stream(order, node_id)
    for key in ("files_sent", "progress"):
        values = [payload[key] for payload in stream]
        assert values == sorted(values)


@pytest.mark.parametrize("associations", [1, 2])
async def test_an_urgent_dispatch_overtakes_a_running_one_within_an_instance(
    directory: Path,
    backend: DemoBackend,
    node: DemoNode,
    associations: int,
) -> None:
    configure(backend, [node])
    dicom = {"associations_per_node": associations}
    async with running_program(directory, backend, dicom=dicom) as program:
        await program.configured()
        node.script.delay_s = 0.03
        running, long = [], []
        for number in range(associations):
            long.append(offer(backend, f"long-{number}", slices=200, seed=number + 1))
            running.append(program.tell(frames.session_dispatch(f"long-{number}", ["a"])))
        late = offer(backend, "late", slices=20, seed=9)
        await program.until(lambda: len(node.arrivals) >= 20)
        urgent = program.tell(frames.session_dispatch("late", ["a"], priority="urgent"))
        await program.until(lambda: program.state(urgent, "a") is DeliveryState.WAITING)
        await program.dispatch(urgent).content.ready.wait()
        before = len(node.arrivals)
        await completed(program, urgent, 20)
        at = places(node, late)
        # one of them yielded after the instance in flight; the other had no reason to
        meanwhile = [sum(before <= place < at[0] for place in places(node, each)) for each in long]
        assert min(meanwhile) <= 1
        if associations == 1:
            assert at == list(range(at[0], at[0] + 20))
        node.script.delay_s = 0.0
        for order in running:
            await completed(program, order, 200)
        assert len(node.arrivals) == 200 * associations + 20
        await program.idle()


async def test_an_urgent_dispatch_of_what_waits_as_a_low_one_already_is_urgent(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    configure(backend, [node])
    async with running_program(directory, backend, dicom=ONE_AT_A_TIME) as program:
        await program.configured()
        node.script.delay_s = 0.03
        offer(backend, "long", slices=90, seed=1)
        both = offer(backend, "both", slices=10, seed=2)
        long = program.tell(frames.session_dispatch("long", ["a"]))
        await program.until(lambda: node.arrivals)
        low = program.tell(frames.session_dispatch("both", ["a"], priority="low"))
        await program.until(lambda: program.registry.nodes["a"].queue.waiting)
        urgent = program.tell(frames.session_dispatch("both", ["a"], priority="urgent"))
        await program.dispatch(urgent).content.ready.wait()
        before = len(node.arrivals)
        await completed(program, urgent, 10)
        at = places(node, both)
        assert at == list(range(at[0], at[0] + 10))
        assert at[0] - before <= 3  # it counts what the ledger has before it hurries
        node.script.delay_s = 0.0
        await completed(program, low, 10)
        await completed(program, long, 90)
        assert len(node.arrivals) == 100
        await program.idle()


async def test_each_of_equal_dispatches_gets_to_the_node_over_one_association(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    """Some systems take the release of an association for the end of a study."""
    configure(backend, [node])
    async with running_program(directory, backend, dicom=ONE_AT_A_TIME) as program:
        await program.configured()
        node.script.delay_s = 0.005
        several = [offer(backend, f"s-{n}", slices=120, seed=n) for n in range(1, 4)]
        orders = [program.tell(frames.session_dispatch(f"s-{n}", ["a"])) for n in range(1, 4)]
        for order in orders:
            await completed(program, order, 120)
        for instances in several:
            at = places(node, instances)
            assert at == list(range(at[0], at[0] + 120))
        assert storing_associations(node) == 3
        await program.idle()


async def test_a_node_with_whole_studies_gets_each_in_one_piece(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    configure(backend, [described(node, metadata={"whole_studies": True})])
    dicom = ONE_AT_A_TIME | {"turn_instances": 10}
    async with running_program(directory, backend, dicom=dicom) as program:
        await program.configured()
        node.script.delay_s = 0.01
        long = offer(backend, "long", slices=120, seed=1)
        offer(backend, "equal", slices=10, seed=2)
        offer(backend, "late", slices=10, seed=3)
        orders = [program.tell(frames.session_dispatch("long", ["a"]))]
        await program.until(lambda: node.arrivals)
        orders.append(program.tell(frames.session_dispatch("equal", ["a"])))
        orders.append(program.tell(frames.session_dispatch("late", ["a"], priority="urgent")))
        for order, files in zip(orders, (120, 10, 10), strict=True):
            await completed(program, order, files)
        assert places(node, long) == list(range(120))
        assert storing_associations(node) == 3
        await program.idle()


async def test_equal_dispatches_share_a_node_by_turns_where_they_are_wanted(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    configure(backend, [node])
    turns = ONE_AT_A_TIME | {"turn_instances": 50}
    async with running_program(directory, backend, dicom=turns) as program:
        await program.configured()
        node.script.delay_s = 0.02
        offer(backend, "long", slices=200, seed=1)
        short = offer(backend, "short", slices=10, seed=2)
        long = program.tell(frames.session_dispatch("long", ["a"]))
        await program.until(lambda: node.arrivals)
        order = program.tell(frames.session_dispatch("short", ["a"]))
        await completed(program, order, 10)
        at = places(node, short)
        assert at == list(range(at[0], at[0] + 10))
        assert 50 <= at[0] <= 2 * 50
        node.script.delay_s = 0.0
        await completed(program, long, 200)
        assert len(node.arrivals) == 210
        await program.idle()


async def test_a_low_one_is_not_starved_by_an_urgent_one(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    configure(backend, [node])
    async with running_program(directory, backend, dicom=ONE_AT_A_TIME) as program:
        await program.configured()
        node.script.delay_s = 0.02
        few = offer(backend, "few", slices=1, seed=9)
        for number in range(1, 6):
            offer(backend, f"s-{number}", slices=60, seed=number)
        first = program.tell(frames.session_dispatch("s-1", ["a"], priority="urgent"))
        await program.until(lambda: node.arrivals)
        low = program.tell(frames.session_dispatch("few", ["a"], priority="low"))
        await program.dispatch(low).content.ready.wait()
        urgent = [
            program.tell(frames.session_dispatch(f"s-{number}", ["a"], priority="urgent"))
            for number in range(2, 6)
        ]
        await completed(program, low, 1)
        for order in (first, *urgent):
            await completed(program, order, 60)
        # Nobody is interrupted for it: two urgent ones are 100 instances, and 20 more.
        assert AGING_INSTANCES < 120
        assert places(node, few) == [120]
        await program.idle()


@asynccontextmanager
async def a_dead_node() -> AsyncIterator[JsonObject]:
    """A node that takes connections and never says a word."""

    async def be_silent(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), be_silent, 0)
        port = listener.socket.getsockname()[1]
        yield frames.rest_node("dead", "DEAD", "127.0.0.1", port)
        nursery.cancel_scope.cancel("the test is over")


async def test_a_dead_or_slow_node_never_delays_another(
    directory: Path, backend: DemoBackend
) -> None:
    async with a_dead_node() as dead, some_nodes("slow", "well") as (slow, well):
        configure(backend, [dead, slow, well])
        async with running_program(directory, backend, downloads=1) as program:
            await program.configured()
            slow.script.delay_s = 60.0
            stuck = []
            for number in range(5):
                offer(backend, f"stuck-{number}", slices=3, seed=number + 1)
                event = frames.session_dispatch(
                    f"stuck-{number}", ["dead", "slow"], priority="urgent"
                )
                stuck.append(program.tell(event))
            instances = offer(backend, "sess", slices=30, seed=9)
            both = offer(backend, "both", slices=30, seed=10)
            order = program.tell(frames.session_dispatch("sess", ["well"], priority="low"))
            shared = program.tell(frames.session_dispatch("both", ["dead", "well"]))
            await completed(program, order, 30)
            assert (await program.over(shared, "well"))["status"] == "completed"
            assert well.holds.keys() == uids(instances) | uids(both)
            assert not any(program.final(each) for each in stuck)


async def test_many_orders_for_one_node_let_those_for_another_be_downloaded(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend, downloads=1) as program:
        await program.configured()
        names = [f"many-{number}" for number in range(5)] + ["one"]
        for number, name in enumerate(names):
            offer(backend, name, slices=2, seed=number + 1)
            backend.rest.archives["session", name].bytes_per_s = 20_000
        orders = [program.tell(frames.session_dispatch("many-0", ["a"]))]
        await program.until(lambda: backend.rest.downloads)
        orders += [program.tell(frames.session_dispatch(name, ["a"])) for name in names[1:-1]]
        await program.until(lambda: program.registry.downloads.waiting == 4)
        orders.append(program.tell(frames.session_dispatch("one", ["b"])))
        await program.until(lambda: program.registry.downloads.waiting == 5)
        for order in orders:
            await completed(program, order, 2)
        fetched = [request.path.split("/")[-2] for request in backend.rest.downloads]
        assert fetched[0] == "many-0"
        assert fetched.index("one") <= 2
        await program.idle()


async def test_an_urgent_order_does_not_wait_for_the_downloads_under_way(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    configure(backend, [node])
    async with running_program(directory, backend, downloads=1) as program:
        await program.configured()
        for number, name in enumerate(("long", "next", "urgent")):
            offer(backend, name, slices=4, seed=number + 1)
        backend.rest.archives["session", "long"].bytes_per_s = 1_000
        long = program.tell(frames.session_dispatch("long", ["a"]))
        await program.until(lambda: backend.rest.downloads)
        later = program.tell(frames.session_dispatch("next", ["a"], priority="high"))
        await program.until(lambda: program.registry.downloads.waiting == 1)
        urgent = program.tell(frames.session_dispatch("urgent", ["a"], priority="urgent"))
        await completed(program, urgent, 4)
        assert program.dispatch_state(long) is DispatchState.FETCHING
        assert program.dispatch_state(later) is DispatchState.QUEUED
        backend.rest.archives["session", "long"].bytes_per_s = None


async def test_no_more_is_downloaded_ahead_for_a_node_than_the_limit_says(
    directory: Path, backend: DemoBackend
) -> None:
    """A node that is stuck fills neither the disk nor anybody else's time."""
    async with some_nodes("stuck", "well") as (stuck, well):
        configure(backend, [stuck, well])
        limits = {"dispatches_per_node": 2}
        async with running_program(
            directory, backend, limits=limits, dicom={"retry_count": 100}
        ) as program:
            await program.configured()
            stuck.script.delay_s = 60.0
            for number in range(7):
                offer(backend, f"sess-{number}", slices=2, seed=number + 1)
            for number in range(4):
                program.tell(frames.session_dispatch(f"sess-{number}", ["stuck"]))
            await program.until(lambda: program.registry.downloads.waiting == 2)
            for_both = program.tell(frames.session_dispatch("sess-4", ["stuck", "well"]))
            for_well = program.tell(frames.session_dispatch("sess-5", ["well"]))
            urgent = program.tell(frames.session_dispatch("sess-6", ["stuck"], priority="urgent"))
            assert (await program.over(for_both, "well"))["status"] == "completed"
            await completed(program, for_well, 2)
            await program.dispatch(urgent).content.ready.wait()
            assert program.registry.downloads.waiting == 2
            assert len(backend.rest.downloads) == 5

            stuck.script.delay_s = 0.0
            await trio.to_thread.run_sync(stuck.stop)
            stuck.start()
            await program.until(lambda: not program.registry.dispatches)
            assert len(stuck.holds) == 12
            assert not +program.registry.nodes["stuck"].backlog
            await program.idle()


async def test_a_low_order_is_downloaded_however_many_urgent_ones_are_ahead_of_it(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    may_answer = threading.Event()
    urgent_uids: set[str] = set()

    def answer(arrival: Arrival) -> int:
        if arrival.sop_instance_uid in urgent_uids:
            may_answer.wait(PATIENCE_S)
        return 0

    configure(backend, [node])
    node.script.answer = answer
    dicom = {"associations_per_node": 4, "response_seconds": 60.0}
    limits = {"dispatches_per_node": 2}
    async with running_program(directory, backend, dicom=dicom, limits=limits) as program:
        await program.configured()
        urgent = []
        for number in range(3):
            urgent_uids |= uids(offer(backend, f"sess-{number}", slices=1, seed=number + 1))
            event = frames.session_dispatch(f"sess-{number}", ["a"], priority="urgent")
            urgent.append(program.tell(event))
        await program.until(lambda: len(node.arrivals) == 2)
        offer(backend, "low", slices=1, seed=9)
        low = program.tell(frames.session_dispatch("low", ["a"], priority="low"))
        await completed(program, low, 1)
        assert len(backend.rest.downloads) == 3
        assert not any(map(program.final, urgent))
        may_answer.set()
        for order in urgent:
            await completed(program, order, 1)
        await program.idle()
