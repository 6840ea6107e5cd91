"""The effect of each event of ITH, on real parts: ledger, local PACS, HTTP, DICOM nodes."""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio

from proxy.activities.delivery.attempt import Attempt
from proxy.demo import frames
from proxy.demo.archives import zip_session
from proxy.demo.backend import DemoBackend
from proxy.demo.frames import JsonObject
from proxy.demo.node import DemoNode
from proxy.demo.rest import Fault
from proxy.demo.sample import Study, ct_series
from proxy.machines import policy
from proxy.machines.delivery import DeliveryState
from proxy.machines.dispatch import DispatchState
from proxy.machines.node import NodeState
from proxy.machines.operation import OperationState, PauseLock
from proxy.nodes import NewScans
from proxy.runtime.runner import observing
from tests.support.program import (
    Program,
    configure,
    described,
    in_event,
    offer,
    running_program,
    some_nodes,
    uids,
)
from tests.support.waiting import PATIENCE_S

HELD, STORING, WAITING, BACKING_OFF = (
    DeliveryState.HELD,
    DeliveryState.STORING,
    DeliveryState.WAITING,
    DeliveryState.BACKING_OFF,
)
DELETED = "session deleted in ITH; a node keeps what it was sent, for DICOM has no delete"


def offer_scan(backend: DemoBackend) -> None:
    instances = ct_series(Study(1), slices=2, size=16)
    backend.rest.offer("scan", "scan-1", zip_session(instances))


