"""The status for a person: one screen, the most important first, one fact a line."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import click

from proxy.control.attention import GIVEN_UP
from proxy.control.messages import DeliveryStatus, DispatchStatus, NodeStatus, Status

SHOWN = 8
"""The most nodes and dispatches that are listed; the rest is counted."""

LABEL = 12

UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))

NOT_OBEYED = {
    "foreign": "for others",
    "early": "before the id of this proxy was known",
    "broken": "unreadable",
    "unknown": "of an unknown type",
    "failed": "because of a defect",
}
"""The reasons why events were not acted upon, as the status counts them."""

COLOURS = {
    "active": "green",
    "online": "green",
    "completed": "green",
    "paused": "yellow",
    "draining": "yellow",
    "suspect": "yellow",
    "backing off": "yellow",
    "offline": "red",
    "probing": "red",
    "failed": "red",
    "refused": "red",
    "evicted": "red",
}


def screen(status: Status, width: int) -> Iterator[str]:
    """Yield the lines of the screen, none wider than ``width`` columns."""
    operation, link = status.operation, status.connection
    yield f"ith-proxy {clean(status.version)}"
    yield ""
    since = age(operation.since, status.at)
    yield _row("Operation", f"{_state(operation.state)} for {since}")
    for lock in operation.locks:
        holder = "the operator" if lock.lock == "operator" else "ITH"
        held = f", for {age(lock.since, status.at)}" if lock.since else ""
        yield _row("", _fit(f"by {holder}: {clean(lock.reason)}{held}", width - LABEL))
    online = "" if link.online else ", not online"
    yield _row("Link to ITH", f"{_state(link.state)}{online} for {age(link.since, status.at)}")
    yield _row("Nodes", _counts(status.node_counts))
    yield _row("Dispatches", _counts(status.dispatch_counts))
    yield _row("Reports", f"{status.queued_reports} waiting for ITH")
    yield _row("Disk", f"{status.disk_usage_gb:.1f} GiB")
    if passed_over := _passed_over(status.event_counts):
        yield _row("Not obeyed", _fit(passed_over, width - LABEL))
    yield ""
    yield from _attention(status, width)
    yield from _notes(status, width)
    yield from _nodes(status, width)
    yield from _dispatches(status, width)


def _attention(status: Status, width: int) -> Iterator[str]:
    if not status.attention:
        yield "Nothing needs attention."
        return
    yield click.style("Needs attention", bold=True)
    for note in status.attention:
        first, *more = textwrap.wrap(clean(note.problem), width - 4) or [""]
        yield f"  {click.style('!', fg='red', bold=True)} {first}"
        for line in [*more, *textwrap.wrap(clean(note.hint), width - 4)]:
            yield f"    {line}"


def _notes(status: Status, width: int) -> Iterator[str]:
    if not status.notes:
        return
    yield ""
    yield click.style("Good to know", bold=True)
    for note in status.notes:
        for line in textwrap.wrap(clean(f"{note.fact} {note.meaning}"), width - 2):
            yield f"  {line}"


def _passed_over(counts: Mapping[str, int]) -> str:
    parts = [f"{counts[each]} {why}" for each, why in NOT_OBEYED.items() if each in counts]
    return f"events: {', '.join(parts)}" if parts else ""


def _nodes(status: Status, width: int) -> Iterator[str]:
    if not status.nodes:
        return
    troubled = sorted(status.nodes, key=lambda node: (node.state == "online", node.ae_title))
    shown = troubled[:SHOWN]
    title = max(len(clean(node.ae_title)) for node in shown)
    state = max(len(node.state) for node in shown)
    yield ""
    yield click.style("Nodes", bold=True)
    for node in shown:
        yield _node_line(node, title, state, width)
    yield from _more(len(troubled) - SHOWN)


def _node_line(node: NodeStatus, title: int, state: int, width: int) -> str:
    begin = f"  {clean(node.ae_title):<{title}}  {_state(node.state, state)}  "
    space = width - len(click.unstyle(begin))
    if node.state in GIVEN_UP:  # the error of those is listed above
        return begin.rstrip()
    if node.error:
        return begin + _fit(clean(node.error), space)
    if node.associations is not None:
        return begin + _fit(f"at most {node.associations} at a time: it refused more", space)
    return begin.rstrip()


def _dispatches(status: Status, width: int) -> Iterator[str]:
    if not status.dispatches:
        return
    titles = {node.node_id: clean(node.ae_title) for node in status.nodes}
    yield ""
    yield click.style("Dispatches", bold=True) + ", oldest first"
    shown = status.dispatches[:SHOWN]
    kinds = [f"{each.priority} {each.entity_type}" for each in shown]
    state = max(len(each.state) for each in shown)
    ids = max(len(clean(each.correlation_id)) for each in shown)
    for each, kind in zip(shown, kinds, strict=True):
        yield _fit(
            f"  {clean(each.correlation_id):<{ids}}  {kind:<{max(map(len, kinds))}}  "
            f"{each.state.replace('_', ' '):<{state}}  {_deliveries(each, titles)}",
            width,
        )
    yield from _more(len(status.dispatches) - SHOWN)


def _deliveries(dispatch: DispatchStatus, titles: Mapping[str, str]) -> str:
    parts = []
    for each in dispatch.deliveries:
        title = titles.get(each.node_id, clean(each.node_id))
        parts.append(f"{title} {_files(each)} {each.state.replace('_', ' ')}")
    return ", ".join(parts)


def _files(delivery: DeliveryStatus) -> str:
    return f"{delivery.files_stored}/{delivery.files_total or '?'}"


def _more(count: int) -> Sequence[str]:
    return [f"  and {count} more; all are in: ith-proxy status --json"] if count > 0 else []


def _row(label: str, value: str) -> str:
    return f"{label:<{LABEL}}{value}"


def _state(state: str, width: int = 0) -> str:
    word = state.replace("_", " ")
    return click.style(f"{word:<{width}}", fg=COLOURS.get(word))


def _counts(counts: Mapping[str, int]) -> str:
    parts = [f"{count} {state.replace('_', ' ')}" for state, count in sorted(counts.items())]
    return ", ".join(parts) or "none"


def age(since: datetime, now: datetime) -> str:
    """Return the time between two moments in its largest unit: ``38 min``."""
    seconds = max(0, int((now - since).total_seconds()))
    size, unit = next((each for each in UNITS if seconds >= each[0]), (1, "s"))
    return f"{seconds // size} {unit}"


def counted(count: int, one: str, many: str) -> str:
    """Return a count with its noun."""
    return f"{count} {one if count == 1 else many}"


def clean(text: str) -> str:
    """Return a text without characters that move a terminal's cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _fit(text: str, width: int) -> str:
    return text.rstrip() if len(text) <= width else text[: max(width - 1, 1)] + "…"
