"""The simulated node: what a peer sees of it, good and bad, and what it records."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec
import pytest
import trio
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from trio.testing import MockClock

from proxy.demo.encoding import SampleInstance
from proxy.demo.sample import Study, ct_series, mr_series, private_object
from proxy.dicom.association import Target, associate
from proxy.dicom.contexts import ECHO as ECHO_PROPOSAL
from proxy.dicom.contexts import plan
from proxy.dicom.find import FIND as FIND_PROPOSAL
from proxy.dicom.find import find
from proxy.dicom.storage import echo, store
from proxy.simulation.node import ALWAYS, Kind, Misbehaviour, ReceivedInstance, SimulatedNode
from proxy.simulation.schedule import shuffled
from tests.dicom import scripted
from tests.dicom.objects import data_set as file_data_set
from tests.dicom.objects import write_ct
from tests.dicom.scripted import CLOCKS
from tests.dicom.virtual import CAPACITY, VirtualNetwork
from tests.simulation.requestor import (
    CT,
    ECHO,
    EXPLICIT,
    FIND,
    IMPLICIT,
    STORE,
    STUDY_ROOT_FIND,
    VERIFICATION,
    Requestor,
    connected,
    data_set,
    encoded,
    usual_contexts,
)

STUDY = Study(seed=3)
SLICES = ct_series(STUDY, slices=3, size=32)
ONE = SLICES[0]
(LARGE,) = ct_series(Study(seed=4), slices=1, size=512)
"""Longer than the connection holds."""

MR = mr_series(STUDY, slices=1, size=32)[0]

USUAL = ["AC", "C-ECHO 0000", "C-STORE 0000", "C-FIND 0000", "RELEASE-RP", "end"]


@pytest.fixture
def node() -> SimulatedNode:
    return SimulatedNode(Random(1))


def misbehave(node: SimulatedNode, kind: Kind, **fields: float) -> None:
    node.misbehave(msgspec.convert({"kind": kind, **fields}, Misbehaviour))


async def visit(node: SimulatedNode, instance: SampleInstance = ONE) -> list[str]:
    """Associate, C-ECHO, C-STORE, C-FIND, release; end where the node makes an end."""
    async with connected(node) as peer:
        seen = [await peer.associate(*usual_contexts(instance.sop_class_uid))]
        steps: Sequence[tuple[int, Callable[[], Awaitable[str]]]] = (
            (ECHO, peer.echo),
            (STORE, lambda: peer.store(instance)),
            (FIND, lambda: ask_for(peer, instance)),
            (0, peer.release),
        )
        for context_id, step in steps:
            if not seen[-1].startswith(("AC", "C-", "not accepted")):
                break
            result, _ = peer.accepted.get(context_id, (0, ""))
            seen.append(f"not accepted {result}" if result else await step())
        if seen[-1].startswith(("A-ABORT", "RJ", "RELEASE-RP")):
            seen.append(await peer.sees())
    return seen


async def ask_for(peer: Requestor, instance: SampleInstance) -> str:
    seen = await peer.find(
        StudyInstanceUID=instance.study_instance_uid,
        SeriesInstanceUID=instance.series_instance_uid,
        SOPInstanceUID=instance.sop_instance_uid,
    )
    if seen == "C-FIND 0000" and len(peer.matches) != 1:
        return f"C-FIND 0000, {len(peer.matches)} found"
    return seen


# A node that behaves -----------------------------------------------------------------------------


async def test_a_visit(autojump_clock: MockClock, node: SimulatedNode) -> None:
    begun = trio.current_time()
    assert await visit(node) == USUAL
    assert await visit(node, MR) == USUAL
    one, other = node.received
    assert (one.sha256, other.sha256) == (ONE.sha256, MR.sha256)
    assert node.holds == {each.sop_instance_uid: each.sha256 for each in (ONE, MR)}
    assert one.answered_at is not None
    assert begun < one.at < one.answered_at < other.at
    assert one == ReceivedInstance(
        at=one.at,
        sop_class_uid=CT,
        sop_instance_uid=ONE.sop_instance_uid,
        transfer_syntax_uid=EXPLICIT,
        association=1,
        sha256=ONE.sha256,
        size=ONE.data_set_size,
        kept=True,
        status=0,
        answered_at=one.answered_at,
    )
    assert other.association == 2
    assert (node.echoes, node.finds) == (2, 2)
    count = node.associations
    assert (count.open, count.most, count.total, count.rejected) == (0, 1, 2, 0)
    assert not node.hits
    assert not node.violations


async def test_an_answer_takes_its_time(autojump_clock: MockClock) -> None:
    node = SimulatedNode(Random(1), answer_s=(2.0, 3.0))
    took = []
    async with connected(node) as peer:
        steps: Sequence[Callable[[], Awaitable[str]]] = (
            lambda: peer.associate(*usual_contexts(CT)),
            peer.echo,
            peer.release,
        )
        for step in steps:
            begun = trio.current_time()
            await step()
            took.append(trio.current_time() - begun)
    assert all(2.0 <= each <= 3.0 for each in took)
    assert len({*took}) == 3


@pytest.mark.parametrize(
    "instance",
    [
        *(
            ct_series(STUDY, slices=1, size=32, series=10 + n, transfer_syntax_uid=syntax)[0]
            for n, syntax in enumerate(
                (
                    ImplicitVRLittleEndian,
                    ExplicitVRLittleEndian,
                    ExplicitVRBigEndian,
                    DeflatedExplicitVRLittleEndian,
                    RLELossless,
                )
            )
        ),
        private_object(STUDY),
    ],
    ids=["implicit", "explicit", "big endian", "deflated", "RLE", "private"],
)
async def test_any_class_and_syntax_is_stored_and_found(
    autojump_clock: MockClock, node: SimulatedNode, instance: SampleInstance
) -> None:
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(instance.sop_class_uid, instance.transfer_syntax_uid))
        assert await peer.store(instance) == "C-STORE 0000"
        assert await ask_for(peer, instance) == "C-FIND 0000"
        assert await peer.find(StudyInstanceUID="1.2", SOPInstanceUID=instance.sop_instance_uid)
        assert not peer.matches
    assert node.holds == {instance.sop_instance_uid: instance.sha256}


@pytest.mark.parametrize("size", [2, 10, 8192, 16378])
async def test_a_data_set_may_come_in_fragments(
    autojump_clock: MockClock, node: SimulatedNode, size: int
) -> None:
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        assert await peer.store(ONE, size=size) == "C-STORE 0000"
    assert node.holds == {ONE.sop_instance_uid: ONE.sha256}


@pytest.mark.parametrize("size", [2, 40])
async def test_a_command_may_come_in_fragments(
    autojump_clock: MockClock, node: SimulatedNode, size: int
) -> None:
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        command = peer.command(STORE, 0x0001, CT, ONE.sop_instance_uid)[6:]
        begun = trio.current_time()
        for at in range(0, len(command), size):
            await trio.sleep(1)
            control = 3 if at + size >= len(command) else 1
            fragment = scripted.pdv(command[at : at + size], control=control, context_id=STORE)
            await peer.send(scripted.data(fragment))
        await peer.send_data(data_set(ONE))
        assert await peer.sees() == "C-STORE 0000"
    assert node.received[0].at == begun + 1
    assert node.holds == {ONE.sop_instance_uid: ONE.sha256}


async def test_command_and_data_set_may_come_in_one_pdu(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    misbehave(node, Kind.STALL, after=ALWAYS, seconds=1)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        command = peer.command(STORE, 0x0001, CT, ONE.sop_instance_uid)
        content = scripted.pdv(data_set(ONE), control=2, context_id=STORE)
        await peer.send(scripted.data(command, content))
        assert await peer.sees() == "C-STORE 0000"
    assert node.hits == {Kind.STALL: 1}
    assert node.holds == {ONE.sop_instance_uid: ONE.sha256}


async def test_find_at_each_level(autojump_clock: MockClock, node: SimulatedNode) -> None:
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        for each in SLICES:
            await peer.store(each)
        (other,) = ct_series(Study(seed=9), slices=1, size=32)
        await peer.store(other)
        uids = {each.sop_instance_uid for each in SLICES}
        assert await peer.find("STUDY") == "C-FIND 0000"
        assert {match.StudyInstanceUID for match in peer.matches} == {
            ONE.study_instance_uid,
            other.study_instance_uid,
        }
        await peer.find("SERIES", StudyInstanceUID=ONE.study_instance_uid)
        (match,) = peer.matches
        assert match.SeriesInstanceUID == ONE.series_instance_uid
        assert match.QueryRetrieveLevel == "SERIES"
        assert "SOPInstanceUID" not in match
        await peer.find("IMAGE", SeriesInstanceUID=ONE.series_instance_uid)
        assert {match.SOPInstanceUID for match in peer.matches} == uids
        await peer.find("IMAGE", SOPInstanceUID=[*sorted(uids)[:2], "1.2.3"])  # type: ignore[arg-type]
        assert {match.SOPInstanceUID for match in peer.matches} == {*sorted(uids)[:2]}
        assert await peer.find("PATIENT") == "C-FIND A900"
    assert not node.violations


async def test_find_in_explicit_vr(autojump_clock: MockClock, node: SimulatedNode) -> None:
    """DCMTK proposes it first; the answer is in the same encoding."""
    await visit(node)
    async with connected(node) as peer:
        contexts = [(VERIFICATION, [IMPLICIT]), (CT, [EXPLICIT]), (STUDY_ROOT_FIND, [EXPLICIT])]
        await peer.associate(*contexts)
        await peer.ask(FIND, 0x0020, STUDY_ROOT_FIND, has_data=True)
        asked = Dataset()
        asked.QueryRetrieveLevel, asked.SOPInstanceUID = "IMAGE", ONE.sop_instance_uid
        await peer.send_data(encoded(asked, implicit=False), context_id=FIND)
        assert await peer.sees() == "C-FIND FF00"
        identifier = await peer.identifier()
        asked.StudyInstanceUID = ONE.study_instance_uid
        asked.SeriesInstanceUID = ONE.series_instance_uid
        assert identifier == encoded(asked, implicit=False)


async def test_other_queries_are_not_accepted(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    move = "1.2.840.10008.5.1.4.1.2.2.2"
    async with connected(node) as peer:
        await peer.associate((move, [IMPLICIT]), (STUDY_ROOT_FIND, ["1.2.840.10008.1.2.2"]))
        assert {n: result for n, (result, _) in peer.accepted.items()} == {1: 3, 3: 4}


@pytest.mark.parametrize("overwrites", [True, False])
async def test_an_instance_that_comes_again(autojump_clock: MockClock, overwrites: bool) -> None:
    node = SimulatedNode(Random(1), overwrites=overwrites)
    changed = SampleInstance(
        CT, ONE.sop_instance_uid, "", "", EXPLICIT, LARGE.content, LARGE.sha256, LARGE.data_set_size
    )
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        for each in (ONE, changed, changed):
            assert await peer.store(each) == "C-STORE 0000"
    assert [each.kept for each in node.received] == [True, overwrites, overwrites]
    assert node.holds == {ONE.sop_instance_uid: (LARGE if overwrites else ONE).sha256}


async def test_the_program_is_served(
    autojump_clock: MockClock, node: SimulatedNode, tmp_path: Path
) -> None:
    """The program's own requestor, over more PDUs than the node takes at once."""
    node.max_pdu = 256
    path = tmp_path / "ct"
    instance = msgspec.structs.replace(write_ct(path, 300_000), **uids_of(path))
    (proposals,) = plan([instance])
    async with network(node) as virtual:
        async with associate(
            virtual, TARGET, (*proposals, FIND_PROPOSAL, ECHO_PROPOSAL), CLOCKS
        ) as association:
            await echo(association)
            assert not await find(association, instance)
            assert (await store(association, instance, path)).status == 0
            assert await find(association, instance)
            assert association.fragment_size == 250
        await trio.sleep(1)
        assert node.associations.open == 0
    (received,) = node.received
    assert received.sha256 == hashlib.sha256(file_data_set(path)).hexdigest()
    assert not node.violations


