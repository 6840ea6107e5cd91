"""What the ledger keeps, as SQL: each function is one operation, and is called by the writer.

In order: dispatches, instances on their way to nodes, confirmations of nodes, entities that the
local PACS holds and their deletion, documents and reports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from proxy.ledger.records import (
    Accepted,
    CachedEntity,
    Counts,
    Deleted,
    InstanceState,
    OutcomeWord,
    Over,
    RecordedDelivery,
    Report,
    Undeliverable,
    Unfinished,
)
from proxy.model import Entity, EntityType, Instance, Order, Priority

_TALLY = """
    SELECT delivery_id, count(*) AS total,
        sum(state IN ('stored', 'stored_with_warning')) AS stored,
        sum(state = 'refused') AS refused, sum(state = 'unknown') AS unknown
    FROM sending
"""


def _text(value: str | None) -> str | None:
    """Make free text from outside storable: SQLite takes no lone surrogates."""
    return value if value is None else value.encode("utf-8", "replace").decode("utf-8")


def _column(cursor: apsw.Cursor) -> list[Any]:
    """Return the only column of all rows."""
    return [value for (value,) in cursor]


def _choose(connection: apsw.Connection, ids: Iterable[int] = ()) -> None:
    """Put exactly these ids into the temporary table `chosen`."""
    connection.execute("DELETE FROM chosen")
    connection.executemany("INSERT INTO chosen VALUES (?)", ((row_id,) for row_id in ids))


_DELIVERIES = f"""
    SELECT v.dispatch_id, v.node_id, v.attempts, v.next_attempt_at, v.away, v.error, v.outcome,
        v.total + coalesce(t.total, 0), v.stored + coalesce(t.stored, 0),
        v.refused + coalesce(t.refused, 0), v.unknown + coalesce(t.unknown, 0)
    FROM dispatch d JOIN delivery v ON v.dispatch_id = d.id
    LEFT JOIN ({_TALLY} GROUP BY delivery_id) t ON t.delivery_id = v.id
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
    SELECT {_ORDER}, d.damaged, d.passed_over, d.unsent,
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
    for dispatch_id, *row, damaged, passed_over, why, kind in connection.execute(_UNFINISHED):
        mine = tuple(deliveries[dispatch_id])
        order = _order(row, mine)
        before = _over(connection, order)
        undeliverable = Undeliverable(damaged, passed_over, why)
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


def note_attempt(  # noqa: PLR0917 - posted by position
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
        (attempts, next_attempt_at, _text(error), away, dispatch_id, node_id),
    )


def end_delivery(
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
        (outcome, _text(error), dispatch_id, node_id),
    )


def end_dispatch(
    connection: apsw.Connection,
    dispatch_id: int,
    outcome: OutcomeWord,
    error: str | None,
    now: float,
) -> None:
    """Note the outcome of a dispatch, fold its rows into its counts, drop unused tombstones."""
    connection.execute(
        "UPDATE dispatch SET outcome = ?, error = ?, over_at = ? WHERE id = ? AND outcome IS NULL",
        (outcome, _text(error), now, dispatch_id),
    )
    _fold_dispatch(connection, dispatch_id)
    _drop_tombstones(connection)


def note_undeliverable(connection: apsw.Connection, dispatch_id: int, what: Undeliverable) -> None:
    """Note the numbers of files of a dispatch's archive that cannot be sent to any node."""
    connection.execute(
        "UPDATE dispatch SET damaged = ?, passed_over = ?, unsent = ? WHERE id = ?",
        (*what, dispatch_id),
    )


def last_dispatch_id(connection: apsw.Connection) -> int:
    """Read the id of the newest dispatch, even if it was forgotten."""
    newest: int | None = connection.execute(
        "SELECT seq FROM sqlite_sequence WHERE name = 'dispatch'"
    ).get
    return newest or 0


def forget_over(connection: apsw.Connection, up_to: int) -> int:
    """Delete the dispatches up to an id that are over; return their number."""
    connection.execute("DELETE FROM dispatch WHERE id <= ? AND outcome IS NOT NULL", (up_to,))
    return connection.changes()


