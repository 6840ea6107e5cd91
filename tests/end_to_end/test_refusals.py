"""Nodes that refuse some instances: each refusal is reported, and delays no other instance."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import RLELossless

from proxy.demo.encoding import SampleInstance
from proxy.demo.frames import JsonObject
from proxy.demo.node import DemoNode
from proxy.demo.node_script import Arrival, NodeScript
from tests.end_to_end.orthanc_rest import held_by
from tests.end_to_end.sessions import (
    UNCOMPRESSED,
    ct_session,
    data_set_bytes,
    hashes_in,
    hashes_of,
    sha256,
)
from tests.end_to_end.site import Site, assert_tells_the_truth
from tests.support.peers import orthanc, storescp

TRUNCATED = Path(str(get_testdata_file("rtplan_truncated.dcm"))).read_bytes()


@pytest.mark.needs("orthanc", "storescp")
async def test_real_nodes_that_take_no_compression(
    site: Site, tmp_path: Path, small_session: list[SampleInstance]
) -> None:
    takes = {"AcceptedTransferSyntaxes": [*UNCOMPRESSED]}
    plain = [each for each in small_session if each.transfer_syntax_uid in UNCOMPRESSED]
    # Deflated ones are inflated, compressed pixels are not touched.
    taken = [each for each in small_session if each.transfer_syntax_uid != RLELossless]
    total, missing = len(small_session), len(small_session) - len(taken)
    assert (len(taken) - len(plain), missing) == (2, 2)
    with storescp(tmp_path, "+B") as disk, orthanc(tmp_path, takes) as archive:
        site.has(disk=disk, archive=archive)
        site.offer("sess-1", small_session)
        await site.start()

        ordered = await site.dispatch("sess-1", "disk", "archive")
        closing = await site.closing(ordered)

        assert closing["status"] == "failed"
        assert closing["files_sent"] == 2 * len(taken)
        for node_id in ("disk", "archive"):
            ending = await site.ending(ordered, node_id)
            assert (ending["status"], ending["files_sent"]) == ("failed", len(taken))
            assert f"{missing} of {total}" in ending["error"]
            assert "transfer syntax" in ending["error"]
            assert_tells_the_truth(site.backend.statuses[ordered, node_id], node_id, total)
        stored = hashes_in(disk.stored)
        assert stored.items() >= hashes_of(plain).items()
        assert stored.keys() == hashes_of(taken).keys()
        assert (await held_by(archive)).keys() == hashes_of(taken).keys()


@pytest.mark.parametrize(
    ("status", "stores", "says"),
    [
        (0xB000, True, ""),
        (0x0111, True, ""),
        (0xC000, False, "1 of 8 instances refused: The node cannot understand the object"),
        (0xA900, False, "1 of 8 instances refused: The node finds that the object does not match"),
        (0xA700, False, "out of resources"),
        (0x0110, False, "failed while it processed the object"),
    ],
)
async def test_one_instance_answered_otherwise(
    site: Site, status: int, stores: bool, says: str
) -> None:
    session = ct_session(seed=21, slices=8)
    odd_one = session[2].sop_instance_uid

    def answer(arrival: Arrival) -> int:
        return status if arrival.sop_instance_uid == odd_one else 0

    async with DemoNode(script=NodeScript(answer=answer)).running() as node:
        site.has(node=node)
        site.offer("sess-1", session)
        await site.start(dicom__retry_count=2)

        ordered = await site.dispatch("sess-1", "node")
        ending = await site.ending(ordered, "node")

        assert ending["status"] == ("completed" if stores else "failed")
        assert (ending["files_sent"], ending["files_total"]) == (8 if stores else 7, 8)
        assert says in ending.get("error", "")
        others = [each for each in session if each.sop_instance_uid != odd_one]
        assert node.holds.items() >= hashes_of(others).items()
        assert_tells_the_truth(site.backend.statuses[ordered, "node"], "node", 8)


@pytest.mark.needs("storescp")
async def test_a_file_that_makes_the_node_abort_keeps_back_no_other(
    site: Site, tmp_path: Path
) -> None:
    session = ct_session(seed=22, slices=12)
    with storescp(tmp_path, "+B", "+xa") as disk:
        site.has(disk=disk)
        site.offer("sess-1", session, TRUNCATED)
        await site.start()

        ending = await site.ending(await site.dispatch("sess-1", "disk"), "disk")

        assert (ending["status"], ending["files_sent"], ending["files_total"]) == ("failed", 12, 13)
        stored = {sha256(data_set_bytes(path.read_bytes())) for path in disk.stored}
        assert stored >= {*hashes_of(session).values()}


async def test_a_damaged_file_of_ith_is_no_fault_of_the_node(site: Site) -> None:
    session = ct_session(seed=23, slices=4)
    half = session[0].content[:200]
    async with DemoNode().running() as node:
        site.has(node=node)
        site.offer("sess-1", session, half)
        await site.start()

        ending = await site.ending(await site.dispatch("sess-1", "node"), "node")

        assert (ending["status"], ending["files_sent"], ending["files_total"]) == ("failed", 4, 5)
        assert ending["error"].startswith("1 of 5 instances came damaged from ITH")
        assert node.holds == hashes_of(session)


def zipped(*files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, content in enumerate(files):
            archive.writestr(f"file{number}", content)
    return packed.getvalue()


IMAGE = ct_session(seed=26, slices=1)[0].content
WITHIN = {
    "zip in zip with an image": zipped(zipped(b"a text", IMAGE)),
    "gzip, cut": gzip.compress(IMAGE)[:-40],
    "zip, cut": zipped(IMAGE)[:-40],
    "zip in zip": zipped(zipped(b"a text")),
    "7z": b"7z\xbc\xaf\x27\x1c\0\x04" + bytes(100),
}
NOTHING_WITHIN = {"docx": zipped(b"<w:document/>", b"<rels/>"), "log.gz": gzip.compress(b"a log")}


async def dispatched_with(site: Site, within: bytes) -> JsonObject:
    """Dispatch four slices and this file; everything that can be sent must arrive."""
    session = ct_session(seed=25, slices=4)
    async with DemoNode().running() as node:
        site.has(node=node)
        site.offer("sess-1", session, within)
        await site.start()
        ordered = await site.dispatch("sess-1", "node")
        ending = await site.ending(ordered, "node")
        assert (await site.closing(ordered))["status"] == ending["status"]
        assert node.holds == hashes_of(session)
    return ending


@pytest.mark.parametrize("within", [*WITHIN.values()], ids=[*WITHIN])
async def test_an_archive_within_the_archive_that_may_hold_images_is_no_success(
    site: Site, within: bytes
) -> None:
    """The others are delivered, and the number is reported."""
    ending = await dispatched_with(site, within)
    assert (ending["status"], ending["files_sent"], ending["files_total"]) == ("failed", 4, 5)
    assert ending["error"].startswith("1 of 5 files may hold images and could not be read")


@pytest.mark.parametrize("pack", [zipped, gzip.compress], ids=["zip", "gzip"])
async def test_an_archive_within_the_archive_is_unpacked(
    site: Site, pack: Callable[[bytes], bytes]
) -> None:
    session = ct_session(seed=27, slices=4)
    async with DemoNode().running() as node:
        site.has(node=node)
        site.offer("sess-1", session[:3], pack(session[3].content))
        await site.start()
        ending = await site.ending(await site.dispatch("sess-1", "node"), "node")
        assert (ending["status"], ending["files_sent"], ending["files_total"]) == (
            "completed",
            4,
            4,
        )
        assert node.holds == hashes_of(session)


async def test_a_damaged_archive_is_downloaded_twice_and_the_rest_is_delivered(site: Site) -> None:
    session = ct_session(seed=28, slices=4)
    whole = zipped(*(each.content for each in session))
    at = whole.index(session[1].content) + 1000
    async with DemoNode().running() as node:
        site.has(node=node)
        site.backend.rest.offer(
            "session", "sess-1", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        )
        await site.start()
        ending = await site.ending(await site.dispatch("sess-1", "node"), "node")
        assert (ending["status"], ending["files_sent"], ending["files_total"]) == ("failed", 3, 4)
        assert ending["error"].startswith("1 of 4 files may hold images and could not be read")
        assert node.holds == hashes_of([session[0], *session[2:]])
        assert len(site.backend.rest.downloads) == 2


@pytest.mark.parametrize("within", [*NOTHING_WITHIN.values()], ids=[*NOTHING_WITHIN])
async def test_an_archive_within_the_archive_without_images_is_nothing(
    site: Site, within: bytes
) -> None:
    ending = await dispatched_with(site, within)
    assert (ending["status"], ending["files_sent"], ending["files_total"]) == ("completed", 4, 4)


async def test_a_node_that_rejects_us_for_good_is_not_asked_again_and_again(site: Site) -> None:
    script = NodeScript(reject_next=1000, rejection=(1, 1, 2))
    async with DemoNode(script=script).running() as node:
        site.has(node=node)
        site.offer("sess-1", ct_session(seed=24, slices=2))
        await site.start()

        ending = await site.ending(await site.dispatch("sess-1", "node"), "node")

        assert ending["status"] == "failed"
        assert "application context" in ending["error"]
        assert node.tally.rejections <= 3


async def test_a_node_that_does_not_know_us_is_asked_as_often_as_the_attempts_allow(
    site: Site,
) -> None:
    """It may not have read its table of AE titles yet."""
    async with DemoNode(require_calling=["SOMEBODYELSE"]).running() as node:
        site.has(node=node)
        site.offer("sess-1", ct_session(seed=24, slices=2))
        await site.start(dicom__retry_count=2)

        ending = await site.ending(await site.dispatch("sess-1", "node"), "node")

        assert ending["status"] == "failed"
        assert "calling AE title" in ending["error"]
        assert 3 <= node.tally.rejections <= 5
