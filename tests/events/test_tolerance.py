from __future__ import annotations

import json
import re

import pytest

from proxy.events import Incoming, decode
from proxy.events.base import WebSocketEvent
from proxy.events.incoming import (
    BrokenFrame,
    ConfigUpdateResponse,
    NewScanAvailableEvent,
    PingEvent,
    ProxyConfigChangedEvent,
    ProxyNodesChangedEvent,
    ProxyStatusChangedEvent,
    ScanDeletedEvent,
    ScanDispatchEvent,
    SessionDeletedEvent,
    SessionDispatchEvent,
    SubjectDispatchEvent,
)
from tests.events.frames import FLAT

GONE = object()


def changed(name: str, payload: dict[str, object] | None = None, **envelope: object) -> Incoming:
    """Decode an example with some fields changed, or taken away where the value is GONE."""
    event = json.loads(FLAT[name])
    event["payload"] = cut(event["payload"] | (payload or {}))
    return decode(json.dumps(cut(event | envelope)))


def cut(fields: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value is not GONE}


@pytest.mark.parametrize("name", FLAT)
def test_unknown_fields_are_no_matter(name: str) -> None:
    assert changed(name, {"later": [1, {"a": None}]}, version=3) == decode(FLAT[name])


@pytest.mark.parametrize("nothing", [GONE, None, ""])
@pytest.mark.parametrize("name", FLAT)
def test_the_envelope_may_lack_workspace_and_time(name: str, nothing: object) -> None:
    event = changed(name, workspace_id=nothing, timestamp=nothing, entity_type=nothing)
    assert isinstance(event, WebSocketEvent)
    assert (event.workspace_id, event.timestamp) == ("", "")
    assert not event.entity_type
    assert event.payload == getattr(decode(FLAT[name]), "payload", None)


@pytest.mark.parametrize("nothing", [GONE, None])
def test_optional_fields_of_a_payload_may_be_absent_or_null(nothing: object) -> None:
    session = changed("session.dispatch", {"session_label": nothing, "priority": nothing})
    assert isinstance(session, SessionDispatchEvent)
    assert (session.payload.session_label, session.payload.priority) == (None, "normal")
    scan = changed("scan.dispatch", {"scan_number": nothing, "modality": nothing})
    assert isinstance(scan, ScanDispatchEvent)
    assert (scan.payload.scan_number, scan.payload.modality) == (None, None)
    subject = changed("subject.dispatch", {"subject_identifier": nothing})
    assert isinstance(subject, SubjectDispatchEvent)
    assert subject.payload.subject_identifier is None
    new = changed(
        "scan.new_scan_available",
        {"source": nothing, "action": nothing, "priority": nothing, "metadata": nothing},
    )
    assert isinstance(new, NewScanAvailableEvent)
    assert (new.payload.source, new.payload.action) == ("unknown", "pull_and_dispatch")
    assert (new.payload.priority, new.payload.metadata) == ("normal", {})
    deleted = changed("session.deleted", {"session_label": nothing, "subject_id": nothing})
    assert isinstance(deleted, SessionDeletedEvent)
    nodes = changed("proxy.nodes_changed", {"changed_action": nothing})
    assert isinstance(nodes, ProxyNodesChangedEvent)
    assert nodes.payload.changed_action == "updated"


@pytest.mark.parametrize("label", [7, 7.5, True, ["a"], {"a": 1}])
def test_an_optional_field_of_another_kind_spoils_nothing(label: object) -> None:
    session = changed("session.dispatch", {"session_label": label})
    assert isinstance(session, SessionDispatchEvent)
    assert session.payload.session_label == ("7" if label == 7 else None)


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("urgent", "urgent"),
        (" HIGH ", "high"),
        ("soonish", "normal"),
        (3, "normal"),
        ("", "normal"),
    ],
)
def test_an_unknown_priority_is_normal(word: object, read: str) -> None:
    event = changed("subject.dispatch", {"priority": word})
    assert isinstance(event, SubjectDispatchEvent)
    assert event.payload.priority == read


@pytest.mark.parametrize("number", [7, "7", " 7 ", 7.0])
def test_a_scan_number_may_be_text(number: object) -> None:
    event = changed("scan.deleted", {"scan_number": number})
    assert isinstance(event, ScanDeletedEvent)
    assert event.payload.scan_number == 7


def test_ids_may_be_numbers() -> None:
    event = changed(
        "session.dispatch", {"nodes": [1, "n2", None, ""], "subject_id": 42}, entity_id=43
    )
    assert isinstance(event, SessionDispatchEvent)
    assert event.entity_id == "43"
    assert event.payload.subject_id == "42"
    assert event.payload.nodes == ("1", "n2")


def test_no_nodes_at_all_is_a_dispatch_to_nobody() -> None:
    event = changed("session.dispatch", {"nodes": []})
    assert isinstance(event, SessionDispatchEvent)
    assert event.payload.nodes == ()