def _covers(row: str) -> str:
    """Return the condition that tombstone `t` covers a row with an instance's DICOM attributes."""
    return f"""(
        t.study_instance_uid = {row}.study_instance_uid
            AND (t.entity_type = 'session'
                OR t.entity_type = 'scan' AND t.series_number = {row}.series_number)
        OR t.entity_type = 'subject' AND t.patient_id = {row}.patient_id)
    """


_TOMBSTONE_OF_INSTANCE = _covers("i")

# Whether instance `i` lacks what tombstone `t` names instances by: it may be one of them.
_LACKS = """(
    t.entity_type IN ('session', 'scan') AND i.study_instance_uid = ''
    OR t.entity_type = 'scan' AND i.study_instance_uid = t.study_instance_uid
        AND i.series_number IS NULL
    OR t.entity_type = 'subject' AND i.patient_id = '')
"""

# Whether tombstone `t` covers instance `i` of holding `h`: by its attributes, or because it lacks
# them and the holding has what was deleted, so that it is from before the deletion.
_TOMBSTONE_IN_HOLDING = f"""(
    {_TOMBSTONE_OF_INSTANCE}
    OR {_LACKS} AND EXISTS (SELECT 1 FROM holding_instance other
        JOIN instance o ON o.id = other.instance_id
        WHERE other.holding_id = h.id AND {_covers("o")}))
"""  # noqa: S608 - made of this module's own constants

_PLAN = f"""
    INSERT OR IGNORE INTO sending (delivery_id, instance_id)
    SELECT v.id, i.id
    FROM dispatch d
    JOIN delivery v ON v.dispatch_id = d.id AND v.outcome IS NULL
    JOIN holding h ON h.entity_type = d.entity_type AND h.entity_id = d.entity_id
    JOIN holding_instance hi ON hi.holding_id = h.id
    JOIN instance i ON i.id = hi.instance_id
    WHERE d.id = :dispatch_id AND d.outcome IS NULL
        AND NOT EXISTS (SELECT 1 FROM tombstone t
            WHERE t.last_dispatch_id >= d.id AND {_TOMBSTONE_IN_HOLDING})
"""  # noqa: S608 - made of this module's own constants

_FORGET_REPLACED = """
    DELETE FROM sending
    WHERE state IN ('planned', 'sending', 'unknown')
        AND delivery_id IN (SELECT id FROM delivery WHERE dispatch_id = :dispatch_id)
        AND instance_id NOT IN (
            SELECT instance_id FROM holding_instance WHERE holding_id = :holding_id)
"""

_INSTANCES = """
    SELECT i.sop_class_uid, i.sop_instance_uid, i.transfer_syntax_uid, i.study_instance_uid,
        i.series_instance_uid, i.sha256, i.size, i."offset", i.series_number,
        i.instance_number, i.patient_id
    FROM delivery v JOIN sending s ON s.delivery_id = v.id JOIN instance i ON i.id = s.instance_id
    WHERE v.dispatch_id = ? AND v.node_id = ?
"""
_TO_SEND = f"""
    {_INSTANCES} AND s.state IN ('planned', 'sending', 'unknown')
    ORDER BY i.study_instance_uid, i.series_number NULLS LAST, i.series_instance_uid,
        i.instance_number NULLS LAST, i.sop_instance_uid, i.id
"""
_IN_DOUBT = f"""
    {_INSTANCES} AND s.state IN ('sending', 'unknown')
        AND NOT EXISTS (SELECT 1 FROM stored_at c WHERE c.node = ?
            AND c.sop_instance_uid = i.sop_instance_uid AND c.sha256 <> i.sha256)
"""  # noqa: S608 - made of this module's own constants


def _fold(condition: str) -> str:
    """Return the statement that adds rows of `sending` to the numbers in `delivery`."""
    return f"""
        UPDATE delivery SET total = delivery.total + t.total,
            stored = delivery.stored + t.stored, refused = delivery.refused + t.refused,
            unknown = delivery.unknown + t.unknown
        FROM ({_TALLY} WHERE {condition} GROUP BY delivery_id) t
        WHERE t.delivery_id = delivery.id
    """  # noqa: S608 - made of this module's own constants


