"""The job the proxy exists for, and what is left behind when the data is deleted again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.demo import frames
from proxy.demo.encoding import SampleInstance
from proxy.demo.frames import JsonObject
from proxy.demo.node import DemoNode
from proxy.demo.sample import Study, ct_series, mr_series
from tests.end_to_end.orthanc_rest import held_by
from tests.end_to_end.program import the_program
from tests.end_to_end.sessions import (
    CANARIES,
    canary_study,
    ct_session,
    elements,
    hashes_in,
    hashes_of,
)
from tests.end_to_end.site import Site, assert_tells_the_truth
from tests.support.peers import Node, orthanc, storescp


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Node]:
    with orthanc(tmp_path) as node:
        yield node


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Node]:
    """A node that keeps every byte as it came."""
    with storescp(tmp_path, "+B", "+xa") as node:
        yield node


@pytest.mark.needs("orthanc", "storescp")
async def test_a_session_arrives_whole_at_two_real_nodes(
    site: Site, archive: Node, disk: Node, large_session: list[SampleInstance]
) -> None:
    assert len(large_session) >= 200
    assert len({each.transfer_syntax_uid for each in large_session}) >= 8
    assert len({each.sop_class_uid for each in large_session}) >= 10
    site.has(archive=archive, disk=disk)
    site.offer("sess-1", large_session)
    await site.start()

    ordered = await site.dispatch("sess-1", "archive", "disk")
    closing = await site.closing(ordered)

    total = len(large_session)
    assert (closing["status"], closing["progress"]) == ("completed", 100)
    assert (closing["files_sent"], closing["files_total"]) == (2 * total, 2 * total)
    for node_id in ("archive", "disk"):
        assert_tells_the_truth(site.backend.statuses[ordered, node_id], node_id, total)
        assert site.backend.status_words(ordered, node_id) == (
            "downloading",
            "processing",
            "completed",
        )
    assert_envelopes(site.statuses(ordered))
    assert hashes_in(disk.stored) == hashes_of(large_session)
    stored = await held_by(archive)
    assert stored.keys() == hashes_of(large_session).keys()
    for each in large_session:
        assert elements(stored[each.sop_instance_uid]) == elements(each.content)


def assert_envelopes(statuses: list[JsonObject]) -> None:
    """The closing message comes last, and each names what was ordered."""
    assert statuses[-1]["payload"].get("node_id") is None
    assert all(each["payload"].get("node_id") for each in statuses[:-1])
    assert {each["entity_type"] for each in statuses} == {"session"}
    assert {each["entity_id"] for each in statuses} == {"sess-1"}
    assert {each["workspace_id"] for each in statuses} == {frames.WORKSPACE_ID}


@pytest.mark.parametrize(
    "deletion",
    [
        frames.session_deleted("of-another-id", study_instance_uid=canary_study(3).uid("study")),
        frames.session_deleted("sess-1", study_instance_uid="1.2.3"),
        frames.scan_deleted(
            "of-another-id", study_instance_uid=canary_study(3).uid("study"), scan_number=1
        ),
        frames.subject_deleted("of-another-id", subject_identifier="ZZCANARY-0001"),
        frames.subject_deleted("subj-1", subject_identifier="not stored here"),
    ],
    ids=["session by study", "session by id", "scan by number", "subject by PatientID", "by id"],
)
async def test_a_deletion_leaves_no_trace(site: Site, deletion: JsonObject) -> None:
    async with DemoNode().running() as node:
        site.has(node=node)
        site.offer("sess-1", ct_session(seed=3, slices=6))
        await site.start()
        closing = await site.closing(await site.dispatch("sess-1", "node"))
        assert closing["status"] == "completed"
        assert len(site.objects) == 6
        assert site.files_with(*CANARIES) != []

        await site.backend.send_event(deletion)
        await site.until(lambda: site.objects == [])

        await site.until(lambda: site.files_with(*CANARIES) == [])
        await site.stop()
        assert site.files_with(*CANARIES) == []
        assert site.rows("instance") == 0
        assert site.rows("sending") == 0


async def test_a_deleted_scan_leaves_the_others(site: Site) -> None:
    study = Study(seed=4)
    session = [*ct_series(study, slices=5, size=32), *mr_series(study, slices=4)]
    async with DemoNode().running() as node:
        site.has(node=node)
        site.offer("sess-1", session)
        await site.start()
        await site.closing(await site.dispatch("sess-1", "node"))

        await site.backend.send_event(
            frames.scan_deleted("scan-9", study_instance_uid=study.uid("study"), scan_number=1)
        )
        await site.until(lambda: len(site.objects) == 4)

        # The rest of the session is incomplete, so the complete session is fetched again.
        closing = await site.closing(await site.dispatch("sess-1", "node"))
        assert (closing["status"], closing["files_sent"]) == ("completed", 9)
        assert len(site.backend.rest.downloads) == 2


async def test_the_program_leaves_no_patient_in_its_log_or_on_disk(site: Site) -> None:
    session = ct_session(seed=5, slices=20)
    async with DemoNode().running() as node:
        site.has(node=node)
        site.offer("sess-1", session)
        async with the_program(site) as program:
            ordered = await site.dispatch("sess-1", "node")
            assert (await site.closing(ordered))["status"] == "completed"
            assert node.holds == hashes_of(session)
            await site.backend.send_event(
                frames.session_deleted("sess-1", study_instance_uid=canary_study(5).uid("study"))
            )
            await site.until(lambda: program.lines("pacs.deleted") != [])
            await site.until(lambda: site.files_with(*CANARIES) == [])
            assert site.objects == []
            assert not [text for text in CANARIES if text.decode() in program.log]
            assert site.backend.key not in program.log
            assert await program.terminate() == 0
        assert site.files_with(*CANARIES) == []
