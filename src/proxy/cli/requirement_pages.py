"""The pages of requirements and behaviours, and the trace of both.

``python -m proxy.cli.requirement_pages DIRECTORY`` writes those of ``docs/``, as ``scripts/docs``
does; ``statecharts/trace.md`` is one of the files of ``ith-proxy statecharts``.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from proxy.fsm import Ignore
from proxy.fsm.page import table, text
from proxy.machines import MACHINES
from proxy.machines.changes import CHANGES
from proxy.machines.failures import FAILURES
from proxy.machines.requirements import GROUPS, REQUIREMENTS, SUBJECTS, Chapter, Requirement

WIDTH = 100
"""Characters in a line of prose."""


def documents() -> dict[str, str]:
    """Return the generated files of ``docs/``: name to text."""
    return {"requirements.md": _requirements(), "behaviour.md": _behaviour()}


def trace_page(trace: Mapping[str, Sequence[str]]) -> str:
    """Return ``trace.md``; ``trace`` names, for the id of an entry, tests below ``tests``."""
    sections = {
        "From requirement to row and test": _from_requirements(),
        "From row to requirement and test": _from_rows(trace),
        "From failure and change to requirement": _from_tables(),
        "Planned": _planned(),
    }
    head = "# trace\n\n" + _prose(
        "The matrix of requirements, of the rows and modules that carry them, and of the tests "
        "that show them."
    )
    head += _prose(
        "Software item `proxy.machines.requirements`. Written by `ith-proxy statecharts` from "
        "the tables that the program runs; not to be edited. The sources of the requirements "
        "are named in [requirements](../docs/requirements.md); the details of a behaviour are "
        "in [behaviour](../docs/behaviour.md). Tests are below `tests`. The tests of the "
        "project fail if a row has no requirement, a behaviour has neither a row nor a module, "
        "or a requirement that is not planned has no test."
    )
    return (
        head + "".join(f"## {title}\n\n{body}" for title, body in sections.items()).rstrip() + "\n"
    )


def _prose(paragraph: str) -> str:
    """Return a paragraph, broken into lines; a word that is longer than a line stays in one."""
    lines = textwrap.wrap(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) + "\n\n"


def _code(names: Iterable[str]) -> str:
    return "<br>".join(f"`{name.removeprefix('tests/')}`" for name in names)


def _rows_of(requirement: Requirement) -> Iterator[str]:
    """The rows whose ``traces`` name it, each with a link to the page of its machine."""
    for machine in MACHINES:
        for row in machine.rows:
            if requirement.id in row.traces:
                yield f"[{row.id}]({machine.name}.md)"


def _page_of(entry: str) -> str:
    return "failures.md" if entry.startswith("FLR") else "changes.md"


def _carriers(requirement: Requirement) -> str:
    """Rows, entries of other tables, then modules."""
    entries = (f"[{entry}]({_page_of(entry)})" for entry in requirement.tables)
    lines = (
        ", ".join((*_rows_of(requirement), *entries)),
        ", ".join(f"`{module}`" for module in requirement.carried_by),
    )
    return "<br>".join(line for line in lines if line)


def _from_requirements() -> str:
    parts = []
    for group in (*GROUPS, Chapter("Behaviours", "", _behaviours())):
        lines = table(
            ("Id", "Requirement", "Done by", "Shown by"),
            (
                (each.id, text(each.sentence), _carriers(each), _code(each.tests))
                for each in group.requirements
                if not each.planned
            ),
        )
        parts.append(f"### {group.title}\n\n{lines}\n")
    return "".join(parts)


def _behaviours() -> tuple[Requirement, ...]:
    return tuple(behaviour for subject in SUBJECTS for behaviour in subject.requirements)


def _from_rows(trace: Mapping[str, Sequence[str]]) -> str:
    parts = [
        _prose(
            "An ignored event serves no requirement of its own. At most three tests are named in "
            "which a running machine takes the row or ignores the event, as the last recorded test "
            "run saw it; the test run fails if there is none."
        )
    ]
    for machine in MACHINES:
        lines = table(
            ("Row", "Why", "Serves", "Taken in"),
            (
                (
                    entry.id,
                    text(entry.doc),
                    "" if isinstance(entry, Ignore) else ", ".join(entry.traces) or "none yet",
                    _code(trace.get(entry.id, ())) or "none yet",
                )
                for entry in machine.entries
            ),
        )
        parts.append(f"### [{machine.name}]({machine.name}.md)\n\n{lines}\n")
    return "".join(parts)


def _from_tables() -> str:
    entries = (*(row.id for row in FAILURES), *(change.id for change in CHANGES))
    return (
        table(
            ("Id", "Belongs to"),
            (
                (
                    f"[{entry}]({_page_of(entry)})",
                    ", ".join(each.id for each in REQUIREMENTS if entry in each.tables),
                )
                for entry in entries
            ),
        )
        + "\n"
    )


def _planned() -> str:
    planned = [each for each in REQUIREMENTS if each.planned]
    return _prose("A planned requirement has neither rows nor tests yet.") + table(
        ("Id", "Requirement"), ((each.id, text(each.sentence)) for each in planned)
    )


def _requirements() -> str:
    head = "# Requirements\n\n" + _prose(
        "The numbered requirements of the program. Written from "
        "`src/proxy/machines/requirements.py` by `scripts/docs`; not to be edited. Ids are "
        "permanent: the id of a dropped requirement is not given to another."
    )
    head += _prose(
        "Each sentence is complete without its source. [trace](../statecharts/trace.md) leads "
        "from each requirement to the rows of the state machines and the modules that carry "
        "it, and to the tests that show it. `planned` marks a requirement that is not built "
        "yet. The behaviour in detail is in [behaviour](behaviour.md), and its statements are "
        "requirements too."
    )
    return head + "\n".join(
        f"## {group.title}\n\n{_prose(group.about)}"
        + table(
            ("Id", "Requirement", "Source"),
            (
                (each.id, ("`planned` " if each.planned else "") + text(each.sentence), each.source)
                for each in group.requirements
            ),
        )
        for group in GROUPS
    )


def _behaviour() -> str:
    head = "# Behaviour\n\n" + _prose(
        "The behaviour of the program, in numbered statements. Written from "
        "`src/proxy/machines/behaviours.py` by `scripts/docs`; not to be edited. Numbers are "
        "permanent. The tests that show each statement, and the rows and modules that carry "
        "it, are in [trace](../statecharts/trace.md)."
    )
    return (head + "".join(_subject(subject) for subject in SUBJECTS)).rstrip() + "\n"


def _subject(subject: Chapter) -> str:
    about = _prose(subject.about) if subject.about else ""
    return f"## {subject.title}\n\n{about}" + "".join(
        _prose(f"**{each.id}** {each.sentence} {each.more}") for each in subject.requirements
    )


def main(directory: Path) -> None:
    """Write the pages of ``docs/`` to ``directory``, which must exist."""
    for name, body in documents().items():
        (directory / name).write_bytes(body.encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
