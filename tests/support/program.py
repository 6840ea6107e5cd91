"""The parts of the program without the link: real ledger, local PACS, HTTP, and real nodes.

    async with running_program(directory, backend) as program:
        await program.configured()
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.over(order)

A frame of ITH goes to the supervisor directly. Reports are taken from the outbox, as the link does.
The HTTP server is the embedded backend.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import trio

from proxy.activities.delivery.delivery import Delivery
from proxy.activities.dispatch import Dispatch
from proxy.backend.archive import ArchiveLimits
from proxy.backend.fetch import FetchLimits
from proxy.backend.rest import Backend, RestSettings
from proxy.demo import frames
from proxy.demo.archives import zip_session
from proxy.demo.backend import DemoBackend
from proxy.demo.encoding import SampleInstance
from proxy.demo.frames import JsonObject
from proxy.demo.node import DemoNode
from proxy.demo.sample import Study, ct_series
from proxy.events.codec import decode
from proxy.ledger import Ledger
from proxy.machines.delivery import DeliveryState
from proxy.machines.dispatch import DispatchState
from proxy.machines.node import NodeState
from proxy.nodes import NewScans, Repush
from proxy.pacs.local import LocalPacs, Objects
from proxy.reporting.outbox import Outbox
from proxy.reporting.reports import Detail, Reports
from proxy.runtime.clock import SYSTEM_CLOCK, Clock
from proxy.runtime.offload import Inline, Threads
from proxy.runtime.rng import SYSTEM_RANDOM, Random
from proxy.runtime.wire import Network, TcpNetwork
from proxy.settings import (
    DicomSettings,
    DispatchSettings,
    LimitSettings,
    Secret,
    ServiceSettings,
    Settings,
)
from proxy.supervision.heartbeat import Heartbeat
from proxy.supervision.supervisor import Supervisor
from proxy.work.services import Services
from tests.support.waiting import until

FINAL = ("completed", "failed")

QUICK = DicomSettings(
    connect_seconds=2.0,
    answer_seconds=2.0,
    stall_seconds=5.0,
    response_seconds=10.0,
    release_seconds=1.0,
    cancel_seconds=1.0,
    retry_delay_seconds=0.1,
    retry_max_seconds=0.5,
    echo_interval_seconds=1.0,
    echo_seconds=2.0,
)


class Program:
    """The running parts of the program, and the frames it sent."""

    def __init__(
        self, services: Services, supervisor: Supervisor, outbox: Outbox, backend: DemoBackend
    ) -> None:
        self.services = services
        self.registry = supervisor.registry
        self.supervisor = supervisor
        self.outbox = outbox
        self.backend = backend
        self.heartbeat = Heartbeat(
            services.settings.local,
            self.registry,
            lambda: services.pacs.usage_gb,
            clock=services.clock,
            rng=services.rng,
        )
        self.heard: list[JsonObject] = []

    def tell(self, frame: JsonObject | str) -> str:
        """Hand a frame of ITH to the program; return its correlation id."""
        text = frame if isinstance(frame, str) else json.dumps(frame)
        self.supervisor.handle(decode(text))
        return str(frame["correlation_id"]) if isinstance(frame, dict) else ""

    async def listen(self) -> None:
        """Take the reports as a link does, each proven at once."""
        while True:
            parcel = await self.outbox.take()
            self.outbox.sent(parcel)
            self.outbox.confirm(self.outbox.mark())
            self.heard.append(json.loads(parcel.frame))

    # Waiting ------------------------------------------------------------------------------

    async def until(self, happened: Callable[[], object]) -> None:
        """Wait until ``happened`` is true."""
        await until(happened)

    async def configured(self) -> None:
        """Have the configuration fetched, and wait until it is applied."""
        self.supervisor.came_online()
        await self.until(lambda: self.registry.configuration is not None)

    async def online(self) -> None:
        """Wait until every node has answered."""
        nodes = self.registry.nodes
        await self.until(lambda: all(n.run.state is NodeState.ONLINE for n in nodes.values()))

    async def over(self, correlation_id: str, node_id: str | None = None) -> JsonObject:
        """Wait for a final report, of a node or of the dispatch, and return its payload."""
        await self.until(lambda: self.final(correlation_id, node_id) is not None)
        payload = self.final(correlation_id, node_id)
        assert payload is not None
        return payload

    async def idle(self) -> None:
        """Wait until no dispatch is running, and check that no turn is in use."""
        await self.until(lambda: not self.registry.dispatches)
        assert self.turns_taken() == 0

    # Looking ------------------------------------------------------------------------------

    def statuses(self, correlation_id: str) -> list[JsonObject]:
        """Return the payloads of the reports of a dispatch."""
        return [
            frame["payload"]
            for frame in self.heard
            if frame["event_type"] == "dispatch.status"
            and frame["correlation_id"] == correlation_id
        ]

    def stream(self, correlation_id: str, node_id: str | None = None) -> list[JsonObject]:
        """Return the payloads of one node's stream, or of the dispatch's."""
        return [p for p in self.statuses(correlation_id) if p.get("node_id") == node_id]

    def final(self, correlation_id: str, node_id: str | None = None) -> JsonObject | None:
        """Return the final payload (completed or failed), None while there is none."""
        payloads = self.stream(correlation_id, node_id)
        return next((p for p in payloads if p["status"] in FINAL), None)

    def finals(self, correlation_id: str) -> list[JsonObject]:
        """Return the final payloads of every stream."""
        return [p for p in self.statuses(correlation_id) if p["status"] in FINAL]

    def turns_taken(self) -> int:
        """Return the number of turns in use, of downloads and associations."""
        nodes = self.registry.nodes.values()
        return self.registry.downloads.in_use + sum(node.queue.in_use for node in nodes)

    def dispatch(self, correlation_id: str) -> Dispatch:
        """Return a running dispatch."""
        return next(
            at for at in self.registry.dispatches if at.order.correlation_id == correlation_id
        )

    def delivery(self, correlation_id: str, node_id: str) -> Delivery:
        """Return a delivery of a running dispatch."""
        return self.dispatch(correlation_id).deliveries[node_id]

    def dispatch_state(self, correlation_id: str) -> DispatchState | None:
        """Return the state of a dispatch; None if it is not running."""
        for at in self.registry.dispatches:
            if at.order.correlation_id == correlation_id:
                return at.run.state
        return None

    def state(self, correlation_id: str, node_id: str) -> DeliveryState | None:
        """Return the state of a delivery; None if it is not running."""
        for at in self.registry.dispatches:
            if at.order.correlation_id == correlation_id and node_id in at.deliveries:
                return at.deliveries[node_id].run.state
        return None


@asynccontextmanager
async def running_program(
    directory: Path,
    backend: DemoBackend,
    *,
    detail: Detail = "both",
    dicom: Mapping[str, object] = {},
    downloads: int = 3,
    limits: Mapping[str, int] = {},
    drain_seconds: float = 5.0,
    network: Network | None = None,
    ledger_offload: Inline | Threads | None = None,
    listens: bool = True,
    repush: Repush = "new",
    new_scans: NewScans = "read",
    clock: Clock = SYSTEM_CLOCK,
    rng: Random = SYSTEM_RANDOM,
) -> AsyncIterator[Program]:
    """Run the parts while the block lasts, then cut them as a crash after a commit would."""
    settings = Settings(
        dicom=msgspec.structs.replace(QUICK, **dicom),
        dispatch=DispatchSettings(
            status_detail=detail, progress_seconds=0.1, repush=repush, new_scans=new_scans
        ),
        limits=LimitSettings(downloads=downloads, reserve_gb=0.0, **limits),
        service=ServiceSettings(drain_seconds=drain_seconds, flush_seconds=1.0),
        state_dir=directory,
        token=Secret(backend.key),
    )
    rest = RestSettings(
        url=backend.url,
        fetch=FetchLimits(first_byte_seconds=10.0, stall_seconds=5.0, backoff_seconds=0.05),
        reserve_bytes=0,
    )
    offload = Threads(4)
    async with (
        Ledger.open(directory / "ledger.db", ledger_offload or Inline()) as ledger,
        Backend(rest, backend.key, offload, clock=clock, rng=rng) as client,
        trio.open_nursery() as services,
    ):
        pacs = LocalPacs(ledger, Objects(directory), offload)
        await pacs.janitor()
        outbox = Outbox(ledger, progress_interval=0.02)
        await outbox.load()
        shared = Services(
            settings=settings,
            ledger=ledger,
            pacs=pacs,
            backend=client,
            network=network or TcpNetwork(),
            offload=offload,
            clock=clock,
            rng=rng,
            archive_limits=ArchiveLimits(reserve_bytes=0),
        )
        program: Program = await services.start(_work, shared, outbox, detail, backend)
        if listens:
            services.start_soon(program.listen)
        yield program
        services.cancel_scope.cancel("the test is over")


async def _work(
    services: Services,
    outbox: Outbox,
    detail: Detail,
    backend: DemoBackend,
    *,
    task_status: trio.TaskStatus[Program],
) -> None:
    """Let the supervisor run in a nursery that it may cancel when it stops."""
    async with trio.open_nursery() as work:
        supervisor = Supervisor(services, Reports(outbox, detail, services.clock), work)
        work.start_soon(supervisor.registry.operation.run.run)
        await supervisor.load()
        task_status.started(Program(services, supervisor, outbox, backend))
        await trio.sleep_forever()


@asynccontextmanager
async def some_nodes(*node_ids: str) -> AsyncIterator[list[DemoNode]]:
    """Run nodes of these ids."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(DemoNode(node_id.upper(), node_id=node_id).running())
            for node_id in node_ids
        ]


def configure(backend: DemoBackend, nodes: Sequence[DemoNode | JsonObject]) -> None:
    """Put these nodes into ITH's configuration."""
    backend.rest.configuration = frames.configuration(
        [described(node) if isinstance(node, DemoNode) else node for node in nodes]
    )


def described(node: DemoNode, **more: object) -> JsonObject:
    """A node as ITH's configuration has it."""
    return frames.rest_node(node.node_id, node.ae_title, node.host, node.port, **more)


def in_event(node: DemoNode, **more: object) -> JsonObject:
    """A node as ``proxy.nodes_changed`` has it."""
    return frames.event_node(node.node_id, node.ae_title, node.host, node.port, **more)


def offer(
    backend: DemoBackend, session_id: str = "sess-1", *, slices: int = 4, seed: int = 1
) -> list[SampleInstance]:
    """Offer a session of a few small slices at ITH."""
    instances = ct_series(Study(seed), slices=slices, size=16)
    backend.rest.offer("session", session_id, zip_session(instances))
    return instances


def uids(instances: Sequence[SampleInstance]) -> set[str]:
    """Return the UIDs of these instances."""
    return {instance.sop_instance_uid for instance in instances}
