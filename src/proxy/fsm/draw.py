"""Draw a machine as a Mermaid state diagram that a person reads in five minutes.

The picture carries only ids and identifiers; sentences are in the tables (``proxy.fsm.page``).
What leaves a state is an arrow; what happens while staying, and the activity, stands in the
state's box, as in UML. Rows between the same two states share one arrow. The order is that of
the declarations, so the same table always gives the same text.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TypeVar

from proxy.fsm.kernel import Machine, Row

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(-[A-Za-z0-9]+)?")


def word(text: str) -> str:
    """Return ``text`` if it is an identifier or a row id; Mermaid misreads almost all else.

    A ``;`` in a label, for one, silently makes new states. Raises ``ValueError``.
    """
    if not _WORD.fullmatch(text):
        raise ValueError(f"{text!r} cannot be drawn: it is neither an identifier nor an id")
    return text


def action_name(row: Row[S, D, O]) -> str | None:
    """Return the name of the row's action; None if it has none."""
    return word(getattr(row.action, "__name__", repr(row.action))) if row.action else None


def mermaid(machine: Machine[S, D, O]) -> str:
    """Return the diagram as the text of a Mermaid ``stateDiagram-v2``."""
    lines = ["stateDiagram-v2"]
    for state in machine.states:
        lines += _box(machine, state)
    lines.append(f"[*] --> {word(machine.initial.name)}")
    for (source, target), labels in _arrows(machine).items():
        lines.append(f"{source} --> {target} : {'<br/>'.join(labels)}")
    lines += [f"{word(state.name)} --> [*]" for state in machine.states if state in machine.final]
    return "\n    ".join(lines) + "\n"


def _box(machine: Machine[S, D, O], state: S) -> list[str]:
    name = word(state.name)
    inside = [
        _label(row) for row in machine.rows if state in row.sources and row.target is None
    ]
    activity = machine.activity(state)
    if activity:
        inside.insert(0, f"do / {word(activity)}")
    return [f'state "{name}" as {name}', *(f"{name} : {line}" for line in inside)]


def _arrows(machine: Machine[S, D, O]) -> dict[tuple[str, str], list[str]]:
    arrows: dict[tuple[str, str], list[str]] = {}
    for row in machine.rows:
        for source in row.sources if row.target else ():
            ends = word(source.name), word(row.target.name)
            arrows.setdefault(ends, []).append(_label(row))
    return arrows


def _label(row: Row[S, D, O]) -> str:
    action = action_name(row)
    return f"{word(row.id)} {word(row.on.__name__)}" + (f" / {action}" if action else "")