_FOLD_INSTANCES = _fold("instance_id IN (SELECT id FROM chosen)")
_FOLD_DISPATCH = _fold("delivery_id IN (SELECT id FROM delivery WHERE dispatch_id = :dispatch_id)")


def plan(connection: apsw.Connection, dispatch_id: int) -> int:
    """Plan every instance of the dispatch's holding for every node of it; return their number."""
    row = connection.execute(
        "SELECT h.id FROM dispatch d JOIN holding h USING (entity_type, entity_id) WHERE d.id = ?",
        (dispatch_id,),
    ).get
    if row is None:
        return 0
    connection.execute(_FORGET_REPLACED, {"dispatch_id": dispatch_id, "holding_id": row})
    connection.execute(_PLAN, {"dispatch_id": dispatch_id})
    count: int = connection.execute(
        "SELECT count(DISTINCT s.instance_id) FROM sending s JOIN delivery v ON v.id ="
        " s.delivery_id WHERE v.dispatch_id = ?",
        (dispatch_id,),
    ).get
    return count


def to_send(connection: apsw.Connection, dispatch_id: int, node_id: str) -> list[Instance]:
    """Read the instances that the node has not answered for, in the order to send them."""
    return [Instance(*row) for row in connection.execute(_TO_SEND, (dispatch_id, node_id))]


def in_doubt(
    connection: apsw.Connection, dispatch_id: int, node_id: str, node: str
) -> list[Instance]:
    """Read the instances sent without an answer, for which a query by UID can tell the outcome.

    It cannot if ``node`` has confirmed another content of the UID.
    """
    rows = connection.execute(_IN_DOUBT, (dispatch_id, node_id, node))
    return [Instance(*row) for row in rows]


def counts(connection: apsw.Connection, dispatch_id: int, node_id: str) -> Counts:
    """Read the counts of a delivery, or its counts when its dispatch ended."""
    row = connection.execute(
        "SELECT v.total + count(s.state),"
        " v.stored + coalesce(sum(s.state IN ('stored', 'stored_with_warning')), 0),"
        " v.refused + coalesce(sum(s.state = 'refused'), 0),"
        " v.unknown + coalesce(sum(s.state = 'unknown'), 0)"
        " FROM delivery v LEFT JOIN sending s ON s.delivery_id = v.id"
        " WHERE v.dispatch_id = ? AND v.node_id = ? GROUP BY v.id",
        (dispatch_id, node_id),
    ).fetchone()
    return Counts(*row) if row else Counts()


def emptied_by(connection: apsw.Connection, dispatch_id: int, node_id: str) -> EntityType | None:
    """Read the type of the last deletion, if none of a delivery's instances exists any longer."""
    kind: str | None = connection.execute(
        "SELECT entity_type FROM tombstone WHERE last_dispatch_id >= :dispatch_id"
        " AND NOT EXISTS (SELECT 1 FROM delivery v JOIN sending s ON s.delivery_id = v.id"
        " WHERE v.dispatch_id = :dispatch_id AND v.node_id = :node_id)"
        " ORDER BY id DESC LIMIT 1",
        {"dispatch_id": dispatch_id, "node_id": node_id},
    ).get
    return EntityType(kind) if kind else None


def instance_state(  # noqa: PLR0917 - posted by position
    connection: apsw.Connection,
    dispatch_id: int,
    node_id: str,
    instance: Instance,
    state: InstanceState,
    status: int | None,
    comment: str | None,
) -> None:
    """Note the state of an instance; a final answer of the node is not changed."""
    connection.execute(
        "UPDATE sending SET state = ?, status = ?, comment = ?"
        " WHERE state IN ('planned', 'sending', 'unknown')"
        " AND delivery_id = (SELECT id FROM delivery WHERE dispatch_id = ? AND node_id = ?)"
        " AND instance_id = (SELECT id FROM instance WHERE study_instance_uid = ?"
        " AND series_instance_uid = ? AND sop_instance_uid = ? AND sha256 = ?)",
        (
            state.value,
            status,
            _text(comment),
            dispatch_id,
            node_id,
            instance.study_instance_uid,
            instance.series_instance_uid,
            instance.sop_instance_uid,
            instance.sha256,
        ),
    )
    if state in {InstanceState.STORED, InstanceState.STORED_WITH_WARNING}:
        connection.execute(
            "UPDATE delivery SET attempts = 0, next_attempt_at = NULL"
            " WHERE dispatch_id = ? AND node_id = ? AND attempts > 0",
            (dispatch_id, node_id),
        )


