"""Write a machine as one Markdown page for a reviewer: the diagram, then every cell of the table.

The page holds no date, no version and no revision: it changes when the machine does and only then.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from proxy.fsm.draw import action_name, mermaid
from proxy.fsm.kernel import Machine
from proxy.fsm.table import Event, Ignore, Row

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output

CONCURRENCY = (
    "One event at a time, run to completion: a step is never split. The activity of a state has "
    "ended, clean-up included, before that of the next one begins."
)


def page(machine: Machine[S, D, O], trace: Mapping[str, Sequence[str]]) -> str:
    """Return the page; ``trace`` names, for the id of a row or ignore, tests that take it."""
    sections = {
        "Diagram": f"```mermaid\n{mermaid(machine)}```\n",
        "States": _states(machine),
        "Time limits": _limits(machine),
        "Events": _events(machine),
        "Transitions": _transitions(machine),
        "Actions": _actions(machine),
        "Every event in every state": _matrix(machine),
        "Ignored on purpose": _ignores(machine),
        "Notes": "".join(f"* {note}\n" for note in (*machine.notes, CONCURRENCY)),
        "Tests": _tests(machine, trace),
    }
    item = type(machine.initial).__module__
    head = (
        f"# {machine.name}\n\n{_flat(machine.purpose)}\n\n"
        f"Software item `{item}`. Written by `ith-proxy statecharts` from the table that the "
        "program runs; not to be edited. How to read it: [README](README.md).\n"
    )
    return head + "".join(f"\n## {title}\n\n{text}" for title, text in sections.items() if text)


def sentence(thing: object) -> str:
    """Return the first paragraph of a class's or function's own docstring, or ``""``."""
    doc = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    return _flat(doc.partition("\n\n")[0])


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; ``""`` if it would have no line."""
    body = ["| " + " | ".join(line) + " |\n" for line in lines]
    if not body:
        return ""
    return "| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|\n" + "".join(body)


def text(prose: str) -> str:
    """Return prose as the text of one table cell."""
    return _flat(prose).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _flat(prose: str) -> str:
    return " ".join(prose.split())


def _code(name: str | None) -> str:
    return f"`{name}`" if name else ""


def _names(states: Iterable[S]) -> str:
    return ", ".join(state.name for state in states)


def _states(machine: Machine[S, D, O]) -> str:
    def mark(state: S) -> str:
        if state in machine.final:
            return "final"
        return "initial" if state is machine.initial else ""

    return table(
        ("State", "", "Meaning", "Activity"),
        (
            (state.name, mark(state), text(str(state.value)), _code(machine.activity(state)))
            for state in machine.states
        ),
    )


def _limits(machine: Machine[S, D, O]) -> str:
    return table(
        ("State", "Limit", "Told when it is over"),
        (
            (stay.state.name, text(stay.limit.doc), _code(stay.limit.event.__name__))
            if stay.limit
            else (stay.state.name, f"none: {text(stay.unlimited or '')}", "")
            for stay in machine.stays
        ),
    )


def _events(machine: Machine[S, D, O]) -> str:
    return table(
        ("Event", "Meaning", "Carries", "Told by"),
        (
            (
                _code(event.__name__),
                text(sentence(event)),
                ", ".join(_code(name) for name in event.__struct_fields__),
                text(event.source.value),
            )
            for event in machine.events
        ),
    )


def _transitions(machine: Machine[S, D, O]) -> str:
    traced = any(row.traces for row in machine.rows)
    head = ("Id", "From", "Event", "Action", "To", "Why", *(("Serves",) if traced else ()))
    return table(
        head,
        (
            (
                row.id,
                _names(row.sources),
                _code(row.on.__name__),
                _code(action_name(row)),
                row.target.name if row.target is not None else "(stays)",
                text(row.doc),
                *((", ".join(row.traces),) if traced else ()),
            )
            for row in machine.rows
        ),
    )


def _actions(machine: Machine[S, D, O]) -> str:
    used: dict[Any, list[str]] = {}
    for row in machine.rows:
        if row.action:
            used.setdefault(row.action, []).append(row.id)
    return table(
        ("Action", "What it does", "In"),
        (
            (_code(action.__name__), text(sentence(action)), ", ".join(ids))
            for action, ids in used.items()
        ),
    )


def _matrix(machine: Machine[S, D, O]) -> str:
    def cell(state: S, event: type[Event]) -> str:
        entry = machine.cells.get((state, event))
        if entry is None:
            return ""
        if isinstance(entry, Ignore):
            return f"ignored<br>{entry.id}"
        if entry.target is None or entry.target is state:
            return entry.id
        return f"→ {entry.target.name}<br>{entry.id}"

    possible = len(machine.states) * len(machine.events)
    return (
        "`→ STATE` and an id: the row is taken and the machine moves. An id alone: the row is "
        "taken and the machine stays. `ignored`: nothing happens, on purpose. Blank: the event "
        "cannot occur there; if it did, the machine would refuse it, stay and report a defect. "
        f"{len(machine.states)} states by {len(machine.events)} events, {possible} cells, "
        f"{len(machine.cells)} of them filled.\n\n"
    ) + table(
        ("Event", *(state.name for state in machine.states)),
        (
            (_code(event.__name__), *(cell(state, event) for state in machine.states))
            for event in machine.events
        ),
    )


def _ignores(machine: Machine[S, D, O]) -> str:
    return table(
        ("Id", "In", "Event", "Why nothing happens"),
        (
            (entry.id, _names(entry.sources), _code(entry.on.__name__), text(entry.doc))
            for entry in machine.ignores
        ),
    )


def _tests(machine: Machine[S, D, O], trace: Mapping[str, Sequence[str]]) -> str:
    def lines(entries: Iterable[Row[S, D, O] | Ignore[S]]) -> Iterable[tuple[str, str]]:
        return (
            (entry.id, "<br>".join(_code(test) for test in trace.get(entry.id, ())) or "none yet")
            for entry in entries
        )

    return (
        "Tests in which a running machine takes the row or ignores the event; at most three are "
        "named. The test run fails if there is none.\n\n"
    ) + table(("Id", "Taken in"), lines(machine.entries))
