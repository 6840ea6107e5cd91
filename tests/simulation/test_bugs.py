"""Each planted bug in a small world that shows it; without the bug that world holds.

``scripts/simulate --teeth`` tells whether worlds that are drawn show them too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from proxy.runtime.marks import Mark
from proxy.simulation.bugs import BUGS, Caught, PlantedBug, hunt
from proxy.simulation.internet import Manner
from proxy.simulation.many import simulate
from proxy.simulation.misbehaviour import ALWAYS, Kind, Misbehaviour
from proxy.simulation.scenario import (
    NOON,
    Blow,
    Corruption,
    Crash,
    Deletion,
    EntityLevel,
    Flapping,
    Incident,
    NodeChange,
    NodeEdit,
    OrderSent,
    Outage,
    Rush,
    Scenario,
    Strike,
    Trouble,
)


def world(*incidents: Incident, seed: int = 4) -> Scenario:
    """Return a world whose seed has signs of life as often as by default, and memory weighed."""
    return Scenario(seed, NOON, 1, "per-node", incidents)


def order(number: int, at: float = 1.0, *, nodes: str = "a", session: int = 1) -> OrderSent:
    return OrderSent(
        at=at, number=number, level=EntityLevel.SESSION, session=session, nodes=tuple(nodes)
    )


def trouble(
    kind: Kind, times: int = 1, *, skip: int = 0, code: int = 0, seconds: float = 0.0
) -> Trouble:
    misbehaviour = Misbehaviour(kind, times, skip, code, seconds=seconds)
    return Trouble(at=0.0, node="a", misbehaviour=misbehaviour)


def outage(seconds: float) -> Outage:
    return Outage(at=0.0, of="a", seconds=seconds, manner=Manner.REFUSED)


SLOW = trouble(Kind.LATE, ALWAYS, seconds=5.0)
DISABLED = NodeChange(at=10.0, node="b", change=NodeEdit.DISABLED)
RUSH = Rush(at=1.0, node="a", count=60, gap=2.2, delay=10.0)

SMALL: dict[str, tuple[str, Scenario]] = {  # what is violated, and by which world
    "report before response": (r"\(P3\)", world(trouble(Kind.CLOSED_BEFORE_STORING), order(1))),
    "forgotten fsync": (
        r"\(P1\)|the ledger is damaged",
        world(SLOW, order(1), Crash(at=4.0, power=True, seconds=1.0)),
    ),
    "permanent refusal retried": (
        r"\(P4\)",
        world(trouble(Kind.STORE_STATUS, code=0xC000), order(1)),
    ),
    "back off reset early": (r"\(P8\)", world(Flapping(at=1.0, seconds=300.0), order(1))),
    "warning is failure": (r"\(P1\)", world(trouble(Kind.STORE_STATUS, code=0xB000), order(1))),
    "outbox forgets when sent": (
        r"\(P1\)",
        world(order(1), Strike(at=0.0, mark=Mark.REPORT_SENT.name, nth=0, blow=Blow.SWALLOW)),
    ),
    "pong taken as a receipt": (
        r"\(P1\)",
        world(order(1), Strike(at=0.0, mark=Mark.REPORT_SENT.name, nth=0, blow=Blow.SWALLOW)),
    ),
    "sent twice after a resume": (r"\(P4\)", world(trouble(Kind.CLOSED_IN_DATA, skip=1), order(1))),
    "association leaked": (r"\(P6\)", world(trouble(Kind.STORE_UNANSWERED), order(1))),
    "deletion leaves files": (
        r"\(P13\)",
        world(order(1), Deletion(at=9.0, level=EntityLevel.SESSION, session=1)),
    ),
    "low priority starved": (r"\(P1\)", world(RUSH, seed=8)),
    "attempts counted against a known outage": (
        r"\(P1\)",
        world(outage(100.0), order(1), order(2, 60.0, session=2)),
    ),
    "counts swapped": (
        r"\(P3\)",
        world(order(1), DISABLED, order(2, 20.0, nodes="ab")),
    ),
    "order dropped": (r"\(P1\)", world(order(1), order(2, session=2))),
    "no yield in the receive loop": (
        "without a checkpoint",
        world(trouble(Kind.FLOOD, seconds=0.01), order(1)),
    ),
    "buffer kept after a broken pdu": (
        r"\(P7\)",
        world(trouble(Kind.FLOOD, code=4, seconds=0.01), order(1)),
    ),
    "content not compared": (
        r"\(P3\)",
        world(outage(3.0), order(1, session=4), *[Corruption(at=2.0)] * 4),
    ),
}


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Write no log: most of these worlds fail."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def test_every_bug_has_a_small_world() -> None:
    assert {bug.name for bug in BUGS} == SMALL.keys()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_small_world_shows_the_bug_and_holds_without_it(bug: PlantedBug) -> None:
    wrong, scenario = SMALL[bug.name]
    assert simulate(scenario).violations == []
    with bug.planted():
        violations = simulate(scenario).violations
    assert violations
    assert re.search(wrong, violations[0])


def test_what_breaks_nothing_is_not_caught() -> None:
    harmless = PlantedBug("harmless", "Nothing is replaced.", nullcontext)
    assert hunt(harmless, most=2) == Caught("harmless", None, 2, "")


@pytest.mark.parametrize(
    ("violation", "promise"),
    [("1.000 s: a: no end (P1): why", "P1"), ("2.000 s: c (P13)", "P13"), ("0.000 s: more", "")],
)
def test_a_violation_names_the_promise(violation: str, promise: str) -> None:
    assert Caught("a bug", 1, 1, violation).promise == promise