TARGET = Target("pacs", 104, "PACS", "ITH")


@asynccontextmanager
async def network(node: SimulatedNode) -> AsyncIterator[VirtualNetwork]:
    async with trio.open_nursery() as nursery:
        yield VirtualNetwork(nursery, {("pacs", 104): node.serve})
        nursery.cancel_scope.cancel("the test is over")


def uids_of(path: Path) -> dict[str, str]:
    import pydicom

    read = pydicom.dcmread(path, stop_before_pixels=True)
    return {
        "study_instance_uid": str(read.StudyInstanceUID),
        "series_instance_uid": str(read.SeriesInstanceUID),
    }


# A node that misbehaves --------------------------------------------------------------------------

REFUSED_HERE = ["AC", "not accepted 3", "not accepted 3", "not accepted 3", "RELEASE-RP", "end"]

SEEN: dict[str, tuple[Misbehaviour, list[str]]] = {
    "reject": (Misbehaviour(Kind.REJECT, code=0x010103), ["RJ 1/1/3", "end"]),
    "reject, no code": (Misbehaviour(Kind.REJECT), ["RJ 1/1/1", "end"]),
    "unanswered": (Misbehaviour(Kind.ASSOCIATION_UNANSWERED), ["silence"]),
    "aborted": (Misbehaviour(Kind.ASSOCIATION_ABORTED, code=0x0201), ["A-ABORT 2/1", "end"]),
    "closed": (Misbehaviour(Kind.ASSOCIATION_CLOSED), ["end"]),
    "accepted, aborted": (
        Misbehaviour(Kind.ACCEPTED_THEN_ABORTED, code=0x0200),
        ["AC", "A-ABORT 2/0", "end"],
    ),
    "no context": (Misbehaviour(Kind.CONTEXTS_REFUSED), REFUSED_HERE),
    "no echo context": (
        Misbehaviour(Kind.ECHO_CONTEXT_REFUSED, code=1),
        ["AC", "not accepted 1", *USUAL[2:]],
    ),
    "no find context": (
        Misbehaviour(Kind.FIND_CONTEXT_REFUSED),
        [*USUAL[:3], "not accepted 3", *USUAL[4:]],
    ),
    "no class": (
        Misbehaviour(Kind.CLASS_REFUSED, code=7),
        [*USUAL[:2], "not accepted 3", "C-FIND 0000, 0 found", *USUAL[4:]],
    ),
    "implicit only": (
        Misbehaviour(Kind.IMPLICIT_ONLY),
        [*USUAL[:2], "not accepted 4", "C-FIND 0000, 0 found", *USUAL[4:]],
    ),
    "echo status": (
        Misbehaviour(Kind.ECHO_STATUS, code=0x0122),
        ["AC", "C-ECHO 0122", *USUAL[2:]],
    ),
    "echo aborted": (Misbehaviour(Kind.ECHO_ABORTED), ["AC", "A-ABORT 0/0", "end"]),
    "echo unanswered": (Misbehaviour(Kind.ECHO_UNANSWERED), ["AC", "silence"]),
    "aborted in data": (
        Misbehaviour(Kind.ABORTED_IN_DATA, after=100),
        [*USUAL[:2], "A-ABORT 0/0", "end"],
    ),
    "closed in data": (Misbehaviour(Kind.CLOSED_IN_DATA, after=10**9), [*USUAL[:2], "end"]),
    "closed before storing": (Misbehaviour(Kind.CLOSED_BEFORE_STORING), [*USUAL[:2], "end"]),
    "answer lost": (Misbehaviour(Kind.ANSWER_LOST), [*USUAL[:2], "end"]),
    "store unanswered": (Misbehaviour(Kind.STORE_UNANSWERED), [*USUAL[:2], "silence"]),
    "wrong message id": (
        Misbehaviour(Kind.WRONG_MESSAGE_ID, skip=1),
        [*USUAL[:2], "a response to nothing"],
    ),
    "release unanswered": (Misbehaviour(Kind.RELEASE_UNANSWERED), [*USUAL[:4], "silence"]),
    "release aborted": (
        Misbehaviour(Kind.RELEASE_ABORTED, code=0x0200),
        [*USUAL[:4], "A-ABORT 2/0", "end"],
    ),
    "release closed": (Misbehaviour(Kind.RELEASE_CLOSED), [*USUAL[:4], "end"]),
    "find status": (
        Misbehaviour(Kind.FIND_STATUS, code=0xA700),
        [*USUAL[:3], "C-FIND A700", *USUAL[4:]],
    ),
    "find empty": (
        Misbehaviour(Kind.FIND_EMPTY),
        [*USUAL[:3], "C-FIND 0000, 0 found", *USUAL[4:]],
    ),
    "late": (Misbehaviour(Kind.LATE, seconds=9, times=5), USUAL),
    "drip": (Misbehaviour(Kind.DRIP, seconds=0.1, times=5), USUAL),
    "stall": (Misbehaviour(Kind.STALL, seconds=40), USUAL),
    "wrong UID": (Misbehaviour(Kind.WRONG_UID), USUAL),
    "PDU limit": (Misbehaviour(Kind.PDU_LIMIT, code=10_000), USUAL),
    "forget": (Misbehaviour(Kind.FORGET), USUAL),
    "first syntax only": (Misbehaviour(Kind.FIRST_SYNTAX_ONLY), USUAL),
}
"""What a visit sees, by a name; the rest is below."""

