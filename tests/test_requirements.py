"""Requirements, rows and tests belong together: no loose end on any side."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from proxy.cli.requirement_pages import documents, trace_page
from proxy.fsm import Machine
from proxy.machines import MACHINES
from proxy.machines.changes import CHANGES
from proxy.machines.failures import FAILURES
from proxy.machines.requirements import GROUPS, REQUIREMENTS, SUBJECTS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "proxy"
BUILT = [each for each in REQUIREMENTS if not each.planned]
BEHAVIOURS = [each for subject in SUBJECTS for each in subject.requirements]
TRACED = {each for machine in MACHINES for row in machine.rows for each in row.traces}

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


@cache
def functions(file: Path) -> frozenset[str]:
    """The names of all functions of a file, which is read and not imported."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(
        node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)
    )


def test_ids_are_unique_and_in_order() -> None:
    ids = [each.id for each in REQUIREMENTS]
    assert len({*ids}) == len(ids)
    for group in GROUPS:
        numbers = [each.id.rpartition("-") for each in group.requirements]
        assert len({prefix for prefix, _, _ in numbers}) == 1
        assert all(int(a[2]) < int(b[2]) for a, b in pairwise(numbers))
        assert all(re.fullmatch(r"REQ-[A-Z]{3,4}-\d{1,2}", each.id) for each in group.requirements)
    assert [each.id for each in BEHAVIOURS] == sorted(each.id for each in BEHAVIOURS)
    assert all(re.fullmatch(r"BEH-\d{2}", each.id) for each in BEHAVIOURS)


def test_each_is_one_sentence_with_a_source() -> None:
    for each in REQUIREMENTS:
        assert re.fullmatch(r"[A-Z`][^\n]*\.", each.sentence)
        assert not re.search(r"\. [A-Z]", each.sentence)
        assert each.source


def headings(document: Path) -> Iterator[str]:
    for line in document.read_text().splitlines():
        if line.startswith("#"):
            yield line.lstrip("# ")


def has_section(source: str) -> bool:
    found = re.fullmatch(r"(docs/\S+\.md)(?: ([\d.]+)|, (.+))?", source)
    if found is None:
        return False
    document, number, title = found.groups()
    known = [*headings(ROOT / document)]
    if number is not None:
        return any(heading.startswith(f"{number} ") for heading in known)
    return title is None or title in known


def test_a_source_within_the_project_has_the_section() -> None:
    sources = {part for each in REQUIREMENTS for part in each.source.split("; ")}
    ours = {source for source in sources if source.startswith("docs/")}
    assert len(ours) > len(GROUPS)
    assert [source for source in sorted(ours) if not has_section(source)] == []


def exists(test: str) -> bool:
    file, _, name = test.partition("::")
    path = ROOT / file
    return file.startswith("tests/") and path.is_file() and name in functions(path)


def test_each_that_is_built_is_shown_by_tests() -> None:
    assert [each.id for each in BUILT if not each.tests] == []


def test_the_tests_that_show_one_exist_and_are_named_once() -> None:
    assert [test for each in BUILT for test in each.tests if not exists(test)] == []
    assert all(test.partition("::")[2].startswith("test_") for each in BUILT for test in each.tests)
    assert [each.id for each in BUILT if len({*each.tests}) < len(each.tests)] == []


def test_what_is_planned_claims_neither_tests_nor_code() -> None:
    planned = [each for each in REQUIREMENTS if each.planned]
    assert not [each for each in planned if each.tests or each.carried_by or each.tables]
    assert TRACED.isdisjoint(each.id for each in planned)


def test_the_modules_that_carry_one_exist() -> None:
    modules = {module for each in REQUIREMENTS for module in each.carried_by}
    assert [module for module in sorted(modules) if not (SOURCE / module).is_file()] == []


def test_each_has_rows_where_no_module_is_named() -> None:
    loose = [each.id for each in BUILT if not each.carried_by and each.id not in TRACED]
    assert loose == []


@each_machine
def test_each_row_serves_a_requirement(machine: Machine[Any, Any, Any]) -> None:
    assert [row.id for row in machine.rows if not row.traces] == []


def test_each_row_names_requirements_that_there_are() -> None:
    assert {each.id for each in REQUIREMENTS} >= TRACED


def test_each_failure_and_each_change_belongs_to_a_requirement() -> None:
    named = {entry for each in REQUIREMENTS for entry in each.tables}
    assert named == {*(row.id for row in FAILURES), *(change.id for change in CHANGES)}


@pytest.mark.parametrize("name", documents())
def test_the_committed_page_is_what_this_program_writes(name: str) -> None:
    assert (ROOT / "docs" / name).read_bytes() == documents()[name].encode()


def test_the_pages_are_written_by_the_command(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "proxy.cli.requirement_pages", str(tmp_path)], check=True)
    written = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert written == documents()


def test_the_trace_leads_from_each_requirement_and_row_to_tests() -> None:
    row = MACHINES[0].rows[0]
    page = trace_page({row.id: ["machines/test_x.py::test_y", "machines/test_x.py::test_z"]})
    for each in REQUIREMENTS:
        (line,) = re.findall(rf"^\| {each.id} \| .*$", page, re.MULTILINE)
        assert all(f"`{test.removeprefix('tests/')}`" in line for test in each.tests)
    (line,) = re.findall(rf"^\| {row.id} \| .*$", page, re.MULTILINE)
    assert line.endswith("| `machines/test_x.py::test_y`<br>`machines/test_x.py::test_z` |")
    for machine in MACHINES:
        for entry in machine.entries:
            (line,) = re.findall(rf"^\| {entry.id} \| .*$", page, re.MULTILINE)
            assert entry is row or line.endswith("| none yet |")


def test_the_trace_links_a_requirement_to_its_rows() -> None:
    page = trace_page({})
    for machine in MACHINES:
        for row in machine.rows:
            for each in row.traces:
                (line,) = re.findall(rf"^\| {each} \| .*$", page, re.MULTILINE)
                assert f"[{row.id}]({machine.name}.md)" in line
