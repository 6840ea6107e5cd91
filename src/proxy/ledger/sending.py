"""The state of every instance on its way to a node, as SQL. Called by the writer."""

from __future__ import annotations

import apsw

from proxy.ledger.records import Counts, InstanceState
from proxy.model import EntityType, Instance

TALLY = """
    SELECT delivery_id, count(*) AS total,
        sum(state IN ('stored', 'stored_with_warning')) AS stored,
        sum(state = 'refused') AS refused, sum(state = 'unknown') AS unknown
    FROM sending
"""

# Whether tombstone `t` covers instance `i`, a row with an instance's DICOM attributes.
TOMBSTONE_OF_INSTANCE = """(
    t.study_instance_uid = i.study_instance_uid
        AND (t.entity_type = 'session'
            OR t.entity_type = 'scan' AND t.series_number = i.series_number)
    OR t.entity_type = 'subject' AND t.patient_id = i.patient_id)
"""

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
            WHERE t.last_dispatch_id >= d.id AND {TOMBSTONE_OF_INSTANCE})
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
        FROM ({TALLY} WHERE {condition} GROUP BY delivery_id) t
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
            comment,
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


def drop_chosen(connection: apsw.Connection) -> None:
    """Drop the chosen instances from every delivery; the answered ones stay in its counts."""
    connection.execute(
        "DELETE FROM sending WHERE state IN ('planned', 'sending', 'unknown')"
        " AND instance_id IN (SELECT id FROM chosen)"
    )
    connection.execute(_FOLD_INSTANCES)
    connection.execute("DELETE FROM sending WHERE instance_id IN (SELECT id FROM chosen)")


def fold_dispatch(connection: apsw.Connection, dispatch_id: int) -> None:
    """Turn a dispatch's rows into the numbers of its deliveries."""
    named = {"dispatch_id": dispatch_id}
    connection.execute(_FOLD_DISPATCH, named)
    connection.execute(
        "DELETE FROM sending WHERE delivery_id IN"
        " (SELECT id FROM delivery WHERE dispatch_id = :dispatch_id)",
        named,
    )


def drop_tombstones(connection: apsw.Connection) -> None:
    """Drop the tombstones that no unfinished dispatch needs, because they name deleted entities."""
    connection.execute(
        "DELETE FROM tombstone WHERE NOT EXISTS (SELECT 1 FROM dispatch"
        " WHERE outcome IS NULL AND id <= tombstone.last_dispatch_id)"
    )
