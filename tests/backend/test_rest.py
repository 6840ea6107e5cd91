from __future__ import annotations

import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from proxy.backend.fetch import FetchLimits
from proxy.backend.rest import Backend, Download, NotModified, RestSettings
from proxy.backend.trust import system_trust
from proxy.errors import BackendError, ConfigError
from proxy.model import Entity, EntityType
from proxy.runtime.clock import SYSTEM_CLOCK, Clock
from proxy.runtime.offload import Threads
from proxy.runtime.rng import SYSTEM_RANDOM
from tests.backend.http_server import (
    Request,
    Script,
    Server,
    Versioned,
    always,
    head,
    in_turn,
    serving,
    whole,
)
from tests.support.clocks import NOON, SetClock
from tests.support.waiting import PATIENCE_S

KEY = "pk_ZZSECRET+key/=="
SESSION = Entity(EntityType.SESSION, "sess-1", subject_id="subj-1")
ARCHIVE = b"PK\x03\x04" + random.Random(7).randbytes(3_000_000)
QUICK = FetchLimits(
    first_byte_seconds=5, stall_seconds=0.5, attempts=3, backoff_seconds=0.01, retry_after_seconds=2
)


def backend(
    url: str,
    context: ssl.SSLContext | None = None,
    *,
    clock: Clock = SYSTEM_CLOCK,
    **settings: Any,
) -> Backend:
    settings = {"fetch": QUICK, "reserve_bytes": 0, **settings}
    return Backend(
        RestSettings(url=url, **settings),
        KEY,
        Threads(4),
        clock=clock,
        rng=SYSTEM_RANDOM,
        context=context,
    )


@asynccontextmanager
async def asking(script: Script, **settings: Any) -> AsyncIterator[tuple[Backend, Server]]:
    async with serving(script) as server, backend(server.origin, **settings) as client:
        yield client, server


async def fetch(
    client: Backend, tmp_path: Path, etag: str | None = None
) -> tuple[Download | NotModified, list[tuple[int, int | None]]]:
    progress: list[tuple[int, int | None]] = []
    got = await client.download(
        SESSION, "ws-1", tmp_path / "archive", etag, lambda *both: progress.append(both)
    )
    return got, progress


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def refused(client: Backend, tmp_path: Path) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await fetch(client, tmp_path)
    assert names(tmp_path) == []
    assert KEY not in f"{caught.value!r} {caught.value} {caught.value.hint}"
    return caught.value


async def test_downloads_the_body_as_it_is(tmp_path: Path) -> None:
    async with asking(Versioned(ARCHIVE, '"v1"')) as (client, server):
        got, progress = await fetch(client, tmp_path)
    assert got == Download(tmp_path / "archive", len(ARCHIVE), '"v1"')
    assert (tmp_path / "archive").read_bytes() == ARCHIVE
    assert names(tmp_path) == ["archive"]
    assert progress[-1] == (len(ARCHIVE), len(ARCHIVE))
    assert [now for now, _ in progress] == sorted(now for now, _ in progress)
    (request,) = server.requests
    assert request.headers["x-proxy-key"] == KEY
    assert request.headers["accept-encoding"] == "identity"
    assert "range" not in request.headers
    assert request.target == (
        "/api/v1/proxy/ws-1/sessions/sess-1/download"
        "?subject_id=subj-1&compression_format=zip&compression_level=0"
    )


async def test_resumes_the_same_version_wherever_it_is_cut(tmp_path: Path) -> None:
    async with asking(Versioned(ARCHIVE, '"v1"', cut=1_100_000)) as (client, server):
        got, _ = await fetch(client, tmp_path)
    assert isinstance(got, Download)
    assert got.path.read_bytes() == ARCHIVE
    ranges = [request.headers.get("range") for request in server.requests]
    assert ranges == [None, "bytes=1100000-", "bytes=2200000-"]
    assert {request.headers["if-range"] for request in server.requests[1:]} == {'"v1"'}


