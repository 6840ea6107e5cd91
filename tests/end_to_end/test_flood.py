"""A thousand orders at once: the link answers, the urgent ones overtake, memory stays flat."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio

from proxy.demo import frames
from proxy.demo.archives import zip_session
from proxy.demo.node import DemoNode
from tests.end_to_end.program import Program, the_program
from tests.end_to_end.relay import relayed
from tests.end_to_end.sessions import hashes_in, hashes_of, many_sessions
from tests.end_to_end.site import Site
from tests.support.peers import Node, free_port, storescp
from tests.support.waiting import waited_seconds

ORDERS = 1000
URGENT = 10
"""They are sent last."""
WARM = 100
"""So many are done when memory has its size."""
ANSWER_S = 1.0
"""For a pong, without the time in which this process or the program waited for a processor: here
they share two with four nodes and whatever else the machine does."""
MEMORY_MIB = 120
"""What the program may take; a MiB kept for each association would be a multiple of it."""
GROWTH_MIB = 15


@contextmanager
def disks(root: Path, *titles: str) -> Iterator[list[Node]]:
    """Real nodes as programs of their own: the test's process plays ITH and has enough to do."""
    with ExitStack() as nodes:
        yield [
            nodes.enter_context(storescp(root / title, "+B", "+uf", ae_title=title))
            for title in titles
        ]


def memory_mib(program: Program) -> float:
    lines = Path(f"/proc/{program.process.pid}/status").read_text().splitlines()
    resident = next(line for line in lines if line.startswith("VmRSS"))
    return int(resident.split()[1]) / 1024


async def answer_seconds(site: Site, program: Program) -> float:
    """Ping the proxy and return how long its pong took: of its own time, not of the machine's."""
    both = (os.getpid(), program.process.pid)
    heard = len(site.backend.heard)
    asked, waited = trio.current_time(), waited_seconds(*both)
    await site.backend.send_event(frames.control_ping())
    while True:
        for each in site.backend.heard[heard:]:
            if each.frame.get("type") == "pong":
                return each.at - asked - (waited_seconds(*both) - waited)
        await site.backend.changed()


async def ask_all_the_time(site: Site, program: Program, answers: list[float]) -> None:
    while True:
        answers.append(await answer_seconds(site, program))
        await trio.sleep(0.05)


def completed_at(site: Site, node_id: str) -> list[str]:
    """Return the correlation ids of what was completed at a node, in the order ITH heard of it."""
    return [
        each.frame["correlation_id"]
        for each in site.backend.heard
        if each.frame.get("event_type") == "dispatch.status"
        and each.frame["payload"].get("node_id") == node_id
        and each.frame["payload"]["status"] == "completed"
    ]


@pytest.mark.timeout(300)
@pytest.mark.needs("storescp")
async def test_a_thousand_orders_at_once_for_four_nodes_of_which_one_is_dead_and_one_slow(
    site: Site, tmp_path: Path
) -> None:
    sessions = many_sessions(81, ORDERS)
    for number, session in enumerate(sessions):
        site.backend.rest.offer("session", f"sess-{number}", zip_session(session, level=0))
    for_all = range(0, ORDERS, 10)
    orders = [
        frames.session_dispatch(
            f"sess-{number}",
            ["one", "two", "slow", "dead"] if number in for_all else ["one", "two"],
            priority="urgent" if number >= ORDERS - URGENT else "normal",
        )
        for number in range(ORDERS)
    ]
    ids = [order["correlation_id"] for order in orders]
    dead = DemoNode("DEAD")
    dead.port = free_port()

    def done() -> int:
        return sum((each, None) in site.backend.statuses for each in ids)

    with disks(tmp_path, "ONE", "TWO", "SLOW") as (one, two, third):
        async with relayed(third, delay_s=0.05) as slow:
            site.has(one=one, two=two, slow=slow, dead=dead)
            async with (
                the_program(site, dicom__retry_delay_seconds="0.1") as program,
                trio.open_nursery() as nursery,
            ):
                answers: list[float] = []
                nursery.start_soon(ask_all_the_time, site, program, answers)
                for order in orders:
                    await site.backend.send_event(order)
                await site.until(lambda: done() >= WARM)
                warm = most = memory_mib(program)
                with trio.fail_after(240):
                    while done() < ORDERS:
                        most = max(most, memory_mib(program))
                        await trio.sleep(0.2)
                nursery.cancel_scope.cancel("the flood is over")
                assert await program.terminate() == 0

    everything = hashes_of(instance for session in sessions for instance in session)
    for each, count in ((one, ORDERS), (two, ORDERS), (third, len(for_all))):
        stored = hashes_in(each.stored)
        assert len(each.stored) == len(stored) == count
        assert stored.items() <= everything.items()
    for number in for_all:
        ending = site.backend.final_status(ids[number], "dead")
        assert ending is not None
        assert ending["status"] == "failed"
        assert "no program listens on that port" in ending["error"]
    assert max(answers) < ANSWER_S
    for node_id in ("one", "two"):
        order_of_service = completed_at(site, node_id)
        assert sorted(order_of_service) == sorted(ids)
        assert {*ids[-URGENT:]} <= {*order_of_service[: ORDERS // 10]}
    assert most < warm + GROWTH_MIB
    assert most < MEMORY_MIB
