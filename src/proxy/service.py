"""The service: starts all parts in one nursery, and stops them in order.

A part stops before the parts that it uses: work ends first, then the last reports leave, then the
link closes, then the ledger. No step of it is shielded: the link simply outlives the work.
"""

from __future__ import annotations

import random
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from proxy import __version__
from proxy.backend.archive import ArchiveLimits
from proxy.backend.fetch import FetchLimits
from proxy.backend.link import Link
from proxy.backend.rest import Backend, RestSettings
from proxy.backend.trust import system_trust
from proxy.control.server import ControlServer, listening
from proxy.control.status import StatusReader
from proxy.errors import ProxyError, first
from proxy.fsm import Step
from proxy.ledger import Ledger
from proxy.logs import log
from proxy.machines.connection import CloseRequested, ConnectionState, ConnectRequested
from proxy.machines.operation import OperationState
from proxy.pacs.local import LocalPacs
from proxy.pacs.objects import Objects
from proxy.reporting.outbox import Outbox
from proxy.reporting.reports import Reports
from proxy.runtime.clock import SystemClock
from proxy.runtime.offload import Threads
from proxy.runtime.runner import OBSERVERS, Run
from proxy.runtime.signals import ProcessSignals
from proxy.runtime.wire import TcpNetwork
from proxy.settings import Settings
from proxy.supervision.heartbeat import Heartbeat
from proxy.supervision.retention import forget_regularly
from proxy.supervision.supervisor import Supervisor
from proxy.work.services import Services

WORKER_THREADS = 8
"""Threads for all blocking calls but those of the ledger, which has a thread of its own."""


def main(settings: Settings, signals: ProcessSignals) -> int:
    """Run the proxy in this process until a signal; return the exit code of an orderly stop.

    Raises the errors of :func:`serve`, taken out of their exception group.
    """
    try:
        trio.run(serve_until_signal, settings, signals)
    except BaseExceptionGroup as errors:
        foreseen, others = errors.split(ProxyError)
        if foreseen is None or others is not None:
            raise
        raise first(foreseen) from None
    return 0


