from __future__ import annotations

from urllib.parse import parse_qs, unquote

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.backend.addresses import Addresses
from proxy.errors import BackendError, ConfigError
from proxy.model import Entity, EntityType
from proxy.settings.rules import is_loopback, url_problem

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text not in {".", ".."}
)


def raw_download(entity: Entity, workspace_id: str = "ws-1") -> str:
    addresses = Addresses("https://ith.example.org/")
    url = addresses.download(entity, workspace_id, {"compression_format": "tar.gz"})
    assert (url.scheme, url.host, url.port) == ("https", "ith.example.org", None)
    return url.raw_path.decode("ascii")


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        (
            Entity(EntityType.SUBJECT, "s"),
            "/api/v1/proxy/ws-1/subjects/s/download?compression_format=tar.gz",
        ),
        (
            Entity(EntityType.SESSION, "e", subject_id="s"),
            "/api/v1/proxy/ws-1/sessions/e/download?subject_id=s&compression_format=tar.gz",
        ),
        (
            Entity(EntityType.SCAN, "c", subject_id="s", session_id="e"),
            "/api/v1/proxy/ws-1/scans/c/download"
            "?subject_id=s&session_id=e&compression_format=tar.gz",
        ),
    ],
)
def test_asks_for_what_the_protocol_says(entity: Entity, expected: str) -> None:
    assert raw_download(entity) == expected


@given(IDS, IDS, IDS, IDS)
def test_ids_stay_what_they_are(workspace: str, id: str, subject: str, session: str) -> None:
    raw = raw_download(Entity(EntityType.SCAN, id, subject, session), workspace)
    path, _, query = raw.partition("?")
    assert [unquote(segment) for segment in path.split("/")] == [
        *("", "api", "v1", "proxy", workspace, "scans", id, "download")
    ]
    assert parse_qs(query, strict_parsing=True) == {
        "subject_id": [subject],
        "session_id": [session],
        "compression_format": ["tar.gz"],
    }


@pytest.mark.parametrize("id", ["", ".", ".."])
def test_refuses_ids_that_would_change_the_path(id: str) -> None:
    with pytest.raises(BackendError) as caught:
        raw_download(Entity(EntityType.SUBJECT, id))
    assert caught.value.permanent


def test_keeps_a_base_path() -> None:
    url = Addresses("https://example.org/ith/").configuration()
    assert f"{url}" == "https://example.org/ith/api/v1/proxy/configuration"


@pytest.mark.parametrize(
    "base",
    [
        *("", "ith.example.org", "ftp://ith.example.org", "https://", "http://ith.example.org"),
        *("https://key@ith.example.org", "http://localhost.example.org", "http://10.0.0.1"),
        "http://[broken",
    ],
)
def test_refuses_a_base_that_is_unsafe_or_malformed(base: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Addresses(base)
    assert "ith.url" in caught.value.hint


@pytest.mark.parametrize("base", ["http://127.0.0.1:8000", "http://[::1]", "http://localhost"])
def test_plain_http_is_for_this_machine(base: str) -> None:
    assert Addresses(base).is_local


LOOPBACK = [
    *("localhost", "LocalHost", "localhost.", "localhost.localdomain", "LOCALHOST.LOCALDOMAIN."),
    *("ip6-localhost", "IP6-localhost.", "demo.localhost", "a.b.LOCALHOST", "demo.localhost."),
    *("127.0.0.1", "127.255.255.254", "127.8.9.1"),
    *("[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::FFFF:7f00:1]"),
]
ELSEWHERE = [
    *("localhost.example.org", "127.0.0.1.example.org", "127.evil.com", "xlocalhost"),
    *("localhost.evil.localhost.com", "localdomain", "ip6-localhost.org", "localhost-x", "ip6"),
    *("0.0.0.0", "10.0.0.1", "128.0.0.1", "169.254.1.1", "192.0.2.1", "255.255.255.255"),
    *("[::]", "[::2]", "[fe80::1]", "[::ffff:0.0.0.0]", "[::ffff:10.0.0.1]", "[::127.0.0.1]"),
    *("127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.1."),
    *("localhost..", "a..localhost", "127.0.0.256", "127.0.0.1.2", "1.0.0.127"),
]


@pytest.mark.parametrize("port", ["", ":8000"])
@pytest.mark.parametrize(
    ("host", "here"), [*((h, True) for h in LOOPBACK), *((h, False) for h in ELSEWHERE)]
)
def test_the_check_of_the_settings_and_the_program_agree_on_what_is_this_machine(
    host: str, port: str, *, here: bool
) -> None:
    """Plain http, which shows the proxy key, is for nothing else."""
    url = f"http://{host}{port}"
    problem = url_problem(url, allow_insecure=False)
    try:
        program_takes_it = Addresses(url).is_local
    except ConfigError:
        program_takes_it = False
    assert (problem is None, program_takes_it) == (here, here)
    assert is_loopback(host) is here


@pytest.mark.parametrize(
    "host", ["", ".", "[", "]", "[]", ".localhost", "[localhost]", "[127.0.0.1]"]
)
def test_what_is_no_host_is_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


def test_plain_http_elsewhere_if_the_site_insists() -> None:
    assert not Addresses("http://ith.example.org", allow_insecure=True).is_local


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://ith.example.org/other", True),
        ("https://ITH.example.org:443/", True),
        ("https://ith.example.org:8443/", False),
        ("http://ith.example.org/", False),
        ("https://ith.example.org.evil.example/", False),
    ],
)
def test_knows_its_own_origin(url: str, *, own: bool) -> None:
    assert Addresses("https://ith.example.org").is_own(httpx2.URL(url)) is own


@pytest.mark.parametrize(
    ("location", "allowed"),
    [
        ("/elsewhere", True),
        ("https://ith.example.org:9000/x", True),
        ("https://a.store.example/x", True),
        ("https://a.b.store.example/x", True),
        ("https://A.STORE.example./x", True),
        ("https://exact.example/x", True),
        ("https://store.example/x", False),
        ("https://xstore.example/x", False),
        ("https://not.exact.example/x", False),
        ("http://exact.example/x", False),
        ("http://ith.example.org/x", False),
        ("http://127.0.0.1:8042/instances", False),
        ("https://127.0.0.1/", False),
        ("https://exact.example@evil.example/", False),
        ("https://evil.example\\@exact.example/", False),
        ("javascript:alert(1)", False),
    ],
)
def test_redirects_lead_only_where_the_settings_say(location: str, *, allowed: bool) -> None:
    addresses = Addresses("https://ith.example.org", ("*.store.example", "exact.example"))
    start = addresses.configuration()
    if allowed:
        addresses.redirected(start, location, elsewhere=True)
    else:
        with pytest.raises(BackendError) as caught:
            addresses.redirected(start, location, elsewhere=True)
        assert caught.value.permanent
