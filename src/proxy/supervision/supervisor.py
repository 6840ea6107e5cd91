"""The supervisor: it decides the effect of each event of ITH on the work.

It owns every run and tells it what happened outside. :meth:`Supervisor.handle` is synchronous:
the link's reader never waits for a dispatch, and no event can be half done. What must wait (a
deletion, a look at ITH's configuration) is a task of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias, assert_never, get_args

import trio

from proxy.events.base import ProxyEvent
from proxy.events.incoming import (
    BrokenFrame,
    ConfigUpdateResponse,
    Connected,
    HealthUpdateResponse,
    Incoming,
    NewScanAvailableEvent,
    PingEvent,
    ProxyConfigChangedEvent,
    ProxyNodesChangedEvent,
    ProxyStatusChangedEvent,
    ScanDeletedEvent,
    ScanDispatchEvent,
    SessionDeletedEvent,
    SessionDispatchEvent,
    SubjectDeletedEvent,
    SubjectDispatchEvent,
    UnknownEvent,
)
from proxy.ledger import Unfinished
from proxy.logs import log
from proxy.machines.node import NodeState
from proxy.machines.operation import PauseLock
from proxy.model import Entity, EntityType, Order, Priority
from proxy.reporting.reports import Reports
from proxy.supervision.deletions import DeletionEvent, Deletions
from proxy.supervision.dispatches import Dispatches
from proxy.supervision.early_events import EarlyEvents
from proxy.supervision.nodes import NodeManager
from proxy.supervision.pause_locks import LOCKS_DOCUMENT, read_locks
from proxy.supervision.reconciler import Reconciler
from proxy.supervision.registry import Identity, Registry
from proxy.supervision.stale_events import StaleEventFilter
from proxy.work.services import Services

AnyDispatchEvent: TypeAlias = SubjectDispatchEvent | SessionDispatchEvent | ScanDispatchEvent
EarlyEvent: TypeAlias = AnyDispatchEvent | NewScanAvailableEvent | DeletionEvent
ActionEvent: TypeAlias = (
    EarlyEvent | ProxyNodesChangedEvent | ProxyConfigChangedEvent | ProxyStatusChangedEvent
)


UUID = re.compile("[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")

REACHABLE = frozenset({NodeState.ONLINE, NodeState.UNKNOWN})


class Supervisor:
    """Acts on events; the service makes one when the ledger is open."""

    def __init__(self, services: Services, reports: Reports, nursery: trio.Nursery) -> None:
        """Prepare; ``nursery`` is that of the work, and is cancelled when the work must stop."""
        self.registry = registry = Registry(services, nursery.cancel_scope.cancel)
        self._services = services
        self._nursery = nursery
        self._operation = registry.operation
        self._dispatches = Dispatches(services, registry, reports, nursery)
        self._deletions = Deletions(services, registry, self._dispatches, nursery)
        self._reconciler = Reconciler(
            services,
            registry,
            NodeManager(services, registry, self._dispatches, nursery),
            on_first=self._begin,
            on_active=self._set_active,
        )
        self._stale_events = StaleEventFilter(services.ledger, services.clock)
        self._unfinished: list[Unfinished] = []
        self._early_events = EarlyEvents(services.ledger, get_args(EarlyEvent))
        self.counts: Counter[str] = Counter()
        """The number of events by type, and of those that were not acted upon by reason.

        ``broken``, ``unknown``, ``failed`` for a defect, ``foreign`` where they were for another
        workspace or proxy, ``early`` where it was not known yet who we are.
        """

    async def load(self) -> None:
        """Take up what the ledger kept: the locks, the dispatches, the last good configuration."""
        ledger = self._services.ledger
        locks = read_locks(await ledger.document(LOCKS_DOCUMENT))
        for lock, kept in (locks or {}).items():
            self._operation.restore(lock, kept)
        await self._stale_events.load()
        await self._early_events.load()
        self._unfinished = await ledger.unfinished()
        await self._reconciler.load(locks_known=locks is not None)
        self._nursery.start_soon(self._reconciler.follow)

    def _begin(self) -> None:
        """Begin to dispatch: it is known now which nodes are ours."""
        unfinished, self._unfinished = self._unfinished, []
        for each in unfinished:
            self._dispatches.recover(each)
        for event in self._early_events.take():
            self._try(event)  # a deletion again: now it comes after the orders before it

    # -- Events -------------------------------------------------------------------------------

    def welcome(self, workspace_id: str, proxy_id: str) -> None:
        """Learn who we are to ITH, from its greeting."""
        self._reconciler.welcome(Identity(workspace_id, proxy_id))

    def came_online(self) -> None:
        """The link is up: ITH may have changed the configuration meanwhile."""
        self._reconciler.came_online()

    def look(self) -> None:
        """Have ITH's configuration fetched, though ITH has not spoken yet."""
        self._reconciler.look()

    async def configured(self) -> None:
        """Wait until ITH's configuration is known, as it is now if ITH answers."""
        await self._reconciler.configured()

    def handle(self, event: Incoming) -> None:
        """Act on one event, without waiting."""
        match event:
            case BrokenFrame():
                self.counts["broken"] += 1
                log("frame.broken", level="warning", reason=event.reason, size=event.size)
                if event.event_type.startswith("proxy."):
                    self._reconciler.look()  # whatever it was to tell, ITH's configuration has it
            case UnknownEvent():
                self.counts["unknown"] += 1
                log("event.unknown", level="warning", event_type=event.event_type)
            case PingEvent() | Connected() | ConfigUpdateResponse() | HealthUpdateResponse():
                pass  # the link's own affair
            case _:
                self.counts[event.event_type] += 1
                log(
                    "event.received",
                    event_type=event.event_type,
                    correlation_id=event.correlation_id,
                )
                self._try(event)

    def _is_addressed(self, proxy_id: str | None) -> bool:
        """Whether an event that names this proxy, or none, is for us; False where nobody knows."""
        name = (proxy_id or "").strip()
        return not name or is_same_id(name, self.registry.identity.proxy_id)

    def _pass_over(self, event: ProxyEvent) -> None:
        """Do not apply an event that is, or may be, for another proxy; fetch our configuration."""
        reason = "foreign" if self.registry.identity.proxy_id else "early"
        self.counts[reason] += 1
        log(
            f"event.{reason}",
            level="warning",
            event_type=event.event_type,
            entity_id=event.entity_id,
        )
        self._reconciler.look()

    def _is_foreign(self, workspace_id: str) -> bool:
        ours = self.registry.identity.workspace_id
        return bool(workspace_id and ours and workspace_id != ours)

    def _try(self, event: ActionEvent) -> None:
        """Act on an event; its fault harms no other."""
        try:
            self._act(event)
        except Exception as error:  # noqa: BLE001 - the containment boundary of one event
            self.counts["failed"] += 1
            log("event.failed", level="error", error=error)

    def _act(self, event: ActionEvent) -> None:
        match event:
            case _ if self._is_foreign(event.workspace_id):
                self.counts["foreign"] += 1
                log("event.foreign", level="warning", event_type=event.event_type)
            case SubjectDispatchEvent() | SessionDispatchEvent() | ScanDispatchEvent():
                self._dispatch(event)
            case NewScanAvailableEvent():
                self._dispatch_new_scan(event)
            case SubjectDeletedEvent() | SessionDeletedEvent() | ScanDeletedEvent():
                self._deletions.delete(event)
                if self.registry.configuration is None:  # it holds for the early orders, too
                    self._early_events.keep(event)
            case ProxyEvent() if not self._is_addressed(event.entity_id):
                self._pass_over(event)
            case ProxyEvent() if self._stale_events.is_outdated(event):
                log("event.outdated", level="warning", event_type=event.event_type)
                self._reconciler.look()
            case ProxyNodesChangedEvent():
                self._reconciler.change_nodes(event)
            case ProxyConfigChangedEvent():
                self._reconciler.change_config(event)
            case ProxyStatusChangedEvent(payload=payload):
                self._set_active(payload.is_active, f"paused by ITH ({payload.new_status})")
                self._reconciler.change_active(is_active=payload.is_active)
            case _:
                assert_never(event)

    # -- Dispatch -----------------------------------------------------------------------------

    def _dispatch(self, event: AnyDispatchEvent) -> None:
        """Begin a dispatch to those of its nodes that are ours; if none is, say nothing."""
        if self.registry.configuration is None:
            self._early_events.keep(event)
            return
        ours = [node_id for node_id in dict.fromkeys(event.payload.nodes) if self._knows(node_id)]
        if ours:
            self._start(self._order(event, ours))
        else:
            log("dispatch.not_ours", correlation_id=event.correlation_id)

    def _dispatch_new_scan(self, event: NewScanAvailableEvent) -> None:
        """Begin a dispatch to every node that gets new scans and is not known to be unreachable.

        protocol.md 4.2; which nodes get them is not settled there, so the site may choose.
        """
        if event.payload.action != "pull_and_dispatch":
            log("event.action_unknown", level="warning", event_type=event.event_type)
            return
        if self.registry.configuration is None:
            self._early_events.keep(event)
            return
        wanted = self._services.settings.dispatch.new_scans
        takers = [
            each.node_id
            for each in self.registry.nodes.values()
            if each.run.state in REACHABLE and each.configured.permission.gets_new_scans(wanted)
        ]
        if takers:
            self._start(self._order(event, takers))
        else:
            log("dispatch.no_taker", correlation_id=event.correlation_id)

    def _start(self, order: Order) -> None:
        """Begin a dispatch; where the work has stopped, keep its order for the next start."""
        if self._operation.run.over:
            self._services.ledger.post_order(order)
        else:
            self._dispatches.start(order)

    def _order(
        self, event: AnyDispatchEvent | NewScanAvailableEvent, node_ids: Sequence[str]
    ) -> Order:
        return Order(
            entity_of(event),
            tuple(node_ids),
            event.correlation_id,
            event.workspace_id or self.registry.identity.workspace_id,
            Priority(event.payload.priority),
        )

    def _knows(self, node_id: str) -> bool:
        return node_id in self.registry.nodes

    # -- Operation ----------------------------------------------------------------------------

    def pause(self, reason: str) -> bool:
        """Take the operator's lock; False if the proxy has stopped and cannot keep it."""
        self._operation.pause(PauseLock.OPERATOR, reason)
        return not self._operation.run.over

    def resume(self) -> bool:
        """Give back the operator's lock, as with :meth:`pause`; ITH may still hold its own."""
        self._operation.resume(PauseLock.OPERATOR)
        return not self._operation.run.over

    def _set_active(self, is_active: bool, reason: str | None = None) -> None:
        """Take or give back ITH's lock; without a reason, that of a lock in force stays."""
        if is_active:
            self._operation.resume(PauseLock.BACKEND)
        elif reason or not self._operation.holds(PauseLock.BACKEND):
            self._operation.pause(PauseLock.BACKEND, reason or "paused by ITH")

    def drain(self, reason: str) -> None:
        """Stop in order; a second call stops now."""
        if self._operation.drain(reason):
            self._nursery.start_soon(self._operation.tell_drained)


def is_same_id(one: str, other: str) -> bool:
    """Whether two ids of proxies can only be the same one: equal texts, or one UUID in two ways.

    ITH's documents write ``proxy_`` in front, its messages do not. Other ids are opaque.
    """
    return one.strip() == other.strip() or _uuid(one) == _uuid(other) != ""


def _uuid(id: str) -> str:
    """Return the 32 digits of a UUID; an empty text for any other id."""
    bare = id.strip().lower().removeprefix("proxy_")
    return bare.replace("-", "") if UUID.fullmatch(bare) else ""


def entity_of(event: AnyDispatchEvent | NewScanAvailableEvent) -> Entity:
    """Return the entity to dispatch, with the parents that its download URL needs."""
    match event:
        case SubjectDispatchEvent():
            return Entity(EntityType.SUBJECT, event.entity_id)
        case SessionDispatchEvent(payload=session):
            return Entity(EntityType.SESSION, event.entity_id, session.subject_id)
        case ScanDispatchEvent(payload=scan) | NewScanAvailableEvent(payload=scan):
            return Entity(EntityType.SCAN, event.entity_id, scan.subject_id, scan.session_id)
