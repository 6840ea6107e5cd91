from __future__ import annotations

import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import proxy.machines
from proxy.cli.statecharts import README, differences, documents, statecharts
from proxy.fsm import ActivityFailed, Event, Machine, Source
from proxy.fsm.page import sentence
from proxy.machines import MACHINES
from proxy.machines.changes import CHANGES, Change
from proxy.machines.delivery import DELIVERY
from proxy.machines.failures import FAILURES
from tests.support.machine_suite import dead_cells

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "statecharts"
TRACE = ROOT / "src" / "proxy" / "machines" / "trace.json"
each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(statecharts, [str(argument) for argument in arguments])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    assert call(tmp_path / "charts").exit_code == 0
    return tmp_path / "charts"


def test_the_committed_files_are_what_this_program_writes() -> None:
    assert list(differences(COMMITTED)) == []


def test_the_check_of_the_project_passes_where_it_is_checked_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    result = call("--check")
    assert (result.exit_code, result.output) == (0, f"{len(documents())} files agree\n")


def test_each_machine_has_a_page_and_a_document_for_tools() -> None:
    names = [
        name for machine in MACHINES for name in (f"{machine.name}.md", f"{machine.name}.scxml")
    ]
    assert list(documents()) == [*names, "changes.md", "failures.md", "tests.md", "trace.md"]


def machines_in_modules() -> Iterator[Machine[Any, Any, Any]]:
    for module in pkgutil.iter_modules(proxy.machines.__path__, "proxy.machines."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Machine):
                yield value


def test_no_machine_is_forgotten() -> None:
    assert {id(machine) for machine in machines_in_modules()} == {id(m) for m in MACHINES}


@each_machine
def test_a_machine_is_in_the_module_of_its_name(machine: Machine[Any, Any, Any]) -> None:
    module = importlib.import_module(f"proxy.machines.{machine.name}")
    assert getattr(module, machine.name.upper()) is machine
    assert type(machine.initial).__module__ == module.__name__


def test_ids_are_of_one_machine_and_one_form() -> None:
    prefixes = [{entry.id.partition("-")[0] for entry in machine.entries} for machine in MACHINES]
    assert all(len(prefix) == 1 for prefix in prefixes)
    assert len(set.union(*prefixes)) == len(MACHINES)
    for machine in MACHINES:
        for entry in machine.entries:
            assert re.fullmatch(r"[A-Z]{3}-\d{2}", entry.id)


@each_machine
def test_ids_once_published_do_not_vanish(machine: Machine[Any, Any, Any]) -> None:
    first = machine.entries[0].id.partition("-")[0]
    pattern = re.compile(rf"\b{first}-\d+\b")
    published = set(pattern.findall((COMMITTED / f"{machine.name}.md").read_text()))
    assert published == {entry.id for entry in machine.entries} | machine.retired.keys()


@each_machine
def test_nothing_that_is_printed_is_left_without_a_sentence(
    machine: Machine[Any, Any, Any],
) -> None:
    actions = {row.action for row in machine.rows if row.action}
    things = [machine.purpose, *(state.value for state in machine.states)]
    things += [sentence(thing) for thing in (*machine.events, *actions)]
    things += [entry.doc for entry in machine.entries]
    things += [group.doc for group in machine.groups]
    things += [d.after.doc if d.after else d.untimed for d in machine.definitions]
    assert all(things)


@each_machine
def test_every_reason_is_one_full_sentence(machine: Machine[Any, Any, Any]) -> None:
    reasons = {thing.id: thing.doc for thing in machine.entries}
    reasons |= {group.name: group.doc for group in machine.groups}
    for where, reason in reasons.items():
        assert reason.endswith("."), where
        assert ". " not in reason, where
        assert len(reason.split()) >= 4, where
        assert not re.match(r"As [A-Z]{3}-\d\d", reason), where


