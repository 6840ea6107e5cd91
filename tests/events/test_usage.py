from __future__ import annotations

import json
import re

import pytest

from proxy.events import WebSocketEvent
from proxy.events.incoming import (
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
)
from proxy.events.outgoing import DispatchStatusEvent, PongEvent, ProxyHeartbeatEvent

BASE_FIELDS = [
    "event_type",
    "workspace_id",
    "timestamp",
    "correlation_id",
    "entity_type",
    "entity_id",
    "payload",
]

CREATED: list[WebSocketEvent] = [
    PingEvent.create(),
    SubjectDispatchEvent.create(workspace_id="w", subject_id="s", nodes=["n"]),
    SessionDispatchEvent.create(workspace_id="w", session_id="s", subject_id="p", nodes=["n"]),
    ScanDispatchEvent.create(
        workspace_id="w", scan_id="c", subject_id="p", session_id="s", nodes=["n"]
    ),
    NewScanAvailableEvent.create(workspace_id="w", scan_id="c", subject_id="p", session_id="s"),
    SubjectDeletedEvent.create(workspace_id="w", subject_id="p", subject_identifier="x"),
    SessionDeletedEvent.create(workspace_id="w", session_id="s", study_instance_uid="1.2"),
    ScanDeletedEvent.create(workspace_id="w", scan_id="c", study_instance_uid="1.2", scan_number=3),
    ProxyNodesChangedEvent.create(workspace_id="w", proxy_id="x", nodes=[{"node_id": "n"}]),
    ProxyConfigChangedEvent.create(
        workspace_id="w", proxy_id="x", changed_fields=["a"], new_config={"a": 1}
    ),
    ProxyStatusChangedEvent.create(
        workspace_id="w", proxy_id="x", new_status="active", is_active=True
    ),
    DispatchStatusEvent.create(
        workspace_id="w", entity_type="scan", entity_id="c", status="downloading"
    ),
    ProxyHeartbeatEvent.create(
        workspace_id="w",
        proxy_id="x",
        status="active",
        nodes_online=0,
        nodes_total=0,
        version="2",
    ),
    PongEvent.create(),
]


def test_a_session_dispatch_is_made_as_the_document_shows() -> None:
    event = SessionDispatchEvent.create(
        workspace_id="ws_123",
        session_id="sess_456",
        subject_id="subj_789",
        nodes=["node_1", "node_2"],
        session_label="MRI-2025-001",
        priority="high",
    )
    assert json.loads(json.dumps(event.to_dict())) == {
        "event_type": "session.dispatch",
        "workspace_id": "ws_123",
        "timestamp": event.timestamp,
        "correlation_id": event.correlation_id,
        "entity_type": "session",
        "entity_id": "sess_456",
        "payload": {
            "subject_id": "subj_789",
            "nodes": ["node_1", "node_2"],
            "session_label": "MRI-2025-001",
            "priority": "high",
        },
    }


def test_a_dispatch_status_is_made_as_the_document_shows() -> None:
    status = DispatchStatusEvent.create(
        workspace_id="ws_123",
        entity_type="session",
        entity_id="sess_456",
        node_id="node_1",
        status="completed",
        files_sent=150,
        files_total=150,
        progress=100,
    )
    assert json.loads(json.dumps(status.to_dict())) == {
        "event_type": "dispatch.status",
        "workspace_id": "ws_123",
        "timestamp": status.timestamp,
        "correlation_id": status.correlation_id,
        "entity_type": "session",
        "entity_id": "sess_456",
        "payload": {
            "node_id": "node_1",
            "status": "completed",
            "progress": 100,
            "files_sent": 150,
            "files_total": 150,
        },
    }


@pytest.mark.parametrize("event", CREATED, ids=lambda event: event.event_type)
def test_every_event_has_the_seven_fields_in_order(event: WebSocketEvent) -> None:
    plain = event.to_dict()
    assert list(plain)[:7] == BASE_FIELDS
    assert plain["event_type"] == event.event_type
    assert type(plain["payload"]) is dict
    assert set(plain) - set(BASE_FIELDS) <= {"type"}
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize("event", CREATED, ids=lambda event: event.event_type)
def test_create_dates_and_numbers_an_event(event: WebSocketEvent) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.timestamp)
    assert re.fullmatch(r"corr_[0-9a-f]{12}", event.correlation_id)


def test_create_takes_time_and_correlation_id() -> None:
    event = PingEvent.create(timestamp="2026-03-01T08:00:30.000Z", correlation_id="corr_1")
    assert (event.timestamp, event.correlation_id) == ("2026-03-01T08:00:30.000Z", "corr_1")


def test_two_events_never_share_a_correlation_id() -> None:
    assert len({PingEvent.create().correlation_id for _ in range(1000)}) == 1000


def test_control_messages_are_made_and_written_too() -> None:
    assert Connected.create(workspace_id="w", proxy_id="x").to_dict() == {
        "type": "connected",
        "workspace_id": "w",
        "proxy_id": "x",
    }
    refused = ConfigUpdateResponse.create(status="error", error="no")
    assert refused.type == "config_update_response"
    assert not refused.ok
    accepted = HealthUpdateResponse.create(status="success")
    assert accepted.ok
    assert accepted.to_dict()["type"] == "health_update_response"
