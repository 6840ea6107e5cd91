"""A small mixed session at every kind of node there is to be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.demo.encoding import SampleInstance
from proxy.demo.node import EVERY_STORAGE_CLASS, DemoNode
from proxy.demo.sample import PRIVATE_CLASS, private_object
from tests.end_to_end.dcmjs import dcmjs_scp
from tests.end_to_end.orthanc_rest import held_by
from tests.end_to_end.sessions import (
    UNCOMPRESSED,
    canary_study,
    elements,
    hashes_in,
    hashes_of,
    read,
    sha256,
)
from tests.end_to_end.site import Site
from tests.support.peers import dcmqrscp, orthanc, storescp
from tests.support.relay import Peer


async def dispatch_all(site: Site, peer: Peer, session: list[SampleInstance]) -> None:
    site.has(node=peer)
    site.offer("sess-1", session)
    await site.start()
    closing = await site.closing(await site.dispatch("sess-1", "node"))
    assert closing["status"] == "completed", closing["error"]
    assert closing["files_sent"] == len(session)


def assert_means_the_same(stored: dict[str, bytes], session: list[SampleInstance]) -> None:
    assert stored.keys() == hashes_of(session).keys()
    for each in session:
        assert elements(stored[each.sop_instance_uid]) == elements(each.content)


def files_of(paths: list[Path]) -> dict[str, bytes]:
    contents = [path.read_bytes() for path in paths]
    return {str(read(content).SOPInstanceUID): content for content in contents}


@pytest.mark.needs("storescp")
async def test_storescp(site: Site, tmp_path: Path, small_session: list[SampleInstance]) -> None:
    with storescp(tmp_path, "+B", "+xa") as node:
        await dispatch_all(site, node, small_session)
        assert hashes_in(node.stored) == hashes_of(small_session)


@pytest.mark.needs("dcmqrscp")
async def test_dcmqrscp(site: Site, tmp_path: Path, small_session: list[SampleInstance]) -> None:
    session = [each for each in small_session if each.transfer_syntax_uid in UNCOMPRESSED]
    with dcmqrscp(tmp_path) as node:
        await dispatch_all(site, node, session)
        stored = [path for path in node.stored if path.name != "index.dat"]
        assert_means_the_same(files_of(stored), session)


@pytest.mark.needs("orthanc")
async def test_orthanc(site: Site, tmp_path: Path, small_session: list[SampleInstance]) -> None:
    with orthanc(tmp_path) as node:
        await dispatch_all(site, node, small_session)
        assert_means_the_same(await held_by(node), small_session)


@pytest.mark.parametrize("maximum_pdu_size", [0, 1024, 16384, 262144])
async def test_pynetdicom(
    site: Site, small_session: list[SampleInstance], maximum_pdu_size: int
) -> None:
    session = [*small_session, private_object(canary_study(12))]
    classes = (*EVERY_STORAGE_CLASS, PRIVATE_CLASS)
    node = DemoNode(sop_classes=classes, maximum_pdu_size=maximum_pdu_size)
    async with node.running():
        await dispatch_all(site, node, session)
        assert node.holds == hashes_of(session)


@pytest.mark.needs("npm")
async def test_dcmjs_dimse(
    site: Site, tmp_path: Path, small_session: list[SampleInstance], dcmjs: Path
) -> None:
    with dcmjs_scp(dcmjs, tmp_path) as node:
        await dispatch_all(site, node, small_session)
        stored = {path.name: sha256(path.read_bytes()) for path in node.stored}
        assert stored == hashes_of(small_session)