async def serve_until_signal(
    settings: Settings,
    signals: ProcessSignals,
    *,
    task_status: trio.TaskStatus[Supervisor] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the proxy; the first signal to stop drains it, the second one stops it at once.

    During the start there is no work to drain, so the first one ends the program. The started
    value and the errors raised are those of :func:`serve`.
    """
    supervisor: Supervisor | None = None
    with signals.received() as received:
        async with trio.open_nursery() as watching:
            async with trio.open_nursery() as serving:

                async def watch() -> None:
                    async for number in received:
                        name = signal.Signals(number).name
                        if number in signals.ignored:
                            hint = signals.ignored[number]
                            log("signal.ignored", level="warning", signal=name, hint=hint)
                        elif supervisor is not None:
                            supervisor.drain(f"{name} received")
                        else:
                            log("service.stopped", reason=f"{name} received while it started")
                            serving.cancel_scope.cancel(f"{name} received")
                            return

                watching.start_soon(watch)
                supervisor = await serving.start(serve, settings)
                task_status.started(supervisor)
            watching.cancel_scope.cancel("the service is over")


async def serve(
    settings: Settings,
    *,
    task_status: trio.TaskStatus[Supervisor] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the proxy until it is drained.

    The started value is the supervisor, whose ``drain`` ends the run. Raises
    :class:`proxy.errors.ProxyError` if the state directory, the ledger or the key cannot be used.
    """
    context = system_trust(Path(settings.ith.ca_file) if settings.ith.ca_file else None)
    offload = Threads(WORKER_THREADS)
    async with (
        _steps_logged(),
        Ledger.open(settings.state_dir / "ledger.db", Threads(1)) as ledger,
        listening(settings.state_dir) as control,
        _backend(settings, offload, context) as backend,
        trio.open_nursery() as services,
    ):
        pacs = LocalPacs(ledger, Objects(settings.state_dir), offload)
        checked = await pacs.janitor()
        log("pacs.checked", dropped=checked.removed, entries=checked.damaged)
        outbox = Outbox(ledger, progress_interval=settings.dispatch.progress_seconds)
        await outbox.load()
        async with trio.open_nursery() as work:
            reports = Reports(outbox, settings.dispatch.status_detail)
            at_work = _services(settings, ledger, pacs, backend, offload)
            supervisor = Supervisor(at_work, reports, work)
            registry = supervisor.registry
            services.start_soon(registry.operation.run.run)
            await supervisor.load()
            disk_usage_gb = partial(_disk_usage_gb, settings.state_dir, pacs)
            heartbeat = Heartbeat(settings.local, registry, disk_usage_gb)
            link = Link(
                settings.ith,
                settings.token,
                supervisor,
                heartbeat,
                outbox,
                context=context,
                chance=at_work.rng.random,
            )
            connection = link.run()
            services.start_soon(connection.run)
            look = StatusReader(
                registry, connection, supervisor.counts, lambda: outbox.queued, disk_usage_gb
            )
            services.start_soon(look.watch)
            services.start_soon(ControlServer(supervisor, look, ledger.settled).serve, control)
            work.start_soon(forget_regularly, ledger)
            connection.tell(ConnectRequested())
            log("service.started", version=__version__, state_dir=str(settings.state_dir))
            task_status.started(supervisor)
            await registry.operation.run.until(OperationState.STOPPED)
        with trio.move_on_after(settings.service.flush_seconds):
            await outbox.flushed()
        connection.tell(CloseRequested("the program stops"))
        await connection.until(ConnectionState.CLOSED)
        services.cancel_scope.cancel("the service is stopped")
    log("service.stopped", queued=outbox.queued)


def _disk_usage_gb(state_dir: Path, pacs: LocalPacs) -> float:
    """The size of the state directory in units of 1024³ bytes: the objects and the ledger."""
    ledger = sum(file.stat().st_size for file in state_dir.glob("ledger.db*"))
    return pacs.usage_gb + ledger / 1024**3


@asynccontextmanager
async def _steps_logged() -> AsyncIterator[None]:
    """Log every step of every machine at level debug."""

    def log_step(run: Run[Any, Any, Any], step: Step[Any, Any, Any]) -> None:
        log(
            "machine.stepped",
            level="debug",
            machine=run.machine.name,
            row=step.row,
            before=step.before,
            after=step.after,
        )

    OBSERVERS.append(log_step)
    try:
        yield
    finally:
        OBSERVERS.remove(log_step)


def _backend(settings: Settings, offload: Threads, context: ssl.SSLContext) -> Backend:
    ith, limits = settings.ith, settings.limits
    rest = RestSettings(
        url=ith.url,
        download_hosts=ith.download_hosts,
        allow_insecure=ith.allow_insecure,
        archive_format=ith.archive_format,
        compression_level=ith.compression_level,
        fetch=FetchLimits(
            first_byte_seconds=ith.first_byte_seconds,
            stall_seconds=ith.download_stall_seconds,
            attempts=ith.download_attempts,
        ),
        max_bytes=limits.archive_bytes or None,
        reserve_bytes=int(limits.reserve_gb * 1024**3),
    )
    return Backend(rest, settings.token.reveal(), offload, context=context)


def _services(
    settings: Settings, ledger: Ledger, pacs: LocalPacs, backend: Backend, offload: Threads
) -> Services:
    limits = settings.limits
    return Services(
        settings=settings,
        ledger=ledger,
        pacs=pacs,
        backend=backend,
        network=TcpNetwork(),
        offload=offload,
        clock=SystemClock(),
        rng=random.Random(),  # noqa: S311 - for jitter, not for secrets
        archive_limits=ArchiveLimits(
            entries=limits.entries,
            entry_bytes=limits.entry_bytes,
            ratio=limits.ratio,
            reserve_bytes=int(limits.reserve_gb * 1024**3),
        ),
    )
