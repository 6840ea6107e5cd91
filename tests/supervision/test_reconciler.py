"""ITH's configuration: fetched, kept, changed by events at once, and reconciled."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.frames import JsonObject
from proxy.demo.node import DemoNode
from proxy.demo.rest import Fault
from proxy.machines.operation import OperationState
from proxy.supervision import reconciler
from proxy.supervision.supervisor import is_same_id
from tests.support.observed import rows_taken
from tests.support.program import (
    Program,
    configure,
    described,
    in_event,
    offer,
    running_program,
)
from tests.support.waiting import PATIENCE_S


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "RETRY_SECONDS", 0.05)


def asked(backend: DemoBackend) -> int:
    """The number of times that the configuration was given."""
    return sum(r.path.endswith("/configuration") and r.status > 0 for r in backend.rest.requests)


def flag_known(program: Program) -> bool | None:
    """The configuration of ITH about the proxy, as far as the proxy knows it."""
    known = program.registry.configuration
    return known.is_active if known else None


async def looked(program: Program) -> None:
    """Have ITH asked once more, and wait for what follows."""
    before = asked(program.backend)
    program.supervisor.came_online()
    await program.until(lambda: asked(program.backend) > before)
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
    async with running_program(directory, backend) as program:
        await program.configured()
        assert program.registry.nodes.keys() == {"a", "b"}
        await program.online()


async def test_a_bad_node_does_not_spoil_the_others(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    bad = {**described(nodes[1], id="bad"), "port": "many"}
    configure(backend, [nodes[0], bad, {"id": "worse"}, {}])
    async with running_program(directory, backend) as program:
        await program.configured()
        assert program.registry.nodes.keys() == {"a"}
        await program.online()


async def test_the_last_good_configuration_is_kept_over_a_restart(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    offer(backend)
    async with running_program(directory, backend) as program:
        await program.configured()
        await program.over(program.tell(frames.session_dispatch("sess-1", ["a"])))
    await backend.vanish()
    async with running_program(directory, backend) as program:
        assert program.registry.nodes.keys() == {"a", "b"}
        assert program.registry.identity.workspace_id == frames.WORKSPACE_ID
        program.supervisor.came_online()
        await trio.sleep(0.2)
        assert program.registry.nodes.keys() == {"a", "b"}
        await backend.listen()
        configure(backend, nodes[1:])
        await program.until(lambda: program.registry.nodes.keys() == {"b"})


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
    async with running_program(directory, backend) as program:
        await program.configured()
        configure(backend, nodes)
        backend.rest.configuration["config"] |= {"retry_count": 7}
        backend.rest.configuration["is_active"] = False
        program.tell(json.dumps({"event_type": event_type, "payload": payload}))
        assert program.supervisor.counts["broken"] == 1
        await program.until(lambda: "b" in program.registry.nodes)
        assert program.registry.nodes["a"].configured.retry_count == 7
        await program.until(lambda: program.registry.operation.run.state is OperationState.PAUSED)


async def test_an_equal_configuration_changes_nothing(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    offer(backend)
    nodes[0].script.delay_s = 0.05
    with rows_taken() as rows:
        async with running_program(directory, backend) as program:
            await program.configured()
            before, present = dict(program.registry.nodes), program.registry.configuration
            order = program.tell(frames.session_dispatch("sess-1", ["a"]))
            await program.until(lambda: nodes[0].holds)
            rows.clear()
            await looked(program)
            program.tell(frames.nodes_changed([in_event(nodes[0])], "updated"))
            program.tell(frames.config_changed({}))
            await program.over(order)
            assert program.registry.nodes == before
            assert program.registry.configuration is present
            assert not {"DLV-17", "NOD-09", "NOD-10", "OPS-01"} & {*rows}


async def test_what_ith_has_wins_over_what_an_event_said(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        program.tell(frames.nodes_changed([in_event(nodes[1])], "removed"))
        assert program.registry.nodes.keys() == {"a"}
        await program.until(lambda: program.registry.nodes.keys() == {"a", "b"})
        await program.online()
        await program.online()


class Late:
    """Has ITH's next answer arrive when the test wants it, as it was when it was asked for."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._genuine = program.services.backend.configuration
        self._asked, self._arrives = trio.Event(), trio.Event()
        program.services.backend.configuration = self._answer  # type: ignore[method-assign]

    async def _answer(self) -> bytes:
        body = await self._genuine()
        self._program.services.backend.configuration = self._genuine  # type: ignore[method-assign]
        self._asked.set()
        await self._arrives.wait()
        return body

    async def is_asked(self) -> None:
        self._program.supervisor.came_online()
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
    async with running_program(directory, backend) as program:
        await program.configured()
        late = Late(program)
        await late.is_asked()
        configure(backend, nodes)
        program.tell(frames.nodes_changed([in_event(nodes[1])], "added"))
        order = program.tell(frames.session_dispatch("sess-1", ["b"]))
        late.arrives()
        assert (await program.over(order, "b"))["status"] == "completed"


