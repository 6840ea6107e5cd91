"""The control socket: its permissions, and the limits on a client that misbehaves."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from proxy.control import client, server
from proxy.control.client import ask
from proxy.control.messages import (
    PATH_BYTES,
    REQUEST_BYTES,
    ConnectionStatus,
    ControlRequest,
    OperationStatus,
    Status,
    socket_path,
)
from proxy.control.server import ControlServer, listening
from proxy.demo.backend import DemoBackend
from proxy.errors import ControlFailed, NotRunning, StateDirectoryError
from proxy.machines.operation import OperationState
from tests.support.program import Program, configure, running_program
from tests.support.waiting import PATIENCE_S

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def a_status() -> Status:
    return Status(
        version="0",
        at=NOW,
        healthy=True,
        attention=(),
        operation=OperationStatus("active", NOW, ()),
        connection=ConnectionStatus("online", online=True, since=NOW, error=None),
        node_counts={},
        nodes=(),
        dispatch_counts={},
        dispatches=(),
        queued_reports=0,
        disk_usage_gb=0.0,
    )


@pytest.fixture
async def program(directory: Path, backend: DemoBackend) -> AsyncIterator[Program]:
    configure(backend, [])
    async with (
        running_program(directory, backend) as program,
        listening(directory) as listener,
        trio.open_nursery() as nursery,
    ):
        control = ControlServer(program.supervisor, a_status, program.services.ledger.settled)
        nursery.start_soon(control.serve, listener)
        yield program
        nursery.cancel_scope.cancel("the test is over")


async def connect(directory: Path) -> trio.SocketStream:
    return await trio.open_unix_socket(directory / "control.sock")


async def answer_to(directory: Path, request: bytes) -> dict[str, Any]:
    async with await connect(directory) as stream:
        await stream.send_all(request)
        return await read(stream)


async def read(stream: trio.SocketStream) -> dict[str, Any]:
    answer = b""
    with trio.fail_after(PATIENCE_S):
        while not answer.endswith(b"\n"):
            answer += await stream.receive_some()
    document: dict[str, Any] = json.loads(answer)
    return document


async def asked(directory: Path, command: str, reason: str = "") -> Status:
    return await trio.to_thread.run_sync(ask, directory, ControlRequest(command, reason))  # type: ignore[arg-type]


async def test_pause_and_resume_are_durable_when_they_are_answered(
    program: Program, directory: Path
) -> None:
    await asked(directory, "pause", "  new\n switch ")
    assert program.registry.operation.run.state is OperationState.PAUSED
    kept = await program.services.ledger.document("locks")
    assert kept is not None
    assert json.loads(kept)["wishes"]["operator"]["reason"] == "new switch"
    await asked(directory, "pause")
    assert program.registry.operation.run.data.reason == "paused by the operator"
    await asked(directory, "resume")
    await asked(directory, "resume")
    assert not program.registry.operation.run.data.held
    kept = await program.services.ledger.document("locks")
    assert kept is not None
    assert json.loads(kept)["held"] == []


async def test_a_stopped_proxy_does_not_pretend_to_pause(program: Program, directory: Path) -> None:
    program.supervisor.drain("the test stops it")
    await program.until(lambda: program.registry.operation.run.over)
    with pytest.raises(ControlFailed, match="stopping"):
        await asked(directory, "pause")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"{\n",
        b"\xff\xfe\n",
        b"null\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"command":"stop"}\n',
        b'{"command":"status","more":1}\n',
        b'{"command":"pause","reason":5}\n',
        b'{"command":"pause","reason":"' + b"x" * 201 + b'"}\n',
        b"[" * 4000 + b"\n",
    ],
)
async def test_garbage_is_refused_and_changes_nothing(
    program: Program, directory: Path, garbage: bytes
) -> None:
    answer = await answer_to(directory, garbage)
    assert answer["schema"] == "ith-proxy/refusal/1"
    assert "does not understand" in answer["problem"]
    assert program.registry.operation.run.state is OperationState.ACTIVE
    assert (await asked(directory, "status")).healthy


async def test_a_request_may_come_in_pieces_and_without_its_end(
    program: Program, directory: Path
) -> None:
    async with await connect(directory) as stream:
        for byte in b'{"command":"status"}':
            await stream.send_all(bytes([byte]))
        await stream.send_eof()
        assert (await read(stream))["schema"] == "ith-proxy/status/1"


async def test_a_request_without_end_is_refused_early(program: Program, directory: Path) -> None:
    sent = 0
    async with await connect(directory) as stream:
        with trio.fail_after(PATIENCE_S):
            try:
                while sent < 50 * 1024**2:
                    await stream.send_all(b"x" * 65536)
                    sent += 65536
            except trio.BrokenResourceError:
                pass
        assert f"more than {REQUEST_BYTES}" in (await read(stream))["problem"]
    assert sent < 1024**2


async def test_slow_clients_are_left_and_crowds_sent_away(
    program: Program, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CLIENT_SECONDS", 0.5)
    slow = [await connect(directory) for _ in range(server.CLIENTS)]
    with pytest.raises(ControlFailed, match="Too many"):
        await asked(directory, "status")
    with trio.fail_after(PATIENCE_S):
        for stream in slow:
            assert await stream.receive_some() == b""
            await stream.aclose()
    assert (await asked(directory, "status")).healthy


async def test_many_clients_one_after_another_leave_nothing_open(
    program: Program, directory: Path
) -> None:
    def open_files() -> int:
        return len([*Path("/proc/self/fd").iterdir()])

    await asked(directory, "status")
    before = open_files()
    for number in range(200):
        async with await connect(directory) as stream:
            if number % 2:
                await stream.send_all(b'{"command":"status"}\n')  # and it goes without an answer
    await program.until(lambda: open_files() <= before)
    assert (await asked(directory, "status")).healthy


async def test_a_defect_in_looking_harms_one_client_only(
    directory: Path, backend: DemoBackend, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Status:
        raise RuntimeError("CANARY")

    configure(backend, [])
    async with (
        running_program(directory, backend) as program,
        listening(directory) as listener,
        trio.open_nursery() as nursery,
    ):
        control = ControlServer(program.supervisor, fail, program.services.ledger.settled)
        nursery.start_soon(control.serve, listener)
        for _ in range(2):
            with pytest.raises(ControlFailed, match="understand"):
                await asked(directory, "status")
        nursery.cancel_scope.cancel("the test is over")
    assert "CANARY" not in str([vars(record) for record in caplog.records])


async def test_only_the_owner_may_open_it_and_it_is_gone_in_the_end(directory: Path) -> None:
    path = directory / "control.sock"
    mask = os.umask(0)
    try:
        async with listening(directory):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(mask)
    assert not path.exists()


async def test_who_may_not_open_it_is_told_as_whom_to_try(directory: Path) -> None:
    os.chmod(directory, 0o755)  # noqa: PTH101, S103 - in memory, and before anything runs
    is_root = os.geteuid() == 0
    async with listening(directory):
        if is_root:
            os.seteuid(65534)
        else:
            (directory / "control.sock").chmod(0)
        try:
            with pytest.raises(StateDirectoryError, match="not for this user") as caught:
                ask(directory, ControlRequest("status"))
        finally:
            if is_root:
                os.seteuid(0)
    assert "as root" in caught.value.hint


async def test_the_socket_of_a_killed_proxy_is_replaced(directory: Path) -> None:
    path = directory / "control.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with pytest.raises(NotRunning):
        ask(directory, ControlRequest("status"))
    async with listening(directory):
        assert stat.S_ISSOCK(path.stat().st_mode)
    assert not path.exists()


async def test_what_is_no_socket_is_not_removed(directory: Path) -> None:
    path = directory / "control.sock"
    path.write_text("somebody's")
    with pytest.raises(StateDirectoryError, match="cannot be made") as caught:
        async with listening(directory):
            pass
    assert "Remove the file there" in caught.value.hint
    assert path.read_text() == "somebody's"


@pytest.mark.parametrize("excess", [0, 1])
async def test_a_path_may_be_as_long_as_a_socket_allows(directory: Path, excess: int) -> None:
    space = PATH_BYTES + excess - len(os.fsencode(directory)) - len("//control.sock")
    deep = directory / ("ü" * (space // 2) + "x" * (space % 2))
    deep.mkdir()
    if not excess:
        async with listening(deep):
            assert (deep / "control.sock").exists()
        return
    for attempt in (lambda: ask(deep, ControlRequest("status")), lambda: socket_path(deep)):
        with pytest.raises(StateDirectoryError, match=f"{PATH_BYTES} are possible") as caught:
            attempt()
        assert "shorter" in caught.value.hint


@pytest.mark.parametrize("missing", ["nothing", "file/state"])
def test_no_proxy_is_not_running(directory: Path, missing: str) -> None:
    (directory / "file").touch()
    with pytest.raises(NotRunning, match="No proxy is running") as caught:
        ask(directory / missing, ControlRequest("status"))
    assert "ith-proxy run" in caught.value.hint


async def test_a_proxy_that_hangs_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.3)
    async with listening(directory):  # and nobody serves
        with pytest.raises(ControlFailed, match="does not answer") as caught:
            await asked(directory, "status")
    assert "nothing that was accepted is lost" in caught.value.hint
