"""The service: everything put together in one nursery, and taken apart in order.

Users end before what they use: work ends first, then the last reports leave, then the link
closes, then the ledger. Nothing is shielded on that way: the link simply outlives the work.
"""

from __future__ import annotations

import signal
import ssl
import time
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
from proxy.control.server import Control, listening
from proxy.control.status import Look
from proxy.errors import ProxyError, first
from proxy.fsm import Step
from proxy.ledger import Ledger
from proxy.logs import log
from proxy.machines.connection import CloseRequested, ConnectionState, ConnectRequested
from proxy.machines.operation import OperationState
from proxy.offload import Threads
from proxy.outbox import Outbox
from proxy.pacs.local import LocalPacs
from proxy.pacs.objects import Objects
from proxy.reports import Reports
from proxy.runner import OBSERVERS, Run
from proxy.settings import Settings
from proxy.supervisor import Supervisor
from proxy.vitals import Vitals
from proxy.wire import TcpNetwork
from proxy.work import Site

WORKER_THREADS = 8
"""For everything that blocks but the ledger, which has a thread of its own."""

DAY_SECONDS = 24 * 3600
REMEMBERED_SECONDS = 90 * DAY_SECONDS
"""An order that is repeated within this time is recognised."""


def main(settings: Settings) -> int:
    """Run the proxy in this process until a signal; return the exit code of an orderly stop.

    Raises what :func:`serve` raises, out of its group.
    """
    try:
        trio.run(partial(serve, settings))
    except* ProxyError as errors:
        raise first(errors) from None
    return 0


async def serve(
    settings: Settings,
    *,
    signals: bool = True,
    task_status: trio.TaskStatus[Supervisor] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the proxy until it is drained.

    The supervisor is the started value: whoever holds it can call ``drain``. Raises
    :class:`proxy.errors.ProxyError` where the proxy cannot work: state directory, ledger, key.
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
            site = _site(settings, ledger, pacs, backend, offload)
            reports = Reports(outbox, settings.dispatch.status_detail)
            supervisor = Supervisor(site, reports, work)
            services.start_soon(site.operation.run)
            await supervisor.load()
            disk_usage_gb = partial(_disk_usage_gb, settings.state_dir, pacs)
            vitals = Vitals(site, disk_usage_gb)
            link = Link(
                settings.ith,
                settings.token,
                supervisor,
                vitals,
                outbox,
                context=context,
                chance=site.chance,
            )
            connection = link.run()
            services.start_soon(connection.run)
            look = Look(site, connection, lambda: outbox.queued, disk_usage_gb)
            services.start_soon(look.watch)
            services.start_soon(Control(supervisor, look, ledger.settled).serve, control)
            work.start_soon(_forget, ledger)
            if signals:
                await services.start(_watch_signals, supervisor)
            connection.tell(ConnectRequested())
            log("service.started", version=__version__, state_dir=str(settings.state_dir))
            task_status.started(supervisor)
            await site.operation.until(OperationState.STOPPED)
        with trio.move_on_after(settings.service.flush_seconds):
            await outbox.flushed()
        connection.tell(CloseRequested("the program stops"))
        await connection.until(ConnectionState.CLOSED)
        services.cancel_scope.cancel("the service is stopped")
    log("service.stopped", queued=outbox.queued)


def _disk_usage_gb(state_dir: Path, pacs: LocalPacs) -> float:
    """What the state directory takes, in units of 1024³ bytes: the objects and the ledger."""
    ledger = sum(file.stat().st_size for file in state_dir.glob("ledger.db*"))
    return pacs.usage_gb + ledger / 1024**3


async def _forget(ledger: Ledger) -> None:
    """Once a day, forget the dispatches that have been over for long."""
    while True:
        forgotten = await ledger.forget_dispatches(time.time() - REMEMBERED_SECONDS)
        log("ledger.forgot", level="debug", dispatches=forgotten)
        await trio.sleep(DAY_SECONDS)


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


async def _watch_signals(
    supervisor: Supervisor, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """First signal: stop in order. Second: stop now."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        task_status.started()
        async for number in received:
            supervisor.drain(f"{signal.Signals(number).name} received")


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


def _site(
    settings: Settings, ledger: Ledger, pacs: LocalPacs, backend: Backend, offload: Threads
) -> Site:
    limits = settings.limits
    return Site(
        settings=settings,
        ledger=ledger,
        pacs=pacs,
        backend=backend,
        network=TcpNetwork(),
        offload=offload,
        archive_limits=ArchiveLimits(
            entries=limits.entries,
            entry_bytes=limits.entry_bytes,
            ratio=limits.ratio,
            reserve_bytes=int(limits.reserve_gb * 1024**3),
        ),
    )
