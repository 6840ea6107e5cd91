"""Draw a machine as a Mermaid state diagram that a person can read aloud in two minutes.

The picture carries only ids and identifiers. Sentences are in the tables (``proxy.fsm.page``),
except for a machine whose states have numbers for names. A group is a box around its states.
Between two states of one group an arrow runs inside the box; an arrow that leaves or enters a group
ends at the border, and its label names the state (*from*, *to*) unless it is every state of the
group. Rows between the same two ends share one arrow. The activity, and rows that do not leave a
state, are in the state's box, as in UML. Rows of every state of a group are in a note of the group.
Rows of every state that is not final are once in a note. The order is that of the declarations, so
the same table always gives the same text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TypeAlias, TypeVar

from proxy.fsm.kernel import Machine
from proxy.fsm.table import Event, Group, Row, Source, Stay

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output

Arrows: TypeAlias = dict[tuple[str, str], list[str]]
"""The arrows by their two ends, each with its labels."""

_LOOKS = (
    '%%{init: {"themeVariables": {"fontSize": "13px"}, "themeCSS": "'
    "b {color: #0b3d91} b {background: #dbe9ff} i {color: #7a3000} i {background: #ffe8d1} "
    'foreignObject div {max-width: none !important}"}}%%'
)
"""The font lets an id and a long name fit on a line. The colours mark the source of an event, and
have a background of their own because a page may be dark.
"""

LEGEND = (
    "**Bold, on blue**: a request or news from elsewhere, which may come at any time. Plain: a "
    "fact, told by the state's activity or the other end of the wire. *Italic, on orange*: the "
    "state's time limit."
)

EVERYWHERE = "in every state that is not final"
"""The first words of a note."""

IN_ALL_OF = "in every state of"
"""The first words of the note of a group."""

OTHERWISE = "on any of these without an arrow or a line"
"""The first words of the note of a row that yields."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(-[A-Za-z0-9]+)?")
_CAPTION = re.compile(r"[A-Za-z0-9_,.' -]+(: [A-Za-z0-9_,.' -]+)*")


def word(text: str) -> str:
    """Return ``text`` if it is an identifier or a row id; Mermaid misreads almost all else.

    A ``;`` in a label, for one, silently makes new states. Raises ``ValueError``.
    """
    if not _WORD.fullmatch(text):
        raise ValueError(f"{text!r} cannot be drawn: it is neither an identifier nor an id")
    return text


def caption(text: str) -> str:
    """Return a sentence that Mermaid reads as it stands. Raises ``ValueError``."""
    if not _CAPTION.fullmatch(text):
        raise ValueError(f"{text!r} cannot be drawn: it has more than words, commas and colons")
    return text


def action_name(row: Row[S, D, O]) -> str | None:
    """Return the name of the row's action; None if it has none."""
    return word(getattr(row.action, "__name__", repr(row.action))) if row.action else None


def mermaid(machine: Machine[S, D, O]) -> str:
    """Return the diagram as the text of a Mermaid ``stateDiagram-v2``."""
    within, across = arrows(machine)
    lines = [_LOOKS, "stateDiagram-v2"]
    for state in machine.states:
        group = machine.group(state)
        if group is None:
            lines += _box(machine, state)
        elif state is group[0]:
            lines += _group(machine, group, within[group.name])
    lines += _notes(machine)
    lines.append(f"[*] --> {_end(machine, machine.initial)}")
    lines += _drawn(across)
    ends = dict.fromkeys(_end(machine, state) for state in machine.states if state in machine.final)
    lines += [f"{end} --> [*]" for end in ends]
    return "\n".join(lines) + "\n"


def arrows(machine: Machine[S, D, O]) -> tuple[dict[str, Arrows], Arrows]:
    """Return the arrows inside each group, by its name, and those between groups and states."""
    within: dict[str, Arrows] = {group.name: {} for group in machine.groups}
    across: Arrows = {}
    for row in machine.rows:
        if isinstance(row.target, Stay):
            continue
        into = machine.group(row.target)
        for group, sources in _by_group(machine, row):
            where = ""
            if group is None or group is not into:
                where += _from(group, sources) + (f" to {row.target.name}" if into else "")
                place, starts = across, [(group or sources[0]).name]
                end = _end(machine, row.target)
            else:
                place, starts = within[group.name], [source.name for source in sources]
                end = row.target.name
            what = "otherwise" if row.otherwise else _events(row)
            for start in starts:
                label = f"{word(row.id)} {what}{where}"
                place.setdefault((word(start), word(end)), []).append(label)
    return within, across