@pytest.fixture
async def program(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> AsyncIterator[Program]:
    configure(backend, nodes)
    async with running_program(directory, backend) as program:
        await program.configured()
        await program.online()
        yield program


# Dispatch -------------------------------------------------------------------------------------


async def test_a_session_goes_to_both_nodes(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    instances = offer(backend)
    order = program.tell(frames.session_dispatch("sess-1", ["a", "b"]))
    closing = await program.over(order)
    assert closing == {
        "status": "completed",
        "progress": 100,
        "files_sent": 8,
        "files_total": 8,
    }
    assert all(node.holds.keys() == uids(instances) for node in nodes)
    await program.idle()
    assert len(backend.rest.downloads) == 1


async def test_nodes_of_others_and_repeated_ones_are_passed_over(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend)
    order = program.tell(frames.session_dispatch("sess-1", ["elsewhere", "a", "a", "a"]))
    await program.over(order)
    await program.idle()
    assert {p.get("node_id") for p in program.statuses(order)} == {"a", None}
    assert (len(nodes[0].arrivals), len(nodes[1].arrivals)) == (4, 0)


async def test_none_of_ours_named_is_silence(program: Program, backend: DemoBackend) -> None:
    offer(backend)
    order = program.tell(frames.session_dispatch("sess-1", ["elsewhere"]))
    await trio.sleep(0.1)
    assert (program.statuses(order), [*program.registry.dispatches]) == ([], [])
    assert backend.rest.downloads == []


async def test_the_same_order_again_is_done_once(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend)
    event = frames.session_dispatch("sess-1", ["a"])
    order = program.tell(event)
    program.tell(event)
    await program.over(order)
    await program.idle()
    assert len(nodes[0].arrivals) == 4
    assert [p["status"] for p in program.stream(order)] == ["completed"]


@pytest.mark.parametrize("ending", ["completed", "failed"])
async def test_an_order_that_is_over_is_answered_again_and_not_done_again(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], ending: str
) -> None:
    configure(backend, nodes)
    offer(backend)
    if ending == "failed":
        nodes[1].script.answer = lambda _: 0xC000
    event = frames.session_dispatch("sess-1", ["a", "b"])
    async with running_program(directory, backend) as program:
        await program.configured()
        order = program.tell(event)
        await program.over(order)
        await program.idle()
        first = program.finals(order)
        assert sorted(p["status"] for p in first) == ["completed", ending, ending]
    async with running_program(directory, backend) as program:
        await program.configured()
        await program.until(lambda: len(program.finals(order)) == 3)  # repeated after the restart
        for times in (2, 3):
            program.tell(event)
            await program.until(lambda times=times: len(program.finals(order)) == 3 * times)  # type: ignore[misc]
            await program.idle()
            assert same(program.finals(order)[-3:], first)
    assert [len(node.arrivals) for node in nodes] == [4, 4]
    assert len(backend.rest.downloads) == 1


async def test_an_answer_that_is_on_its_way_is_not_given_twice(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    offer(backend)
    event = frames.session_dispatch("sess-1", ["a"])
    async with running_program(directory, backend, listens=False) as program:
        await program.configured()
        program.tell(event)
        await program.until(lambda: program.outbox.queued == 2)
        for _ in range(3):
            program.tell(event)
            await program.idle()
        assert program.outbox.queued == 2


def same(some: Sequence[JsonObject], other: Sequence[JsonObject]) -> bool:
    def key(payload: JsonObject) -> str:
        return json.dumps(payload, sort_keys=True)

    return sorted(map(key, some)) == sorted(map(key, other))


async def test_the_same_order_for_one_node_more_is_done_for_that_node(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend)
    event = frames.session_dispatch("sess-1", ["a"])
    order = program.tell(event)
    event["payload"]["nodes"] = ["a", "b"]
    program.tell(event)
    await program.over(order, "a")
    await program.over(order, "b")
    await program.idle()
    assert [len(node.arrivals) for node in nodes] == [4, 4]


async def test_an_order_before_the_first_configuration_waits_for_it(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    offer(backend)
    offer_scan(backend)
    async with running_program(directory, backend) as program:
        order = program.tell(frames.session_dispatch("sess-1", ["a", "elsewhere"]))
        scan = program.tell(frames.new_scan_available("scan-1"))
        await trio.sleep(0.05)
        assert program.statuses(order) == []
        await program.configured()
        assert (await program.over(order))["status"] == "completed"
        assert (await program.over(scan))["status"] == "completed"
        assert {p.get("node_id") for p in program.statuses(scan)} == {"a", "b", None}
        assert program.supervisor.counts["session.dispatch"] == 1


async def test_orders_and_deletions_before_the_first_configuration_outlive_a_crash(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    """A node of another proxy is never reported, although the order was kept with it."""
    configure(backend, nodes)
    wanted = offer(backend, "sess-1", seed=1)
    for number in (2, 3):
        offer(backend, f"sess-{number}", seed=number)
    async with running_program(directory, backend) as program:
        first = program.tell(frames.session_dispatch("sess-1", ["a", "elsewhere"]))
        deleted = program.tell(frames.session_dispatch("sess-2", ["a"]))
        program.tell(frames.session_deleted("sess-2", study_instance_uid="1.2.3"))
        foreign = program.tell(frames.session_dispatch("sess-3", ["elsewhere"]))
        await program.services.ledger.settled()
    async with running_program(directory, backend) as program:
        await program.configured()
        assert (await program.over(first))["status"] == "completed"
        assert {p.get("node_id") for p in program.statuses(first)} == {"a", None}
        assert (await program.over(deleted))["error"] == DELETED
        assert program.statuses(foreign) == []
        assert nodes[0].holds.keys() == uids(wanted)
        await program.idle()
    async with running_program(directory, backend) as program:
        await program.configured()
        await trio.sleep(0.1)
        assert not program.registry.dispatches
        assert program.supervisor._early_events.take() == []


async def test_another_workspace_s_event_is_not_for_us(
    program: Program, backend: DemoBackend
) -> None:
    offer(backend)
    program.tell(frames.session_dispatch("sess-1", ["a"], workspace_id="ws-other"))
    program.tell(frames.status_changed(is_active=False, workspace_id="ws-other"))
    assert not program.registry.dispatches
    assert program.registry.operation.run.state is OperationState.ACTIVE
    assert program.supervisor.counts["foreign"] == 2


async def test_another_workspace_s_event_is_not_for_us_though_it_comes_before_we_know_ours(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    offer(backend)
    offer_scan(backend)
    async with running_program(directory, backend) as program:
        foreign = [
            program.tell(frames.session_dispatch("sess-1", ["a"], workspace_id="ws-other")),
            program.tell(frames.new_scan_available("scan-1", workspace_id="ws-other")),
        ]
        ours = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.configured()
        await program.over(ours)
        await program.idle()
        assert [program.statuses(order) for order in foreign] == [[], []]
        assert program.supervisor.counts["foreign"] == 2


PERMISSIONS = {"reads": "READ_ONLY", "writes": "write", "both": "read_write", "dead": "read"}


@pytest.mark.parametrize(
    ("new_scans", "takers"),
    [
        ("read", {"reads", "both"}),
        ("write", {"writes", "both"}),
        ("any", {"reads", "writes", "both"}),
        ("none", set()),
    ],
)
async def test_a_new_scan_goes_to_the_nodes_that_may_have_it_and_answer(
    directory: Path, backend: DemoBackend, new_scans: NewScans, takers: set[str]
) -> None:
    async with some_nodes(*PERMISSIONS) as nodes:
        configure(backend, [described(n, permission=PERMISSIONS[n.node_id]) for n in nodes])
        await trio.to_thread.run_sync(nodes[3].stop)
        offer_scan(backend)
        async with running_program(directory, backend, new_scans=new_scans) as program:
            await program.configured()
            known = {each: program.registry.nodes[each].run for each in PERMISSIONS}
            await program.until(lambda: known["dead"].data.failures)
            await program.until(
                lambda: sum(run.state is NodeState.ONLINE for run in known.values()) == 3
            )
            order = program.tell(frames.new_scan_available("scan-1"))
            if takers:
                assert (await program.over(order))["status"] == "completed"
                assert {p.get("node_id") for p in program.statuses(order)} == {*takers, None}
            other = frames.new_scan_available("scan-1")
            other["payload"]["action"] = "look"
            assert program.statuses(program.tell(other)) == []
            await program.idle()
            assert {node.node_id for node in nodes if node.holds} == takers


async def test_damaged_files_are_never_counted_as_sent(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    instances = ct_series(Study(1), slices=3, size=16)
    buffer = io.BytesIO(zip_session(instances))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("broken.dcm", instances[0].content[:200])
    backend.rest.offer("session", "sess-1", buffer.getvalue())
    for _ in range(2):  # the second time, what is held could be taken for all there is
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        closing = await program.over(order)
        assert (closing["status"], closing["files_sent"], closing["files_total"]) == (
            "failed",
            3,
            4,
        )
    await program.idle()


async def test_what_ith_cannot_give_fails_and_says_so(
    program: Program, backend: DemoBackend
) -> None:
    order = program.tell(frames.session_dispatch("sess-none", ["a", "b"]))
    closing = await program.over(order)
    assert closing["status"] == "failed"
    for node_id in ("a", "b"):
        assert (await program.over(order, node_id))["error"] == closing["error"]
    await program.idle()


# One event's fault ----------------------------------------------------------------------------


async def test_no_event_harms_another(program: Program, backend: DemoBackend) -> None:
    offer(backend)
    for broken in ("", "{", '{"event_type":"moon.rises"}', "[]", '{"event_type":"scan.dispatch"}'):
        program.tell(broken)
    counts = program.supervisor.counts
    assert counts["unknown"] + counts["broken"] == 5
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    assert (await program.over(order))["status"] == "completed"


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, "9" * 20])
async def test_a_scan_number_that_no_ledger_can_hold_ends_nothing(
    program: Program, backend: DemoBackend, number: object
) -> None:
    offer(backend)
    event = frames.scan_deleted("scan-1", study_instance_uid="1.2.3", scan_number=1)
    event["payload"]["scan_number"] = number
    program.tell(event)
    assert program.supervisor.counts["broken"] == 1
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    assert (await program.over(order))["status"] == "completed"


async def test_a_defect_in_acting_on_one_event_is_counted(
    program: Program, backend: DemoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CANARY")

    offer(backend)
    monkeypatch.setattr(program.supervisor._reconciler, "change_config", fail)
    program.tell(frames.config_changed({"retry_count": 1}))
    assert program.supervisor.counts["failed"] == 1
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    assert (await program.over(order))["status"] == "completed"


# Deletion -------------------------------------------------------------------------------------


def slow(nodes: list[DemoNode], seconds: float = 0.15) -> None:
    for node in nodes:
        node.script.delay_s = seconds


async def test_a_deleted_session_stops_what_is_under_way(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    instances = offer(backend, slices=8)
    slow(nodes)
    order = program.tell(frames.session_dispatch("sess-1", ["a", "b"]))
    await program.until(lambda: all(len(node.holds) >= 2 for node in nodes))
    uid = instances[0].study_instance_uid
    program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
    closing = await program.over(order)
    assert (closing["status"], closing["error"]) == ("failed", DELETED)
    for node in nodes:
        ending = await program.over(order, node.node_id)
        assert (ending["error"], ending["files_sent"]) == (DELETED, len(node.holds))
    await program.idle()
    await program.until(lambda: program.services.pacs.usage_gb == 0)
    again = program.tell(frames.session_dispatch("sess-1", ["a"]))
    assert (await program.over(again))["status"] == "completed"
    assert len(backend.rest.downloads) == 2


@pytest.mark.parametrize("moment", ["recording", "downloading", "unpacking"])
async def test_a_deletion_before_anything_is_sent(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], moment: str
) -> None:
    configure(backend, nodes)
    instances = offer(backend)
    if moment == "downloading":
        backend.rest.download_faults.append(Fault(delay_s=0.3))
    async with running_program(directory, backend) as program:
        await program.configured()
        order = program.tell(frames.session_dispatch("sess-1", ["a", "b"]))
        if moment == "downloading":
            await program.until(lambda: program.dispatch_state(order) is DispatchState.FETCHING)
        if moment == "unpacking":
            await program.until(lambda: backend.rest.downloads and backend.rest.downloads[0].sent)
        uid = instances[0].study_instance_uid
        program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
        closing = await program.over(order)
        assert (closing["status"], closing["error"]) == ("failed", DELETED)
        await program.idle()
        await program.until(lambda: program.services.pacs.usage_gb == 0)
        assert not [p for p in (directory / "objects").rglob("*") if p.is_file()]


async def test_a_deleted_scan_leaves_the_rest_of_its_session(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    study = Study(1)
    keep = ct_series(study, slices=4, size=16, series=1)
    gone = ct_series(study, slices=4, size=16, series=2)
    backend.rest.offer("session", "sess-1", zip_session([*keep, *gone]))
    slow(nodes)
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    await program.until(lambda: len(nodes[0].holds) >= 2)
    uid = keep[0].study_instance_uid
    program.tell(frames.scan_deleted("scan-2", study_instance_uid=uid, scan_number=2))
    closing = await program.over(order)
    assert (closing["status"], closing["files_sent"], closing["files_total"]) == ("completed", 4, 4)
    assert nodes[0].holds.keys() == uids(keep)


async def test_a_deleted_subject_takes_its_sessions_along(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend, slices=8)
    slow(nodes)
    order = program.tell(frames.session_dispatch("sess-1", ["a"], subject_id="subj-1"))
    await program.until(lambda: len(nodes[0].holds) >= 1)
    program.tell(frames.subject_deleted("subj-1", subject_identifier="DEMO-0001"))
    assert (await program.over(order))["error"] == DELETED.replace("session", "subject")
    await program.until(lambda: program.services.pacs.usage_gb == 0)


async def test_another_entity_s_deletion_leaves_the_numbers_alone(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    """Each deletion counts the instances of every delivery again; no count may seem to fall."""
    offer(backend, slices=30)
    slow(nodes, 0.004)
    event = frames.session_dispatch("sess-1", ["a", "b"])
    order = str(event["correlation_id"])
    numbers: dict[str, list[int]] = {"a": [], "b": []}

    def note(run: object, step: object) -> None:
        for node_id, seen in numbers.items():
            if program.state(order, node_id) is STORING:
                seen.append(program.delivery(order, node_id).run.data.files_stored)

    with observing(note):
        program.tell(event)
    for number in itertools.count():
        if program.final(order):
            break
        program.tell(frames.session_deleted(f"other-{number}", study_instance_uid=f"1.2.{number}"))
        await trio.sleep(0.001)
    assert (await program.over(order))["status"] == "completed"
    for seen in numbers.values():
        assert len(seen) > 10
        assert seen == sorted(seen)


async def test_a_deletion_that_cannot_remove_files_stops_nothing_else(
    program: Program, backend: DemoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "CANARY")

    instances = offer(backend)
    await program.over(program.tell(frames.session_dispatch("sess-1", ["a"])))
    await program.idle()
    monkeypatch.setattr(program.services.pacs._objects, "remove", fail)
    uid = instances[0].study_instance_uid
    program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
    await trio.sleep(0.1)
    monkeypatch.undo()
    order = program.tell(frames.session_dispatch("sess-1", ["b"]))
    assert (await program.over(order))["status"] == "completed"


# Nodes and configuration ----------------------------------------------------------------------


async def test_a_removed_node_s_deliveries_end_and_no_other(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend, slices=8)
    slow(nodes)
    order = program.tell(frames.session_dispatch("sess-1", ["a", "b"]))
    await program.until(lambda: all(len(node.holds) >= 1 for node in nodes))
    configure(backend, nodes[1:])
    program.tell(frames.nodes_changed([in_event(nodes[0])], "removed"))
    ending = await program.over(order, "a")
    assert ending["error"] == "node removed from configuration"
    assert ending["files_sent"] == len(nodes[0].holds) < 8
    assert (await program.over(order, "b"))["status"] == "completed"
    closing = await program.over(order)
    assert closing["status"] == "failed"
    await program.idle()
    assert program.heartbeat.heartbeat().payload.nodes_total == 1  # type: ignore[union-attr]


async def test_a_node_that_moved_gets_the_rest_at_its_new_address(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    instances = offer(backend, slices=8)
    slow(nodes[:1])
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    await program.until(lambda: len(nodes[0].holds) >= 2)
    moved = described(nodes[1], id="a")
    configure(backend, [moved])
    program.tell(
        frames.nodes_changed([frames.event_node("a", "B", nodes[1].host, nodes[1].port)], "updated")
    )
    assert (await program.over(order, "a"))["status"] == "completed"
    assert nodes[0].holds.keys() | nodes[1].holds.keys() == uids(instances)
    assert not nodes[0].holds.keys() & nodes[1].holds.keys()
    await program.idle()


async def test_added_and_replaced_nodes_are_at_work_at_once(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes[:1])
    offer(backend)
    async with running_program(directory, backend) as program:
        await program.configured()
        configure(backend, nodes)
        program.tell(frames.nodes_changed([in_event(nodes[1])], "added"))
        assert program.registry.nodes.keys() == {"a", "b"}
        order = program.tell(frames.session_dispatch("sess-1", ["b"]))
        assert (await program.over(order))["status"] == "completed"
        configure(backend, nodes[1:])
        program.tell(frames.nodes_changed([in_event(nodes[1])], "replaced"))
        assert program.registry.nodes.keys() == {"b"}


@pytest.mark.parametrize("first", ["pause", "node"])
@pytest.mark.parametrize("ends_first", ["pause", "node"])
async def test_a_pause_and_an_inactive_node_hold_until_both_are_over(
    program: Program, backend: DemoBackend, nodes: list[DemoNode], first: str, ends_first: str
) -> None:
    instances = offer(backend, slices=6)
    slow(nodes, 0.1)

    def hold(which: str, *, active: bool) -> None:
        if which == "pause":
            backend.rest.configuration["is_active"] = active
            program.tell(frames.status_changed(is_active=active))
        else:
            configure(backend, [described(nodes[0], is_active=active), nodes[1]])
            backend.rest.configuration["is_active"] = (
                program.registry.operation.run.state is OperationState.ACTIVE
            )
            program.tell(frames.nodes_changed([in_event(nodes[0], is_active=active)], "updated"))

    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    await program.until(lambda: len(nodes[0].holds) >= 1)
    hold(first, active=False)
    second = "node" if first == "pause" else "pause"
    hold(second, active=False)
    await program.until(lambda: program.state(order, "a") is HELD)
    assert program.turns_taken() == 0
    held = len(nodes[0].arrivals)
    hold(ends_first, active=True)
    await trio.sleep(0.15)
    assert (program.state(order, "a"), len(nodes[0].arrivals)) == (HELD, held)
    hold("node" if ends_first == "pause" else "pause", active=True)
    assert (await program.over(order))["status"] == "completed"
    assert nodes[0].holds.keys() == uids(instances)
    assert len(nodes[0].arrivals) == 6
    await program.idle()


async def test_orders_while_paused_are_kept_and_done_afterwards(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend)
    backend.rest.configuration["is_active"] = False
    program.tell(frames.status_changed(is_active=False))
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    await program.until(lambda: program.dispatch_state(order) is DispatchState.HELD)
    assert program.heartbeat.heartbeat().payload.status == "inactive"  # type: ignore[union-attr]
    assert (program.statuses(order), backend.rest.downloads) == ([], [])
    backend.rest.configuration["is_active"] = True
    program.tell(frames.status_changed(is_active=True))
    assert (await program.over(order))["status"] == "completed"


async def test_the_flag_of_the_configuration_pauses_and_resumes(
    program: Program, backend: DemoBackend
) -> None:
    for active in (False, True):
        backend.rest.configuration["is_active"] = active
        program.supervisor.came_online()
        wanted = OperationState.ACTIVE if active else OperationState.PAUSED
        await program.until(lambda wanted=wanted: program.registry.operation.run.state is wanted)  # type: ignore[misc]


async def test_a_hold_in_the_instant_a_download_s_turn_is_granted_keeps_no_turn(
    program: Program, backend: DemoBackend
) -> None:
    program.registry.downloads.limit = 1
    offer(backend)
    for _ in range(30):
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        at = program.dispatch(order)
        await at.run.until(DispatchState.FETCHING)
        program.registry.operation.pause(PauseLock.OPERATOR, "the test pauses")
        await trio.sleep(0.001)
        await program.until(lambda: program.registry.downloads.in_use == 0)
        program.registry.operation.resume(PauseLock.OPERATOR)
        await program.over(order)
        await program.idle()


async def test_a_deletion_while_the_association_is_released_is_not_lost(
    program: Program, backend: DemoBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt has ended for a hold, but the node is slow to let go: a cancel comes."""
    instances = offer(backend)
    uid = instances[0].study_instance_uid

    async def send_all(attempt: Attempt) -> object:
        run = attempt._run
        await run.until(DeliveryState.STOPPING)
        ending = policy.stopped(run.data)
        program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
        return ending

    monkeypatch.setattr(Attempt, "send_all", send_all)
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    await program.until(lambda: program.state(order, "a") is STORING)
    program.tell(frames.status_changed(is_active=False))
    assert (await program.over(order))["error"] == DELETED
    await program.idle()


# Restart --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["accepted", "fetching", "half", "one node over"])
async def test_a_restart_goes_on_where_it_was(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], stage: str
) -> None:
    configure(backend, nodes)
    instances = offer(backend, slices=8)
    slow(nodes, 0.05)
    if stage == "one node over":
        nodes[0].script.delay_s = 0.0
    if stage == "accepted":
        backend.rest.configuration["is_active"] = False
    if stage == "fetching":
        backend.rest.archives["session", "sess-1"].bytes_per_s = 50_000
    async with running_program(directory, backend) as program:
        await program.configured()
        order = program.tell(frames.session_dispatch("sess-1", ["a", "b"]))
        match stage:
            case "accepted":
                await program.until(lambda: program.dispatch_state(order) is DispatchState.HELD)
            case "fetching":
                await program.until(lambda: backend.rest.downloads)
            case "half":
                await program.until(lambda: all(len(node.holds) >= 3 for node in nodes))
            case _:
                await program.over(order, "a")
        before = program.heard
    backend.rest.configuration["is_active"] = True
    backend.rest.archives["session", "sess-1"].bytes_per_s = None
    async with running_program(directory, backend) as program:
        await program.configured()
        program.tell(frames.status_changed(is_active=True))
        closing = await program.over(order)
        assert (closing["status"], closing["files_sent"], closing["files_total"]) == (
            "completed",
            16,
            16,
        )
        await program.idle()
        program.heard = [*before, *program.heard]
        for node in nodes:
            assert node.holds.keys() == uids(instances)
            assert len(node.arrivals) <= 9  # at most the one in flight is sent again
            stream = program.stream(order, node.node_id)
            assert [p["progress"] for p in stream] == sorted(p["progress"] for p in stream)
            said_again = stage == "one node over" and node is nodes[0]
            assert [p["status"] for p in stream].count("completed") == 1 + said_again
        assert len(backend.rest.downloads) == (2 if stage == "fetching" else 1)


async def test_a_restart_cancels_what_was_deleted_meanwhile_or_is_for_nobody(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    first, second = offer(backend, "sess-1"), offer(backend, "sess-2", seed=2)
    assert first[0].study_instance_uid != second[0].study_instance_uid
    async with running_program(directory, backend) as program:
        await program.configured()
        program.tell(frames.status_changed(is_active=False))
        deleted = program.tell(frames.session_dispatch("sess-1", ["a"]))
        orphaned = program.tell(frames.session_dispatch("sess-2", ["a", "b"]))
        await program.until(lambda: program.dispatch_state(orphaned) is DispatchState.HELD)
        await program.services.ledger.delete_session("sess-1", first[0].study_instance_uid)
        configure(backend, nodes[1:])
        program.supervisor.came_online()
        await program.until(
            lambda: "a" not in program.registry.nodes or program.final(orphaned, "a")
        )
    async with running_program(directory, backend) as program:
        await program.configured()
        program.tell(frames.status_changed(is_active=True))
        assert (await program.over(orphaned, "b"))["status"] == "completed"
        await program.over(orphaned)
        await program.idle()
        await program.until(lambda: not program.outbox.queued)
        assert [len(node.arrivals) for node in nodes] == [0, 4]
        assert program.final(deleted) is None or program.final(deleted)["status"] == "failed"  # type: ignore[index]


@pytest.mark.parametrize("why", ["deleted", "removed", "removed and killed"])
async def test_what_ends_after_a_restart_says_how_much_the_node_got_before_it(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], why: str
) -> None:
    configure(backend, nodes)
    first, *_ = offer(backend, slices=8)
    node = nodes[0]
    slow(nodes, 0.05)
    async with running_program(directory, backend, dicom={"cancel_seconds": 5.0}) as program:
        await program.configured()
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.until(lambda: len(node.holds) >= 3)
        if why == "removed and killed":
            node.script.stall_at = len(node.arrivals) + 1
            await program.until(lambda: len(node.arrivals) == node.script.stall_at)
            configure(backend, [])
            program.tell(frames.nodes_changed([described(node)], "removed"))
            assert program.state(order, "a") is DeliveryState.STOPPING
        else:
            program.supervisor.pause("new switch")
            await program.until(lambda: program.state(order, "a") is DeliveryState.HELD)
        await program.services.ledger.settled()
    async with running_program(directory, backend) as program:
        await program.configured()
        if why == "deleted":
            uid = first.study_instance_uid
            program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
        if why == "removed":
            configure(backend, [])
            program.tell(frames.nodes_changed([described(node)], "removed"))
        for node_id in ("a", None):
            ended = await program.over(order, node_id)
            assert (ended["status"], ended["files_sent"]) == ("failed", len(node.holds))
            assert ended["files_total"] == 8


async def test_a_restart_fetches_again_what_the_disk_lost(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    instances = offer(backend, slices=6)
    slow(nodes, 0.05)
    async with running_program(directory, backend) as program:
        await program.configured()
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.until(lambda: len(nodes[0].holds) >= 2)
        dispatch_id = program.dispatch(order).dispatch_id
        left = await program.services.ledger.to_send(dispatch_id, "a")
        program.tell(frames.status_changed(is_active=False))
        await program.until(lambda: program.state(order, "a") is HELD)
        lost = program.services.pacs.path(left[-1])
    lost.unlink()
    async with running_program(directory, backend) as program:
        await program.configured()
        program.tell(frames.status_changed(is_active=True))
        closing = await program.over(order)
        assert (closing["status"], closing["files_sent"]) == ("completed", 6)
        assert nodes[0].holds.keys() == uids(instances)
        assert len(backend.rest.downloads) == 2


async def test_a_file_that_is_gone_is_fetched_again_and_not_blamed_on_the_node(
    program: Program, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend, slices=6)
    slow(nodes, 0.05)
    order = program.tell(frames.session_dispatch("sess-1", ["a"]))
    await program.until(lambda: len(nodes[0].holds) >= 1)
    left = await program.services.ledger.to_send(program.dispatch(order).dispatch_id, "a")
    program.services.pacs.path(left[-1]).unlink()
    ending = await program.over(order, "a")
    assert (ending["status"], ending["files_sent"], ending["files_total"]) == ("completed", 6, 6)
    assert len(backend.rest.downloads) == 2
    assert program.registry.nodes["a"].run.data.failures == 0


# Draining -------------------------------------------------------------------------------------


async def test_draining_lets_the_one_in_flight_end_and_keeps_the_rest(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    instances = offer(backend, slices=8)
    slow(nodes, 0.1)
    async with running_program(directory, backend) as program:
        await program.configured()
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.until(lambda: len(nodes[0].arrivals) >= 3)
        program.supervisor.drain("the test stops")
        late = program.tell(frames.session_dispatch("sess-1", ["b"]))
        with trio.fail_after(PATIENCE_S):
            await program.registry.operation.run.until(OperationState.STOPPED)
        assert len(nodes[0].arrivals) == len(nodes[0].holds)
        assert program.final(order) is None
    slow(nodes, 0.0)
    async with running_program(directory, backend) as program:
        await program.configured()
        assert (await program.over(order))["status"] == "completed"
        assert (await program.over(late))["status"] == "completed"
        assert len(nodes[0].arrivals) == 8
        assert nodes[0].holds.keys() == uids(instances)


async def test_a_drain_that_takes_too_long_is_cut(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    offer(backend)
    nodes[0].script.stall_at = 2
    async with running_program(
        directory, backend, drain_seconds=0.3, dicom={"cancel_seconds": 60.0}
    ) as program:
        await program.configured()
        program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.until(lambda: len(nodes[0].arrivals) == 2)
        began = trio.current_time()
        program.supervisor.drain("the test stops")
        with trio.fail_after(PATIENCE_S):
            await program.registry.operation.run.until(OperationState.STOPPED)
        assert trio.current_time() - began > 0.2


async def test_stopping_more_than_twice_is_no_fault(program: Program) -> None:
    for _ in range(4):
        program.supervisor.drain("the test stops")
        await trio.sleep(0.01)
    assert program.registry.operation.run.state is OperationState.STOPPED


async def test_an_order_or_a_deletion_after_the_work_has_stopped_is_not_lost(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    """The link outlives the work: a later event is for the next start."""
    configure(backend, nodes)
    gone, instances = offer(backend, "sess-1"), offer(backend, "sess-2", seed=2)
    async with running_program(directory, backend) as program:
        await program.configured()
        await program.over(program.tell(frames.session_dispatch("sess-1", ["a"])))
        await program.idle()
        program.supervisor.drain("the test stops")
        await program.registry.operation.run.until(OperationState.STOPPED)
        await trio.sleep(0.01)
        order = program.tell(frames.session_dispatch("sess-2", ["b"]))
        uid = gone[0].study_instance_uid
        program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
        assert program.supervisor.counts["failed"] == 0
    async with running_program(directory, backend) as program:
        await program.configured()
        assert (await program.over(order))["status"] == "completed"
        assert nodes[1].holds.keys() == uids(instances)
        files = [path for path in (directory / "objects").rglob("*") if path.is_file()]
        assert len(files) == len(instances)


async def test_a_deletion_just_before_a_stop_is_done(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    gone = offer(backend)
    async with running_program(directory, backend) as program:
        await program.configured()
        await program.over(program.tell(frames.session_dispatch("sess-1", ["a"])))
        await program.idle()
        async with program.services.pacs._lock:  # something else is being taken in
            uid = gone[0].study_instance_uid
            program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
            program.supervisor.drain("the test stops")
            await trio.sleep(0.05)
        await program.registry.operation.run.until(OperationState.STOPPED)
    async with running_program(directory, backend):
        files = [path for path in (directory / "objects").rglob("*") if path.is_file()]
        assert files == []
