"""Write a machine as one Markdown page for a reviewer: the diagram, then every cell of the table.

The page holds no date, no version and no revision: it changes when the machine does and only then.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any, TypeVar

from proxy.fsm.draw import LEGEND, action_name, mermaid
from proxy.fsm.kernel import WHEN_OVER, Machine
from proxy.fsm.table import Event, Ignore, Row, Stay

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output

CONCURRENCY = (
    "One event at a time, run to completion: a step is never split. The activity of a state has "
    "ended, clean-up included, before that of the next one begins."
)


def page(machine: Machine[S, D, O]) -> str:
    """Return the page."""
    sections = {
        "Diagram": f"```mermaid\n{mermaid(machine)}```\n\n{LEGEND}\n",
        "States": _states(machine),
        "Groups of states": _groups(machine),
        "Events": _events(machine),
        "Transitions": _transitions(machine),
        "Actions": _actions(machine),
        "Every event in every state": _matrix(machine),
        "Ignored on purpose": _ignores(machine),
        "Notes": "".join(f"* {note}\n" for note in _notes(machine)),
    }
    item = type(machine.initial).__module__
    head = (
        f"# {machine.name}\n\n{_flat(machine.purpose)}\n\n"
        f"Software item `{item}`. Written by `ith-proxy statecharts` from the table that the "
        "program runs; not to be edited. Instructions for reading: [README](README.md). "
        "Tests of each row: [trace](trace.md).\n"
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


def names(machine: Machine[S, D, O], states: Iterable[S]) -> str:
    """Name states; a group stands for its own where all of them are among ``states``."""
    left = {*states}
    found = []
    for state in machine.states:
        group = machine.group(state)
        if group and left >= {*group}:
            found.append(group.name)
            left -= {*group}
        elif state in left:
            found.append(state.name)
    return ", ".join(found)


def told(entry: Row[S, D, O] | Ignore[S]) -> str:
    """Name the events of a row or ignore."""
    events = ", ".join(_code(event.__name__) for event in entry.on)
    return f"{events}, otherwise" if isinstance(entry, Row) and entry.otherwise else events


def goes_to(row: Row[S, D, O]) -> str:
    """Name the target of a row."""
    return row.target.value if isinstance(row.target, Stay) else row.target.name


def _states(machine: Machine[S, D, O]) -> str:
    def mark(state: S) -> str:
        if state in machine.final:
            return "final"
        return "initial" if state is machine.initial else ""

    def limit(state: S) -> str:
        found = machine.definition.get(state)
        if found is None:
            return ""
        if found.after is None:
            return f"none: {text(found.untimed or '')}"
        return f"{text(found.after.doc)}: {_code(found.after.event.__name__)}"

    return table(
        ("State", "", "Meaning", "Activity", "Limit, and its event"),
        (
            (
                state.name,
                mark(state),
                text(str(state.value)),
                _code(machine.activity(state)),
                limit(state),
            )
            for state in machine.states
        ),
    )


def _groups(machine: Machine[S, D, O]) -> str:
    return table(
        ("Group", "States", "Common property"),
        (
            (group.name, ", ".join(state.name for state in group), text(group.doc))
            for group in machine.groups
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
                names(machine, row.sources),
                told(row),
                _code(action_name(row)),
                goes_to(row),
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
        ("Action", "Effect", "In"),
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
            return entry.id if entry.id == WHEN_OVER else f"ignored<br>{entry.id}"
        after = entry.leads_to(state)
        return entry.id if after is state else f"→ {after.name}<br>{entry.id}"

    possible = len(machine.states) * len(machine.events)
    return (
        "`→ STATE` and an id: the row is taken and the machine moves. An id alone: the row is "
        "taken and the machine stays. `ignored`: nothing happens, on purpose. `over`: nothing "
        "happens, for the state is final. Blank: the event cannot occur there; if it did, the "
        "machine would refuse it, stay and report a defect. "
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
        ("Id", "In", "Event", "Reason"),
        (
            (entry.id, names(machine, entry.sources), told(entry), text(entry.doc))
            for entry in machine.ignores
        ),
    )


def _notes(machine: Machine[S, D, O]) -> Iterable[str]:
    yield from (*machine.notes, CONCURRENCY)
    if machine.retired:
        ids = ", ".join(f"{former} ({heir})" for former, heir in machine.retired.items())
        yield f"Ids that are not given again, each with the id that took over its cells: {ids}."
