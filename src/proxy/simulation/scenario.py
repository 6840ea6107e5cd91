"""A scenario is a list of incidents, drawn before the run: what ITH orders, and what goes wrong.

The list is all that a seed decides about the faults, so a failure shrinks by leaving incidents out.
Few kinds of faults occur in one world, and those often: a fault that is always on hides others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from random import Random
from typing import TypeAlias

import msgspec

from proxy.reporting.reports import Detail
from proxy.runtime.marks import Mark
from proxy.simulation.internet import Manner
from proxy.simulation.misbehaviour import Kind, Misbehaviour

NODES = ("a", "b", "c")
SESSIONS = 6
"""So many sessions are at ITH, of half as many subjects; each has two scans."""

BUSY_S = 300.0
"""ITH orders, and faults begin, within as long."""


class EntityLevel(StrEnum):
    """What is ordered or deleted of a session: its subject, itself, or its first scan."""

    SUBJECT = "subject"
    SESSION = "session"
    SCAN = "scan"


class NodeEdit(StrEnum):
    """How ITH changes a node."""

    REMOVED = "removed"
    MOVED = "moved"
    DISABLED = "disabled"
    ENABLED = "enabled"
    RENAMED = "renamed"


class Blow(StrEnum):
    """What strikes at a mark."""

    CRASH = "The program is killed."
    POWER_LOSS = "The machine loses its power."
    CUT = "Every connection to ITH is reset."
    SWALLOW = "ITH's application dies; its library has what was sent."
    DISK_FULL = "The next writes find no room."


class IncidentBase(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """One thing that happens; ``at`` is in seconds of the world."""

    at: float

    @property
    def until(self) -> float:
        """When it is over."""
        return self.at


class OrderSent(IncidentBase, frozen=True, kw_only=True):
    """ITH orders; ``copies`` more of the same message follow, each ``gap`` seconds later."""

    number: int
    level: EntityLevel
    session: int
    nodes: tuple[str, ...]
    priority: str = "normal"
    copies: int = 0
    gap: float = 0.0


class Deletion(IncidentBase, frozen=True, kw_only=True):
    """ITH deletes; what it deleted is not ordered again."""

    level: EntityLevel
    session: int


class Activation(IncidentBase, frozen=True, kw_only=True):
    """ITH pauses the proxy for a time."""

    seconds: float

    @property
    def until(self) -> float:
        """When it is active again."""
        return self.at + self.seconds


class NodeChange(IncidentBase, frozen=True, kw_only=True):
    """ITH changes a node; REST shows it ``lag`` seconds later."""

    node: str
    change: NodeEdit
    lag: float = 0.0


class Trouble(IncidentBase, frozen=True, kw_only=True):
    """A node misbehaves."""

    node: str
    misbehaviour: Misbehaviour


class Outage(IncidentBase, frozen=True, kw_only=True):
    """A node, or the way to ITH, is away; ``of`` is ``ith`` or a node's id."""

    of: str
    seconds: float
    manner: Manner

    @property
    def until(self) -> float:
        """When it is back."""
        return self.at + self.seconds


class PartialOutage(IncidentBase, frozen=True, kw_only=True):
    """Half of ITH is away: REST answers with ``status``, 0 for never; or no link is accepted."""

    rest: bool
    seconds: float
    status: int

    @property
    def until(self) -> float:
        """When it is back."""
        return self.at + self.seconds


class Flapping(IncidentBase, frozen=True, kw_only=True):
    """ITH resets each link half a second after it came."""

    seconds: float

    @property
    def until(self) -> float:
        """When links last again."""
        return self.at + self.seconds


class Cut(IncidentBase, frozen=True, kw_only=True):
    """Every connection to a destination is reset."""

    to: str


class Snagged(IncidentBase, frozen=True, kw_only=True):
    """The next connection to a destination is cut, or freezes, after so many bytes."""

    to: str
    after: int
    inward: bool
    cuts: bool
    seconds: float = 120.0

    @property
    def until(self) -> float:
        """When what froze goes on."""
        return self.at + self.seconds


