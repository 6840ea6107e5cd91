"""Asking a node with C-ECHO: when, how often, and what follows."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from proxy.activities.node import BREAKER_FAILURES
from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.node import DemoNode
from proxy.dicom.dimse import VERIFICATION
from proxy.fsm import Step
from proxy.machines.delivery import DeliveryState
from proxy.machines.node import Health, NodeOutput, NodeState
from proxy.work.runs import NodeRun
from tests.dicom.scripted import Peer
from tests.support.clocks import Always
from tests.support.program import (
    Program,
    configure,
    described,
    in_event,
    offer,
    running_program,
)
from tests.support.relay import relay
from tests.support.waiting import PATIENCE_S

ONLINE, OFFLINE, SUSPECT = NodeState.ONLINE, NodeState.OFFLINE, NodeState.SUSPECT


@pytest.fixture
def rng() -> Always:
    return Always(0.5)


@pytest.fixture
async def program(
    directory: Path, backend: DemoBackend, node: DemoNode, rng: Always
) -> AsyncIterator[Program]:
    configure(backend, [node])
    quick = {"echo_interval_seconds": 0.1, "retry_max_seconds": 0.4}
    async with running_program(directory, backend, dicom=quick, rng=rng) as program:
        await program.configured()
        yield program


def state(program: Program) -> NodeState:
    return program.registry.nodes["a"].run.state


async def test_a_node_is_asked_at_once_and_again_and_again(
    program: Program, node: DemoNode
) -> None:
    await program.until(lambda: state(program) is ONLINE)
    await program.until(lambda: node.tally.echoes >= 3)


async def test_a_node_that_is_gone_is_given_up_and_found_again(
    program: Program, node: DemoNode
) -> None:
    await program.until(lambda: state(program) is ONLINE)
    await trio.to_thread.run_sync(node.stop)
    await program.until(lambda: state(program) is OFFLINE)
    assert program.registry.nodes["a"].run.data.failures >= 3
    await trio.to_thread.run_sync(node.start)
    await program.until(lambda: state(program) is ONLINE)
    assert program.registry.nodes["a"].run.data.failures == 0


async def test_each_probe_of_a_node_that_was_given_up_is_twice_as_far_off(
    program: Program, node: DemoNode, rng: Always
) -> None:
    waits: list[float] = []

    def note(_: NodeRun, step: Step[NodeState, Health, NodeOutput]) -> None:
        if step.after is OFFLINE and step.before is not OFFLINE:
            waits.append(step.data.probe_in)

    program.registry.nodes["a"].run.observe(note)
    rng.drawn = 0.0  # a tenth of the interval, the least there is
    await program.until(lambda: state(program) is ONLINE)
    await trio.to_thread.run_sync(node.stop)
    await program.until(lambda: len(waits) >= 3)
    assert waits[:3] == pytest.approx([0.01, 0.02, 0.04])


@pytest.mark.parametrize("status", [0x0122, 0x0211, 0xA700, 0x0110, 0x0212])
async def test_a_node_that_answers_the_echo_with_a_failure_is_there(
    program: Program, node: DemoNode, status: int
) -> None:
    node.script.echo_status = status
    before = node.tally.echoes
    await program.until(lambda: node.tally.echoes >= before + 5)
    assert state(program) is ONLINE
    assert program.registry.nodes["a"].run.data.failures == 0


async def test_a_node_at_work_is_not_asked_besides(program: Program, node: DemoNode) -> None:
    offer(program.backend, slices=6)
    node.script.delay_s = 0.1
    await program.until(lambda: state(program) is ONLINE)
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    await program.until(lambda: len(node.arrivals) >= 1)
    before = node.tally.echoes
    await program.until(lambda: len(node.arrivals) >= 5)
    assert node.tally.echoes - before <= 1
    await program.over(order)


async def test_a_delivery_waits_for_a_node_that_is_off_and_goes_when_it_is_back(
    program: Program, node: DemoNode
) -> None:
    offer(program.backend)
    configure(program.backend, [described(node, retry_count=100, retry_delay=60)])
    await trio.to_thread.run_sync(node.stop)
    program.supervisor.came_online()
    await program.until(lambda: state(program) is OFFLINE)
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    await trio.sleep(0.3)
    assert program.final(order) is None
    assert program.turns_taken() == 0
    await trio.to_thread.run_sync(node.start)
    assert (await program.over(order))["status"] == "completed"
    await program.idle()


@pytest.mark.parametrize("years", [0, 30], ids=["as it was", "due in 30 years"])
@pytest.mark.parametrize("first", ["the node", "the proxy"])
async def test_what_backed_off_before_a_restart_goes_on_when_the_node_answers(
    directory: Path, backend: DemoBackend, node: DemoNode, first: str, years: int
) -> None:
    """The order of the starts and the wall clock at the attempt must not matter."""
    longest = 3600.0
    offer(backend)
    configure(backend, [described(node, retry_count=100, retry_delay=longest)])
    dicom = {"echo_interval_seconds": 0.1, "retry_max_seconds": longest}
    await trio.to_thread.run_sync(node.stop)
    async with running_program(directory, backend, dicom=dicom) as program:
        await program.configured()
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.until(lambda: program.state(order, "a") is DeliveryState.BACKING_OFF)
        due = time.time() + years * 365 * 24 * 3600 + longest
        dispatch_id = program.dispatch(order).dispatch_id
        program.services.ledger.post_attempt(
            dispatch_id, "a", 1, due, "the node is away", away=True
        )
    if first == "the node":
        await trio.to_thread.run_sync(node.start)
    async with running_program(directory, backend, dicom=dicom) as program:
        await program.until(lambda: program.registry.dispatches.deliveries)
        if first == "the proxy":
            await program.until(lambda: program.state(order, "a") is DeliveryState.BACKING_OFF)
            assert program.delivery(order, "a").run.data.retry_in <= longest
            await trio.to_thread.run_sync(node.start)
        assert (await program.over(order, "a"))["status"] == "completed"
        await program.idle()


async def test_those_in_line_for_a_node_leave_it_in_peace_once_it_is_given_up(
    directory: Path, backend: DemoBackend
) -> None:
    asked_to_store, full = 0, trio.Event()

    async def leave(stream: trio.SocketStream) -> None:
        nonlocal asked_to_store
        async with stream:
            _, request = await Peer(stream).pdu()
            asked_to_store += VERIFICATION.encode() not in request
            await full.wait()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), leave, 0)
        port = listener.socket.getsockname()[1]
        patient = {"retry_count": 100, "retry_delay": 60}
        configure(backend, [frames.rest_node("a", "A", "127.0.0.1", port, **patient)])
        # patient with the node too: within the test nobody asks it again
        dicom = {"associations_per_node": 1, "retry_max_seconds": 60.0, "echo_seconds": 60.0}
        async with running_program(directory, backend, dicom=dicom) as program:
            await program.configured()
            for number in range(8):
                offer(backend, f"sess-{number}", slices=1, seed=number + 1)
                program.tell(frames.session_dispatch(f"sess-{number}", ["a"]))
            at = program.registry.nodes["a"]
            await program.until(lambda: at.queue.waiting == 7)
            full.set()
            deliveries = program.registry.dispatches.deliveries
            await program.until(lambda: all(each.run.data.attempts for each in deliveries))
            assert at.run.state is OFFLINE
            assert asked_to_store == BREAKER_FAILURES
            assert {each.run.state for each in deliveries} == {DeliveryState.BACKING_OFF}
            assert program.turns_taken() == 0
        nursery.cancel_scope.cancel("the test is over")


async def test_what_was_under_way_when_a_node_was_given_up_puts_off_no_probe(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    many = 2 * BREAKER_FAILURES
    dicom = {
        "associations_per_node": many,
        "echo_interval_seconds": 60.0,
        "retry_count": 100,
        "retry_delay_seconds": 600.0,
        "retry_max_seconds": 600.0,
    }
    node.script.delay_s = 60.0
    least = Always(0.0)  # a tenth of the interval
    async with running_program(directory, backend, dicom=dicom, rng=least) as program:
        async with relay(node) as line:
            to_the_line = frames.rest_node("a", node.ae_title, line.host, line.port)
            configure(backend, [to_the_line])
            await program.configured()
            for number in range(many):
                offer(backend, f"sess-{number}", slices=1, seed=number + 1)
                program.tell(frames.session_dispatch(f"sess-{number}", ["a"]))
            await program.until(lambda: len(node.arrivals) == many)
        deliveries = program.registry.dispatches.deliveries
        await program.until(lambda: all(each.run.data.attempts for each in deliveries))
        health = program.registry.nodes["a"].run.data
        assert (state(program), health.failures) == (OFFLINE, BREAKER_FAILURES)
        assert health.probe_in == pytest.approx(6.0)


async def test_a_node_that_moves_is_not_asked_at_its_old_address_to_the_end(
    directory: Path,
    backend: DemoBackend,
    node: DemoNode,
) -> None:
    (silent,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with silent:
        port = silent.socket.getsockname()[1]
        configure(backend, [frames.rest_node("a", node.ae_title, "127.0.0.1", port)])
        async with running_program(directory, backend, dicom={"echo_seconds": 60.0}) as program:
            await program.configured()
            asked = await silent.accept()
            assert await asked.receive_some()

            configure(backend, [node])
            program.tell(frames.nodes_changed([in_event(node)]))

            with trio.fail_after(PATIENCE_S):
                while await asked.receive_some():
                    pass
            await program.until(lambda: state(program) is ONLINE)
            await asked.aclose()
