"""The activities of a node: asking it with C-ECHO whether it is there."""

from __future__ import annotations

import trio

from proxy.activities.target import clocks_for, target_for
from proxy.dicom.storage import verify
from proxy.errors import NodeError, NodeUnreachable
from proxy.logs import log
from proxy.machines import node, policy
from proxy.machines.failures import is_answer
from proxy.machines.node import Health, NodeOutput, NodeState
from proxy.nodes import Node
from proxy.runtime.runner import Activity
from proxy.work.runs import NodeAtWork, NodeRun, Site

BREAKER_FAILURES = 3
"""Failures in a row that trip the breaker."""


class NodeActivities:
    """Probes one node."""

    def __init__(self, site: Site, at: NodeAtWork) -> None:
        self._site = site
        self._at = at

    def all(self) -> dict[str, Activity[NodeState, Health, NodeOutput]]:
        """The activities by the names the machine gives them."""
        return {
            "probe_first": self.probe,
            "probe_regularly": self.probe_regularly,
            "probe_once": self.probe,
        }

    async def probe(self, run: NodeRun) -> None:
        """Ask at once, and again where that says nothing of the node."""
        while not await self._ask(run):
            pass

    async def probe_regularly(self, run: NodeRun) -> None:
        """Ask at intervals, unless a delivery is talking to the node anyway."""
        interval = self._site.settings.dicom.echo_interval_seconds
        while True:
            await trio.sleep(interval * (0.9 + 0.2 * self._site.rng.random()))
            if not self._at.queue.in_use:
                await self._ask(run)

    async def _ask(self, run: NodeRun) -> bool:
        """Tell the run what C-ECHO found out; return whether that says anything of the node.

        It does not where the node's address changed meanwhile. Nor does a failure while a
        delivery has an association: many nodes take one at a time, and the delivery will tell.
        """
        asked = self._at.node
        with trio.CancelScope() as self._at.asking:
            error = await self._verify(asked)
            if error is not None and self._at.queue.in_use:
                await trio.sleep(self._site.settings.dicom.echo_seconds)
                return False
        if self._at.asking.cancelled_caught or asked.address != self._at.node.address:
            return False
        if error is None:
            run.tell(node.NodeEchoed())
        else:
            self._failed(run, error)
        return True

    async def _verify(self, asked: Node) -> NodeError | None:
        """Ask; return why it may not be there.

        Any answer shows that it is: many nodes take C-STORE and refuse C-ECHO, each in its way.
        """
        dicom, accepted = self._site.settings.dicom, trio.Event()
        target, clocks = target_for(dicom, asked), clocks_for(dicom, asked)
        problem: NodeError
        try:
            async with self._at.echo:
                with trio.fail_after(dicom.echo_seconds):
                    await verify(self._site.network, target, clocks, accepted.set)
        except NodeError as error:
            problem = error
        except trio.TooSlowError:
            problem = NodeUnreachable("timeout", "The node does not answer C-ECHO in time")
        else:
            return None
        if not (accepted.is_set() or is_answer(problem)):
            return problem
        log("node.echo_refused", level="debug", node_id=asked.node_id, problem=str(problem))
        return None

    def _failed(self, run: NodeRun, error: NodeError) -> None:
        log("node.unreachable", level="debug", node_id=self._at.node_id, problem=str(error))
        run.tell(fault_of(self._site, run, error.in_full, is_probe=True))


def fault_of(
    site: Site, run: NodeRun, error: str, *, is_probe: bool
) -> node.NodeFailed | node.BreakerTripped:
    """What one more failure means to the node's run; a failed probe keeps the breaker open."""
    return policy.node_failed(
        run.data,
        error,
        is_open=run.state in {NodeState.PROBING, NodeState.OFFLINE},
        is_probe=is_probe,
        threshold=BREAKER_FAILURES,
        interval=site.settings.dicom.echo_interval_seconds,
        cap=site.settings.dicom.retry_max_seconds,
        uniform=site.rng.random(),
    )
