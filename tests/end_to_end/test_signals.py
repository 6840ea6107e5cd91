"""Signals to the program as a process: while it starts, as the first one of a system, in a shell.

SIGTERM in the middle of a session is in ``test_sigterm``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
import trio

from tests.support.waiting import PATIENCE_S, until

NOBODY = "http://127.0.0.1:9"
"""The discard port: nobody listens there."""

NO_EFFECT = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
FIRST_OF_A_SYSTEM = ("unshare", "--pid", "--fork", "--kill-child")


def may_be_first() -> bool:
    """Whether this user may make a system of processes."""
    with suppress(OSError):
        done = subprocess.run([*FIRST_OF_A_SYSTEM, "true"], capture_output=True, check=False)
        return done.returncode == 0
    return False


FIRST = pytest.param(
    FIRST_OF_A_SYSTEM,
    id="as process 1",
    marks=pytest.mark.skipif(not may_be_first(), reason="only root may unshare processes"),
)
PLACES = [pytest.param((), id="as any other"), FIRST]


@pytest.fixture(autouse=True)
def nothing_ignored() -> Iterator[None]:
    """The programs under test do not inherit ignored signals of the tests' parent."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in NO_EFFECT}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Program:
    """``ith-proxy run`` while it runs, under another program or not."""

    def __init__(self, process: trio.Process, log_file: Path, *, is_child: bool) -> None:
        self.process = process
        self.log_file = log_file
        self._is_child = is_child

    def signal(self, number: signal.Signals) -> None:
        pid = self.process.pid
        if self._is_child:
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        os.kill(pid, number)

    def lines(self, event: str) -> list[dict[str, object]]:
        lines = (json.loads(line) for line in self.log_file.read_text().splitlines())
        return [line for line in lines if line["event"] == event]

    async def started(self) -> None:
        await until(lambda: self.lines("service.started"))

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    async def ended(self) -> int:
        with trio.fail_after(PATIENCE_S):
            return await self.process.wait()

    async def terminate(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended()


@asynccontextmanager
async def running(
    root: Path,
    under: Sequence[str] = (),
    *,
    config: Path | None = None,
    standard_input: int = subprocess.DEVNULL,
    standard_error: int | None = None,
) -> AsyncIterator[Program]:
    """Run the program; ``under`` is the command of a program that runs it."""
    environ = {"PATH": os.environ["PATH"], "ITH_URL": NOBODY, "ITH_TOKEN": "pk_demo"}
    run = [*under, sys.executable, "-m", "proxy", "run", "--state-dir", str(root / "state")]
    with (root / "log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            [*run, "--config", str(config)] if config else run,
            env=environ,
            stdin=standard_input,
            stderr=standard_error or log,
        )
    try:
        yield Program(process, root / "log", is_child=under == FIRST_OF_A_SYSTEM)
    finally:
        process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()


class Slow:
    """A settings file that the program begins to read, and can only read on when it may."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "config.toml"
        os.mkfifo(self.path)
        self._file = -1

    async def is_read(self) -> None:
        """Wait until the program reads it: it has caught its signals, and imported little else."""

        def is_open() -> bool:
            with suppress(OSError):  # nobody reads it yet
                self._file = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            return self._file >= 0

        await until(is_open)

    def read_on(self) -> None:
        os.close(self._file)


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: the end that somebody looks at, and the one for the program."""
    master, slave = os.openpty()
    yield master, slave
    for number in (master, slave):
        with suppress(OSError):  # the test has closed it
            os.close(number)


# While it starts ------------------------------------------------------------------------------


@asynccontextmanager
async def signalled_while_it_starts(
    directory: Path, under: Sequence[str], number: signal.Signals
) -> AsyncIterator[Program]:
    """Run the program, and give it the signal before it has read its settings."""
    settings = Slow(directory)
    async with running(directory, under, config=settings.path) as program:
        await settings.is_read()
        program.signal(number)
        settings.read_on()
        yield program


@pytest.mark.parametrize("under", PLACES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_stop_that_comes_while_it_starts_stops_it(
    tmp_path: Path, under: Sequence[str], number: signal.Signals
) -> None:
    async with signalled_while_it_starts(tmp_path, under, number) as program:
        assert await program.ended() == 0
        (last,) = program.lines("service.stopped")
        assert last["reason"] == f"{number.name} received while it started"
        assert program.lines("service.started") == []


@pytest.mark.parametrize("under", PLACES)
@pytest.mark.parametrize("number", NO_EFFECT)
async def test_a_signal_without_effect_that_comes_while_it_starts_is_told_afterwards(
    tmp_path: Path, under: Sequence[str], number: signal.Signals
) -> None:
    async with signalled_while_it_starts(tmp_path, under, number) as program:
        await program.started()
        (told,) = program.lines("signal.ignored")
        assert told["signal"] == number.name
        assert await program.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_from_the_first_thing_it_does_on_no_signal_ends_it_in_disorder(
    tmp_path: Path, number: signal.Signals
) -> None:
    async def after(delay_s: float) -> None:
        root = tmp_path / str(delay_s)
        root.mkdir()
        async with running(root) as program:
            await trio.sleep(delay_s)
            program.signal(number)
            if number is signal.SIGHUP:
                await until(lambda: program.over or program.lines("signal.ignored"))
                if not program.over:
                    program.signal(signal.SIGTERM)
            code = await program.ended()
            # Before its first line of its own, Python does with a signal what the system does.
            assert code == 0 or (code == -number and not (root / "state").exists())

    async with trio.open_nursery() as nursery:
        for step in range(8):
            nursery.start_soon(after, step / 10)


# While it runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("under", PLACES)
@pytest.mark.parametrize("number", NO_EFFECT)
async def test_without_a_terminal_a_signal_to_reload_or_reopen_is_told_and_has_no_effect(
    tmp_path: Path, under: Sequence[str], number: signal.Signals
) -> None:
    async with running(tmp_path, under) as program:
        await program.started()
        program.signal(number)
        await until(lambda: len(program.lines("signal.ignored")) == 1)
        program.signal(number)
        await until(lambda: len(program.lines("signal.ignored")) == 2)
        for line in program.lines("signal.ignored"):
            assert line["signal"] == number.name
            assert ("restart" in str(line["hint"])) == (number is signal.SIGHUP)
        assert await program.terminate() == 0
        assert "reason" not in program.lines("service.stopped")[0]


async def test_with_a_terminal_sighup_drains(tmp_path: Path) -> None:
    with terminal() as (_, standard_input):
        async with running(tmp_path, standard_input=standard_input) as program:
            await program.started()
            program.signal(signal.SIGHUP)
            assert await program.ended() == 0
            assert len(program.lines("service.stopped")) == 1
            assert program.lines("signal.ignored") == []


async def test_a_terminal_that_is_closed_while_it_starts_stops_it(tmp_path: Path) -> None:
    settings = Slow(tmp_path)
    with terminal() as (master, standard_input):
        async with running(
            tmp_path, ["setsid", "--ctty"], config=settings.path, standard_input=standard_input
        ) as program:
            await settings.is_read()
            os.close(master)
            settings.read_on()
            assert await program.ended() == 0


async def test_a_terminal_that_is_closed_drains_though_the_log_went_there(tmp_path: Path) -> None:
    with terminal() as (master, slave):
        async with running(
            tmp_path, ["setsid", "--ctty"], standard_input=slave, standard_error=slave
        ) as program:
            os.close(slave)
            shown = b""
            while b"service.started" not in shown:
                with trio.fail_after(PATIENCE_S):
                    await trio.lowlevel.wait_readable(master)
                shown += os.read(master, 4096)
            os.close(master)
            assert await program.ended() == 0


@pytest.mark.parametrize("number", NO_EFFECT)
@pytest.mark.parametrize("at_a_terminal", [False, True])
async def test_what_the_parent_ignores_stays_ignored(
    tmp_path: Path, number: signal.Signals, at_a_terminal: bool
) -> None:
    other = signal.SIGUSR2 if number is signal.SIGUSR1 else signal.SIGUSR1
    under = ["env", f"--ignore-signal={number.name.removeprefix('SIG')}"]
    with terminal() as (_, standard_input):
        given = standard_input if at_a_terminal else subprocess.DEVNULL
        async with running(tmp_path, under, standard_input=given) as program:
            await program.started()
            program.signal(number)
            program.signal(other)
            await until(lambda: program.lines("signal.ignored"))
            assert [line["signal"] for line in program.lines("signal.ignored")] == [other.name]
            assert await program.terminate() == 0