@pytest.mark.parametrize("payload", [GONE, None, {}, [], "x", 7])
def test_a_ping_needs_no_payload(payload: object) -> None:
    event = decode(json.dumps(cut(json.loads(FLAT["ping"]) | {"payload": payload})))
    assert isinstance(event, PingEvent)


def test_an_answer_may_list_its_fields_as_null() -> None:
    frame = '{"type":"config_update_response","status":"success","fields_updated":null}'
    answer = decode(frame)
    assert isinstance(answer, ConfigUpdateResponse)
    assert answer.fields_updated == ()


def correlation_id(**envelope: object) -> str:
    event = changed("session.dispatch", None, **envelope)
    assert isinstance(event, SessionDispatchEvent)
    return event.correlation_id


@pytest.mark.parametrize("nothing", [GONE, None, ""])
def test_an_event_without_correlation_id_gets_one(nothing: object) -> None:
    made = correlation_id(correlation_id=nothing)
    assert re.fullmatch(r"corr_[0-9a-f]{12}", made)


def test_the_same_dated_event_gets_the_same_correlation_id() -> None:
    assert correlation_id(correlation_id=None) == correlation_id(correlation_id=GONE)


def test_different_events_get_different_correlation_ids() -> None:
    made = {
        correlation_id(correlation_id=None),
        correlation_id(correlation_id=None, timestamp="2026-03-01T08:02:00.001Z"),
        correlation_id(correlation_id=None, entity_id="sess-2"),
        *(correlation_id(correlation_id=None, timestamp=None) for _ in range(10)),
    }
    assert len(made) == 13


@pytest.mark.parametrize("body", [{"retry_count": 4}, {}])
def test_a_configuration_may_be_called_config(body: dict[str, object]) -> None:
    event = changed("proxy.config_changed", {"new_config": GONE, "config": body})
    assert isinstance(event, ProxyConfigChangedEvent)
    assert event.payload.new_config == body
    assert event.payload.changed_fields == ("retry_count", "timeout")


def test_new_config_wins_over_config() -> None:
    event = changed("proxy.config_changed", {"config": {"retry_count": 9}})
    assert isinstance(event, ProxyConfigChangedEvent)
    assert event.payload.new_config == {"retry_count": 4, "timeout": 45}


def test_changed_fields_default_to_what_the_configuration_names() -> None:
    event = changed("proxy.config_changed", {"changed_fields": None})
    assert isinstance(event, ProxyConfigChangedEvent)
    assert event.payload.changed_fields == ("retry_count", "timeout")


def test_names_without_values_still_tell_that_something_changed() -> None:
    event = changed("proxy.config_changed", {"new_config": GONE})
    assert isinstance(event, ProxyConfigChangedEvent)
    assert event.payload.changed_fields == ("retry_count", "timeout")
    assert event.payload.new_config == {}


@pytest.mark.parametrize(
    ("payload", "word", "active"),
    [
        ({"new_status": GONE, "status": "maintenance"}, "maintenance", False),
        ({"new_status": "active", "is_active": GONE}, "active", True),
        ({"new_status": "Inactive ", "is_active": None}, "Inactive ", False),
        ({"new_status": "maintenance", "is_active": GONE}, "maintenance", False),
        ({"new_status": "error", "is_active": GONE}, "error", False),
        ({"new_status": "active", "is_active": False}, "active", False),
        ({"new_status": "resting", "is_active": True}, "resting", True),
        ({"new_status": GONE, "is_active": True}, "active", True),
        ({"new_status": None, "is_active": False}, "inactive", False),
        ({"is_active": "true"}, "maintenance", True),
        ({"is_active": 0}, "maintenance", False),
    ],
)
def test_is_active_decides_and_the_word_helps_out(
    payload: dict[str, object], word: str, active: bool
) -> None:
    event = changed("proxy.status_changed", payload)
    assert isinstance(event, ProxyStatusChangedEvent)
    assert (event.payload.new_status, event.payload.is_active) == (word, active)


def test_nodes_are_kept_as_they_came() -> None:
    nodes: list[object] = [{"id": "n1", "ip": "192.0.2.1"}, "n2", None, 7]
    event = changed("proxy.nodes_changed", {"nodes": nodes})
    assert isinstance(event, ProxyNodesChangedEvent)
    assert list(event.payload.nodes) == nodes


REQUIRED = [
    ("subject.dispatch", "nodes"),
    ("session.dispatch", "nodes"),
    ("session.dispatch", "subject_id"),
    ("scan.dispatch", "nodes"),
    ("scan.dispatch", "subject_id"),
    ("scan.dispatch", "session_id"),
    ("scan.new_scan_available", "subject_id"),
    ("scan.new_scan_available", "session_id"),
    ("subject.deleted", "subject_identifier"),
    ("session.deleted", "study_instance_uid"),
    ("scan.deleted", "study_instance_uid"),
    ("scan.deleted", "scan_number"),
    ("proxy.nodes_changed", "nodes"),
]