async def test_starts_over_when_the_version_changed_in_between(tmp_path: Path) -> None:
    newer = b"PK\x03\x04" + random.Random(8).randbytes(2_000_000)
    first, second = Versioned(ARCHIVE, '"v1"', cut=1_500_000), Versioned(newer, '"v2"')

    async def script(request: Request, stream: trio.abc.Stream) -> None:
        await (first if "range" not in request.headers else second)(request, stream)

    async with asking(script) as (client, _):
        got, _ = await fetch(client, tmp_path)
    assert got == Download(tmp_path / "archive", len(newer), '"v2"')
    assert (tmp_path / "archive").read_bytes() == newer


@pytest.mark.parametrize(
    "lie",
    [
        ("Content-Range: bytes 5-3000003/3000004", 'ETag: "v1"'),
        ("Content-Range: bytes 1000000-1000003/3000004", 'ETag: "v1"'),
        ("Content-Range: bytes 1000000-1000003/1000004", 'ETag: "v1"'),
        ("Content-Range: bytes 1000000-3000003/*", 'ETag: "other"'),
        ("Content-Range: lines 1-2/3", 'ETag: "v1"'),
        ('ETag: "v1"',),
    ],
)
async def test_does_not_believe_a_false_range(tmp_path: Path, lie: tuple[str, ...]) -> None:
    begun = head(200, f"Content-Length: {len(ARCHIVE)}", 'ETag: "v1"') + ARCHIVE[:1_000_000]
    false = whole(b"x" * 4, *lie, status=206)
    async with asking(in_turn(begun, false, whole(ARCHIVE))) as (client, server):
        got, _ = await fetch(client, tmp_path)
    assert isinstance(got, Download)
    assert got.path.read_bytes() == ARCHIVE
    assert [("range" in request.headers) for request in server.requests] == [False, True, False]


async def test_the_end_of_a_body_is_not_the_end_of_the_archive(tmp_path: Path) -> None:
    begun = head(200, f"Content-Length: {len(ARCHIVE)}", 'ETag: "v1"') + ARCHIVE[:1_000_000]
    lines = ("Content-Range: bytes 1000000-3000003/3000004", "Transfer-Encoding: chunked")
    short = head(206, *lines) + b"4\r\n" + ARCHIVE[1_000_000:1_000_004] + b"\r\n0\r\n\r\n"
    async with asking(in_turn(begun, short, whole(ARCHIVE))) as (client, server):
        got, _ = await fetch(client, tmp_path)
    assert isinstance(got, Download)
    assert got.path.read_bytes() == ARCHIVE
    assert server.requests[2].headers["range"] == "bytes=1000004-"


async def test_starts_over_where_nothing_can_be_resumed(tmp_path: Path) -> None:
    for version in ([], ['ETag: W/"weak"'], ['ETag: "v1"', "Accept-Ranges: none"]):
        cut = head(200, f"Content-Length: {len(ARCHIVE)}", *version) + ARCHIVE[:2_000_000]
        async with asking(in_turn(cut, whole(ARCHIVE))) as (client, server):
            got, _ = await fetch(client, tmp_path)
        assert isinstance(got, Download)
        assert got.path.read_bytes() == ARCHIVE
        assert not any("range" in request.headers for request in server.requests)


async def test_starts_over_after_416(tmp_path: Path) -> None:
    cut = head(200, f"Content-Length: {len(ARCHIVE)}", 'ETag: "v1"') + ARCHIVE[:2_000_000]
    async with asking(in_turn(cut, head(416), whole(ARCHIVE))) as (client, _):
        got, _ = await fetch(client, tmp_path)
    assert isinstance(got, Download)
    assert got.path.read_bytes() == ARCHIVE


async def test_gives_up_after_as_many_attempts_without_progress(tmp_path: Path) -> None:
    cut = head(200, f"Content-Length: {len(ARCHIVE)}", 'ETag: "v1"') + ARCHIVE[:600]
    async with asking(always(cut)) as (client, server):
        error = await refused(client, tmp_path)
    assert not error.permanent
    assert len(server.requests) == QUICK.attempts