def test_the_page_of_a_delivery_is_short_enough_to_be_read() -> None:
    assert len(documents()["delivery.md"].splitlines()) <= 230


@each_machine
def test_no_cell_is_filled_where_its_event_cannot_come(machine: Machine[Any, Any, Any]) -> None:
    assert dead_cells(machine) == []


@each_machine
def test_events_are_named_apart(machine: Machine[Any, Any, Any]) -> None:
    names = [event.__name__ for event in machine.events]
    assert len(names) == len(set(names))
    assert ActivityFailed.__doc__ != Event.__doc__


def test_the_trace_names_tests_that_exist() -> None:
    trace: dict[str, list[str]] = json.loads(TRACE.read_text())
    for test in {test for tests in trace.values() for test in tests}:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.id)
def test_each_change_takes_rows_and_is_shown_by_tests_that_exist(change: Change) -> None:
    for machine, events in change.tells:
        assert {event for row in machine.rows for event in row.on} >= {*events}
    assert change.shown_by
    for test in change.shown_by:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / "end_to_end" / file).read_text()


def test_every_request_of_the_supervisor_to_a_delivery_is_part_of_a_change() -> None:
    told = {event for change in CHANGES for _, events in change.tells for event in events}
    others = {"GiveUpRequested", "ContentReady"}  # of the download, not of a change
    requests = {event for event in DELIVERY.events if event.source is Source.SUPERVISOR}
    assert {event for event in requests if event.__name__ not in others} <= told


def test_without_a_directory_the_pages_are_printed_in_order() -> None:
    output = call().output
    titles = re.findall(r"^# (\w+)$", output, re.MULTILINE)
    assert titles == [
        *(machine.name for machine in MACHINES),
        "changes",
        "failures",
        "tests",
        "trace",
    ]
    assert "<scxml" not in output


def test_the_same_is_written_every_time(written: Path) -> None:
    before = {file.name: file.read_bytes() for file in written.iterdir()}
    assert call(written).output == f"{len(documents())} files written to {written}\n"
    assert {file.name: file.read_bytes() for file in written.iterdir()} == before
    assert before == {name: body.encode() for name, body in documents().items()}


def test_the_check_writes_nothing_and_lists_what_differs(written: Path) -> None:
    first, second, *_ = documents()
    (written / first).unlink()
    with (written / second).open("a") as file:
        file.write("\n")
    (written / "old.md").touch()
    (written / README).touch()
    result = call("--check", written)
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"missing: {first}",
        f"differs: {second}",
        "left over: old.md",
        "3 differences",
    ]
    assert not (written / first).exists()


def test_a_changed_line_end_is_a_difference(written: Path) -> None:
    name = next(iter(documents()))
    (written / name).write_bytes((written / name).read_bytes().replace(b"\n", b"\r\n"))
    assert list(differences(written)) == [f"differs: {name}"]


def test_the_check_without_anything_to_compare_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (("--check",), ("--check", "elsewhere")):
        result = call(*arguments)
        assert result.exit_code == 2
        assert "Name the directory of the controlled pages" in result.output


def test_the_installed_program_agrees_with_the_committed_files() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("ith-proxy"), "statecharts", "--check"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_page_of_failures_has_every_row_once() -> None:
    page = documents()["failures.md"]
    assert re.findall(r"^\| (FLR-\d+) \|", page, re.MULTILINE) == [row.id for row in FAILURES]
    assert (
        len({len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line[:1] == "|"})
        == 1
    )


def test_the_readme_lists_every_page() -> None:
    readme = (COMMITTED / README).read_text()
    for name in documents():
        assert name in readme or name.endswith(".scxml")


def test_the_readme_lists_every_third_party_part_with_its_floor() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"Python": project["requires-python"].removeprefix(">=")}
    wanted |= dict(part.split(">=") for part in project["dependencies"])
    _, _, parts = (COMMITTED / README).read_text().partition("## Third-party parts")
    assert dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|", parts, re.MULTILINE)) == wanted