def _drop_chosen(connection: apsw.Connection) -> None:
    """Drop the chosen instances from every delivery; the answered ones stay in its counts."""
    connection.execute(
        "DELETE FROM sending WHERE state IN ('planned', 'sending', 'unknown')"
        " AND instance_id IN (SELECT id FROM chosen)"
    )
    connection.execute(_FOLD_INSTANCES)
    connection.execute("DELETE FROM sending WHERE instance_id IN (SELECT id FROM chosen)")


def _fold_dispatch(connection: apsw.Connection, dispatch_id: int) -> None:
    """Turn a dispatch's rows into the numbers of its deliveries."""
    named = {"dispatch_id": dispatch_id}
    connection.execute(_FOLD_DISPATCH, named)
    connection.execute(
        "DELETE FROM sending WHERE delivery_id IN"
        " (SELECT id FROM delivery WHERE dispatch_id = :dispatch_id)",
        named,
    )


def _drop_tombstones(connection: apsw.Connection) -> None:
    """Drop the tombstones that no unfinished dispatch needs, because they name deleted entities."""
    connection.execute(
        "DELETE FROM tombstone WHERE NOT EXISTS (SELECT 1 FROM dispatch"
        " WHERE outcome IS NULL AND id <= tombstone.last_dispatch_id)"
    )


_NOTE_CONFIRMED = """
    INSERT OR REPLACE INTO stored_at
    SELECT :node, i.sop_instance_uid, i.sha256, i.study_instance_uid, i.series_number,
        i.patient_id, v.dispatch_id, :now
    FROM instance i CROSS JOIN delivery v CROSS JOIN sending s
    WHERE i.sha256 = :sha256 AND i.sop_instance_uid = :sop
        AND v.dispatch_id = :dispatch_id AND v.node_id = :node_id
        AND s.delivery_id = v.id AND s.instance_id = i.id
        AND s.state IN ('stored', 'stored_with_warning')
"""
"""CROSS JOIN keeps SQLite to this order: it would read the whole delivery for each instance."""

# The unanswered instances of this delivery whose SOP instance this node has confirmed.
_KNOWN = """
    FROM delivery v JOIN dispatch d ON d.id = v.dispatch_id, instance i
    JOIN stored_at c ON c.node = :node AND c.sop_instance_uid = i.sop_instance_uid
    WHERE v.dispatch_id = :dispatch_id AND v.node_id = :node_id
        AND sending.delivery_id = v.id AND sending.instance_id = i.id
        AND sending.state IN ('planned', 'sending', 'unknown')
"""
_SETTLE = f"""
    UPDATE sending SET state = 'stored' {_KNOWN} AND c.sha256 = i.sha256
        AND (NOT :resend OR c.dispatch_id >= coalesce(d.joins, d.id))
"""  # noqa: S608 - made of constants
_WITHHOLD = f"""
    UPDATE sending SET state = 'refused' {_KNOWN} AND c.dispatch_id < d.id
        AND c.sha256 <> i.sha256
"""  # noqa: S608 - made of constants
_FORGET_DELETED = f"""
    DELETE FROM stored_at AS i WHERE EXISTS (
        SELECT 1 FROM tombstone t WHERE t.id = :tombstone_id AND {_TOMBSTONE_OF_INSTANCE})
"""  # noqa: S608 - made of constants


