"""The link to ITH: lost, refused, in both dialects, and busy."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from proxy import __version__
from proxy.demo import frames
from proxy.demo.backend_script import PingDialect
from proxy.demo.encoding import SampleInstance
from proxy.demo.node import DemoNode
from proxy.demo.node_script import NodeScript
from tests.end_to_end.program import the_program
from tests.end_to_end.sessions import ct_session, hashes_of
from tests.end_to_end.site import Site, assert_tells_the_truth, node
from tests.support.peers import free_port


@pytest.mark.parametrize("how", ["drop", "close", "vanish"])
async def test_what_ended_while_offline_is_told_later(site: Site, how: str) -> None:
    session = ct_session(81, 20)
    async with DemoNode(script=NodeScript(delay_s=0.03)).running() as slow:
        site.has(slow=slow)
        site.offer("sess-1", session)
        await site.start()
        ordered = await site.dispatch("sess-1", "slow")
        await slow.wait_for(lambda node: len(node.holds) >= 5)

        site.backend.script.refuse = 503
        if how == "drop":
            site.backend.drop()
        elif how == "close":
            await site.backend.close(1012, "restart")
        else:
            await site.backend.vanish()
        await slow.wait_for(lambda node: len(node.holds) == 20)
        await trio.sleep(0.3)
        assert site.backend.final_status(ordered) is None
        site.backend.script.refuse = None
        if how == "vanish":
            await site.backend.listen()

        assert (await site.closing(ordered))["status"] == "completed"
        assert site.backend.status_words(ordered, "slow")[-1] == "completed"
        assert len(slow.arrivals) == 20
        assert site.backend.connections == 2
        payloads = site.backend.statuses[ordered, "slow"]
        assert [p["progress"] for p in payloads] == sorted(p["progress"] for p in payloads)


@pytest.mark.parametrize("code", [401, 4003], ids=["upgrade", "close"])
async def test_a_refused_key_makes_no_tight_loop(site: Site, code: int) -> None:
    await refused(site, code, "ITH_TOKEN")


async def test_an_evicted_proxy_does_not_fight(site: Site) -> None:
    await refused(site, 4002, "another program connected")


async def refused(site: Site, code: int, sentence: str) -> None:
    """Turn the program away, and read what it says to the operator."""
    async with the_program(site) as program:
        site.backend.script.refuse = code
        site.backend.drop()
        await site.until(lambda: site.backend.refusals >= 1)
        await trio.sleep(2.5)
        assert site.backend.refusals == 1
        lost = [str(line) for line in program.lines("link.lost")]
        assert sentence in lost[-1]
        assert await program.terminate() == 0


MEANWHILE = 60
"""Instances that may reach the nodes while a ping is answered, of 360; it is about 10."""


@pytest.mark.parametrize("dialect", PingDialect)
async def test_pings_are_answered_whatever_else_goes_on(site: Site, dialect: PingDialect) -> None:
    sessions = [ct_session(820 + number, 60, size=128) for number in range(3)]
    nodes = [DemoNode(title) for title in ("ONE", "TWO")]

    def arrived() -> int:
        return sum(len(node.arrivals) for node in nodes)

    def answered(before: int) -> bool:
        return len(site.backend.frames_named("pong")) > before

    async with nodes[0].running(), nodes[1].running():
        site.has(one=nodes[0], two=nodes[1])
        for number, session in enumerate(sessions):
            site.offer(f"sess-{number}", session)
        await site.start()
        ordered = [await site.dispatch(f"sess-{n}", "one", "two") for n in range(3)]
        meanwhile = []
        while not all((each, None) in site.backend.statuses for each in ordered):
            before, pongs = arrived(), len(site.backend.frames_named("pong"))
            by_type = dialect is PingDialect.TYPE
            await site.backend.send_event(frames.control_ping() if by_type else frames.event_ping())
            await site.until(partial(answered, pongs))
            meanwhile.append(arrived() - before)

        for each in ordered:
            assert (await site.closing(each))["status"] == "completed"
        assert arrived() == 360
        assert sum(each > 0 for each in meanwhile) >= 5
        assert max(meanwhile) <= MEANWHILE
        pong = site.backend.frames_named("pong")[-1]
        assert (pong["type"], pong["event_type"]) == ("pong", "pong")


async def test_the_nested_dialect_works(site: Site, small_session: list[SampleInstance]) -> None:
    site.backend.script.nested = True
    async with DemoNode().running() as taker:
        site.has(node=taker)
        site.offer("sess-1", small_session)
        await site.start()

        ordered = await site.dispatch("sess-1", "node")

        assert (await site.closing(ordered))["status"] == "completed"
        assert taker.holds == hashes_of(small_session)
        assert_tells_the_truth(site.backend.statuses[ordered, "node"], "node", len(small_session))


async def test_the_signs_of_life_are_true(site: Site) -> None:
    down = DemoNode("DOWN")
    down.port = free_port()
    session = ct_session(83, 30, size=256)
    async with DemoNode(script=NodeScript(delay_s=0.08)).running() as up:
        site.has(up=up, down=down, off=node("off", down, is_active=False))
        site.offer("sess-1", session)
        await site.start(local__port=11199, local__ae_title="SITE_A", dicom__retry_count=0)
        await site.until(lambda: site.heartbeat().get("nodes_online") == 1)
        before = site.heartbeat()
        assert before == {
            "status": "active",
            "nodes_online": 1,
            "nodes_total": 3,
            "active_dispatches": 0,
            "disk_usage_gb": pytest.approx(0, abs=0.001),
            "version": __version__,
        }

        ordered = await site.dispatch("sess-1", "up")
        await site.until(lambda: site.heartbeat()["active_dispatches"] == 1)
        await site.closing(ordered)
        await site.until(lambda: site.heartbeat()["active_dispatches"] == 0)

        used = site.disk_bytes / 1024**3
        assert used > 0.003
        assert site.heartbeat()["disk_usage_gb"] == pytest.approx(used, rel=0.05)
        (greeting,) = site.backend.frames_named("config_update")
        assert greeting == {
            "type": "config_update",
            "ip_address": "127.0.0.1",
            "port": 11199,
            "ae_title": "SITE_A",
            "api_url": "",
            "proxy_version": __version__,
        }
        health = site.backend.frames_named("health_update")[-1]
        assert (health["proxy_status"], health["proxy_version"]) == ("online", __version__)
        reachable = {each["node_id"]: each["is_reachable"] for each in health["nodes"]}
        assert reachable == {"up": True, "down": False}
