"""Incidents in words, for the page and the terminal."""

from __future__ import annotations

import re
from typing import assert_never

from proxy.simulation import scenario as incidents
from proxy.simulation.content import thing
from proxy.simulation.history import tail
from proxy.simulation.internet import ITH, Manner
from proxy.simulation.misbehaviour import ALWAYS, IN_DATA, Kind, Misbehaviour
from proxy.simulation.scenario import (
    YEAR_S,
    BadAnswer,
    DiskTrouble,
    Incident,
    NodeEdit,
    OrderSent,
)

MANY = 1000
WITH_SECONDS = (Kind.STALL, Kind.LATE, Kind.DRIP, Kind.FLOOD)
MANNERS = {
    Manner.REFUSED: "refuses connections",
    Manner.SILENT: "is silent",
    Manner.UNKNOWN: "has a name that cannot be resolved",
}
UNITS = (
    (2 * YEAR_S, YEAR_S, "years"),
    (YEAR_S, YEAR_S, "year"),
    (172_800.0, 86_400.0, "d"),
    (7200.0, 3600.0, "h"),
    (600.0, 60.0, "min"),
)
"""From so many seconds on, a time is written in a unit of so many seconds."""
NODE_EDITS = {
    NodeEdit.REMOVED: "removes",
    NodeEdit.MOVED: "gives another port to",
    NodeEdit.DISABLED: "disables",
    NodeEdit.ENABLED: "enables",
    NodeEdit.RENAMED: "renames",
}


def in_words(incident: Incident) -> str:  # noqa: PLR0911, PLR0912 - one case for each kind
    """Say what happens, without the time at which it begins."""
    match incident:
        case incidents.OrderSent():
            return _order(incident)
        case incidents.Deletion(level=level, session=session):
            return f"ITH deletes {thing(level, session).id}"
        case incidents.Activation(seconds=seconds):
            return f"ITH pauses the proxy for {duration(seconds)}"
        case incidents.NodeChange(node=node, change=change, lag=lag):
            late = f"; REST shows it {duration(lag)} later" if lag else ""
            return f"ITH {NODE_EDITS[change]} node {node}{late}"
        case incidents.Trouble(node=node, misbehaviour=misbehaviour):
            return f"node {node} misbehaves: {_misbehaviour(misbehaviour)}"
        case incidents.Outage(of=of, seconds=seconds, manner=manner):
            return f"{_place(of)} {MANNERS[manner]} for {duration(seconds)}"
        case incidents.PartialOutage(rest=rest, seconds=seconds, status=status):
            what = "REST answers" if rest else "ITH answers requests for a link"
            how = f"with {status}" if status else "nothing"
            return f"{what} {how} for {duration(seconds)}"
        case incidents.Flapping(seconds=seconds):
            return f"for {duration(seconds)} ITH resets each link half a second after it came"
        case incidents.Cut(to=to):
            return f"all connections to {_place(to)} are reset"
        case incidents.Snagged(to=to, after=after, inward=inward, cuts=cuts):
            way = "from" if inward else "to"
            what = "is reset" if cuts else "freezes"
            return f"the next connection to {_place(to)} {what} after {after} bytes {way} it"
        case incidents.BadAnswer():
            return _bad_answer(incident)
        case incidents.DeadApplication(seconds=seconds):
            return f"ITH's application is dead for {duration(seconds)}"
        case incidents.DiskTrouble():
            return _disk_trouble(incident)
        case incidents.Crash(power=power, seconds=seconds):
            what = "the machine loses its power" if power else "the program is killed"
            return f"{what}, for {duration(seconds)}"
        case incidents.Stop(twice=twice):
            return f"the program is told {'twice' if twice else 'once'} to stop"
        case incidents.OperatorPause(seconds=seconds):
            return f"the operator pauses the proxy for {duration(seconds)}"
        case incidents.ClockStep(seconds=seconds):
            way = "ahead" if seconds > 0 else "back"
            return f"the wall clock is set {way} by {duration(abs(seconds))}"
        case incidents.Rush(node=node, count=count):
            return f"ITH orders {count} times urgently at {node}, and once with low priority"
        case incidents.Corruption():
            return "an object at rest is damaged"
        case incidents.Strike(mark=mark, nth=nth, blow=blow):
            return f"at {mark} number {nth + 1}: {_inside(blow.value)}"
        case incidents.Aimed(moment=moment, nth=nth, later=later, there=there):
            wait = f", {duration(later)} later" if later else ""
            where = " (or there)" if there else ""
            return f"at {moment} number {nth + 1}{wait}: {in_words(incident.incident)}{where}"
        case _:
            assert_never(incident)


def spoken(kind: type) -> str:
    """Return the name of a class as words: ``partial outage``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()


def duration(seconds: float) -> str:
    """Write a time so that a person can read it."""
    for least, size, unit in UNITS:
        if seconds >= least:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _inside(sentence: str) -> str:
    """Return a sentence as a part of another."""
    first = sentence[0] if sentence[1].isupper() else sentence[0].lower()
    return f"{first}{sentence[1:]}".rstrip(".")


def _place(to: str) -> str:
    return "ITH" if to == ITH else f"node {to}"


def _order(order: OrderSent) -> str:
    wanted = thing(order.level, order.session)
    number = tail(f"{order.number:04}")
    text = f"ITH orders {wanted.id} at {', '.join(order.nodes)} ({number}, {order.priority})"
    if not order.copies:
        return text
    apart = f", {duration(order.gap)} apart" if order.gap else ""
    return f"{text}, {order.copies + 1} times{apart}"


def _misbehaviour(it: Misbehaviour) -> str:
    words = [it.kind.value.replace("_", " ")]
    if it.code:
        words.append(f"{it.code:04X}")
    if it.kind in IN_DATA:
        words.append(f"after {it.after} bytes")
    if it.kind in WITH_SECONDS:
        words.append(f"by {duration(it.seconds)}")
    text = " ".join(words)
    if it.times != 1:
        text += ", always" if it.times == ALWAYS else f", {it.times} times"
    return text + (f", after {it.skip} good ones" if it.skip else "")


def _bad_answer(it: BadAnswer) -> str:
    text = f"the next answer about a {it.about}"
    if it.times > 1:
        text = f"the next {it.times} answers about {it.about}s"
    if it.status:
        return f"{text}: {it.status}"
    if it.cut_after >= 0:
        return f"{text}: cut after {it.cut_after} bytes"
    if it.stall_after >= 0:
        return f"{text}: silence after {it.stall_after} bytes"
    return f"{text}: byte {it.flip_at} is wrong"


def _disk_trouble(it: DiskTrouble) -> str:
    what = "no room" if it.full else "an error of the disk"
    where = "the ledger" if it.ledger else "content"
    many = "1 write" if it.times == 1 else f"{it.times} writes"
    if it.times > MANY:
        many = "all writes"
    later = f" after {it.nth} more" if it.nth else ""
    return f"{what} for {many} of {where}{later}, for {duration(it.seconds)}"