class BadAnswer(IncidentBase, frozen=True, kw_only=True):
    """The next answers of REST go wrong; ``about`` is configuration or download."""

    about: str
    times: int
    status: int = 0
    cut_after: int = -1
    stall_after: int = -1
    flip_at: int = -1


class DeadApplication(IncidentBase, frozen=True, kw_only=True):
    """ITH's application dies; its library goes on answering pings until the link is reset."""

    seconds: float

    @property
    def until(self) -> float:
        """When a new application is there."""
        return self.at + self.seconds


class DiskTrouble(IncidentBase, frozen=True, kw_only=True):
    """Writes fail from the ``nth`` on, ``times`` of them, in the ledger or elsewhere."""

    ledger: bool
    full: bool
    nth: int
    times: int
    seconds: float

    @property
    def until(self) -> float:
        """When the disk is sound again."""
        return self.at + self.seconds


class Crash(IncidentBase, frozen=True, kw_only=True):
    """The program is killed, or the machine loses its power; it is back after ``seconds``."""

    power: bool
    seconds: float

    @property
    def until(self) -> float:
        """When it is back."""
        return self.at + self.seconds


class Stop(IncidentBase, frozen=True, kw_only=True):
    """The program is told to stop, once or twice, and is started again."""

    twice: bool


class OperatorPause(IncidentBase, frozen=True, kw_only=True):
    """The operator pauses the proxy for a time."""

    seconds: float

    @property
    def until(self) -> float:
        """When the operator lets it go on."""
        return self.at + self.seconds


class ClockStep(IncidentBase, frozen=True, kw_only=True):
    """The wall clock is set."""

    seconds: float


class Rush(IncidentBase, frozen=True, kw_only=True):
    """ITH orders ``count`` times urgently for a node, and its downloads take ``delay`` seconds.

    The first ``AT_ONCE`` of the orders come together, the others each ``gap`` seconds later. After
    the first, an order with low priority comes for the same node.
    """

    node: str
    count: int
    gap: float
    delay: float

    @property
    def until(self) -> float:
        """When the last order came."""
        return self.at + self.count * self.gap


class Corruption(IncidentBase, frozen=True, kw_only=True):
    """An object at rest is damaged."""


class Strike(IncidentBase, frozen=True, kw_only=True):
    """A fault aimed at the ``nth`` time that a mark is reached, from ``at`` on."""

    mark: str
    nth: int
    blow: Blow


Incident: TypeAlias = (
    OrderSent
    | Deletion
    | Activation
    | NodeChange
    | Trouble
    | Outage
    | PartialOutage
    | Flapping
    | Cut
    | Snagged
    | BadAnswer
    | DeadApplication
    | DiskTrouble
    | Crash
    | Stop
    | OperatorPause
    | ClockStep
    | Rush
    | Corruption
    | Strike
)

WISHES = (OrderSent, Rush, Deletion, Activation, NodeChange)
"""The incidents that ITH wants; the others are faults."""

FLOWING = (OrderSent, Rush, Trouble, ClockStep, Corruption)
CALM = (*FLOWING, Deletion, Activation, DeadApplication)


class Scenario(msgspec.Struct, frozen=True):
    """What happens in a world, by time. ``ahead`` is the wall clock's start; it may be wrong."""

    seed: int
    ahead: float
    associations: int
    detail: Detail
    incidents: tuple[Incident, ...]

    @property
    def healed_at(self) -> float:
        """When the last fault is over."""
        return max([BUSY_S, *(incident.until for incident in self.incidents)]) + 1.0

    @property
    def is_calm(self) -> bool:
        """Whether whatever ITH sends arrives, and is understood at once."""
        return all(isinstance(each, CALM) for each in self.incidents)

    @property
    def is_flowing(self) -> bool:
        """Whether nothing keeps the program from downloading."""
        return all(isinstance(each, FLOWING) for each in self.incidents)

    @property
    def is_long(self) -> bool:
        """Whether it takes more than an hour: signs of life are slower there, to save time."""
        return self.healed_at > 3600.0

    @property
    def orders(self) -> tuple[OrderSent, ...]:
        """The orders."""
        return tuple(each for each in self.incidents if isinstance(each, OrderSent))

    @property
    def wanted(self) -> set[tuple[EntityLevel, int]]:
        """What the orders are for."""
        return {(each.level, each.session) for each in self.orders}

    def only(self, kept: Sequence[Incident]) -> Scenario:
        """Return the scenario with some of its incidents alone."""
        return msgspec.structs.replace(self, incidents=tuple(kept))


