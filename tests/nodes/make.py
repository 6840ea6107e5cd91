"""Nodes and a configuration as ITH sends them (protocol.md 6.1), for the tests beside this file."""

from __future__ import annotations

import json

FROM_REST: dict[str, object] = {
    "id": "n1",
    "name": "Reading room",
    "description": "",
    "ae_title": "READROOM",
    "ip_address": "192.0.2.20",
    "port": 104,
    "is_active": True,
    "permission": "read_write",
    "is_reachable": True,
    "metadata": {},
}

FROM_EVENT: dict[str, object] = {
    "node_id": "n1",
    "name": "Reading room",
    "ae_title": "READROOM",
    "host": "192.0.2.20",
    "port": 104,
    "storage_path": "/srv/dicom/readroom",
}

CONFIGURATION = (
    '{"id":"proxy-1","workspace_id":"ws-1","name":"Site A","description":"","is_active":true,'
    '"metadata":{},"config":{"ip_address":"192.0.2.10","port":11112,"ae_title":"DICOMRCV",'
    '"mode":"private","enable_phi_anonymization":true,"api_url":"https://proxy.example.org/api"},'
    '"nodes":[{"id":"n1","name":"Reading room","description":"","ae_title":"READROOM",'
    '"ip_address":"192.0.2.20","port":104,"is_active":true,"permission":"read_write",'
    '"is_reachable":true,"metadata":{}}]}'
)


def configuration(**changes: object) -> bytes:
    """The configuration with other values at the top level."""
    return json.dumps(json.loads(CONFIGURATION) | changes).encode()


def without(key: str) -> bytes:
    """The configuration without one value at the top level."""
    raw = json.loads(CONFIGURATION)
    del raw[key]
    return json.dumps(raw).encode()
