"""A scenario is a list of incidents, drawn before the run: what ITH orders, and what goes wrong.

The list is all that a seed decides about the faults, so a failure shrinks by leaving incidents out.
Few kinds of faults occur in one world, and those often: a fault that is always on hides others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from random import Random
from typing import TypeAlias

import msgspec

from proxy.fsm import ActivityFailed, Event, Source
from proxy.machines import connection, delivery, dispatch, node, operation, upper_layer
from proxy.reporting.reports import Detail
from proxy.runtime.marks import Mark
from proxy.simulation.internet import ITH, Manner
from proxy.simulation.misbehaviour import Kind, Misbehaviour
from proxy.simulation.steering import BUSY, Lead, moments, strikes_for

NODES = ("a", "b", "c")
SESSIONS = 6
"""So many sessions are at ITH, of half as many subjects; each has two scans."""
LONG_SERIES = 6
"""One more session, with a long series; few worlds order it, since it takes time."""

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


class Aimed(IncidentBase, frozen=True, kw_only=True):
    """An incident that happens at a moment, in place of a time.

    The moment is a mark, a state that a machine comes into (``delivery STORING``), or a row of one.
    It counts from ``at`` on, until ``BUSY_S``; the incident follows on the ``nth``, ``later``
    seconds after it. If it is ``there``, it is about the order and the node of the machine.
    """

    moment: str
    nth: int
    later: float
    there: bool
    incident: Incident

    @property
    def until(self) -> float:
        """When it is over at the latest."""
        return max(self.at, BUSY_S) + self.later + self.incident.until - self.incident.at


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
    | Aimed
)


def about(incident: Incident, order: OrderSent | None, place: str) -> Incident:
    """Return an incident that is about an order, and a node or ITH, where it is about such."""
    changes: dict[str, object] = {}
    match incident:
        case OrderSent() if order is not None:
            return msgspec.structs.replace(order, at=incident.at, copies=0, gap=0.0)
        case Deletion() if order is not None:
            changes["session"] = order.session
        case NodeChange() | Trouble() if place in NODES:
            changes["node"] = place
        case Outage() if place:
            changes["of"] = place
        case Cut() | Snagged() if place:
            changes["to"] = place
        case _:
            pass
    return msgspec.structs.replace(incident, **changes)


WISHES = (OrderSent, Rush, Deletion, Activation, NodeChange)
"""The incidents that ITH wants; the others are faults."""

FLOWING = (OrderSent, Rush, Trouble, ClockStep, Corruption)
CALM = (*FLOWING, Deletion, Activation, DeadApplication)


def happens(incident: Incident) -> Incident:
    """Return what happens, whether at a time or at a moment."""
    return incident.incident if isinstance(incident, Aimed) else incident


class Scenario(msgspec.Struct, frozen=True):
    """What happens in a world, by time.

    ``ahead`` is the wall clock's start; it may be wrong. ``drain_seconds`` is the setting. ``aim``
    is the row or mark for which it was drawn, if any.
    """

    seed: int
    ahead: float
    associations: int
    detail: Detail
    incidents: tuple[Incident, ...]
    drain_seconds: float = 20.0
    aim: str = ""

    @property
    def command(self) -> str:
        """The command that runs the world again."""
        return f"ith-proxy sim --seed {self.seed}" + (f" --aim {self.aim}" if self.aim else "")

    @property
    def healed_at(self) -> float:
        """When the last fault is over."""
        return max([BUSY_S, *(incident.until for incident in self.incidents)]) + 1.0

    @property
    def is_calm(self) -> bool:
        """Whether whatever ITH sends arrives, and is understood at once."""
        return all(isinstance(happens(each), CALM) for each in self.incidents)

    @property
    def is_flowing(self) -> bool:
        """Whether nothing keeps the program from downloading."""
        return all(isinstance(happens(each), FLOWING) for each in self.incidents)

    @property
    def is_long(self) -> bool:
        """Whether it takes more than an hour."""
        return self.healed_at > 3600.0

    @property
    def slower(self) -> float:
        """How many times more seldom than by default there are signs of life, to save time."""
        if self.is_long:
            return 20.0
        return 1.0 if self.seed % LIVELY_ONE_IN == 0 else 4.0

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
LIVELY_ONE_IN = 4
"""One world in so many has signs of life as often as by default."""
LONG_ONE_IN = 100
"""One world in so many has an outage of more than an hour."""
RUSH_ONE_IN = 25
"""One world in so many has a rush: it takes the time of several."""
IN_A_RUSH = 1000
"""The number of the first order in a rush."""
AT_ONCE = 8
"""So many urgent orders occupy every place at which ITH is asked for a download."""

LONG_SERIES_ONE_IN = 40
"""One world in so many has the long series."""
LOCAL_LIMIT = 0x020302
CROWDED = ("NOD-15", "NOD-17")
"""The rows that the long series is for."""
SHORT_DRAIN = "OPS-07"
"""The row that a drain of one second is for."""

Drawing: TypeAlias = Callable[[Random], Sequence[Incident]]


def draw(seed: int, aim: str = "") -> Scenario:
    """Draw the scenario of a seed: three to eight orders, and a few kinds of faults.

    With an aim, which is a row or a mark, incidents are added that may lead there.
    """
    rng = Random(f"scenario {seed}")
    orders = [_order(rng, number) for number in range(rng.randint(3, 8))]
    incidents: list[Incident] = [*orders]
    for kind in rng.sample(KINDS, rng.choice([0, 1, 1, 2, 2, 3])):
        for _ in range(rng.choice([1, 2, 4])):
            incidents += kind(rng)
    if rng.randrange(LONG_ONE_IN) == 0:
        incidents.append(_outage(rng, 10 ** rng.uniform(3.6, 5.0)))
    if rng.randrange(RUSH_ONE_IN) == 0:
        incidents.append(_rush(rng))
    ahead = NOON + rng.choice([0.0, 0.0, 0.0, -20 * YEAR_S, YEAR_S])
    associations = rng.choice([1, 2, 2, 4])
    detail: Detail = rng.choice(["both", "both", "per-node", "aggregate"])
    rng = Random(f"moments {seed} {aim}")
    if rng.randrange(LONG_SERIES_ONE_IN) == 0 or aim in CROWDED:
        incidents += _long_series(rng, orders)
        associations = max(associations, 2)
    incidents += _strikes_for(aim, rng, orders) if aim else _meetings(rng, orders)
    return Scenario(
        seed=seed,
        ahead=ahead,
        associations=associations,
        detail=detail,
        incidents=tuple(sorted(incidents, key=lambda incident: incident.at)),
        drain_seconds=1.0 if aim == SHORT_DRAIN else rng.choice([20.0, 20.0, 20.0, 1.0]),
        aim=aim,
    )


def _long_series(rng: Random, orders: Sequence[OrderSent]) -> Sequence[Incident]:
    """Order a long series at a node that has once refused an association for lack of capacity."""
    node = rng.choice(NODES)
    crowd = Misbehaviour(kind=Kind.REJECT, code=LOCAL_LIMIT, skip=rng.choice([0, 1]))
    order = OrderSent(
        at=rng.uniform(1, BUSY_S / 2),
        number=len(orders),
        level=EntityLevel.SCAN,
        session=LONG_SERIES,
        nodes=(node,),
    )
    return [order, Trouble(at=0.0, node=node, misbehaviour=crowd)]


# At a moment ------------------------------------------------------------------------------------


def _meetings(rng: Random, orders: Sequence[OrderSent]) -> Sequence[Incident]:
    """Draw incidents at moments for some of the worlds: half of them where two of them meet."""
    count = rng.choice([0, 0, 0, 1, 2, 3])
    if count and rng.random() < 0.5:
        return [_aimed(rng, orders, *each) for each in rng.choice([*MEETINGS.values()])]
    moment = rng.choice(moments())
    return [_aimed(rng, orders, moment, AT_MOMENTS) for _ in range(count)]


def _strikes_for(aim: str, rng: Random, orders: Sequence[OrderSent]) -> Sequence[Incident]:
    """Draw the incidents that may lead to an aim; in some of the worlds a node is slow."""
    slow = [_slow(rng, rng.choice(orders))] if rng.random() < 0.5 else []
    known = next((meeting for aims, meeting in MEETINGS.items() if aim in aims), ())
    if known and rng.random() < 0.5:
        return [*slow, *(_aimed(rng, orders, *each) for each in known)]
    return [*slow, *(_lead(rng, orders, lead) for lead in strikes_for(aim, rng))]


def _slow(rng: Random, order: OrderSent) -> Incident:
    """Let a node answer late, so that there is time for something else meanwhile."""
    slow = Misbehaviour(
        kind=Kind.LATE, times=rng.choice([2, 5, 20]), skip=rng.choice([0, 1, 5]), seconds=2.0
    )
    return Trouble(at=0.0, node=rng.choice(order.nodes), misbehaviour=slow)


def _lead(rng: Random, orders: Sequence[OrderSent], lead: Lead) -> Incident:
    """Draw an incident that may tell the event which is wanted at a moment, or any other."""
    wanted: Sequence[Drawing] | None = None
    if lead.event is not None and rng.random() < 0.8:
        wanted = BY_EVENT.get(lead.event) or BY_SOURCE.get(lead.event.source)
    return _aimed(rng, orders, lead.moment, wanted or AT_MOMENTS)


def _aimed(
    rng: Random, orders: Sequence[OrderSent], moment: str, kinds: Sequence[Drawing]
) -> Incident:
    """Draw an incident of one of these kinds for a moment, about one of the orders."""
    (drawn,) = rng.choice(kinds)(rng)
    order = rng.choice(orders)
    drawn = msgspec.structs.replace(about(drawn, order, rng.choice([ITH, *order.nodes])), at=0.0)
    if isinstance(drawn, Outage | PartialOutage):
        drawn = msgspec.structs.replace(drawn, seconds=10 ** rng.uniform(-0.5, 2.0))
    elif isinstance(drawn, Activation | Crash | OperatorPause | DiskTrouble):
        exponent = rng.choice([rng.uniform(-3.0, -1.5), rng.uniform(-1.5, 2.0)])
        drawn = msgspec.structs.replace(drawn, seconds=10**exponent)
    return Aimed(
        at=rng.choice([0.0, 0.0, 0.0, rng.uniform(0, BUSY_S / 2)]),
        moment=moment,
        nth=rng.choice([0, 0, 1, 2, 5] if moment in BUSY else [0, 0, 0, 0, 1]),
        later=rng.choice([0.0, 0.0, 0.0, 0.0, 0.0, 0.005, 0.5, 3.0]),
        there=rng.random() < 0.7,
        incident=drawn,
    )


# At a time --------------------------------------------------------------------------------------


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


def _repeats(rng: Random) -> Sequence[Incident]:
    return [_order(rng, 99)]


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


def _disabling(rng: Random) -> Sequence[Incident]:
    return [NodeChange(at=0.0, node=rng.choice(NODES), change=NodeEdit.DISABLED)]


def _enabling(rng: Random) -> Sequence[Incident]:
    return [NodeChange(at=0.0, node=rng.choice(NODES), change=NodeEdit.ENABLED)]


def _removing(rng: Random) -> Sequence[Incident]:
    return [NodeChange(at=0.0, node=rng.choice(NODES), change=NodeEdit.REMOVED)]


def _moving(rng: Random) -> Sequence[Incident]:
    return [NodeChange(at=0.0, node=rng.choice(NODES), change=NodeEdit.MOVED)]


def _evictions(rng: Random) -> Sequence[Incident]:
    return [PartialOutage(at=0.0, rest=False, seconds=10 ** rng.uniform(0, 2), status=4002)]


def _no_downloads(rng: Random) -> Sequence[Incident]:
    times, status = rng.choice([1, 6, 20]), rng.choice([404, 404, 500])
    return [BadAnswer(at=0.0, about="download", times=times, status=status)]


def _collisions(rng: Random) -> Sequence[Incident]:
    kind = rng.choice([Kind.RELEASE_COLLISION, Kind.RELEASE_BY_NODE])
    misbehaviour = Misbehaviour(kind=kind, times=rng.choice([1, 2, 5]))
    return [Trouble(at=0.0, node=rng.choice(NODES), misbehaviour=misbehaviour)]


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


def _silences(rng: Random) -> Sequence[Incident]:
    return [Outage(at=0.0, of=rng.choice(NODES), seconds=10.0, manner=Manner.SILENT)]


def _partial_outages(rng: Random) -> Sequence[Incident]:
    rest = rng.random() < 0.5
    status = rng.choice(REST_STATUSES if rest else LINK_STATUSES)
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

REST_STATUSES = (0, 500, 502, 503, 429)
LINK_STATUSES = (0, 401, 403, 426, 503, 4001, 4002, 4003)
"""How half of ITH is away: 0 is silence, and a status from 1000 on is a WebSocket's close code."""

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
    _corruptions,
    _strikes,
    _strikes,
)

