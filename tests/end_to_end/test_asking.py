"""Real archives that store an instance and are cut off before their answer arrives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.end_to_end.orthanc_rest import held_by
from tests.end_to_end.sessions import ct_session, hashes_in, hashes_of, read
from tests.end_to_end.site import Site, assert_tells_the_truth
from tests.support.peers import Node, dcmqrscp, orthanc, storescp
from tests.support.relay import Relay, relay

TOTAL, CUT_AT = 8, 3


async def deliver(site: Site, line: Relay) -> None:
    """Dispatch a session over the line; it must arrive completely, with true reports."""
    session = ct_session(91, TOTAL)
    site.has(node=line)
    site.offer("sess-1", session)
    await site.start()
    ordered = await site.dispatch("sess-1", "node")
    ending = await site.ending(ordered, "node")
    assert (ending["status"], ending["files_sent"]) == ("completed", TOTAL), ending["error"]
    assert_tells_the_truth(site.backend.statuses[ordered, "node"], "node", TOTAL)
    assert line.stores.keys() == hashes_of(session).keys()


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(dcmqrscp, marks=pytest.mark.needs("dcmqrscp", "dcmqridx")),
        pytest.param(orthanc, marks=pytest.mark.needs("orthanc")),
    ],
)
async def test_an_archive_that_can_be_asked_gets_each_instance_once(
    site: Site, tmp_path: Path, archive: Callable[[Path], AbstractContextManager[Node]]
) -> None:
    with archive(tmp_path) as node:
        async with relay(node, swallow=CUT_AT) as line:
            await deliver(site, line)
        assert Counter(line.stores.values()) == Counter({1: TOTAL})
        assert line.finds == 1
        if archive is orthanc:
            held = {*await held_by(node)}
        else:
            files = [path for path in node.stored if path.name != "index.dat"]
            held = {str(read(path.read_bytes()).SOPInstanceUID) for path in files}
            assert len(files) == TOTAL
        assert held == line.stores.keys()


@pytest.mark.needs("storescp")
async def test_a_node_that_only_stores_gets_it_again(site: Site, tmp_path: Path) -> None:
    with storescp(tmp_path, "+B") as node:
        async with relay(node, swallow=CUT_AT) as line:
            await deliver(site, line)
        assert Counter(line.stores.values()) == Counter({1: TOTAL - 1, 2: 1})
        assert line.finds == 0
        assert hashes_in(node.stored).keys() == line.stores.keys()