async def test_a_body_cut_in_chunked_coding_is_not_taken_for_whole(tmp_path: Path) -> None:
    chunk = b"3e8\r\n" + ARCHIVE[:1000] + b"\r\n"
    async with asking(always(head(200, "Transfer-Encoding: chunked") + chunk)) as (client, _):
        assert not (await refused(client, tmp_path)).permanent


async def test_takes_a_body_of_unknown_length(tmp_path: Path) -> None:
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(ARCHIVE), ARCHIVE)
    async with asking(always(head(200, "Transfer-Encoding: chunked") + chunked)) as (client, _):
        got, progress = await fetch(client, tmp_path)
    assert isinstance(got, Download)
    assert got.path.read_bytes() == ARCHIVE
    assert progress[-1] == (len(ARCHIVE), None)


async def test_asks_for_a_newer_version_only(tmp_path: Path) -> None:
    async with asking(Versioned(ARCHIVE, '"v2"')) as (client, _):
        same, _ = await fetch(client, tmp_path, '"v2"')
        assert names(tmp_path) == []
        newer, _ = await fetch(client, tmp_path, '"v1"')
    assert same == NotModified('"v2"')
    assert newer == Download(tmp_path / "archive", len(ARCHIVE), '"v2"')


async def test_a_304_nobody_asked_for_is_an_error(tmp_path: Path) -> None:
    async with asking(always(head(304))) as (client, _):
        assert not (await refused(client, tmp_path)).permanent


async def test_a_stalled_body_is_cut_and_resumed(tmp_path: Path) -> None:
    versioned = Versioned(ARCHIVE, '"v1"')

    async def script(request: Request, stream: trio.abc.Stream) -> None:
        versioned.cut = None if "range" in request.headers else 1_000_000
        await versioned(request, stream)
        if versioned.cut:
            await trio.sleep_forever()

    async with asking(script) as (client, server):
        with trio.fail_after(PATIENCE_S):
            got, _ = await fetch(client, tmp_path)
    assert isinstance(got, Download)
    assert got.path.read_bytes() == ARCHIVE
    assert [r.headers.get("range") for r in server.requests] == [None, "bytes=1000000-"]


async def test_a_drip_is_no_movement(tmp_path: Path) -> None:
    async def script(_: Request, stream: trio.abc.Stream) -> None:
        await stream.send_all(head(200, f"Content-Length: {len(ARCHIVE)}"))
        for byte in ARCHIVE:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.05)

    limits = FetchLimits(first_byte_seconds=5, stall_seconds=0.3, attempts=1)
    async with asking(script, fetch=limits) as (client, _):
        with trio.fail_after(PATIENCE_S):
            assert not (await refused(client, tmp_path)).permanent


async def test_waits_longer_for_the_first_byte_than_for_the_next(tmp_path: Path) -> None:
    async def script(request: Request, stream: trio.abc.Stream) -> None:
        await trio.sleep(1)  # twice the stall limit
        await stream.send_all(head(200, f"Content-Length: {len(ARCHIVE)}"))
        await trio.sleep(1)
        await stream.send_all(ARCHIVE)

    async with asking(script) as (client, _):
        got, _ = await fetch(client, tmp_path)
    assert isinstance(got, Download)


async def test_does_not_wait_for_ever_for_the_first_byte(tmp_path: Path) -> None:
    async def script(_: Request, __: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    limits = FetchLimits(first_byte_seconds=0.3)
    async with asking(script, fetch=limits) as (client, server):
        with trio.fail_after(PATIENCE_S):
            assert not (await refused(client, tmp_path)).permanent
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        *((status, True) for status in (400, 401, 403, 404, 410, 418)),
        *((status, False) for status in (202, 204, 206, 408, 425, 429, 500, 502, 503)),
    ],
)
async def test_tells_what_is_permanent(tmp_path: Path, status: int, *, permanent: bool) -> None:
    body = whole(b'{"detail": "ZZCANARY^PHI"}', status=status) if status != 204 else head(204)
    async with asking(always(body)) as (client, server):
        error = await refused(client, tmp_path)
    assert error.permanent is permanent
    assert error.hint
    assert str(status) in str(error)
    assert "CANARY" not in f"{error!r}{error}{error.hint}"
    assert len(server.requests) == 1


