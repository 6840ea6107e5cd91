from __future__ import annotations

import json

import pytest

from proxy.events import Outgoing
from proxy.events.outgoing import (
    ConfigUpdate,
    DispatchStatusEvent,
    HealthStatus,
    HealthUpdate,
    PongEvent,
    ProxyHeartbeatEvent,
    ProxyStatus,
    StatusWord,
)
from tests.events.frames import OUTGOING


def status(
    word: StatusWord,
    progress: int = 40,
    files: tuple[int, int] = (60, 150),
    *,
    error: str | None = None,
    node_id: str | None = "n1",
    timestamp: str = "2026-03-01T08:02:31.250Z",
) -> DispatchStatusEvent:
    return DispatchStatusEvent.create(
        workspace_id="ws-1",
        entity_type="session",
        entity_id="sess-1",
        correlation_id="corr_22bb33cc44dd",
        timestamp=timestamp,
        node_id=node_id,
        status=word,
        progress=progress,
        files_sent=files[0],
        files_total=files[1],
        error=error,
    )


def heartbeat(word: ProxyStatus = "active", **extras: object) -> ProxyHeartbeatEvent:
    return ProxyHeartbeatEvent.create(
        workspace_id="ws-1",
        proxy_id="proxy-1",
        correlation_id="corr_bbccddeeff00",
        timestamp="2026-03-01T08:10:10.000Z",
        status=word,
        nodes_online=2,
        nodes_total=3,
        active_dispatches=1,
        disk_usage_gb=312.4,
        version="2.0.0",
        **extras,
    )


SAMPLES: dict[str, Outgoing] = {
    "processing": status("processing"),
    "failed": status("failed", error="association rejected", timestamp="2026-03-01T08:02:59.000Z"),
    "heartbeat": heartbeat(),
    "config_update": ConfigUpdate.create(
        ip_address="192.0.2.10",
        port=11112,
        ae_title="DICOMRCV",
        api_url="https://proxy.example.org/api",
        proxy_version="2.0.0",
    ),
    "health_update": HealthUpdate.create(
        proxy_status="online",
        proxy_version="2.0.0",
        nodes={"3f0e-n1": True, "9b7c-n2": False},
    ),
}


@pytest.mark.parametrize("name", OUTGOING)
def test_what_we_send_is_what_the_document_shows(name: str) -> None:
    assert json.loads(SAMPLES[name].to_json()) == json.loads(OUTGOING[name])
    assert SAMPLES[name].to_dict() == json.loads(OUTGOING[name])


def test_the_closing_message_of_a_dispatch_names_no_node() -> None:
    payload = json.loads(status("completed", 100, (150, 150), node_id=None).to_json())["payload"]
    assert payload == {
        "status": "completed",
        "progress": 100,
        "files_sent": 150,
        "files_total": 150,
    }


def test_zero_counts_are_sent_and_not_left_out() -> None:
    payload = json.loads(status("downloading", 0, (0, 0)).to_json())["payload"]
    assert payload == {
        "node_id": "n1",
        "status": "downloading",
        "progress": 0,
        "files_sent": 0,
        "files_total": 0,
    }


def test_another_status_word_is_refused_with_those_there_are() -> None:
    word: StatusWord = "queued"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="downloading, processing, completed, failed") as caught:
        status(word)
    assert "'queued'" in str(caught.value)


@pytest.mark.parametrize("progress", [-1, 101])
def test_progress_outside_0_to_100_is_refused(progress: int) -> None:
    with pytest.raises(ValueError, match="0 to 100"):
        status("processing", progress)


@pytest.mark.parametrize("files", [(-1, 5), (5, -1)])
def test_negative_counts_are_refused(files: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="negative"):
        status("processing", 10, files)


def test_an_error_is_for_failed_only() -> None:
    with pytest.raises(ValueError, match="failed only"):
        status("completed", 100, error="but")


def test_an_empty_error_is_no_error() -> None:
    assert "error" not in status("failed", error="").to_dict()["payload"]


def test_extras_of_a_heartbeat_lie_in_the_payload() -> None:
    event = heartbeat(queue_length=7, link="online")
    payload = json.loads(event.to_json())["payload"]
    assert payload == json.loads(OUTGOING["heartbeat"])["payload"] | {
        "queue_length": 7,
        "link": "online",
    }


def test_an_unknown_heartbeat_status_is_refused() -> None:
    word: ProxyStatus = "fine"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="active, inactive, error"):
        heartbeat(word)


@pytest.mark.parametrize("nodes", [{}, None])
def test_health_without_nodes_has_no_nodes_key(nodes: dict[str, bool] | None) -> None:
    message = HealthUpdate.create(proxy_status="offline", proxy_version="2.0.0", nodes=nodes)
    assert json.loads(message.to_json()) == {
        "type": "health_update",
        "proxy_status": "offline",
        "proxy_version": "2.0.0",
    }


def test_an_unknown_health_status_is_refused() -> None:
    word: HealthStatus = "fine"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="online, offline, error"):
        HealthUpdate.create(proxy_status=word, proxy_version="2.0.0")


def test_without_an_api_url_an_empty_one_is_sent() -> None:
    message = ConfigUpdate.create(
        ip_address="192.0.2.10", port=104, ae_title="A", proxy_version="2.0.0"
    )
    assert message.to_dict()["api_url"] == ""


def test_a_pong_speaks_both_dialects() -> None:
    pong = PongEvent.create(
        workspace_id="ws-1", timestamp="2026-03-01T08:00:30.012Z", correlation_id="corr_1"
    )
    assert json.loads(pong.to_json()) == {
        "type": "pong",
        "event_type": "pong",
        "workspace_id": "ws-1",
        "timestamp": "2026-03-01T08:00:30.012Z",
        "correlation_id": "corr_1",
        "entity_type": None,
        "entity_id": None,
        "payload": {},
    }
