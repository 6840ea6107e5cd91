"""The embedded node, met by pynetdicom's requestor and by DCMTK."""

from __future__ import annotations

import hashlib
import io
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
import trio
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from proxy.demo.encoding import SampleInstance
from proxy.demo.node import DemoNode
from proxy.demo.node_script import STUDY_ROOT_FIND, VERIFICATION, Arrival, NodeScript
from proxy.demo.sample import (
    Study,
    assortment,
    ct_series,
    private_object,
    secondary_capture,
)
from tests.support.waiting import PATIENCE_S

SLICES = ct_series(Study(seed=3), slices=3, size=32)


@pytest.fixture
def node() -> Iterator[DemoNode]:
    node = DemoNode("NODE_A")
    node.start()
    yield node
    node.stop()


def associate(node: DemoNode, *instances: SampleInstance, called: str = "") -> Association:
    entity = AE("SENDER")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 5
    entity.add_requested_context(VERIFICATION)
    for instance in {
        (instance.sop_class_uid, instance.transfer_syntax_uid): instance for instance in instances
    }.values():
        entity.add_requested_context(instance.sop_class_uid, instance.transfer_syntax_uid)
    return entity.associate(node.host, node.port, ae_title=called or node.ae_title)


def store(node: DemoNode, *instances: SampleInstance) -> list[int | None]:
    """Return the statuses up to the first answer that did not come, which is None."""
    association = associate(node, *instances)
    assert association.is_established
    statuses: list[int | None] = []
    for instance in instances:
        data_set = pydicom.dcmread(io.BytesIO(instance.content))
        statuses.append(association.send_c_store(data_set).get("Status"))
        if statuses[-1] is None:
            association.join(5)
            break
    association.release()
    return statuses


def test_it_holds_what_it_was_sent_byte_for_byte(node: DemoNode) -> None:
    assert store(node, *SLICES) == [0, 0, 0]
    assert node.holds == {one.sop_instance_uid: one.sha256 for one in SLICES}
    assert node.tally.bytes == sum(one.data_set_size for one in SLICES)
    assert [arrival.ordinal for arrival in node.arrivals] == [1, 2, 3]
    assert node.arrivals[0].calling_ae_title == "SENDER"
    assert node.tally.calling_ae_titles == {"SENDER"}


def test_a_second_copy_is_an_arrival_but_not_another_instance(node: DemoNode) -> None:
    store(node, SLICES[0], SLICES[0])
    assert len(node.arrivals) == 2
    assert len(node.holds) == 1


@pytest.mark.needs("dcmsend")
def test_every_class_and_syntax_arrives_untouched(node: DemoNode, tmp_path: Path) -> None:
    instances = [*assortment(Study()), private_object(Study())]
    for number, instance in enumerate(instances):
        (tmp_path / f"{number}.dcm").write_bytes(instance.content)
    own = DemoNode("OWN", sop_classes=[*{instance.sop_class_uid for instance in instances}])
    own.start()
    try:
        where = [own.host, str(own.port)]
        command = ["dcmsend", "-dn", "-aec", "OWN", "+sd", *where, str(tmp_path)]
        subprocess.run(command, check=True, timeout=30)
    finally:
        own.stop()
    sent = {instance.sop_instance_uid: instance for instance in instances}
    assert own.holds.keys() == sent.keys()
    syntaxes = {arrival.sop_instance_uid: arrival.transfer_syntax_uid for arrival in own.arrivals}
    for uid, instance in sent.items():
        if syntaxes[uid] == instance.transfer_syntax_uid:
            assert own.holds[uid] == instance.sha256


def test_it_rejects_the_first_associations(node: DemoNode) -> None:
    node.script.reject_next = 2
    outcomes = [associate(node) for _ in range(3)]
    assert [outcome.is_rejected for outcome in outcomes] == [True, True, False]
    rejection = outcomes[0].acceptor.primitive
    assert rejection
    assert (rejection.result, rejection.result_source, rejection.diagnostic) == (2, 3, 2)
    outcomes[2].release()
    assert (node.tally.rejections, node.tally.associations) == (2, 1)


def test_it_can_insist_on_titles() -> None:
    node = DemoNode("NODE_B", require_called=True, require_calling=["SENDER"])
    node.start()
    try:
        assert associate(node, called="OTHER").is_rejected
        association = associate(node)
        assert association.is_established
        association.release()
    finally:
        node.stop()
    assert (node.tally.rejections, node.tally.associations) == (1, 1)


def test_it_answers_an_echo(node: DemoNode) -> None:
    association = associate(node)
    assert association.send_c_echo().Status == 0x0000
    node.script.echo_status = 0x0122
    assert association.send_c_echo().Status == 0x0122
    association.release()
    assert node.tally.echoes == 2


def test_the_status_is_the_scripts(node: DemoNode) -> None:
    def answer(arrival: Arrival) -> int | Dataset:
        commented = Dataset()
        commented.Status, commented.ErrorComment = 0xA700, "disk full"
        answers: dict[int, int | Dataset] = {1: 0xB000, 2: commented}
        return answers.get(arrival.ordinal, 0x0000)

    node.script.answer = answer
    assert store(node, *SLICES) == [0xB000, 0xA700, 0x0000]
    assert {*node.holds} == {SLICES[0].sop_instance_uid, SLICES[2].sop_instance_uid}