async def test_obeys_retry_after_within_a_bound(tmp_path: Path) -> None:
    busy = whole(b"", "Retry-After: 1", status=429)
    async with asking(in_turn(busy, whole(ARCHIVE))) as (client, _):
        begun = trio.current_time()
        got, _ = await fetch(client, tmp_path)
        assert trio.current_time() - begun >= 1
    assert isinstance(got, Download)


async def test_leaves_a_long_retry_after_to_the_caller(tmp_path: Path) -> None:
    async with asking(always(whole(b"", "Retry-After: 900", status=503))) as (client, server):
        error = await refused(client, tmp_path)
    assert error.retry_after == 900
    assert not error.permanent
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Fri, 15 Jan 2027 08:15:00 GMT", 900.0),
        ("Fri, 15 Jan 2027 09:15:00 +0100", 900.0),
        ("Fri, 15 Jan 2027 07:59:00 GMT", 0.0),
        ("soon", None),
    ],
)
async def test_a_retry_after_may_be_a_date(date: str, seconds: float | None) -> None:
    answer = always(whole(b"", f"Retry-After: {date}", status=503))
    async with asking(answer, clock=SetClock(NOON)) as (client, _):
        with pytest.raises(BackendError) as caught:
            await client.configuration()
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    "body",
    [b'{"detail": "ZZCANARY^PHI"}', b"<!DOCTYPE html><p>ZZCANARY^PHI", b"ZZCANARY^PHI", b""],
)
async def test_a_page_is_no_archive(tmp_path: Path, body: bytes) -> None:
    async with asking(always(whole(body, "Content-Type: application/zip"))) as (client, _):
        error = await refused(client, tmp_path)
    assert not error.permanent
    assert "CANARY" not in f"{error!r}{error}{error.hint}"


async def test_refuses_more_than_the_cap_announced_or_not(tmp_path: Path) -> None:
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(ARCHIVE), ARCHIVE)
    for answer in (whole(ARCHIVE), head(200, "Transfer-Encoding: chunked") + chunked):
        async with asking(always(answer), max_bytes=2_000_000) as (client, server):
            assert (await refused(client, tmp_path)).permanent
        assert len(server.requests) == 1


async def test_leaves_the_reserve_on_the_disk(tmp_path: Path) -> None:
    async with asking(always(whole(ARCHIVE)), reserve_bytes=2**60) as (client, _):
        error = await refused(client, tmp_path)
    assert not error.permanent
    assert "reserve" in error.hint


async def test_a_directory_that_is_missing_is_told_without_its_path(tmp_path: Path) -> None:
    async with asking(always(whole(ARCHIVE))) as (client, _):
        with pytest.raises(BackendError, match="ENOENT") as caught:
            await fetch(client, tmp_path / "missing")
    assert str(tmp_path) not in str(caught.value)


async def test_replaces_what_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / "archive.part").write_bytes(b"old" * 2_000_000)
    async with asking(always(whole(ARCHIVE))) as (client, _):
        await fetch(client, tmp_path)
    assert names(tmp_path) == ["archive"]
    assert (tmp_path / "archive").read_bytes() == ARCHIVE


# --- redirects ----------------------------------------------------------------------------------


async def test_the_key_stays_with_its_origin_when_redirected(tmp_path: Path) -> None:
    async with serving(Versioned(ARCHIVE, '"v1"', cut=2_000_000)) as store:
        away = always(head(302, f"Location: {store.origin}/signed?token=t"))
        async with asking(away) as (client, ith):
            got, _ = await fetch(client, tmp_path)
    assert isinstance(got, Download)
    assert got.path.read_bytes() == ARCHIVE
    assert len(store.requests) == len(ith.requests) == 2
    assert all(request.headers["x-proxy-key"] == KEY for request in ith.requests)
    assert not any(KEY in f"{request}" for request in store.requests)
    assert store.requests[1].headers["range"] == "bytes=2000000-"


