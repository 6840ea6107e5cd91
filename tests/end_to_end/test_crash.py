"""The program as a process: killed, stopped, started again."""

from __future__ import annotations

from collections import Counter

import trio

from proxy.demo.node import DemoNode
from proxy.demo.node_script import NodeScript
from tests.end_to_end.program import the_program
from tests.end_to_end.sessions import ct_session, hashes_of
from tests.end_to_end.site import Site, assert_tells_the_truth

REPEATED_BY_A_KILL = 2
"""The instance in flight, and one whose answer waits for the ledger's group commit."""
GROUP_COMMIT_S = 0.5
"""The seconds after which a posted change is committed to disk."""


async def test_kill_9_loses_nothing_and_repeats_next_to_nothing(site: Site) -> None:
    session = ct_session(71, 60)
    nodes = [DemoNode(title, script=NodeScript(delay_s=0.03)) for title in ("ONE", "TWO")]
    async with nodes[0].running(), nodes[1].running():
        site.has(one=nodes[0], two=nodes[1])
        site.offer("sess-1", session)
        async with the_program(site) as program:
            ordered = await site.dispatch("sess-1", "one", "two")
            await nodes[0].wait_for(lambda node: len(node.holds) >= 10)
            await program.kill()
        async with the_program(site) as program:
            await nodes[1].wait_for(lambda node: len(node.holds) >= 30)
            await program.kill()
        async with the_program(site) as program:
            closing = await site.closing(ordered)
            assert await program.terminate() == 0

        assert (closing["status"], closing["files_sent"]) == ("completed", 120)
        for node in nodes:
            assert node.holds == hashes_of(session)
            arrivals = Counter(arrival.sop_instance_uid for arrival in node.arrivals)
            assert set(arrivals.values()) <= {1, 2}
            assert len(node.arrivals) <= len(session) + 2 * REPEATED_BY_A_KILL
        assert {each["status"] for each in site.backend.statuses[ordered, None]} == {"completed"}
        assert len(site.backend.rest.downloads) == 1


async def test_kill_9_between_storing_and_its_answer_sends_nothing_twice(site: Site) -> None:
    session = ct_session(74, 10)
    script = NodeScript(stores_first=True, stall_at=5, finds=True)
    async with DemoNode(script=script).running() as node:
        site.has(node=node)
        site.offer("sess-1", session)
        async with the_program(site) as program:
            ordered = await site.dispatch("sess-1", "node")
            await node.wait_for(lambda node: len(node.holds) == 5)
            await trio.sleep(GROUP_COMMIT_S)
            await program.kill()
        async with the_program(site) as program:
            ending = await site.ending(ordered, "node")
            assert await program.terminate() == 0

        assert (ending["status"], ending["files_sent"]) == ("completed", 10)
        assert node.holds == hashes_of(session)
        assert len(node.arrivals) == 10
        (asked,) = program.lines("delivery.asked")
        assert (asked["count"], asked["found"]) == (1, 1)


async def test_kill_9_while_downloading(site: Site) -> None:
    session = ct_session(72, 20, size=64)
    async with DemoNode().running() as node:
        site.has(node=node)
        site.offer("sess-1", session).bytes_per_s = 60_000
        async with the_program(site) as program:
            ordered = await site.dispatch("sess-1", "node")
            await site.until(lambda: site.statuses(ordered) != [])
            await program.kill()
        async with the_program(site):
            assert (await site.closing(ordered))["status"] == "completed"
        assert node.holds == hashes_of(session)
        assert len(node.arrivals) == 20


async def test_sigterm_ends_in_order_and_the_rest_waits(site: Site) -> None:
    session = ct_session(73, 40)
    async with DemoNode(script=NodeScript(delay_s=0.1)).running() as node:
        site.has(node=node)
        site.offer("sess-1", session)
        async with the_program(site) as program:
            ordered = await site.dispatch("sess-1", "node")
            await node.wait_for(lambda node: len(node.holds) >= 4)
            assert await program.terminate() == 0

        await site.until(lambda: site.backend.close_codes != [])
        assert site.backend.close_codes[-1] in {1000, 1001}
        assert site.backend.frames_named("health_update")[-1]["proxy_status"] == "offline"
        assert len(node.arrivals) == len(node.holds) < 40
        assert site.backend.final_status(ordered) is None

        async with the_program(site):
            assert (await site.closing(ordered))["status"] == "completed"
        assert node.holds == hashes_of(session)
        assert len(node.arrivals) == 40
        assert_tells_the_truth(site.backend.statuses[ordered, "node"], "node", 40)
