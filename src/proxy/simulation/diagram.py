"""The diagram of a world: what happened, in lanes, time going down.

Signs of life are folded, and so is what happened long before a violation or long after. Quiet time
is written as its length. A fold is an element of HTML that opens without a script.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import TypeAlias

from proxy.simulation.history import FAULT, ITH_LANE, LEDGER, PROXY, RESET, TAIL, Moment, tail
from proxy.simulation.scenario import NODES
from proxy.simulation.words import duration, in_words
from proxy.simulation.world import Result

LANES = (ITH_LANE, PROXY, LEDGER, *NODES)
VIOLATION = "violation"
TITLES = {ITH_LANE: "ITH", PROXY: "proxy", LEDGER: "ledger, files"}
UID = re.compile(r"\d+(?:\.\d+){5,}")
ORDER = re.compile(r"corr_(\d+)")
ABOUT = re.compile(rf"(?:(?:delivery|dispatch|\w+\.dispatch) )?(\d{{{TAIL}}})\b")
"""How the text of a moment begins that is about an order."""
LAST_REPORT = re.compile(r": (completed|failed) ")

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
    entries: list[Shown]


Shown: TypeAlias = Moment | Fold


@dataclass
class _Place:
    """Where the drawing is: the violations so far, and the last time, as written too."""

    orders: frozenset[str]
    violations: int = 0
    at: float = 0.0
    written: str = ""


def safe(text: str) -> str:
    """Return text safe for HTML, with tails in place of UIDs."""
    return escape(UID.sub(lambda uid: f"…{tail(uid[0])}", text))


# What is shown -----------------------------------------------------------------------------------


def entries(result: Result) -> list[Shown]:
    """Return what the diagram shows, by time: moments, and folded ones."""
    extra = [*_violations(result), *_ends(result)]
    # A violation tells its time in milliseconds, and comes after what it was seen by.
    moments = sorted([*result.history, *extra], key=lambda moment: round(moment.at, 3))
    folded = _fold_routine(moments)
    if len(folded) <= PLAIN:
        return folded
    near: set[int] = set()
    for number, entry in enumerate(folded):
        if isinstance(entry, Moment) and entry.lane == VIOLATION:
            near.update(range(number - BEFORE, number + AFTER))
    orders = _orders(result)
    for number, entry in enumerate(folded):
        if _is_mark(entry) or (isinstance(entry, Moment) and _explains(entry, orders)):
            near.add(number)
    return [*_fold_others(folded, near)]


def _orders(result: Result) -> frozenset[str]:
    """Return the tails of the orders that the violations name."""
    return frozenset(tail(each) for text in result.violations for each in ORDER.findall(text))


def _is_about(moment: Moment, orders: frozenset[str]) -> bool:
    about = ABOUT.match(moment.text)
    return about is not None and about[1] in orders


def _explains(moment: Moment, orders: frozenset[str]) -> bool:
    """Whether a moment far from a violation is shown: a turn in what the violation is about."""
    is_turn = moment.is_lost or not moment.to or LAST_REPORT.search(moment.text)
    return bool(is_turn) and _is_about(moment, orders)


def _violations(result: Result) -> Iterator[Moment]:
    """Say when something was wrong; a world that was broken off does not know that."""
    for violation in result.violations:
        at, _, sentence = violation.partition(" s: ")
        try:
            yield Moment(float(at), VIOLATION, sentence)
        except ValueError:
            yield Moment(result.seconds, VIOLATION, violation)


def _ends(result: Result) -> Iterator[Moment]:
    """Say when what lasts is over."""
    for incident in result.scenario.incidents:
        if incident.at < incident.until <= result.seconds:
            yield Moment(incident.until, FAULT, f"over: {in_words(incident)}")


def _fold_routine(moments: Iterable[Moment]) -> list[Shown]:
    found: list[Shown] = []
    for is_routine, group in groupby(moments, key=_is_routine):
        members: list[Shown] = [*group]
        if is_routine and len(members) >= FOLDED_FROM:
            found.append(Fold(f"signs of life: {_counted(members)}", members))
        else:
            found += members
    return found


def _is_routine(moment: Moment) -> bool:
    return moment.is_routine and not moment.is_lost


def _fold_others(found: Sequence[Shown], shown: set[int]) -> Iterator[Shown]:
    """Fold what is between those that are shown, by their numbers."""
    for is_shown, group in groupby(range(len(found)), key=shown.__contains__):
        members = [found[number] for number in group]
        if is_shown or len(members) < FOLDED_FROM:
            yield from members
        else:
            yield Fold(_counted(members), members)


def _is_mark(entry: Shown) -> bool:
    """Whether something goes across all lanes: faults, violations, and what ITH wants."""
    return isinstance(entry, Moment) and (
        entry.lane in {FAULT, VIOLATION}
        or (entry.lane == ITH_LANE and not entry.to and not entry.text.startswith(RESET))
    )


def _counted(members: Iterable[Shown]) -> str:
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


def _flat(members: Iterable[Shown]) -> Iterator[Moment]:
    for entry in members:
        if isinstance(entry, Fold):
            yield from _flat(entry.entries)
        else:
            yield entry


# The diagram -------------------------------------------------------------------------------------


def diagram(result: Result) -> Iterator[str]:
    """Yield the diagram as lines of HTML."""
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
    yield from _rows(entries(result), _Place(_orders(result)))
    yield "</div>"


def _at(lane: str) -> float:
    return LANES.index(lane) + 0.5


def _rows(shown: Iterable[Shown], place: _Place) -> Iterator[str]:
    for entry in shown:
        first = next(_flat([entry]))
        if first.at - place.at > QUIET_S:
            yield f'<div class="quiet">{duration(first.at - place.at)}</div>'
        place.at = max(place.at, first.at)
        if isinstance(entry, Fold):
            yield f'<details class="fold"><summary>{safe(entry.summary)}</summary>'
            place.written = ""
            yield from _rows(entry.entries, place)
            place.written = ""
            yield "</details>"
        else:
            yield _row(entry, place)
            place.at = max(place.at, entry.until)


def _row(moment: Moment, place: _Place) -> str:
    time = f"{moment.at:,.3f}"
    time, place.written = "" if time == place.written else time, time
    text = safe(moment.text) + (f" × {moment.times}" if moment.times > 1 else "")
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
    about = " about" if _is_about(moment, place.orders) else ""
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
