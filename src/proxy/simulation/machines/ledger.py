"""What the program keeps over a restart: orders, deliveries, instances, confirmations, locks.

A model of ``proxy.ledger``, without a file: each operation is done at once, its answer comes with
the next turn. The instances of an entity are the bits of a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from proxy.machines.delivery import Outcome
from proxy.machines.operation import PauseLocks


class ModelKey(NamedTuple):
    """What makes two orders the same one: ITH's correlation id, and the entity."""

    correlation: int
    entity: int


class ModelOrder(NamedTuple):
    """One dispatch as ITH ordered it; ``rank`` 0 is the most urgent one."""

    key: ModelKey
    node_ids: tuple[str, ...]
    rank: int


class ModelCounts(NamedTuple):
    """The counts of one delivery."""

    total: int
    stored: int
    refused: int


NONE = ModelCounts(0, 0, 0)


@dataclass(eq=False, slots=True)
class ModelRow:
    """One delivery. ``planned`` are its instances, the others parts of these.

    ``folded`` counts those that the node had answered for when they were deleted. ``failures`` is
    what the invariants know of the attempts; nothing else reads it.
    """

    entity: int
    planned: int = 0
    stored: int = 0
    refused: int = 0
    in_doubt: int = 0
    folded: ModelCounts = NONE
    attempts: int = 0
    due: float | None = None
    error: str = ""
    away: bool = False
    outcome: Outcome | None = None
    failures: int = 0

    def counts(self) -> ModelCounts:
        """Count."""
        total, stored, refused = self.folded
        return ModelCounts(
            total + self.planned.bit_count(),
            stored + self.stored.bit_count(),
            refused + self.refused.bit_count(),
        )

    def unanswered(self) -> int:
        """The instances that the node has not answered for."""
        return self.planned & ~(self.stored | self.refused)

    def note(self, bit: int, *, stored: bool = False, refused: bool = False, sent: bool) -> None:
        """Note what is known of an instance; a final answer stays, a deleted one is ignored."""
        if stored:
            self.attempts, self.due = 0, None
        if not bit & self.unanswered():
            return
        self.in_doubt &= ~bit
        if stored:
            self.stored |= bit
        elif refused:
            self.refused |= bit
        elif sent:
            self.in_doubt |= bit

    def forget(self, bits: int) -> None:
        """Drop instances that were deleted; the answered ones stay in the counts."""
        stored, refused = self.stored & bits, self.refused & bits
        total = self.folded
        self.folded = ModelCounts(
            total[0] + (stored | refused).bit_count(),
            total[1] + stored.bit_count(),
            total[2] + refused.bit_count(),
        )
        self.planned &= ~bits
        self.stored &= ~bits
        self.refused &= ~bits
        self.in_doubt &= ~bits


@dataclass(eq=False, slots=True)
class ModelRecord:
    """One dispatch; ``undeliverable`` counts what no node can be given."""

    id: int
    order: ModelOrder
    rows: dict[str, ModelRow]
    undeliverable: int = 0
    outcome: Outcome | None = None


class ModelAccepted(NamedTuple):
    """The answer to an order: the dispatch of it, its nodes, the deliveries that were over."""

    record: ModelRecord
    node_ids: tuple[str, ...]
    is_new: bool
    over: Sequence[tuple[str, Outcome, ModelCounts, str]]


class Tombstone(NamedTuple):
    """A deletion: it holds for the dispatches up to one."""

    entity: int
    bits: int
    is_whole: bool
    last_id: int


