"""Events that are not for this proxy, come twice, come early, or come in order of urgency."""

from __future__ import annotations

import pytest
import trio

from proxy.control.client import ask
from proxy.control.messages import ControlRequest
from proxy.demo import frames
from proxy.demo.encoding import SampleInstance
from proxy.demo.node import DemoNode
from proxy.demo.node_script import NodeScript
from proxy.demo.rest import Fault
from tests.end_to_end.sessions import ct_session, hashes_of
from tests.end_to_end.site import Site, assert_tells_the_truth

QUIET_S = 0.7


async def test_nodes_of_others_get_no_word_at_all(site: Site) -> None:
    async with DemoNode().running() as ours:
        site.has(ours=ours)
        site.offer("sess-1", ct_session(51, 2))
        await site.start()

        foreign = await site.dispatch("sess-1", "theirs", "somebodys")
        mixed = await site.dispatch("sess-1", "theirs", "ours")

        assert (await site.closing(mixed))["status"] == "completed"
        await trio.sleep(QUIET_S)
        assert site.statuses(foreign) == []
        named = {each["payload"].get("node_id") for each in site.statuses(mixed)}
        assert named == {"ours", None}
        assert len(site.backend.rest.downloads) == 1


async def test_another_workspace_is_ignored(site: Site) -> None:
    async with DemoNode().running() as ours:
        site.has(ours=ours)
        site.offer("sess-1", ct_session(52, 2))
        await site.start()

        foreign = await site.dispatch("sess-1", "ours", workspace_id="ws-of-others")

        await trio.sleep(QUIET_S)
        assert site.statuses(foreign) == []
        assert ours.arrivals == []
        assert site.backend.rest.downloads == []


@pytest.mark.parametrize("nested", [False, True])
async def test_another_proxy_s_pause_is_ignored(site: Site, nested: bool) -> None:
    """A broadcast of the workspace: ITH's configuration of this proxy says that it is active."""
    site.backend.script.nested = nested
    async with DemoNode().running() as ours:
        site.has(ours=ours)
        site.offer("sess-1", ct_session(58, 2))
        await site.start()
        for event in (
            frames.status_changed(is_active=False, proxy_id="proxy-2"),
            frames.nodes_changed([], "replaced", proxy_id="proxy-2"),
            frames.config_changed({"port": 104}, proxy_id="proxy-2"),
        ):
            await site.backend.send_event(event)

        ordered = await site.dispatch("sess-1", "ours")

        assert (await site.closing(ordered))["status"] == "completed"
        assert site.heartbeat()["status"] == "active"
        shown = await trio.to_thread.run_sync(ask, site.state, ControlRequest("status"))
        assert shown.event_counts["foreign"] == 3
        assert not shown.operation.locks


async def test_the_same_event_twice_is_one_dispatch(site: Site) -> None:
    async with DemoNode(script=NodeScript(delay_s=0.02)).running() as node:
        site.has(node=node)
        site.offer("sess-1", ct_session(53, 10))
        await site.start()

        ordered = await site.dispatch("sess-1", "node")
        await site.dispatch("sess-1", "node", correlation_id=ordered)
        await node.wait_for(lambda node: len(node.holds) >= 3)
        await site.dispatch("sess-1", "node", correlation_id=ordered)
        assert (await site.closing(ordered))["status"] == "completed"
        await site.dispatch("sess-1", "node", correlation_id=ordered)

        await trio.sleep(QUIET_S)
        assert len(node.arrivals) == 10
        assert len(site.backend.rest.downloads) == 1
        assert_tells_the_truth(site.backend.statuses[ordered, "node"], "node", 10)
        assert {each["status"] for each in site.backend.statuses[ordered, None]} == {"completed"}


async def test_a_dispatch_before_the_configuration_is_not_lost(site: Site) -> None:
    async with DemoNode().running() as node:
        site.has(node=node)
        site.offer("sess-1", ct_session(54, 3))
        site.backend.rest.configuration_faults.append(Fault(delay_s=1.5))
        await site.start_alone()
        await site.until(lambda: site.backend.online)

        ordered = await site.dispatch("sess-1", "node")
        await trio.sleep(0.3)
        assert site.statuses(ordered) == []

        assert (await site.closing(ordered))["status"] == "completed"
        assert node.holds == hashes_of(ct_session(54, 3))


