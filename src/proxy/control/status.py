"""The status: read from the running parts at the moment of the request, and not stored."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum

from msgspec.structs import replace

from proxy import __version__
from proxy.backend.link import ConnectionRun
from proxy.control.attention import attention
from proxy.control.messages import (
    ConnectionStatus,
    DeliveryStatus,
    DispatchStatus,
    LockStatus,
    NodeStatus,
    Note,
    OperationStatus,
    Status,
)
from proxy.machines.connection import ConnectionState
from proxy.machines.delivery import DeliveryProgress, DeliveryState
from proxy.machines.operation import PauseLock
from proxy.nodes import Configuration
from proxy.supervision.reconciler import PSEUDONYMISED, PSEUDONYMS_STAY
from proxy.work.runs import DispatchAtWork, NodeAtWork, OperationRun, Site


class StatusReader:
    """Reads the status of all parts of the proxy."""

    def __init__(
        self,
        site: Site,
        connection: ConnectionRun,
        event_counts: Mapping[str, int],
        queued_reports: Callable[[], int],
        disk_usage_gb: Callable[[], float],
    ) -> None:
        self._site = site
        self._connection = connection
        self._event_counts = event_counts
        self._queued_reports = queued_reports
        self._disk_usage_gb = disk_usage_gb
        self._link_since = time.time()

    async def watch(self) -> None:
        """Note the times at which the link comes and goes; attempts in between do not count."""
        while True:
            await self._connection.until(ConnectionState.ONLINE)
            self._link_since = time.time()
            await self._connection.until(*(set(ConnectionState) - {ConnectionState.ONLINE}))
            self._link_since = time.time()

    def __call__(self) -> Status:
        """Return the present status of the proxy."""
        site = self._site
        operation = _operation(site.operation)
        connection = self._link()
        nodes = tuple(map(node_status, site.nodes.values()))
        dispatches = tuple(map(_dispatch, site.dispatches))
        problems = attention(operation, connection, nodes, is_configured=bool(site.configuration))
        return Status(
            version=__version__,
            at=_utc(time.time()),
            healthy=not problems,
            attention=problems,
            operation=operation,
            connection=connection,
            node_counts=Counter(node.state for node in nodes),
            nodes=nodes,
            dispatch_counts=Counter(dispatch.state for dispatch in dispatches),
            dispatches=dispatches,
            queued_reports=self._queued_reports(),
            disk_usage_gb=round(self._disk_usage_gb(), 3),
            notes=_notes(site.configuration),
            event_counts=dict(self._event_counts),
        )

    def _link(self) -> ConnectionStatus:
        run = self._connection
        online = run.state is ConnectionState.ONLINE
        return ConnectionStatus(_word(run.state), online, _utc(self._link_since), run.data.error)


def _notes(configuration: Configuration | None) -> tuple[Note, ...]:
    if configuration and configuration.config.enable_phi_anonymization:
        return (Note(PSEUDONYMISED, PSEUDONYMS_STAY),)
    return ()


def _operation(run: OperationRun) -> OperationStatus:
    locks = tuple(
        LockStatus(
            "backend" if lock is PauseLock.BACKEND else "operator",
            wish.reason,
            _utc(wish.since) if wish.since else None,
        )
        for lock, wish in run.data.held.items()
    )
    return OperationStatus(_word(run.state), _utc(run.since), locks)


def node_status(each: NodeAtWork) -> NodeStatus:
    """Return the status of a node."""
    run, health = each.run, each.run.data
    given = health.associations if health.associations < health.ceiling else None
    return NodeStatus(each.node_id, each.node.ae_title, _word(run.state), health.error, given)


def _dispatch(dispatch: DispatchAtWork) -> DispatchStatus:
    deliveries = []
    for node_id in dispatch.order.node_ids:
        if node_id in dispatch.whole.endings:
            outcome, progress = dispatch.whole.endings[node_id]
            deliveries.append(_delivery(node_id, outcome.value, progress))
        elif node_id in dispatch.deliveries:
            run = dispatch.deliveries[node_id].run
            deliveries.append(_delivery(node_id, _word(run.state), _current(run.state, run.data)))
    return DispatchStatus(
        correlation_id=dispatch.order.correlation_id,
        entity_type=dispatch.order.entity.type.value,
        priority=dispatch.order.priority.value,
        state=_word(dispatch.run.state),
        error=dispatch.run.data.error,
        deliveries=tuple(deliveries),
    )


def _current(state: DeliveryState, progress: DeliveryProgress) -> DeliveryProgress:
    """Leave out an error of the past: of a hold that ended, or of an attempt before this one."""
    under_way = state in {DeliveryState.WAITING, DeliveryState.STORING}
    return replace(progress, error=None) if under_way else progress


def _delivery(node_id: str, state: str, progress: DeliveryProgress) -> DeliveryStatus:
    return DeliveryStatus(
        node_id,
        state,
        progress.files_stored,
        progress.files_refused,
        progress.files_total,
        progress.error,
    )


def _word(state: Enum) -> str:
    return state.name.lower()


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
