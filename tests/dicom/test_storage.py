"""C-STORE against scripted nodes that answer, misbehave, stall and leave at every point."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest
import trio
from pydicom.dataset import Dataset

from proxy.dicom.association import Association, associate
from proxy.dicom.contexts import plan
from proxy.dicom.dimse import C_STORE_RSP, DimsePriority
from proxy.dicom.storage import StoreInterrupted, StoreResult, store
from proxy.errors import AssociationLost, InstanceUnusable
from proxy.machines.failures import Remedy
from proxy.model import Instance
from proxy.runtime.wire import TcpNetwork
from tests.dicom import scripted as node
from tests.dicom.objects import data_set, instance_of, sample, write_ct
from tests.dicom.scripted import CLOCKS, Peer, Script, scripted
from tests.support.waiting import PATIENCE_S

LARGE = 12_000_000
DEFLATED_IMAGE_FRAMES = "1.2.840.10008.1.2.8.1"
"""Frames are deflated, each by itself, not the data set (PS3.5 8.2.16)."""
SMALL_BUFFER = 65536


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instance"


async def send(
    network: TcpNetwork, script: Script, path: Path, instance: Instance, **clocks: float
) -> StoreResult:
    waits = msgspec.structs.replace(CLOCKS, **clocks)
    (proposals,) = plan([instance])
    async with scripted(script, receive_buffer=SMALL_BUFFER) as target:
        try:
            async with associate(network, target, proposals, waits) as association:
                return await store(association, instance, path)
        except AssociationLost as lost:
            error = lost
    raise error


def answering(*status: int) -> Script:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        for message_id, each in enumerate(status, 1):
            await peer.message()
            answer = node.response(each, message_id)
            await peer.send(node.data(node.pdv(node.command(answer))))
        await peer.finish()

    return script


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (0x0000, Remedy.STORED),
        (0xB000, Remedy.STORED_WITH_WARNING),
        (0x0111, Remedy.STORED),
        (0xA700, Remedy.FEWER_ASSOCIATIONS),
        (0xA900, Remedy.OTHER_SYNTAX),
        (0xC001, Remedy.NEVER),
        (0x0110, Remedy.RETRY_LATER),
    ],
)
async def test_the_status_decides(
    network: TcpNetwork, path: Path, status: int, remedy: Remedy
) -> None:
    result = await send(network, answering(status), path, write_ct(path))
    assert result.status == status
    assert result.failure.remedy is remedy


async def test_what_the_node_says_beside_the_status_is_kept(
    network: TcpNetwork, path: Path
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        answer = node.response(0xC000)
        answer.ErrorComment = "no space for this"
        answer.ErrorID = 77
        answer.OffendingElement = [0x00100020, 0x7FE00010]
        await peer.send(node.data(node.pdv(node.command(answer))))
        await peer.finish()

    result = await send(network, script, path, write_ct(path))
    assert result.comment == "no space for this"
    assert result.error_id == 77
    assert result.offending_elements == ("(0010,0020)", "(7FE0,0010)")


@pytest.mark.parametrize("max_pdu_size", [8, 9, 64, 4096, 16382, 16384, 131072, 1 << 20, 0])
async def test_bytes_arrive_as_they_lie_on_disk_in_pdus_the_node_can_take(
    network: TcpNetwork, path: Path, max_pdu_size: int
) -> None:
    instance = write_ct(path, 3000 if max_pdu_size < 100 else 2_500_000)
    lengths = []
    came = b""

    async def script(peer: Peer) -> None:
        nonlocal came
        await peer.accept_all(max_pdu_size)
        whole = peer.pdu

        async def measured() -> tuple[int, bytes]:
            kind, body = await whole()
            lengths.append(len(body))
            return kind, body

        peer.pdu = measured  # type: ignore[method-assign]
        _, came = await peer.message()
        await peer.send(node.data(node.pdv(node.command(node.response(0)))))
        await peer.finish()

    await send(network, script, path, instance)
    assert came == data_set(path)
    assert max(lengths) <= (max_pdu_size or 131072)
    assert all(length % 2 == 0 for length in lengths)


async def test_several_instances_over_one_association(network: TcpNetwork, tmp_path: Path) -> None:
    paths = [tmp_path / str(n) for n in range(5)]
    instances = [write_ct(path, 2 * n) for n, path in enumerate(paths, 1)]
    (proposals,) = plan(instances)
    assert len(proposals) == 2, "their own syntax, and what they can be converted to"
    async with (
        scripted(answering(0, 0xA700, 0, 0xB007, 0)) as target,
        associate(network, target, proposals, CLOCKS) as association,
    ):
        results = [
            await store(association, instance, path)
            for instance, path in zip(instances, paths, strict=True)
        ]
        assert not association.sent_whole, "of what is answered nothing is unknown"
    assert [result.status for result in results] == [0, 0xA700, 0, 0xB007, 0]


async def test_the_command_set_is_as_the_standard_wants_it(network: TcpNetwork, path: Path) -> None:
    instance = write_ct(path)
    came = b""

    async def script(peer: Peer) -> None:
        nonlocal came
        await peer.accept_all()
        came, _ = await peer.message()
        await peer.send(node.data(node.pdv(node.command(node.response(0)))))
        await peer.finish()

    (proposals,) = plan([instance])
    async with (
        scripted(script) as target,
        associate(network, target, proposals, CLOCKS) as association,
    ):
        await store(association, instance, path, priority=DimsePriority.HIGH)
    expected = Dataset()
    expected.AffectedSOPClassUID = instance.sop_class_uid
    expected.CommandField = 1
    expected.MessageID = 1
    expected.Priority = 1
    expected.CommandDataSetType = 1
    expected.AffectedSOPInstanceUID = instance.sop_instance_uid
    assert came == node.command(expected)


async def test_a_deflated_stream_of_odd_length_is_padded(network: TcpNetwork) -> None:
    path = sample("image_dfl.dcm")
    assert len(data_set(path)) % 2
    came = b""

    async def script(peer: Peer) -> None:
        nonlocal came
        await peer.accept_all()
        _, came = await peer.message()
        await peer.send(node.data(node.pdv(node.command(node.response(0)))))
        await peer.finish()

    await send(network, script, path, instance_of(path))
    assert came == data_set(path) + b"\0"


@pytest.mark.parametrize("syntax", [None, DEFLATED_IMAGE_FRAMES])
async def test_a_data_set_of_odd_length_is_not_sent(
    network: TcpNetwork, path: Path, syntax: str | None
) -> None:
    whole = write_ct(path)
    if syntax:
        whole = msgspec.structs.replace(whole, transfer_syntax_uid=syntax)
    odd = msgspec.structs.replace(whole, size=whole.size - 1)
    (proposals,) = plan([whole])
    async with (
        scripted(answering(0)) as target,
        associate(network, target, proposals, CLOCKS) as association,
    ):
        refused = await store(association, odd, path)
        stored = await store(association, whole, path)
    assert (refused.status, refused.failure.codes) == (None, ("odd",))
    assert stored.status == 0


async def test_an_instance_whose_context_is_refused_is_not_sent(
    network: TcpNetwork, tmp_path: Path
) -> None:
    ct, mr = tmp_path / "ct", tmp_path / "mr"
    instances = [write_ct(ct), write_ct(mr, sop_class="1.2.840.10008.5.1.4.1.1.4")]

    async def script(peer: Peer) -> None:
        proposed = await peer.request()
        await peer.send(node.accept({1: (4, ""), 3: (4, ""), 5: (0, proposed[5])}))
        await peer.message()
        await peer.send(node.data(node.pdv(node.command(node.response(0)), context_id=5)))
        await peer.finish()

    (proposals,) = plan(instances)
    async with (
        scripted(script) as target,
        associate(network, target, proposals, CLOCKS) as association,
    ):
        refused = await store(association, instances[0], ct)
        stored = await store(association, instances[1], mr)
    assert (refused.status, refused.failure.remedy) == (None, Remedy.OTHER_SYNTAX)
    assert (stored.status, stored.failure.remedy) == (0, Remedy.STORED)


def garbled_responses() -> dict[str, bytes]:
    other_message = node.command(node.response(0, message_id=2))
    no_status = node.response(0)
    del no_status.Status
    empty_status = node.command(no_status) + bytes.fromhex("00000009 00000000")
    return {
        "message id": node.data(node.pdv(other_message)),
        "sop instance": node.data(node.pdv(node.command(node.response(0, uid="1.2.3")))),
        "kind": node.data(node.pdv(node.command(node.response(0, kind=0x8030)))),
        "empty": node.data(node.pdv(b"")),
        "no status": node.data(node.pdv(node.command(no_status))),
        "empty status": node.data(node.pdv(empty_status)),
        "cut": node.data(node.pdv(node.command(node.response(0))[:-3])),
        "data set": node.data(node.pdv(b"\0\0", control=2)),
        "endless": node.data(*[node.pdv(bytes(60000), control=1)] * 2),
    }


@pytest.mark.parametrize("what", garbled_responses())
async def test_a_response_that_is_not_ours_leaves_the_outcome_unknown(
    network: TcpNetwork, path: Path, what: str
) -> None:
    heard = b""

    async def script(peer: Peer) -> None:
        nonlocal heard
        await peer.accept_all()
        await peer.message()
        await peer.send(garbled_responses()[what])
        heard = await peer.until_end()

    with pytest.raises(StoreInterrupted) as caught:
        await send(network, script, path, write_ct(path))
    assert caught.value.code == "protocol"
    assert caught.value.sent_whole
    assert heard == node.abort()


@pytest.mark.parametrize("how", ["abort", "close", "reset", "release"])
async def test_the_node_leaves_before_the_response(
    network: TcpNetwork, path: Path, how: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        await leave(peer, how)

    with pytest.raises(StoreInterrupted) as caught:
        await send(network, script, path, write_ct(path))
    assert caught.value.code == {"abort": "abort", "release": "released"}.get(how, "closed")
    assert caught.value.sent_whole


async def leave(peer: Peer, how: str) -> None:
    match how:
        case "abort":
            await peer.send(node.abort(2, 2))
        case "release":
            await peer.send(node.RELEASE_RQ)
            await peer.until_end()
        case "reset":
            peer.reset()
        case _:
            pass


@pytest.mark.parametrize("then", ["closes", "stops reading", "goes on reading"])
async def test_an_abort_in_the_middle_of_a_data_set_is_noticed_at_once(
    network: TcpNetwork, path: Path, then: str
) -> None:
    finished = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.pdu()
        await peer.pdu()
        await peer.send(node.abort(2, 6))
        if then == "stops reading":
            await finished.wait()
        elif then == "goes on reading":
            await peer.until_end()

    instance = write_ct(path, LARGE)
    begun = time.monotonic()
    (proposals,) = plan([instance])
    async with scripted(script, receive_buffer=SMALL_BUFFER) as target:
        with pytest.raises(StoreInterrupted) as caught:
            async with associate(network, target, proposals, CLOCKS) as association:
                await store(association, instance, path)
        finished.set()
    assert (caught.value.code, caught.value.source, caught.value.reason) == ("abort", 2, 6)
    assert not caught.value.sent_whole
    assert time.monotonic() - begun < PATIENCE_S


@pytest.mark.parametrize("how", ["close", "reset", "release"])
async def test_the_node_leaves_in_the_middle_of_a_data_set(
    network: TcpNetwork, path: Path, how: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.pdu()
        await leave(peer, how)

    with pytest.raises(StoreInterrupted) as caught:
        await send(network, script, path, write_ct(path, LARGE))
    assert caught.value.code == ("released" if how == "release" else "closed")
    assert not caught.value.sent_whole


@pytest.mark.parametrize("how", ["abort", "close", "reset"])
async def test_a_node_that_left_between_two_instances_is_sent_nothing(
    network: TcpNetwork, path: Path, how: str
) -> None:
    left = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        await peer.send(node.data(node.pdv(node.command(node.response(0)))))
        await leave(peer, how)

    async def script_and_tell(peer: Peer) -> None:
        await script(peer)
        await peer.stream.aclose()
        left.set()

    instance = write_ct(path)
    (proposals,) = plan([instance])
    async with (
        scripted(script_and_tell) as target,
        associate(network, target, proposals, CLOCKS) as association,
    ):
        await store(association, instance, path)
        await left.wait()
        with pytest.raises(StoreInterrupted) as caught:
            await store(association, instance, path)
    assert not caught.value.sent_whole


async def test_a_node_that_stops_reading_is_given_up_and_the_socket_closed(
    network: TcpNetwork, path: Path
) -> None:
    finished = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await finished.wait()

    instance = write_ct(path, LARGE)
    (proposals,) = plan([instance])
    clocks = msgspec.structs.replace(CLOCKS, stall=0.2)
    async with scripted(script, receive_buffer=SMALL_BUFFER) as target:
        begun = time.monotonic()
        with pytest.raises(StoreInterrupted) as caught:
            async with associate(network, target, proposals, clocks) as association:
                await store(association, instance, path)
        took = time.monotonic() - begun
        finished.set()
    assert caught.value.code == "stalled"
    assert not caught.value.sent_whole
    assert 0.2 <= took < PATIENCE_S


async def drip(peer: Peer, seconds: float) -> None:
    """Read a little, rarely."""
    with trio.move_on_after(seconds):
        while True:
            await trio.sleep(0.04)
            peer.read_ahead(await peer.stream.receive_some(40_000))


async def test_a_slow_node_is_not_a_stalled_one(network: TcpNetwork, path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await drip(peer, 0.8)
        await peer.message()
        await peer.send(node.data(node.pdv(node.command(node.response(0)))))
        await peer.finish()

    result = await send(network, script, path, write_ct(path, LARGE), stall=0.2)
    assert result.status == 0


async def test_what_the_kernel_still_delivers_is_waited_for(
    network: TcpNetwork, path: Path
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await drip(peer, 0.8)
        await peer.message()
        await peer.send(node.data(node.pdv(node.command(node.response(0)))))
        await peer.finish()

    result = await send(network, script, path, write_ct(path, 1_800_000), response=0.2, stall=0.5)
    assert result.status == 0


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


async def test_cancelled_at_a_node_that_stopped_reading_it_is_cut_at_once(
    network: TcpNetwork, path: Path
) -> None:
    finished = trio.Event()
    sockets = open_files()

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await finished.wait()
        assert node.abort() not in await peer.until_end()

    instance = write_ct(path, LARGE)
    (proposals,) = plan([instance])
    patient = msgspec.structs.replace(CLOCKS, abort=60)
    async with scripted(script, receive_buffer=SMALL_BUFFER) as target:
        with trio.CancelScope() as scope:
            async with associate(network, target, proposals, patient) as association:
                with trio.move_on_after(0.3):
                    await store(association, instance, path)
                cancelled = time.monotonic()
                scope.cancel("the test says so")
                await trio.lowlevel.checkpoint()
        took = time.monotonic() - cancelled
        assert not association.sent_whole
        finished.set()
    assert took < PATIENCE_S
    assert open_files() == sockets


async def test_cancelled_while_the_response_is_awaited_the_node_is_told(
    network: TcpNetwork, path: Path
) -> None:
    sent = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        sent.set()
        assert await peer.until_end() == node.abort()

    instance = write_ct(path)
    (proposals,) = plan([instance])
    association: Association | None = None
    async with scripted(script) as target, trio.open_nursery() as nursery:
        nursery.start_soon(cancel_after, sent, nursery.cancel_scope)
        async with associate(network, target, proposals, CLOCKS) as association:
            await store(association, instance, path)
    assert association is not None
    assert association.sent_whole


async def cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel("the test says so")


async def test_the_response_may_take_longer_for_a_larger_object(
    network: TcpNetwork, path: Path
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        await trio.sleep(0.3)
        await peer.send(node.data(node.pdv(node.command(node.response(0)))))
        await peer.finish()

    instance = write_ct(path, 3_000_000)
    patient = await send(network, script, path, instance, response=0.1, response_per_megabyte=0.3)
    assert patient.status == 0


async def test_no_response_in_time(network: TcpNetwork, path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        assert await peer.until_end() == node.abort()

    with pytest.raises(StoreInterrupted) as caught:
        await send(network, script, path, write_ct(path), response=0.1)
    assert caught.value.code == "timeout"
    assert caught.value.sent_whole


async def test_a_response_before_the_data_set_is_whole_counts(
    network: TcpNetwork, path: Path
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.pdu()
        await peer.send(node.data(node.pdv(node.command(node.response(0xA700)))))
        await peer.message_rest()
        await peer.finish()

    result = await send(network, script, path, write_ct(path, LARGE))
    assert result.status == 0xA700


@pytest.mark.parametrize("status", [0xA700, 0xC001, 0x0110, 0x0122, 0x0111])
@pytest.mark.parametrize("how", ["abort", "close", "reset"])
async def test_a_failure_counts_though_the_node_leaves_before_the_data_set_is_whole(
    network: TcpNetwork, path: Path, status: int, how: str
) -> None:
    """PS3.7 9.3.1: a failure may be answered early. 0111H is one: it is about the UID alone."""

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.pdu()
        await peer.send(node.data(node.pdv(node.command(node.response(status)))))
        with trio.move_on_after(0.1):
            await peer.until_end()
        await leave(peer, how)

    result = await send(network, script, path, write_ct(path, LARGE))
    assert result.status == status


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB007, 0x0001, 0x0107, 0x0116])
async def test_a_success_before_the_data_set_is_whole_is_none(
    network: TcpNetwork, path: Path, status: int
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.pdu()
        await peer.send(node.data(node.pdv(node.command(node.response(status)))))
        await peer.until_end()

    with pytest.raises(StoreInterrupted) as caught:
        await send(network, script, path, write_ct(path, LARGE))
    assert caught.value.code == "protocol"
    assert not caught.value.sent_whole


@pytest.mark.parametrize("context_id", [0, 2, 3, 5, 255])
@pytest.mark.parametrize("status", [0x0000, 0xB000, 0x0111, 0xA700])
async def test_an_answer_in_another_context_is_none(
    network: TcpNetwork, path: Path, context_id: int, status: int
) -> None:
    """The outcome is unknown then, for any answer."""

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        answer = node.command(node.response(status))
        await peer.send(node.data(node.pdv(answer, context_id=context_id)))
        await peer.until_end()

    with pytest.raises(StoreInterrupted) as caught:
        await send(network, script, path, write_ct(path))
    assert caught.value.code == "protocol"
    assert caught.value.sent_whole


@pytest.mark.parametrize("at", ["preamble", "file meta group", "data set", "middle", "last byte"])
@pytest.mark.parametrize("pixel_bytes", [0, 2048, 200_000, LARGE], ids=str)
async def test_a_file_that_is_not_what_it_was_never_leaves_whole(
    network: TcpNetwork, path: Path, pixel_bytes: int, at: str
) -> None:
    """One bit of it has turned: the last fragment is never sent, so no node can store it."""
    instance = write_ct(path, pixel_bytes)
    turned = {
        "preamble": 5,
        "file meta group": instance.offset - 3,
        "data set": instance.offset + 9,
        "middle": (instance.offset + instance.size) // 2,
        "last byte": instance.size - 1,
    }
    turn_a_bit(path, turned[at])
    came = b""

    async def script(peer: Peer) -> None:
        nonlocal came
        await peer.accept_all()
        came = await peer.until_end()

    (proposals,) = plan([instance])
    async with (
        scripted(script) as target,
        associate(network, target, proposals, CLOCKS) as association,
    ):
        with pytest.raises(InstanceUnusable) as caught:
            await store(association, instance, path)
        assert not association.sent_whole
        lives_on = association.established
    assert caught.value.code == "damaged"
    one_fragment = instance.size - instance.offset <= 16384 - 6
    assert lives_on is one_fragment
    assert not any(is_last_of_data_set(each) for each in p_data(came))


def turn_a_bit(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def p_data(stream: bytes) -> list[int]:
    """Return the control header of each fragment, which is alone in its PDU."""
    controls = []
    while len(stream) >= 12:
        length = int.from_bytes(stream[2:6], "big")
        if stream[0] == 4:
            controls.append(stream[11])
        stream = stream[6 + length :]
    return controls


def is_last_of_data_set(control: int) -> bool:
    return control == 2


@pytest.mark.parametrize(("fault", "code"), [("missing", "gone"), ("short",) * 2, ("loop", "read")])
async def test_a_file_that_cannot_be_read_costs_only_itself(
    network: TcpNetwork, path: Path, tmp_path: Path, fault: str, code: str
) -> None:
    instance = write_ct(path)
    bad = tmp_path / "bad"
    if fault == "short":
        shutil.copy(path, bad)
        os.truncate(bad, instance.size - 10)
    elif fault == "loop":
        bad.symlink_to(bad)
    (proposals,) = plan([instance])
    async with (
        scripted(answering(0)) as target,
        associate(network, target, proposals, CLOCKS) as association,
    ):
        with pytest.raises(InstanceUnusable) as caught:
            await store(association, instance, bad)
        result = await store(association, instance, path)
    assert caught.value.code == code
    assert str(tmp_path) not in str(caught.value)
    assert result.status == 0


async def test_a_file_that_ends_in_mid_data_set_aborts(network: TcpNetwork, path: Path) -> None:
    instance = write_ct(path, LARGE)

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.pdu()
        os.truncate(path, LARGE // 2)
        await peer.until_end()

    (proposals,) = plan([instance])
    async with (
        scripted(script, receive_buffer=SMALL_BUFFER) as target,
        associate(network, target, proposals, CLOCKS) as association,
    ):
        with pytest.raises(InstanceUnusable) as caught:
            await store(association, instance, path)
        assert not association.established
        with pytest.raises(AssociationLost) as next_one:
            association.begin(1, C_STORE_RSP)
    assert caught.value.code == "short"
    assert next_one.value.code == "local"


async def test_a_response_that_comes_with_the_acceptance_ends_the_association(
    network: TcpNetwork, path: Path
) -> None:
    async def script(peer: Peer) -> None:
        contexts = {n: (0, syntax) for n, syntax in (await peer.request()).items()}
        early = node.data(node.pdv(node.command(node.response(0))))
        await peer.send(node.accept(contexts), early)
        assert await peer.until_end() == node.abort()

    (proposals,) = plan([write_ct(path)])
    async with scripted(script) as target:
        with pytest.raises(AssociationLost) as caught:
            async with associate(network, target, proposals, CLOCKS):
                pytest.fail("it is no association to use")
    assert caught.value.code == "protocol"


async def test_a_response_nobody_asked_for_ends_the_association(
    network: TcpNetwork, path: Path
) -> None:
    opened, sent = trio.Event(), trio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await opened.wait()
        await peer.send(node.data(node.pdv(node.command(node.response(0)))))
        sent.set()
        assert await peer.until_end() == node.abort()

    instance = write_ct(path)
    (proposals,) = plan([instance])
    async with (
        scripted(script) as target,
        associate(network, target, proposals, CLOCKS) as association,
    ):
        opened.set()
        await sent.wait()
        await trio.sleep(0.01)
        with pytest.raises(StoreInterrupted) as caught:
            await store(association, instance, path)
    assert caught.value.code == "protocol"
    assert not caught.value.sent_whole


def test_sending_needs_no_dicom_library() -> None:
    question = "import sys, proxy.dicom.find, proxy.dicom.storage; print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", question], capture_output=True, text=True, check=True
    )
    heavy = {"pydicom", "pynetdicom", "numpy", "httpx2", "apsw"}
    assert heavy.isdisjoint(answer.stdout.split())


def responses(*said: tuple[int, str]) -> bytes:
    """Encode C-STORE responses with status 0, each to a message and for an instance."""
    return b"".join(
        node.data(node.pdv(node.command(node.response(0, message_id, uid))))
        for message_id, uid in said
    )


@pytest.mark.parametrize("times", [2, 3, 50])
async def test_a_repeat_of_a_response_is_dropped(
    network: TcpNetwork, tmp_path: Path, times: int
) -> None:
    paths = [tmp_path / str(number) for number in range(4)]
    instances = [write_ct(path, LARGE if path is paths[2] else 0) for path in paths]

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        for number, each in enumerate(instances, 1):
            await peer.message()
            await peer.send(responses((number, each.sop_instance_uid)) * times)
        await peer.finish()

    (proposals,) = plan(instances)
    async with (
        scripted(script) as target,
        associate(network, target, proposals, CLOCKS) as association,
    ):
        for path, instance in zip(paths, instances, strict=True):
            assert (await store(association, instance, path)).status == 0
    assert association.release_problem is None


@pytest.mark.parametrize(
    ("said", "is_repeat"),
    [((1, ""), True), ((1, "2.25.9"), False), ((3, ""), False), ((0, ""), False)],
)
async def test_a_repeat_names_the_message_and_the_instance_that_were_answered(
    network: TcpNetwork, tmp_path: Path, said: tuple[int, str], is_repeat: bool
) -> None:
    paths = [tmp_path / "1", tmp_path / "2"]
    instances = [write_ct(path) for path in paths]

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        await peer.send(responses((1, "")))
        await peer.message()
        await peer.send(responses(said), responses((2, "")) if is_repeat else b"")
        if is_repeat:
            await peer.finish()
        else:
            assert await peer.until_end() == node.abort()

    (proposals,) = plan(instances)
    async with scripted(script) as target:
        with nullcontext() if is_repeat else pytest.raises(StoreInterrupted, match="not valid"):
            async with associate(network, target, proposals, CLOCKS) as association:
                await store(association, instances[0], paths[0])
                assert (await store(association, instances[1], paths[1])).status == 0


@pytest.mark.parametrize("how", ["abort", "close", "nothing"])
async def test_a_release_without_its_answer_is_known(
    network: TcpNetwork, path: Path, how: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        await peer.send(responses((1, "")))
        kind, _ = await peer.pdu()
        assert kind == 5
        if how == "abort":
            await peer.send(node.abort(2, 0))
        if how != "close":
            await peer.until_end()

    instance = write_ct(path)
    (proposals,) = plan([instance])
    async with (
        scripted(script) as target,
        associate(network, target, proposals, CLOCKS) as association,
    ):
        assert (await store(association, instance, path)).status == 0
    problem = association.release_problem
    assert isinstance(problem, AssociationLost)
    assert problem.code == {"abort": "abort", "close": "closed"}.get(how, "timeout")
