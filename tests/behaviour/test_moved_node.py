"""A node at another address is another node: failures at the old one do not count."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.frames import JsonObject
from proxy.demo.node import DemoNode
from proxy.machines.delivery import DeliveryState
from proxy.machines.node import NODE, CongestionReported, NodeState
from tests.support.observed import rows_taken
from tests.support.program import (
    Program,
    configure,
    described,
    offer,
    running_program,
    some_nodes,
    uids,
)
from tests.support.relay import relay


@asynccontextmanager
async def nowhere() -> AsyncIterator[JsonObject]:
    """A node at an address where nobody listens, tried twice in all, with a long wait between."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    yield frames.rest_node("a", "A", "127.0.0.1", port, retry_count=1, retry_delay=600)


async def fetched(program: Program, described: JsonObject) -> None:
    """Have the node configured like this, and wait until it is."""
    configure(program.backend, [described])
    program.supervisor.came_online()
    at, is_active = program.registry.nodes["a"], described["is_active"]
    await program.until(
        lambda: (at.configured.port, at.configured.is_active) == (described["port"], is_active)
    )


PATIENT = {"retry_max_seconds": 600.0}


@pytest.mark.parametrize("while_inactive", [False, True])
async def test_a_failed_attempt_at_the_old_address_is_none_at_the_new_one(
    directory: Path, backend: DemoBackend, node: DemoNode, while_inactive: bool
) -> None:
    instances = offer(backend)
    node.script.abort_at = 1
    async with nowhere() as old, running_program(directory, backend, dicom=PATIENT) as program:
        configure(backend, [old])
        await program.configured()
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.until(lambda: program.state(order, "a") is DeliveryState.BACKING_OFF)
        if while_inactive:
            await fetched(program, old | {"is_active": False})
            assert program.state(order, "a") is DeliveryState.HELD
            await fetched(program, described(node, is_active=False))
        await fetched(program, described(node, retry_count=1, retry_delay=0.1))
        assert (await program.over(order))["status"] == "completed"
        await program.idle()
    assert node.holds.keys() == uids(instances)


async def test_an_attempt_at_the_old_address_is_forgotten_over_a_restart_too(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    offer(backend)
    node.script.abort_at, node.script.delay_s = 2, 60.0
    async with nowhere() as old, running_program(directory, backend, dicom=PATIENT) as program:
        configure(backend, [old])
        await program.configured()
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.until(lambda: program.state(order, "a") is DeliveryState.BACKING_OFF)
        await fetched(program, described(node, retry_count=1, retry_delay=0.1))
        await program.until(lambda: len(node.arrivals) == 1)
    node.script.delay_s = 0.0
    async with running_program(directory, backend, dicom=PATIENT) as program:
        await program.configured()
        assert (await program.over(order))["status"] == "completed"
        await program.idle()


async def test_a_node_that_moves_while_inactive_has_its_full_limit_again(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    async with some_nodes("a") as (old,):
        configure(backend, [old])
        async with running_program(
            directory, backend, dicom={"associations_per_node": 4}
        ) as program:
            await program.configured()
            at = program.registry.nodes["a"]
            at.run.tell(CongestionReported())
            assert at.queue.limit == 2
            await fetched(program, described(old, is_active=False))
            await fetched(program, described(node, is_active=False))
            assert (at.run.state, at.queue.limit) == (NodeState.DISABLED, 4)


async def test_what_ends_at_the_old_address_is_no_failure_of_the_new_one(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    offer(backend)
    with rows_taken(NODE) as told:
        async with (
            some_nodes("a") as (old,),
            running_program(directory, backend, dicom={"cancel_seconds": 60.0}) as program,
        ):
            old.script.delay_s = 60.0
            async with relay(old) as line:
                configure(backend, [frames.rest_node("a", "A", line.host, line.port)])
                await program.configured()
                await program.online()
                order = program.tell(frames.session_dispatch("sess-1", ["a"]))
                await program.until(lambda: old.arrivals)
                await fetched(program, described(node))
                assert program.state(order, "a") is DeliveryState.STOPPING
            assert (await program.over(order))["status"] == "completed"
            await program.idle()
    assert "NOD-09" in told
    assert "NOD-02" not in told
