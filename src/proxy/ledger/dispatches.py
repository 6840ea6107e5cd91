"""Orders, dispatches and deliveries, as SQL. Called by the writer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import apsw

from proxy.ledger.records import (
    Accepted,
    Counts,
    OutcomeWord,
    Over,
    RecordedDelivery,
    Undeliverable,
    Unfinished,
)
from proxy.ledger.sending import TALLY, drop_tombstones, fold_dispatch
from proxy.model import Entity, EntityType, Order, Priority

_DELIVERIES = f"""
    SELECT v.dispatch_id, v.node_id, v.attempts, v.next_attempt_at, v.away, v.error, v.outcome,
        v.total + coalesce(t.total, 0), v.stored + coalesce(t.stored, 0),
        v.refused + coalesce(t.refused, 0), v.unknown + coalesce(t.unknown, 0)
    FROM dispatch d JOIN delivery v ON v.dispatch_id = d.id
    LEFT JOIN ({TALLY} GROUP BY delivery_id) t ON t.delivery_id = v.id
    WHERE d.outcome IS NULL ORDER BY v.id
"""  # noqa: S608 - made of this module's own constants

# Whether tombstone `t` is about the entity of dispatch `d`, or about a parent of it.
_TOMBSTONE_OF_DISPATCH = """(
    t.last_dispatch_id >= d.id AND (
        t.entity_type = d.entity_type AND t.entity_id = d.entity_id
        OR t.entity_type = 'session' AND t.entity_id = d.session_id
        OR t.entity_type = 'subject' AND t.entity_id = d.subject_id))
"""

_ORDER = """
    d.id, d.entity_type, d.entity_id, d.subject_id, d.session_id, d.correlation_id,
        d.workspace_id, d.priority
"""

_UNFINISHED = f"""
    SELECT {_ORDER}, d.damaged, d.passed_over,
        (SELECT t.entity_type FROM tombstone t WHERE {_TOMBSTONE_OF_DISPATCH}
            ORDER BY t.id DESC LIMIT 1)
    FROM dispatch d WHERE d.outcome IS NULL ORDER BY d.id
"""  # noqa: S608 - made of this module's own constants

# The rows in `sending` of a dispatch that is over are folded into its deliveries.
_OVER = """
    SELECT v.node_id, coalesce(v.outcome, d.outcome), v.error,
        v.total + d.damaged + d.passed_over, v.stored, v.refused, v.unknown
    FROM dispatch d JOIN delivery v ON v.dispatch_id = d.id
    WHERE d.correlation_id = ? AND d.entity_type = ? AND d.entity_id = ? AND d.outcome IS NOT NULL
    ORDER BY v.id
"""


def accept(connection: apsw.Connection, order: Order, now: float) -> Accepted:
    """Keep an order, or find the dispatch that already serves it."""
    if not order.node_ids:
        raise ValueError("an order names at least one node")
    entity = order.entity
    served: dict[str, int] = {}
    if order.correlation_id:
        served = dict(
            connection.execute(
                "SELECT v.node_id, d.id FROM dispatch d JOIN delivery v ON v.dispatch_id = d.id"
                " WHERE d.correlation_id = ? AND d.entity_type = ? AND d.entity_id = ?"
                " ORDER BY d.id",
                (order.correlation_id, entity.type.value, entity.id),
            )
        )
    before = _over(connection, order) if served else ()
    node_ids = tuple(n for n in dict.fromkeys(order.node_ids) if n not in served)
    if not node_ids:
        dispatch_id = max(served[n] for n in order.node_ids)
        node_ids = tuple(n for n in served if served[n] == dispatch_id)
        return Accepted(dispatch_id, is_new=False, node_ids=node_ids, over=before)
    connection.execute(
        "INSERT INTO dispatch (correlation_id, workspace_id, entity_type, entity_id, subject_id,"
        " session_id, priority, accepted_at, joins) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,"
        " (SELECT min(id) FROM dispatch WHERE outcome IS NULL AND entity_type = ?3"
        " AND entity_id = ?4))",
        (
            order.correlation_id,
            order.workspace_id,
            entity.type.value,
            entity.id,
            entity.subject_id,
            entity.session_id,
            order.priority.value,
            now,
        ),
    )
    dispatch_id = connection.last_insert_rowid()
    connection.executemany(
        "INSERT INTO delivery (dispatch_id, node_id) VALUES (?, ?)",
        [(dispatch_id, node_id) for node_id in node_ids],
    )
    return Accepted(dispatch_id, is_new=True, node_ids=node_ids, over=before)


def unfinished(connection: apsw.Connection) -> list[Unfinished]:
    """Read every dispatch that is not over, in the order of acceptance."""
    deliveries: defaultdict[int, list[RecordedDelivery]] = defaultdict(list)
    for dispatch_id, node_id, attempts, due, away, error, outcome, *numbers in connection.execute(
        _DELIVERIES
    ):
        counts = Counts(*numbers)
        delivery = RecordedDelivery(node_id, attempts, due, error, outcome, counts, away=bool(away))
        deliveries[dispatch_id].append(delivery)
    found = []
    for dispatch_id, *row, damaged, passed_over, kind in connection.execute(_UNFINISHED):
        mine = tuple(deliveries[dispatch_id])
        order = _order(row, mine)
        before = _over(connection, order)
        undeliverable = Undeliverable(damaged, passed_over)
        deleted = kind and EntityType(kind)
        found.append(Unfinished(dispatch_id, order, mine, deleted, undeliverable, before))
    return found


def _over(connection: apsw.Connection, order: Order) -> tuple[Over, ...]:
    """Read the ends of this order's deliveries, to any node, whose dispatch is over."""
    if not order.correlation_id:
        return ()
    same = (order.correlation_id, order.entity.type.value, order.entity.id)
    return tuple(
        Over(node_id, outcome, error, Counts(*numbers))
        for node_id, outcome, error, *numbers in connection.execute(_OVER, same)
    )


