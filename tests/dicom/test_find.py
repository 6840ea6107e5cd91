"""C-FIND for one instance: the codec, nodes that answer wrongly, and real ones."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pydicom
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom import AE, dsutils, evt
from pynetdicom.dimse_messages import C_FIND_RQ
from trio.testing import MockClock

from proxy.dicom import dimse
from proxy.dicom.association import Association, Target, associate
from proxy.dicom.contexts import ECHO, plan
from proxy.dicom.dimse import InvalidMessage, MessageReader, Response
from proxy.dicom.find import FIND, STUDY_ROOT_FIND, can_ask, find, identifier, is_answered, names
from proxy.dicom.pdu import Pdv
from proxy.dicom.storage import echo, store
from proxy.errors import AssociationLost
from proxy.model import Instance
from proxy.runtime.wire import TcpNetwork
from tests.dicom import scripted as node
from tests.dicom.objects import instance_of, sample, write_ct
from tests.dicom.scripted import CLOCKS, Peer, Script, scripted
from tests.dicom.test_codecs import uids, words
from tests.dicom.test_peers import target_of
from tests.dicom.virtual import VirtualNetwork, VirtualStream
from tests.support.peers import dcmqrscp, free_port, orthanc, storescp

INSTANCE = Instance("1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5", "", "1.2.3", "1.2.3.4", "", 0, 0)
PENDING, WARNED = 0xFF00, 0xFF01


def encoded(elements: Dataset) -> bytes:
    """A data set in Implicit VR Little Endian, by pynetdicom."""
    content = dsutils.encode(elements, is_implicit_vr=True, is_little_endian=True)
    assert content is not None
    return content


def decoded(content: bytes) -> Dataset:
    return dsutils.decode(io.BytesIO(content), is_implicit_vr=True, is_little_endian=True)


def answer(instance: Instance = INSTANCE, **elements: object) -> Dataset:
    """Return the answer of a node about an instance it has."""
    said = Dataset()
    said.QueryRetrieveLevel = "IMAGE"
    said.RetrieveAETitle = "NODE"
    said.SOPInstanceUID = instance.sop_instance_uid
    said.StudyInstanceUID = instance.study_instance_uid
    said.SeriesInstanceUID = instance.series_instance_uid
    for keyword, value in elements.items():
        setattr(said, keyword, value)
    return said


# The codec --------------------------------------------------------------------------------------


@given(uids, words)
def test_pynetdicom_reads_our_find_request(sop_class: str, message_id: int) -> None:
    content = dimse.encode_find_request(sop_class, message_id)
    message = C_FIND_RQ()
    message.command_set = decoded(content)
    primitive: Any = message.message_to_primitive()
    assert str(primitive.AffectedSOPClassUID) == sop_class
    assert (primitive.MessageID, primitive.Priority) == (message_id, 0)
    assert message.command_set.CommandGroupLength == len(content) - 12
    assert message.command_set.CommandDataSetType != 0x0101


@given(uids, uids, uids)
def test_pydicom_reads_our_identifier(study: str, series: str, sop_instance: str) -> None:
    asked = msgspec.structs.replace(
        INSTANCE,
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=sop_instance,
    )
    content = identifier(asked)
    read = decoded(content)
    assert [element.keyword for element in read] == [
        *("SOPInstanceUID", "QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID")
    ]
    assert read.QueryRetrieveLevel == "IMAGE"
    assert (read.StudyInstanceUID, read.SeriesInstanceUID) == (study, series)
    assert read.SOPInstanceUID == sop_instance
    assert encoded(read) == content
    assert names(content, asked)


@given(uids, words, st.sampled_from([PENDING, WARNED]), st.data())
def test_an_answer_may_be_cut_into_any_fragments(
    uid: str, message_id: int, status: int, draw: st.DataObject
) -> None:
    said = answer(msgspec.structs.replace(INSTANCE, sop_instance_uid=uid))
    reader = MessageReader()
    came = []
    command = node.command(node.response(status, message_id, kind=dimse.C_FIND_RSP))
    for is_command, content in ((True, command), (False, encoded(said))):
        left = content
        while True:
            at = draw.draw(st.integers(1, len(left)))
            pdv = Pdv(1, is_command, at == len(left), left[:at])
            came.append(reader.add(pdv))
            if pdv.is_last:
                break
            left = left[at:]
    assert [response for response in came if response] == [
        Response(dimse.C_FIND_RSP, message_id, status, identifier=encoded(said))
    ]
    assert came[-1] is not None


@pytest.mark.parametrize("padding", ["", "\0", " ", "\0\0 "])
def test_padding_is_no_part_of_a_uid(padding: str) -> None:
    content = dimse.encode_element(0x00080018, (INSTANCE.sop_instance_uid + padding).encode())
    assert names(content, INSTANCE)


def not_our_instance() -> dict[str, bytes]:
    nested = Dataset()
    nested.SOPInstanceUID = INSTANCE.sop_instance_uid
    without = answer(ReferencedSOPSequence=[nested])
    del without.SOPInstanceUID
    whole = encoded(answer())
    return {
        "nothing": b"",
        "another one": encoded(answer(SOPInstanceUID="1.2.3.4.6")),
        "an empty one": encoded(answer(SOPInstanceUID="")),
        "none": encoded(without),
        "two": encoded(answer(SOPInstanceUID=["1.2.3.4.5", "1.2.3.4.6"])),
        "longer": encoded(answer(SOPInstanceUID="1.2.3.4.5.6")),
        "shorter": encoded(answer(SOPInstanceUID="1.2.3.4")),
        "in another series": encoded(answer(SeriesInstanceUID="1.2.3.9")),
        "in another study": encoded(answer(StudyInstanceUID="1.2.9")),
        "cut": whole[:-1],
        "cut within a head": whole + b"\x20\0\x0e",
        "of explicit VR": b"\x08\0\x18\0UI\x0a\x001.2.3.4.5\0",
        "of undefined length": whole + b"\x40\0\x75\x02\xff\xff\xff\xff",
    }


@pytest.mark.parametrize("what", not_our_instance())
def test_an_answer_that_does_not_name_the_instance_says_nothing(what: str) -> None:
    assert not names(not_our_instance()[what], INSTANCE)


@pytest.mark.parametrize("uid", ["", "1.2.*", "1.2.?", "1.2\\1.3", "1.2.ZZ", "1" * 70, "1.2 3"])
@pytest.mark.parametrize("key", ["sop_instance_uid", "study_instance_uid", "series_instance_uid"])
def test_a_uid_that_matches_others_is_not_asked_for(key: str, uid: str) -> None:
    assert can_ask(INSTANCE)
    assert not can_ask(msgspec.structs.replace(INSTANCE, **{key: uid}))


def test_what_an_answer_leaves_out_is_no_contradiction() -> None:
    said = answer(StudyInstanceUID="")
    del said.SeriesInstanceUID
    assert names(encoded(said), INSTANCE)


@given(st.binary(max_size=200))
def test_whatever_comes_names_the_instance_or_does_not(content: bytes) -> None:
    assert not names(content, INSTANCE)


@given(st.lists(st.builds(Pdv, st.just(1), st.booleans(), st.booleans(), st.binary(max_size=60))))
def test_whatever_comes_is_joined_or_invalid(pdvs: list[Pdv]) -> None:
    reader = MessageReader()
    try:
        for pdv in pdvs:
            reader.add(pdv)
    except InvalidMessage:
        pass


# Nodes that follow a script ---------------------------------------------------------------------


def found(
    status: int,
    said: Dataset | bytes | None = None,
    message_id: int = 1,
    kind: int = 0x8020,
    context_id: int = 1,
) -> bytes:
    """A C-FIND-RSP, and what follows it."""
    response = node.command(node.response(status, message_id, kind=kind))
    pdvs = [node.pdv(response, context_id=context_id)]
    if said is not None:
        content = said if isinstance(said, bytes) else encoded(said)
        pdvs.append(node.pdv(content, control=2, context_id=context_id))
    return node.data(*pdvs)


def answering(*answers: bytes) -> Script:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        await peer.send(*answers)
        await peer.finish()

    return script


async def ask(network: TcpNetwork, script: Script) -> bool:
    async with scripted(script) as target:
        try:
            async with associate(network, target, (FIND, ECHO), CLOCKS) as association:
                return await find(association, INSTANCE)
        except AssociationLost as lost:
            error = lost
    raise error


@pytest.mark.parametrize("status", [PENDING, WARNED])
async def test_found(network: TcpNetwork, status: int) -> None:
    assert await ask(network, answering(found(status, answer()), found(0)))


async def test_found_among_others(network: TcpNetwork) -> None:
    others = [found(PENDING, answer(SOPInstanceUID=f"1.2.{n}")) for n in range(50)]
    assert await ask(network, answering(*others, found(PENDING, answer()), found(0)))
    assert not await ask(network, answering(*others, found(0)))


@pytest.mark.parametrize("status", [0x0000, 0x0122, 0xA700, 0xA900, 0xC001, 0xFE00, 0xB001])
async def test_what_the_node_does_not_name_is_not_found(network: TcpNetwork, status: int) -> None:
    assert not await ask(network, answering(found(status)))


@pytest.mark.parametrize("status", [0x0122, 0xA700, 0xC001, 0xFE00])
async def test_answers_that_end_in_a_failure_say_nothing(network: TcpNetwork, status: int) -> None:
    assert not await ask(network, answering(found(PENDING, answer()), found(status)))


@pytest.mark.parametrize("what", not_our_instance())
async def test_the_mere_presence_of_an_answer_says_nothing(network: TcpNetwork, what: str) -> None:
    assert not await ask(network, answering(found(PENDING, not_our_instance()[what]), found(0)))


async def test_the_question_is_as_the_standard_wants_it(network: TcpNetwork) -> None:
    came = b"", b""
    proposed: dict[int, str] = {}

    async def script(peer: Peer) -> None:
        nonlocal came, proposed
        proposed = await peer.request()
        await peer.send(node.accept({n: (0, syntax) for n, syntax in proposed.items()}))
        came = await peer.message()
        await peer.send(found(0))
        await peer.finish()

    await ask(network, script)
    assert proposed == {1: "1.2.840.10008.1.2", 3: "1.2.840.10008.1.2"}
    expected = Dataset()
    expected.AffectedSOPClassUID = STUDY_ROOT_FIND
    expected.CommandField = 0x0020
    expected.MessageID = 1
    expected.Priority = 0
    expected.CommandDataSetType = 1
    asked = answer()
    del asked.RetrieveAETitle
    assert came == (node.command(expected), encoded(asked))


async def test_a_node_that_refuses_the_context_is_not_asked(network: TcpNetwork) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(node.accept({1: (3, ""), 3: (0, "1.2.840.10008.1.2")}))
        await peer.finish()

    assert not await ask(network, script)


async def test_asked_and_stored_and_echoed_over_one_association(
    network: TcpNetwork, tmp_path: Path
) -> None:
    instance = write_ct(tmp_path / "ct")
    (proposals,) = plan([instance])
    asking = 2 * len(proposals) + 1

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        there = found(PENDING, answer(instance), context_id=asking)
        await peer.send(there, found(0, context_id=asking))
        await peer.message()
        await peer.send(found(0, message_id=2, context_id=asking))
        await peer.message()
        await peer.send(found(0, message_id=3, kind=0x8001))
        await peer.message(has_data=False)
        await peer.send(found(0, message_id=4, kind=0x8030, context_id=asking + 2))
        await peer.finish()

    async with (
        scripted(script) as target,
        associate(network, target, (*proposals, FIND, ECHO), CLOCKS) as association,
    ):
        assert is_answered(association)
        assert await find(association, instance)
        assert not await find(association, instance)
        assert (await store(association, instance, tmp_path / "ct")).status == 0
        await echo(association)


def garbled_answers() -> dict[str, bytes]:
    return {
        "kind": found(0, kind=0x8001),
        "message id": found(0, message_id=2),
        "context": found(0, context_id=3),
        "context of an answer": found(PENDING, answer(), context_id=3),
        "message id of an answer": found(PENDING, answer(), message_id=2),
        "data set after the last": found(0, answer()),
        "data set before all": node.data(node.pdv(encoded(answer()), control=2)),
        "data set missing": found(PENDING) + found(0),
        "two data sets": found(PENDING, answer())
        + node.data(node.pdv(encoded(answer()), control=2)),
        "endless data set": found(PENDING) + node.data(node.pdv(bytes(60000), control=0)) * 2,
        "endless answers": found(PENDING, answer()) * 65,
        "no status": node.data(node.pdv(node.command(Dataset()))),
    }


@pytest.mark.parametrize("what", garbled_answers())
async def test_an_answer_against_the_rules_ends_the_association(
    network: TcpNetwork, what: str
) -> None:
    heard = b""

    async def script(peer: Peer) -> None:
        nonlocal heard
        await peer.accept_all()
        await peer.message()
        await peer.send(garbled_answers()[what])
        heard = await peer.until_end()

    with pytest.raises(AssociationLost) as caught:
        await ask(network, script)
    assert caught.value.code == "protocol"
    assert heard == node.abort()


async def test_a_data_set_belongs_to_no_other_response(network: TcpNetwork) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message(has_data=False)
        await peer.send(found(PENDING, answer(), kind=0x8030))
        await peer.until_end()

    async with scripted(script) as target:
        with pytest.raises(AssociationLost, match="not valid DICOM"):
            async with associate(network, target, (ECHO,), CLOCKS) as association:
                await echo(association)


@pytest.mark.parametrize("how", ["abort", "close", "reset"])
async def test_the_node_leaves_over_the_question(network: TcpNetwork, how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        await peer.send(found(PENDING, answer()))
        match how:
            case "abort":
                await peer.send(node.abort())
            case "close":
                await peer.stream.aclose()
            case _:
                peer.reset()

    with pytest.raises(AssociationLost) as caught:
        await ask(network, script)
    assert caught.value.code == ("abort" if how == "abort" else "closed")


async def ask_slowly(script: Callable[[Peer], Awaitable[None]], within: float) -> float:
    """Ask a node on a virtual network; return how many seconds that took."""

    async def handle(stream: VirtualStream) -> None:
        await script(Peer(stream))

    target = Target("pacs", 104, "PACS", "ITH")
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        network = VirtualNetwork(nursery, {("pacs", 104): handle})
        with trio.move_on_after(within):
            async with associate(network, target, (FIND,), CLOCKS) as association:
                await find(association, INSTANCE)
        took = trio.current_time() - begun
        nursery.cancel_scope.cancel("the test is over")
    return took


async def test_answers_in_drops_do_not_make_the_question_longer(
    autojump_clock: MockClock,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        while True:
            await peer.send(found(PENDING, answer()))
            await trio.sleep(CLOCKS.response * 0.3)

    with pytest.RaisesGroup(AssociationLost):
        await ask_slowly(script, within=1000)
    assert trio.current_time() < CLOCKS.response + 2


async def test_a_question_that_is_broken_off_is_cut_at_once(autojump_clock: MockClock) -> None:
    heard = b""

    async def script(peer: Peer) -> None:
        nonlocal heard
        await peer.accept_all()
        await peer.message()
        await peer.send(found(PENDING, answer()))
        heard = await peer.until_end()

    took = await ask_slowly(script, within=1.0)
    assert took == pytest.approx(1 + CLOCKS.abort, abs=0.01)
    assert heard == node.abort()


# Real nodes -------------------------------------------------------------------------------------


async def stored_and_not(association: Association, path: Path) -> tuple[bool, bool, bool]:
    """Store one sample; return whether it was found before, after, and whether another is."""
    instance = keys_of(path)
    other = msgspec.structs.replace(instance, sop_instance_uid="1.2.3.4.5.6.7.8.9")
    before = await find(association, instance)
    await store(association, instance, path)
    return before, await find(association, instance), await find(association, other)


def keys_of(path: Path) -> Instance:
    """An instance with the study and series that its data set names."""
    read = pydicom.dcmread(path, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
    return msgspec.structs.replace(
        instance_of(path),
        study_instance_uid=str(read.StudyInstanceUID),
        series_instance_uid=str(read.SeriesInstanceUID),
    )


async def ask_a_real_one(network: TcpNetwork, target: Target) -> tuple[bool, bool, bool]:
    path = sample("CT_small.dcm")
    (proposals,) = plan([instance_of(path)])
    async with associate(network, target, (*proposals, FIND), CLOCKS) as association:
        assert is_answered(association)
        return await stored_and_not(association, path)


@pytest.mark.needs("dcmqrscp", "dcmqridx")
async def test_dcmqrscp_says_what_it_has(network: TcpNetwork, tmp_path: Path) -> None:
    with dcmqrscp(tmp_path) as real:
        assert await ask_a_real_one(network, target_of(real)) == (False, True, False)


@pytest.mark.needs("orthanc")
async def test_orthanc_says_what_it_has(network: TcpNetwork, tmp_path: Path) -> None:
    with orthanc(tmp_path) as real:
        assert await ask_a_real_one(network, target_of(real)) == (False, True, False)


@pytest.mark.needs("storescp")
async def test_storescp_cannot_be_asked(network: TcpNetwork, tmp_path: Path) -> None:
    path = sample("CT_small.dcm")
    (proposals,) = plan([instance_of(path)])
    with storescp(tmp_path, "+B") as real:
        async with associate(network, target_of(real), (*proposals, FIND), CLOCKS) as association:
            assert not is_answered(association)
            assert await stored_and_not(association, path) == (False, False, False)
        assert len(real.stored) == 1


@contextmanager
def pynetdicom_node(*answers: tuple[int, Dataset | None]) -> Iterator[tuple[Target, list[Dataset]]]:
    """A node made of pynetdicom that answers every C-FIND alike; also what it was asked."""
    asked: list[Dataset] = []

    def reply(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked.append(event.identifier)
        yield from answers

    entity = AE("PYNETDICOM")
    entity.add_supported_context(STUDY_ROOT_FIND)
    port = free_port()
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_FIND, reply)]
    )
    try:
        yield Target("127.0.0.1", port, "PYNETDICOM", "ITH"), asked
    finally:
        assert server is not None
        server.shutdown()


@pytest.mark.parametrize(
    ("answers", "is_found"),
    [
        ([(PENDING, answer())], True),
        ([(PENDING, answer(SOPInstanceUID="1.2")), (WARNED, answer())], True),
        ([(PENDING, answer(SOPInstanceUID="1.2"))], False),
        ([], False),
        ([(0xA700, None)], False),
        ([(PENDING, answer()), (0xC001, None)], False),
    ],
)
async def test_pynetdicom_is_understood(
    network: TcpNetwork, answers: list[tuple[int, Dataset | None]], is_found: bool
) -> None:
    with pynetdicom_node(*answers) as (target, asked):
        async with associate(network, target, (FIND,), CLOCKS) as association:
            assert await find(association, INSTANCE) is is_found
            assert await find(association, INSTANCE) is is_found
    expected = answer()
    del expected.RetrieveAETitle
    assert asked == [expected, expected]


async def test_answers_that_come_twice_are_no_fault(network: TcpNetwork) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        for number in (1, 2):
            await peer.message()
            match = found(PENDING, answer(), message_id=number)
            end = found(0, message_id=number)
            await peer.send(match * 2, end * 2, match, end)
        await peer.finish()

    async with (
        scripted(script) as target,
        associate(network, target, (FIND,), CLOCKS) as association,
    ):
        assert await find(association, INSTANCE)
        assert await find(association, INSTANCE)
