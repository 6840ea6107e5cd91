"""The embedded backend's HTTP interface, met by a plain client (protocol.md 3)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import trio

from proxy.demo.backend import DemoBackend
from proxy.demo.rest import Fault
from tests.support.waiting import PATIENCE_S

BODY = bytes(range(256)) * 1024
QUERY = "subject_id=subj-1&compression_format=zip&compression_level=0"
SESSION = f"/api/v1/proxy/ws-1/sessions/sess%2F1/download?{QUERY}"


@pytest.fixture
async def backend() -> AsyncIterator[DemoBackend]:
    with trio.fail_after(PATIENCE_S):
        async with DemoBackend(workspace_id="ws-1").running() as backend:
            backend.rest.offer("session", "sess/1", BODY)
            yield backend


@pytest.fixture
async def client(backend: DemoBackend) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"X-Proxy-Key": backend.key, "Accept-Encoding": "identity"}
    async with httpx2.AsyncClient(base_url=backend.url, headers=headers) as client:
        yield client


async def test_the_configuration_is_what_the_test_set(
    backend: DemoBackend, client: httpx2.AsyncClient
) -> None:
    backend.rest.configuration["nodes"] = [{"id": "n1"}]
    answer = await client.get("/api/v1/proxy/configuration")
    assert answer.json() == backend.rest.configuration
    unchanged = await client.get(
        "/api/v1/proxy/configuration", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    backend.rest.configuration["nodes"] = []
    changed = await client.get(
        "/api/v1/proxy/configuration", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert changed.status_code == 200


async def test_a_wrong_key_is_401(backend: DemoBackend, client: httpx2.AsyncClient) -> None:
    answer = await client.get("/api/v1/proxy/configuration", headers={"X-Proxy-Key": "other"})
    assert answer.status_code == 401
    assert backend.rest.requests[0].status == 401


async def test_a_download_is_recorded_with_its_query(
    backend: DemoBackend, client: httpx2.AsyncClient
) -> None:
    answer = await client.get(SESSION)
    assert answer.content == BODY
    (request,) = backend.rest.downloads
    assert request.query == {
        "subject_id": "subj-1",
        "compression_format": "zip",
        "compression_level": "0",
    }
    assert request.headers["x-proxy-key"] == backend.key
    assert (request.status, request.sent) == (200, len(BODY))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/proxy/ws-1/sessions/sess%2F1/download", 422),
        (f"/api/v1/proxy/ws-2/sessions/sess%2F1/download?{QUERY}", 404),
        (f"/api/v1/proxy/ws-1/sessions/other/download?{QUERY}", 404),
        (f"/api/v1/proxy/ws-1/scans/sess%2F1/download?{QUERY}", 404),
        ("/api/v1/proxy/elsewhere", 404),
    ],
)
async def test_what_is_not_there_is_refused(
    client: httpx2.AsyncClient, path: str, status: int
) -> None:
    answer = await client.get(path)
    assert answer.status_code == status
    assert "detail" in answer.json()


async def test_a_file_is_served_as_bytes_are(
    backend: DemoBackend, client: httpx2.AsyncClient, tmp_path: Path
) -> None:
    path = tmp_path / "archive"
    path.write_bytes(BODY)
    backend.rest.offer("subject", "s", path)
    answer = await client.get("/api/v1/proxy/ws-1/subjects/s/download")
    assert answer.content == BODY


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=1000-", 206, 1000, len(BODY)),
        ("bytes=1000-1999", 206, 1000, 2000),
        (f"bytes={len(BODY)}-", 416, 0, 0),
        ("lines=1-", 200, 0, len(BODY)),
    ],
)
async def test_ranges(
    client: httpx2.AsyncClient, asked: str, status: int, start: int, stop: int
) -> None:
    answer = await client.get(SESSION, headers={"Range": asked})
    assert answer.status_code == status
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(BODY)}"
    else:
        assert answer.content == BODY[start:stop]
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(BODY)}"


async def test_if_range_guards_against_another_version(
    backend: DemoBackend, client: httpx2.AsyncClient
) -> None:
    etag = backend.rest.archives["session", "sess/1"].etag
    same = await client.get(SESSION, headers={"Range": "bytes=5-", "If-Range": etag})
    other = await client.get(SESSION, headers={"Range": "bytes=5-", "If-Range": '"old"'})
    assert (same.status_code, other.status_code) == (206, 200)


async def test_ranges_tags_and_length_can_be_switched_off(
    backend: DemoBackend, client: httpx2.AsyncClient
) -> None:
    archive = backend.rest.archives["session", "sess/1"]
    archive.ranges, archive.length, archive.etag = False, False, ""
    answer = await client.get(SESSION, headers={"Range": "bytes=5-"})
    assert (answer.status_code, answer.content) == (200, BODY)
    assert not {"etag", "content-length", "accept-ranges"} & {*answer.headers}


async def test_a_fault_is_one_answer(backend: DemoBackend, client: httpx2.AsyncClient) -> None:
    backend.rest.download_faults.append(Fault(status=503, headers={"Retry-After": "7"}))
    broken, sound = await client.get(SESSION), await client.get(SESSION)
    assert (broken.status_code, broken.headers["retry-after"]) == (503, "7")
    assert sound.content == BODY


async def test_a_configuration_fault_spares_downloads(
    backend: DemoBackend, client: httpx2.AsyncClient
) -> None:
    backend.rest.configuration_faults.append(Fault(status=500))
    assert (await client.get(SESSION)).status_code == 200
    assert (await client.get("/api/v1/proxy/configuration")).status_code == 500


@pytest.mark.parametrize("length", [True, False])
async def test_a_body_is_cut(
    backend: DemoBackend, client: httpx2.AsyncClient, length: bool
) -> None:
    backend.rest.archives["session", "sess/1"].length = length
    backend.rest.download_faults.append(Fault(cut_after=100_000))
    seen = bytearray()
    async with client.stream("GET", SESSION) as answer:
        try:
            async for block in answer.aiter_bytes():
                seen += block
        except httpx2.RemoteProtocolError:
            seen += b"cut"
    assert seen == BODY[:100_000] + b"cut"
    assert backend.rest.downloads[0].sent == 100_000


async def test_a_body_stalls(backend: DemoBackend, client: httpx2.AsyncClient) -> None:
    backend.rest.download_faults.append(Fault(stall_after=10))
    with trio.move_on_after(0.3) as silence:
        await client.get(SESSION)
    assert silence.cancelled_caught
    assert backend.rest.downloads[0].sent == 10


async def test_the_length_is_announced_too_long(
    backend: DemoBackend, client: httpx2.AsyncClient
) -> None:
    backend.rest.download_faults.append(Fault(announce=1))
    with pytest.raises(httpx2.RemoteProtocolError):
        await client.get(SESSION)


async def test_the_length_is_announced_too_short(
    backend: DemoBackend, client: httpx2.AsyncClient
) -> None:
    backend.rest.download_faults.append(Fault(announce=-5))
    async with client.stream("GET", SESSION) as answer:
        assert int(answer.headers["content-length"]) == len(BODY) - 5


async def test_a_byte_is_flipped(backend: DemoBackend, client: httpx2.AsyncClient) -> None:
    backend.rest.download_faults.append(Fault(flip_at=70_000))
    content = (await client.get(SESSION)).content
    assert [at for at, (a, b) in enumerate(zip(content, BODY, strict=True)) if a != b] == [70_000]


async def test_an_error_may_look_like_success(
    backend: DemoBackend, client: httpx2.AsyncClient
) -> None:
    backend.rest.download_faults.append(Fault(body=b'{"error": "not ready"}'))
    answer = await client.get(SESSION)
    assert (answer.status_code, answer.json()) == (200, {"error": "not ready"})


async def test_an_answer_is_delayed_and_slow(
    backend: DemoBackend, client: httpx2.AsyncClient
) -> None:
    backend.rest.download_faults.append(Fault(delay_s=0.1))
    backend.rest.archives["session", "sess/1"].bytes_per_s = len(BODY) * 10
    begun = trio.current_time()
    await client.get(SESSION)
    assert trio.current_time() - begun >= 0.2


async def test_one_connection_serves_several_requests(client: httpx2.AsyncClient) -> None:
    first, second = await client.get(SESSION), await client.get(SESSION)
    ports = {
        answer.extensions["network_stream"].get_extra_info("client_addr")
        for answer in (first, second)
    }
    assert len(ports) == 1