STOPPING: tuple[Drawing, ...] = (
    _deletions,
    _activations,
    _node_changes,
    _node_changes,
    _stops,
    _operator_pauses,
)
"""What ends or holds work under way."""

AT_MOMENTS: tuple[Drawing, ...] = (
    *STOPPING,
    _repeats,
    _troubles,
    _outages,
    _partial_outages,
    _cuts,
    _snags,
    _bad_answers,
    _dead_applications,
    _disk_troubles,
    _crashes,
    _clock_steps,
    _corruptions,
)
"""What may happen at a moment."""

BY_EVENT: Mapping[type[Event], tuple[Drawing, ...]] = {
    connection.CloseRequested: (_stops,),
    connection.CloseTimedOut: (_outages,),
    connection.KeyTaken: (_evictions,),
    operation.DrainRequested: (_stops,),
    operation.StopRequested: (_stops,),
    operation.DrainTimedOut: (_silences,),
    delivery.HoldRequested: (_activations, _operator_pauses, _stops, _disabling),
    delivery.ResumeRequested: (_activations, _operator_pauses, _enabling),
    delivery.RestartRequested: (_moving,),
    delivery.NodeMoved: (_moving,),
    delivery.CancelRequested: (_deletions, _removing),
    delivery.StopTimedOut: (_silences,),
    delivery.BackOffKept: (_crashes,),
    delivery.AttemptFailed: (_outages, _cuts, _troubles),
    dispatch.ContentLost: (_corruptions,),
    dispatch.RefetchExhausted: (_no_downloads, _partial_outages),
    node.ChangeRequested: (_moving,),
    node.DisableRequested: (_disabling,),
    node.EnableRequested: (_enabling,),
    node.RemoveRequested: (_removing,),
    upper_layer.ReleaseRequestCame: (_collisions,),
    upper_layer.ReleaseAnswered: (_collisions,),
    ActivityFailed: (_disk_troubles,),
}
"""What may tell an event, where it is known better than by the event's source."""

