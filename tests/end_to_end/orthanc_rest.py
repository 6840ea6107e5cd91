"""The content of Orthanc, read over its own REST interface."""

from __future__ import annotations

import json
from urllib.request import urlopen

import trio

from tests.end_to_end.sessions import read
from tests.support.peers import Node
from tests.support.waiting import PATIENCE_S


def _get(node: Node, path: str) -> bytes:
    with urlopen(f"http://{node.host}:{node.http_port}{path}") as reply:
        content: bytes = reply.read()
    return content


def _held(node: Node) -> dict[str, bytes]:
    files = [_get(node, f"/instances/{each}/file") for each in json.loads(_get(node, "/instances"))]
    return {str(read(content).SOPInstanceUID): content for content in files}


def _stores(node: Node) -> int:
    log = json.loads(_get(node, "/changes?limit=1000000"))
    assert log["Done"]
    others = [each for each in log["Changes"] if each["ChangeType"] != "NewInstance"]
    return int(log["Last"]) - len(others)


async def stores_at(node: Node) -> int:
    """Return how often Orthanc has stored an instance, be it the same one twice.

    It must overwrite. Its log of changes forgets what was overwritten, but counts on.
    """
    return await trio.to_thread.run_sync(_stores, node)


async def until_stored(node: Node, count: int) -> None:
    """Return when Orthanc has stored so many."""
    with trio.fail_after(PATIENCE_S):
        while await stores_at(node) < count:  # noqa: ASYNC110 - only Orthanc knows
            await trio.sleep(0.01)


async def held_by(node: Node) -> dict[str, bytes]:
    """Return every file that Orthanc holds by its SOP Instance UID."""
    return await trio.to_thread.run_sync(_held, node)
