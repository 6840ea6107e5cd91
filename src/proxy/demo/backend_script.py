"""The behaviour of the embedded backend, and its records of the proxy's frames."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from proxy.demo.frames import JsonObject


class Greeting(Enum):
    """The first message of the backend."""

    CONNECTED = "The documented message."
    EVENT = "An event about the proxy, as some versions do."
    NOTHING = "It accepts and stays silent."


class PingDialect(Enum):
    """The form of keep-alives."""

    TYPE = "The deployed backend's control message."
    EVENT_TYPE = "An event."


@dataclass
class BackendScript:
    """The behaviour of the backend; every field may be changed while it runs.

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
    """A frame from the proxy, and the time of its arrival in seconds of trio's clock."""

    at: float
    frame: JsonObject
