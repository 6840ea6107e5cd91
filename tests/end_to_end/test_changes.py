"""Changes by ITH while work is under way: pause, nodes, addresses."""

from __future__ import annotations

from collections import Counter

import trio

from proxy.demo import frames
from proxy.demo.frames import JsonObject
from proxy.demo.node import DemoNode
from proxy.demo.node_script import NodeScript
from proxy.demo.sample import ct_series, mr_series
from tests.end_to_end.sessions import canary_study, ct_session, hashes_of
from tests.end_to_end.site import Site, assert_tells_the_truth, changed, node
from tests.support.peers import free_port

SLOW = 0.05


def once_each(of: DemoNode, session_seed: int, slices: int) -> bool:
    expected = Counter(hashes_of(ct_session(session_seed, slices)).keys())
    return Counter(arrival.sop_instance_uid for arrival in of.arrivals) == expected


async def tell(site: Site, event: JsonObject) -> None:
    await site.backend.send_event(event)


async def change_node(site: Site, described: JsonObject, peer: DemoNode, **more: object) -> None:
    """Change a node in ITH: its configuration, and the event that says so."""
    site.backend.rest.configuration["nodes"] = [described]
    await tell(site, frames.nodes_changed([changed(described["id"], peer, **more)], "updated"))


async def test_a_pause_in_mid_session_loses_and_repeats_nothing(site: Site) -> None:
    async with DemoNode(script=NodeScript(delay_s=SLOW)).running() as slow:
        site.has(slow=slow)
        site.offer("sess-1", ct_session(41, 30))
        site.offer("sess-2", ct_session(42, 3))
        await site.start()
        first = await site.dispatch("sess-1", "slow")
        await slow.wait_for(lambda node: len(node.holds) >= 8)

        await tell(site, frames.status_changed(is_active=False, reason="Planned window"))
        await site.until(lambda: site.heartbeat().get("status") == "inactive")
        at_rest = len(slow.arrivals)
        second = await site.dispatch("sess-2", "slow")
        await trio.sleep(1)
        assert len(slow.arrivals) == at_rest < 30
        assert site.backend.final_status(first) is None
        assert site.backend.final_status(second) is None
        assert len(site.backend.rest.downloads) == 1

        await tell(site, frames.status_changed(is_active=True))
        assert (await site.closing(first))["status"] == "completed"
        assert (await site.closing(second))["status"] == "completed"
        assert slow.holds == {**hashes_of(ct_session(41, 30)), **hashes_of(ct_session(42, 3))}
        assert len(slow.arrivals) == 33
        assert_tells_the_truth(site.backend.statuses[first, "slow"], "slow", 30)
        await site.until(lambda: site.heartbeat()["status"] == "active")


async def test_a_pause_survives_a_restart(site: Site) -> None:
    async with DemoNode(script=NodeScript(delay_s=SLOW)).running() as slow:
        site.has(slow=slow)
        site.offer("sess-1", ct_session(43, 30))
        await site.start()
        ordered = await site.dispatch("sess-1", "slow")
        await slow.wait_for(lambda node: len(node.holds) >= 5)
        await tell(site, frames.status_changed(is_active=False))
        await site.until(lambda: site.heartbeat().get("status") == "inactive")
        await site.stop()
        at_rest = len(slow.arrivals)

        beats = len(site.backend.frames_named("proxy.heartbeat"))
        await site.start()
        await site.until(lambda: len(site.backend.frames_named("proxy.heartbeat")) > beats)
        assert site.heartbeat()["status"] == "inactive"
        await trio.sleep(0.7)
        assert len(slow.arrivals) == at_rest

        await tell(site, frames.status_changed(is_active=True))
        assert (await site.closing(ordered))["status"] == "completed"
        assert once_each(slow, 43, 30)
        assert len(site.backend.rest.downloads) == 1


async def test_a_removed_node_is_reported_and_the_other_completes(site: Site) -> None:
    goes, stays = DemoNode("GOES", script=NodeScript(delay_s=SLOW)), DemoNode("STAYS")
    stays.script.delay_s = SLOW
    async with goes.running(), stays.running():
        site.has(goes=goes, stays=stays)
        site.offer("sess-1", ct_session(44, 25))
        await site.start()
        ordered = await site.dispatch("sess-1", "goes", "stays")
        await goes.wait_for(lambda node: len(node.holds) >= 5)

        site.has(stays=stays)
        await tell(site, frames.nodes_changed([changed("goes", goes)], "removed"))

        gone = await site.ending(ordered, "goes")
        assert (gone["status"], gone["error"]) == ("failed", "node removed from configuration")
        assert 5 <= gone["files_sent"] < 25
        assert gone["files_sent"] == len(goes.holds)
        assert (await site.ending(ordered, "stays"))["status"] == "completed"
        assert once_each(stays, 44, 25)
        closing = await site.closing(ordered)
        assert closing["status"] == "failed"
        assert "node removed from configuration" in closing["error"]


