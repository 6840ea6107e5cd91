"""Storing at real nodes that take Implicit VR Little Endian alone, as many old ones do."""

from __future__ import annotations

import io
from array import array
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from proxy.demo.encoding import SampleInstance
from tests.end_to_end.orthanc_rest import held_by
from tests.end_to_end.sessions import elements, hashes_in, hashes_of, read
from tests.end_to_end.site import Site, assert_tells_the_truth
from tests.support.peers import orthanc, storescp
from tests.support.relay import Peer


async def dispatch_all(
    site: Site, peer: Peer, session: list[SampleInstance]
) -> list[SampleInstance]:
    """Dispatch a session; the compressed instances must be refused, and the others are returned."""
    site.has(node=peer)
    site.offer("sess-1", session)
    await site.start()
    ordered = await site.dispatch("sess-1", "node")
    ending = await site.ending(ordered, "node")
    taken = [each for each in session if each.transfer_syntax_uid != RLELossless]
    assert len(session) - len(taken) == 2
    assert (ending["status"], ending["files_sent"]) == ("failed", len(taken))
    assert ending["error"].startswith(f"2 of {len(session)} instances refused: ")
    assert "never decompressed" in ending["error"]
    assert_tells_the_truth(site.backend.statuses[ordered, "node"], "node", len(session))
    assert [*(site.state / "staging").glob("copies/*")] == []
    return taken


def assert_means_the_same(stored: dict[str, bytes], sent: list[SampleInstance]) -> None:
    assert stored.keys() == hashes_of(sent).keys()
    for each in sent:
        content = stored[each.sop_instance_uid]
        assert read(content).file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert elements(content) == meaning(each), each.transfer_syntax_uid


def meaning(sample: SampleInstance) -> dict[str, object]:
    """Return what a sample's elements mean; pydicom does not turn the pixels of big endian."""
    found = elements(sample.content)
    if sample.transfer_syntax_uid == ExplicitVRBigEndian:
        words = array("H", dcmread(io.BytesIO(sample.content)).PixelData)
        words.byteswap()
        found["(7FE0,0010)"] = words.tobytes().rstrip(b"\0 ")
    return found


@pytest.mark.needs("storescp")
async def test_storescp(site: Site, tmp_path: Path, small_session: list[SampleInstance]) -> None:
    with storescp(tmp_path, "+xi", "+B") as node:
        taken = await dispatch_all(site, node, small_session)
        files = [path.read_bytes() for path in node.stored]
        assert_means_the_same({str(read(each).SOPInstanceUID): each for each in files}, taken)
        own = [each for each in taken if each.transfer_syntax_uid == ImplicitVRLittleEndian]
        assert own
        assert hashes_in(node.stored).items() >= hashes_of(own).items(), "not converted, untouched"


@pytest.mark.needs("orthanc")
async def test_orthanc(site: Site, tmp_path: Path, small_session: list[SampleInstance]) -> None:
    with orthanc(tmp_path, {"AcceptedTransferSyntaxes": [ImplicitVRLittleEndian]}) as node:
        taken = await dispatch_all(site, node, small_session)
        assert_means_the_same(await held_by(node), taken)
