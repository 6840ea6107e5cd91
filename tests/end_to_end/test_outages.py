"""Nodes that are down, come back, or go in the middle of a session."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import trio

from proxy.demo.node import DemoNode
from proxy.demo.node_script import NodeScript
from tests.end_to_end.sessions import ct_session, hashes_in, hashes_of
from tests.end_to_end.site import Site, assert_tells_the_truth, node
from tests.support.peers import free_port, storescp


def arrivals(of: DemoNode) -> Counter[str]:
    return Counter(arrival.sop_instance_uid for arrival in of.arrivals)


async def test_a_node_that_is_down_fails_after_its_own_retries(site: Site) -> None:
    session = ct_session(seed=31, slices=6)
    down = DemoNode("DOWN")
    down.port = free_port()
    async with DemoNode().running() as up:
        site.has(up=up, down=node("down", down, retry_count=2, retry_delay=0.5))
        site.offer("sess-1", session)
        await site.start(dicom__retry_count=50, dicom__retry_delay_seconds=30)

        ordered = await site.dispatch("sess-1", "up", "down")
        assert (await site.ending(ordered, "up"))["status"] == "completed"
        assert site.backend.final_status(ordered, "down") is None
        ending = await site.ending(ordered, "down")

        assert (ending["status"], ending["files_sent"]) == ("failed", 0)
        assert "no program listens on that port" in ending["error"]
        closing = await site.closing(ordered)
        assert closing["status"] == "failed"
        assert "1 of 2 nodes" in closing["error"]
        assert closing["files_sent"] == 6
        await site.until(lambda: node_health(site) == {"up": True, "down": False})


def node_health(site: Site) -> dict[str, bool]:
    latest = site.backend.frames_named("health_update")[-1]
    return {each["node_id"]: each["is_reachable"] for each in latest.get("nodes", [])}


async def test_a_node_that_comes_up_in_time_gets_everything(site: Site) -> None:
    session = ct_session(seed=32, slices=6)
    late = DemoNode("LATE")
    late.port = free_port()
    site.has(late=late)
    site.offer("sess-1", session)
    await site.start(dicom__retry_count=20, dicom__retry_max_seconds=1)

    ordered = await site.dispatch("sess-1", "late")
    await trio.sleep(1)
    assert site.backend.final_status(ordered, "late") is None
    async with late.running():
        assert (await site.closing(ordered))["status"] == "completed"
        assert arrivals(late) == Counter(hashes_of(session).keys())


@pytest.mark.parametrize("how", ["abort_at", "drop_at"])
async def test_after_an_abort_it_goes_on_with_what_is_missing(site: Site, how: str) -> None:
    session = ct_session(seed=33, slices=12)
    async with DemoNode(script=NodeScript(**{how: 5})).running() as moody:  # type: ignore[arg-type]
        site.has(node=moody)
        site.offer("sess-1", session)
        await site.start()

        ordered = await site.dispatch("sess-1", "node")
        ending = await site.ending(ordered, "node")

        assert (ending["status"], ending["files_sent"]) == ("completed", 12)
        assert moody.holds == hashes_of(session)
        assert len(moody.arrivals) == 13  # the one at which it aborted came twice
        assert max(arrivals(moody).values()) == 2
        assert_tells_the_truth(site.backend.statuses[ordered, "node"], "node", 12)


async def test_a_node_that_restarts_gets_nothing_twice(site: Site) -> None:
    session = ct_session(seed=34, slices=20)
    async with DemoNode(script=NodeScript(delay_s=0.05)).running() as restarting:
        site.has(node=restarting)
        site.offer("sess-1", session)
        await site.start(dicom__retry_count=20)

        ordered = await site.dispatch("sess-1", "node")
        await restarting.wait_for(lambda node: len(node.holds) >= 6)
        await trio.to_thread.run_sync(restarting.stop)
        await trio.sleep(0.5)
        restarting.start()

        assert (await site.closing(ordered))["status"] == "completed"
        assert restarting.holds == hashes_of(session)
        assert len(restarting.arrivals) <= 21


@pytest.mark.needs("storescp")
@pytest.mark.parametrize("switch", ["--abort-during", "--abort-after"])
async def test_a_real_node_that_aborts_each_time_is_given_up(
    site: Site, tmp_path: Path, switch: str
) -> None:
    session = ct_session(seed=35, slices=4)
    with storescp(tmp_path, "+B", switch) as aborting:
        site.has(node=node("node", aborting, retry_count=2, retry_delay=0.2))
        site.offer("sess-1", session)
        await site.start()

        ending = await site.ending(await site.dispatch("sess-1", "node"), "node")

        assert ending["status"] == "failed"
        assert "aborted the association" in ending["error"]
        assert ending["files_sent"] < 4
        if switch == "--abort-during":
            assert ending["files_sent"] == 0
        assert hashes_in(aborting.stored).items() <= hashes_of(session).items()
