"""The reasons to stop: the acts of ITH or the operator, and the expected end of a delivery."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import trio

from proxy.demo import frames
from tests.end_to_end.site import Site, changed, node
from tests.end_to_end.stops.node import StallingNode
from tests.end_to_end.stops.session import SESSION_ID

NODE_ID = "node"
DRAIN_SHARE = 0.5
"""The share of the grace period that is the limit of a short drain."""
SIGNALS_APART_S = 0.05


class Reason(Enum):
    """The reasons why a delivery stops; the table prints the values."""

    PAUSE = "pause"
    REMOVED = "node removed"
    MOVED = "node moved"
    DELETED = "deletion"
    INACTIVE = "node inactive"
    CONFIG = "configuration"
    DRAIN = "SIGTERM"
    DRAIN_LIMIT = "drain limit"
    SECOND_SIGNAL = "second SIGTERM"

    @property
    def holds(self) -> bool:
        """Whether the program goes on and the delivery waits in it."""
        return self in {Reason.PAUSE, Reason.INACTIVE}

    @property
    def ends_program(self) -> bool:
        """Whether the program ends."""
        return self in {Reason.DRAIN, Reason.DRAIN_LIMIT, Reason.SECOND_SIGNAL}

    @property
    def outcome(self) -> str | None:
        """The end of the delivery of a session that the node does not have; None if it goes on."""
        if self in {Reason.REMOVED, Reason.DELETED}:
            return "cancelled"
        return "failed" if self.begins_again else None

    @property
    def begins_again(self) -> bool:
        """Whether the delivery begins again at once, only to be rejected."""
        return self in {Reason.MOVED, Reason.CONFIG}

    def limit(self, cancel_seconds: float) -> float:
        """Within how many seconds an instance in flight is to be over."""
        share = {Reason.DRAIN_LIMIT: DRAIN_SHARE, Reason.SECOND_SIGNAL: 0.0}
        return cancel_seconds * share.get(self, 1.0)

    def drain_seconds(self, cancel_seconds: float) -> float:
        """The setting: out of the way, but where it is the reason."""
        return cancel_seconds * (DRAIN_SHARE if self is Reason.DRAIN_LIMIT else 1.0) + (
            0.0 if self is Reason.DRAIN_LIMIT else 60.0
        )


@dataclass(frozen=True)
class Scene:
    """The objects of a reason; the node moves to ``elsewhere``."""

    site: Site
    at: StallingNode
    elsewhere: StallingNode
    study_instance_uid: str


async def _pause(scene: Scene) -> float:
    scene.site.backend.rest.configuration["is_active"] = False
    return await _say(scene, frames.status_changed(is_active=False, reason="Planned window"))


async def _remove(scene: Scene) -> float:
    scene.site.backend.rest.configuration["nodes"] = []
    return await _say(scene, frames.nodes_changed([changed(NODE_ID, scene.at)], "removed"))


async def _move(scene: Scene) -> float:
    scene.site.backend.rest.configuration["nodes"] = [node(NODE_ID, scene.elsewhere)]
    return await _say(scene, frames.nodes_changed([changed(NODE_ID, scene.elsewhere)], "updated"))


async def _delete(scene: Scene) -> float:
    uid = scene.study_instance_uid
    return await _say(scene, frames.session_deleted(SESSION_ID, study_instance_uid=uid))


async def _deactivate(scene: Scene) -> float:
    """Change the configuration at ITH, and let the event only say that something changed."""
    inactive = node(NODE_ID, scene.at, is_active=False)
    scene.site.backend.rest.configuration["nodes"] = [inactive]
    return await _say(scene, frames.config_changed({"retry_count": 1}))


async def _reconfigure(scene: Scene) -> float:
    """Have the proxy speak to its nodes under another name."""
    renamed: frames.JsonObject = {"calling_ae_title": "RENAMED"}
    scene.site.backend.rest.configuration["config"] |= renamed
    return await _say(scene, frames.config_changed(renamed))


async def _drain(scene: Scene) -> float:
    began = trio.current_time()
    scene.site.signal()
    return began


async def _drain_twice(scene: Scene) -> float:
    scene.site.signal()
    await trio.sleep(SIGNALS_APART_S)
    return await _drain(scene)


async def _say(scene: Scene, event: frames.JsonObject) -> float:
    began = trio.current_time()
    await scene.site.backend.send_event(event)
    return began


CAUSES: Mapping[Reason, Callable[[Scene], Awaitable[float]]] = {
    Reason.PAUSE: _pause,
    Reason.REMOVED: _remove,
    Reason.MOVED: _move,
    Reason.DELETED: _delete,
    Reason.INACTIVE: _deactivate,
    Reason.CONFIG: _reconfigure,
    Reason.DRAIN: _drain,
    Reason.DRAIN_LIMIT: _drain,
    Reason.SECOND_SIGNAL: _drain_twice,
}
"""Each does it and returns when it began, by trio's clock."""
