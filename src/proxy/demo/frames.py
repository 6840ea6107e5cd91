"""The frames ITH sends, as plain dictionaries (protocol.md 2 and 6.1).

Written by hand from the protocol, so that the proxy's own codec is tested against an independent
source.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object. Its values stay untyped: a test that reads a frame knows its fields."""

WORKSPACE_ID = "6d0f6d0e-0f1c-4d3b-9a55-7f4b6f0c1a01"
PROXY_ID = "c1a5b0aa-77a4-4c56-8b8e-2f3d9a7b0b02"


def now() -> str:
    """Return the present time as ITH writes it: UTC, milliseconds, ``Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_correlation_id() -> str:
    """Return a correlation id of the documented form."""
    return f"corr_{secrets.token_hex(6)}"


# Control messages --------------------------------------------------------------------------


def connected(*, workspace_id: str = WORKSPACE_ID, proxy_id: str = PROXY_ID) -> JsonObject:
    """Return the first message of a connection."""
    return {"type": "connected", "workspace_id": workspace_id, "proxy_id": proxy_id}


def control_ping() -> JsonObject:
    """Return the keep-alive of the deployed backend."""
    return {"type": "ping", "timestamp": now()}


def config_update_response(*, fields: Sequence[str] = (), error: str = "") -> JsonObject:
    """Return the answer to ``config_update``: success, or an error if one is given."""
    if error:
        return {"type": "config_update_response", "status": "error", "error": error}
    return {
        "type": "config_update_response",
        "status": "success",
        "fields_updated": [*fields],
    }


def health_update_response() -> JsonObject:
    """Return the answer to ``health_update``."""
    return {"type": "health_update_response", "status": "success"}


# Events ------------------------------------------------------------------------------------


def event(
    event_type: str,
    entity_type: str | None,
    entity_id: str | None,
    payload: JsonObject,
    *,
    workspace_id: str = WORKSPACE_ID,
    correlation_id: str | None = None,
) -> JsonObject:
    """Return any event, flat, with all seven base fields."""
    return {
        "event_type": event_type,
        "workspace_id": workspace_id,
        "timestamp": now(),
        "correlation_id": correlation_id or new_correlation_id(),
        "entity_type": entity_type,
        "entity_id": entity_id,
        "payload": payload,
    }


def nested(flat: JsonObject) -> JsonObject:
    """Return the same event in the nested envelope (protocol.md 2.18)."""
    return {"workspace_id": flat["workspace_id"], "timestamp": now(), "payload": flat}


def event_ping() -> JsonObject:
    """Return the keep-alive in the form of an event."""
    return event("ping", None, None, {}, workspace_id="")


def subject_dispatch(
    subject_id: str, nodes: Sequence[str], *, priority: str = "normal", **base: str
) -> JsonObject:
    """Return ``subject.dispatch``; ``base`` is workspace_id or correlation_id."""
    payload = {"nodes": [*nodes], "subject_identifier": "P-0042", "priority": priority}
    return event("subject.dispatch", "subject", subject_id, payload, **base)


def session_dispatch(
    session_id: str,
    nodes: Sequence[str],
    *,
    subject_id: str = "subj-1",
    session_label: str = "visit-2",
    priority: str = "normal",
    **base: str,
) -> JsonObject:
    """Return ``session.dispatch``."""
    payload = {
        "subject_id": subject_id,
        "nodes": [*nodes],
        "session_label": session_label,
        "priority": priority,
    }
    return event("session.dispatch", "session", session_id, payload, **base)


def scan_dispatch(
    scan_id: str,
    nodes: Sequence[str],
    *,
    subject_id: str = "subj-1",
    session_id: str = "sess-1",
    scan_number: int = 3,
    modality: str = "CT",
    priority: str = "normal",
    **base: str,
) -> JsonObject:
    """Return ``scan.dispatch``."""
    payload = {
        "subject_id": subject_id,
        "session_id": session_id,
        "nodes": [*nodes],
        "scan_number": scan_number,
        "modality": modality,
        "priority": priority,
    }
    return event("scan.dispatch", "scan", scan_id, payload, **base)


def new_scan_available(
    scan_id: str, *, subject_id: str = "subj-1", session_id: str = "sess-1", **base: str
) -> JsonObject:
    """Return ``scan.new_scan_available``, which names no nodes."""
    payload = {
        "subject_id": subject_id,
        "session_id": session_id,
        "scan_type": "FlairStar",
        "scan_modality": "Derived",
        "source": "flairstar_analysis",
        "action": "pull_and_dispatch",
        "priority": "normal",
        "metadata": {"analysis_id": "an-7", "processing_duration": 88.2},
    }
    return event("scan.new_scan_available", "scan", scan_id, payload, **base)


def subject_deleted(subject_id: str, *, subject_identifier: str, **base: str) -> JsonObject:
    """Return ``subject.deleted``; the identifier is the key for looking it up."""
    payload = {"subject_identifier": subject_identifier}
    return event("subject.deleted", "subject", subject_id, payload, **base)


def session_deleted(
    session_id: str, *, study_instance_uid: str, subject_id: str = "subj-1", **base: str
) -> JsonObject:
    """Return ``session.deleted``; the study's UID is the key for looking it up."""
    payload = {
        "subject_id": subject_id,
        "session_label": "visit-2",
        "study_instance_uid": study_instance_uid,
    }
    return event("session.deleted", "session", session_id, payload, **base)


