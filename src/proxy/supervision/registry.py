"""The registry: all work, and the identity of this proxy. Each field has one writer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from proxy.activities.dispatch import DispatchRegistry
from proxy.activities.node import NodeAtWork
from proxy.nodes import Configuration
from proxy.supervision.operation import Operation
from proxy.work.fair_queue import FairQueue
from proxy.work.scheduler import backlog_limit
from proxy.work.services import Services


@dataclass(frozen=True)
class Identity:
    """The ids of this proxy and its workspace at ITH; empty until ITH has sent them."""

    workspace_id: str = ""
    proxy_id: str = ""


class Registry:
    """Nodes, dispatches, downloads, operation, configuration and identity.

    ``nodes``, by id, is written by the node manager; ``dispatches`` by the dispatches;
    ``configuration``, None until it is known, and ``identity`` by the reconciler.
    """

    def __init__(self, services: Services, stop_work: Callable[[str], None]) -> None:
        limits = services.settings.limits
        self.nodes: dict[str, NodeAtWork] = {}
        self.dispatches = DispatchRegistry()
        self.downloads = FairQueue(
            limits.downloads,
            reserved=1,
            admission=backlog_limit(
                limits.dispatches_per_node,
                lambda node_id: self.nodes[node_id].backlog if node_id in self.nodes else Counter(),
            ),
        )
        self.operation = Operation(services, self.dispatches, stop_work)
        self.configuration: Configuration | None = None
        self.identity = Identity()
