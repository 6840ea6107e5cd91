"""What Orthanc holds, asked over its own REST interface."""

from __future__ import annotations

import json
from urllib.request import urlopen

import trio

from tests.end_to_end.sessions import read
from tests.support.peers import Node


def _get(node: Node, path: str) -> bytes:
    with urlopen(f"http://{node.host}:{node.http_port}{path}") as reply:
        content: bytes = reply.read()
    return content


def _held(node: Node) -> dict[str, bytes]:
    files = [_get(node, f"/instances/{each}/file") for each in json.loads(_get(node, "/instances"))]
    return {str(read(content).SOPInstanceUID): content for content in files}


async def held_by(node: Node) -> dict[str, bytes]:
    """Return every file that Orthanc holds by its SOP Instance UID."""
    return await trio.to_thread.run_sync(_held, node)