NOON = 1_800_000_000.0
YEAR_S = 365.25 * 24 * 3600.0
LONG_ONE_IN = 100
"""One world in so many has an outage of more than an hour."""
RUSH_ONE_IN = 25
"""One world in so many has a rush: it takes the time of several."""
IN_A_RUSH = 1000
"""The number of the first order in a rush."""
AT_ONCE = 8
"""So many urgent orders occupy every place at which ITH is asked for a download."""

Drawing: TypeAlias = Callable[[Random], Sequence[Incident]]


def draw(seed: int) -> Scenario:
    """Draw the scenario of a seed: three to eight orders, and a few kinds of faults."""
    rng = Random(f"scenario {seed}")
    incidents: list[Incident] = [_order(rng, number) for number in range(rng.randint(3, 8))]
    for kind in rng.sample(KINDS, rng.choice([0, 1, 1, 2, 2, 3])):
        for _ in range(rng.choice([1, 2, 4])):
            incidents += kind(rng)
    if rng.randrange(LONG_ONE_IN) == 0:
        incidents.append(_outage(rng, 10 ** rng.uniform(3.6, 5.0)))
    if rng.randrange(RUSH_ONE_IN) == 0:
        incidents.append(_rush(rng))
    ahead = NOON + rng.choice([0.0, 0.0, 0.0, -20 * YEAR_S, YEAR_S])
    return Scenario(
        seed=seed,
        ahead=ahead,
        associations=rng.choice([1, 2, 2, 4]),
        detail=rng.choice(["both", "both", "per-node", "aggregate"]),
        incidents=tuple(sorted(incidents, key=lambda incident: incident.at)),
    )


def _order(rng: Random, number: int) -> OrderSent:
    copies = rng.choice([0, 0, 0, 1, 2])
    return OrderSent(
        at=rng.choice([0.0, *[rng.uniform(0, BUSY_S / 2)] * 3]) if number else 0.0,
        number=number,
        level=rng.choice([*EntityLevel, EntityLevel.SESSION]),
        session=rng.randrange(SESSIONS),
        nodes=tuple(sorted(rng.sample(NODES, rng.choice([1, 1, 2, 3])))),
        priority=rng.choice(["low", "normal", "normal", "high", "urgent"]),
        copies=copies,
        gap=rng.choice([0.0, 0.1, 30.0]) if copies else 0.0,
    )


def _rush(rng: Random) -> Rush:
    at, node = rng.uniform(0, BUSY_S / 2), rng.choice(NODES)
    return Rush(at=at, node=node, count=60, gap=2.2, delay=10.0)


def _deletions(rng: Random) -> Sequence[Incident]:
    level = rng.choice([*EntityLevel])
    return [Deletion(at=rng.uniform(1, BUSY_S), level=level, session=rng.randrange(SESSIONS))]


def _activations(rng: Random) -> Sequence[Incident]:
    return [Activation(at=rng.uniform(0, BUSY_S), seconds=10 ** rng.uniform(0, 2.5))]


def _node_changes(rng: Random) -> Sequence[Incident]:
    node, change = rng.choice(NODES), rng.choice([*NodeEdit])
    at, lag = rng.uniform(1, BUSY_S), rng.choice([0.0, 0.0, 2.0, 40.0])
    return [NodeChange(at=at, node=node, change=change, lag=lag)]


