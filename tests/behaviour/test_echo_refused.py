"""Nodes that take C-STORE and do not answer C-ECHO with success: they are delivered to, for ever.

A doorman stands before a real node. He deals with associations that are for Verification, and lets
all others through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import pytest
import trio

from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.node import DemoNode
from proxy.dicom.dimse import VERIFICATION
from proxy.machines.node import NodeState
from tests.dicom import scripted as said
from tests.dicom.scripted import Peer
from tests.support.program import Program, configure, offer, running_program

IMPLICIT = "1.2.840.10008.1.2"
Refusal: TypeAlias = Callable[[Peer], Awaitable[None]]


def saying(*pdus: bytes) -> Refusal:
    async def refuse(peer: Peer) -> None:
        await peer.send(*pdus)
        await peer.until_end()

    return refuse


def accepting(*pdus: bytes, context: int = 0, waits: bool = True) -> Refusal:
    async def refuse(peer: Peer) -> None:
        await peer.send(said.accept({1: (context, IMPLICIT if not context else "")}))
        await peer.pdu()
        await peer.send(*pdus)
        if waits:
            await peer.until_end()

    return refuse


def answering(status: int) -> Refusal:
    answer = said.command(said.response(status, kind=0x8030))
    return accepting(said.data(said.pdv(answer)))


async def hang_up(_: Peer) -> None:
    pass


ANSWERS: dict[str, Refusal] = {
    "rejected without a reason": saying(said.reject(1, 1, 1)),
    "rejected for now": saying(said.reject(2, 3, 1)),
    "rejected, calling AE title": saying(said.reject(1, 1, 3)),
    "aborted by the user": saying(said.abort(0, 0)),
    "aborted by the provider": saying(said.abort(2, 0)),
    "no context": accepting(context=3),
    "no transfer syntax": accepting(context=4),
    "accepted, then silent": accepting(),
    "accepted, then aborted": accepting(said.abort()),
    "accepted, then closed": accepting(waits=False),
    "accepted, then released": accepting(said.RELEASE_RQ),
    **{f"{status:04X}": answering(status) for status in (0x0122, 0x0211, 0xA700, 0x0110, 0xC000)},
}
"""Answers that prove a node."""

SILENCE: dict[str, Refusal] = {
    "silent": saying(),
    "closed": hang_up,
    "garbage": saying(said.GARBAGE),
}
"""Answers that prove no DICOM node."""


class Doorman:
    """Before a node; counts the associations for Verification that came."""

    def __init__(self, node: DemoNode, refuse: Refusal) -> None:
        self.came = 0
        self._node = node
        self._refuse = refuse

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            peer = Peer(stream)
            try:
                kind, body = await peer.pdu()
            except (AssertionError, trio.BrokenResourceError):
                return
            if VERIFICATION.encode() + b"\x40" in body:
                self.came += 1
                with suppress(AssertionError, trio.BrokenResourceError):
                    await self._refuse(peer)
                return
            request = bytes((kind, 0)) + len(body).to_bytes(4, "big") + body
            there = await trio.open_tcp_stream(self._node.host, self._node.port)
            async with there, trio.open_nursery() as nursery:
                await there.send_all(request)
                nursery.start_soon(pipe, stream, there, nursery.cancel_scope)
                nursery.start_soon(pipe, there, stream, nursery.cancel_scope)


async def pipe(source: trio.SocketStream, to: trio.SocketStream, both: trio.CancelScope) -> None:
    try:
        async for chunk in source:
            await to.send_all(chunk)
    except trio.BrokenResourceError:
        pass
    both.cancel("one side has gone")


@asynccontextmanager
async def a_site(
    directory: Path, backend: DemoBackend, node: DemoNode, refuse: Refusal
) -> AsyncIterator[tuple[Program, Doorman]]:
    doorman = Doorman(node, refuse)
    quick = {"echo_interval_seconds": 0.05, "echo_seconds": 0.3, "retry_max_seconds": 0.2}
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, doorman.serve, [listener])
        port = listener.socket.getsockname()[1]
        configure(backend, [frames.rest_node("a", node.ae_title, "127.0.0.1", port)])
        async with running_program(directory, backend, dicom=quick) as program:
            await program.configured()
            yield program, doorman
        nursery.cancel_scope.cancel("the test is over")


async def asked(program: Program, doorman: Doorman, times: int) -> None:
    """Wait until the node was asked so often again: more than its breaker bears."""
    before = doorman.came
    await program.until(lambda: doorman.came >= before + times)


async def delivered(program: Program, node: DemoNode, number: int) -> None:
    """Order a session, and wait until the node has it."""
    offer(program.backend, f"sess-{number}", seed=number)
    order = program.tell(frames.session_dispatch(f"sess-{number}", ["a"]))
    ending = await program.over(order, "a")
    assert (ending["status"], ending["files_sent"]) == ("completed", 4), ending["error"]
    assert len(node.arrivals) == 4 * number
    await program.idle()


@pytest.mark.parametrize("refuse", [*ANSWERS.values()], ids=[*ANSWERS])
async def test_a_node_that_refuses_c_echo_is_there_and_is_delivered_to(
    directory: Path, backend: DemoBackend, node: DemoNode, refuse: Refusal
) -> None:
    async with a_site(directory, backend, node, refuse) as (program, doorman):
        for number in (1, 2):
            await asked(program, doorman, 6)
            # On a busy machine one of them may have been too slow to count as answered.
            await program.until(lambda: program.registry.nodes["a"].run.state is NodeState.ONLINE)
            health = program.heartbeat.health(online=True)
            assert health.nodes is not None
            assert [each.is_reachable for each in health.nodes] == [True]
            await delivered(program, node, number)


@pytest.mark.parametrize("refuse", [*SILENCE.values()], ids=[*SILENCE])
async def test_a_node_that_is_silent_to_c_echo_is_delivered_to_all_the_same(
    directory: Path, backend: DemoBackend, node: DemoNode, refuse: Refusal
) -> None:
    """C-ECHO gives it up again and again; each time a delivery's own attempt proves it."""
    async with a_site(directory, backend, node, refuse) as (program, _):
        at = program.registry.nodes["a"].run
        for number in (1, 2, 3):
            await program.until(lambda: at.state is NodeState.OFFLINE and not at.data.is_tried)
            await delivered(program, node, number)


async def test_a_node_that_is_gone_is_tried_once_between_two_probes(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    """Another delivery that is due meanwhile finds the node offline."""
    tried = 0

    async def count(_: trio.SocketStream) -> None:
        nonlocal tried
        tried += 1

    patient = {"retry_count": 3, "retry_delay": 0.05}
    dicom = {"echo_interval_seconds": 60.0, "retry_max_seconds": 60.0}
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, count, [listener])
        port = listener.socket.getsockname()[1]
        configure(backend, [frames.rest_node("a", "A", "127.0.0.1", port, **patient)])
        async with running_program(directory, backend, dicom=dicom) as program:
            await program.configured()
            at = program.registry.nodes["a"]
            await program.until(lambda: at.run.state is NodeState.SUSPECT)
            for _ in range(2):  # as three probes in a row would
                at.failed("no answer", is_probe=True)
            assert at.run.state is NodeState.OFFLINE
            before = tried
            for number in range(5):
                offer(backend, f"sess-{number}", slices=1, seed=number + 1)
            orders = [
                program.tell(frames.session_dispatch(f"sess-{number}", ["a"]))
                for number in range(5)
            ]
            errors = [(await program.over(order, "a"))["error"] for order in orders]
            assert tried == before + 1
            assert any("node is offline" in error for error in errors)
        nursery.cancel_scope.cancel("the test is over")
