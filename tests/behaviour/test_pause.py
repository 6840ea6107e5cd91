"""Pause: two locks, each with its reason, that outlive a restart; on real parts."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import trio

from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.node import DemoNode
from proxy.machines.dispatch import DispatchState
from proxy.machines.operation import OperationState, PauseLock, PauseLocks, PauseReason
from proxy.supervision.pause_locks import LOCKS_DOCUMENT, locks_document, read_locks
from tests.support.program import Program, configure, described, in_event, offer, running_program

ACTIVE, PAUSED = OperationState.ACTIVE, OperationState.PAUSED
BACKEND, OPERATOR = PauseLock


def ith_says(program: Program, *, active: bool) -> None:
    program.backend.rest.configuration["is_active"] = active
    program.tell(frames.status_changed(is_active=active))


def take(program: Program, lock: PauseLock) -> None:
    if lock is OPERATOR:
        assert program.supervisor.pause("new switch")
    else:
        ith_says(program, active=False)


def give(program: Program, lock: PauseLock) -> None:
    if lock is OPERATOR:
        assert program.supervisor.resume()
    else:
        ith_says(program, active=True)


def held(program: Program) -> dict[PauseLock, str]:
    return {lock: wish.reason for lock, wish in program.registry.operation.run.data.held.items()}


REASONS = {OPERATOR: "new switch", BACKEND: "paused by ITH (maintenance)"}


@pytest.mark.parametrize("taken", [*itertools.permutations(PauseLock)])
@pytest.mark.parametrize("given", [*itertools.permutations(PauseLock)])
async def test_both_locks_are_kept_with_their_reasons_over_restarts(
    directory: Path,
    backend: DemoBackend,
    taken: tuple[PauseLock, ...],
    given: tuple[PauseLock, ...],
) -> None:
    configure(backend, [])
    since = {}
    async with running_program(directory, backend) as program:
        await program.configured()
        for lock in taken:
            take(program, lock)
        since = {
            lock: wish.since for lock, wish in program.registry.operation.run.data.held.items()
        }
        await program.services.ledger.settled()
    first, second = given
    async with running_program(directory, backend) as program:
        assert held(program) == REASONS
        await program.configured()
        program.supervisor.came_online()
        await trio.sleep(0.1)  # ITH's configuration is fetched, and changes nothing
        assert held(program) == REASONS
        assert {k: w.since for k, w in program.registry.operation.run.data.held.items()} == since
        give(program, first)
        assert (program.registry.operation.run.state, held(program)) == (
            PAUSED,
            {second: REASONS[second]},
        )
        await program.services.ledger.settled()
    async with running_program(directory, backend) as program:
        assert (program.registry.operation.run.state, held(program)) == (
            PAUSED,
            {second: REASONS[second]},
        )
        await program.configured()
        give(program, second)
        assert program.registry.operation.run.state is ACTIVE
        await program.services.ledger.settled()
    async with running_program(directory, backend) as program:
        await program.configured()
        assert (program.registry.operation.run.state, held(program)) == (ACTIVE, {})


@pytest.mark.parametrize("ended", ["in order", "killed"])
async def test_a_pause_holds_at_the_next_start_before_anything_is_sent(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], ended: str
) -> None:
    configure(backend, nodes)
    offer(backend, slices=8)
    nodes[0].script.delay_s = 0.1
    async with running_program(directory, backend) as program:
        await program.configured()
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.until(lambda: len(nodes[0].holds) >= 2)
        program.supervisor.pause("new switch")
        await program.services.ledger.settled()
        if ended == "in order":
            program.supervisor.drain("the test stops it")
            await program.until(lambda: program.registry.operation.run.over)
    at_rest = len(nodes[0].arrivals)
    async with running_program(directory, backend) as program:
        await program.configured()
        await program.online()
        await trio.sleep(0.3)
        assert len(nodes[0].arrivals) == at_rest < 8
        program.supervisor.resume()
        assert (await program.over(order))["status"] == "completed"
    # A C-STORE that was cut with the program is unknown, and sent again.
    assert len(nodes[0].holds) == 8
    assert len(nodes[0].arrivals) <= 8 + (ended == "killed")


async def test_a_resume_goes_on_where_the_pause_began(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    offer(backend, slices=12)
    nodes[0].script.delay_s = 0.03
    async with running_program(directory, backend) as program:
        await program.configured()
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        for done in (2, 5, 8):
            await program.until(lambda done=done: len(nodes[0].holds) >= done)  # type: ignore[misc]
            program.supervisor.pause("again")
            await trio.sleep(0.1)
            assert (program.turns_taken(), program.final(order)) == (0, None)
            program.supervisor.resume()
        assert (await program.over(order))["status"] == "completed"
        await program.idle()
    assert (len(nodes[0].arrivals), len(nodes[0].holds)) == (12, 12)
    assert len(backend.rest.downloads) == 1


async def test_what_was_kept_is_done_by_priority_and_then_in_the_order_it_came(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    wanted = ["normal", "low", "urgent", "normal", "high", "urgent", "low"]
    for number in range(len(wanted)):
        offer(backend, f"sess-{number}", slices=1, seed=number + 1)
    for number in (2, 5):  # long enough for both urgent ones to be asked for side by side
        backend.rest.archives["session", f"sess-{number}"].bytes_per_s = 1000
    async with running_program(directory, backend, downloads=1) as program:
        await program.configured()
        program.supervisor.pause("new switch")
        for number, priority in enumerate(wanted):
            order = program.tell(
                frames.session_dispatch(f"sess-{number}", ["a"], priority=priority)
            )
            await program.until(lambda o=order: program.dispatch_state(o) is DispatchState.HELD)  # type: ignore[misc]
        assert backend.rest.downloads == []
    async with running_program(directory, backend, downloads=1) as program:  # and over a restart
        await program.configured()
        await program.until(lambda: len(program.registry.dispatches) == len(wanted))
        await trio.sleep(0.1)
        assert backend.rest.downloads == []
        program.supervisor.resume()
        await program.until(lambda: not program.registry.dispatches)
    asked = [re.findall(r"sess-\d", str(asked))[0] for asked in backend.rest.downloads]
    assert {*asked[:2]} == {"sess-2", "sess-5"}  # side by side: there is a download more for them
    assert asked[2:] == [f"sess-{number}" for number in (4, 0, 3, 1, 6)]


async def test_deletions_and_configuration_work_while_paused(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    configure(backend, nodes)
    instances = offer(backend, "sess-1", slices=6)
    offer(backend, "sess-2", slices=2, seed=2)
    nodes[0].script.delay_s = 0.1
    async with running_program(directory, backend) as program:
        await program.configured()
        gone = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.until(lambda: len(nodes[0].holds) >= 1)
        program.supervisor.pause("new switch")
        beat = program.heartbeat.heartbeat()
        assert beat is not None
        assert (beat.payload.status, beat.payload.active_dispatches) == ("inactive", 1)
        stays = program.tell(frames.session_dispatch("sess-2", ["a", "b"]))
        uid = instances[0].study_instance_uid
        program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
        assert (await program.over(gone))["error"].startswith(
            "session deleted in ITH; a node keeps"
        )
        await program.until(lambda: program.services.pacs.usage_gb == 0)
        configure(backend, [described(nodes[0])])
        program.tell(frames.nodes_changed([in_event(nodes[1])], "removed"))
        assert program.registry.nodes.keys() == {"a"}
        assert (await program.over(stays, "b"))["error"] == "node removed from configuration"
        at_rest = len(nodes[0].arrivals)
        await trio.sleep(0.2)
        assert (len(nodes[0].arrivals), len(backend.rest.downloads)) == (at_rest, 1)
        program.supervisor.resume()
        assert (await program.over(stays, "a"))["status"] == "completed"
        await program.idle()


async def test_locks_of_an_earlier_version_are_taken_up(
    directory: Path, backend: DemoBackend
) -> None:
    configure(backend, [])
    former = {"held": ["backend", "operator"], "reason": "maintenance", "drain_seconds": 20.0}
    async with running_program(directory, backend) as program:
        program.services.ledger.post_document(LOCKS_DOCUMENT, json.dumps(former).encode())
        await program.services.ledger.settled()
    async with running_program(directory, backend) as program:
        await program.configured()
        assert program.registry.operation.run.state is PAUSED
        assert held(program) == dict.fromkeys(PauseLock, "maintenance")


def test_an_earlier_version_can_read_our_locks() -> None:
    document = json.loads(
        locks_document(PauseLocks(PauseReason("by ITH", 5.0), PauseReason("new switch", 6.0)))
    )
    assert sorted(document["held"]) == ["backend", "operator"]
    assert document["reason"] == "by ITH; new switch"


@pytest.mark.parametrize(
    "locks",
    [
        PauseLocks(),
        PauseLocks(PauseReason("x", 1.0)),
        PauseLocks(operator=PauseReason("y")),
        PauseLocks(PauseReason("x"), PauseReason("y")),
    ],
)
def test_the_locks_survive_being_written_down(locks: PauseLocks) -> None:
    assert read_locks(locks_document(locks)) == locks.held


@pytest.mark.parametrize(
    "document", [b"{", b"[]", b"\xff", b'{"held":["nobody"]}', b'{"held":5}', b"[" * 100_000]
)
def test_locks_that_cannot_be_read_are_told(
    document: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_locks(document) is None
    assert "operation.locks_unreadable" in str([vars(record) for record in caplog.records])


async def test_a_pause_after_the_end_is_not_pretended(
    directory: Path, backend: DemoBackend
) -> None:
    configure(backend, [])
    async with running_program(directory, backend) as program:
        await program.configured()
        program.supervisor.drain("the test stops it")
        await program.until(lambda: program.registry.operation.run.over)
        assert not program.supervisor.pause("too late")
        assert not program.supervisor.resume()