def _order(row: Sequence[Any], deliveries: Sequence[RecordedDelivery]) -> Order:
    kind, entity_id, subject, session, correlation, workspace, rank = row
    return Order(
        Entity(EntityType(kind), entity_id, subject, session),
        tuple(delivery.node_id for delivery in deliveries),
        correlation,
        workspace,
        Priority(rank),
    )


def attempt(  # noqa: PLR0917 - posted by position
    connection: apsw.Connection,
    dispatch_id: int,
    node_id: str,
    attempts: int,
    next_attempt_at: float | None,
    error: str,
    away: bool,
) -> None:
    """Note a failed attempt, the time of the next one, and whether the node was away."""
    connection.execute(
        "UPDATE delivery SET attempts = ?, next_attempt_at = ?, error = ?, away = ?"
        " WHERE dispatch_id = ? AND node_id = ? AND outcome IS NULL",
        (attempts, next_attempt_at, error, away, dispatch_id, node_id),
    )


def delivery_over(
    connection: apsw.Connection,
    dispatch_id: int,
    node_id: str,
    outcome: OutcomeWord,
    error: str | None,
) -> None:
    """Note the outcome of a delivery; the first outcome stays."""
    connection.execute(
        "UPDATE delivery SET outcome = ?, error = ?, next_attempt_at = NULL"
        " WHERE dispatch_id = ? AND node_id = ? AND outcome IS NULL",
        (outcome, error, dispatch_id, node_id),
    )


def dispatch_over(
    connection: apsw.Connection,
    dispatch_id: int,
    outcome: OutcomeWord,
    error: str | None,
    now: float,
) -> None:
    """Note the outcome of a dispatch, fold its rows into its counts, drop unused tombstones."""
    connection.execute(
        "UPDATE dispatch SET outcome = ?, error = ?, over_at = ? WHERE id = ? AND outcome IS NULL",
        (outcome, error, now, dispatch_id),
    )
    fold_dispatch(connection, dispatch_id)
    drop_tombstones(connection)


def undeliverable(connection: apsw.Connection, dispatch_id: int, what: Undeliverable) -> None:
    """Note the numbers of files of a dispatch's archive that cannot be sent to any node."""
    connection.execute(
        "UPDATE dispatch SET damaged = ?, passed_over = ? WHERE id = ?", (*what, dispatch_id)
    )


def last_id(connection: apsw.Connection) -> int:
    """Read the id of the newest dispatch, even if it was forgotten."""
    newest: int | None = connection.execute(
        "SELECT seq FROM sqlite_sequence WHERE name = 'dispatch'"
    ).get
    return newest or 0


def forget_over(connection: apsw.Connection, up_to: int) -> int:
    """Delete the dispatches up to an id that are over; return their number."""
    connection.execute("DELETE FROM dispatch WHERE id <= ? AND outcome IS NOT NULL", (up_to,))
    return connection.changes()
