"""Carries out deletions: stops the dispatches of the entity, then removes it from the local PACS.

Owned by the supervisor. The rows go in the order of the events; where the end of the program
overtakes a deletion, the next start removes the files.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from typing import TypeAlias

import trio

from proxy.events.incoming import ScanDeletedEvent, SessionDeletedEvent, SubjectDeletedEvent
from proxy.ledger import Deleted
from proxy.logs import log
from proxy.machines import policy
from proxy.model import Entity, EntityType
from proxy.runtime import marks
from proxy.runtime.marks import Mark
from proxy.supervision.dispatches import Dispatches
from proxy.supervision.registry import Registry
from proxy.work.services import Services

DeletionEvent: TypeAlias = SubjectDeletedEvent | SessionDeletedEvent | ScanDeletedEvent


class Deletions:
    """Carries out deletions, each in a task of its own."""

    def __init__(
        self, services: Services, registry: Registry, dispatches: Dispatches, nursery: trio.Nursery
    ) -> None:
        self._services = services
        self._registry = registry
        self._dispatches = dispatches
        self._nursery = nursery

    def delete(self, event: DeletionEvent) -> None:
        """Stop the work for the entity, then remove the entity from the local PACS."""
        if self._registry.operation.run.over:
            self._keep(event)
            return
        reason = policy.deleted(event.entity_type or "entity")
        self._dispatches.cancel_entity(lambda entity: is_within(entity, event), reason)
        self._nursery.start_soon(self._remove, self._begin(event), event)
        marks.reached(Mark.DELETION_POSTED)
        self._dispatches.outdate()

    def _begin(self, event: DeletionEvent) -> Awaitable[Deleted]:
        """Have the rows deleted; a later order for the entity brings it back."""
        pacs, entity_id = self._services.pacs, event.entity_id
        match event:
            case SessionDeletedEvent(payload=session):
                uid = session.study_instance_uid
                return pacs.delete_session(entity_id, uid, subject_id=session.subject_id)
            case ScanDeletedEvent(payload=scan):
                uid, number = scan.study_instance_uid, scan.scan_number
                return pacs.delete_scan(
                    uid,
                    number,
                    scan_id=entity_id,
                    session_id=scan.session_id,
                    subject_id=scan.subject_id,
                )
            case SubjectDeletedEvent(payload=subject):
                return pacs.delete_subject(entity_id, subject.subject_identifier)

    async def _remove(self, removal: Awaitable[Deleted], event: DeletionEvent) -> None:
        touched: Collection[tuple[int, str]] | None = None
        try:
            deleted = await removal
        except OSError as error:  # the rows are gone; the next start looks for the files again
            log("pacs.not_deleted", level="error", event_type=event.event_type, error=error)
        else:
            log(
                "pacs.deleted",
                event_type=event.event_type,
                entries=deleted.instances,
                files_sent=deleted.confirmed,
            )
            touched = deleted.deliveries
            marks.reached(Mark.FILES_REMOVED)
        await self._dispatches.recount(touched)

    def _keep(self, event: DeletionEvent) -> None:
        """Delete the rows, now that the program stops; the files go with the next start."""
        post, entity_id = self._services.ledger.post_deletion, event.entity_id
        match event:
            case SessionDeletedEvent(payload=session):
                uid = session.study_instance_uid
                post(
                    EntityType.SESSION,
                    entity_id,
                    study_instance_uid=uid,
                    subject_id=session.subject_id,
                )
            case ScanDeletedEvent(payload=scan):
                uid, number = scan.study_instance_uid, scan.scan_number
                post(
                    EntityType.SCAN,
                    entity_id,
                    study_instance_uid=uid,
                    series_number=number,
                    session_id=scan.session_id,
                    subject_id=scan.subject_id,
                )
            case SubjectDeletedEvent(payload=subject):
                post(EntityType.SUBJECT, entity_id, patient_id=subject.subject_identifier)


def is_within(entity: Entity, event: DeletionEvent) -> bool:
    """Whether a dispatched entity is the deleted one, or a part of it by ITH's ids."""
    if not event.entity_id:
        return False
    match event:
        case ScanDeletedEvent():
            return entity.type is EntityType.SCAN and entity.id == event.entity_id
        case SessionDeletedEvent():
            own = entity.id if entity.type is EntityType.SESSION else entity.session_id
            return own == event.entity_id
        case SubjectDeletedEvent():
            own = entity.id if entity.type is EntityType.SUBJECT else entity.subject_id
            return own == event.entity_id
