"""The activities of a node: asking it with C-ECHO whether it takes work."""

from __future__ import annotations

import trio

from proxy.activities.target import clocks_for, target_for
from proxy.dicom.storage import verify
from proxy.errors import NodeError, NodeUnreachable
from proxy.logs import log
from proxy.machines import node, policy
from proxy.machines.node import Health, NodeOutput, NodeState
from proxy.runner import Activity
from proxy.work import NodeAtWork, NodeRun, Site

BREAKER_FAILURES = 3
"""Failures in a row that trip the breaker."""


class NodeActivities:
    """Probes one node."""

    def __init__(self, site: Site, at: NodeAtWork) -> None:
        self._site = site
        self._at = at

    def all(self) -> dict[str, Activity[NodeState, Health, NodeOutput]]:
        """The activities by the names the machine gives them."""
        return {"probe_regularly": self.probe_regularly, "probe_once": self.probe_once}

    async def probe_regularly(self, run: NodeRun) -> None:
        """Ask at once, then at intervals, unless a delivery is talking to the node anyway."""
        interval = self._site.settings.dicom.echo_interval_seconds
        while True:
            if not self._at.slots.taken:
                await self._ask(run)
            await trio.sleep(interval * (0.9 + 0.2 * self._site.chance()))

    async def probe_once(self, run: NodeRun) -> None:
        """Ask once."""
        await self._ask(run)

    async def _ask(self, run: NodeRun) -> None:
        try:
            with trio.fail_after(self._site.settings.dicom.echo_seconds):
                await verify(
                    self._site.network,
                    target_for(self._site.settings.dicom, self._at.node),
                    clocks_for(self._site.settings.dicom, self._at.node),
                )
        except NodeError as error:
            self._failed(run, error)
        except trio.TooSlowError:
            self._failed(run, NodeUnreachable("timeout", "no answer to C-ECHO in time"))
        else:
            run.tell(node.NodeAnswered())

    def _failed(self, run: NodeRun, error: NodeError) -> None:
        log("node.unreachable", level="debug", node_id=self._at.id, problem=str(error))
        run.tell(fault_of(self._site, run, str(error)))


def fault_of(site: Site, run: NodeRun, error: str) -> node.NodeFailed | node.BreakerTripped:
    """What one more failure means to the node's run; a failed probe keeps the breaker open."""
    probing = run.state in {NodeState.PROBING, NodeState.OFFLINE}
    return policy.node_failed(
        run.data,
        error,
        threshold=1 if probing else BREAKER_FAILURES,
        interval=site.settings.dicom.echo_interval_seconds,
        cap=site.settings.dicom.retry_max_seconds,
        chance=site.chance(),
    )
