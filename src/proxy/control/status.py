"""The status: read from the running parts at the moment of the request, and not stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum

from msgspec.structs import replace

from proxy import __version__
from proxy.activities.dispatch import Dispatch
from proxy.activities.node import NodeAtWork
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
from proxy.fsm import Step
from proxy.machines.connection import ConnectionData, ConnectionOutput, ConnectionState
from proxy.machines.delivery import DeliveryProgress, DeliveryState
from proxy.machines.operation import OperationOutput, OperationState, PauseLock, PauseLocks
from proxy.nodes import Configuration
from proxy.runtime.clock import Clock
from proxy.supervision.reconciler import PSEUDONYMISED, PSEUDONYMS_STAY
from proxy.supervision.registry import Registry
from proxy.work.runs import OperationRun


class StatusReader:
    """Reads the status of all parts of the proxy."""

    def __init__(
        self,
        registry: Registry,
        connection: ConnectionRun,
        event_counts: Mapping[str, int],
        queued_reports: Callable[[], int],
        disk_usage_gb: Callable[[], float],
        *,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._connection = connection
        self._event_counts = event_counts
        self._queued_reports = queued_reports
        self._disk_usage_gb = disk_usage_gb
        self._clock = clock
        self._operation_since = self._link_since = clock.now()
        registry.operation.run.observe(self._note_operation)
        connection.observe(self._note_link)

    def _note_operation(
        self, _: OperationRun, step: Step[OperationState, PauseLocks, OperationOutput]
    ) -> None:
        """Note the time at which the operation changed its state."""
        if step.before is not step.after:
            self._operation_since = self._clock.now()

    def _note_link(
        self, _: ConnectionRun, step: Step[ConnectionState, ConnectionData, ConnectionOutput]
    ) -> None:
        """Note the time at which the link came or went; an attempt to connect is neither."""
        if _is_online(step.before) is not _is_online(step.after):
            self._link_since = self._clock.now()

    def __call__(self) -> Status:
        """Return how the proxy is now."""
        registry = self._registry
        operation = self._operation()
        connection = self._link()
        nodes = tuple(map(node_status, registry.nodes.values()))
        dispatches = tuple(map(_dispatch, registry.dispatches))
        problems = attention(
            operation, connection, nodes, is_configured=bool(registry.configuration)
        )
        return Status(
            version=__version__,
            at=_utc(self._clock.now()),
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
            notes=_notes(registry.configuration),
            event_counts=dict(self._event_counts),
        )

    def _operation(self) -> OperationStatus:
        run = self._registry.operation.run
        locks = tuple(
            LockStatus(
                "backend" if lock is PauseLock.BACKEND else "operator",
                kept.reason,
                _utc(kept.since) if kept.since else None,
            )
            for lock, kept in run.data.held.items()
        )
        return OperationStatus(_word(run.state), _utc(self._operation_since), locks)

    def _link(self) -> ConnectionStatus:
        run = self._connection
        online = _is_online(run.state)
        return ConnectionStatus(_word(run.state), online, _utc(self._link_since), run.data.error)


def _notes(configuration: Configuration | None) -> tuple[Note, ...]:
    if configuration and configuration.config.enable_phi_anonymization:
        return (Note(PSEUDONYMISED, PSEUDONYMS_STAY),)
    return ()


def node_status(each: NodeAtWork) -> NodeStatus:
    """Return the status of a node."""
    run, health = each.run, each.run.data
    given = health.associations if health.associations < health.ceiling else None
    error = f"{each.found}. {health.error}" if each.found and health.error else health.error
    return NodeStatus(each.node_id, each.configured.ae_title, _word(run.state), error, given)


def _dispatch(dispatch: Dispatch) -> DispatchStatus:
    deliveries = []
    endings = dispatch.group.endings
    for node_id in dispatch.order.node_ids:
        if node_id in endings:
            outcome, progress = endings[node_id]
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


def _is_online(state: Enum) -> bool:
    return state is ConnectionState.ONLINE


def _word(state: Enum) -> str:
    return state.name.lower()


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
