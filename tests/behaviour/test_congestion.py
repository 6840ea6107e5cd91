"""A node that accepts fewer associations: a lower limit, no failed delivery, a higher one later."""

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
from tests.support.observed import rows_taken
from tests.support.peers import storescp
from tests.support.program import (
    Program,
    configure,
    described,
    in_event,
    offer,
    running_program,
    uids,
)
from tests.support.waiting import PATIENCE_S

OUT_OF_RESOURCES = 0xA700


def given(program: Program) -> int:
    """Return the association limit of the node."""
    return program.registry.nodes["a"].queue.limit


def status_of(program: Program) -> NodeStatus:
    """Return the status of the node as the operator sees it."""
    return node_status(program.registry.nodes["a"])


@pytest.mark.parametrize("maximum", [1, 2])
async def test_a_node_that_takes_few_associations_fails_no_delivery_of_many(
    directory: Path, backend: DemoBackend, maximum: int
) -> None:
    node = DemoNode("A", node_id="a", maximum_associations=maximum, script=NodeScript(delay_s=0.05))
    async with node.running():
        configure(backend, [node])
        # no attempt may fail: a refused one waits for the end of another
        dicom = {"associations_per_node": 4, "retry_count": 0, "echo_interval_seconds": 5.0}
        async with running_program(directory, backend, dicom=dicom) as program:
            await program.configured()
            await program.online()
            sent = set()
            orders = []
            for number in range(8):
                sent |= uids(offer(backend, f"sess-{number}", slices=6, seed=number + 1))
                orders.append(program.tell(frames.session_dispatch(f"sess-{number}", ["a"])))
            for order in orders:
                assert (await program.over(order))["status"] == "completed"
            await program.idle()
            assert node.holds.keys() == sent
            assert len(node.arrivals) == len(sent)
            assert node.tally.rejections >= 1
            assert given(program) <= 2
            assert program.registry.nodes["a"].run.state is NodeState.ONLINE


async def test_a_delivery_is_not_refused_for_the_sake_of_our_own_echo(
    directory: Path, backend: DemoBackend
) -> None:
    node = DemoNode("A", node_id="a", maximum_associations=1, script=NodeScript(echo_delay_s=0.7))
    async with node.running():
        configure(backend, [node])
        async with running_program(directory, backend, dicom={"retry_count": 0}) as program:
            await program.configured()
            offer(backend)
            order = program.tell(frames.session_dispatch("sess-1", ["a"]))
            at = program.registry.nodes["a"]
            await program.until(lambda: at.queue.in_use)
            assert at._echo.locked()
            assert (await program.over(order))["status"] == "completed"
            assert not node.tally.rejections


@pytest.mark.needs("storescp")
async def test_a_node_that_lets_the_second_association_wait_in_silence_is_not_at_fault(
    directory: Path, backend: DemoBackend, tmp_path: Path
) -> None:
    """DCMTK's storescp, as installed, is at one association and does not answer the next."""
    with rows_taken(NODE) as told, storescp(tmp_path, "--sleep-after", "1") as scp:
        configure(backend, [frames.rest_node("a", scp.ae_title, scp.host, scp.port)])
        dicom = {"associations_per_node": 2, "retry_count": 0, "answer_seconds": 1.0}
        async with running_program(directory, backend, dicom=dicom) as program:
            await program.configured()
            await program.online()
            for number, slices in enumerate((4, 1, 1)):
                offer(backend, f"sess-{number}", slices=slices, seed=number + 1)
            long = program.tell(frames.session_dispatch("sess-0", ["a"]))
            at = program.registry.nodes["a"]
            await program.until(lambda: at.established)
            others = [program.tell(frames.session_dispatch(f"sess-{n}", ["a"])) for n in (1, 2)]
            for order in (long, *others):
                assert (await program.over(order))["status"] == "completed"
            await program.idle()
            assert given(program) == 1
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
        async with running_program(directory, backend, dicom=dicom) as program:
            await program.configured()
            await program.online()
            for number in range(3):
                offer(backend, f"sess-{number}", slices=120, seed=number + 1)
                program.tell(frames.session_dispatch(f"sess-{number}", ["a"]))
            await program.until(lambda: given(program) == 1)
            assert status_of(program).associations == 1
            complains = False
            await program.until(lambda: not program.registry.dispatches)
            assert given(program) == 4
            assert status_of(program).associations is None
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
        async with running_program(directory, backend, dicom=dicom) as program:
            await program.configured()
            await program.online()
            for number in range(8):
                offer(backend, f"sess-{number}", slices=1, seed=number + 1)
                program.tell(frames.session_dispatch(f"sess-{number}", ["a"]))
            await program.until(lambda: len(node.arrivals) == 8)
            at = program.registry.nodes["a"]
            for left in range(7, -1, -1):
                may_complain[left].set()
                await program.until(lambda left=left: at.queue.in_use == left)  # type: ignore[misc]
                assert given(program) == 4


async def test_an_echo_that_finds_no_room_beside_our_own_delivery_is_no_failure(
    directory: Path, backend: DemoBackend
) -> None:
    node = DemoNode("A", node_id="a", maximum_associations=1, script=NodeScript(delay_s=0.3))
    with rows_taken(NODE) as told:
        async with node.running():
            configure(backend, [node])
            async with running_program(directory, backend, dicom={"echo_seconds": 1.0}) as program:
                await program.configured()
                await program.online()
                offer(backend, slices=12)
                order = program.tell(frames.session_dispatch("sess-1", ["a"]))
                await program.until(lambda: node.arrivals)
                # known by another name the node is new, and asked while an instance is in flight
                changed = in_event(node, calling_ae_title="OTHER")
                program.tell(frames.nodes_changed([changed]))
                configure(backend, [described(node, calling_ae_title="OTHER")])
                ending = await program.over(order)
                assert (ending["status"], ending["files_sent"]) == ("completed", 12)
                assert len(node.arrivals) == 12
                assert node.tally.rejections >= 1
                assert node.tally.calling_ae_titles == {"DICOM_PROXY", "OTHER"}
                assert "NOD-09" in told
                assert not {"NOD-02", "NOD-03"} & {*told}
