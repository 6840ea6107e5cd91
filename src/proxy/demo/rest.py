"""The HTTP answers of the embedded backend: the configuration and downloads (protocol.md 3).

Every request is recorded; :class:`Fault` makes the next answers go wrong.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import urllib.parse
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import trio

from proxy.demo import frames
from proxy.demo.http import Hangup, HttpRequest, Reply

BLOCK = 64 * 1024
BASE = "/api/v1/proxy"
PARENTS = {"subject": (), "session": ("subject_id",), "scan": ("subject_id", "session_id")}
"""The query parameters without which a download is refused."""

DOWNLOAD = re.compile(rf"{BASE}/(?P<workspace>[^/]+)/(?P<kind>\w+)s/(?P<id>[^/]+)/download")


@dataclass
class Archive:
    """A download on offer. ``length`` False sends it chunked; ``bytes_per_s`` slows it down."""

    content: bytes | Path
    content_type: str = "application/zip"
    etag: str = ""
    ranges: bool = True
    length: bool = True
    bytes_per_s: float | None = None

    @property
    def size(self) -> int:
        """The size of the complete archive in bytes."""
        if isinstance(self.content, Path):
            return self.content.stat().st_size
        return len(self.content)

    def open(self) -> BinaryIO:
        """Return the archive as a file."""
        return (
            self.content.open("rb") if isinstance(self.content, Path) else io.BytesIO(self.content)
        )


@dataclass
class Fault:
    """One answer that goes wrong, in any combination.

    ``status`` gives an error in JSON with ``headers``; ``body`` a 200 with that body instead of
    the right one. Else the right answer is sent, with ``announce`` added to its Content-Length, the
    byte at ``flip_at`` inverted, and the connection cut ``cut_after`` or left silent
    ``stall_after`` so many bytes of the body. ``delay_s`` passes first in any case.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"
    delay_s: float = 0.0
    announce: int = 0
    cut_after: int | None = None
    stall_after: int | None = None
    flip_at: int | None = None


SOUND = Fault()


class Rest:
    """The HTTP half of the embedded backend."""

    def __init__(self, key: str, workspace_id: str, configuration: frames.JsonObject) -> None:
        self.key = key
        self.workspace_id = workspace_id
        self.configuration = configuration
        self.requests: list[HttpRequest] = []
        self.archives: dict[tuple[str, str], Archive] = {}
        self.configuration_faults: deque[Fault] = deque()
        self.download_faults: deque[Fault] = deque()

    def offer(self, kind: str, entity_id: str, content: bytes | Path) -> Archive:
        """Offer the archive of a subject, session or scan; its switches may be changed later."""
        body = content.read_bytes() if isinstance(content, Path) else content
        is_zip = body.startswith(b"PK")
        archive = Archive(
            content,
            content_type="application/zip" if is_zip else "application/gzip",
            etag=f'"{hashlib.sha256(body).hexdigest()[:16]}"',
        )
        self.archives[kind, entity_id] = archive
        return archive

    @property
    def downloads(self) -> list[HttpRequest]:
        """The requests for archives so far."""
        return [request for request in self.requests if request.path.endswith("/download")]

    async def answer(self, request: HttpRequest, reply: Reply) -> None:
        """Answer one request."""
        self.requests.append(request)
        if request.headers.get("x-proxy-key") != self.key:
            await _refuse(request, reply, 401, "Invalid proxy key")
        elif request.method != "GET":
            await _refuse(request, reply, 405, "Method Not Allowed")
        elif request.path == f"{BASE}/configuration":
            await self._answer_configuration(request, reply)
        elif match := DOWNLOAD.fullmatch(request.path):
            await self._answer_download(request, reply, match.group("workspace", "kind", "id"))
        else:
            await _refuse(request, reply, 404, "Not Found")

    async def _answer_configuration(self, request: HttpRequest, reply: Reply) -> None:
        fault = self.configuration_faults.popleft() if self.configuration_faults else SOUND
        body = json.dumps(self.configuration).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        await _answer(request, reply, Archive(body, "application/json", etag), fault)

    async def _answer_download(
        self, request: HttpRequest, reply: Reply, where: tuple[str, ...]
    ) -> None:
        workspace, kind, entity_id = (urllib.parse.unquote(part) for part in where)
        fault = self.download_faults.popleft() if self.download_faults else SOUND
        archive = self.archives.get((kind, entity_id))
        missing = [name for name in PARENTS.get(kind, ()) if not request.query.get(name)]
        if workspace != self.workspace_id or archive is None:
            await _refuse(request, reply, 404, f"No such {kind}")
        elif missing:
            await _refuse(request, reply, 422, f"Missing query parameter {missing[0]}")
        else:
            await _answer(request, reply, archive, fault)