BY_SOURCE: Mapping[Source, tuple[Drawing, ...]] = {
    Source.BACKEND: STOPPING,
    Source.SUPERVISOR: (*STOPPING, _corruptions, _outages),
    Source.OPERATOR: (_stops, _operator_pauses),
    Source.PEER: (_cuts, _snags, _outages, _partial_outages, _troubles, _dead_applications),
    Source.TIMER: (_outages, _troubles, _dead_applications),
    Source.ACTIVITY: (_disk_troubles, _bad_answers, _corruptions, _crashes, _troubles),
}
"""What may tell the events of a source."""

Meeting: TypeAlias = tuple[tuple[str, tuple[Drawing, ...]], ...]

IN_FLIGHT = Mark.INSTANCE_SENT.name
MEETINGS: Mapping[tuple[str, ...], Meeting] = {
    ("CON-16", "CON-17"): (
        ("connection ONLINE", (_stops,)),
        ("connection CLOSING", (_cuts, _outages)),
    ),
    ("OPS-07", "OPS-08", "OPS-10"): (
        ("DLV-03", (_silences,)),
        ("DLV-03", (_stops,)),
        ("operation DRAINING", (_stops, _operator_pauses)),
    ),
    ("DSP-17",): (
        (Mark.CONTENT_PLANNED.name, (_corruptions,)),
        ("DSP-16", (_no_downloads, _partial_outages)),
    ),
    ("DLV-12", "DLV-18", "DLV-21"): (
        ("delivery STORING", STOPPING),
        ("delivery STOPPING", (*STOPPING, _moving, _removing)),
    ),
    ("DLV-14", "DLV-20", "DLV-24", "DLV-26"): (
        (IN_FLIGHT, (*STOPPING, _removing)),
        ("delivery STOPPING", STOPPING),
    ),
    ("DLV-23", "DLV-25"): (
        ("DLV-03", STOPPING),
        ("delivery STOPPING", (_silences,)),
    ),
    ("DLV-29",): (
        ("delivery STORING", (_outages, _cuts)),
        ("delivery BACKING_OFF", (_crashes,)),
    ),
}
"""Incidents of which one finds what another began, by the rows that they may lead to."""

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