async def test_an_outdated_redirect_is_renewed_at_ith(tmp_path: Path) -> None:
    cut = Versioned(ARCHIVE, '"v1"', cut=2_000_000)
    rest = Versioned(ARCHIVE, '"v1"')
    turns = iter((cut, always(head(403)), rest))

    async def script(request: Request, stream: trio.abc.Stream) -> None:
        await next(turns)(request, stream)

    async with serving(script) as store:
        away = always(head(307, f"Location: {store.origin}/signed"))
        async with asking(away) as (client, ith):
            got, _ = await fetch(client, tmp_path)
    assert isinstance(got, Download)
    assert got.path.read_bytes() == ARCHIVE
    assert len(ith.requests) == 3


@pytest.mark.parametrize(
    "location",
    [
        "http://evil.example.org/x",
        "https://evil.example.org/x",
        "https://archive.example.org.evil.example/x",
        "https://notarchive.example.org/x",
        "http://archive.example.org/x",
        "https://user:password@archive.example.org/x",
        "ftp://archive.example.org/x",
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data",
        "https://[::1]:1/x",
        "//evil.example.org/x",
        "http://[broken",
        "",
    ],
)
async def test_refuses_to_be_led_elsewhere(tmp_path: Path, location: str) -> None:
    hosts = ("archive.example.org",)
    script = always(head(302, f"Location: {location}"))
    async with asking(script, download_hosts=hosts) as (client, server):
        error = await refused(client, tmp_path)
    assert error.permanent or not location
    assert "evil" not in str(error)
    assert len(server.requests) == (1 if location else 4)


async def test_follows_three_redirects_and_no_fourth(tmp_path: Path) -> None:
    hop = head(301, "Location: next")
    async with asking(in_turn(hop, hop, hop, whole(ARCHIVE))) as (client, server):
        got, _ = await fetch(client, tmp_path)
        assert isinstance(got, Download)
        assert len(server.requests) == 4
        assert all(request.headers["x-proxy-key"] == KEY for request in server.requests)
    (tmp_path / "archive").unlink()
    async with asking(always(hop)) as (client, server):
        assert not (await refused(client, tmp_path)).permanent
        assert len(server.requests) == 4


async def test_the_configuration_comes_from_ith_alone() -> None:
    async with serving(always(whole(b"{}"))) as store:
        away = always(head(302, f"Location: {store.origin}/"))
        async with asking(away, download_hosts=("127.0.0.1",)) as (client, _):
            with pytest.raises(BackendError, match="redirected"):
                await client.configuration()
    assert store.requests == []


# --- configuration, keys, TLS ---------------------------------------------------------------------


async def test_gives_the_configuration_as_it_is() -> None:
    async with asking(always(whole(b'{"id": "proxy-1"}'))) as (client, server):
        assert await client.configuration() == b'{"id": "proxy-1"}'
    (request,) = server.requests
    assert request.target == "/api/v1/proxy/configuration"
    assert request.headers["x-proxy-key"] == KEY


@pytest.mark.parametrize(
    ("status", "words", "permanent"),
    [(401, "key", True), (403, "active", True), (404, "deleted", True), (503, "again", False)],
)
async def test_tells_the_operator_what_to_do(status: int, words: str, *, permanent: bool) -> None:
    async with asking(always(whole(b"", status=status))) as (client, _):
        with pytest.raises(BackendError) as caught:
            await client.configuration()
    assert words in caught.value.hint
    assert caught.value.permanent is permanent


async def test_a_configuration_that_does_not_come_is_given_up() -> None:
    async def script(_: Request, stream: trio.abc.Stream) -> None:
        await stream.send_all(head(200, "Content-Length: 100"))
        await trio.sleep_forever()

    async with asking(script, answer_seconds=0.3) as (client, _):
        with trio.fail_after(PATIENCE_S), pytest.raises(BackendError, match="in time"):
            await client.configuration()


