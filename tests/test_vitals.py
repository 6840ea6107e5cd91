"""The signs of life tell what is at work."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from proxy import __version__
from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.machines.node import NodeState
from proxy.machines.operation import OperationState
from proxy.settings import LocalSettings
from tests.support.site import House, a_house, configure, described, offer, some_nodes


def beat(house: House) -> dict[str, object]:
    heartbeat = house.vitals.heartbeat()
    assert heartbeat is not None
    frame = heartbeat.to_dict()
    assert (frame["workspace_id"], frame["entity_id"]) == (frames.WORKSPACE_ID, frames.PROXY_ID)
    payload: dict[str, object] = frame["payload"]
    return payload


async def test_the_numbers_are_true(directory: Path, backend: DemoBackend) -> None:
    async with some_nodes("a", "b", "c") as nodes:
        instances = offer(backend, slices=4)
        configure(backend, [nodes[0], nodes[1], described(nodes[2], is_active=False)])
        await trio.to_thread.run_sync(nodes[1].stop)
        async with a_house(directory, backend) as house:
            assert house.vitals.heartbeat() is None  # nobody has said who we are
            await house.configured()
            await house.until(lambda: house.site.nodes["a"].run.state is NodeState.ONLINE)
            assert beat(house) == {
                "status": "active",
                "nodes_online": 1,
                "nodes_total": 3,
                "active_dispatches": 0,
                "disk_usage_gb": 0.0,
                "version": __version__,
            }
            nodes[0].script.delay_s = 0.1
            order = house.tell(frames.session_dispatch("sess-1", ["a"]))
            await house.until(lambda: nodes[0].holds)
            assert beat(house)["active_dispatches"] == 1
            size = sum(len(instance.content) for instance in instances)
            assert beat(house)["disk_usage_gb"] == pytest.approx(size / 1024**3)
            await house.over(order)
            await house.idle()
            assert beat(house)["active_dispatches"] == 0
            house.tell(frames.status_changed(is_active=False))
            assert house.site.operation.state is OperationState.PAUSED
            assert beat(house)["status"] == "inactive"


async def test_the_health_names_active_nodes_and_who_answered(
    directory: Path, backend: DemoBackend
) -> None:
    async with some_nodes("a", "b", "c") as nodes:
        configure(backend, [nodes[0], nodes[1], described(nodes[2], is_active=False)])
        await trio.to_thread.run_sync(nodes[1].stop)
        async with a_house(directory, backend) as house:
            assert "nodes" not in house.vitals.health(online=True).to_dict()
            await house.configured()
            await house.until(lambda: house.site.nodes["a"].run.state is NodeState.ONLINE)
            assert house.vitals.health(online=False).to_dict() == {
                "type": "health_update",
                "proxy_status": "offline",
                "proxy_version": __version__,
                "nodes": [
                    {"node_id": "a", "is_reachable": True},
                    {"node_id": "b", "is_reachable": False},
                ],
            }


async def test_where_we_are_comes_from_settings_then_configuration_then_the_link(
    directory: Path, backend: DemoBackend
) -> None:
    configure(backend, [])
    backend.rest.configuration["config"] |= {"port": 104, "ae_title": "ATSITE"}
    async with a_house(directory, backend) as house:
        unknown = house.vitals.greeting("192.0.2.1")
        assert (unknown.ip_address, unknown.port, unknown.ae_title, unknown.api_url) == (
            "192.0.2.1",
            11112,
            "DICOMRCV",
            "",
        )
        await house.configured()
        known = house.vitals.greeting("192.0.2.1")
        assert (known.port, known.ae_title) == (104, "ATSITE")
        local = LocalSettings(
            ip_address="192.0.2.9", port=4242, ae_title="MINE", api_url="https://p/api"
        )
        house.site.settings = replace(house.site.settings, local=local)
        ours = house.vitals.greeting("192.0.2.1")
        assert (ours.ip_address, ours.port, ours.ae_title, ours.api_url) == (
            "192.0.2.9",
            4242,
            "MINE",
            "https://p/api",
        )