def note_confirmed(  # noqa: PLR0917 - posted by position
    connection: apsw.Connection,
    dispatch_id: int,
    node_id: str,
    node: str,
    sop_instance_uid: str,
    sha256: str,
    now: float,
) -> None:
    """Remember that a node has confirmed an instance, unless it was deleted meanwhile."""
    connection.execute(
        _NOTE_CONFIRMED,
        {
            "dispatch_id": dispatch_id,
            "node_id": node_id,
            "node": node,
            "sop": sop_instance_uid,
            "sha256": sha256,
            "now": now,
        },
    )


def settle(
    connection: apsw.Connection, dispatch_id: int, node_id: str, node: str, resend: bool
) -> Counts:
    """Count instances that the node confirmed before as stored; return the delivery's counts."""
    named = {"dispatch_id": dispatch_id, "node_id": node_id, "node": node, "resend": resend}
    connection.execute(_SETTLE, named)
    return counts(connection, dispatch_id, node_id)


def withhold(connection: apsw.Connection, dispatch_id: int, node_id: str, node: str) -> int:
    """Refuse instances that the node had with another content; return the number of them."""
    named = {"dispatch_id": dispatch_id, "node_id": node_id, "node": node}
    connection.execute(_WITHHOLD, named)
    return connection.changes()


def _forget_deleted(connection: apsw.Connection, tombstone_id: int) -> int:
    """Forget confirmations of deleted instances, by the tombstone and the chosen instances.

    Returns the number forgotten.
    """
    connection.execute(_FORGET_DELETED, {"tombstone_id": tombstone_id})
    forgotten = connection.changes()
    connection.execute(
        "DELETE FROM stored_at WHERE (sop_instance_uid, sha256) IN"
        " (SELECT sop_instance_uid, sha256 FROM instance WHERE id IN (SELECT id FROM chosen))"
    )
    forgotten += connection.changes()
    connection.execute(_FORGET_NAMELESS, {"tombstone_id": tombstone_id})
    return forgotten + connection.changes()


def forget_confirmed(connection: apsw.Connection, up_to: int) -> None:
    """Forget the confirmations last made to dispatches up to an id."""
    connection.execute("DELETE FROM stored_at WHERE dispatch_id <= ?", (up_to,))


_KEEP_INSTANCE = """
    INSERT INTO instance (study_instance_uid, series_instance_uid, sop_instance_uid, sha256,
        sop_class_uid, transfer_syntax_uid, size, "offset", series_number, instance_number,
        patient_id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET sop_class_uid = excluded.sop_class_uid,
        transfer_syntax_uid = excluded.transfer_syntax_uid, size = excluded.size,
        "offset" = excluded."offset", series_number = excluded.series_number,
        instance_number = excluded.instance_number, patient_id = excluded.patient_id
    RETURNING id
"""

_KEEP_HOLDING = """
    INSERT INTO holding (entity_type, entity_id, subject_id, session_id, etag, kept_at)
    VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET subject_id = coalesce(excluded.subject_id, subject_id),
        session_id = coalesce(excluded.session_id, session_id), etag = excluded.etag,
        kept_at = excluded.kept_at
    RETURNING id
"""

_YOUNGEST_AT_WORK = """
    SELECT max(id) FROM dispatch WHERE entity_type = :type AND entity_id = :id
        AND id <= :dispatch_id AND outcome IS NULL
"""

_BURIED = f"""
    DELETE FROM holding_instance WHERE holding_id = :holding_id AND instance_id IN (
        SELECT i.id FROM holding h JOIN holding_instance hi ON hi.holding_id = h.id
        JOIN instance i ON i.id = hi.instance_id
        JOIN tombstone t ON t.last_dispatch_id >= :dispatch_id AND {_TOMBSTONE_IN_HOLDING}
        WHERE h.id = :holding_id)
    RETURNING instance_id
"""  # noqa: S608 - made of constants

_CHOOSE_BURIED = f"""
    INSERT OR IGNORE INTO chosen
    SELECT i.id FROM tombstone t JOIN instance i ON {_TOMBSTONE_OF_INSTANCE}
    WHERE t.id = :tombstone_id
"""  # noqa: S608 - made of constants

