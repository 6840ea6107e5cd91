"""The signs of life describe the running work."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import trio

from proxy import __version__
from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.frames import JsonObject
from proxy.machines.node import NodeState
from proxy.machines.operation import OperationState
from proxy.settings import LocalSettings
from tests.support.program import Program, configure, described, offer, running_program, some_nodes


def beat(program: Program) -> dict[str, object]:
    heartbeat = program.heartbeat.heartbeat()
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
        async with running_program(directory, backend) as program:
            assert program.heartbeat.heartbeat() is None  # nobody has said who we are
            await program.configured()
            await program.until(lambda: program.registry.nodes["a"].run.state is NodeState.ONLINE)
            assert beat(program) == {
                "status": "active",
                "nodes_online": 1,
                "nodes_total": 3,
                "active_dispatches": 0,
                "disk_usage_gb": 0.0,
                "version": __version__,
            }
            nodes[0].script.delay_s = 0.1
            order = program.tell(frames.session_dispatch("sess-1", ["a"]))
            await program.until(lambda: nodes[0].holds)
            assert beat(program)["active_dispatches"] == 1
            size = sum(len(instance.content) for instance in instances)
            assert beat(program)["disk_usage_gb"] == pytest.approx(size / 1024**3)
            await program.over(order)
            await program.idle()
            assert beat(program)["active_dispatches"] == 0
            program.tell(frames.status_changed(is_active=False))
            assert program.registry.operation.run.state is OperationState.PAUSED
            assert beat(program)["status"] == "inactive"


async def test_the_health_names_active_nodes_and_who_answered(
    directory: Path, backend: DemoBackend
) -> None:
    async with some_nodes("a", "b", "c") as nodes:
        configure(backend, [nodes[0], nodes[1], described(nodes[2], is_active=False)])
        await trio.to_thread.run_sync(nodes[1].stop)
        async with running_program(directory, backend) as program:
            assert "nodes" not in program.heartbeat.health(online=True).to_dict()
            await program.configured()
            await program.until(lambda: program.registry.nodes["a"].run.state is NodeState.ONLINE)
            assert program.heartbeat.health(online=False).to_dict() == {
                "type": "health_update",
                "proxy_status": "offline",
                "proxy_version": __version__,
                "nodes": [
                    {"node_id": "a", "is_reachable": True},
                    {"node_id": "b", "is_reachable": False},
                ],
            }


SAYS = {"port": 104, "ae_title": "ATSITE", "api_url": "https://proxy.example.org/api"}
SITE = {"port": 4242, "ae_title": "MINE", "api_url": "https://p/api"}


async def greeting(program: Program) -> JsonObject:
    """Return the message about this machine when the address used towards ITH is 192.0.2.1."""
    await program.configured()
    said = program.heartbeat.greeting("192.0.2.1")
    assert said is not None
    frame = said.to_dict()
    assert (frame.pop("type"), frame.pop("proxy_version")) == ("config_update", __version__)
    return frame


def set_local(program: Program, **local: object) -> None:
    program.heartbeat._settings = LocalSettings(**local)  # type: ignore[arg-type]


async def test_nothing_is_said_of_where_we_are_before_it_is_known_what_ith_has(
    directory: Path, backend: DemoBackend
) -> None:
    async with running_program(directory, backend) as program:
        set_local(program, ip_address="192.0.2.9", **SITE)
        assert program.heartbeat.greeting("192.0.2.1") is None


@pytest.mark.parametrize("fields", [f for n in range(4) for f in itertools.combinations(SITE, n)])
async def test_each_field_is_the_site_s_own_or_as_ith_has_it(
    directory: Path, backend: DemoBackend, fields: tuple[str, ...]
) -> None:
    configure(backend, [])
    backend.rest.configuration["config"] |= SAYS
    own = {field: SITE[field] for field in fields}
    async with running_program(directory, backend) as program:
        set_local(program, **own)
        assert await greeting(program) == {"ip_address": "192.0.2.1", **SAYS, **own}


@pytest.mark.parametrize("given", ["", "192.0.2.9"])
async def test_the_address_is_the_site_s_own_or_the_one_used_towards_ith(
    directory: Path, backend: DemoBackend, given: str
) -> None:
    configure(backend, [])
    backend.rest.configuration["config"]["ip_address"] = "203.0.113.7"
    async with running_program(directory, backend) as program:
        set_local(program, ip_address=given)
        assert (await greeting(program))["ip_address"] == (given or "192.0.2.1")


@pytest.mark.parametrize("absent", ["missing", "null"])
async def test_what_ith_has_no_value_for_is_told_as_the_platform_s_default(
    directory: Path, backend: DemoBackend, absent: str
) -> None:
    configure(backend, [])
    for field in SAYS:
        del backend.rest.configuration["config"][field]
        if absent == "null":
            backend.rest.configuration["config"][field] = None
    async with running_program(directory, backend) as program:
        said = await greeting(program)
    assert said == {"ip_address": "192.0.2.1", "port": 11112, "ae_title": "DICOMRCV", "api_url": ""}


@pytest.mark.parametrize(
    ("field", "value"), [("port", 70000), ("ae_title", "SEVENTEEN_LETTERS"), ("api_url", {})]
)
async def test_what_ith_has_and_cannot_be_read_is_left_out(
    directory: Path, backend: DemoBackend, field: str, value: object
) -> None:
    configure(backend, [])
    backend.rest.configuration["config"] |= SAYS | {field: value}
    async with running_program(directory, backend) as program:
        said = await greeting(program)
        assert said == {"ip_address": "192.0.2.1"} | {k: v for k, v in SAYS.items() if k != field}
        set_local(program, **{field: SITE[field]})
        assert (await greeting(program))[field] == SITE[field]