async def test_a_flag_from_before_an_event_is_not_applied(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        late = Late(program)
        backend.rest.configuration["is_active"] = False
        await late.is_asked()
        backend.rest.configuration["is_active"] = True
        program.tell(frames.status_changed(is_active=True))
        states: list[OperationState] = []
        program.registry.operation.run.observe(lambda run, _: states.append(run.state))
        late.arrives()
        await trio.sleep(0.2)
        assert OperationState.PAUSED not in states
        assert program.registry.operation.run.state is OperationState.ACTIVE


@pytest.mark.parametrize("key", ["new_config", "config"])
async def test_a_change_of_the_defaults_reaches_the_nodes_and_stops_nothing(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], key: str
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        await looked(program)
        backend.rest.configuration["config"] |= {"retry_count": 7, "timeout": 4}
        program.tell(frames.config_changed({"retry_count": 7, "timeout": 4}, key=key))
        for each in program.registry.nodes.values():
            assert (each.configured.retry_count, each.configured.connection_timeout) == (7, 4)


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
    async with running_program(directory, backend) as program:
        await program.configured()
        await program.until(lambda: program.registry.operation.run.state is was)
        backend.rest.configuration_faults.append(Fault(status=403))
        before = asked(backend)
        program.tell(frames.status_changed(is_active=not is_active))
        assert program.registry.operation.run.state is between
        await program.until(lambda: asked(backend) > before)
        program.supervisor.came_online()
        await program.until(lambda: program.registry.operation.run.state is was)


async def test_an_event_counts_where_the_configuration_does_not_follow_it(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        program.tell(frames.status_changed(is_active=False))
        await program.until(lambda: flag_known(program) is True)
        program.tell(frames.nodes_changed([in_event(nodes[0])]))
        await looked(program)
        assert program.registry.operation.run.state is OperationState.PAUSED
    async with running_program(directory, backend) as program:
        await program.configured()
        await looked(program)
        assert program.registry.operation.run.state is OperationState.PAUSED
        backend.rest.configuration["is_active"] = False
        program.supervisor.came_online()
        await program.until(lambda: flag_known(program) is False)
        backend.rest.configuration["is_active"] = True
        program.supervisor.came_online()
        await program.registry.operation.run.until(OperationState.ACTIVE)


@pytest.mark.parametrize("flag", [{}, {"is_active": None}, {"is_active": "perhaps"}])
async def test_a_configuration_without_the_flag_leaves_it_as_the_event_told_it(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], flag: JsonObject
) -> None:
    configure(backend, nodes)
    del backend.rest.configuration["is_active"]
    backend.rest.configuration |= flag
    async with running_program(directory, backend) as program:
        await program.configured()
        program.tell(frames.status_changed(is_active=False))
        for _ in range(2):
            await looked(program)
        assert program.registry.operation.run.state is OperationState.PAUSED


async def test_what_only_an_event_tells_of_the_settings_outlasts_the_next_look(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    """ITH's configuration has no retry_count and no timeout; its events have."""
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        before = asked(backend)
        program.tell(frames.config_changed({"retry_count": 4, "timeout": 45}))
        await program.until(lambda: asked(backend) > before)
        await looked(program)
    async with running_program(directory, backend) as program:
        await looked(program)
        node = program.registry.nodes["a"].configured
        assert (node.retry_count, node.connection_timeout) == (4, 45)


async def test_events_before_the_first_configuration_are_told_by_it(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        program.tell(frames.nodes_changed([in_event(nodes[1])], "removed"))
        program.tell(frames.config_changed({"retry_count": 7}))
        await program.until(lambda: program.registry.configuration)
        assert program.registry.nodes.keys() == {"a", "b"}
        await program.online()


def dated(event: JsonObject, timestamp: str) -> JsonObject:
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
    async with running_program(directory, backend) as program:
        await program.configured()
        program.tell(removed)
        assert program.registry.nodes.keys() == {"b"}
        program.tell(added)
        assert program.registry.nodes.keys() == {"a", "b"}
        await program.services.ledger.settled()
    async with running_program(directory, backend) as program:
        await program.configured()
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.until(lambda: nodes[0].holds)
        before = asked(backend)
        program.tell(removed)
        assert program.registry.nodes.keys() == {"a", "b"}
        assert (await program.over(order))["status"] == "completed"
        await program.until(lambda: asked(backend) > before)


async def test_an_older_status_changes_nothing_and_one_of_the_same_time_does(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
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
            program.tell(dated(frames.status_changed(is_active=is_active), timestamp))
            states.append(program.registry.operation.run.state is OperationState.ACTIVE)
        assert states == [False, False, True, True, False, True, False, True]


async def test_an_older_configuration_event_changes_nothing(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        program.tell(dated(frames.config_changed({"retry_count": 7}), LATER))
        program.tell(dated(frames.config_changed({"retry_count": 1}), EARLIER))
        assert program.registry.nodes["a"].configured.retry_count == 7


# Whose change it is ---------------------------------------------------------------------------

OURS = frames.PROXY_ID
THEIRS = "0f0e0d0c-77a4-4c56-8b8e-2f3d9a7b0b02"
PAUSE = frames.status_changed(is_active=False)
CHANGES = {
    "nodes": frames.nodes_changed([], "replaced"),
    "configuration": frames.config_changed({"retry_count": 9}),
    "status": PAUSE,
}


def to(proxy_id: str | None, event: JsonObject) -> JsonObject:
    """The event as it is for another proxy, or for none in particular."""
    return {**event, "entity_id": proxy_id}


def state_of(program: Program) -> tuple[set[str], int | None, bool]:
    """The values that each of the changes would change."""
    known = program.registry.configuration
    return (
        {*program.registry.nodes},
        known.config.retry_count if known else None,
        program.registry.operation.run.state is OperationState.ACTIVE,
    )


UNCHANGED = {"a", "b"}, None, True
CHANGED = {"nodes": (set(), None, True), "configuration": ({"a", "b"}, 9, True)} | {
    "status": ({"a", "b"}, None, False)
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("proxy_id", [THEIRS, "proxy-2", f"{OURS}0", OURS[:-1], "proxy_"])
async def test_another_proxy_s_change_is_counted_and_not_obeyed_and_ith_is_asked(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], change: str, proxy_id: str
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        before = asked(backend)
        program.tell(to(proxy_id, CHANGES[change]))
        assert state_of(program) == UNCHANGED
        assert program.supervisor.counts["foreign"] == 1
        await program.until(lambda: asked(backend) > before)
        await looked(program)
        assert state_of(program) == UNCHANGED


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "proxy_id",
    [
        None,
        "",
        "  ",
        OURS,
        f" {OURS}\n",
        OURS.upper(),
        OURS.replace("-", ""),
        f"proxy_{OURS}",
        f"PROXY_{OURS.upper()}",
    ],
)
async def test_a_change_for_this_proxy_or_for_none_in_particular_is_obeyed_at_once(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], change: str, proxy_id: str | None
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        program.tell(to(proxy_id, CHANGES[change]))
        assert state_of(program) == CHANGED[change]
        assert program.supervisor.counts["foreign"] == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("proxy-1", " proxy-1 ", True),
        ("proxy-1", "Proxy-1", False),  # opaque: two proxies may differ in nothing else
        ("proxy_1", "1", False),
        ("proxy_1", "proxy_1", True),
        (OURS, f"urn:{OURS}", False),
        (OURS, f"proxy_proxy_{OURS}", False),
        (OURS, OURS.replace("c", "\u0441"), False),  # Cyrillic
        ("", "", True),
        ("", OURS, False),
    ],
)
def test_two_ids_are_one_only_where_they_cannot_be_two(one: str, other: str, same: bool) -> None:
    assert is_same_id(one, other) is is_same_id(other, one) is same


async def test_a_change_taken_for_another_proxy_s_does_no_harm_if_it_was_ours(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        await looked(program)
        configure(backend, nodes[1:])
        backend.rest.configuration["is_active"] = False
        program.tell(to("a name of ours that nobody told", PAUSE))
        await program.registry.operation.run.until(OperationState.PAUSED)
        assert program.registry.nodes.keys() == {"b"}


async def test_another_proxy_s_change_makes_none_of_ours_outdated(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        for change in CHANGES.values():
            program.tell(to(THEIRS, dated(change, LATER)))
        for ours in ("configuration", "status"):
            program.tell(dated(CHANGES[ours], EARLIER))
        assert state_of(program) == ({"a", "b"}, 9, False)


async def test_another_proxy_s_change_takes_nothing_from_what_an_event_of_ours_said(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    """ITH's configuration does not follow our pause: its answer must not end it."""
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        await looked(program)
        before = asked(backend)
        program.tell(PAUSE)
        for is_active in (True, False):
            program.tell(to(THEIRS, frames.status_changed(is_active=is_active)))
        await program.until(lambda: asked(backend) > before and flag_known(program) is True)
        before = asked(backend)
        program.tell(to(THEIRS, frames.status_changed(is_active=True)))
        await program.until(lambda: asked(backend) > before)
        await trio.sleep(0.05)
        assert program.registry.operation.run.state is OperationState.PAUSED


async def test_before_it_is_known_who_we_are_ith_s_configuration_counts(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        program.tell(to(OURS, PAUSE))
        assert program.registry.operation.run.state is OperationState.ACTIVE
        assert (program.supervisor.counts["early"], program.supervisor.counts["foreign"]) == (1, 0)
        await program.until(lambda: program.registry.configuration)  # ITH was asked
        assert program.registry.operation.run.state is OperationState.ACTIVE


async def test_before_it_is_known_who_we_are_a_change_for_none_in_particular_is_obeyed(
    directory: Path, backend: DemoBackend
) -> None:
    async with running_program(directory, backend) as program:
        program.tell(to(None, PAUSE))
        assert program.registry.operation.run.state is OperationState.PAUSED


def greeted(program: Program) -> None:
    program.supervisor.welcome(frames.WORKSPACE_ID, OURS)


def nothing(_: Program) -> None:
    pass


@pytest.mark.parametrize("greeting", [greeted, nothing])
@pytest.mark.parametrize("workspace", [{}, {"workspace_id": ""}, {"workspace_id": None}])
async def test_who_we_are_is_known_from_the_greeting_or_from_the_configuration(
    directory: Path,
    backend: DemoBackend,
    nodes: list[DemoNode],
    greeting: Callable[[Program], None],
    workspace: JsonObject,
) -> None:
    configure(backend, nodes)
    del backend.rest.configuration["workspace_id"]
    backend.rest.configuration |= workspace
    async with running_program(directory, backend) as program:
        greeting(program)
        if greeting is nothing:
            await program.configured()
        program.tell(to(THEIRS, PAUSE))
        assert program.supervisor.counts["foreign"] == 1
        program.tell(to(OURS, PAUSE))
        assert program.registry.operation.run.state is OperationState.PAUSED
        assert program.supervisor.counts["early"] == 0


async def test_a_configuration_without_workspace_leaves_that_of_the_greeting(
    directory: Path, backend: DemoBackend
) -> None:
    configure(backend, [])
    del backend.rest.configuration["workspace_id"]
    async with running_program(directory, backend) as program:
        greeted(program)
        await program.configured()
        assert program.registry.identity.workspace_id == frames.WORKSPACE_ID


# When it is known -----------------------------------------------------------------------------


async def test_the_configuration_is_known_when_ith_has_given_it(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "FRESH_SECONDS", 0.01)  # there is nothing older to make do with
    configure(backend, nodes)
    backend.rest.configuration_faults.extend([Fault(status=503)] * 3)
    async with running_program(directory, backend) as program:
        program.supervisor.look()
        with trio.fail_after(PATIENCE_S):
            await program.supervisor.configured()
        assert program.registry.nodes.keys() == {"a", "b"}


async def test_what_was_known_before_an_outage_is_not_taken_for_what_ith_has_now(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "FRESH_SECONDS", PATIENCE_S)
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        await program.supervisor.configured()
    async with running_program(directory, backend) as program:
        for ours in (nodes[1:], nodes):  # after a restart, and after an outage
            configure(backend, ours)
            backend.rest.configuration_faults.append(Fault(status=503))
            program.supervisor.came_online()
            with trio.fail_after(PATIENCE_S):
                await program.supervisor.configured()
            assert program.registry.nodes.keys() == {node.node_id for node in ours}


async def test_what_was_known_before_has_to_do_where_ith_does_not_answer(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "FRESH_SECONDS", 0.05)
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        backend.rest.configuration_faults.append(Fault(stall_after=0))
        program.supervisor.came_online()
        with trio.fail_after(PATIENCE_S):
            await program.supervisor.configured()


# Pseudonyms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["event", "configuration"])
async def test_what_pseudonyms_mean_is_logged_once_a_run_and_at_each_change(
    directory: Path, backend: DemoBackend, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    def said() -> list[str]:
        return [each for each in caplog.messages if "pseudonymised" in each]

    def switch(program: Program, value: object) -> None:
        backend.rest.configuration["config"]["enable_phi_anonymization"] = value
        if how == "event":
            program.tell(frames.config_changed({"enable_phi_anonymization": value}))

    caplog.set_level(logging.INFO, "proxy.logs")
    on, off = "configuration.pseudonymised", "configuration.not_pseudonymised"
    configure(backend, [])
    for _ in range(2):
        async with running_program(directory, backend) as program:
            await program.configured()
            for name in ("one", "one", "another"):
                backend.rest.configuration["name"] = name
                await looked(program)
            assert said() == [on]
            switch(program, value=False)
            await looked(program)
            switch(program, value=True)
            await looked(program)
            assert said() == [on, off, on]
            caplog.clear()


@pytest.mark.parametrize(
    "told",
    [{}, {"enable_phi_anonymization": None}]
    + [{"enable_phi_anonymization": value} for value in (False, "no", "perhaps")],
)
async def test_nothing_is_said_of_pseudonyms_where_ith_does_not_say_that_there_are_any(
    directory: Path, backend: DemoBackend, caplog: pytest.LogCaptureFixture, told: JsonObject
) -> None:
    caplog.set_level(logging.INFO, "proxy.logs")
    configure(backend, [])
    del backend.rest.configuration["config"]["enable_phi_anonymization"]
    backend.rest.configuration["config"] |= told
    async with running_program(directory, backend) as program:
        await program.configured()
    assert not [each for each in caplog.messages if "pseudonymised" in each]