def test_an_answer_takes_its_time(node: DemoNode) -> None:
    node.script.delay_s = 0.2
    begun = time.monotonic()
    store(node, SLICES[0])
    assert time.monotonic() - begun >= 0.2


@pytest.mark.parametrize("script", [NodeScript(abort_at=2), NodeScript(drop_at=2)])
def test_it_aborts_or_drops_at_an_instance(node: DemoNode, script: NodeScript) -> None:
    node.script = script
    assert store(node, *SLICES) == [0, None]
    assert {*node.holds} == {SLICES[0].sop_instance_uid}
    assert store(node, *SLICES[1:]) == [0, 0]


def test_an_abort_reaches_the_peer_as_an_abort(node: DemoNode) -> None:
    node.script.abort_at = 1
    association = associate(node, SLICES[0])
    association.send_c_store(pydicom.dcmread(io.BytesIO(SLICES[0].content)))
    association.join(5)
    assert association.is_aborted


def test_stopping_frees_a_stalled_association() -> None:
    before = {*threading.enumerate()}
    node = DemoNode(script=NodeScript(stall_at=1))
    node.start()
    association = associate(node, SLICES[0])
    association.dimse_timeout = association.network_timeout = None  # nothing else ends the stall
    sender = threading.Thread(
        target=association.send_c_store, args=(pydicom.dcmread(io.BytesIO(SLICES[0].content)),)
    )
    sender.start()
    while not node.arrivals:
        time.sleep(0.01)
    node.stop()
    sender.join()
    association.join()
    assert not node.holds
    assert {*threading.enumerate()} <= before


def test_stopping_does_not_wait_for_the_request_of_a_caller_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy.demo.node.NEGOTIATION_S", 3600)
    before = {*threading.enumerate()}
    node = DemoNode()
    node.start()
    with socket.create_connection((node.host, node.port)):
        while not (node._server and node._server.active_associations):
            time.sleep(0.01)
    node.stop()
    assert {*threading.enumerate()} <= before


def test_it_supports_what_it_was_told_only() -> None:
    node = DemoNode(sop_classes=[CTImageStorage], transfer_syntaxes=[ImplicitVRLittleEndian])
    node.start()
    try:
        association = associate(node, SLICES[0], secondary_capture(Study()))
        accepted = [context.abstract_syntax for context in association.accepted_contexts]
        assert accepted == [VERIFICATION]
        association.release()
        implicit = ct_series(Study(), slices=1, size=16, transfer_syntax_uid=ImplicitVRLittleEndian)
        assert store(node, *implicit) == [0]
    finally:
        node.stop()


def test_a_private_class_can_be_supported() -> None:
    instance = private_object(Study())
    node = DemoNode(sop_classes=[instance.sop_class_uid])
    node.start()
    try:
        assert store(node, instance) == [0]
    finally:
        node.stop()
    assert node.holds == {instance.sop_instance_uid: instance.sha256}


def test_it_writes_files(tmp_path: Path) -> None:
    node = DemoNode(directory=tmp_path)
    node.start()
    try:
        store(node, SLICES[0])
    finally:
        node.stop()
    (path,) = tmp_path.iterdir()
    assert path.read_bytes().endswith(SLICES[0].content[-SLICES[0].data_set_size :])
    file = pydicom.dcmread(path)
    assert file.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert hashlib.sha256(path.read_bytes()[-SLICES[0].data_set_size :]).hexdigest() == (
        SLICES[0].sha256
    )


def test_it_restarts_on_its_port(node: DemoNode) -> None:
    port = node.port
    store(node, SLICES[0])
    node.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((node.host, port))
    node.start()
    assert node.port == port
    store(node, SLICES[1])
    assert len(node.holds) == 2


async def test_trio_can_wait_for_what_it_holds() -> None:
    with trio.fail_after(PATIENCE_S):
        async with DemoNode().running() as node, trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, store, node, *SLICES)
            await node.wait_for(lambda node: len(node.holds) == 3)
    with pytest.raises(RuntimeError, match="running"):
        await node.wait_for(lambda _: False)


def test_it_says_what_it_holds_where_it_lets_itself_be_asked(node: DemoNode) -> None:
    store(node, SLICES[0])
    asked = Dataset()
    asked.QueryRetrieveLevel = "IMAGE"
    asked.StudyInstanceUID = asked.SeriesInstanceUID = ""

    def answers(uid: str) -> list[int]:
        entity = AE("SENDER")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 5
        entity.add_requested_context(STUDY_ROOT_FIND)
        association = entity.associate(node.host, node.port)
        if not association.is_established:
            return []
        asked.SOPInstanceUID = uid
        statuses = [status.Status for status, _ in association.send_c_find(asked, STUDY_ROOT_FIND)]
        association.release()
        return statuses

    assert answers(SLICES[0].sop_instance_uid) == []
    node.script.finds = True
    assert answers(SLICES[0].sop_instance_uid) == [0xFF00, 0x0000]
    assert answers(SLICES[1].sop_instance_uid) == [0x0000]
    assert node.tally.finds == 2


def test_it_may_store_before_it_leaves(node: DemoNode) -> None:
    node.script.stores_first = True
    node.script.drop_at = 2
    assert store(node, *SLICES) == [0, None]
    assert node.holds.keys() == {one.sop_instance_uid for one in SLICES[:2]}
    assert node.tally.bytes == sum(one.data_set_size for one in SLICES[:2])
