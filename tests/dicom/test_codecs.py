"""Our encoders and decoders against pynetdicom's, which know nothing of ours."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import dsutils
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_ASSOCIATE, MaximumLengthNotification
from pynetdicom.presentation import PresentationContext

from proxy.dicom import dimse, pdu
from tests.dicom import scripted as node

pytestmark = pytest.mark.pure

uids = st.lists(st.integers(0, 10**9), min_size=2, max_size=6).map(
    lambda parts: "1." + ".".join(map(str, parts))
)
titles = st.text(
    st.characters(codec="ascii", categories=("Lu", "Nd"), include_characters="_- "),
    min_size=1,
    max_size=16,
).filter(lambda title: title.strip() != "")
words = st.integers(0, 0xFFFF)


def read(data: bytes) -> list[pdu.Received]:
    reader = pdu.PduReader()
    reader.feed(data)
    return [*reader.pdus()]


@given(
    titles,
    titles,
    st.lists(st.tuples(uids, uids), min_size=1, max_size=128),
    st.integers(0, 2**32 - 1),
)
def test_pynetdicom_reads_our_request(
    called: str, calling: str, pairs: list[tuple[str, str]], max_pdu_size: int
) -> None:
    proposals = {2 * n + 1: pdu.Proposal(a, (t,)) for n, (a, t) in enumerate(pairs)}
    encoded = pdu.encode_associate_request(called, calling, proposals, max_pdu_size)
    request = A_ASSOCIATE_RQ()
    request.decode(encoded)
    assert request.called_ae_title == called.strip()
    assert request.calling_ae_title == calling.strip()
    assert request.application_context_name == UID("1.2.840.10008.3.1.1.1")
    read_back = {
        c.context_id: (str(c.abstract_syntax), tuple(map(str, c.transfer_syntax)))
        for c in request.presentation_context
    }
    assert read_back == {n: (p.sop_class_uid, p.transfer_syntax_uids) for n, p in proposals.items()}
    assert request.user_information is not None
    assert request.user_information.maximum_length == max_pdu_size
    assert request.encode() == encoded


@given(
    st.dictionaries(
        st.integers(0, 127).map(lambda n: 2 * n + 1),
        st.tuples(st.sampled_from([0, 1, 2, 3, 4]), uids),
        max_size=128,
    ),
    st.integers(0, 2**32 - 1),
)
def test_we_read_pynetdicoms_acceptance(
    contexts: dict[int, tuple[int, str]], max_pdu_size: int
) -> None:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "A", "B"
    primitive.result, primitive.result_source = 0, 1
    longest = MaximumLengthNotification()
    longest.maximum_length_received = max_pdu_size
    primitive.user_information = [longest]
    results = []
    for context_id, (result, syntax) in contexts.items():
        context = PresentationContext()
        context.context_id, context.result = context_id, result
        context.transfer_syntax = [UID(syntax)]
        results.append(context)
    primitive.presentation_context_definition_results_list = results
    answer = A_ASSOCIATE_AC()
    answer.from_primitive(primitive)
    (received,) = read(answer.encode())
    assert isinstance(received, pdu.Accept)
    assert received.max_pdu_size == max_pdu_size
    assert {n: r for n, (r, _) in received.contexts.items()} == {
        n: r for n, (r, _) in contexts.items()
    }
    accepted = {n: s for n, (r, s) in contexts.items() if r == 0}
    assert {n: s for n, (r, s) in received.contexts.items() if r == 0} == accepted


@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 10))
def test_we_read_pynetdicoms_rejection(result: int, source: int, reason: int) -> None:
    answer = A_ASSOCIATE_RJ()
    answer.result, answer.source, answer.reason_diagnostic = result, source, reason
    assert read(answer.encode()) == [pdu.Reject(result, source, reason)]


@given(st.integers(0, 2), st.integers(0, 6))
def test_aborts_mean_the_same(source: int, reason: int) -> None:
    theirs = A_ABORT_RQ()
    theirs.source, theirs.reason_diagnostic = source, reason
    assert pdu.encode_abort(source, reason) == theirs.encode()
    assert read(theirs.encode()) == [pdu.PeerAbort(source, reason)]


@given(st.binary(max_size=500), st.integers(0, 127), st.booleans(), st.booleans())
def test_pynetdicom_reads_our_data(
    fragment: bytes,
    n: int,
    is_command: bool,
    is_last: bool,
) -> None:
    context_id = 2 * n + 1
    header = pdu.encode_pdv_header(
        context_id, len(fragment), is_command=is_command, is_last=is_last
    )
    theirs = P_DATA_TF()
    theirs.decode(header + fragment)
    (item,) = theirs.presentation_data_value_items
    assert item.context_id == context_id
    control = bytes((is_command | is_last << 1,))
    assert item.presentation_data_value == control + fragment
    assert read(header + fragment) == [
        pdu.Data((pdu.Pdv(context_id, is_command, is_last, fragment),))
    ]


@given(uids, uids, words, st.sampled_from(dimse.DimsePriority))
def test_pynetdicom_reads_our_store_request(
    sop_class: str, instance: str, message_id: int, priority: dimse.DimsePriority
) -> None:
    encoded = dimse.encode_store_request(sop_class, instance, message_id, priority)
    command = dsutils.decode(io.BytesIO(encoded), is_implicit_vr=True, is_little_endian=True)
    assert command.CommandGroupLength == len(encoded) - 12
    message = C_STORE_RQ()
    message.command_set = command
    primitive: Any = message.message_to_primitive()
    assert str(primitive.AffectedSOPClassUID) == sop_class
    assert str(primitive.AffectedSOPInstanceUID) == instance
    assert (primitive.MessageID, primitive.Priority) == (message_id, priority)
    assert command.CommandDataSetType != 0x0101


@given(words)
def test_pynetdicom_reads_our_echo_request(message_id: int) -> None:
    encoded = dimse.encode_echo_request(message_id)
    message = C_ECHO_RQ()
    message.command_set = dsutils.decode(
        io.BytesIO(encoded), is_implicit_vr=True, is_little_endian=True
    )
    primitive: Any = message.message_to_primitive()
    assert primitive.MessageID == message_id
    assert message.command_set.CommandDataSetType == 0x0101


@given(
    words,
    words,
    uids,
    st.text(st.characters(codec="ascii", min_codepoint=33, exclude_characters="\\"), max_size=64),
    st.tuples(st.none() | words, st.lists(st.integers(0, 2**32 - 1), max_size=4)),
)
def test_we_read_pydicoms_responses(
    status: int, message_id: int, uid: str, comment: str, fault: tuple[int | None, list[int]]
) -> None:
    error_id, tags = fault
    elements = node.response(status, message_id, uid)
    elements.ErrorComment = comment
    if error_id is not None:
        elements.ErrorID = error_id
    if tags:
        elements.OffendingElement = tags
    decoded = dimse.decode_response(node.command(elements))
    assert decoded == dimse.Response(
        0x8001,
        message_id,
        status,
        uid,
        comment,
        error_id,
        tuple(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in tags),
    )


@given(st.data(), st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_a_stream_may_be_cut_anywhere(draw: st.DataObject, fragments: list[bytes]) -> None:
    stream = b"".join(node.data(node.pdv(fragment)) for fragment in fragments)
    reader = pdu.PduReader()
    came: list[pdu.Received] = []
    while stream:
        at = draw.draw(st.integers(1, len(stream)))
        reader.feed(stream[:at])
        came += reader.pdus()
        stream = stream[at:]
    assert came == [pdu.Data((pdu.Pdv(1, True, True, fragment),)) for fragment in fragments]


@given(st.binary(max_size=300), st.integers(1, 7))
def test_whatever_comes_is_a_pdu_or_an_invalid_one(body: bytes, kind: int) -> None:
    try:
        received = read(struct.pack(">BBI", kind, 0, len(body)) + body)
    except pdu.InvalidPdu:
        return
    assert len(received) == 1


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_response_or_an_invalid_command(command: bytes) -> None:
    try:
        response = dimse.decode_response(command)
    except dimse.InvalidMessage:
        return
    assert 0 <= response.status <= 0xFFFF


@pytest.mark.parametrize("length", [pdu.MAX_RECEIVED_BYTES + 1, 2**32 - 1])
def test_a_long_pdu_is_refused_by_its_header(length: int) -> None:
    with pytest.raises(pdu.InvalidPdu):
        read(struct.pack(">BBI", 4, 0, length))


@pytest.mark.parametrize("title", ["", " " * 3, "A" * 17, "A\\B", "Ä", "A\tB", "A\u200b"])
def test_what_is_no_ae_title_is_refused(title: str) -> None:
    with pytest.raises(ValueError, match="AE title"):
        pdu.encode_ae_title(title)


def test_a_response_without_the_words_is_none() -> None:
    empty = Dataset()
    with pytest.raises(dimse.InvalidMessage):
        dimse.decode_response(node.command(empty))


@pytest.mark.parametrize("error_id", [b"\x01\x00\x00\x00", b"\x01\x00\x02\x00", b""])
def test_a_remark_that_cannot_be_read_leaves_the_status(error_id: bytes) -> None:
    remark = struct.pack("<HHI", 0, 0x0903, len(error_id)) + error_id
    decoded = dimse.decode_response(node.command(node.response(0xB000)) + remark)
    assert (decoded.status, decoded.error_id) == (0xB000, None)


ODD_UIDS = [
    "1.2.ZZ",
    "1.2.3.",
    "1.02",
    "1.2 3",
    " 1.2",
    "1.2\0.3",
    "1.2\\3",
    "1.2.M\xdcLLER",
    "1" * 200,
]


@pytest.mark.parametrize("uid", ODD_UIDS)
def test_an_odd_uid_leaves_and_comes_back_as_it_is(uid: str) -> None:
    request = dimse.decode_elements(dimse.encode_store_request(uid, uid, 1))
    for tag in (0x0002, 0x1000):
        assert request[tag] == uid.encode("latin-1") + b"\0" * (len(uid) % 2)
    response = dimse.encode_element(0x0100, b"\1\x80") + dimse.encode_element(0x0120, b"\1\0")
    response += dimse.encode_element(0x0900, b"\0\0") + dimse.encode_uid(0x1000, uid)
    assert dimse.decode_response(response).sop_instance_uid == uid
    proposals = {1: pdu.Proposal(uid, ("1.2.840.10008.1.2",))}
    assert uid.encode("latin-1") in pdu.encode_associate_request("A", "B", proposals, 16384)


@pytest.mark.parametrize(
    ("sent", "answered", "is_same"),
    [
        ("1.2.3", "1.2.3", True),
        ("1.2 .3", "1.2.3", True),
        (" 1.2.3", "1.2.3", True),
        ("1.2\0.3", "1.2", True),
        ("1.2\0.3", "1.2\0.3", True),
        ("1." + "2" * 100, "1." + "2" * 62, True),
        ("1.2.3", "1.2.4", False),
        ("1.2.3", "1.2.3.4", False),
        ("1.02", "1.2", False),
    ],
)
def test_an_answer_may_name_an_odd_uid_as_nodes_keep_it(
    sent: str, answered: str, is_same: bool
) -> None:
    assert dimse.is_same_uid(answered, sent) is is_same