def _troubles(rng: Random) -> Sequence[Incident]:
    often = [*[Kind.STORE_STATUS] * 8, *[Kind.FLOOD] * 3]
    node, kind = rng.choice(NODES), rng.choice([*Kind, *often])
    is_flood = kind is Kind.FLOOD  # it goes on for as long as the program listens, as a rule
    misbehaviour = Misbehaviour(
        kind=kind,
        times=rng.choice([1, 1, 2, 5, 20]),
        skip=rng.choice([0, 0, 1, 5]),
        code=rng.choice(CODES_OF.get(kind, (0,))),
        after=rng.choice([0, 0, 0, 100_000] if is_flood else [0, 1, 7, 300, 900]),
        seconds=10 ** (rng.uniform(-3, 0) if is_flood else rng.uniform(-1, 2)),
    )
    at = rng.choice([0.0, rng.uniform(0, BUSY_S / 2)])
    return [Trouble(at=at, node=node, misbehaviour=misbehaviour)]


def _outages(rng: Random) -> Sequence[Incident]:
    outage = _outage(rng, 10 ** rng.uniform(0, 3))
    # Many last from the beginning, so that orders come while the outage is known.
    return [outage if rng.random() < 0.5 else msgspec.structs.replace(outage, at=0.0)]


def _outage(rng: Random, seconds: float) -> Outage:
    of = rng.choice(["ith", *NODES])
    manner = rng.choice([*Manner] if of == "ith" else [Manner.REFUSED, Manner.SILENT])
    return Outage(at=rng.uniform(0, BUSY_S), of=of, seconds=seconds, manner=manner)


def _partial_outages(rng: Random) -> Sequence[Incident]:
    rest = rng.random() < 0.5
    status = rng.choice([0, 500, 502, 503, 429]) if rest else rng.choice([0, 401, 403, 503, 4003])
    at, seconds = rng.uniform(0, BUSY_S), 10 ** rng.uniform(0, 2.7)
    return [PartialOutage(at=at, rest=rest, seconds=seconds, status=status)]


def _flapping(rng: Random) -> Sequence[Incident]:
    return [Flapping(at=rng.uniform(0, BUSY_S), seconds=10 ** rng.uniform(1, 2.5))]


def _cuts(rng: Random) -> Sequence[Incident]:
    return [Cut(at=rng.uniform(0, BUSY_S), to=rng.choice(["ith", "ith", *NODES]))]


def _snags(rng: Random) -> Sequence[Incident]:
    return [
        Snagged(
            at=rng.uniform(0, BUSY_S),
            to=rng.choice(["ith", *NODES]),
            after=int(10 ** rng.uniform(0, 4.3)),
            inward=rng.random() < 0.5,
            cuts=rng.random() < 0.7,
        )
    ]


def _bad_answers(rng: Random) -> Sequence[Incident]:
    at, about = rng.uniform(0, BUSY_S), rng.choice(["configuration", "download", "download"])
    times, where = rng.choice([1, 1, 2, 6]), int(10 ** rng.uniform(0, 3.5))
    match rng.choice(["status", "cut", "stall", "flip"]):
        case "status":
            status = rng.choice([401, 404, 408, 429, 500, 503])
            return [BadAnswer(at=at, about=about, times=times, status=status)]
        case "cut":
            return [BadAnswer(at=at, about=about, times=times, cut_after=where)]
        case "stall":
            return [BadAnswer(at=at, about=about, times=1, stall_after=where)]
        case _:
            return [BadAnswer(at=at, about=about, times=times, flip_at=where)]


def _dead_applications(rng: Random) -> Sequence[Incident]:
    return [DeadApplication(at=rng.uniform(0, BUSY_S), seconds=10 ** rng.uniform(0, 2))]


def _disk_troubles(rng: Random) -> Sequence[Incident]:
    return [
        DiskTrouble(
            at=rng.uniform(0, BUSY_S),
            ledger=rng.random() < 0.5,
            full=rng.random() < 0.5,
            nth=rng.choice([0, 1, 5, 20]),
            times=rng.choice([1, 1, 3, 1_000_000]),
            seconds=10 ** rng.uniform(0, 2.5),
        )
    ]


def _crashes(rng: Random) -> Sequence[Incident]:
    at, power = rng.uniform(0, BUSY_S), rng.random() < 0.5
    return [Crash(at=at, power=power, seconds=10 ** rng.uniform(0, 2))]


def _stops(rng: Random) -> Sequence[Incident]:
    return [Stop(at=rng.uniform(0, BUSY_S / 2), twice=rng.random() < 0.5)]


