"""The service: starts all parts in one nursery, and stops them in order.

A part stops before the parts that it uses: work ends first, then the last reports leave, then the
link closes, then the ledger. No step of it is shielded: the link simply outlives the work.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
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
from proxy.pacs.local import LocalPacs, Objects
from proxy.reporting.outbox import Outbox
from proxy.reporting.reports import Reports
from proxy.runtime.clock import SYSTEM_CLOCK, Clock
from proxy.runtime.offload import Offload, Threads
from proxy.runtime.rng import SYSTEM_RANDOM, Random
from proxy.runtime.runner import Run, observing
from proxy.runtime.signals import ProcessSignals
from proxy.runtime.wire import TCP_NETWORK, Network
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
    network: Network = TCP_NETWORK,
    offload: Callable[[int], Offload] = Threads,
    clock: Clock = SYSTEM_CLOCK,
    rng: Random = SYSTEM_RANDOM,
    task_status: trio.TaskStatus[Supervisor] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the proxy until it is drained.

    The started value is the supervisor, whose ``drain`` ends the run. Raises
    :class:`proxy.errors.ProxyError` if the state directory, the ledger or the key cannot be used.

    A simulation gives a world of its own. ``network`` reaches the nodes. ``offload`` makes a runner
    of blocking functions, for so many at a time. ``clock`` tells the wall-clock time, ``rng`` makes
    every random choice. trio's own hooks replace its clock and the network to ITH:
    ``trio.run(..., clock=...)``, ``trio.socket.set_custom_socket_factory`` and
    ``trio.socket.set_custom_hostname_resolver``. The disk and the control socket stay real.
    """
    context = system_trust(Path(settings.ith.ca_file) if settings.ith.ca_file else None)
    workers = offload(WORKER_THREADS)
    async with (
        _steps_logged(),
        Ledger.open(settings.state_dir / "ledger.db", offload(1), clock=clock) as ledger,
        listening(settings.state_dir) as control,
        Backend(
            _rest_settings(settings),
            settings.token.reveal(),
            workers,
            clock=clock,
            rng=rng,
            context=context,
        ) as backend,
        trio.open_nursery() as services,
    ):
        pacs = LocalPacs(ledger, Objects(settings.state_dir), workers)
        checked = await pacs.janitor()
        log("pacs.checked", dropped=checked.removed, entries=checked.damaged)
        outbox = Outbox(ledger, progress_interval=settings.dispatch.progress_seconds)
        await outbox.load()
        async with trio.open_nursery() as work:
            reports = Reports(outbox, settings.dispatch.status_detail, clock)
            at_work = Services(
                settings=settings,
                ledger=ledger,
                pacs=pacs,
                backend=backend,
                network=network,
                offload=workers,
                clock=clock,
                rng=rng,
                archive_limits=_archive_limits(settings),
            )
            supervisor = Supervisor(at_work, reports, work)
            registry = supervisor.registry
            services.start_soon(registry.operation.run.run)
            await supervisor.load()
            disk_usage_gb = partial(_disk_usage_gb, settings.state_dir, pacs)
            heartbeat = Heartbeat(settings.local, registry, disk_usage_gb, clock=clock, rng=rng)
            link = Link(
                settings.ith,
                settings.token,
                supervisor,
                heartbeat,
                outbox,
                context=context,
                clock=clock,
                rng=rng,
            )
            connection = link.run()
            services.start_soon(connection.run)
            look = StatusReader(
                registry,
                connection,
                supervisor.counts,
                lambda: outbox.queued,
                disk_usage_gb,
                clock=clock,
            )
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
    with observing(_log_step):
        yield


def _log_step(run: Run[Any, Any, Any], step: Step[Any, Any, Any]) -> None:
    log(
        "machine.stepped",
        level="debug",
        machine=run.machine.name,
        row=step.row,
        before=step.before,
        after=step.after,
    )


def _rest_settings(settings: Settings) -> RestSettings:
    ith, limits = settings.ith, settings.limits
    return RestSettings(
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


def _archive_limits(settings: Settings) -> ArchiveLimits:
    limits = settings.limits
    return ArchiveLimits(
        entries=limits.entries,
        entry_bytes=limits.entry_bytes,
        ratio=limits.ratio,
        reserve_bytes=int(limits.reserve_gb * 1024**3),
    )