# The instances that lack the attributes, of each holding that the deletion is within.
_CHOOSE_NAMELESS = f"""
    INSERT OR IGNORE INTO chosen
    SELECT i.id FROM tombstone t, holding h
    JOIN holding_instance hi ON hi.holding_id = h.id
    JOIN instance i ON i.id = hi.instance_id AND {_LACKS}
    WHERE t.id = :tombstone_id AND (
        h.entity_type = 'session' AND h.entity_id = :session
        OR h.entity_type = 'subject' AND h.entity_id = :subject
        OR EXISTS (SELECT 1 FROM holding_instance WHERE holding_id = h.id
            AND instance_id IN (SELECT id FROM chosen)))
"""  # noqa: S608 - made of constants

_FORGET_NAMELESS = f"""
    DELETE FROM stored_at AS i WHERE EXISTS (
        SELECT 1 FROM tombstone t JOIN dispatch d ON d.id = i.dispatch_id
        WHERE t.id = :tombstone_id AND {_LACKS} AND {_TOMBSTONE_OF_DISPATCH})
"""  # noqa: S608 - made of constants

_DELIVERIES_OF_CHOSEN = """
    SELECT DISTINCT v.dispatch_id, v.node_id FROM chosen c
    JOIN sending s ON s.instance_id = c.id JOIN delivery v ON v.id = s.delivery_id
"""

_RELEASE = """
    DELETE FROM instance WHERE id IN (SELECT id FROM chosen)
        AND NOT EXISTS (SELECT 1 FROM holding_instance WHERE instance_id = instance.id)
        AND NOT EXISTS (SELECT 1 FROM sending WHERE instance_id = instance.id)
    RETURNING sha256
"""


def keep(  # noqa: PLR0917 - posted by position
    connection: apsw.Connection,
    entity: Entity,
    instances: Sequence[Instance],
    etag: str | None,
    dispatch_id: int | None,
    now: float,
) -> tuple[str, ...]:
    """Index an entity that is complete on disk; it replaces the instances held of it before.

    If every dispatch that it was fetched for is over, nothing is indexed: a deletion may have
    ended them, and its tombstone was dropped with the last.
    """
    if dispatch_id is not None:
        named = {"type": entity.type.value, "id": entity.id, "dispatch_id": dispatch_id}
        dispatch_id = connection.execute(_YOUNGEST_AT_WORK, named).get
        if dispatch_id is None:
            return _orphans(connection, [instance.sha256 for instance in instances])
    holding_id = connection.execute(
        _KEEP_HOLDING,
        (entity.type.value, entity.id, entity.subject_id, entity.session_id, etag, now),
    ).get
    rows = [_row(instance) for instance in instances]
    kept = set(_column(connection.executemany(_KEEP_INSTANCE, rows)))
    former = _column(
        connection.execute(
            "DELETE FROM holding_instance WHERE holding_id = ? RETURNING instance_id", (holding_id,)
        )
    )
    connection.executemany(
        "INSERT INTO holding_instance (holding_id, instance_id) VALUES (?, ?)",
        [(holding_id, instance_id) for instance_id in kept],
    )
    if dispatch_id is not None:
        buried = _column(
            connection.execute(_BURIED, {"holding_id": holding_id, "dispatch_id": dispatch_id})
        )
        if buried:
            connection.execute("UPDATE holding SET etag = NULL WHERE id = ?", (holding_id,))
            _drop_empty(connection, [holding_id])
        former += buried
    _choose(connection, set(former))
    return _release(connection)


def cached_entity(connection: apsw.Connection, entity: Entity) -> CachedEntity | None:
    """Read the holding of an entity, if there is one."""
    row = connection.execute(
        "SELECT h.etag, count(hi.instance_id) FROM holding h"
        " LEFT JOIN holding_instance hi ON hi.holding_id = h.id"
        " WHERE h.entity_type = ? AND h.entity_id = ? GROUP BY h.id",
        (entity.type.value, entity.id),
    ).fetchone()
    return CachedEntity(*row) if row else None


