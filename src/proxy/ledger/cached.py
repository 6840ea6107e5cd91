"""The instances held by the local PACS, and deletion of them, as SQL. Called by the writer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import apsw

from proxy.ledger.confirmed import forget_buried
from proxy.ledger.records import CachedEntity, Deleted
from proxy.ledger.sending import TOMBSTONE_OF_INSTANCE, drop_chosen, drop_tombstones
from proxy.ledger.sql import choose, column
from proxy.model import Entity, EntityType, Instance

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
    DELETE FROM holding_instance WHERE holding_id = :holding_id AND EXISTS (
        SELECT 1 FROM tombstone t JOIN instance i ON {TOMBSTONE_OF_INSTANCE}
        WHERE i.id = holding_instance.instance_id AND t.last_dispatch_id >= :dispatch_id)
    RETURNING instance_id
"""  # noqa: S608 - made of constants

_CHOOSE_BURIED = f"""
    INSERT OR IGNORE INTO chosen
    SELECT i.id FROM tombstone t JOIN instance i ON {TOMBSTONE_OF_INSTANCE}
    WHERE t.id = :tombstone_id
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
    kept = set(column(connection.executemany(_KEEP_INSTANCE, rows)))
    former = column(
        connection.execute(
            "DELETE FROM holding_instance WHERE holding_id = ? RETURNING instance_id", (holding_id,)
        )
    )
    connection.executemany(
        "INSERT INTO holding_instance (holding_id, instance_id) VALUES (?, ?)",
        [(holding_id, instance_id) for instance_id in kept],
    )
    if dispatch_id is not None:
        buried = column(
            connection.execute(_BURIED, {"holding_id": holding_id, "dispatch_id": dispatch_id})
        )
        if buried:
            connection.execute("UPDATE holding SET etag = NULL WHERE id = ?", (holding_id,))
            _drop_empty(connection, [holding_id])
        former += buried
    choose(connection, set(former))
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
) -> Deleted:
    """Bury an entity: tombstone, then rows.

    It is found by its id, and by the DICOM attributes if it was fetched under another entity.
    An empty text counts as not given: it would match every instance that lacks the attribute.
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
    holdings = column(
        connection.execute(
            "SELECT id FROM holding WHERE entity_type = :type AND entity_id = :id"
            " OR :type = 'session' AND session_id = :id"
            " OR :type = 'subject' AND subject_id = :id",
            named,
        )
    )
    choose(connection)
    connection.executemany(
        "INSERT OR IGNORE INTO chosen SELECT instance_id FROM holding_instance"
        " WHERE holding_id = ?",
        [(holding_id,) for holding_id in holdings],
    )
    connection.execute(_CHOOSE_BURIED, {"tombstone_id": tombstone_id})
    deliveries = frozenset(connection.execute(_DELIVERIES_OF_CHOSEN))
    drop_chosen(connection)
    confirmed = forget_buried(connection, tombstone_id)
    _empty_holdings(connection)
    connection.executemany("DELETE FROM holding WHERE id = ?", [(h,) for h in holdings])
    hashes = column(
        connection.execute(
            "DELETE FROM instance WHERE id IN (SELECT id FROM chosen) RETURNING sha256"
        )
    )
    drop_tombstones(connection)
    return Deleted(len(hashes), _orphans(connection, hashes), confirmed, deliveries)


def release_unused(connection: apsw.Connection) -> tuple[str, ...]:
    """Delete the instances that no holding and no delivery needs; return orphaned objects."""
    choose(connection)
    connection.execute("INSERT INTO chosen SELECT id FROM instance")
    return _release(connection)


def lose(connection: apsw.Connection, hashes: Iterable[str]) -> int:
    """Note that objects are missing or damaged: the entities they belong to are held no more.

    Their planned instances stay planned until the entity has been fetched again, because they are
    still to be sent. Returns the number of holdings dropped.
    """
    choose(connection)
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
    return frozenset(column(rows))


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
    touched = column(
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
    return _orphans(connection, column(connection.execute(_RELEASE)))


def _orphans(connection: apsw.Connection, hashes: Iterable[str]) -> tuple[str, ...]:
    candidates = dict.fromkeys(hashes)
    used = referenced(connection, candidates)
    return tuple(sha256 for sha256 in candidates if sha256 not in used)
