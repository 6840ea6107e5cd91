"""The proxy's signs of life: where it is, how its nodes are, how it is itself.

The messages are made from the registry at the moment of asking; the link asks and sends.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy import __version__
from proxy.events.base import new_correlation_id, wire_time
from proxy.events.outgoing import ConfigUpdate, HealthUpdate, ProxyHeartbeatEvent
from proxy.machines.node import NodeState
from proxy.runtime.clock import Clock
from proxy.runtime.rng import Random
from proxy.settings import LocalSettings
from proxy.supervision.registry import Registry


class Heartbeat:
    """Makes the messages that say how the proxy is; ``disk_usage`` is asked for GiB in use."""

    def __init__(
        self,
        settings: LocalSettings,
        registry: Registry,
        disk_usage: Callable[[], float],
        *,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._disk_usage = disk_usage
        self._clock = clock
        self._rng = rng

    def greeting(self, local_address: str) -> ConfigUpdate | None:
        """The address of this proxy; None before ITH's configuration is known.

        ITH takes over what it is told, so what the site's settings do not say is told as ITH has
        it; but for the address, which is the one used towards ITH.
        """
        configuration = self._registry.configuration
        if configuration is None:
            return None
        local, known = self._settings, configuration.config
        return ConfigUpdate.create(
            ip_address=local.ip_address or local_address,
            port=local.port or known.port,
            ae_title=local.ae_title or known.ae_title,
            api_url=local.api_url or known.api_url,
            proxy_version=__version__,
        )

    def health(self, *, online: bool) -> HealthUpdate:
        """The active nodes, each with whether it answered when it was last asked."""
        return HealthUpdate.create(
            proxy_status="online" if online else "offline",
            proxy_version=__version__,
            nodes={
                each.node_id: each.run.state is NodeState.ONLINE
                for each in self._registry.nodes.values()
                if each.run.state is not NodeState.DISABLED
            },
        )

    def heartbeat(self) -> ProxyHeartbeatEvent | None:
        """The six numbers and words; None while ITH has not said which workspace is ours."""
        registry = self._registry
        if not registry.identity.workspace_id:
            return None
        nodes = registry.nodes.values()
        return ProxyHeartbeatEvent.create(
            workspace_id=registry.identity.workspace_id,
            proxy_id=registry.identity.proxy_id,
            status="active" if registry.operation.is_active else "inactive",
            nodes_online=sum(each.run.state is NodeState.ONLINE for each in nodes),
            nodes_total=len(nodes),
            active_dispatches=sum(not each.run.over for each in registry.dispatches),
            disk_usage_gb=self._disk_usage(),
            version=__version__,
            timestamp=wire_time(self._clock.now()),
            correlation_id=new_correlation_id(self._rng.getrandbits),
        )
