"""The complete service in this process: its start, its stop, and the reasons of a stop."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import apsw
import pytest
import trio

from proxy import service
from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.node import DemoNode
from proxy.errors import ConfigError, LedgerError, ProxyError, first
from proxy.ledger import statements
from proxy.machines import MACHINES
from proxy.machines.operation import OperationState
from proxy.pacs.local import Checked, LocalPacs
from proxy.runtime.signals import ProcessSignals
from proxy.settings import (
    IthSettings,
    LimitSettings,
    Secret,
    ServiceSettings,
    Settings,
)
from proxy.supervision.supervisor import Supervisor
from tests.reporting.make import over
from tests.support.program import QUICK, configure, offer, uids
from tests.support.waiting import PATIENCE_S, until

MEANT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STOPPING = MEANT[:3]
NOBODY = "http://127.0.0.1:9"
"""The discard port: nobody listens there."""


def given(directory: Path, url: str = NOBODY, **stop: float) -> Settings:
    return Settings(
        ith=IthSettings(
            url=url,
            ping_seconds=0.5,
            pong_seconds=1.0,
            health_seconds=0.2,
            heartbeat_seconds=0.2,
            backoff_max_seconds=0.2,
        ),
        dicom=QUICK,
        limits=LimitSettings(reserve_gb=0.0),
        service=ServiceSettings(**{"drain_seconds": 5.0, "flush_seconds": 1.0} | stop),
        state_dir=directory,
        token=Secret("pk_demo/+="),
    )


class Running:
    """The service, and when it had ended."""

    def __init__(self, supervisor: Supervisor, ended: trio.Event) -> None:
        self.supervisor = supervisor
        self.ended = ended

    async def stopped(self) -> float:
        """Wait for the end; returns the seconds it took."""
        began = trio.current_time()
        with trio.fail_after(PATIENCE_S):
            await self.ended.wait()
        return trio.current_time() - began


@contextmanager
def of_this_process() -> Iterator[ProcessSignals]:
    """The signals of a process with a terminal; afterwards they mean what they meant."""
    handlers = {number: signal.getsignal(number) for number in MEANT}
    master, terminal = os.openpty()
    standard_input = os.dup(0)
    os.dup2(terminal, 0)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # not as the parent of the tests had it
        yield ProcessSignals()
    finally:
        os.dup2(standard_input, 0)
        for number in (master, terminal, standard_input):
            os.close(number)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture
def signals() -> Iterator[ProcessSignals]:
    with of_this_process() as signals:
        yield signals


@asynccontextmanager
async def running(
    settings: Settings, signals: ProcessSignals | None = None
) -> AsyncIterator[Running]:
    ended = trio.Event()

    async def serve(*, task_status: trio.TaskStatus[Supervisor]) -> None:
        try:
            if signals:
                await service.serve_until_signal(settings, signals, task_status=task_status)
            else:
                await service.serve(settings, task_status=task_status)
        finally:
            ended.set()

    async with trio.open_nursery() as nursery:
        yield Running(await nursery.start(serve), ended)
        nursery.cancel_scope.cancel("the test is over")


# Starting -------------------------------------------------------------------------------------


def refused(settings: Settings) -> ProxyError:
    with of_this_process() as signals, pytest.raises(ProxyError) as caught:
        service.main(settings, signals)
    assert caught.value.hint
    return caught.value


def test_a_state_directory_that_is_none_is_refused(directory: Path) -> None:
    (directory / "file").touch()
    assert isinstance(refused(given(directory / "file")), ProxyError)


def test_a_damaged_ledger_is_refused(directory: Path) -> None:
    (directory / "ledger.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    assert isinstance(refused(given(directory)), LedgerError)


def test_a_ledger_of_something_else_is_refused(directory: Path) -> None:
    with sqlite3.connect(directory / "ledger.db") as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    assert str(refused(given(directory))) == "the file named ledger.db is not a ledger of ith-proxy"


def test_a_newer_ledger_is_refused_and_left_alone(directory: Path) -> None:
    async def start_and_stop() -> None:
        async with running(given(directory)) as proxy:
            proxy.supervisor.drain("the test stops")
            await proxy.stopped()

    trio.run(start_and_stop)
    with sqlite3.connect(directory / "ledger.db") as ledger:
        ledger.execute("PRAGMA user_version = 999")
    ledger.close()
    before = (directory / "ledger.db").read_bytes()
    assert "schema 999" in str(refused(given(directory)))
    assert (directory / "ledger.db").read_bytes() == before


def test_a_ledger_in_use_is_refused(directory: Path) -> None:
    async def start_twice() -> None:
        async with running(given(directory)):
            with pytest.raises(LedgerError, match="in use by another process"):
                await service.serve(given(directory))

    trio.run(start_twice)


def test_a_ca_file_that_is_none_is_refused(directory: Path) -> None:
    settings = given(directory)
    (directory / "ca.pem").write_text("nothing")
    ith = IthSettings(url=NOBODY, ca_file=str(directory / "ca.pem"))
    wrong = Settings(ith=ith, state_dir=directory, token=settings.token)
    assert isinstance(refused(wrong), ConfigError)


# Its log --------------------------------------------------------------------------------------


async def test_at_level_debug_it_logs_the_steps_of_every_machine(
    directory: Path, backend: DemoBackend, node: DemoNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "proxy.logs")
    configure(backend, [node])
    offer(backend)
    event = frames.session_dispatch("sess-1", ["a"])
    async with running(given(directory, backend.url)) as proxy:
        await until(lambda: backend.frames_named("config_update"))
        await backend.send_event(event)
        await until(lambda: backend.final_status(event["correlation_id"]))
        proxy.supervisor.drain("the test stops")
        await proxy.stopped()
    lines = [vars(each)["line"] for each in caplog.records if each.msg == "machine.stepped"]
    assert {each["machine"] for each in lines} == {machine.name for machine in MACHINES}


# Stopping -------------------------------------------------------------------------------------


async def test_it_stops_where_ith_was_never_reached(directory: Path) -> None:
    async with running(given(directory)) as proxy:
        await trio.sleep(0.05)
        proxy.supervisor.drain("the test stops")
        await proxy.stopped()


async def test_it_stops_in_order(directory: Path, backend: DemoBackend, node: DemoNode) -> None:
    configure(backend, [node])
    instances = offer(backend, slices=8)
    node.script.delay_s = 0.1
    async with running(given(directory, backend.url)) as proxy:
        await until(lambda: backend.frames_named("config_update"))
        await until(lambda: proxy.supervisor.registry.nodes)
        event = frames.session_dispatch("sess-1", ["a"])
        await backend.send_event(event)
        await until(lambda: len(node.holds) >= 2)
        proxy.supervisor.drain("the test stops")
        await proxy.stopped()
        assert len(node.arrivals) == len(node.holds) < 8
    await until(lambda: backend.close_codes)
    assert backend.close_codes == [1000]
    assert backend.heard[-1].frame["proxy_status"] == "offline"
    assert backend.final_status(event["correlation_id"], "a") is None
    node.script.delay_s = 0.0
    async with running(given(directory, backend.url)):
        await until(lambda: backend.final_status(event["correlation_id"]))
    assert node.holds.keys() == uids(instances)
    assert len(node.arrivals) == 8


async def test_the_last_report_leaves_before_the_link_closes(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    configure(backend, [node])
    offer(backend, slices=2)
    node.script.delay_s = 0.1
    async with running(given(directory, backend.url)) as proxy:
        await until(lambda: proxy.supervisor.registry.nodes)
        event = frames.session_dispatch("sess-1", ["a"])
        await backend.send_event(event)
        await until(lambda: len(node.arrivals) == 2)
        proxy.supervisor.drain("the test stops")
        await proxy.stopped()
    final = backend.final_status(event["correlation_id"])
    assert final is not None
    assert final["status"] == "completed"
    assert backend.heard[-1].frame["proxy_status"] == "offline"


async def test_reports_that_do_not_leave_in_time_are_kept(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    configure(backend, [node])
    offer(backend, slices=3)
    node.script.delay_s = 0.1
    event = frames.session_dispatch("sess-1", ["a"])
    async with running(given(directory, backend.url, flush_seconds=0.3)) as proxy:
        await until(lambda: proxy.supervisor.registry.nodes)
        await backend.send_event(event)
        await until(lambda: len(node.holds) == 1)
        await backend.vanish()
        await until(lambda: not proxy.supervisor.registry.dispatches)
        proxy.supervisor.drain("the test stops")
        assert await proxy.stopped() > 0.2
    await backend.listen()
    async with running(given(directory, backend.url)):
        await until(lambda: backend.final_status(event["correlation_id"]))
    assert len(node.arrivals) == 3


@pytest.mark.parametrize("number", STOPPING)
async def test_a_signal_stops_it_and_a_second_one_at_once(
    directory: Path,
    backend: DemoBackend,
    node: DemoNode,
    number: signal.Signals,
    signals: ProcessSignals,
) -> None:
    configure(backend, [node])
    offer(backend)
    node.script.stall_at = 2
    settings = given(directory, backend.url, drain_seconds=60.0)
    async with running(settings, signals) as proxy:
        await until(lambda: proxy.supervisor.registry.nodes)
        await backend.send_event(frames.session_dispatch("sess-1", ["a"]))
        await until(lambda: len(node.arrivals) == 2)
        operation = proxy.supervisor.registry.operation.run
        os.kill(os.getpid(), number)
        await until(lambda: operation.state is OperationState.DRAINING)
        for _ in range(3):  # a third signal is no fault
            os.kill(os.getpid(), number)
            await trio.sleep(0.001)
        await proxy.stopped()


async def test_a_signal_during_the_flush_is_no_fault(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    configure(backend, [node])
    async with running(given(directory, backend.url)) as proxy:
        await until(lambda: proxy.supervisor.registry.nodes)
        await backend.vanish()
        await backend.listen()
        backend.script.stall = True
        offer(backend, "sess-1", slices=1)
        proxy.supervisor._dispatches._reports._outbox.put("k", over())
        proxy.supervisor.drain("once")
        await proxy.supervisor.registry.operation.run.until(OperationState.STOPPED)
        await trio.sleep(0.05)
        proxy.supervisor.drain("twice")
        await proxy.stopped()


async def test_a_full_disk_in_mid_run_stops_the_program_with_that_error(
    directory: Path, backend: DemoBackend, node: DemoNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise apsw.FullError

    configure(backend, [node])
    offer(backend)
    ended: list[BaseException] = []
    event = frames.session_dispatch("sess-1", ["a"])

    async def break_the_disk() -> None:
        await until(lambda: backend.frames_named("config_update"))
        await trio.sleep(0.2)
        monkeypatch.setattr(statements, "accept", full)
        await backend.send_event(event)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(break_the_disk)
        try:
            with trio.fail_after(PATIENCE_S):
                await service.serve(given(directory, backend.url))
        except* LedgerError as errors:
            ended.append(first(errors))
    assert isinstance(ended[0], LedgerError)
    assert ended[0].hint
    assert backend.statuses == {}  # nothing is claimed that is not durable


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_that_came_early_ends_the_start(
    directory: Path, number: signal.Signals, signals: ProcessSignals
) -> None:
    os.kill(os.getpid(), number)
    assert service.main(given(directory), signals) == 0


@pytest.mark.parametrize("number", STOPPING)
def test_a_start_that_takes_long_ends_at_a_signal(
    directory: Path,
    number: signal.Signals,
    signals: ProcessSignals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def read_for_ever(*_: object) -> Checked:
        os.kill(os.getpid(), number)
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(LocalPacs, "janitor", read_for_ever)
    assert service.main(given(directory), signals) == 0


def test_main_returns_0_after_a_signal(
    directory: Path, signals: ProcessSignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = service.serve

    async def killed_soon(settings: Settings, *, task_status: trio.TaskStatus[Supervisor]) -> None:
        async with trio.open_nursery() as nursery:
            task_status.started(await nursery.start(partial(genuine, settings)))
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(service, "serve", killed_soon)
    assert service.main(given(directory), signals) == 0
