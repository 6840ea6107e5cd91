"""What nodes have confirmed, whatever dispatch brought it, as SQL. Called by the writer."""

from __future__ import annotations

import apsw

from proxy.ledger.records import Counts
from proxy.ledger.sending import TOMBSTONE_OF_INSTANCE, counts

_NOTE = """
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

# What is unanswered in this delivery, and the same SOP instance confirmed by this node.
_KNOWN = """
    FROM delivery v JOIN dispatch d ON d.id = v.dispatch_id, instance i
    JOIN stored_at c ON c.node = :node AND c.sop_instance_uid = i.sop_instance_uid
    WHERE v.dispatch_id = :dispatch_id AND v.node_id = :node_id
        AND sending.delivery_id = v.id AND sending.instance_id = i.id
        AND sending.state IN ('planned', 'sending', 'unknown')
"""
_SETTLE = f"""
    UPDATE sending SET state = 'stored' {_KNOWN} AND c.sha256 = i.sha256
        AND (NOT :anew OR c.dispatch_id >= coalesce(d.joins, d.id))
"""  # noqa: S608 - made of constants
_WITHHOLD = f"""
    UPDATE sending SET state = 'refused' {_KNOWN} AND c.dispatch_id < d.id
        AND c.sha256 <> i.sha256
"""  # noqa: S608 - made of constants
_FORGET_BURIED = f"""
    DELETE FROM stored_at AS i WHERE EXISTS (
        SELECT 1 FROM tombstone t WHERE t.id = :tombstone_id AND {TOMBSTONE_OF_INSTANCE})
"""  # noqa: S608 - made of constants


def note(  # noqa: PLR0917 - posted by position
    connection: apsw.Connection,
    dispatch_id: int,
    node_id: str,
    node: str,
    sop_instance_uid: str,
    sha256: str,
    now: float,
) -> None:
    """Remember what a node said it has; nothing, where it was deleted meanwhile."""
    connection.execute(
        _NOTE,
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
    connection: apsw.Connection, dispatch_id: int, node_id: str, node: str, anew: bool
) -> Counts:
    """Count as stored what the node has confirmed before; return how far the delivery is."""
    named = {"dispatch_id": dispatch_id, "node_id": node_id, "node": node, "anew": anew}
    connection.execute(_SETTLE, named)
    return counts(connection, dispatch_id, node_id)


def withhold(connection: apsw.Connection, dispatch_id: int, node_id: str, node: str) -> int:
    """Refuse what the node has with another content from before; return how many there were."""
    named = {"dispatch_id": dispatch_id, "node_id": node_id, "node": node}
    connection.execute(_WITHHOLD, named)
    return connection.changes()


def forget_buried(connection: apsw.Connection, tombstone_id: int) -> int:
    """Forget what a deletion is about, by the tombstone and by the chosen instances.

    Returns how much that was.
    """
    connection.execute(_FORGET_BURIED, {"tombstone_id": tombstone_id})
    forgotten = connection.changes()
    connection.execute(
        "DELETE FROM stored_at WHERE (sop_instance_uid, sha256) IN"
        " (SELECT sop_instance_uid, sha256 FROM instance WHERE id IN (SELECT id FROM chosen))"
    )
    return forgotten + connection.changes()


def forget(connection: apsw.Connection, up_to: int) -> None:
    """Forget what dispatches up to an id have brought last."""
    connection.execute("DELETE FROM stored_at WHERE dispatch_id <= ?", (up_to,))
