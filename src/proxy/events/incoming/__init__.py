"""The messages that ITH sends, one per module, and the results for unknown and broken frames."""

from typing import TypeAlias

from proxy.events.incoming.broken import BrokenFrame
from proxy.events.incoming.config_update_response import ConfigUpdateResponse
from proxy.events.incoming.connected import Connected
from proxy.events.incoming.health_update_response import HealthUpdateResponse
from proxy.events.incoming.ping import PingEvent
from proxy.events.incoming.proxy_config_changed import ProxyConfigChangedEvent
from proxy.events.incoming.proxy_nodes_changed import ProxyNodesChangedEvent
from proxy.events.incoming.proxy_status_changed import ProxyStatusChangedEvent
from proxy.events.incoming.scan_deleted import ScanDeletedEvent
from proxy.events.incoming.scan_dispatch import ScanDispatchEvent
from proxy.events.incoming.scan_new_scan_available import NewScanAvailableEvent
from proxy.events.incoming.session_deleted import SessionDeletedEvent
from proxy.events.incoming.session_dispatch import SessionDispatchEvent
from proxy.events.incoming.subject_deleted import SubjectDeletedEvent
from proxy.events.incoming.subject_dispatch import SubjectDispatchEvent
from proxy.events.incoming.unknown import UnknownEvent

AnyEvent: TypeAlias = (
    PingEvent
    | SubjectDispatchEvent
    | SessionDispatchEvent
    | ScanDispatchEvent
    | NewScanAvailableEvent
    | SubjectDeletedEvent
    | SessionDeletedEvent
    | ScanDeletedEvent
    | ProxyNodesChangedEvent
    | ProxyConfigChangedEvent
    | ProxyStatusChangedEvent
)
"""The messages of ITH that have an ``event_type``."""

AnyControl: TypeAlias = Connected | ConfigUpdateResponse | HealthUpdateResponse
"""The messages of ITH about the link itself, which have a ``type``."""

Incoming: TypeAlias = AnyEvent | AnyControl | UnknownEvent | BrokenFrame
"""All results of reading a frame: a ``match`` over it can be closed with ``assert_never``."""

__all__ = [
    "AnyControl",
    "AnyEvent",
    "BrokenFrame",
    "ConfigUpdateResponse",
    "Connected",
    "HealthUpdateResponse",
    "Incoming",
    "NewScanAvailableEvent",
    "PingEvent",
    "ProxyConfigChangedEvent",
    "ProxyNodesChangedEvent",
    "ProxyStatusChangedEvent",
    "ScanDeletedEvent",
    "ScanDispatchEvent",
    "SessionDeletedEvent",
    "SessionDispatchEvent",
    "SubjectDeletedEvent",
    "SubjectDispatchEvent",
    "UnknownEvent",
]
