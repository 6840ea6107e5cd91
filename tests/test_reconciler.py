"""ITH's configuration: fetched, kept, changed by events at once, and reconciled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from proxy import reconciler, runner
from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.frames import Json
from proxy.demo.node import DemoNode
from proxy.demo.rest import Fault
from proxy.machines.operation import OperationState
from tests.support.site import (
    House,
    a_house,
    configure,
    described,
    in_event,
    offer,
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "RETRY_SECONDS", 0.05)


def asked(backend: DemoBackend) -> int:
    """How often the configuration was given."""
    return sum(r.path.endswith("/configuration") and r.status > 0 for r in backend.rest.requests)


def flag_known(house: House) -> bool | None:
    """What ITH's configuration says of the proxy, as far as the proxy knows."""
    known = house.site.configuration
    return known.is_active if known else None


async def looked(house: House) -> None:
    """Have ITH asked once more, and wait for what follows."""
    before = asked(house.backend)
    house.supervisor.came_online()
    await house.until(lambda: asked(house.backend) > before)
    await trio.sleep(0.05)


@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=401), Fault(body=b"<html>"), Fault(cut_after=10)],
    ids=["500", "401", "page", "cut"],
)
async def test_a_failed_fetch_is_repeated(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], fault: Fault
) -> None:
    configure(backend, nodes)
    backend.rest.configuration_faults.extend([fault, fault])
    async with a_house(directory, backend) as house:
        await house.configured()
        assert house.site.nodes.keys() == {"a", "b"}
        await house.online()


