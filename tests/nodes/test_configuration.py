from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.nodes import (
    Configuration,
    ConfigurationInvalid,
    Node,
    SiteConfig,
    decode_configuration,
    encode_configuration,
    merge_config,
    read_configuration,
)
from tests.nodes.make import CONFIGURATION, FROM_REST, configuration, without

READROOM = Node(node_id="n1", name="Reading room", ae_title="READROOM", host="192.0.2.20", port=104)
SITE_A = Configuration(
    proxy_id="proxy-1",
    workspace_id="ws-1",
    name="Site A",
    config=SiteConfig(
        ip_address="192.0.2.10",
        port=11112,
        ae_title="DICOMRCV",
        mode="private",
        enable_phi_anonymization=True,
        api_url="https://proxy.example.org/api",
    ),
    nodes=(READROOM,),
)


def test_the_example_of_the_protocol() -> None:
    read = read_configuration(CONFIGURATION.encode())
    assert read.configuration == SITE_A
    assert read.problems == ()


def test_the_least_there_can_be() -> None:
    read = read_configuration(b'{"id":7,"config":{},"nodes":[]}')
    assert read.configuration == Configuration(proxy_id="7")
    assert read.configuration.config.mode == "private"
    assert read.configuration.config.enable_phi_anonymization is None
    assert read.problems == ()


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"id":""}', b'{"id":null}', b"\xff", b'{"a":' * 100_000],
)
def test_what_is_no_configuration_is_refused(body: bytes) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        read_configuration(body)
    assert caught.value.hint


def test_one_bad_node_does_not_spoil_the_configuration() -> None:
    nodes = [FROM_REST | {"id": "n2", "name": None}, FROM_REST | {"id": "n3", "port": "x"}]
    read = read_configuration(configuration(nodes=nodes))
    assert [node.node_id for node in read.configuration.nodes] == ["n2"]
    assert [problem.node_id for problem in read.problems] == ["n3"]


def test_a_known_node_survives_a_bad_description() -> None:
    body = configuration(nodes=[FROM_REST | {"port": "x"}])
    read = read_configuration(body, SITE_A)
    assert read.configuration.nodes == (READROOM,)
    assert len(read.problems) == 1


@pytest.mark.parametrize("body", [without("nodes"), configuration(nodes=None)])
def test_an_answer_without_nodes_removes_none(body: bytes) -> None:
    read = read_configuration(body, SITE_A)
    assert read.configuration.nodes == (READROOM,)
    assert read.problems[0].sentence == "nodes is missing; those known before are kept."


@pytest.mark.parametrize("body", [without("config"), configuration(config=[])])
def test_an_answer_without_settings_changes_none(body: bytes) -> None:
    assert read_configuration(body).configuration.config == SiteConfig()
    read = read_configuration(body, SITE_A)
    assert read.configuration == SITE_A
    assert read.problems[0].sentence == "config is missing; the former settings are kept."


OWN = msgspec.structs.replace(
    SITE_A.config, calling_ae_title="OWN", retry_count=7, retry_delay=1.0, timeout=45.0
)


def test_settings_that_cannot_be_read_or_that_events_alone_tell_stay_as_they_were() -> None:
    known = msgspec.structs.replace(SITE_A, config=OWN)
    bad = {"calling_ae_title": "O\u200bWN", "retry_count": "many", "timeout": 30, "port": 104}
    read = read_configuration(configuration(config=bad, name=[]), known)
    config = msgspec.structs.replace(OWN, timeout=30.0, port=104)
    assert read.configuration == msgspec.structs.replace(known, config=config)
    assert [problem.sentence.split()[0] for problem in read.problems] == [
        "name",
        "retry_count",
        "calling_ae_title",
    ]


def test_null_is_the_default_again() -> None:
    known = msgspec.structs.replace(SITE_A, config=OWN)
    null = {"calling_ae_title": None, "timeout": None, "connection_timeout": None, "port": None}
    read = read_configuration(configuration(config=null), known)
    config = msgspec.structs.replace(OWN, calling_ae_title=None, timeout=None, port=11112)
    assert read.configuration.config == config
    assert read.problems == ()


def test_nothing_of_another_proxy_is_taken_over() -> None:
    known = msgspec.structs.replace(SITE_A, proxy_id="proxy-2", config=OWN)
    body = configuration(config={}, nodes=[FROM_REST | {"port": "x"}])
    read = read_configuration(body, known).configuration
    assert (read.config, read.nodes) == (SiteConfig(), ())


def test_bad_values_are_problems_and_leave_the_defaults() -> None:
    body = configuration(is_active="perhaps", config={"mode": "secret", "retry_count": -1})
    read = read_configuration(body)
    assert read.configuration.is_active is True
    assert read.configuration.config == SiteConfig()
    assert [problem.sentence.split()[0] for problem in read.problems] == [
        "is_active",
        "mode",
        "retry_count",
    ]
    assert all(problem.hint for problem in read.problems)


