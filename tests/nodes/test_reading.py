from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ProxyError
from proxy.nodes import NewScans, Node, NodeInvalid, Permission, read_node, read_nodes
from tests.nodes.make import FROM_EVENT, FROM_REST

READROOM = Node(node_id="n1", name="Reading room", ae_title="READROOM", host="192.0.2.20", port=104)


def refused(**changes: object) -> NodeInvalid:
    with pytest.raises(NodeInvalid) as caught:
        read_node(FROM_REST | changes)
    assert isinstance(caught.value, ProxyError)
    assert caught.value.hint
    return caught.value


def test_a_node_of_the_configuration() -> None:
    assert read_node(FROM_REST) == READROOM


def test_a_node_of_an_event() -> None:
    node = read_node(FROM_EVENT)
    assert node.storage_path == "/srv/dicom/readroom"
    assert node.address == READROOM.address


@pytest.mark.parametrize("host", ["host", "ip_address", "ip"])
@pytest.mark.parametrize("key", ["id", "node_id"])
def test_every_spelling_of_id_and_host(key: str, host: str) -> None:
    assert read_node({key: "n1", host: "pacs", "ae_title": "A", "port": 1}) == Node(
        node_id="n1", name="n1", ae_title="A", host="pacs", port=1
    )


def test_the_events_spelling_wins_unless_it_is_null() -> None:
    raw = FROM_REST | {"node_id": None, "host": None, "ip": "192.0.2.99"}
    assert read_node(raw) == READROOM
    assert read_node(FROM_REST | {"host": "192.0.2.99"}).host == "192.0.2.99"


def test_everything_optional_may_be_null() -> None:
    optional = ("name", "is_active", "permission", "description", "storage_path", "retry_count")
    node = read_node(FROM_REST | dict.fromkeys(optional))
    assert node == Node(node_id="n1", name="n1", ae_title="READROOM", host="192.0.2.20", port=104)


def test_numbers_may_be_text_and_ids_numbers() -> None:
    node = read_node(
        FROM_REST
        | {
            "id": 7,
            "port": " 104 ",
            "is_active": "false",
            "retry_count": "3",
            "retry_delay": "2.5",
            "connection_timeout": "30",
            "max_pdu_size": "16384",
            "calling_ae_title": " DICOM_PROXY ",
        }
    )
    assert node == Node(
        node_id="7",
        name="Reading room",
        ae_title="READROOM",
        host="192.0.2.20",
        port=104,
        is_active=False,
        retry_count=3,
        retry_delay=2.5,
        connection_timeout=30.0,
        max_pdu_size=16384,
        calling_ae_title="DICOM_PROXY",
    )


@pytest.mark.parametrize(
    ("word", "permission"),
    [
        ("read", Permission.READ),
        ("READ_ONLY", Permission.READ),
        ("Write", Permission.WRITE),
        ("WRITE_ONLY", Permission.WRITE),
        ("read_write", Permission.READ_WRITE),
        ("READ_WRITE", Permission.READ_WRITE),
        ("read-write", Permission.READ_WRITE),
    ],
)
def test_permissions_of_both_generations(word: str, permission: Permission) -> None:
    assert read_node(FROM_REST | {"permission": word}).permission is permission


@pytest.mark.parametrize(
    ("wanted", "get_them"),
    [
        ("read", {Permission.READ, Permission.READ_WRITE}),
        ("write", {Permission.WRITE, Permission.READ_WRITE}),
        ("any", {*Permission}),
        ("none", set()),
    ],
)
def test_which_nodes_get_new_scans(wanted: NewScans, get_them: set[Permission]) -> None:
    assert {each for each in Permission if each.gets_new_scans(wanted)} == get_them


@pytest.mark.parametrize(
    ("title", "read"),
    [
        ("A", "A"),
        (" READ ROOM ", "READ ROOM"),
        ("SIXTEEN_LETTERS_", "SIXTEEN_LETTERS_"),
        ("  SIXTEEN_LETTERS_   ", "SIXTEEN_LETTERS_"),
        ("MiXeD-case.1", "MiXeD-case.1"),
        (4242, "4242"),
    ],
)
def test_good_ae_titles(title: object, read: str) -> None:
    assert read_node(FROM_REST | {"ae_title": title}).ae_title == read


@pytest.mark.parametrize(
    ("title", "why"),
    [
        ("", "1 to 16 characters"),
        ("    ", "1 to 16 characters"),
        ("SEVENTEEN_LETTERS", "not 17"),
        ("A\\B", "U+005C (REVERSE SOLIDUS)"),
        ("\ufeffREADROOM", "U+FEFF (ZERO WIDTH NO-BREAK SPACE)"),
        ("READ\u200bROOM", "U+200B (ZERO WIDTH SPACE)"),
        ("READ\u00a0ROOM", "U+00A0 (NO-BREAK SPACE)"),
        ("READROOM\n", "U+000A (control character)"),
        ("READROOM\t", "U+0009 (control character)"),
        ("RÖNTGEN", "U+00D6 (LATIN CAPITAL LETTER O WITH DIAERESIS)"),
        ("READROOM\x7f", "U+007F (control character)"),
        (["A"], "must be text"),
    ],
)
def test_bad_ae_titles_say_what_to_correct(title: object, why: str) -> None:
    for field in ("ae_title", "calling_ae_title"):
        sentence = str(refused(**{field: title}))
        assert sentence.startswith(f"Node 'n1': {field} must ")
        assert why in sentence