def delete(  # noqa: PLR0917 - posted by position
    connection: apsw.Connection,
    type: EntityType,
    id: str | None,
    study_instance_uid: str | None,
    series_number: int | None,
    patient_id: str | None,
    session_id: str | None = None,
    subject_id: str | None = None,
) -> Deleted:
    """Bury an entity: tombstone, then rows.

    It is found by its id, and by the DICOM attributes if it was fetched under another entity.
    An empty text counts as not given: it would match every instance that lacks the attribute. An
    instance that lacks it goes with a deletion within the entity that it was fetched with; the
    last two are the parents by which that entity is found.
    """
    named = {
        "type": type.value,
        "id": id or None,
        "study": study_instance_uid or None,
        "series": series_number,
        "patient": patient_id or None,
    }
    connection.execute(
        "INSERT INTO tombstone (entity_type, entity_id, study_instance_uid, series_number,"
        " patient_id, last_dispatch_id) VALUES (:type, :id, :study, :series, :patient,"
        " (SELECT coalesce(max(id), 0) FROM dispatch))",
        named,
    )
    tombstone_id = connection.last_insert_rowid()
    holdings = _column(
        connection.execute(
            "SELECT id FROM holding WHERE entity_type = :type AND entity_id = :id"
            " OR :type = 'session' AND session_id = :id"
            " OR :type = 'subject' AND subject_id = :id",
            named,
        )
    )
    _choose(connection)
    connection.executemany(
        "INSERT OR IGNORE INTO chosen SELECT instance_id FROM holding_instance"
        " WHERE holding_id = ?",
        [(holding_id,) for holding_id in holdings],
    )
    connection.execute(_CHOOSE_BURIED, {"tombstone_id": tombstone_id})
    parents = {"session": session_id or None, "subject": subject_id or None}
    connection.execute(_CHOOSE_NAMELESS, {"tombstone_id": tombstone_id, **parents})
    deliveries = frozenset(connection.execute(_DELIVERIES_OF_CHOSEN))
    _drop_chosen(connection)
    confirmed = _forget_deleted(connection, tombstone_id)
    _empty_holdings(connection)
    connection.executemany("DELETE FROM holding WHERE id = ?", [(h,) for h in holdings])
    hashes = _column(
        connection.execute(
            "DELETE FROM instance WHERE id IN (SELECT id FROM chosen) RETURNING sha256"
        )
    )
    _drop_tombstones(connection)
    return Deleted(len(hashes), _orphans(connection, hashes), confirmed, deliveries)


def release_unused(connection: apsw.Connection) -> tuple[str, ...]:
    """Delete the instances that no holding and no delivery needs; return orphaned objects."""
    _choose(connection)
    connection.execute("INSERT INTO chosen SELECT id FROM instance")
    return _release(connection)


def lose(connection: apsw.Connection, hashes: Iterable[str]) -> int:
    """Note that objects are missing or damaged: the entities they belong to are held no more.

    Their planned instances stay planned until the entity has been fetched again, because they are
    still to be sent. Returns the number of holdings dropped.
    """
    _choose(connection)
    connection.executemany(
        "INSERT OR IGNORE INTO chosen SELECT id FROM instance WHERE sha256 = ?",
        [(sha256,) for sha256 in hashes],
    )
    connection.execute(
        "DELETE FROM holding WHERE id IN (SELECT holding_id FROM holding_instance"
        " WHERE instance_id IN (SELECT id FROM chosen))"
    )
    return connection.changes()


def referenced(connection: apsw.Connection, hashes: Iterable[str]) -> frozenset[str]:
    """Return those of the objects that some row refers to."""
    rows = connection.executemany(
        "SELECT DISTINCT sha256 FROM instance WHERE sha256 = ?", [(h,) for h in hashes]
    )
    return frozenset(_column(rows))