def _operator_pauses(rng: Random) -> Sequence[Incident]:
    return [OperatorPause(at=rng.uniform(0, BUSY_S / 2), seconds=10 ** rng.uniform(0, 2.5))]


def _clock_steps(rng: Random) -> Sequence[Incident]:
    step = rng.choice([-1, 1]) * rng.choice([1.0, 3600.0, YEAR_S, 20 * YEAR_S])
    return [ClockStep(at=rng.uniform(0, BUSY_S), seconds=step)]


def _corruptions(rng: Random) -> Sequence[Incident]:
    return [Corruption(at=rng.uniform(0, BUSY_S))]


def _decays(rng: Random) -> Sequence[Incident]:
    """Damage objects; of half of them while a node is away, so that they are still to be sent."""
    if rng.random() < 0.5:
        return _corruptions(rng)
    seconds = rng.uniform(2, 20)
    return [
        Outage(at=0.0, of=rng.choice(NODES), seconds=seconds, manner=Manner.REFUSED),
        *(Corruption(at=rng.uniform(1, seconds)) for _ in range(2)),
    ]


def _strikes(rng: Random) -> Sequence[Incident]:
    mark, blow = rng.choice([*Mark]), rng.choice([*Blow])
    if rng.random() < 0.5:
        mark, blow = rng.choice(HAND_OVERS)
    return [
        Strike(
            at=rng.choice([0.0, rng.uniform(0, BUSY_S)]),
            mark=mark.name,
            nth=rng.choice([0, 0, 1, 3, 10]),
            blow=blow,
        )
    ]


HAND_OVERS = (
    (Mark.REPORT_SENT, Blow.CUT),
    (Mark.REPORT_SENT, Blow.SWALLOW),
    (Mark.COMMIT_DONE, Blow.POWER_LOSS),
    (Mark.INSTANCE_SENT, Blow.CRASH),
    (Mark.INSTANCE_ANSWERED, Blow.POWER_LOSS),
    (Mark.DELIVERY_OVER, Blow.CRASH),
    (Mark.CONTENT_KEPT, Blow.POWER_LOSS),
    (Mark.ROWS_DELETED, Blow.CRASH),
)
"""The moments at which something passes from one to another: half of the blows fall there."""

KINDS: tuple[Drawing, ...] = (
    _deletions,
    _activations,
    _node_changes,
    _troubles,
    _troubles,
    _troubles,
    _outages,
    _outages,
    _partial_outages,
    _flapping,
    _cuts,
    _snags,
    _bad_answers,
    _dead_applications,
    _disk_troubles,
    _crashes,
    _stops,
    _operator_pauses,
    _clock_steps,
    _decays,
    _strikes,
    _strikes,
)

CODES_OF: dict[Kind, tuple[int, ...]] = {
    Kind.REJECT: (0x010101, 0x010103, 0x010107, 0x020301, 0x020302, 0x010303),
    Kind.ONE_ASSOCIATION: (0x020302, 0x010101, 0x020301),
    Kind.ASSOCIATION_ABORTED: (0x0000, 0x0200, 0x0206),
    Kind.ACCEPTED_THEN_ABORTED: (0x0000, 0x0200),
    Kind.CONTEXTS_REFUSED: (1, 3, 4),
    Kind.CLASS_REFUSED: (0, 1),
    Kind.PDU_LIMIT: (0, 128, 1024, 65536),
    Kind.ECHO_STATUS: (0x0122, 0x0110, 0x0211),
    Kind.STORE_STATUS: (
        *(0xA700, 0xA900, 0xC000, 0x0110, 0x0111, 0x0122, 0x0213, 0xB000, 0xB007),
        *(0xC000, 0xC000, 0xB000, 0xB000),
    ),
    Kind.EARLY_STATUS: (0x0000, 0xA700, 0xC000),
    Kind.GARBAGE: (0, 1, 2, 3),
    Kind.FLOOD: (0, 1, 2, 3, 4),
    Kind.FIND_STATUS: (0xA700, 0xC000, 0x0122),
}
"""The codes that a kind of misbehaviour draws from, where it has some."""