def scan_deleted(
    scan_id: str,
    *,
    study_instance_uid: str,
    scan_number: int,
    subject_id: str = "subj-1",
    session_id: str = "sess-1",
    **base: str,
) -> JsonObject:
    """Return ``scan.deleted``; the key is the study's UID with the SeriesNumber."""
    payload = {
        "subject_id": subject_id,
        "session_id": session_id,
        "scan_number": scan_number,
        "study_instance_uid": study_instance_uid,
    }
    return event("scan.deleted", "scan", scan_id, payload, **base)


def nodes_changed(
    nodes: Sequence[JsonObject], action: str = "updated", *, proxy_id: str = PROXY_ID, **base: str
) -> JsonObject:
    """Return ``proxy.nodes_changed``; the action is added, removed, updated or replaced."""
    payload = {"changed_action": action, "nodes": [*nodes]}
    return event("proxy.nodes_changed", "proxy", proxy_id, payload, **base)


def config_changed(
    new_config: JsonObject, *, key: str = "new_config", proxy_id: str = PROXY_ID, **base: str
) -> JsonObject:
    """Return ``proxy.config_changed``; ``key`` may be ``config``, the name some versions read."""
    payload = {"changed_fields": [*new_config], key: new_config}
    return event("proxy.config_changed", "proxy", proxy_id, payload, **base)


def status_changed(
    *,
    is_active: bool,
    new_status: str = "",
    reason: str = "",
    proxy_id: str = PROXY_ID,
    **base: str,
) -> JsonObject:
    """Return ``proxy.status_changed``."""
    payload = {
        "new_status": new_status or ("active" if is_active else "maintenance"),
        "is_active": is_active,
        "reason": reason,
    }
    return event("proxy.status_changed", "proxy", proxy_id, payload, **base)


# Nodes and configuration -------------------------------------------------------------------


def event_node(node_id: str, ae_title: str, host: str, port: int, **more: object) -> JsonObject:
    """Return a node as events describe it."""
    return {
        "node_id": node_id,
        "name": node_id,
        "ae_title": ae_title,
        "host": host,
        "port": port,
        "storage_path": "",
        **more,
    }


def rest_node(node_id: str, ae_title: str, host: str, port: int, **more: object) -> JsonObject:
    """Return a node as the configuration describes it."""
    return {
        "id": node_id,
        "name": node_id,
        "description": "",
        "ae_title": ae_title,
        "ip_address": host,
        "port": port,
        "is_active": True,
        "permission": "read_write",
        "is_reachable": True,
        "metadata": {},
        **more,
    }


def configuration(
    nodes: Sequence[JsonObject] = (),
    *,
    workspace_id: str = WORKSPACE_ID,
    proxy_id: str = PROXY_ID,
    is_active: bool = True,
    **config: object,
) -> JsonObject:
    """Return the body of ``GET /proxy/configuration``; ``config`` overrides its inner object."""
    return {
        "id": proxy_id,
        "workspace_id": workspace_id,
        "name": "Demonstration site",
        "description": "",
        "is_active": is_active,
        "metadata": {},
        "config": {
            "ip_address": "127.0.0.1",
            "port": 11112,
            "ae_title": "DICOMRCV",
            "mode": "private",
            "enable_phi_anonymization": True,
            "api_url": "",
            **config,
        },
        "nodes": [*nodes],
    }
