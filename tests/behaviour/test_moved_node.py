"""A node at another address is another node: what went wrong at the old one does not count."""

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
from tests.support.house import House, a_house, configure, described, offer, some_nodes, uids
from tests.support.observed import rows_taken
from tests.support.relay import relay


@asynccontextmanager
async def nowhere() -> AsyncIterator[JsonObject]:
    """A node at an address where nobody listens, tried twice in all, with a long wait between."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    yield frames.rest_node("a", "A", "127.0.0.1", port, retry_count=1, retry_delay=600)


async def fetched(house: House, described: JsonObject) -> None:
    """Have the node configured like this, and wait until it is."""
    configure(house.backend, [described])
    house.supervisor.came_online()
    at, is_active = house.registry.nodes["a"], described["is_active"]
    await house.until(
        lambda: (at.configured.port, at.configured.is_active) == (described["port"], is_active)
    )


PATIENT = {"retry_max_seconds": 600.0}


@pytest.mark.parametrize("while_inactive", [False, True])
async def test_a_failed_attempt_at_the_old_address_is_none_at_the_new_one(
    directory: Path, backend: DemoBackend, node: DemoNode, while_inactive: bool
) -> None:
    instances = offer(backend)
    node.script.abort_at = 1
    async with nowhere() as old, a_house(directory, backend, dicom=PATIENT) as house:
        configure(backend, [old])
        await house.configured()
        order = house.tell(frames.session_dispatch("sess-1", ["a"]))
        await house.until(lambda: house.state(order, "a") is DeliveryState.BACKING_OFF)
        if while_inactive:
            await fetched(house, old | {"is_active": False})
            assert house.state(order, "a") is DeliveryState.HELD
            await fetched(house, described(node, is_active=False))
        await fetched(house, described(node, retry_count=1, retry_delay=0.1))
        assert (await house.over(order))["status"] == "completed"
        await house.idle()
    assert node.holds.keys() == uids(instances)


async def test_an_attempt_at_the_old_address_is_forgotten_over_a_restart_too(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    offer(backend)
    node.script.abort_at, node.script.delay_s = 2, 60.0
    async with nowhere() as old, a_house(directory, backend, dicom=PATIENT) as house:
        configure(backend, [old])
        await house.configured()
        order = house.tell(frames.session_dispatch("sess-1", ["a"]))
        await house.until(lambda: house.state(order, "a") is DeliveryState.BACKING_OFF)
        await fetched(house, described(node, retry_count=1, retry_delay=0.1))
        await house.until(lambda: len(node.arrivals) == 1)
    node.script.delay_s = 0.0
    async with a_house(directory, backend, dicom=PATIENT) as house:
        await house.configured()
        assert (await house.over(order))["status"] == "completed"
        await house.idle()


async def test_a_node_that_moves_while_inactive_has_all_its_room_again(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    async with some_nodes("a") as (old,):
        configure(backend, [old])
        async with a_house(directory, backend, dicom={"associations_per_node": 4}) as house:
            await house.configured()
            at = house.registry.nodes["a"]
            at.run.tell(CongestionReported())
            assert at.queue.limit == 2
            await fetched(house, described(old, is_active=False))
            await fetched(house, described(node, is_active=False))
            assert (at.run.state, at.queue.limit) == (NodeState.DISABLED, 4)


async def test_what_ends_at_the_old_address_is_no_failure_of_the_new_one(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    offer(backend)
    with rows_taken(NODE) as told:
        async with (
            some_nodes("a") as (old,),
            a_house(directory, backend, dicom={"cancel_seconds": 60.0}) as house,
        ):
            old.script.delay_s = 60.0
            async with relay(old) as line:
                configure(backend, [frames.rest_node("a", "A", line.host, line.port)])
                await house.configured()
                await house.online()
                order = house.tell(frames.session_dispatch("sess-1", ["a"]))
                await house.until(lambda: old.arrivals)
                await fetched(house, described(node))
                assert house.state(order, "a") is DeliveryState.STOPPING
            assert (await house.over(order))["status"] == "completed"
            await house.idle()
    assert "NOD-09" in told
    assert "NOD-02" not in told