KEEPS_NOTHING = {
    Kind.REJECT,
    Kind.ASSOCIATION_UNANSWERED,
    Kind.ASSOCIATION_ABORTED,
    Kind.ASSOCIATION_CLOSED,
    Kind.ACCEPTED_THEN_ABORTED,
    Kind.CONTEXTS_REFUSED,
    Kind.CLASS_REFUSED,
    Kind.IMPLICIT_ONLY,
    Kind.ECHO_ABORTED,
    Kind.ECHO_UNANSWERED,
    Kind.ABORTED_IN_DATA,
    Kind.CLOSED_IN_DATA,
    Kind.CLOSED_BEFORE_STORING,
}


@pytest.mark.parametrize("name", SEEN)
async def test_what_a_peer_sees(autojump_clock: MockClock, node: SimulatedNode, name: str) -> None:
    misbehaviour, expected = SEEN[name]
    node.misbehave(misbehaviour)
    assert await visit(node) == expected
    assert node.hits == {misbehaviour.kind: misbehaviour.times}
    kept = misbehaviour.kind not in KEEPS_NOTHING
    assert node.holds == ({ONE.sop_instance_uid: ONE.sha256} if kept else {})
    assert [each.kept for each in node.received] == [kept] * len(node.received)
    answered = "C-STORE 0000" in expected or misbehaviour.kind is Kind.WRONG_MESSAGE_ID
    assert [each.status == 0 for each in node.received] == [answered] * len(node.received)
    assert node.associations.open == 0
    assert not node.violations
    assert await visit(node) == USUAL


