"""A node: its run, its C-ECHO, its fair queue of associations, and the effects of its outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from proxy.dicom.association import Target
from proxy.dicom.storage import verify
from proxy.errors import AssociationLost, AssociationRejected, NodeError, NodeUnreachable
from proxy.logs import log
from proxy.machines import node, policy
from proxy.machines.failures import is_answer
from proxy.machines.node import NODE, Health, NodeOutput, NodeState
from proxy.machines.upper_layer import Clocks
from proxy.model import EntityType
from proxy.nodes import Effect, Node, Repush
from proxy.runtime.runner import Run
from proxy.work.fair_queue import FairQueue
from proxy.work.runs import NodeRun, log_fault
from proxy.work.services import Services

BREAKER_FAILURES = 3
"""Failures in a row that trip the breaker."""
AGING_INSTANCES = 100
"""After so many the delivery that has waited longest is next, whatever its priority."""


class Leader(Protocol):
    """The one delivery of an entity that may send to a node; the others follow it."""

    @property
    def advanced(self) -> trio.Event:
        """Set, and replaced, whenever the delivery got farther."""
        ...

    def promote(self, rank: int) -> None:
        """Send as urgently as one that follows wants to be sent."""
        ...


class NodeAtWork:
    """One configured node at work; ``configured`` is replaced by a change of the configuration.

    ``leaders`` has the leading delivery of each entity. ``backlog`` counts, by the rank of
    priority, the deliveries that have their content and are not over. ``established`` counts the
    deliveries with an association that the node has accepted, and ``has_accepted`` says whether it
    has accepted one at all. ``found`` says what answers in its place, for the status alone.
    """

    def __init__(
        self, services: Services, configured: Node, *, on_open: Callable[[str], None]
    ) -> None:
        """Prepare a node; ``on_open`` is called with its id when its gate opens."""
        self.node_id = configured.node_id
        self.configured = configured
        self.queue = FairQueue(
            services.settings.dicom.associations_per_node,
            quantum=services.settings.dicom.turn_instances or None,
            aging=AGING_INSTANCES,
        )
        self.leaders: dict[tuple[EntityType, str], Leader] = {}
        self.backlog: Counter[int] = Counter()
        self.established = 0
        self.has_accepted = False
        self.found = ""
        self._services = services
        self._on_open = on_open
        self._echo = trio.Lock()
        self._asking = trio.CancelScope()
        self.run: NodeRun = Run(
            NODE,
            Health(associations=self.queue.limit, ceiling=self.queue.limit),
            {
                "probe_first": self._probe,
                "probe_regularly": self._probe_regularly,
                "probe_once": self._probe,
            },
            self._on_output,
            on_fault=log_fault,
        )
        if not configured.is_active:
            self.run.tell(node.DisableRequested())

    # -- Its own values go before the settings ----------------------------------------------------

    @property
    def target(self) -> Target:
        """The address of the node, both AE titles and the PDU size."""
        settings, configured = self._services.settings.dicom, self.configured
        return Target(
            host=configured.host,
            port=configured.port,
            called_ae_title=configured.ae_title,
            calling_ae_title=configured.calling_ae_title or settings.ae_title,
            max_pdu_size=configured.max_pdu_size or settings.max_pdu_size,
        )

    @property
    def clocks(self) -> Clocks:
        """The limits of waiting of an association."""
        settings, own = self._services.settings.dicom, self.configured.connection_timeout
        return Clocks(
            connect=own or settings.connect_seconds,
            answer=own or settings.answer_seconds,
            stall=settings.stall_seconds,
            response=settings.response_seconds,
            response_per_megabyte=settings.response_seconds_per_megabyte,
            release=settings.release_seconds,
        )

    @property
    def retries(self) -> tuple[int, float]:
        """The number of attempts after the first, and the seconds before the first of them."""
        settings = self._services.settings.dicom
        count, delay = self.configured.retry_count, self.configured.retry_delay
        return (
            settings.retry_count if count is None else count,
            settings.retry_delay_seconds if delay is None else delay,
        )

    @property
    def repush(self) -> Repush:
        """The choice among the instances that the node has confirmed before."""
        return self.configured.repush or self._services.settings.dispatch.repush

    # -- Deliveries ask and tell ------------------------------------------------------------------

    async def echoed(self) -> None:
        """Wait for the end of a C-ECHO: the node may take no association beside it."""
        async with self._echo:
            pass

    async def takes_our_titles(self) -> bool:
        """Ask by C-ECHO whether the node takes associations under these AE titles now.

        A node that takes one association at a time takes none for C-ECHO beside another one.
        """
        problem, accepted = await self._verify()
        if problem is None:
            self.run.tell(node.NodeEchoed())
            return True
        was_refused_inside = accepted and not isinstance(problem, AssociationLost)
        # Some take no association for C-ECHO; they took another one under these titles before.
        is_known = self.has_accepted and not self.established
        return was_refused_inside or (is_known and isinstance(problem, AssociationRejected))

    @contextmanager
    def associated(self) -> Iterator[None]:
        """Count an association as established while the block lasts."""
        self.established += 1
        self.has_accepted = True
        self.found = ""
        try:
            yield
        finally:
            self.established -= 1

    def failed(self, error: str, *, is_probe: bool) -> None:
        """Count one more failure; a failed probe keeps the breaker open."""
        settings, run = self._services.settings.dicom, self.run
        run.tell(
            policy.node_failed(
                run.data,
                error,
                is_open=run.state in {NodeState.PROBING, NodeState.OFFLINE},
                is_probe=is_probe,
                threshold=BREAKER_FAILURES,
                interval=settings.echo_interval_seconds,
                cap=settings.retry_max_seconds,
                uniform=self._services.rng.random(),
            )
        )

    # -- The configuration changes ----------------------------------------------------------------

    def apply(self, effect: Effect) -> None:
        """Do to the node what a change of the configuration does to it."""
        match effect:
            case Effect.CANCEL:
                self.run.tell(node.RemoveRequested())
            case Effect.HOLD:
                self.run.tell(node.DisableRequested())
            case Effect.RESUME:
                self.run.tell(node.EnableRequested())
            case Effect.RESTART:
                self._asking.cancel(effect.value)
                self.has_accepted = False
                self.run.tell(node.ChangeRequested())

    # -- Activities -------------------------------------------------------------------------------

    async def _probe(self, run: NodeRun) -> None:
        """Ask at once, and again where that says nothing of the node."""
        while not await self._ask(run):
            pass

    async def _probe_regularly(self, run: NodeRun) -> None:
        """Ask at intervals, unless a delivery is talking to the node anyway."""
        interval = self._services.settings.dicom.echo_interval_seconds
        while True:
            await trio.sleep(interval * (0.9 + 0.2 * self._services.rng.random()))
            if not self.queue.in_use:
                await self._ask(run)

    async def _ask(self, run: NodeRun) -> bool:
        """Tell the run what C-ECHO found out; return whether that says anything of the node.

        It does not where the node's address changed meanwhile. Nor does a failure while a
        delivery has an association: many nodes take one at a time, and the delivery will tell.
        """
        asked = self.configured
        with trio.CancelScope() as self._asking:
            error = await self._unanswered()
            if error is not None and self.queue.in_use:
                await trio.sleep(self._services.settings.dicom.echo_seconds)
                return False
        if self._asking.cancelled_caught or asked.address != self.configured.address:
            return False
        self.found = error.found if error else ""
        if error is None:
            run.tell(node.NodeEchoed())
        else:
            log("node.unreachable", level="debug", node_id=self.node_id, problem=error.on_site)
            self.failed(error.in_full, is_probe=True)
        return True

    async def _unanswered(self) -> NodeError | None:
        """Send a C-ECHO; return the error that says the node may not be there.

        Any answer shows that it is: many nodes take C-STORE and refuse C-ECHO, each in its way.
        """
        problem, accepted = await self._verify()
        if problem is None or not (accepted or is_answer(problem)):
            return problem
        log("node.echo_refused", level="debug", node_id=self.node_id, problem=problem.on_site)
        return None

    async def _verify(self) -> tuple[NodeError | None, bool]:
        """Send a C-ECHO; return its error, if any, and whether the node took the association."""
        target, clocks, accepted = self.target, self.clocks, trio.Event()
        problem: NodeError
        try:
            async with self._echo:
                with trio.fail_after(self._services.settings.dicom.echo_seconds):
                    await verify(self._services.network, target, clocks, accepted.set)
        except NodeError as error:
            problem = error
        except trio.TooSlowError:
            problem = NodeUnreachable("timeout", "The node does not answer C-ECHO in time")
        else:
            return None, True
        return problem, accepted.is_set()

    # -- Outputs ----------------------------------------------------------------------------------

    def _on_output(self, output: NodeOutput) -> None:
        match output:
            case node.OpenGate():
                log("node.admitted", node_id=self.node_id)
                self._on_open(self.node_id)
            case node.CloseGate(error):
                log("node.given_up", level="warning", node_id=self.node_id, problem=error)
            case node.LimitAssociations(associations):
                log("node.associations", node_id=self.node_id, associations=associations)
                self.queue.limit = associations
