"""ITH pauses the proxy in the middle of a session, at Orthanc and at each kind of storescp."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from proxy.demo import frames
from proxy.demo.encoding import SampleInstance
from tests.end_to_end.orthanc_rest import held_by, stores_at, until_stored
from tests.end_to_end.sessions import arrivals_in, ct_session, hashes_in, hashes_of, once_each
from tests.end_to_end.site import Site, assert_tells_the_truth, node
from tests.support import tools
from tests.support.peers import Node, orthanc, storescp
from tests.support.relay import relay

NO_ECHO_S = 600.0
"""With no C-ECHO between, a connection to a node is one of a delivery."""
QUIET_S = 0.6


async def pause(site: Site) -> None:
    await site.backend.send_event(frames.status_changed(is_active=False, reason="Planned window"))


async def go_on(site: Site) -> None:
    await site.backend.send_event(frames.status_changed(is_active=True))


@pytest.mark.needs("orthanc", "dcmsend")
async def test_a_pause_in_mid_session_stores_each_instance_once_at_orthanc(
    site: Site, tmp_path: Path
) -> None:
    session = ct_session(201, 30)
    with orthanc(tmp_path, {"OverwriteInstances": True}) as archive:
        async with relay(archive, delay_s=0.01) as slow:
            site.has(archive=slow)
            site.offer("sess-1", session)
            await site.start(dicom__echo_interval_seconds=NO_ECHO_S)
            ordered = await site.dispatch("sess-1", "archive")
            await until_stored(archive, 10)

            await pause(site)
            await site.until_at(ordered, archive="held")
            await site.until(lambda: slow.open == 0)
            connections, stored = slow.connections, await stores_at(archive)
            await trio.sleep(QUIET_S)
            assert (slow.connections, await stores_at(archive)) == (connections, stored)
            assert stored < len(session)

            await go_on(site)
            assert (await site.closing(ordered))["status"] == "completed"
        assert await stores_at(archive) == len(session)
        assert (await held_by(archive)).keys() == hashes_of(session).keys()
        assert_tells_the_truth(site.backend.statuses[ordered, "archive"], "archive", len(session))

        await send(archive, tmp_path, session[:1])
        assert await stores_at(archive) == len(session) + 1  # a repeated arrival would have shown
        assert len(await held_by(archive)) == len(session)


@pytest.mark.needs("storescp")
async def test_a_pause_while_a_node_takes_seconds_for_each_instance(
    site: Site, tmp_path: Path
) -> None:
    short, long = ct_session(202, 2), ct_session(203, 5)
    with (
        storescp(tmp_path / "during", "+B", "+uf", "--sleep-during", "1") as during,
        storescp(tmp_path / "after", "+B", "+uf", "--sleep-after", "1") as after,
    ):
        site.has(during=during, after=after)
        site.offer("short", short)
        site.offer("long", long)
        await site.start(dicom__cancel_seconds=10, dicom__echo_interval_seconds=NO_ECHO_S)
        to_during = await site.dispatch("short", "during")
        to_after = await site.dispatch("long", "after")
        await site.until(lambda: len(after.stored) >= 2)  # the other one has begun its first

        await pause(site)
        await site.until_at(to_during, during="held")
        await site.until_at(to_after, after="held")
        first = len(during.stored), len(after.stored)
        await trio.sleep(QUIET_S)
        assert (len(during.stored), len(after.stored)) == first
        assert first[0] == 1
        assert 2 <= first[1] < len(long)

        await go_on(site)
        for ordered, name, disk, session in (
            (to_during, "during", during, short),
            (to_after, "after", after, long),
        ):
            assert (await site.closing(ordered))["status"] == "completed"
            assert arrivals_in(disk.stored) == once_each(session)
            assert_tells_the_truth(site.backend.statuses[ordered, name], name, len(session))


@pytest.mark.needs("storescp")
@pytest.mark.parametrize("switch", ["--abort-during", "--abort-after"])
async def test_a_pause_while_backing_off_from_a_node_that_aborts(
    site: Site, tmp_path: Path, switch: str
) -> None:
    session = ct_session(204, 4)
    with storescp(tmp_path, "+B", "+uf", switch) as disk:
        async with relay(disk) as aborting:
            site.has(node=node("node", aborting, retry_count=3, retry_delay=1.0))
            site.offer("sess-1", session)
            await site.start(dicom__echo_interval_seconds=NO_ECHO_S)
            ordered = await site.dispatch("sess-1", "node")
            await site.until_at(ordered, node="backing_off")

            await pause(site)
            await site.until_at(ordered, node="held")
            tried = aborting.connections
            await trio.sleep(1.1)  # by then the next attempt would have been due
            assert aborting.connections == tried
            assert await site.states(ordered) == {"node": "held"}
            assert site.backend.final_status(ordered, "node") is None

            await go_on(site)
            ending = await site.ending(ordered, "node")
            assert aborting.connections > tried
    assert ending["status"] == "failed"
    assert "The node aborted the association. Look into the node's log." in ending["error"]
    has = hashes_in(disk.stored)
    assert has.items() <= hashes_of(session).items()
    assert ending["files_sent"] <= len(has)
    assert ending["files_sent"] < len(session)


@pytest.mark.needs("storescp")
async def test_an_order_that_came_in_a_pause_is_tried_after_it_at_a_node_that_refuses(
    site: Site, tmp_path: Path
) -> None:
    with storescp(tmp_path, "--refuse") as disk:
        async with relay(disk) as refusing:
            site.has(node=node("node", refusing, retry_count=3, retry_delay=0.1))
            site.offer("sess-1", ct_session(205, 3))
            await site.start(dicom__echo_interval_seconds=NO_ECHO_S)
            await site.until(lambda: refusing.connections == 1)  # the first C-ECHO

            await pause(site)
            ordered = await site.dispatch("sess-1", "node")
            await site.until_at(ordered, node="held")
            await trio.sleep(QUIET_S)
            assert refusing.connections == 1

            await go_on(site)
            ending = await site.ending(ordered, "node")
            await trio.sleep(QUIET_S)
            assert refusing.connections <= 1 + 2 * 4  # four attempts, each with a C-ECHO
    assert (ending["status"], ending["files_sent"]) == ("failed", 0)
    assert "The node rejects the association and gives no reason" in ending["error"]
    assert "Check both AE titles" in ending["error"]
    assert disk.stored == []


@pytest.mark.needs("storescp", "dcmsend")
async def test_the_counts_show_an_instance_that_came_twice_to_storescp(tmp_path: Path) -> None:
    session = ct_session(206, 3)
    with storescp(tmp_path, "+B", "+uf") as disk:
        await send(disk, tmp_path, session)
        assert arrivals_in(disk.stored) == once_each(session)
        await send(disk, tmp_path, session[1:2])
        assert arrivals_in(disk.stored) == once_each(session, session[1:2])


async def send(peer: Node, directory: Path, instances: Sequence[SampleInstance]) -> None:
    """Send with DCMTK, past the proxy."""
    files = [directory / f"{number}.dcm" for number in range(len(instances))]
    for file, instance in zip(files, instances, strict=True):
        file.write_bytes(instance.content)
    dcmsend = tools.find("dcmsend")
    assert dcmsend is not None
    to = ["-aec", peer.ae_title, peer.host, str(peer.port)]
    await trio.run_process([dcmsend, *to, *map(str, files)])
