"""The messages that the proxy sends to ITH, one per module."""

from typing import TypeAlias

from proxy.events.outgoing.config_update import ConfigUpdate
from proxy.events.outgoing.dispatch_status import DispatchStatusEvent, StatusWord
from proxy.events.outgoing.health_update import HealthStatus, HealthUpdate, NodeHealth
from proxy.events.outgoing.pong import PongEvent
from proxy.events.outgoing.proxy_heartbeat import ProxyHeartbeatEvent, ProxyStatus

Outgoing: TypeAlias = (
    PongEvent | DispatchStatusEvent | ProxyHeartbeatEvent | ConfigUpdate | HealthUpdate
)
"""All messages that the proxy sends."""

__all__ = [
    "ConfigUpdate",
    "DispatchStatusEvent",
    "HealthStatus",
    "HealthUpdate",
    "NodeHealth",
    "Outgoing",
    "PongEvent",
    "ProxyHeartbeatEvent",
    "ProxyStatus",
    "StatusWord",
]
