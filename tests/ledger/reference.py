"""The meaning of the ledger in sets and dictionaries: slow, plain and written independently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.ledger import Counts, InstanceState
from proxy.model import Entity, EntityType, Instance, Order

OPEN = {InstanceState.PLANNED, InstanceState.SENDING, InstanceState.UNKNOWN}
STORED = {InstanceState.STORED, InstanceState.STORED_WITH_WARNING}


@dataclass
class Tombstone:
    type: EntityType
    id: str | None
    study: str | None
    number: int | None
    patient: str | None
    newest: int

    def covers(self, instance: Instance) -> bool:
        if self.type is EntityType.SUBJECT:
            return self.patient is not None and instance.patient_id == self.patient
        in_study = self.study is not None and instance.study_instance_uid == self.study
        if self.type is EntityType.SESSION:
            return in_study
        return in_study and self.number is not None and instance.series_number == self.number

    def is_over(self, entity: Entity) -> bool:
        if self.id is None:
            return False
        parents = {EntityType.SESSION: entity.session_id, EntityType.SUBJECT: entity.subject_id}
        return (entity.type, entity.id) == (self.type, self.id) or (
            parents.get(self.type) == self.id
        )


@dataclass
class Way:
    """One delivery: the state of each instance, deleted ones included."""

    outcome: str | None = None
    states: dict[Instance, InstanceState] = field(default_factory=dict)
    gone: list[InstanceState] = field(default_factory=list)

    def counts(self) -> Counts:
        states = [*self.states.values(), *self.gone]
        return Counts(
            total=len(states),
            stored=sum(s in STORED for s in states),
            refused=states.count(InstanceState.REFUSED),
            unknown=states.count(InstanceState.UNKNOWN),
        )


@dataclass
class Dispatch:
    id: int
    order: Order
    ways: dict[str, Way]
    over: bool = False


@dataclass
class Reference:
    dispatches: list[Dispatch] = field(default_factory=list)
    holdings: dict[Entity, tuple[str | None, set[Instance]]] = field(default_factory=dict)
    instances: set[Instance] = field(default_factory=set)
    tombstones: list[Tombstone] = field(default_factory=list)

    def accept(self, order: Order) -> tuple[int, bool]:
        same = [
            d
            for d in self.dispatches
            if (d.order.correlation_id, d.order.entity) == (order.correlation_id, order.entity)
        ]
        served = {n for d in same for n in d.ways}
        fresh = [n for n in order.node_ids if n not in served]
        if not fresh:
            return max(d.id for d in same if served & d.ways.keys() & {*order.node_ids}), False
        dispatch = Dispatch(len(self.dispatches) + 1, order, {n: Way() for n in fresh})
        self.dispatches.append(dispatch)
        return dispatch.id, True

    def keep(
        self, entity: Entity, found: set[Instance], etag: str | None, asked_by: int | None
    ) -> set[str]:
        if asked_by is not None:
            wanted = [d.id for d in self.dispatches if d.order.entity == entity and not d.over]
            asked_by = max((each for each in wanted if each <= asked_by), default=None)
            if asked_by is None:
                return {i.sha256 for i in found} - {i.sha256 for i in self.instances}
        before = {i.sha256 for i in self.instances | found}
        former = self.holdings.get(entity, (None, set()))[1]
        buried = {
            i
            for i in found
            for t in self.tombstones
            if asked_by is not None and t.newest >= asked_by and t.covers(i)
        }
        self.instances |= found
        self.holdings[entity] = (None if buried else etag, found - buried)
        if buried == found and buried:
            del self.holdings[entity]  # nothing is left of it, as after a deletion of all it held
        self._release(former | buried)
        return before - {i.sha256 for i in self.instances}

    def release_unused(self) -> set[str]:
        before = {i.sha256 for i in self.instances}
        self._release(set(self.instances))
        return before - {i.sha256 for i in self.instances}

    def plan(self, id: int) -> int:
        dispatch = self.dispatches[id - 1]
        if dispatch.order.entity in self.holdings:
            held = self.holdings[dispatch.order.entity][1]
            for way in dispatch.ways.values():
                self._keep_ways(way, lambda i, s: s not in OPEN or i in held)
                if not dispatch.over and way.outcome is None:
                    for instance in held:
                        if not any(t.newest >= id and t.covers(instance) for t in self.tombstones):
                            way.states.setdefault(instance, InstanceState.PLANNED)
        else:
            return 0
        return len({i for way in dispatch.ways.values() for i in way.states})

    def result(self, id: int, node: str, instance: Instance, state: InstanceState) -> None:
        way = self.dispatches[id - 1].ways.get(node, Way())
        if way.states.get(instance) in OPEN:
            way.states[instance] = state

    def delivery_over(self, id: int, node: str, outcome: str) -> None:
        way = self.dispatches[id - 1].ways.get(node, Way())
        way.outcome = way.outcome or outcome

    def dispatch_over(self, id: int) -> None:
        self.dispatches[id - 1].over = True
        for way in self.dispatches[id - 1].ways.values():
            way.gone += way.states.values()
            way.states.clear()
        self._drop_tombstones()

    def _drop_tombstones(self) -> None:
        oldest = min((d.id for d in self.dispatches if not d.over), default=None)
        self.tombstones = [t for t in self.tombstones if oldest and t.newest >= oldest]

    def delete(self, tombstone: Tombstone) -> tuple[int, set[str]]:
        tombstone.newest = len(self.dispatches)
        self.tombstones.append(tombstone)
        named = [e for e in self.holdings if tombstone.is_over(e)]
        doomed = {i for e in named for i in self.holdings[e][1]}
        doomed |= {i for i in self.instances if tombstone.covers(i)}
        for dispatch in self.dispatches:
            for way in dispatch.ways.values():
                way.gone += [s for i, s in way.states.items() if i in doomed and s not in OPEN]
                self._keep_ways(way, lambda i, _: i not in doomed)
        for entity, (etag, held) in list(self.holdings.items()):
            if entity in named or (held and held <= doomed):
                del self.holdings[entity]
            elif held & doomed:
                self.holdings[entity] = (None, held - doomed)
            else:
                self.holdings[entity] = (etag, held)
        self.instances -= doomed
        self._drop_tombstones()
        return len(doomed), {i.sha256 for i in doomed} - {i.sha256 for i in self.instances}

    def lose(self, sha256: str) -> int:
        lost = {i for i in self.instances if i.sha256 == sha256}
        dropped = [e for e, (_, held) in self.holdings.items() if held & lost]
        for entity in dropped:
            del self.holdings[entity]
        return len(dropped)

    def _release(self, candidates: set[Instance]) -> None:
        needed = {i for _, held in self.holdings.values() for i in held}
        needed |= {i for d in self.dispatches for way in d.ways.values() for i in way.states}
        self.instances -= candidates - needed

    @staticmethod
    def _keep_ways(way: Way, keep: Callable[[Instance, InstanceState], bool]) -> None:
        way.states = {i: s for i, s in way.states.items() if keep(i, s)}
