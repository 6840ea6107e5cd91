"""A node with less room than it is given: fewer associations, no failed delivery, then more."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from proxy.control.messages import NodeStatus
from proxy.control.status import node_status
from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.node import DemoNode
from proxy.demo.node_script import Arrival, NodeScript
from proxy.machines.node import NODE, NodeState
from tests.support.house import House, a_house, configure, described, in_event, offer, uids
from tests.support.observed import rows_taken
from tests.support.peers import storescp
from tests.support.waiting import PATIENCE_S

OUT_OF_RESOURCES = 0xA700


def given(house: House) -> int:
    """How many associations the node is given at a time."""
    return house.registry.nodes["a"].queue.limit


def status_of(house: House) -> NodeStatus:
    """What the operator is shown of the node."""
    return node_status(house.registry.nodes["a"])


@pytest.mark.parametrize("room", [1, 2])
async def test_a_node_that_takes_few_associations_fails_no_delivery_of_many(
    directory: Path, backend: DemoBackend, room: int
) -> None:
    node = DemoNode("A", node_id="a", maximum_associations=room, script=NodeScript(delay_s=0.05))
    async with node.running():
        configure(backend, [node])
        # no attempt may fail: what finds no room waits for what is there to end
        dicom = {"associations_per_node": 4, "retry_count": 0, "echo_interval_seconds": 5.0}
        async with a_house(directory, backend, dicom=dicom) as house:
            await house.configured()
            await house.online()
            sent = set()
            orders = []
            for number in range(8):
                sent |= uids(offer(backend, f"sess-{number}", slices=6, seed=number + 1))
                orders.append(house.tell(frames.session_dispatch(f"sess-{number}", ["a"])))
            for order in orders:
                assert (await house.over(order))["status"] == "completed"
            await house.idle()
            assert node.holds.keys() == sent
            assert len(node.arrivals) == len(sent)
            assert node.tally.rejections >= 1
            assert given(house) <= 2
            assert house.registry.nodes["a"].run.state is NodeState.ONLINE


async def test_a_delivery_is_not_refused_for_the_sake_of_our_own_echo(
    directory: Path, backend: DemoBackend
) -> None:
    node = DemoNode("A", node_id="a", maximum_associations=1, script=NodeScript(echo_delay_s=0.7))
    async with node.running():
        configure(backend, [node])
        async with a_house(directory, backend, dicom={"retry_count": 0}) as house:
            await house.configured()
            offer(backend)
            order = house.tell(frames.session_dispatch("sess-1", ["a"]))
            at = house.registry.nodes["a"]
            await house.until(lambda: at.queue.in_use)
            assert at._echo.locked()
            assert (await house.over(order))["status"] == "completed"
            assert not node.tally.rejections


@pytest.mark.needs("storescp")
async def test_a_node_that_lets_the_second_association_wait_in_silence_is_not_at_fault(
    directory: Path, backend: DemoBackend, tmp_path: Path
) -> None:
    """DCMTK's storescp, as installed, is at one association and does not answer the next."""
    with rows_taken(NODE) as told, storescp(tmp_path, "--sleep-after", "1") as scp:
        configure(backend, [frames.rest_node("a", scp.ae_title, scp.host, scp.port)])
        dicom = {"associations_per_node": 2, "retry_count": 0, "answer_seconds": 1.0}
        async with a_house(directory, backend, dicom=dicom) as house:
            await house.configured()
            await house.online()
            for number, slices in enumerate((4, 1, 1)):
                offer(backend, f"sess-{number}", slices=slices, seed=number + 1)
            long = house.tell(frames.session_dispatch("sess-0", ["a"]))
            at = house.registry.nodes["a"]
            await house.until(lambda: at.established)
            others = [house.tell(frames.session_dispatch(f"sess-{n}", ["a"])) for n in (1, 2)]
            for order in (long, *others):
                assert (await house.over(order))["status"] == "completed"
            await house.idle()
            assert given(house) == 1
            assert at.run.state is NodeState.ONLINE
            assert not at.established
            assert not {"NOD-02", "NOD-03"} & {*told}


async def test_a_node_that_is_out_of_resources_is_given_fewer_and_then_more_again(
    directory: Path, backend: DemoBackend
) -> None:
    complains = True

    def answer(_: Arrival) -> int:
        return OUT_OF_RESOURCES if complains else 0

    node = DemoNode("A", node_id="a", script=NodeScript(answer=answer))
    async with node.running():
        configure(backend, [node])
        dicom = {"associations_per_node": 4, "retry_count": 100}
        async with a_house(directory, backend, dicom=dicom) as house:
            await house.configured()
            await house.online()
            for number in range(3):
                offer(backend, f"sess-{number}", slices=120, seed=number + 1)
                house.tell(frames.session_dispatch(f"sess-{number}", ["a"]))
            await house.until(lambda: given(house) == 1)
            assert status_of(house).associations == 1
            complains = False
            await house.until(lambda: not house.registry.dispatches)
            assert given(house) == 4
            assert status_of(house).associations is None
            assert len(node.holds) == 360


async def test_one_congestion_halves_once_however_late_each_one_complains(
    directory: Path, backend: DemoBackend
) -> None:
    may_complain = [threading.Event() for _ in range(8)]

    def answer(arrival: Arrival) -> int:
        may_complain[arrival.ordinal - 1].wait(PATIENCE_S)
        return OUT_OF_RESOURCES

    node = DemoNode("A", node_id="a", script=NodeScript(answer=answer))
    async with node.running():
        configure(backend, [node])
        dicom = {"associations_per_node": 8, "retry_delay_seconds": 60.0}
        dicom["retry_max_seconds"] = 60.0  # within the test nobody tries again
        async with a_house(directory, backend, dicom=dicom) as house:
            await house.configured()
            await house.online()
            for number in range(8):
                offer(backend, f"sess-{number}", slices=1, seed=number + 1)
                house.tell(frames.session_dispatch(f"sess-{number}", ["a"]))
            await house.until(lambda: len(node.arrivals) == 8)
            at = house.registry.nodes["a"]
            for left in range(7, -1, -1):
                may_complain[left].set()
                await house.until(lambda left=left: at.queue.in_use == left)  # type: ignore[misc]
                assert given(house) == 4


async def test_an_echo_that_finds_no_room_beside_our_own_delivery_is_no_failure(
    directory: Path, backend: DemoBackend
) -> None:
    node = DemoNode("A", node_id="a", maximum_associations=1, script=NodeScript(delay_s=0.3))
    with rows_taken(NODE) as told:
        async with node.running():
            configure(backend, [node])
            async with a_house(directory, backend, dicom={"echo_seconds": 1.0}) as house:
                await house.configured()
                await house.online()
                offer(backend, slices=12)
                order = house.tell(frames.session_dispatch("sess-1", ["a"]))
                await house.until(lambda: node.arrivals)
                # known by another name the node is new, and asked while an instance is in flight
                changed = in_event(node, calling_ae_title="OTHER")
                house.tell(frames.nodes_changed([changed]))
                configure(backend, [described(node, calling_ae_title="OTHER")])
                ending = await house.over(order)
                assert (ending["status"], ending["files_sent"]) == ("completed", 12)
                assert len(node.arrivals) == 12
                assert node.tally.rejections >= 1
                assert node.tally.calling_ae_titles == {"DICOM_PROXY", "OTHER"}
                assert "NOD-09" in told
                assert not {"NOD-02", "NOD-03"} & {*told}
