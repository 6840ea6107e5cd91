"""ITH in a simulated world: a library that takes messages, and an application that acts or dies.

It is the embedded backend of the demonstration, which shares nothing with the program, on the
world's clock. An HTTP connection ends with its answer: the HTTP library would decide by the real
time, the one thing it asks for, whether an older connection can be used again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import trio
import trio_websocket

from proxy.demo import frames, http
from proxy.demo.backend import DemoBackend
from proxy.demo.frames import JsonObject
from proxy.demo.rest import Fault
from proxy.simulation.content import SLICES, archive, thing
from proxy.simulation.internet import Address
from proxy.simulation.scenario import EntityLevel

HOST = "ith.localhost"
PING_S = 30.0


class Ith(DemoBackend):
    """ITH with all that is in it; ``on_status`` is told of each report that the application has."""

    def __init__(
        self,
        now: Callable[[], float],
        nodes: dict[str, Address],
        on_status: Callable[[JsonObject], None],
    ) -> None:
        """Know the sessions and the nodes; ``now`` is ITH's own clock, in UTC seconds."""
        super().__init__()
        self.script.ping_every_s = PING_S
        self.rest_status: int | None = None
        self.upgrades: list[float] = []
        """When a proxy asked for a WebSocket."""
        self._now = now
        self._numbers = itertools.count(1)
        self._on_status = on_status
        self._nodes = {
            node: frames.rest_node(node, node.upper(), *address) for node, address in nodes.items()
        }
        self.publish()
        for level in EntityLevel:
            for session in range(len(SLICES)):
                self.rest.offer(level.value, thing(level, session).id, archive(level, session))

    # -- The application --------------------------------------------------------------------------

    def publish(self, *, is_active: bool = True) -> None:
        """Let REST show the nodes and the status as they are."""
        self.rest.configuration = frames.configuration([*self._nodes.values()], is_active=is_active)

    def node(self, node: str) -> JsonObject | None:
        """Return a node of the configuration."""
        return self._nodes.get(node)

    def set_node(self, node: str, **fields: object) -> JsonObject:
        """NodeEdit a node, or bring one back."""
        self._nodes[node] = self._nodes[node] | fields
        return self._nodes[node]

    def remove_node(self, node: str) -> None:
        """Remove a node."""
        self._nodes.pop(node, None)

    def forget(self, level: EntityLevel, session: int) -> None:
        """Offer nothing any longer that something deleted is a part of, or the other way round."""
        gone = thing(level, session).sent.keys()
        for each in EntityLevel:
            for number in range(len(SLICES)):
                other = thing(each, number)
                if not gone.isdisjoint(other.sent):
                    self.rest.archives.pop((each.value, other.id), None)

    async def tell(self, event: JsonObject) -> bool:
        """Send an event, if a proxy is connected; return whether it was sent."""
        if not (self.online and self.is_alive):
            return False
        try:
            await self.send_event(event | self._own(event))
        except trio_websocket.ConnectionClosed:
            return False
        return True

    def _own(self, event: JsonObject) -> JsonObject:
        """Return what this world writes into an event: its time, and the id of what is no order."""
        is_order = event["event_type"].endswith(".dispatch")
        id_ = event["correlation_id"] if is_order else f"corr_{next(self._numbers):012x}"
        return {"timestamp": self._wire_time(), "correlation_id": id_}

    def _wire_time(self) -> str:
        at = datetime.fromtimestamp(self._now(), UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    # -- The embedded backend's -------------------------------------------------------------------

    async def _answer(self, request: http.HttpRequest, reply: http.Reply) -> None:
        if self.rest_status == 0:
            await trio.sleep_forever()
        fault = None if self.rest_status is None else Fault(status=self.rest_status)
        both = (self.rest.configuration_faults, self.rest.download_faults)
        if fault is not None:
            for faults in both:
                faults.appendleft(fault)
        await super()._answer(request, reply)
        for faults in both:  # the status may be another by now
            if faults and faults[0] is fault:
                faults.popleft()
        raise http.Hangup

    async def _serve_socket(self, request: http.HttpRequest, stream: trio.abc.Stream) -> None:
        self.upgrades.append(trio.current_time())
        await super()._serve_socket(request, stream)

    async def _ping(self, link: trio_websocket.WebSocketConnection) -> None:
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                await trio.sleep(self.script.ping_every_s)
                if not self.is_alive:
                    continue
                ping = {"type": "ping", "timestamp": self._wire_time()}
                await link.send_message(json.dumps(ping))

    async def _hear(self, link: trio_websocket.WebSocketConnection, message: str | bytes) -> None:
        before = len(self.heard)
        await super()._hear(link, message)
        for heard in self.heard[before:]:
            if heard.frame.get("event_type") == "dispatch.status":
                self._on_status(heard.frame)