async def test_a_bad_node_does_not_spoil_the_others(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    bad = {**described(nodes[1], id="bad"), "port": "many"}
    configure(backend, [nodes[0], bad, {"id": "worse"}, {}])
    async with a_house(directory, backend) as house:
        await house.configured()
        assert house.site.nodes.keys() == {"a"}
        await house.online()


async def test_the_last_good_configuration_is_kept_over_a_restart(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    offer(backend)
    async with a_house(directory, backend) as house:
        await house.configured()
        await house.over(house.tell(frames.session_dispatch("sess-1", ["a"])))
    await backend.vanish()
    async with a_house(directory, backend) as house:
        assert house.site.nodes.keys() == {"a", "b"}
        assert house.site.identity.workspace_id == frames.WORKSPACE_ID
        house.supervisor.came_online()
        await trio.sleep(0.2)
        assert house.site.nodes.keys() == {"a", "b"}
        await backend.listen()
        configure(backend, nodes[1:])
        await house.until(lambda: house.site.nodes.keys() == {"b"})


@pytest.mark.parametrize(
    ("event_type", "payload"),
    [
        ("proxy.nodes_changed", {"nodes": None}),
        ("proxy.nodes_changed", {}),
        ("proxy.nodes_changed", {"nodes": 7}),
        ("proxy.nodes_changed", []),
        ("proxy.config_changed", {"new_config": "fast"}),
        ("proxy.config_changed", {}),
        ("proxy.config_changed", None),
        ("proxy.status_changed", {"is_active": "so so"}),
    ],
)
async def test_a_change_that_cannot_be_read_is_looked_up(
    directory: Path,
    backend: DemoBackend,
    nodes: list[DemoNode],
    event_type: str,
    payload: object,
) -> None:
    configure(backend, nodes[:1])
    async with a_house(directory, backend) as house:
        await house.configured()
        configure(backend, nodes)
        backend.rest.configuration["config"] |= {"retry_count": 7}
        backend.rest.configuration["is_active"] = False
        house.tell(json.dumps({"event_type": event_type, "payload": payload}))
        assert house.supervisor.counts["broken"] == 1
        await house.until(lambda: "b" in house.site.nodes)
        assert house.site.nodes["a"].node.retry_count == 7
        await house.until(lambda: house.site.operation.state is OperationState.PAUSED)


async def test_an_equal_configuration_changes_nothing(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    offer(backend)
    nodes[0].script.delay_s = 0.05
    async with a_house(directory, backend) as house:
        await house.configured()
        before, present = dict(house.site.nodes), house.site.configuration
        order = house.tell(frames.session_dispatch("sess-1", ["a"]))
        await house.until(lambda: nodes[0].holds)
        rows: list[str] = []
        runner.OBSERVERS.append(lambda _, step: rows.append(step.row))
        try:
            await looked(house)
            house.tell(frames.nodes_changed([in_event(nodes[0])], "updated"))
            house.tell(frames.config_changed({}))
            await house.over(order)
        finally:
            runner.OBSERVERS.pop()
        assert house.site.nodes == before
        assert house.site.configuration is present
        assert not {"DLV-17", "NOD-09", "NOD-10", "OPS-01"} & {*rows}


async def test_what_ith_has_wins_over_what_an_event_said(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with a_house(directory, backend) as house:
        await house.configured()
        house.tell(frames.nodes_changed([in_event(nodes[1])], "removed"))
        assert house.site.nodes.keys() == {"a"}
        await house.until(lambda: house.site.nodes.keys() == {"a", "b"})
        await house.online()
        await house.online()


class Late:
    """Has ITH's next answer arrive when the test wants it, as it was when it was asked for."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._genuine = house.site.backend.configuration
        self._asked, self._arrives = trio.Event(), trio.Event()
        house.site.backend.configuration = self._answer  # type: ignore[method-assign]

    async def _answer(self) -> bytes:
        body = await self._genuine()
        self._house.site.backend.configuration = self._genuine  # type: ignore[method-assign]
        self._asked.set()
        await self._arrives.wait()
        return body

    async def is_asked(self) -> None:
        self._house.supervisor.came_online()
        await self._asked.wait()

    def arrives(self) -> None:
        self._arrives.set()


async def test_an_answer_from_before_an_event_is_not_applied(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    """A node is added while ITH still sends the configuration without it: its work lives."""
    configure(backend, nodes[:1])
    offer(backend)
    nodes[1].script.delay_s = 0.05
    async with a_house(directory, backend) as house:
        await house.configured()
        late = Late(house)
        await late.is_asked()
        configure(backend, nodes)
        house.tell(frames.nodes_changed([in_event(nodes[1])], "added"))
        order = house.tell(frames.session_dispatch("sess-1", ["b"]))
        late.arrives()
        assert (await house.over(order, "b"))["status"] == "completed"


async def test_a_flag_from_before_an_event_is_not_applied(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with a_house(directory, backend) as house:
        await house.configured()
        late = Late(house)
        backend.rest.configuration["is_active"] = False
        await late.is_asked()
        backend.rest.configuration["is_active"] = True
        house.tell(frames.status_changed(is_active=True))
        states: list[OperationState] = []
        runner.OBSERVERS.append(lambda _, __: states.append(house.site.operation.state))
        try:
            late.arrives()
            await trio.sleep(0.2)
        finally:
            runner.OBSERVERS.pop()
        assert OperationState.PAUSED not in states
        assert house.site.operation.state is OperationState.ACTIVE


@pytest.mark.parametrize("key", ["new_config", "config"])
async def test_a_change_of_the_defaults_reaches_the_nodes_and_stops_nothing(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], key: str
) -> None:
    configure(backend, nodes)
    async with a_house(directory, backend) as house:
        await house.configured()
        await looked(house)
        backend.rest.configuration["config"] |= {"retry_count": 7, "timeout": 4}
        house.tell(frames.config_changed({"retry_count": 7, "timeout": 4}, key=key))
        for each in house.site.nodes.values():
            assert (each.node.retry_count, each.node.connection_timeout) == (7, 4)


@pytest.mark.parametrize("is_active", [True, False])
async def test_what_ith_says_after_an_outage_counts_though_it_said_so_before(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], is_active: bool
) -> None:
    """An event came, ITH would not give its configuration, and took the event back meanwhile."""
    configure(backend, nodes)
    backend.rest.configuration["is_active"] = is_active
    was, between = OperationState.ACTIVE, OperationState.PAUSED
    if not is_active:
        was, between = between, was
    async with a_house(directory, backend) as house:
        await house.configured()
        await house.until(lambda: house.site.operation.state is was)
        backend.rest.configuration_faults.append(Fault(status=403))
        before = asked(backend)
        house.tell(frames.status_changed(is_active=not is_active))
        assert house.site.operation.state is between
        await house.until(lambda: asked(backend) > before)
        house.supervisor.came_online()
        await house.until(lambda: house.site.operation.state is was)


async def test_an_event_counts_where_the_configuration_does_not_follow_it(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with a_house(directory, backend) as house:
        await house.configured()
        house.tell(frames.status_changed(is_active=False))
        await house.until(lambda: flag_known(house) is True)
        house.tell(frames.nodes_changed([in_event(nodes[0])]))
        await looked(house)
        assert house.site.operation.state is OperationState.PAUSED
    async with a_house(directory, backend) as house:
        await house.configured()
        await looked(house)
        assert house.site.operation.state is OperationState.PAUSED
        backend.rest.configuration["is_active"] = False
        house.supervisor.came_online()
        await house.until(lambda: flag_known(house) is False)
        backend.rest.configuration["is_active"] = True
        house.supervisor.came_online()
        await house.site.operation.until(OperationState.ACTIVE)


@pytest.mark.parametrize("flag", [{}, {"is_active": None}, {"is_active": "perhaps"}])
async def test_a_configuration_without_the_flag_leaves_it_as_the_event_told_it(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], flag: Json
) -> None:
    configure(backend, nodes)
    del backend.rest.configuration["is_active"]
    backend.rest.configuration |= flag
    async with a_house(directory, backend) as house:
        await house.configured()
        house.tell(frames.status_changed(is_active=False))
        for _ in range(2):
            await looked(house)
        assert house.site.operation.state is OperationState.PAUSED


async def test_what_only_an_event_tells_of_the_settings_outlasts_the_next_look(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    """ITH's configuration has no retry_count and no timeout; its events have."""
    configure(backend, nodes)
    async with a_house(directory, backend) as house:
        await house.configured()
        before = asked(backend)
        house.tell(frames.config_changed({"retry_count": 4, "timeout": 45}))
        await house.until(lambda: asked(backend) > before)
        await looked(house)
    async with a_house(directory, backend) as house:
        await looked(house)
        node = house.site.nodes["a"].node
        assert (node.retry_count, node.connection_timeout) == (4, 45)


async def test_events_before_the_first_configuration_are_told_by_it(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with a_house(directory, backend) as house:
        house.tell(frames.nodes_changed([in_event(nodes[1])], "removed"))
        house.tell(frames.config_changed({"retry_count": 7}))
        await house.until(lambda: house.site.configuration)
        assert house.site.nodes.keys() == {"a", "b"}
        await house.online()


def dated(event: Json, timestamp: str) -> Json:
    return {**event, "timestamp": timestamp}


EARLIER, LATER = "2026-03-01T08:00:00.000Z", "2026-03-01T08:00:00.001Z"


async def test_an_older_change_of_the_nodes_changes_nothing(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    """An event that comes again after a newer one, even after a restart, ends no delivery."""
    configure(backend, nodes)
    offer(backend)
    nodes[0].script.delay_s = 0.05
    removed = dated(frames.nodes_changed([{"node_id": "a"}], "removed"), EARLIER)
    added = dated(frames.nodes_changed([in_event(nodes[0])], "added"), LATER)
    async with a_house(directory, backend) as house:
        await house.configured()
        house.tell(removed)
        assert house.site.nodes.keys() == {"b"}
        house.tell(added)
        assert house.site.nodes.keys() == {"a", "b"}
        await house.site.ledger.settled()
    async with a_house(directory, backend) as house:
        await house.configured()
        order = house.tell(frames.session_dispatch("sess-1", ["a"]))
        await house.until(lambda: nodes[0].holds)
        before = asked(backend)
        house.tell(removed)
        assert house.site.nodes.keys() == {"a", "b"}
        assert (await house.over(order))["status"] == "completed"
        await house.until(lambda: asked(backend) > before)


async def test_an_older_status_changes_nothing_and_one_of_the_same_time_does(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with a_house(directory, backend) as house:
        await house.configured()
        states = []
        for is_active, timestamp in (
            (False, LATER),
            (True, EARLIER),
            (True, LATER),
            (False, EARLIER),
            (False, "yesterday"),
            (True, ""),
            (False, "2999-01-01T00:00:00Z"),
            (True, LATER),
        ):
            house.tell(dated(frames.status_changed(is_active=is_active), timestamp))
            states.append(house.site.operation.state is OperationState.ACTIVE)
        assert states == [False, False, True, True, False, True, False, True]


async def test_an_older_configuration_event_changes_nothing(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with a_house(directory, backend) as house:
        await house.configured()
        house.tell(dated(frames.config_changed({"retry_count": 7}), LATER))
        house.tell(dated(frames.config_changed({"retry_count": 1}), EARLIER))
        assert house.site.nodes["a"].node.retry_count == 7