async def test_the_second_node_gets_the_same_bytes_without_a_second_download(site: Site) -> None:
    session = ct_session(55, 12)
    async with DemoNode("FIRST").running() as first, DemoNode("SECOND").running() as second:
        site.has(first=first, second=second)
        site.offer("sess-1", session)
        await site.start()

        assert (await site.closing(await site.dispatch("sess-1", "first")))["status"] == "completed"
        assert (await site.closing(await site.dispatch("sess-1", "second")))[
            "status"
        ] == "completed"

        assert first.holds == second.holds == hashes_of(session)
        asked = site.backend.rest.downloads
        assert [request.status for request in asked] == [200, 304]
        assert asked[1].sent == 0


async def test_changed_content_is_fetched_again(site: Site) -> None:
    before, after = ct_session(56, 4), ct_session(57, 5)
    async with DemoNode().running() as node:
        site.has(node=node)
        site.offer("sess-1", before)
        await site.start()
        await site.closing(await site.dispatch("sess-1", "node"))

        site.offer("sess-1", after)
        closing = await site.closing(await site.dispatch("sess-1", "node"))

        assert (closing["status"], closing["files_total"]) == ("completed", 5)
        assert node.holds == {**hashes_of(before), **hashes_of(after)}
        assert len(node.arrivals) == 9


async def test_the_urgent_one_overtakes(site: Site) -> None:
    async with DemoNode().running() as node:
        site.has(node=node)
        for number in range(7):
            site.offer(f"sess-{number}", ct_session(60 + number, 2)).bytes_per_s = 20_000
        await site.start(limits__downloads=1)

        await site.dispatch("sess-0", "node")
        await site.until(lambda: len(site.backend.rest.downloads) == 1)
        for number in range(1, 6):
            await site.dispatch(f"sess-{number}", "node")
        urgent = await site.dispatch("sess-6", "node", priority="urgent")
        await site.closing(urgent)
        await site.until(lambda: len(site.backend.rest.downloads) == 7)

        fetched = [request.path.split("/")[-2] for request in site.backend.rest.downloads]
        assert fetched[:2] == ["sess-0", "sess-6"]
        assert fetched[2:] == [f"sess-{number}" for number in range(1, 6)]


async def test_the_urgent_one_overtakes_at_a_slow_node_within_an_instance(site: Site) -> None:
    slow = NodeScript(delay_s=0.02)
    async with DemoNode(script=slow).running() as node:
        site.has(node=node)
        long, late = ct_session(70, 200), ct_session(71, 10)
        site.offer("long", long)
        site.offer("late", late)
        await site.start(dicom__associations_per_node=1)

        normal = await site.dispatch("long", "node")
        await site.until(lambda: len(node.arrivals) >= 10)
        urgent = await site.dispatch("late", "node", priority="urgent")
        await site.closing(urgent)
        slow.delay_s = 0.0
        await site.closing(normal)

        sent = [each.sop_instance_uid for each in node.arrivals]
        first = sent.index(late[0].sop_instance_uid)
        assert {*sent[first : first + 10]} == {each.sop_instance_uid for each in late}
        assert len(sent) == 210
        assert first < 150
        assert node.holds == {**hashes_of(long), **hashes_of(late)}
        for order, total in ((normal, 200), (urgent, 10)):
            assert_tells_the_truth(site.backend.statuses[order, "node"], "node", total)
            assert (await site.closing(order))["status"] == "completed"


async def test_scans_and_subjects_are_dispatched_too(
    site: Site, small_session: list[SampleInstance]
) -> None:
    async with DemoNode().running() as node:
        site.has(node=node)
        for kind in ("scan", "subject"):
            archive = site.offer("", small_session[:3])
            site.backend.rest.archives[kind, f"{kind}/ü 1"] = archive
        await site.start()

        for event in (
            frames.scan_dispatch("scan/ü 1", ["node"]),
            frames.subject_dispatch("subject/ü 1", ["node"]),
        ):
            await site.backend.send_event(event)
            closing = await site.closing(event["correlation_id"])
            assert (closing["status"], closing["files_sent"]) == ("completed", 3)
            told = site.statuses(event["correlation_id"])
            assert {each["entity_type"] for each in told} == {event["entity_type"]}
            assert {each["entity_id"] for each in told} == {event["entity_id"]}


async def test_what_ith_does_not_have_is_said_so(site: Site) -> None:
    async with DemoNode().running() as node:
        site.has(node=node)
        await site.start()
        closing = await site.closing(await site.dispatch("sess-of-nowhere", "node"))
        assert closing["status"] == "failed"
        assert "404" in closing["error"]
        assert node.arrivals == []