def _by_group(
    machine: Machine[S, D, O], row: Row[S, D, O]
) -> Iterator[tuple[Group[S] | None, list[S]]]:
    """Yield the states that the row leaves, by their groups; a state of no group by itself."""
    found: dict[str, tuple[Group[S] | None, list[S]]] = {}
    for state in machine.states:
        if state in row.sources and state is not row.target:
            group = machine.group(state)
            found.setdefault(_end(machine, state), (group, []))[1].append(state)
    yield from found.values()


def _end(machine: Machine[S, D, O], state: S) -> str:
    """Return the name of the box at which an arrow of ``state`` ends: its group, or itself."""
    return word((machine.group(state) or state).name)


def _drawn(found: Arrows) -> Iterator[str]:
    for (start, end), labels in found.items():
        yield f"{start} --> {end} : {'<br/>'.join(labels)}"


def _group(machine: Machine[S, D, O], group: Group[S], within: Arrows) -> list[str]:
    name = word(group.name)
    head = f"{name}: {caption(group.doc)}" if machine.captioned else name
    lines = [f'state "{head}" as {name} {{']
    if machine.initial in group:
        lines.append(f"[*] --> {word(machine.initial.name)}")
    lines += [line for state in group for line in _box(machine, state)]
    place = [state.name for state in group]
    ordered = sorted(within, key=lambda ends: place.index(ends[0]))
    return [*lines, *_drawn({ends: within[ends] for ends in ordered}), "}"]


def _box(machine: Machine[S, D, O], state: S) -> list[str]:
    name = word(state.name)
    activity = machine.activity(state)
    group = machine.group(state)
    inside = [caption(str(state.value))] if machine.captioned else []
    inside += [f"do / {word(activity)}"] if activity else []
    inside += [
        _happens(row)
        for row in machine.rows
        if state in row.sources and row.leads_to(state) is state
        if not _is_everywhere(machine, row)
        if not (group and _is_of_all(machine, group, row))
    ]
    return [f'state "{name}" as {name}', *(f"{name} : {line}" for line in inside)]


def _notes(machine: Machine[S, D, O]) -> Iterator[str]:
    everywhere = [row for row in machine.rows if _is_everywhere(machine, row)]
    yield from _note(_end(machine, machine.initial), EVERYWHERE, map(_happens, everywhere))
    for group in machine.groups:
        shared = [row for row in machine.rows if _is_of_all(machine, group, row)]
        yield from _note(word(group.name), f"{IN_ALL_OF} {group.name}", map(_happens, shared))
    for row in machine.rows:
        if row.otherwise and not isinstance(row.target, Stay):
            source = _end(machine, row.sources[0])
            action = action_name(row)
            does = f" / {action}" if action else ""
            head = f"{word(row.id)} otherwise{does} to {row.target.name}"
            yield from _note(source, head, [OTHERWISE, *map(_teller, row.on)])


def _note(beside: str, head: str, lines: Iterable[str]) -> Iterator[str]:
    body = list(lines)
    if body:
        yield from (f"note right of {beside}", head, *body, "end note")


def _is_everywhere(machine: Machine[S, D, O], row: Row[S, D, O]) -> bool:
    """Whether the machine stays where it is on this row, in every state that is not final."""
    return isinstance(row.target, Stay) and {*row.sources} == {*machine.states} - machine.final


def _is_of_all(machine: Machine[S, D, O], group: Group[S], row: Row[S, D, O]) -> bool:
    """Whether the machine stays where it is on this row, in every state of ``group``."""
    stays = isinstance(row.target, Stay) and {*row.sources} >= {*group}
    return stays and not _is_everywhere(machine, row)


def _happens(row: Row[S, D, O]) -> str:
    action = action_name(row)
    return f"{word(row.id)} {_events(row)}" + (f" / {action}" if action else "")


def _events(row: Row[S, D, O]) -> str:
    names = ", ".join(map(_teller, row.on))
    return f"{names} otherwise" if row.otherwise else names


def _teller(event: type[Event]) -> str:
    """Return the event's name in the type style of its source; see ``LEGEND``."""
    name = word(event.__name__)
    if event.source is Source.TIMER:
        return f"<i>{name}</i>"
    return f"<b>{name}</b>" if event.source.any_time else name


def _from(group: Group[S] | None, sources: list[S]) -> str:
    """Name the sources if they are only a part of a group."""
    if group is None or {*sources} == {*group}:
        return ""
    return " from " + " or ".join(word(state.name) for state in sources)
