from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import assert_never, get_args

import msgspec
import pytest

from proxy.events import Incoming, Outgoing, decode, incoming, outgoing
from proxy.events.incoming import (
    BrokenFrame,
    ConfigUpdateResponse,
    Connected,
    HealthUpdateResponse,
    NewScanAvailableEvent,
    PingEvent,
    ProxyConfigChangedEvent,
    ProxyNodesChangedEvent,
    ProxyStatusChangedEvent,
    ScanDeletedEvent,
    ScanDispatchEvent,
    SessionDeletedEvent,
    SessionDispatchEvent,
    SubjectDeletedEvent,
    SubjectDispatchEvent,
    UnknownEvent,
)
from tests.events.frames import CONTROL, FLAT

SAMPLES = [*FLAT.values(), *CONTROL.values(), '{"event_type":"scan.praised"}', "!"]


def name(message: Incoming) -> str:  # noqa: PLR0911, PLR0912 - one arm per member, that is the test
    match message:
        case PingEvent():
            return "ping"
        case SubjectDispatchEvent():
            return "subject.dispatch"
        case SessionDispatchEvent():
            return "session.dispatch"
        case ScanDispatchEvent():
            return "scan.dispatch"
        case NewScanAvailableEvent():
            return "scan.new_scan_available"
        case SubjectDeletedEvent():
            return "subject.deleted"
        case SessionDeletedEvent():
            return "session.deleted"
        case ScanDeletedEvent():
            return "scan.deleted"
        case ProxyNodesChangedEvent():
            return "proxy.nodes_changed"
        case ProxyConfigChangedEvent():
            return "proxy.config_changed"
        case ProxyStatusChangedEvent():
            return "proxy.status_changed"
        case Connected():
            return "connected"
        case ConfigUpdateResponse():
            return "config_update_response"
        case HealthUpdateResponse():
            return "health_update_response"
        case UnknownEvent():
            return "unknown"
        case BrokenFrame():
            return "broken"
        case _:
            assert_never(message)


def test_a_match_over_incoming_can_be_closed() -> None:
    messages = [decode(frame) for frame in SAMPLES]
    assert {type(message) for message in messages} == set(get_args(Incoming))
    assert [name(message) for message in messages] == [*FLAT, *CONTROL, "unknown", "broken"]


@pytest.mark.parametrize(
    ("package", "members"),
    [(incoming, get_args(Incoming)), (outgoing, get_args(Outgoing))],
    ids=["incoming", "outgoing"],
)
def test_every_module_is_in_the_union(package: ModuleType, members: tuple[type, ...]) -> None:
    modules = {
        f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)
    }
    assert {member.__module__ for member in members} == modules
    assert len(members) == len(modules)
    assert {member.__name__ for member in members} <= set(package.__all__)


@pytest.mark.parametrize("member", [*get_args(Incoming), *get_args(Outgoing)])
def test_every_message_is_frozen_and_explained(member: type[msgspec.Struct]) -> None:
    assert member.__struct_config__.frozen
    assert inspect.getdoc(member)
    assert inspect.getdoc(importlib.import_module(member.__module__))
