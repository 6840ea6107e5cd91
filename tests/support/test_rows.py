from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.runtime.runner import Run, observing
from tests.support.rows import problems
from tests.support.sample import FERRY, Loaded, Log

pytest_plugins = ["pytester"]

CONFTEST = """
import sys, types
import pytest
from tests.support.sample import FERRY

machines = types.ModuleType("proxy.machines")
machines.MACHINES = (FERRY,)
sys.modules["proxy.machines"] = machines
pytest_plugins = ["tests.support.rows"]
"""
TESTS = """
import pytest
from proxy.fsm import ActivityFailed
from proxy.runtime.runner import Run
from tests.support.sample import *
from hypothesis import given, strategies

def told(*events):
    idle = dict.fromkeys(FERRY.activities)
    run = Run(FERRY, Log(), idle, lambda output: None)
    for event in events:
        run.tell(event)

@pytest.mark.parametrize("called", [1, 2])
def test_a_voyage(called):
    told(Loaded(1), Sighted(), *[Called()] * (called + 1), Turned(), Sighted(), Called(),
         Called(), Loaded(1), Sighted())

def test_a_leak():
    told(ActivityFailed("x"), Called())

@given(strategies.just(1))
def test_chance(one):
    told(Loaded(one))
"""
VOYAGE = ["FRY-01", "FRY-02", "FRY-03", "FRY-04", "FRY-05", "FRY-90", "FRY-93"]
TRACE = {row: ["machines/test_ferry.py::test_a_voyage"] for row in VOYAGE} | {
    "FRY-06": ["machines/test_ferry.py::test_a_leak"],
}
BARE = [f"-pno:{plugin}" for plugin in ("cacheprovider", "pytest_cov", "randomly", "timeout")]
"""Plugins that the sessions here leave out, to start sooner."""


class Project:
    """A small project with the machine, tests that take its rows, and the plugin."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.tests = pytester.mkdir("tests")
        pytester.makeini("[pytest]\ntestpaths = tests\naddopts = --import-mode=importlib\n")
        (self.tests / "__init__.py").touch()
        (self.tests / "support").mkdir()
        for name in ("__init__.py", "rows.py", "sample.py"):
            shutil.copy(Path(__file__).with_name(name), self.tests / "support")
        (self.tests / "conftest.py").write_text(CONFTEST)
        for directory in ("machines", "dicom"):
            (self.tests / directory).mkdir()
        (self.tests / "dicom" / "test_node.py").write_text("def test_it():\n    pass\n")
        self.file = self.tests / "machines" / "test_ferry.py"
        self.file.write_text(TESTS)
        self.trace = pytester.path / "src" / "proxy" / "machines" / "trace.json"
        self.trace.parent.mkdir(parents=True)
        self.trace.write_text(json.dumps(TRACE))

    def run(self, *arguments: str) -> pytest.RunResult:
        return self.pytester.runpytest_subprocess(*BARE, *arguments)


@pytest.fixture
def project(pytester: pytest.Pytester) -> Project:
    return Project(pytester)


PROCESSES = pytest.mark.parametrize("processes", ["0", "2"])
"""In this process, and spread by pytest-xdist over so many."""


@PROCESSES
def test_a_full_run_passes_when_every_row_is_taken_and_the_trace_is_true(
    project: Project, processes: str
) -> None:
    result = project.run("-n", processes)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*rows of the machines*")


@PROCESSES
def test_a_full_run_fails_when_a_row_is_not_taken(project: Project, processes: str) -> None:
    project.file.write_text(
        TESTS.replace("*[Called()] * (called + 1), Turned()", "Called(), Turned()")
    )
    result = project.run("-n", processes)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*rows of the machines*", "FRY-90: no test takes it", "FRY-90: *test_a_voyage does not*"]
    )


def test_a_run_of_some_tests_is_not_judged(project: Project) -> None:
    project.trace.write_text("{}")
    for arguments in (
        ("-n", "2", "-k", "voyage"),
        ("tests/machines",),
        (f"{project.file}::test_a_voyage",),
        ("--deselect", "tests/machines/test_ferry.py::test_a_leak"),
    ):
        result = project.run(*arguments)
        assert result.ret == 0
        result.stdout.no_fnmatch_line("*rows of the machines*")


def test_a_failed_run_is_not_judged(project: Project) -> None:
    project.file.write_text(TESTS + "\ndef test_wrong():\n    assert False\n")
    project.trace.write_text("{}")
    result = project.run()
    assert result.ret == 1
    result.stdout.no_fnmatch_line("*rows of the machines*")


@PROCESSES
def test_a_run_records_without_parameters_and_without_tests_of_chance(
    project: Project, processes: str
) -> None:
    project.trace.write_text("{}")
    assert project.run("--record-rows", "-n", processes).ret == 0
    assert json.loads(project.trace.read_text()) == TRACE


def test_a_run_of_some_tests_records_nothing(project: Project) -> None:
    before = project.trace.read_text()
    result = project.run("--record-rows", "-k", "voyage")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*not recorded: not every test that counts ran and passed"])
    assert project.trace.read_text() == before


def test_a_skipped_test_is_believed(project: Project) -> None:
    skip = '@pytest.mark.skip(reason="no program")\ndef test_a_leak'
    project.file.write_text(TESTS.replace("def test_a_leak", skip))
    assert project.run("--record-rows").ret == 0
    assert json.loads(project.trace.read_text()) == TRACE


def test_tests_elsewhere_do_not_count(project: Project) -> None:
    project.file.rename(project.tests / "test_ferry.py")
    (project.tests / "machines" / "test_other.py").write_text("def test_it():\n    pass\n")
    result = project.run()
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FRY-01: no test takes it"])


def test_what_is_wrong_is_said_row_by_row() -> None:
    found = problems(
        ["A-1", "A-2", "A-3", "A-4"],
        {"A-2": {"t"}, "A-3": {"t"}, "A-4": {"t"}},
        {"A-2": ["t"], "A-3": ["gone"], "B-1": ["t"]},
    )
    assert found == [
        "A-1: no test takes it",
        "B-1: in trace.json, in no machine",
        "A-4: trace.json names none (pytest --record-rows)",
        "A-3: gone does not take it any more (pytest --record-rows)",
    ]


left_open = ExitStack()
seen_in: list[int] = []


async def idle(_: object) -> None:
    """Nothing runs here."""


@pytest.mark.parametrize("time", [1, 2])
def test_an_observer_that_a_test_forgets_is_gone_in_the_next(time: int) -> None:
    seen_in.clear()
    left_open.enter_context(observing(lambda run, step: seen_in.append(time)))
    Run(FERRY, Log(), dict.fromkeys(FERRY.activities, idle), lambda _: None).tell(Loaded(1))
    assert seen_in == [time]