def test_every_kind_is_tested() -> None:
    text = Path(__file__).read_text()
    assert [kind.name for kind in Kind if f"Kind.{kind.name}" not in text] == []
    assert all(isinstance(kind.value, str) and kind.name.lower() == kind.value for kind in Kind)


@pytest.mark.parametrize(
    "status",
    [
        *(0xA700, 0xA900, 0xC000, 0x0110, 0x0122, 0x0124, 0x0213),
        *(0xB000, 0xB006, 0xB007, 0x0001, 0x0107, 0x0116, 0x0111, 0x0000),
    ],
)
async def test_a_status(autojump_clock: MockClock, node: SimulatedNode, status: int) -> None:
    misbehave(node, Kind.STORE_STATUS, code=status)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        assert await peer.store(ONE) == f"C-STORE {status:04X}"
        assert await peer.store(SLICES[1]) == "C-STORE 0000"
    kept = status >> 12 == 0xB or status in {0, 0x0001, 0x0107, 0x0111, 0x0116}
    one, _ = node.received
    assert (one.kept, one.status, one.sha256) == (kept, status, ONE.sha256)
    assert (ONE.sop_instance_uid in node.holds) is kept


async def test_what_is_a_duplicate_replaces_nothing(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    misbehave(node, Kind.STORE_STATUS, code=0x0111, skip=1)
    changed = SampleInstance(
        CT, ONE.sop_instance_uid, "", "", EXPLICIT, LARGE.content, LARGE.sha256, LARGE.data_set_size
    )
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.store(ONE)
        assert await peer.store(changed) == "C-STORE 0111"
    assert [each.kept for each in node.received] == [True, False]
    assert node.holds == {ONE.sop_instance_uid: ONE.sha256}


async def test_another_instance_is_named(autojump_clock: MockClock, node: SimulatedNode) -> None:
    misbehave(node, Kind.WRONG_UID)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.store(ONE)
        assert peer.named == "2.25.1"
        await peer.store(ONE)
        assert peer.named == ONE.sop_instance_uid


async def test_a_response_twice(autojump_clock: MockClock, node: SimulatedNode) -> None:
    misbehave(node, Kind.DUPLICATE_RESPONSE, times=3)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        assert [await peer.echo(), await peer.sees()] == ["C-ECHO 0000"] * 2
        assert [await peer.store(ONE), await peer.sees()] == ["C-STORE 0000"] * 2
        assert [await ask_for(peer, ONE), await peer.sees()] == ["C-FIND 0000"] * 2
        assert await peer.echo() == "C-ECHO 0000"
        assert await peer.release() == "RELEASE-RP"
    assert len(node.received) == 1


async def test_one_association_at_a_time(autojump_clock: MockClock, node: SimulatedNode) -> None:
    misbehave(node, Kind.ONE_ASSOCIATION, times=2)
    misbehave(node, Kind.ONE_ASSOCIATION, code=0x010101, skip=2)
    async with connected(node) as one:
        assert await one.associate(*usual_contexts(CT)) == "AC"
        for seen in ("RJ 2/3/2", "RJ 2/3/2", "RJ 1/1/1", "AC"):
            async with connected(node) as other:
                assert await other.associate(*usual_contexts(CT)) == seen
                if seen == "AC":
                    await other.release()
        await one.release()
    misbehave(node, Kind.ONE_ASSOCIATION)
    assert await visit(node) == USUAL
    assert node.associations.rejected == 3
    assert node.associations.most == 2
    assert node.hits == {Kind.ONE_ASSOCIATION: 3}


@pytest.mark.parametrize(
    ("kind", "accepted"),
    [
        (Kind.FIRST_SYNTAX_ONLY, {1: (0, EXPLICIT), 3: (4, IMPLICIT), 5: (0, IMPLICIT)}),
        (Kind.IMPLICIT_ONLY, {1: (4, IMPLICIT), 3: (0, IMPLICIT), 5: (0, IMPLICIT)}),
    ],
)
async def test_which_syntaxes_are_accepted(
    autojump_clock: MockClock, node: SimulatedNode, kind: Kind, accepted: dict[int, tuple[int, str]]
) -> None:
    misbehave(node, kind)
    async with connected(node) as peer:
        contexts = [(CT, [EXPLICIT]), (CT, [IMPLICIT]), (MR.sop_class_uid, [IMPLICIT, EXPLICIT])]
        await peer.associate(*contexts)
        assert peer.accepted == accepted
    async with connected(node) as peer:
        await peer.associate(*contexts)
        assert {result for result, _ in peer.accepted.values()} == {0}


@pytest.mark.parametrize(("code", "refused"), [(0, 3), (1, 5), (2, 3)])
async def test_which_class_is_refused(
    autojump_clock: MockClock, node: SimulatedNode, code: int, refused: int
) -> None:
    misbehave(node, Kind.CLASS_REFUSED, code=code)
    async with connected(node) as peer:
        await peer.associate((VERIFICATION, [IMPLICIT]), (CT, [EXPLICIT]), ("1.2.3", [EXPLICIT]))
        assert [n for n, (result, _) in peer.accepted.items() if result] == [refused]


async def test_contexts_that_nobody_proposed_cannot_be_refused(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    for kind in (Kind.FIND_CONTEXT_REFUSED, Kind.CLASS_REFUSED, Kind.IMPLICIT_ONLY):
        misbehave(node, kind)
    async with connected(node) as peer:
        assert await peer.associate((VERIFICATION, [IMPLICIT])) == "AC"
        assert await peer.echo() == "C-ECHO 0000"
    assert not node.hits


@pytest.mark.parametrize("code", [0, 7, 128])
async def test_the_longest_pdu(autojump_clock: MockClock, node: SimulatedNode, code: int) -> None:
    misbehave(node, Kind.PDU_LIMIT, code=code)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        assert peer.longest == code
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        assert peer.longest == node.max_pdu


async def test_a_node_forgets(autojump_clock: MockClock, node: SimulatedNode) -> None:
    misbehave(node, Kind.FORGET, skip=1)
    await visit(node)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        assert await ask_for(peer, ONE) == "C-FIND 0000, 0 found"
    assert node.holds == {}
    assert node.received[0].kept


async def test_a_node_claims_to_have_what_it_has_not(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    misbehave(node, Kind.FIND_CLAIMS_ALL)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        assert await ask_for(peer, ONE) == "C-FIND 0000"
        assert peer.matches[0].SOPInstanceUID == ONE.sop_instance_uid
        assert await ask_for(peer, ONE) == "C-FIND 0000, 0 found"


async def test_a_late_answer(autojump_clock: MockClock, node: SimulatedNode) -> None:
    misbehave(node, Kind.LATE, skip=2, seconds=500)
    await visit(node)
    (received,) = node.received
    assert received.answered_at is not None
    assert 500 < received.answered_at - received.at < 501


async def test_an_answer_byte_by_byte(autojump_clock: MockClock, node: SimulatedNode) -> None:
    misbehave(node, Kind.DRIP, skip=2, seconds=1)
    await visit(node)
    (received,) = node.received
    assert received.answered_at is not None
    assert 100 < received.answered_at - received.at < 300


# In a data set -----------------------------------------------------------------------------------


@asynccontextmanager
async def storing_large(node: SimulatedNode) -> AsyncIterator[tuple[Requestor, list[int]]]:
    """Begin to send an instance; the list gets the number of each PDU that is sent."""
    sent: list[int] = []

    async def send() -> None:
        content = data_set(LARGE)
        for at in range(0, len(content), 8192):
            is_end = at + 8192 >= len(content)
            await peer.send_data(content[at : at + 8192], is_end=is_end)
            sent.append(at)

    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.begin_store(LARGE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            yield peer, sent
            nursery.cancel_scope.cancel("the rest is not wanted")


@pytest.mark.parametrize("after", [0, 1, 8192, 50_000])
async def test_a_node_stops_reading(
    autojump_clock: MockClock, node: SimulatedNode, after: int
) -> None:
    """What it has not read fills the connection, and the peer waits."""
    misbehave(node, Kind.STALL, after=after, seconds=500)
    begun = trio.current_time()
    async with storing_large(node) as (peer, sent):
        await trio.sleep(400)
        assert len(sent) == (after + CAPACITY) // 8204
        assert await peer.sees() == "C-STORE 0000"
        assert len(sent) == -(-LARGE.data_set_size // 8192)
    assert 500 < trio.current_time() - begun < 501
    assert node.received[0].sha256 == LARGE.sha256


@pytest.mark.parametrize("after", [0, 50_000, 10**9])
@pytest.mark.parametrize("kind", [Kind.ABORTED_IN_DATA, Kind.CLOSED_IN_DATA])
async def test_an_end_in_a_data_set(
    autojump_clock: MockClock, node: SimulatedNode, kind: Kind, after: int
) -> None:
    misbehave(node, kind, after=after, code=0x0206)
    async with storing_large(node) as (peer, sent):
        seen = [await peer.sees()]
        if kind is Kind.ABORTED_IN_DATA:
            assert seen == ["A-ABORT 2/6"]
            seen = [await peer.sees()]
        assert seen == ["end"]
        assert (len(sent) * 8192 >= LARGE.data_set_size) is (after > LARGE.data_set_size)
    (received,) = node.received
    assert (received.sha256, received.kept, received.status) == ("", False, None)


@pytest.mark.parametrize(("status", "kept"), [(0xA700, False), (0x0000, True)])
async def test_an_early_response(
    autojump_clock: MockClock, node: SimulatedNode, status: int, kept: bool
) -> None:
    misbehave(node, Kind.EARLY_STATUS, after=50_000, code=status)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.begin_store(LARGE)
        await peer.send_data(data_set(LARGE)[:60_000], is_end=False)
        assert await peer.sees() == f"C-STORE {status:04X}"
        assert node.received[0].sha256 == ""
        await peer.send_data(data_set(LARGE)[60_000:])
        assert await peer.store(ONE) == "C-STORE 0000"
    early, _ = node.received
    assert (early.status, early.kept, early.sha256) == (status, kept, LARGE.sha256)
    assert (LARGE.sop_instance_uid in node.holds) is kept


async def test_an_early_response_waits_for_its_bytes(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    misbehave(node, Kind.EARLY_STATUS, after=50_000, code=0xA700)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.begin_store(LARGE)
        await peer.send_data(data_set(LARGE)[:49_998], is_end=False)
        assert await peer.sees() == "silence"
        await peer.send_data(data_set(LARGE)[49_998:50_000], is_end=False)
        assert await peer.sees() == "C-STORE A700"


async def test_a_peer_that_gives_up_is_noticed_in_a_data_set(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    misbehave(node, Kind.STALL, after=50_000, seconds=3)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.begin_store(LARGE)
        await peer.send_data(data_set(LARGE)[:10_000], is_end=False)
        await peer.send(scripted.abort())
        begun = trio.current_time()
        assert await peer.sees() == "end"
        assert trio.current_time() - begun == pytest.approx(3)


async def test_a_silent_node_reads_on(autojump_clock: MockClock, node: SimulatedNode) -> None:
    misbehave(node, Kind.STORE_UNANSWERED)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        assert await peer.store(ONE) == "silence"
        for _ in range(2 * CAPACITY // ONE.data_set_size):
            await peer.begin_store(ONE)
            await peer.send_data(data_set(ONE))
        assert await peer.release() == "silence"
    assert node.associations.open == 0
    assert len(node.received) == 1


# In place of an answer ---------------------------------------------------------------------------


@pytest.mark.parametrize("skip", range(5))
@pytest.mark.parametrize(
    "instead",
    [
        (Kind.GARBAGE, 0, "garbage"),
        (Kind.GARBAGE, 1, "garbage"),
        (Kind.GARBAGE, 2, "garbage"),
        (Kind.GARBAGE, 3, "garbage"),
        (Kind.HALF_PDU, 0, "silence"),
        (Kind.HUGE_PDU, 0, "a huge PDU"),
        (Kind.FLOOD, 0, "empty P-DATA"),
        (Kind.FLOOD, 1, "RELEASE-RQ"),
        (Kind.FLOOD, 2, "empty fragment"),
        (Kind.FLOOD, 3, "a response to nothing"),
        (Kind.FLOOD, 4, "a huge PDU"),
    ],
)
async def test_in_place_of_an_answer(
    autojump_clock: MockClock, node: SimulatedNode, skip: int, instead: tuple[Kind, int, str]
) -> None:
    kind, code, seen = instead
    misbehave(node, kind, code=code, skip=skip, after=1)
    assert await visit(node) == [*USUAL[:skip], seen]
    assert node.hits == {kind: 1}
    stored = [each.status for each in node.received]
    assert stored == ([] if skip < 2 else [None if skip == 2 else 0])
    assert len(node.holds) == len(stored)


async def test_a_flood_has_no_end(autojump_clock: MockClock, node: SimulatedNode) -> None:
    misbehave(node, Kind.FLOOD, code=1)
    async with connected(node) as peer:
        begun = trio.current_time()
        assert await peer.associate(*usual_contexts(CT)) == "RELEASE-RQ"
        for _ in range(10 * CAPACITY // 10):
            kind, _ = await peer.pdu()
            assert kind == 5
        assert trio.current_time() - begun < 0.1


async def test_a_flood_may_have_an_end_and_pauses(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    misbehave(node, Kind.FLOOD, code=1, after=200_000, seconds=7)
    async with connected(node) as peer:
        begun = trio.current_time()
        seen = [await peer.associate(*usual_contexts(CT))]
        while seen[-1] != "silence":
            seen.append(await peer.sees())
        assert seen == ["RELEASE-RQ"] * 20_000 + ["silence"]
        assert 3 * 7 <= trio.current_time() - begun - 1000 < 3 * 7 + 1


async def test_half_an_answer(autojump_clock: MockClock, node: SimulatedNode) -> None:
    misbehave(node, Kind.HALF_PDU, skip=1)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.ask(ECHO, 0x0030, VERIFICATION)
        assert await peer.sees() == "silence"
        assert 6 < len(peer.unread) < int.from_bytes(peer.unread[2:6], "big")


# Release -----------------------------------------------------------------------------------------


async def test_the_node_requests_release_and_is_answered(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    misbehave(node, Kind.RELEASE_BY_NODE)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        assert await peer.store(ONE) == "C-STORE 0000"
        assert await peer.sees() == "RELEASE-RQ"
        assert node.associations.open == 1
        await peer.send(scripted.RELEASE_RP)
        assert await peer.sees() == "end"
        assert node.associations.open == 0
    assert not node.violations


async def test_what_comes_after_the_nodes_release_is_ignored(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    misbehave(node, Kind.RELEASE_BY_NODE)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.store(ONE)
        assert await peer.store(SLICES[1]) == "RELEASE-RQ"
        assert await peer.echo() == "silence"
        assert await peer.find() == "silence"
        await peer.send(scripted.RELEASE_RP)
        assert await peer.sees() == "end"
    _, ignored = node.received
    assert (ignored.sha256, ignored.kept, ignored.status) == (SLICES[1].sha256, False, None)
    assert (node.echoes, node.finds) == (0, 0)


async def test_both_request_release(autojump_clock: MockClock, node: SimulatedNode) -> None:
    """The requestor answers first (PS3.8 Table 9-10, Sta9 to Sta12)."""
    misbehave(node, Kind.RELEASE_BY_NODE)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.store(ONE)
        assert await peer.release() == "RELEASE-RQ"
        assert await peer.sees() == "silence"
        await peer.send(scripted.RELEASE_RP)
        assert [await peer.sees(), await peer.sees()] == ["RELEASE-RP", "end"]


async def test_both_request_release_at_the_same_time(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    misbehave(node, Kind.RELEASE_COLLISION)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        assert await peer.release() == "RELEASE-RQ"
        assert await peer.sees() == "silence"
        await peer.send(scripted.RELEASE_RP)
        assert [await peer.sees(), await peer.sees()] == ["RELEASE-RP", "end"]
    assert node.released == {1}
    assert not node.violations


async def test_a_peer_that_does_not_close_is_left(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        begun = trio.current_time()
        assert [await peer.release(), await peer.sees()] == ["RELEASE-RP", "end"]
        assert 30 <= trio.current_time() - begun < 31


# Counting ----------------------------------------------------------------------------------------


async def test_times_and_skip(autojump_clock: MockClock, node: SimulatedNode) -> None:
    misbehave(node, Kind.STORE_STATUS, code=0xA700, skip=1, times=2)
    misbehave(node, Kind.STORE_STATUS, code=0xC000, skip=2)
    misbehave(node, Kind.STORE_STATUS, code=0xB000, times=0)
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        seen = [await peer.store(ONE) for _ in range(6)]
    statuses = [each.removeprefix("C-STORE ") for each in seen]
    assert statuses == ["0000", "A700", "A700", "C000", "0000", "0000"]
    assert node.hits == {Kind.STORE_STATUS: 3}


async def test_a_trait_lasts_until_it_is_disarmed(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    misbehave(node, Kind.REJECT, times=ALWAYS)
    for _ in range(3):
        assert await visit(node) == ["RJ 1/1/1", "end"]
    node.behave()
    assert await visit(node) == USUAL
    node.forget()
    assert node.holds == {}


# Violations --------------------------------------------------------------------------------------

PDV = scripted.pdv


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (scripted.GARBAGE, "A-ABORT 2/1"),
        (scripted.ASSOCIATE_RQ, "A-ABORT 2/2"),
        (scripted.RELEASE_RP, "A-ABORT 2/2"),
        (scripted.data(PDV(b"", control=2, context_id=3)), "A-ABORT 2/6"),
        (scripted.data(PDV(b"", control=3, context_id=9)), "A-ABORT 2/6"),
        (scripted.data(PDV(b"\0\0", control=3, context_id=3)), "A-ABORT 2/6"),
        (scripted.data(PDV(bytes(12), control=3, context_id=3)), "A-ABORT 2/6"),
        (scripted.data(b"\0\0"), "A-ABORT 2/6"),
        (scripted.data(b"\0\0\0\x09\x03\x03"), "A-ABORT 2/6"),
        (scripted.data(PDV(bytes(16380), control=1, context_id=3)), "A-ABORT 2/6"),
    ],
)
async def test_what_breaks_the_standard_is_noted(
    autojump_clock: MockClock, node: SimulatedNode, content: bytes, seen: str
) -> None:
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.send(content)
        assert [await peer.sees(), await peer.sees()] == [seen, "end"]
    assert len(node.violations) == 1
    assert node.associations.open == 0


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (scripted.RELEASE_RQ, "A-ABORT 2/2"),
        (scripted.ASSOCIATE_RQ, "A-ABORT 2/6"),
        (b"GET / HTTP/1.1\r\n", "A-ABORT 2/1"),
        (b"\1\0\xff\xff\xff\xff", "A-ABORT 2/6"),
    ],
)
async def test_what_is_no_request_for_an_association(
    autojump_clock: MockClock, node: SimulatedNode, content: bytes, seen: str
) -> None:
    async with connected(node) as peer:
        await peer.send(content)
        assert await peer.sees() == seen
    assert len(node.violations) == 1
    assert node.associations.total == 0


async def test_a_request_in_the_context_of_another_class(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(MR.sop_class_uid))
        assert await peer.store(ONE) == "A-ABORT 2/6"
    assert len(node.violations) == 1
    assert not node.received


async def test_a_command_within_a_data_set(autojump_clock: MockClock, node: SimulatedNode) -> None:
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.begin_store(ONE)
        assert await peer.echo() == "A-ABORT 2/6"
    assert len(node.violations) == 1


async def test_an_unknown_operation(autojump_clock: MockClock, node: SimulatedNode) -> None:
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.ask(ECHO, 0x0FFF, VERIFICATION)
        await peer.ask(ECHO, 0x0150, VERIFICATION)
        assert await peer.sees() == "N-DELETE 0211"
        await peer.ask(ECHO, 0x0150, VERIFICATION, has_data=True)
        assert await peer.sees() == "A-ABORT 2/2"
    assert len(node.violations) == 2


async def test_a_fragment_of_odd_length_is_taken(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        assert await peer.store(ONE, size=1001) == "C-STORE 0000"
    assert node.violations == ["a fragment of odd length"] * (ONE.data_set_size // 1001)


async def test_a_peer_that_leaves_within_a_data_set(
    autojump_clock: MockClock, node: SimulatedNode
) -> None:
    async with connected(node) as peer:
        await peer.associate(*usual_contexts(CT))
        await peer.begin_store(ONE)
        await peer.send(scripted.abort())
        assert await peer.sees() == "end"
    (received,) = node.received
    assert (received.sha256, received.kept, received.status) == ("", False, None)
    assert node.associations.open == 0
    assert not node.violations


# Determinism -------------------------------------------------------------------------------------


def test_twice_the_same_record() -> None:
    one, again, other = record(1), record(1), record(2)
    assert one == again
    assert one != other
    _, _, hits, _ = one
    assert len(hits) > len(Kind) * 3 // 4


def record(seed: int) -> tuple[list[ReceivedInstance], dict[str, str], dict[Kind, int], list[str]]:
    """Let several peers at a node that misbehaves in many ways; return what it recorded."""
    node = SimulatedNode(Random(seed))
    rng = Random(seed)
    for kind in Kind:
        if kind is not Kind.FLOOD:
            code, skip = rng.randrange(4), rng.randrange(12)
            after, seconds = rng.randrange(3000), rng.random()
            node.misbehave(Misbehaviour(kind, skip=skip, code=code, after=after, seconds=seconds))
    seen: list[str] = []

    async def visitor(number: int) -> None:
        for instance in SLICES * 3:
            seen.extend(f"{number}: {each}" for each in await visit(node, instance))

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(visitor, number)

    with shuffled(seed):
        trio.run(run, clock=MockClock(autojump_threshold=0))
    return node.received, node.holds, node.hits, seen
