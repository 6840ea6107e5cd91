"""The messages between ITH and the proxy: their names, their fields, their encoding.

``incoming`` and ``outgoing`` have one module per message, ``codec`` turns frames into messages
and back. Nothing here sends, stores, logs or decides: the link carries messages, and the
supervisor acts on them.
"""

from proxy.events.base import ControlMessage, DispatchEvent, Message, PriorityWord, WebSocketEvent
from proxy.events.codec import decode
from proxy.events.incoming import Incoming
from proxy.events.outgoing import Outgoing

__all__ = [
    "ControlMessage",
    "DispatchEvent",
    "Incoming",
    "Message",
    "Outgoing",
    "PriorityWord",
    "WebSocketEvent",
    "decode",
]
