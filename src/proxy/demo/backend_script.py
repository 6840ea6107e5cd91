"""What the embedded backend does, and what it records of the proxy's part."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from proxy.demo.frames import JsonObject


class Greeting(Enum):
    """What the backend says first."""

    CONNECTED = "The documented message."
    EVENT = "An event about the proxy, as some versions do."
    NOTHING = "It accepts and stays silent."


class PingDialect(Enum):
    """How keep-alives look."""

    TYPE = "The deployed backend's control message."
    EVENT_TYPE = "An event."


@dataclass
class BackendScript:
    """What the backend does; every field may be changed while it runs.

    ``refuse`` turns connections away: a number under 1000 as HTTP status of the upgrade, else
    as close code right after it; ``wrong_key`` does the same to those with a wrong key or none.
    ``stall`` leaves upgrades unanswered. ``nested`` wraps events in the nested envelope.
    """

    refuse: int | None = None
    wrong_key: int = 401
    stall: bool = False
    greeting: Greeting = Greeting.CONNECTED
    nested: bool = False
    answer: bool = True
    config_error: str = ""
    ping_every_s: float = 30.0
    ping_dialect: PingDialect = PingDialect.TYPE


class Heard(NamedTuple):
    """A frame from the proxy, and when it came in seconds of trio's clock."""

    at: float
    frame: JsonObject
