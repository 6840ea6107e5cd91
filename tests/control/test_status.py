"""The status is read from the running machines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from proxy.backend.link import ConnectionRun
from proxy.control.messages import ControlAnswer, Status
from proxy.control.status import StatusReader
from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.machines.connection import (
    CONNECTION,
    ConnectRequested,
    HandshakeDone,
    LinkDropped,
    LinkOpened,
    StayedUp,
)
from proxy.machines.connection import ConnectionData as LinkData
from proxy.runtime.runner import Run
from tests.support.clocks import NOON, SetClock
from tests.support.program import Program, configure, running_program


async def no_link(_: ConnectionRun) -> None:
    """The status does not ask the link, but its machine."""


def reader(program: Program, link: ConnectionRun) -> StatusReader:
    return StatusReader(
        program.registry,
        link,
        program.supervisor.counts,
        lambda: 0,
        lambda: 0.0,
        clock=program.services.clock,
    )


def looked(program: Program) -> Status:
    """The status as a command is given it."""
    link: ConnectionRun = Run(CONNECTION, LinkData(), {"keep_link": no_link}, lambda _: None)
    look = reader(program, link)
    answer: ControlAnswer = msgspec.json.decode(msgspec.json.encode(look()), type=ControlAnswer)
    assert isinstance(answer, Status)
    return answer


@pytest.mark.parametrize(
    ("told", "notes"),
    [
        ({}, 0),
        ({"enable_phi_anonymization": None}, 0),
        ({"enable_phi_anonymization": False}, 0),
        ({"enable_phi_anonymization": True}, 1),
        ({"enable_phi_anonymization": "true"}, 1),
    ],
)
async def test_pseudonyms_are_noted_where_ith_says_that_there_are_any(
    directory: Path, backend: DemoBackend, told: dict[str, object], notes: int
) -> None:
    configure(backend, [])
    del backend.rest.configuration["config"]["enable_phi_anonymization"]
    backend.rest.configuration["config"] |= told
    async with running_program(directory, backend) as program:
        assert looked(program).notes == ()
        before = looked(program).attention
        await program.configured()
        now = looked(program)
        assert len(now.notes) == notes
        assert all("pseudonym" in note.fact + note.meaning for note in now.notes)
        assert {*now.attention} < {*before}


async def test_events_are_counted_and_those_not_acted_upon(
    directory: Path, backend: DemoBackend
) -> None:
    configure(backend, [])
    async with running_program(directory, backend) as program:
        await program.configured()
        program.tell(frames.status_changed(is_active=False, proxy_id="proxy-2"))
        program.tell(frames.session_dispatch("sess-1", ["a"], workspace_id="ws-other"))
        program.tell("{")
        assert looked(program).event_counts == {
            "proxy.status_changed": 1,
            "session.dispatch": 1,
            "foreign": 2,
            "broken": 1,
        }


async def test_times_are_those_of_the_news(directory: Path, backend: DemoBackend) -> None:
    """The link's attempts are none, nor is that it proved stable."""
    clock = SetClock(NOON)
    configure(backend, [])
    link: ConnectionRun = Run(CONNECTION, LinkData(), {"keep_link": no_link}, lambda _: None)
    async with running_program(directory, backend, clock=clock) as program:
        look = reader(program, link)

        def after(seconds: float, happens: Callable[[], object]) -> tuple[float, ...]:
            clock.seconds += seconds
            happens()
            now = look()
            times = (now.at, now.operation.since, now.connection.since)
            return tuple(time.timestamp() - NOON for time in times)

        assert after(10, lambda: program.supervisor.pause("a test")) == (10, 10, 0)
        assert after(10, lambda: program.supervisor.pause("another")) == (20, 10, 0)
        assert after(10, lambda: link.tell(ConnectRequested())) == (30, 10, 0)
        assert after(10, lambda: link.tell(LinkOpened())) == (40, 10, 0)
        assert after(10, lambda: link.tell(HandshakeDone())) == (50, 10, 50)
        assert after(10, lambda: link.tell(StayedUp())) == (60, 10, 50)
        assert after(10, lambda: link.tell(LinkDropped("gone", 1.0))) == (70, 10, 70)
        assert after(10, program.supervisor.resume) == (80, 80, 70)


def test_the_answer_of_an_earlier_version_can_be_read() -> None:
    answer = {
        "schema": "ith-proxy/status/1",
        "version": "2.0.0",
        "at": "2026-03-04T05:06:07Z",
        "healthy": True,
        "attention": [],
        "operation": {"state": "active", "since": "2026-03-04T05:06:07Z", "locks": []},
        "connection": {
            "state": "online",
            "online": True,
            "since": "2026-03-04T05:06:07Z",
            "error": None,
        },
        "node_counts": {},
        "nodes": [],
        "dispatch_counts": {},
        "dispatches": [],
        "queued_reports": 0,
        "disk_usage_gb": 0.0,
    }
    status: ControlAnswer = msgspec.json.decode(msgspec.json.encode(answer), type=ControlAnswer)
    assert isinstance(status, Status)
    assert (status.notes, status.event_counts) == ((), {})