async def _refuse(
    request: HttpRequest, reply: Reply, status: int, detail: str, headers: Mapping[str, str] = {}
) -> None:
    request.status = status
    await reply.json(status, {"detail": detail}, headers)


async def _answer(request: HttpRequest, reply: Reply, archive: Archive, fault: Fault) -> None:
    """Answer with an archive, subject to the request's conditions and the fault."""
    await trio.sleep(fault.delay_s)
    if fault.status is not None:
        await _refuse(request, reply, fault.status, "Something went wrong", fault.headers)
        return
    if fault.body is not None:
        request.status, request.sent = 200, len(fault.body)
        await reply.whole(200, fault.body, fault.content_type)
        return
    headers = {"etag": archive.etag} if archive.etag else {}
    if archive.etag and request.headers.get("if-none-match") == archive.etag:
        request.status = 304
        await reply.head(304, headers)
        await reply.end()
        return
    await _send(request, reply, archive, fault, headers)


async def _send(
    request: HttpRequest, reply: Reply, archive: Archive, fault: Fault, headers: dict[str, str]
) -> None:
    """Send the archive, or the requested part of it."""
    size = archive.size
    span = _span(request, archive, size)
    if span is None:
        await _refuse(request, reply, 416, "Range", {"content-range": f"bytes */{size}"})
        return
    start, stop = span
    partial = "range" in request.headers and span != (0, size)
    request.status = 206 if partial else 200
    headers["content-type"] = archive.content_type
    if archive.ranges:
        headers["accept-ranges"] = "bytes"
    if partial:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    if archive.length:
        headers["content-length"] = str(stop - start + fault.announce)
    await reply.head(request.status, headers, raw=archive.length and fault is not SOUND)
    with archive.open() as file:
        file.seek(start)
        for block in _blocks(file, stop - start, fault):
            if archive.bytes_per_s:
                await trio.sleep(len(block) / archive.bytes_per_s)
            await reply.data(block)
            request.sent += len(block)
    if fault.stall_after is not None:
        await trio.sleep_forever()
    if fault.cut_after is not None:
        raise Hangup
    await reply.end()


def _blocks(file: BinaryIO, left: int, fault: Fault) -> Iterator[bytes]:
    """Yield the body up to the byte at which the fault ends it."""
    ends = (fault.cut_after, fault.stall_after)
    left = min([left, *(end for end in ends if end is not None)])
    done = 0
    while done < left:
        block = bytearray(file.read(min(BLOCK, left - done)))
        if fault.flip_at is not None and 0 <= fault.flip_at - done < len(block):
            block[fault.flip_at - done] ^= 0xFF
        yield bytes(block)
        done += len(block)


def _span(request: HttpRequest, archive: Archive, size: int) -> tuple[int, int] | None:
    """Return the requested bytes as start and stop, None if there are none (RFC 9110, 14)."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    same = request.headers.get("if-range", archive.etag) == archive.etag
    if not (asked and same and archive.ranges):
        return 0, size
    start, stop = int(asked[1]), int(asked[2] or size - 1) + 1
    return (start, min(stop, size)) if start < min(stop, size) else None