@pytest.mark.parametrize("nothing", [GONE, None, ""])
@pytest.mark.parametrize(("name", "field"), REQUIRED)
def test_a_required_field_that_is_missing_breaks_the_frame(
    name: str, field: str, nothing: object
) -> None:
    broken = changed(name, {field: nothing})
    assert isinstance(broken, BrokenFrame)
    assert broken.event_type == name
    assert broken.reason == f"{name}: payload.{field} is missing"


@pytest.mark.parametrize(
    "name", ["subject.dispatch", "session.dispatch", "scan.dispatch", "scan.new_scan_available"]
)
@pytest.mark.parametrize("nothing", [GONE, None, ""])
def test_what_is_to_be_dispatched_must_be_named(name: str, nothing: object) -> None:
    broken = changed(name, None, entity_id=nothing)
    assert isinstance(broken, BrokenFrame)
    assert broken.reason == f"{name}: entity_id is missing"


PROXY_EVENTS = ["proxy.nodes_changed", "proxy.config_changed", "proxy.status_changed"]


@pytest.mark.parametrize("address", [{"id": "proxy-2"}, ["proxy-2"], True])
@pytest.mark.parametrize("name", PROXY_EVENTS)
def test_an_address_that_cannot_be_read_is_not_none(name: str, address: object) -> None:
    """Whose change it is must be known: one for another proxy is not for all."""
    broken = changed(name, entity_id=address)
    assert isinstance(broken, BrokenFrame)
    assert broken.event_type == name
    assert broken.reason.startswith(f"{name}: entity_id cannot be read")


@pytest.mark.parametrize("nothing", [GONE, None, ""])
@pytest.mark.parametrize("name", PROXY_EVENTS)
def test_a_change_may_have_no_address(name: str, nothing: object) -> None:
    event = changed(name, entity_id=nothing)
    assert isinstance(event, WebSocketEvent)
    assert not event.entity_id


@pytest.mark.parametrize(
    ("name", "payload", "reason"),
    [
        ("session.dispatch", {"nodes": "ZZCANARY"}, "payload.nodes cannot be read from text"),
        ("session.dispatch", {"nodes": [{"a": 1}]}, "payload.nodes cannot be read from this list"),
        (
            "session.dispatch",
            {"subject_id": {}},
            "payload.subject_id cannot be read from an object",
        ),
        ("scan.deleted", {"scan_number": 7.5}, "payload.scan_number cannot be read from a number"),
        ("scan.deleted", {"scan_number": 1e11}, "payload.scan_number cannot be read from a number"),
        ("scan.deleted", {"scan_number": "9" * 20}, "payload.scan_number cannot be read from text"),
        (
            "scan.deleted",
            {"scan_number": "ZZCANARY"},
            "payload.scan_number cannot be read from text",
        ),
        (
            "session.deleted",
            {"study_instance_uid": True},
            "payload.study_instance_uid cannot be read from a boolean",
        ),
        (
            "proxy.config_changed",
            {"new_config": [1]},
            "payload.new_config cannot be read from this list",
        ),
        (
            "proxy.config_changed",
            {"new_config": GONE, "changed_fields": GONE},
            "payload.changed_fields is missing",
        ),
        (
            "proxy.status_changed",
            {"new_status": "resting", "is_active": GONE},
            "payload.is_active is missing",
        ),
        (
            "proxy.status_changed",
            {"new_status": GONE, "is_active": GONE},
            "payload.new_status is missing",
        ),
        (
            "proxy.status_changed",
            {"is_active": "so so"},
            "payload.is_active cannot be read from text",
        ),
    ],
)
def test_a_required_field_of_another_kind_breaks_the_frame(
    name: str, payload: dict[str, object], reason: str
) -> None:
    broken = changed(name, payload)
    assert isinstance(broken, BrokenFrame)
    assert broken.reason == f"{name}: {reason}"


@pytest.mark.parametrize("payload", [[], "ZZCANARY", 7, True])
def test_a_payload_that_is_no_object_breaks_the_frame(payload: object) -> None:
    broken = changed("session.dispatch")
    event = json.loads(FLAT["session.dispatch"]) | {"payload": payload}
    broken = decode(json.dumps(event))
    assert isinstance(broken, BrokenFrame)
    assert broken.reason == "session.dispatch: payload is not an object"


@pytest.mark.parametrize("payload", [GONE, None, {}])
def test_an_empty_payload_lacks_what_is_required(payload: object) -> None:
    event = cut(json.loads(FLAT["session.dispatch"]) | {"payload": payload})
    broken = decode(json.dumps(event))
    assert isinstance(broken, BrokenFrame)
    assert broken.reason == "session.dispatch: payload.nodes is missing"


@pytest.mark.parametrize("field", ["workspace_id", "proxy_id"])
def test_a_greeting_must_say_who_we_are(field: str) -> None:
    frame = {"type": "connected", "workspace_id": "w", "proxy_id": "x", field: None}
    broken = decode(json.dumps(frame))
    assert isinstance(broken, BrokenFrame)
    assert broken.reason == f"connected: {field} is missing"
