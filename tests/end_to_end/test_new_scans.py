"""A new scan that ITH names no node for goes to those real nodes that it lets read."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from proxy.demo import frames
from tests.end_to_end.orthanc_rest import held_by
from tests.end_to_end.sessions import arrivals_in, ct_session, hashes_of, once_each, pack
from tests.end_to_end.site import Site, assert_tells_the_truth, node
from tests.support.peers import orthanc, storescp

QUIET_S = 0.7


@pytest.mark.needs("orthanc", "storescp")
async def test_a_new_scan_goes_to_the_nodes_that_may_read_and_to_no_others(
    site: Site, tmp_path: Path
) -> None:
    scan = ct_session(241, 8)
    with (
        orthanc(tmp_path / "archive") as archive,
        storescp(tmp_path / "reads", "+B", "+uf") as reads,
        storescp(tmp_path / "writes", "+B", "+uf") as writes,
    ):
        site.has(
            archive=node("archive", archive, permission="read_write"),
            reads=node("reads", reads, permission="read"),
            writes=node("writes", writes, permission="write"),
        )
        site.backend.rest.offer("scan", "scan-1", pack(scan))
        await site.start()

        event = frames.new_scan_available("scan-1")
        await site.backend.send_event(event)
        ordered = str(event["correlation_id"])

        closing = await site.closing(ordered)
        await trio.sleep(QUIET_S)
        assert (await held_by(archive)).keys() == hashes_of(scan).keys()
    assert (closing["status"], closing["files_sent"]) == ("completed", 2 * len(scan))
    assert arrivals_in(reads.stored) == once_each(scan)
    assert writes.stored == []
    assert {each["payload"].get("node_id") for each in site.statuses(ordered)} == {
        "archive",
        "reads",
        None,
    }
    for name in ("archive", "reads"):
        assert_tells_the_truth(site.backend.statuses[ordered, name], name, len(scan))


@pytest.mark.needs("storescp")
async def test_a_new_scan_that_is_not_to_be_pulled_is_left(site: Site, tmp_path: Path) -> None:
    with storescp(tmp_path, "+B", "+uf") as disk:
        site.has(disk=disk)
        site.backend.rest.offer("scan", "scan-1", pack(ct_session(242, 2)))
        await site.start()

        event = frames.new_scan_available("scan-1")
        event["payload"]["action"] = "notify"
        await site.backend.send_event(event)

        await trio.sleep(QUIET_S)
        assert site.statuses(str(event["correlation_id"])) == []
        assert site.backend.rest.downloads == []
        assert disk.stored == []
