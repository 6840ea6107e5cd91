"""Storing at a node that misbehaves: counts, further attempts, and turns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
import trio
from pynetdicom import dsutils

from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.node import DemoNode
from proxy.machines.delivery import DeliveryState
from tests.dicom.scripted import RELEASE_RQ, Peer, command, data, pdv, response
from tests.support.program import QUICK, Program, configure, offer, running_program, uids


@pytest.fixture
async def program(directory: Path, backend: DemoBackend, node: DemoNode) -> AsyncIterator[Program]:
    configure(backend, [node])
    async with running_program(directory, backend, dicom={"cancel_seconds": 0.3}) as program:
        await program.configured()
        yield program


@pytest.mark.parametrize("fault", ["reject", "abort", "drop", "busy"])
async def test_a_passing_fault_is_tried_again_without_what_is_stored(
    program: Program, node: DemoNode, fault: str
) -> None:
    instances = offer(program.backend, slices=6)
    match fault:
        case "reject":
            node.script.reject_next = 1
        case "abort":
            node.script.abort_at = 3
        case "drop":
            node.script.drop_at = 3
        case _:
            node.script.answer = lambda arrival: 0xA700 if arrival.ordinal == 3 else 0
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    ending = await program.over(order, "a")
    assert (ending["status"], ending["files_sent"]) == ("completed", 6)
    assert node.holds.keys() == uids(instances)
    assert len(node.arrivals) == (6 if fault == "reject" else 7)
    await program.idle()


async def test_a_file_that_cannot_be_read_at_present_is_tried_again(
    program: Program, node: DemoNode
) -> None:
    instances = offer(program.backend, slices=4)
    node.script.delay_s = 0.1
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    await program.until(lambda: node.arrivals)
    _, second, *_ = await program.services.ledger.to_send(program.dispatch(order).dispatch_id, "a")
    path = program.services.pacs.path(second)
    elsewhere = path.rename(path.with_suffix(".away"))
    path.symlink_to(path)  # it leads nowhere: there, and not to be read
    await program.until(lambda: program.state(order, "a") is DeliveryState.BACKING_OFF)
    assert "cannot be read" in (program.delivery(order, "a").run.data.error or "")
    elsewhere.replace(path)
    ending = await program.over(order, "a")
    assert (ending["status"], ending["files_sent"]) == ("completed", 4)
    assert node.holds.keys() == uids(instances)
    assert len(node.arrivals) == 4
    await program.idle()


async def test_a_node_that_always_refuses_gets_its_tries_and_no_more(
    program: Program, node: DemoNode
) -> None:
    offer(program.backend)
    node.script.reject_next = 1000
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    ending = await program.over(order, "a")
    assert (ending["status"], ending["files_sent"]) == ("failed", 0)
    assert ending["progress"] < 100
    await program.idle()


async def test_an_instance_the_node_never_takes_leaves_the_others(
    program: Program, node: DemoNode
) -> None:
    offer(program.backend, slices=5)
    node.script.answer = lambda arrival: 0xC000 if arrival.ordinal == 2 else 0xB000
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    ending = await program.over(order, "a")
    assert (ending["status"], ending["files_sent"], ending["files_total"]) == ("failed", 4, 5)
    assert len(node.holds) == 4
    assert (await program.over(order))["files_sent"] == 4
    await program.idle()


async def test_a_stalled_instance_is_cut_after_the_grace_and_never_counted(
    program: Program, node: DemoNode
) -> None:
    instances = offer(program.backend, slices=5)
    node.script.stall_at = 3
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    await program.until(lambda: len(node.arrivals) == 3)
    began = trio.current_time()
    uid = instances[0].study_instance_uid
    program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
    ending = await program.over(order, "a")
    assert 0.2 < trio.current_time() - began < QUICK.response_seconds
    assert (ending["status"], ending["files_sent"]) == ("failed", 2)
    await program.idle()


async def test_a_stalled_instance_that_is_held_is_sent_again(
    program: Program, node: DemoNode
) -> None:
    instances = offer(program.backend, slices=5)
    node.script.stall_at = 3
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    await program.until(lambda: len(node.arrivals) == 3)
    program.tell(frames.status_changed(is_active=False))
    await program.until(lambda: program.state(order, "a") is DeliveryState.HELD)
    assert program.turns_taken() == 0
    program.tell(frames.status_changed(is_active=True))
    ending = await program.over(order, "a")
    assert (ending["status"], ending["files_sent"]) == ("completed", 5)
    assert node.holds.keys() == uids(instances)
    await program.idle()


async def test_no_more_associations_than_turns(program: Program, node: DemoNode) -> None:
    node.script.delay_s = 0.02
    orders = []
    for number in range(6):
        offer(program.backend, f"sess-{number}", slices=3, seed=number + 1)
        orders.append(program.tell(frames.session_dispatch(f"sess-{number}", ["a"])))
    most = 0
    while not all(program.final(order) for order in orders):
        most = max(most, program.registry.nodes["a"].queue.in_use)
        await trio.sleep(0.002)
    assert most == program.services.settings.dicom.associations_per_node == 2
    for order in orders:
        assert (await program.over(order))["status"] == "completed"
    await program.idle()


C_STORE_RQ = 0x0001


class Releasing:
    """A node that takes three instances over an association, then asks for its release."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.associations = 0

    async def talk(self, stream: trio.SocketStream) -> None:
        peer = Peer(stream)
        await peer.accept_all()
        self.associations += 1
        for message_id in (1, 2, 3):
            sent = await peer.command_or_release()
            if sent is None:
                break
            request = dsutils.decode(BytesIO(sent), is_implicit_vr=True, is_little_endian=True)
            if request.CommandField == C_STORE_RQ:
                self.stored.append(request.AffectedSOPInstanceUID)
            # the instance sent as the release came is asked for: C-FIND finds nothing
            kind = request.CommandField | 0x8000
            answer = command(response(0, message_id, kind=kind))
            await peer.send(data(pdv(answer, context_id=peer.context_id)))
        else:
            await peer.send(RELEASE_RQ)
            await peer.until_end()


async def test_a_node_that_releases_early_is_gone_on_with_at_once(
    directory: Path, backend: DemoBackend
) -> None:
    node = Releasing()
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), node.talk, 0)
        port = listener.socket.getsockname()[1]
        configure(backend, [frames.rest_node("a", "NODE", "127.0.0.1", port)])
        instances = offer(backend, slices=10)
        patient = {"retry_delay_seconds": 3600.0, "retry_max_seconds": 3600.0, "retry_count": 1}
        async with running_program(directory, backend, dicom=patient) as program:
            await program.configured()
            await program.online()
            order = program.tell(frames.session_dispatch("sess-1", ["a"]))
            ending = await program.over(order, "a")
            assert (ending["status"], ending["files_sent"]) == ("completed", 10)
            assert sorted(node.stored) == sorted(uids(instances))
            assert node.associations >= 5  # one to ask, four to store
            assert program.registry.nodes["a"].run.data.failures == 0
        nursery.cancel_scope.cancel("the test is over")
