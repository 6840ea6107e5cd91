"""The instances that nodes have confirmed to any dispatch, as SQL. Called by the writer."""

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
    """Remember that a node has confirmed an instance, unless it was deleted meanwhile."""
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


def forget_buried(connection: apsw.Connection, tombstone_id: int) -> int:
    """Forget confirmations of deleted instances, by the tombstone and the chosen instances.

    Returns the number forgotten.
    """
    connection.execute(_FORGET_BURIED, {"tombstone_id": tombstone_id})
    forgotten = connection.changes()
    connection.execute(
        "DELETE FROM stored_at WHERE (sop_instance_uid, sha256) IN"
        " (SELECT sop_instance_uid, sha256 FROM instance WHERE id IN (SELECT id FROM chosen))"
    )
    return forgotten + connection.changes()


def forget(connection: apsw.Connection, up_to: int) -> None:
    """Forget the confirmations last made to dispatches up to an id."""
    connection.execute("DELETE FROM stored_at WHERE dispatch_id <= ?", (up_to,))
