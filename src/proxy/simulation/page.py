"""The page of one world: the verdict, the incidents, and what happened, in lanes.

It is one HTML file that needs nothing else, no script either. Signs of life are folded, and so is
what happened long before a violation; quiet time is written as its length. It holds no patient
data: of a UID the last digits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from itertools import groupby
from typing import TypeAlias

import msgspec

from proxy.simulation.history import FAULT, ITH_LANE, LEDGER, PROXY, RESET, TAIL, Moment, tail
from proxy.simulation.scenario import NODES, NOON, Incident, Scenario
from proxy.simulation.words import duration, in_words
from proxy.simulation.world import Result

LANES = (ITH_LANE, PROXY, LEDGER, *NODES)
VIOLATION = "violation"
TITLES = {ITH_LANE: "ITH", PROXY: "proxy", LEDGER: "ledger, files"}
UID = re.compile(r"\d+(?:\.\d+){5,}")
ORDER = re.compile(r"corr_(\d+)")

QUIET_S = 1.0
"""A longer time in which nothing happens is written."""
LATE_S = 0.5
"""A message that takes longer says so."""
FOLDED_FROM = 4
"""So many signs of life in a row are folded."""
BEFORE, AFTER = 150, 40
"""So many lines before and after a violation are not folded."""
PLAIN = 400
"""Nor are those of a history that has not more."""
COUNTED = tuple(
    (kind, re.compile(says))
    for kind, says in (
        ("C-STORE", r"proxy>\w+ C-STORE"),
        ("C-FIND", r"proxy>\w+ C-FIND"),
        ("C-ECHO", r"proxy>\w+ C-ECHO"),
        ("report", rf"proxy>ITH \d{{{TAIL}}} "),
        ("download", r"proxy>ITH GET \w+ "),
        ("change of state", r"proxy> "),
        ("commit", r"ledger> commit"),
        ("heartbeat", r"proxy>ITH proxy.heartbeat"),
        ("health update", r"proxy>ITH health_update"),
        ("ping", r"\w+>\w+ (WebSocket )?ping"),
    )
)
"""What is counted of folded moments, by their lanes and text."""


@dataclass
class Fold:
    """Moments that are shown on request."""

    summary: str
    entries: list[PageEntry]


PageEntry: TypeAlias = Moment | Fold


@dataclass
class _Place:
    """Where the diagram is: the last time that was written, and the orders it is about."""

    orders: frozenset[str]
    violations: int = 0
    at: float = 0.0
    written: str = field(default="")


def page(result: Result, *, drawn: Scenario | None = None, runs: int = 0) -> str:
    """Return the page of a world that was run with its history.

    If its scenario was shrunk, ``drawn`` is what the seed drew, and ``runs`` how many it took.
    """
    scenario = result.scenario
    title = f"World of seed {scenario.seed}"
    body = "\n".join(
        (
            *_head(result, title),
            *_incidents(scenario, drawn, runs),
            *_diagram(result),
            "<h2>The scenario as JSON</h2>",
            f"<details><summary>show</summary><pre>{_json(scenario)}</pre></details>",
        )
    )
    style = resources.files("proxy.simulation").joinpath("page.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n"
        "</main>\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    """Make text safe for HTML, with tails in place of UIDs."""
    return escape(UID.sub(lambda uid: f"…{tail(uid[0])}", text))


def _json(scenario: Scenario) -> str:
    return escape(msgspec.json.format(msgspec.json.encode(scenario), indent=1).decode())


# The head ----------------------------------------------------------------------------------------


def _head(result: Result, title: str) -> Iterator[str]:
    violations = result.violations
    kind, words = "good", "nothing is wrong"
    if violations:
        kind = "bad"
        words = "1 violation" if len(violations) == 1 else f"{len(violations)} violations"
    yield f'<h1>{title}</h1> <span class="verdict {kind}">{words}</span>'
    yield '<ol class="violations">'
    for number, violation in enumerate(violations, 1):
        yield (
            f'<li class="violation"><a href="#violation-{number}"><pre>{_text(violation)}</pre>'
            "</a></li>"
        )
    yield "</ol>"
    scenario = result.scenario
    ahead = scenario.ahead - NOON
    clock = "right"
    if ahead:
        clock = f"{duration(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}"
    endings = ", ".join(f"{count} {word}" for word, count in sorted(result.endings.items()))
    yield '<table class="facts">'
    for name, value in (
        ("replay", f"<code>ith-proxy sim --seed {scenario.seed}</code>"),
        ("world", f"{result.seconds:,.0f} s, {result.steps:,} steps of tasks"),
        ("associations per node", str(scenario.associations)),
        ("reports", f"{scenario.detail}; ended: {endings or 'none'}"),
        ("wall clock at the start", clock),
        ("trace", f"<code>{result.trace}</code>"),
    ):
        yield f"<tr><th>{name}</th><td>{value}</td></tr>"
    yield "</table>"


def _incidents(scenario: Scenario, drawn: Scenario | None, runs: int) -> Iterator[str]:
    yield "<h2>Incidents</h2>"
    if drawn is not None:
        yield (
            f"<p>{len(scenario.incidents)} of {len(drawn.incidents)} are enough for this "
            f"violation, as {runs} runs have shown.</p>"
        )
    yield from _table(scenario.incidents)
    if drawn is not None:
        yield f"<details><summary>all {len(drawn.incidents)} of the seed</summary>"
        yield from _table(drawn.incidents)
        yield "</details>"


def _table(incidents: Iterable[Incident]) -> Iterator[str]:
    yield "<table>"
    for incident in incidents:
        yield (
            f'<tr><td class="number">{incident.at:,.3f} s</td>'
            f"<td>{_text(in_words(incident))}</td></tr>"
        )
    yield "</table>"


# What is shown -----------------------------------------------------------------------------------


def entries(result: Result) -> list[PageEntry]:
    """Return what the diagram shows, by time: moments, and folded ones."""
    extra = [*_violations(result.violations), *_ends(result)]
    moments = sorted([*result.history, *extra], key=lambda moment: moment.at)
    folded = _fold_routine(moments)
    if len(folded) <= PLAIN:
        return folded
    near: set[int] = set()
    for number, entry in enumerate(folded):
        if isinstance(entry, Moment) and entry.lane == VIOLATION:
            near.update(range(number - BEFORE, number + AFTER))
    return [*_fold_far(folded, near)]


def _violations(violations: Iterable[str]) -> Iterator[Moment]:
    for violation in violations:
        at, _, sentence = violation.partition(" s: ")
        yield Moment(float(at), VIOLATION, sentence)


def _ends(result: Result) -> Iterator[Moment]:
    """Say when what lasts is over."""
    for incident in result.scenario.incidents:
        if incident.at < incident.until <= result.seconds:
            yield Moment(incident.until, FAULT, f"over: {in_words(incident)}")


def _fold_routine(moments: Iterable[Moment]) -> list[PageEntry]:
    found: list[PageEntry] = []
    for is_routine, group in groupby(moments, key=_is_routine):
        members: list[PageEntry] = [*group]
        if is_routine and len(members) >= FOLDED_FROM:
            found.append(Fold(f"signs of life: {_counted(members)}", members))
        else:
            found += members
    return found


def _is_routine(moment: Moment) -> bool:
    return moment.is_routine and not moment.is_lost


def _fold_far(found: Sequence[PageEntry], near: set[int]) -> Iterator[PageEntry]:
    """Fold what is far from a violation between two incidents."""
    stays = [number in near or _is_mark(entry) for number, entry in enumerate(found)]
    numbers = range(len(found))
    for is_shown, group in groupby(numbers, key=stays.__getitem__):
        members = [found[number] for number in group]
        if is_shown or len(members) < FOLDED_FROM:
            yield from members
        else:
            yield Fold(_counted(members), members)


def _is_mark(entry: PageEntry) -> bool:
    """Whether something goes across all lanes: faults, violations, and what ITH wants."""
    return isinstance(entry, Moment) and (
        entry.lane in {FAULT, VIOLATION}
        or (entry.lane == ITH_LANE and not entry.to and not entry.text.startswith(RESET))
    )


def _counted(members: Iterable[PageEntry]) -> str:
    """Count what is folded."""
    counts: Counter[str] = Counter()
    for moment in _flat(members):
        line = f"{moment.lane}>{moment.to} {moment.text}"
        counts[next((kind for kind, says in COUNTED if says.match(line)), "")] += moment.times
    parts = [
        f"{counts[kind]} {_several(kind, counts[kind])}" for kind, _ in COUNTED if counts[kind]
    ]
    return ", ".join([*parts, f"{counts['']} more"] if counts[""] else parts)


def _several(kind: str, count: int) -> str:
    if count == 1 or kind[0].isupper():
        return kind
    first, *others = kind.split(" of ")
    return " of ".join((f"{first}s", *others))


def _flat(members: Iterable[PageEntry]) -> Iterator[Moment]:
    for entry in members:
        if isinstance(entry, Fold):
            yield from _flat(entry.entries)
        else:
            yield entry


# The diagram -------------------------------------------------------------------------------------


def _diagram(result: Result) -> Iterator[str]:
    yield "<h2>What happened</h2>"
    yield (
        '<p class="soft">Time goes down, and not to scale. Blue is the program’s, green the '
        "peers’; ✕ is a message that was lost. A dashed line is one that ITH’s application "
        "never had, or that had not arrived at the end.</p>"
    )
    yield f'<div class="lanes" style="--count:{len(LANES)}">'
    names = "".join(f"<span>{TITLES.get(lane, f'node {lane}')}</span>" for lane in LANES)
    yield f'<div class="names">{names}</div>'
    lines = "".join(f'<i style="--at:{_at(lane)}"></i>' for lane in LANES)
    yield f'<div class="lifelines">{lines}</div>'
    orders = frozenset(tail(each) for text in result.violations for each in ORDER.findall(text))
    yield from _rows(entries(result), _Place(orders))
    yield "</div>"


def _at(lane: str) -> float:
    return LANES.index(lane) + 0.5


def _rows(shown: Iterable[PageEntry], place: _Place) -> Iterator[str]:
    for entry in shown:
        first = next(_flat([entry]))
        if first.at - place.at > QUIET_S:
            yield f'<div class="quiet">{duration(first.at - place.at)}</div>'
        place.at = max(place.at, first.at)
        if isinstance(entry, Fold):
            yield f'<details class="fold"><summary>{_text(entry.summary)}</summary>'
            yield from _rows(entry.entries, place)
            yield "</details>"
        else:
            yield _row(entry, place)
            place.at = max(place.at, entry.until)


def _row(moment: Moment, place: _Place) -> str:
    time = f"{moment.at:,.3f}"
    time, place.written = "" if time == place.written else time, time
    text = _text(moment.text) + (f" × {moment.times}" if moment.times > 1 else "")
    shown_time = f'<span class="time">{time}</span>'
    if moment.lane == VIOLATION:
        place.violations += 1
        return (
            f'<div class="across violation" id="violation-{place.violations}">{shown_time}'
            f"<span>{text}</span></div>"
        )
    if _is_mark(moment):
        kind = "fault" if moment.lane == FAULT else "wish"
        return f'<div class="across {kind}">{shown_time}<span>{text}</span></div>'
    about = " about" if not place.orders.isdisjoint(re.findall(r"\b\d{4}\b", moment.text)) else ""
    drawn = _message(moment, text) if moment.to else _note(moment, text)
    routine = " routine" if moment.is_routine else ""
    return f'<div class="row{about}{routine}">{shown_time}{drawn}</div>'


def _note(moment: Moment, text: str) -> str:
    kind = {PROXY: "state", LEDGER: "kept"}.get(moment.lane, "peer")
    if moment.text.startswith(RESET):
        kind = "broken"
    return f'<em class="{kind}" style="--at:{_at(moment.lane)}">{text}</em>'


def _message(moment: Moment, text: str) -> str:
    begin, end = _at(moment.lane), _at(moment.to)
    peer = end if moment.lane == PROXY else begin
    side = "left" if peer < _at(PROXY) else "right"
    kinds = ["ours" if moment.lane == PROXY else "theirs", "east" if end > begin else "west"]
    if moment.is_lost:
        kinds.append("lost")
        end = (begin + end) / 2
    elif moment.arrived is None or not moment.is_heard:
        kinds.append("open")
    elif moment.arrived - moment.until > LATE_S:
        text += f" (arrives {duration(moment.arrived - moment.until)} later)"
    line = f"--from:{min(begin, end)};--wide:{abs(end - begin)}"
    colour = "lost" if moment.is_lost else kinds[0]
    return (
        f'<u class="{" ".join(kinds)}" style="{line}"></u>'
        f'<b class="{side} {colour}" style="--at:{peer}">{text}</b>'
    )
