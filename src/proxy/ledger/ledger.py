"""The ledger: accepted orders, held entities, the instances at each node, the reports to ITH.

``post_*`` methods return at once; operations posted in one synchronous stretch are committed
together or not at all (:mod:`proxy.ledger.database`). ``async`` methods answer when their answer is
durable. If the file cannot be written, LedgerError is raised by :meth:`Ledger.open` and in every
task that waits: the program must stop, because its answers would be false.

Patient ids and UIDs are in the file, which only its owner may read, and never in a log or an
exception. The supervisor, the outbox and the local PACS call this; no other module opens the file.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from proxy.ledger import statements
from proxy.ledger.database import (
    LAST_COMMIT_S,
    VACUUM_BYTES,
    PendingResult,
    Writer,
    close_database,
    last_written_at,
    open_database,
)
from proxy.ledger.records import (
    Accepted,
    CachedEntity,
    Counts,
    Deleted,
    InstanceState,
    OutcomeWord,
    Report,
    Undeliverable,
    Unfinished,
)
from proxy.model import Entity, EntityType, Instance, Order
from proxy.runtime.clock import SYSTEM_CLOCK, Clock
from proxy.runtime.offload import Offload


class Ledger:
    """One open ledger."""

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        *,
        was_unclean: bool,
        last_written: float,
        next_report_id: int,
    ) -> None:
        self._writer = writer
        self._now = clock.now
        self._next_report_id = next_report_id
        self.was_unclean = was_unclean
        """Whether the former run ended without closing the ledger; it has been checked then."""
        self.last_written = last_written
        """The time of the former run's last write, in UTC seconds; 0 for a new ledger."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path, offload: Offload, *, clock: Clock = SYSTEM_CLOCK
    ) -> AsyncIterator[Ledger]:
        """Open the ledger at ``path``, creating it if it is missing, for the length of the block.

        At the end, cancelled or not, everything posted is committed. As from a nursery, errors
        are raised in an exception group.
        """
        last_written = await offload(last_written_at, path)
        connection, was_unclean = await offload(open_database, path)
        try:
            writer = Writer(connection, offload)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.run)
                try:
                    yield cls(
                        writer,
                        clock,
                        was_unclean=was_unclean,
                        last_written=last_written,
                        next_report_id=await writer.call(statements.next_report_id),
                    )
                finally:
                    writer.close()
        finally:
            with trio.move_on_after(LAST_COMMIT_S, shield=True):
                await offload(close_database, connection)

    async def settled(self) -> None:
        """Wait until everything posted so far is durable."""
        await self._writer.settled()

    # Documents: the last good configuration, an operator's lock, …

    def post_document(self, name: str, body: bytes) -> None:
        """Keep ``body`` under ``name``, in place of the former document."""
        self._writer.post(statements.put_document, name, body)

    async def document(self, name: str) -> bytes | None:
        """Return the document kept under ``name``."""
        return await self._writer.call(statements.document, name)

    # Events that cannot be acted upon yet.

    def post_early_event(self, event: str) -> None:
        """Keep one more event."""
        self._writer.post(statements.put_early_event, event)

    async def early_events(self) -> list[str]:
        """Return the events that are kept, oldest first."""
        return await self._writer.call(statements.early_events)

    def post_early_events_taken(self) -> None:
        """Drop the events: their consequences are posted in the same stretch."""
        self._writer.post(statements.forget_early_events)

    # Dispatches and deliveries.

    def accept(self, order: Order) -> PendingResult[Accepted]:
        """Keep an order, in its place among all posted operations; it is durable at the answer.

        The same correlation id and entity is the same dispatch, over or not. A repeated order
        that names more nodes makes a new dispatch of those alone, so that one that is running,
        or over, need not change. An order without correlation id is always new.
        """
        return self._writer.begin(statements.accept, order, self._now())

    def post_order(self, order: Order) -> None:
        """Keep an order for the next start."""
        self._writer.post(statements.accept, order, self._now())

    async def unfinished(self) -> list[Unfinished]:
        """Return the dispatches that are not over, in the order they were accepted."""
        return await self._writer.call(statements.unfinished)

    def post_attempt(
        self,
        dispatch_id: int,
        node_id: str,
        attempts: int,
        next_attempt_at: float | None,
        error: str,
        *,
        away: bool = False,
    ) -> None:
        """Note a failed attempt; ``next_attempt_at`` is in UTC seconds since 1970.

        ``away`` says that it failed because the node did not answer.
        """
        self._writer.post(
            statements.note_attempt,
            dispatch_id,
            node_id,
            attempts,
            next_attempt_at,
            error,
            away,
        )

    def post_delivery_over(
        self, dispatch_id: int, node_id: str, outcome: OutcomeWord, error: str | None
    ) -> None:
        """Note the outcome of a delivery; the first outcome stays."""
        self._writer.post(statements.end_delivery, dispatch_id, node_id, outcome, error)

    def post_dispatch_over(self, dispatch_id: int, outcome: OutcomeWord, error: str | None) -> None:
        """Note the outcome of a dispatch; its counts stay, its instances' rows are deleted."""
        self._writer.post(statements.end_dispatch, dispatch_id, outcome, error, self._now())

    def post_undeliverable(self, dispatch_id: int, what: Undeliverable) -> None:
        """Note the numbers of files of a dispatch's archive that cannot be sent to any node."""
        self._writer.post(statements.note_undeliverable, dispatch_id, what)

    async def last_dispatch_id(self) -> int:
        """Return the id of the newest dispatch there ever was, 0 before the first."""
        return await self._writer.call(statements.last_dispatch_id)

    async def forget_dispatches(self, up_to: int) -> int:
        """Delete the dispatches up to an id that are over; return their number.

        The confirmations that nodes gave to dispatches up to it are forgotten as well. After that
        a repeated order is not recognised, and its instances are sent again.
        """
        self._writer.post(statements.forget_confirmed, up_to)
        return await self._writer.call(statements.forget_over, up_to)

    # Instances on their way to nodes.

    async def plan(self, dispatch_id: int) -> int:
        """Plan every instance that is held of the dispatch's entity for each of its open nodes.

        States that exist stay. Unanswered instances that are no longer held are dropped, and
        instances deleted after the order was accepted are not planned. Returns the number of
        instances that the dispatch has now, 0 if its entity is not held.
        """
        return await self._writer.call(statements.plan, dispatch_id)

    async def to_send(self, dispatch_id: int, node_id: str) -> list[Instance]:
        """Return the instances without an answer, by study, series and instance number."""
        return await self._writer.call(statements.to_send, dispatch_id, node_id)

    async def in_doubt(self, dispatch_id: int, node_id: str, node: str) -> list[Instance]:
        """Return the instances that the node may have, because they were sent without an answer.

        ``node`` is its identity. An instance of which it has confirmed another content is left
        out: a query by UID would find that content.
        """
        return await self._writer.call(statements.in_doubt, dispatch_id, node_id, node)

    async def counts(self, dispatch_id: int, node_id: str) -> Counts:
        """Return the counts of a delivery, also when its dispatch is over."""
        return await self._writer.call(statements.counts, dispatch_id, node_id)

    async def emptied_by(self, dispatch_id: int, node_id: str) -> EntityType | None:
        """Return the type of the last deletion, if deletions left no instance of a delivery."""
        return await self._writer.call(statements.emptied_by, dispatch_id, node_id)

    def post_result(  # noqa: PLR0917 - the C-STORE response's own order
        self,
        dispatch_id: int,
        node_id: str,
        instance: Instance,
        state: InstanceState,
        status: int | None = None,
        comment: str | None = None,
        *,
        confirmed_by: str | None = None,
    ) -> None:
        """Note the result for an instance, with the C-STORE status and error comment (PS3.7).

        Stored and refused are never changed again. An instance deleted meanwhile is ignored.
        ``confirmed_by`` is the identity of the node that confirms exactly this content.
        """
        self._writer.post(
            statements.instance_state,
            dispatch_id,
            node_id,
            instance,
            state,
            status,
            comment,
        )
        if confirmed_by is not None:
            self._writer.post(
                statements.note_confirmed,
                dispatch_id,
                node_id,
                confirmed_by,
                instance.sop_instance_uid,
                instance.sha256,
                self._now(),
            )

    async def settle(self, dispatch_id: int, node_id: str, node: str, *, resend: bool) -> Counts:
        """Count instances that the node confirmed before as stored; return the delivery's counts.

        ``node`` is its identity. With ``resend``, all instances are to be sent again: then a
        confirmation counts only from a dispatch of the same entity that was at work when this one
        was accepted.
        """
        return await self._writer.call(statements.settle, dispatch_id, node_id, node, resend)

    async def withhold(self, dispatch_id: int, node_id: str, node: str) -> int:
        """Refuse instances that the node has with another content; return the number of them."""
        return await self._writer.call(statements.withhold, dispatch_id, node_id, node)

    # Entities and instances that the local PACS holds.

    async def keep(
        self,
        entity: Entity,
        instances: Sequence[Instance],
        etag: str | None,
        *,
        dispatch_id: int | None = None,
    ) -> tuple[str, ...]:
        """Index an entity whose objects are all on disk, in place of its former holding.

        If the dispatch is given that it was fetched for, instances that were deleted after that
        order are left out, and nothing is kept if it and those before it are over. Returns the
        objects (sha256) that no row refers to any more.
        """
        return await self._writer.call(
            statements.keep, entity, instances, etag, dispatch_id, self._now()
        )

    async def cached_entity(self, entity: Entity) -> CachedEntity | None:
        """Return the holding of an entity; None if it is not complete in the local PACS."""
        return await self._writer.call(statements.cached_entity, entity)

    def delete_session(
        self,
        session_id: str | None,
        study_instance_uid: str | None,
        *,
        subject_id: str | None = None,
    ) -> PendingResult[Deleted]:
        """Delete a session: the instances held under its id, and every instance of the study.

        Instances without a study UID are deleted with what was deleted beside them, and those that
        are held of the subject.
        """
        return self._writer.begin(
            statements.delete,
            EntityType.SESSION,
            session_id,
            study_instance_uid,
            None,
            None,
            None,
            subject_id,
            scrub=VACUUM_BYTES,
        )

    def delete_scan(
        self,
        study_instance_uid: str | None,
        series_number: int | None,
        *,
        scan_id: str | None = None,
        session_id: str | None = None,
        subject_id: str | None = None,
    ) -> PendingResult[Deleted]:
        """Delete a scan: all series of that number in the study, and instances held by its id.

        Instances without a study UID or number are deleted as by :meth:`delete_session`.

        ITH names no series UID, and a number may occur twice in a study: both series are removed,
        since the deleted one must not stay, and the other one can be fetched again.
        """
        return self._writer.begin(
            statements.delete,
            EntityType.SCAN,
            scan_id,
            study_instance_uid,
            series_number,
            None,
            session_id,
            subject_id,
            scrub=VACUUM_BYTES,
        )

    def delete_subject(
        self, subject_id: str | None, subject_identifier: str | None
    ) -> PendingResult[Deleted]:
        """Delete a subject: instances held under its id, and every instance of that PatientID."""
        return self._writer.begin(
            statements.delete,
            EntityType.SUBJECT,
            subject_id,
            None,
            None,
            subject_identifier,
            scrub=VACUUM_BYTES,
        )

    def post_deletion(
        self,
        type: EntityType,
        id: str | None,
        *,
        study_instance_uid: str | None = None,
        series_number: int | None = None,
        patient_id: str | None = None,
        session_id: str | None = None,
        subject_id: str | None = None,
    ) -> None:
        """Delete an entity whose objects are removed by the janitor of the next start."""
        self._writer.post(
            statements.delete,
            type,
            id,
            study_instance_uid,
            series_number,
            patient_id,
            session_id,
            subject_id,
        )

    async def release_unused(self) -> tuple[str, ...]:
        """Delete the instances without use; return the objects that have no row then."""
        return await self._writer.begin(statements.release_unused, scrub=VACUUM_BYTES)

    async def rewrite(self) -> None:
        """Write the file again, however large it is: nothing of what was deleted is left in it."""
        await self._writer.begin(lambda _: None, scrub=math.inf)

    async def lose(self, hashes: Collection[str]) -> int:
        """Note objects as missing or damaged; return the number of entities held no more."""
        return await self._writer.call(statements.lose, hashes)

    async def referenced(self, hashes: Collection[str]) -> frozenset[str]:
        """Return those of the objects (sha256) that some row refers to."""
        return await self._writer.call(statements.referenced, hashes)

    async def all_objects(self, kept_after: float | None = None) -> dict[str, int]:
        """Return the size of every object by sha256, or of those kept after a time (UTC)."""
        return await self._writer.call(statements.all_objects, kept_after)

    # Reports to ITH, for the outbox.

    def post_report(self, key: str, frame: str) -> int:
        """Keep a frame until it is forgotten; return its id. Ids grow with each call."""
        report_id = self._next_report_id
        self._next_report_id += 1
        self._writer.post(statements.put_report, report_id, key, frame)
        return report_id

    async def reports(self) -> list[Report]:
        """Return the frames that are kept, oldest first."""
        return await self._writer.call(statements.reports)

    def post_forget(self, report_ids: Iterable[int]) -> None:
        """Drop frames that are not to be sent again."""
        self._writer.post(statements.forget_reports, tuple(report_ids))