@dataclass(eq=False)
class ModelLedger:
    """All that is kept. ``records`` are all dispatches, ``open`` those that are not over.

    ``held`` are the instances of an entity in the local PACS. ``confirmed`` are the instances that
    a node has confirmed, by its address and the entity.
    """

    records: dict[ModelKey, list[ModelRecord]] = field(default_factory=dict)
    open: list[ModelRecord] = field(default_factory=list)
    last_id: int = 0
    held: dict[int, int] = field(default_factory=dict)
    confirmed: dict[tuple[int, int], int] = field(default_factory=dict)
    tombstones: list[Tombstone] = field(default_factory=list)
    locks: PauseLocks = field(default_factory=PauseLocks)

    def over(self, key: ModelKey) -> list[tuple[str, Outcome, ModelCounts, str]]:
        """The ends of the deliveries of an order whose dispatch is over."""
        return [
            (node_id, row.outcome or record.outcome, row.counts(), row.error)
            for record in self.records.get(key, ())
            if record.outcome is not None
            for node_id, row in record.rows.items()
        ]

    def accept(self, order: ModelOrder) -> ModelAccepted:
        """Keep an order, or find the dispatch that serves it already."""
        served = {
            node_id: record for record in self.records.get(order.key, ()) for node_id in record.rows
        }
        node_ids = tuple(n for n in order.node_ids if n not in served)
        before = self.over(order.key)
        if not node_ids:
            newest = max((served[n] for n in order.node_ids), key=lambda each: each.id)
            return ModelAccepted(newest, tuple(newest.rows), is_new=False, over=before)
        self.last_id += 1
        record = ModelRecord(self.last_id, order, {n: ModelRow(order.key.entity) for n in node_ids})
        self.records.setdefault(order.key, []).append(record)
        self.open.append(record)
        return ModelAccepted(record, node_ids, is_new=True, over=before)

    def is_buried(self, record: ModelRecord) -> bool:
        """Whether the entity of a dispatch was deleted after its order."""
        entity = record.order.key.entity
        return any(
            t.is_whole and t.entity == entity and t.last_id >= record.id for t in self.tombstones
        )

    def keep(self, entity: int, bits: int, last_id: int) -> None:
        """Hold an entity, but for what was deleted since the youngest order that wants it."""
        wanted = [
            each.id for each in self.open if each.order.key.entity == entity and each.id <= last_id
        ]
        if wanted:
            bits &= ~self._buried(entity, max(wanted))
            self.held.pop(entity, None)
            if bits:
                self.held[entity] = bits

    def _buried(self, entity: int, id: int) -> int:
        bits = 0
        for each in self.tombstones:
            if each.entity == entity and each.last_id >= id:
                bits |= each.bits
        return bits

    def plan(self, record: ModelRecord) -> int:
        """Plan what is held for each open delivery; return the number of instances."""
        entity = record.order.key.entity
        held = self.held.get(entity)
        if held is None:
            return 0
        wanted = held & ~self._buried(entity, record.id)
        every = 0
        for row in record.rows.values():
            row.planned &= held | row.stored | row.refused
            row.in_doubt &= row.planned
            if row.outcome is None:
                row.planned |= wanted
            every |= row.planned
        return every.bit_count()

    def settle(self, row: ModelRow, address: int) -> ModelCounts:
        """Count as stored what the node has confirmed; return the counts."""
        known = self.confirmed.get((address, row.entity), 0) & row.unanswered()
        row.stored |= known
        row.in_doubt &= ~known
        return row.counts()

    def confirm(self, row: ModelRow, address: int, bit: int) -> None:
        """Remember that a node has confirmed an instance, unless it was deleted meanwhile."""
        if bit & row.stored:
            at = (address, row.entity)
            self.confirmed[at] = self.confirmed.get(at, 0) | bit

    def delete(self, entity: int, bits: int, *, is_whole: bool) -> list[ModelRow]:
        """Bury an entity or a part of it; return the deliveries that had something of it."""
        self.tombstones.append(Tombstone(entity, bits, is_whole, self.last_id))
        touched = []
        for record in self.open:
            if record.order.key.entity == entity:
                touched += [row for row in record.rows.values() if row.planned & bits]
        for row in touched:
            row.forget(bits)
        for at in self.confirmed:
            if at[1] == entity:
                self.confirmed[at] &= ~bits
        left = self.held.get(entity, 0) & ~bits
        self.held.pop(entity, None)
        if left and not is_whole:
            self.held[entity] = left
        self._drop_tombstones()
        return touched

    def emptied(self, record: ModelRecord, row: ModelRow) -> bool:
        """Whether deletions left no instance of a delivery."""
        return not row.planned and any(t.last_id >= record.id for t in self.tombstones)

    def close(self, record: ModelRecord, outcome: Outcome) -> None:
        """Note the outcome of a dispatch, and fold its instances into its counts."""
        if record.outcome is None:
            record.outcome = outcome
            self.open.remove(record)
        for row in record.rows.values():
            row.folded, row.planned = row.counts(), 0
            row.stored = row.refused = row.in_doubt = 0
        self._drop_tombstones()

    def _drop_tombstones(self) -> None:
        oldest = min((each.id for each in self.open), default=math.inf)
        self.tombstones = [each for each in self.tombstones if each.last_id >= oldest]