async def test_a_configuration_without_end_is_refused() -> None:
    async def script(_: Request, stream: trio.abc.Stream) -> None:
        await stream.send_all(head(200))
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b" " * 1_000_000)

    async with asking(script) as (client, _):
        with pytest.raises(BackendError, match="too large"):
            await client.configuration()


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ", "nul\0"])
def test_refuses_a_key_that_cannot_be_sent(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Backend(
            RestSettings(url="https://ith.example.org"),
            key,
            Threads(1),
            clock=SYSTEM_CLOCK,
            rng=SYSTEM_RANDOM,
        )
    assert not key or key not in f"{caught.value}{caught.value.hint}"


async def test_no_repr_shows_the_key() -> None:
    async with backend("https://ith.example.org") as client:
        assert KEY not in f"{client!r}{client}"


async def test_nobody_there_is_temporary(tmp_path: Path) -> None:
    async with backend("http://127.0.0.1:1") as client:
        error = await refused(client, tmp_path)
    assert not error.permanent
    assert "network" in error.hint


async def test_trusts_only_known_certificates(tmp_path: Path) -> None:
    ca = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("localhost").configure_cert(tls)
    ca.cert_pem.write_to_path(f"{tmp_path / 'ca.pem'}")
    place = tmp_path / "downloads"
    place.mkdir()
    async with serving(Versioned(ARCHIVE, '"v1"'), tls, "localhost") as server:
        async with backend(server.origin, system_trust(tmp_path / "ca.pem")) as client:
            got, _ = await fetch(client, place)
            assert isinstance(got, Download)
            got.path.unlink()
        async with backend(server.origin) as stranger:
            error = await refused(stranger, place)
        other_name = server.origin.replace("localhost", "127.0.0.1")
        async with backend(other_name, system_trust(tmp_path / "ca.pem")) as stranger:
            await refused(stranger, place)
    assert "certificate" in str(error)
    assert "ith.ca_file" in error.hint


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_bytes(b"")
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(ConfigError):
            system_trust(tmp_path / name)


# --- cancellation ---------------------------------------------------------------------------------


async def hang(_: Request, stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def hang_in_body(_: Request, stream: trio.abc.Stream) -> None:
    await stream.send_all(head(200, f"Content-Length: {len(ARCHIVE)}") + ARCHIVE[:1_500_000])
    await trio.sleep_forever()


def rest_is_cut() -> Script:
    return always(head(200, f"Content-Length: {len(ARCHIVE)}", 'ETag: "1"') + ARCHIVE[:2_000_000])


@pytest.mark.parametrize("script", [hang, hang_in_body, rest_is_cut()])
async def test_cancelled_at_any_stage_leaves_no_file(tmp_path: Path, script: Script) -> None:
    patient = FetchLimits(stall_seconds=60, backoff_seconds=60)
    async with asking(script, fetch=patient) as (client, _):
        with trio.move_on_after(0.4) as scope:
            await fetch(client, tmp_path)
    assert scope.cancelled_caught
    assert names(tmp_path) == []


async def test_cancelled_at_every_step_leaves_all_or_nothing(tmp_path: Path) -> None:
    async with asking(Versioned(ARCHIVE, '"v1"', cut=1_600_000)) as (client, _):
        for milliseconds in range(0, 60, 3):
            with trio.move_on_after(milliseconds / 1000):
                await fetch(client, tmp_path)
            if names(tmp_path):
                assert names(tmp_path) == ["archive"]
                assert (tmp_path / "archive").read_bytes() == ARCHIVE
                (tmp_path / "archive").unlink()


async def test_an_error_in_the_callers_progress_leaves_no_file(tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise LookupError

    telling: Callable[[int, int | None], None] = fail
    async with asking(always(whole(ARCHIVE))) as (client, _):
        with contextlib.suppress(LookupError):
            await client.download(SESSION, "ws-1", tmp_path / "archive", None, telling)
    assert names(tmp_path) == []