@given(st.text(max_size=20))
def test_an_ae_title_that_is_read_obeys_the_standard(title: str) -> None:
    try:
        read = read_node(FROM_REST | {"ae_title": title}).ae_title
    except NodeInvalid:
        return
    assert 1 <= len(read) <= 16
    assert read == read.strip(" ")
    assert all(32 <= ord(character) < 127 and character != "\\" for character in read)


@pytest.mark.parametrize("port", [0, 65536, -1, "no", "104a", 104.5, True, [104], "", "1" * 5000])
def test_bad_ports_say_what_to_correct(port: object) -> None:
    assert str(refused(port=port)) == "Node 'n1': port must be a whole number from 1 to 65535."


@pytest.mark.parametrize(
    ("host", "read"),
    [
        ("pacs.example.org", "pacs.example.org"),
        (" pacs ", "pacs"),
        ("pacs_1.local.", "pacs_1.local."),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_good_hosts(host: str, read: str) -> None:
    assert read_node(FROM_REST | {"host": host}).host == read


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("", "must not be empty"),
        ("   ", "must not be empty"),
        ("pacs one", "U+0020 (SPACE)"),
        ("pacs\u200b", "U+200B"),
        ("pacs\x00", "U+0000"),
        ("pacs:104", "the port has its own field"),
        ("http://pacs", "the port has its own field"),
        ("pacs/dicom", "without scheme or path"),
        ("-pacs", "without scheme or path"),
        ("a" * 254, "without scheme or path"),
        ({"a": 1}, "must be text"),
    ],
)
def test_bad_hosts_say_what_to_correct(host: object, why: str) -> None:
    sentence = str(refused(host=host))
    assert sentence.startswith("Node 'n1': host must ")
    assert why in sentence


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("permission", "admin", "must be read, write or read_write"),
        ("permission", True, "must be text"),
        ("is_active", "perhaps", "must be true or false"),
        ("is_active", 7, "must be true or false"),
        ("retry_count", -1, "whole number from 0 to 1000"),
        ("retry_count", 1001, "whole number from 0 to 1000"),
        ("retry_delay", -1, "from 0 to 86400"),
        ("retry_delay", float("nan"), "from 0 to 86400"),
        ("retry_delay", "soon", "from 0 to 86400"),
        ("connection_timeout", 0, "longer than 0 seconds"),
        ("connection_timeout", 1e9, "from 0 to 86400"),
        ("max_pdu_size", 7, "0 (unlimited) or at least 1024"),
        ("max_pdu_size", 2**32, "from 0 to 4294967295"),
    ],
)
def test_other_bad_values_say_what_to_correct(field: str, value: object, why: str) -> None:
    sentence = str(refused(**{field: value}))
    assert sentence.startswith(f"Node 'n1': {field} must be ")
    assert why in sentence


@pytest.mark.parametrize("field", ["ae_title", "ip_address", "port"])
def test_an_address_must_be_whole(field: str) -> None:
    name = "host" if field == "ip_address" else field
    assert str(refused(**{field: None})) == f"Node 'n1': {name} is missing."


@pytest.mark.parametrize("raw", [None, 7, "n1", [], {}, {"id": ""}, {"id": None}, {"id": {"a": 1}}])
def test_what_is_no_node_has_no_id(raw: object) -> None:
    with pytest.raises(NodeInvalid) as caught:
        read_node(raw)
    assert caught.value.node_id is None


def test_a_node_id_is_quoted_so_that_it_cannot_forge_a_log_line() -> None:
    sentence = str(refused(id="n\n1\u202e", port=0))
    assert sentence.startswith("Node 'n\\n1\\u202e': port")


def test_one_bad_node_does_not_spoil_the_others() -> None:
    read = read_nodes([FROM_REST, {"id": "n2"}, None, FROM_REST | {"id": "n3"}])
    assert [node.node_id for node in read.nodes] == ["n1", "n3"]
    assert [problem.node_id for problem in read.problems] == ["n2", None]
    assert read.problems[0].sentence == "Node 'n2': ae_title is missing."
    assert read.problems[0].hint


def test_a_known_node_stays_as_it_was_when_its_description_goes_bad() -> None:
    read = read_nodes([FROM_REST | {"port": 0}, FROM_REST | {"id": "n9", "port": 0}], [READROOM])
    assert read.nodes == (READROOM,)
    assert [problem.node_id for problem in read.problems] == ["n1", "n9"]


def test_a_known_node_that_is_not_listed_is_not_read() -> None:
    assert read_nodes([], [READROOM]).nodes == ()


def test_of_two_with_one_id_the_later_holds() -> None:
    read = read_nodes([FROM_REST, FROM_REST | {"port": 105}])
    assert [node.port for node in read.nodes] == [105]
    assert read.problems[0].sentence == "Node 'n1' is listed twice; the later entry is used."


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(["id", "node_id", "ip", "calling_ae_title", "retry_delay", *FROM_REST])


@given(st.lists(st.dictionaries(FIELDS, JSON).map(lambda changes: FROM_REST | changes) | JSON))
def test_any_json_gives_usable_nodes_or_problems(raw: list[object]) -> None:
    read = read_nodes(raw)
    assert len(read.nodes) + len(read.problems) == len(raw)
    assert len({node.node_id for node in read.nodes}) == len(read.nodes)