async def test_a_corrected_address_is_used_at_once(site: Site) -> None:
    wrong, right = DemoNode("NODE"), DemoNode("NODE")
    wrong.port = free_port()
    async with right.running():
        site.has(node=node("node", wrong, retry_count=50, retry_delay=60))
        site.offer("sess-1", ct_session(45, 5))
        await site.start(dicom__retry_max_seconds=300)
        ordered = await site.dispatch("sess-1", "node")
        await trio.sleep(1)
        assert site.backend.final_status(ordered) is None

        await change_node(site, node("node", right), right)

        assert (await site.closing(ordered))["status"] == "completed"
        assert once_each(right, 45, 5)


async def test_a_moved_node_gets_the_rest_at_its_new_address(site: Site) -> None:
    old, new = DemoNode("NODE", script=NodeScript(delay_s=SLOW)), DemoNode("NODE")
    async with old.running(), new.running():
        site.has(node=old)
        site.offer("sess-1", ct_session(46, 25))
        await site.start()
        ordered = await site.dispatch("sess-1", "node")
        await old.wait_for(lambda node: len(node.holds) >= 5)

        await change_node(site, node("node", new), new)

        assert (await site.closing(ordered))["status"] == "completed"
        assert len(old.arrivals) < 25
        assert {**old.holds, **new.holds} == hashes_of(ct_session(46, 25))
        assert len(old.arrivals) + len(new.arrivals) == 25


async def test_an_inactive_node_is_held_until_it_is_active(site: Site) -> None:
    async with DemoNode(script=NodeScript(delay_s=SLOW)).running() as held:
        site.has(node=held)
        site.offer("sess-1", ct_session(47, 25))
        await site.start()
        ordered = await site.dispatch("sess-1", "node")
        await held.wait_for(lambda node: len(node.holds) >= 5)

        await change_node(site, node("node", held, is_active=False), held, is_active=False)
        await trio.sleep(0.5)
        at_rest = len(held.arrivals)
        await trio.sleep(0.7)
        assert len(held.arrivals) == at_rest < 25
        assert site.backend.final_status(ordered) is None

        await change_node(site, node("node", held), held, is_active=True)
        assert (await site.closing(ordered))["status"] == "completed"
        assert once_each(held, 47, 25)


async def test_the_retries_of_a_running_dispatch_follow_a_configuration_event(site: Site) -> None:
    async with DemoNode(script=NodeScript(delay_s=SLOW)).running() as slow:
        site.has(slow=slow)
        site.offer("sess-1", ct_session(48, 20))
        await site.start()
        ordered = await site.dispatch("sess-1", "slow")
        await slow.wait_for(lambda node: len(node.holds) >= 3)

        await tell(site, frames.config_changed({"retry_count": 4}))

        assert (await site.closing(ordered))["status"] == "completed"
        assert slow.tally.associations == 2  # one to ask, one to store: nothing was restarted
        assert once_each(slow, 48, 20)


async def test_another_calling_ae_title_for_all_is_shown_between_two_instances(site: Site) -> None:
    async with DemoNode(script=NodeScript(delay_s=SLOW)).running() as slow:
        site.has(slow=slow)
        site.offer("sess-1", ct_session(48, 20))
        await site.start()
        ordered = await site.dispatch("sess-1", "slow")
        await slow.wait_for(lambda node: len(node.holds) >= 3)

        renamed: JsonObject = {"calling_ae_title": "ITHPROXY"}
        site.backend.rest.configuration["config"] |= renamed
        await tell(site, frames.config_changed(renamed))

        assert (await site.closing(ordered))["status"] == "completed"
        assert once_each(slow, 48, 20)
        names = [arrival.calling_ae_title for arrival in slow.arrivals]
        assert [*dict.fromkeys(names)] == ["DICOM_PROXY", "ITHPROXY"]
        assert names == sorted(names)


async def test_a_deletion_stops_what_is_under_way(site: Site) -> None:
    async with DemoNode(script=NodeScript(delay_s=SLOW)).running() as slow:
        site.has(slow=slow)
        session = ct_session(49, 30)
        site.offer("sess-1", session)
        await site.start()
        ordered = await site.dispatch("sess-1", "slow")
        await slow.wait_for(lambda node: len(node.holds) >= 5)

        study = session[0].study_instance_uid
        await tell(site, frames.session_deleted("sess-1", study_instance_uid=study))

        ending = await site.ending(ordered, "slow")
        assert ending["status"] == "failed"
        assert "deleted in ITH" in ending["error"]
        assert 5 <= ending["files_sent"] <= ending["files_total"]
        await site.until(lambda: site.objects == [])
        assert len(slow.arrivals) < 30


async def test_a_deleted_scan_is_left_out_of_what_is_under_way(site: Site) -> None:
    study = canary_study(50)
    stays = ct_series(study, slices=20, size=32, series=1)
    goes = mr_series(study, slices=10, series=2)
    async with DemoNode(script=NodeScript(delay_s=SLOW)).running() as slow:
        site.has(slow=slow)
        site.offer("sess-1", [*stays, *goes])
        await site.start()
        ordered = await site.dispatch("sess-1", "slow")
        await slow.wait_for(lambda node: len(node.holds) >= 5)

        study_instance_uid = study.uid("study")
        await tell(
            site,
            frames.scan_deleted("s-2", study_instance_uid=study_instance_uid, scan_number=2),
        )

        ending = await site.ending(ordered, "slow")
        assert (ending["status"], ending["files_sent"], ending["files_total"]) == (
            "completed",
            20,
            20,
        )
        assert slow.holds == hashes_of(stays)