def all_objects(connection: apsw.Connection, kept_after: float | None) -> dict[str, int]:
    """Return the size of every object a row refers to, or only of those kept after a time."""
    if kept_after is None:
        return dict(connection.execute("SELECT sha256, size FROM instance"))
    return dict(
        connection.execute(
            "SELECT i.sha256, i.size FROM holding h JOIN holding_instance hi"
            " ON hi.holding_id = h.id JOIN instance i ON i.id = hi.instance_id"
            " WHERE h.kept_at > ?",
            (kept_after,),
        )
    )


def _row(instance: Instance) -> tuple[str | int | None, ...]:
    return (
        instance.study_instance_uid,
        instance.series_instance_uid,
        instance.sop_instance_uid,
        instance.sha256,
        instance.sop_class_uid,
        instance.transfer_syntax_uid,
        instance.size,
        instance.offset,
        instance.series_number,
        instance.instance_number,
        instance.patient_id,
    )


def _empty_holdings(connection: apsw.Connection) -> None:
    """Take the chosen instances out of every holding; drop a holding that is left with none."""
    connection.execute(
        "UPDATE holding SET etag = NULL WHERE id IN (SELECT holding_id FROM holding_instance"
        " WHERE instance_id IN (SELECT id FROM chosen))"
    )
    touched = _column(
        connection.execute(
            "DELETE FROM holding_instance WHERE instance_id IN (SELECT id FROM chosen)"
            " RETURNING holding_id"
        )
    )
    _drop_empty(connection, set(touched))


def _drop_empty(connection: apsw.Connection, holding_ids: Iterable[int]) -> None:
    """Drop the holdings without instances, because their rows would name deleted entities."""
    connection.executemany(
        "DELETE FROM holding WHERE id = ? AND NOT EXISTS (SELECT 1 FROM holding_instance"
        " WHERE holding_id = holding.id)",
        [(holding_id,) for holding_id in holding_ids],
    )


def _release(connection: apsw.Connection) -> tuple[str, ...]:
    """Delete those of the chosen instances that nothing needs; return orphaned objects."""
    return _orphans(connection, _column(connection.execute(_RELEASE)))


def _orphans(connection: apsw.Connection, hashes: Iterable[str]) -> tuple[str, ...]:
    candidates = dict.fromkeys(hashes)
    used = referenced(connection, candidates)
    return tuple(sha256 for sha256 in candidates if sha256 not in used)


def put_document(connection: apsw.Connection, name: str, body: bytes) -> None:
    """Write a document over the former one."""
    connection.execute("INSERT OR REPLACE INTO document (name, body) VALUES (?, ?)", (name, body))


def document(connection: apsw.Connection, name: str) -> bytes | None:
    """Read a document."""
    body: bytes | None = connection.execute("SELECT body FROM document WHERE name = ?", (name,)).get
    return body


def put_early_event(connection: apsw.Connection, event: str) -> None:
    """Write one more event after those that are kept."""
    connection.execute("INSERT INTO undecided (event) VALUES (?)", (event,))


def early_events(connection: apsw.Connection) -> list[str]:
    """Read all events, oldest first."""
    return _column(connection.execute("SELECT event FROM undecided ORDER BY id"))


def forget_early_events(connection: apsw.Connection) -> None:
    """Delete all events."""
    connection.execute("DELETE FROM undecided")


def next_report_id(connection: apsw.Connection) -> int:
    """Return an id above every report that is kept."""
    highest: int = connection.execute("SELECT coalesce(max(id), 0) FROM report").get
    return highest + 1


def put_report(connection: apsw.Connection, report_id: int, key: str, frame: str) -> None:
    """Write a frame that must reach ITH."""
    connection.execute(
        "INSERT INTO report (id, key, frame) VALUES (?, ?, ?)", (report_id, key, frame)
    )


def reports(connection: apsw.Connection) -> list[Report]:
    """Read all frames, oldest first."""
    return [
        Report(*row) for row in connection.execute("SELECT id, key, frame FROM report ORDER BY id")
    ]


def forget_reports(connection: apsw.Connection, report_ids: Iterable[int]) -> None:
    """Delete frames that are not to be sent again."""
    connection.executemany(
        "DELETE FROM report WHERE id = ?", ((report_id,) for report_id in report_ids)
    )