@pytest.mark.parametrize("known", [None, SITE_A])
@pytest.mark.parametrize(
    ("field", "value"),
    [("port", 0), ("port", "x"), ("ae_title", "SEVENTEEN_LETTERS"), ("api_url", ["x"])],
)
def test_what_is_told_back_to_ith_is_unknown_where_ith_s_value_cannot_be_read(
    known: Configuration | None, field: str, value: object
) -> None:
    """A default, or what was there before, would replace it."""
    read = read_configuration(configuration(config={field: value}), known)
    before = known.config if known else SiteConfig()
    assert read.configuration.config == msgspec.structs.replace(before, **{field: None})
    (problem,) = read.problems
    assert problem.sentence.endswith("; ITH's value is left as it is.")
    assert decode_configuration(encode_configuration(read.configuration)) == read.configuration


@pytest.mark.parametrize("told", [True, False, None])
def test_whether_data_are_pseudonymised_is_what_ith_told_last(told: bool | None) -> None:
    known = read_configuration(
        configuration(config={"enable_phi_anonymization": told}), SITE_A
    ).configuration
    assert known.config.enable_phi_anonymization is told
    silent = read_configuration(configuration(config={}), known).configuration
    assert silent.config.enable_phi_anonymization is told


def test_an_inactive_proxy() -> None:
    assert read_configuration(configuration(is_active=False)).configuration.is_active is False


@pytest.mark.parametrize(
    ("changed", "field", "value"),
    [
        ({"ip_address": "192.0.2.11"}, "ip_address", "192.0.2.11"),
        ({"port": "104"}, "port", 104),
        ({"ae_title": " NEW "}, "ae_title", "NEW"),
        ({"mode": "Public"}, "mode", "public"),
        ({"enable_phi_anonymization": False}, "enable_phi_anonymization", False),
        ({"api_url": "https://x.example/api"}, "api_url", "https://x.example/api"),
        ({"resolver_information_url": "https://x.example/api"}, "api_url", "https://x.example/api"),
        ({"retry_count": 4}, "retry_count", 4),
        ({"retry_delay": 0}, "retry_delay", 0.0),
        ({"timeout": 45}, "timeout", 45.0),
        ({"connection_timeout": "45"}, "timeout", 45.0),
        ({"max_pdu_size": 0}, "max_pdu_size", 0),
    ],
)
def test_a_change_of_one_field(changed: dict[str, object], field: str, value: object) -> None:
    merged = merge_config(SiteConfig(), changed)
    assert merged.config == msgspec.structs.replace(SiteConfig(), **{field: value})
    assert merged.changed_fields == (field,)
    assert merged.problems == ()


def test_same_values_null_and_unknown_keys_change_nothing() -> None:
    merged = merge_config(SITE_A.config, {"port": 11112, "api_url": None, "colour": "blue"})
    assert merged.config == SITE_A.config
    assert merged.changed_fields == ()
    assert merged.problems == ()


def test_a_value_that_cannot_be_used_leaves_the_old_one() -> None:
    merged = merge_config(SITE_A.config, {"mode": "secret", "timeout": -1, "retry_count": 2})
    assert merged.config == msgspec.structs.replace(SITE_A.config, retry_count=2)
    assert merged.changed_fields == ("retry_count",)
    assert [problem.sentence for problem in merged.problems] == [
        "mode must be private or public; the former value is kept.",
        "timeout must be a number of seconds from 0 to 86400; the former value is kept.",
    ]


def test_the_site_completes_its_nodes() -> None:
    site = msgspec.structs.replace(
        SITE_A,
        config=SiteConfig(timeout=45.0, retry_count=4),
        nodes=(READROOM, msgspec.structs.replace(READROOM, node_id="n2", retry_count=0)),
    )
    first, second = site.effective_nodes
    assert (first.connection_timeout, first.retry_count, first.retry_delay) == (45.0, 4, None)
    assert (second.connection_timeout, second.retry_count) == (45.0, 0)


def test_our_own_copy_is_the_configuration() -> None:
    assert decode_configuration(encode_configuration(SITE_A)) == SITE_A


def test_a_copy_of_a_later_version_can_be_read() -> None:
    copy = json.loads(encode_configuration(SITE_A)) | {"later": 1}
    assert decode_configuration(json.dumps(copy).encode()) == SITE_A


@pytest.mark.parametrize("copy", [b"", b"{", b"{}", b"\xff", b'{"a":' * 100_000])
def test_a_damaged_copy_is_refused(copy: bytes) -> None:
    with pytest.raises(ConfigurationInvalid, match="kept copy"):
        decode_configuration(copy)


KEYS = st.sampled_from([*msgspec.structs.asdict(SiteConfig()), "connection_timeout", "colour"])
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none())


@given(st.dictionaries(KEYS, VALUES), st.dictionaries(KEYS, VALUES))
def test_a_merge_tells_exactly_what_differs(
    first: dict[str, object], second: dict[str, object]
) -> None:
    before = merge_config(SiteConfig(), first).config
    merged = merge_config(before, second)
    was, now = msgspec.structs.asdict(before), msgspec.structs.asdict(merged.config)
    assert set(merged.changed_fields) == {key for key in was if was[key] != now[key]}
    assert merge_config(merged.config, second).changed_fields == ()
