"""A pytest plugin: every row and ignore of every machine is taken by a running machine in a test.

It listens to the runs (``proxy.runtime.runner.observing``) and notes which test took which row.
Only the tests below ``tests/machines`` and ``tests/dicom`` count. When all of those ran, the
session fails if a row was not taken, or if ``src/proxy/machines/trace.json``, from which
``statecharts/trace.md`` is written, names a test that no longer takes the row. ``--record-rows``
writes that file. What comes in a final state takes no row.

A Hypothesis test is not counted: it may take other rows tomorrow. A test that was skipped, for
want of a program it runs, is believed to take what the file says.

Where pytest-xdist spreads the tests over processes, each tells what it saw at its end, and the
first process judges.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

DIRECTORIES = ("machines", "dicom")
"""Folders of ``tests`` whose tests count."""
NAMED = 3
"""The most tests that are named for each row."""
SEEN = "rows-of-the-machines"
"""Under this name a process of pytest-xdist tells what it saw."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-rows",
        action="store_true",
        help="write which tests take which row of the machines to src/proxy/machines/trace.json",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Rows(config.rootpath), "rows-of-the-machines")


class Seen(msgspec.Struct):
    """The records of one process: the tests by row, skipped tests, and collected files."""

    taken: dict[str, set[str]] = {}
    skipped: set[str] = set()
    collected: set[str] = set()
    is_whole: bool = True
    """Whether no selection left out tests that count."""

    def add(self, other: Seen) -> None:
        """Put what another process saw to it."""
        for row, tests in other.taken.items():
            self.taken.setdefault(row, set()).update(tests)
        self.skipped |= other.skipped
        self.collected |= other.collected
        self.is_whole = self.is_whole and other.is_whole


class Worker(Protocol):
    """A process of pytest-xdist as the first process has it."""

    workeroutput: dict[str, object]


class Rows:
    """The rows that the tests of one session took."""

    def __init__(self, root: Path) -> None:
        self.problems: list[str] = []
        self._seen = Seen()
        self._tests = root / "tests"
        self._trace = root / "src" / "proxy" / "machines" / "trace.json"

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """A selection by name, mark or last failure says nothing about the rest."""
        if any(self._counts(item) for item in items):
            self._seen.is_whole = False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which files were collected; an argument with ``::`` selects within a file."""
        self._seen.collected = {str(item.path) for item in session.items}
        if any("::" in str(arg) for arg in session.config.args):
            self._seen.is_whole = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Observe the runs that one test makes, and restore the observers after any test."""
        from proxy.runtime.runner import observing

        taken: set[str] = set()
        with observing(lambda _, step: taken.add(step.row)):
            result = yield
        if self._counts(item):
            for row in taken:
                self.note(row, self._name(item))
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note what was skipped."""
        report = yield
        if report.skipped and self._counts(item):
            self._seen.skipped.add(self._name(item))
        return report

    def note(self, row: str, test: str) -> None:
        """Remember that ``test`` took ``row``."""
        self._seen.taken.setdefault(row, set()).add(test)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Worker) -> None:
        """Take over the records of a process of pytest-xdist; one that crashed has none."""
        if told := getattr(node, "workeroutput", {}).get(SEEN):
            self._seen.add(msgspec.convert(told, Seen))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Judge, or record, if every test that counts ran and passed."""
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output[SEEN] = msgspec.to_builtins(self._seen)
            return
        option = session.config.option
        finished = session.exitstatus == pytest.ExitCode.OK and not option.collectonly
        directories = [
            {*map(str, (self._tests / directory).rglob("test_*.py"))} for directory in DIRECTORIES
        ]
        all_ran = self._seen.is_whole and all(r and r <= self._seen.collected for r in directories)
        if not (finished and all_ran):
            if option.record_rows:
                self._fail(session, ["not recorded: not every test that counts ran and passed"])
            return
        from proxy.machines import MACHINES

        ids = [entry.id for machine in MACHINES for entry in machine.entries]
        trace: dict[str, list[str]] = json.loads(self._trace.read_text())
        for row, tests in trace.items():
            for test in self._seen.skipped.intersection(tests):
                self.note(row, test)
        if option.record_rows:
            taken = self._seen.taken
            trace = {row: sorted(taken[row])[:NAMED] for row in ids if row in taken}
            self._trace.write_text(json.dumps(trace, indent=1) + "\n")
        self._fail(session, problems(ids, self._seen.taken, trace))

    def _fail(self, session: pytest.Session, found: list[str]) -> None:
        self.problems = found
        if found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what is wrong."""
        if self.problems:
            terminalreporter.section("rows of the machines", red=True)
            for line in self.problems:
                terminalreporter.line(line)

    def _counts(self, item: pytest.Item) -> bool:
        is_recorded = any(
            item.path.is_relative_to(self._tests / directory) for directory in DIRECTORIES
        )
        return is_recorded and not getattr(getattr(item, "obj", None), "is_hypothesis_test", False)

    def _name(self, item: pytest.Item) -> str:
        file = item.path.relative_to(self._tests).as_posix()
        return f"{file}::{getattr(item, 'originalname', item.name)}"


def problems(
    ids: Iterable[str], taken: Mapping[str, set[str]], trace: Mapping[str, list[str]]
) -> list[str]:
    """Say which rows no test takes, and where the trace is not true any more."""
    ids = list(ids)
    found = [f"{row}: no test takes it" for row in ids if not taken.get(row)]
    found += [f"{row}: in trace.json, in no machine" for row in trace if row not in ids]
    found += [
        f"{row}: trace.json names none (pytest --record-rows)"
        for row in ids
        if taken.get(row) and not trace.get(row)
    ]
    found += [
        f"{row}: {test} does not take it any more (pytest --record-rows)"
        for row in ids
        for test in trace.get(row, ())
        if test not in taken.get(row, set())
    ]
    return found
