from __future__ import annotations

from pathlib import Path

import trio
from pydicom.uid import CTImageStorage

from proxy.demo import frames
from proxy.demo.node import DemoNode
from proxy.demo.node_script import Script
from tests.end_to_end.program import Program, the_program
from tests.end_to_end.sessions import ct_session
from tests.end_to_end.site import Site
from tests.support.peers import free_port

DISPATCHES = 150
MEMORY_MIB = 110
"""What the program may take; a MiB kept for each association would be three times as much."""


def memory_mib(program: Program) -> float:
    lines = Path(f"/proc/{program.process.pid}/status").read_text().splitlines()
    resident = next(line for line in lines if line.startswith("VmRSS"))
    return int(resident.split()[1]) / 1024


async def answer_seconds(site: Site) -> float:
    pongs = len(site.backend.frames_named("pong"))
    asked = trio.current_time()
    await site.backend.send_event(frames.control_ping())
    await site.until(lambda: len(site.backend.frames_named("pong")) > pongs)
    return trio.current_time() - asked


async def test_a_flood_of_orders_for_four_nodes_of_which_one_is_dead_and_one_slow(
    site: Site,
) -> None:
    classes = [CTImageStorage]
    dead = DemoNode("DEAD")
    dead.port = free_port()
    slow = DemoNode("SLOW", script=Script(delay_s=0.1), sop_classes=classes)
    one, two = (DemoNode(title, sop_classes=classes) for title in ("ONE", "TWO"))
    async with one.running(), two.running(), slow.running():
        site.has(one=one, two=two, slow=slow, dead=dead)
        for number in range(DISPATCHES):
            site.offer(f"sess-{number}", ct_session(number, 2))
        async with the_program(site, dicom__retry_delay_seconds="0.1") as program:
            ordered = [
                await site.dispatch(
                    f"sess-{number}",
                    *(("one", "two", "slow", "dead") if number % 10 == 0 else ("one", "two")),
                )
                for number in range(DISPATCHES)
            ]
            slowest = most = 0.0
            while not all(site.backend.statuses.get((each, None)) for each in ordered):
                slowest = max(slowest, await answer_seconds(site))
                most = max(most, memory_mib(program))
                await trio.sleep(0.2)
            assert await program.terminate() == 0
    assert len(one.holds) == len(two.holds) == 2 * DISPATCHES
    assert len(slow.holds) == 2 * DISPATCHES / 10
    assert len(slow.arrivals) == len(slow.holds)
    assert slowest < 3
    assert most < MEMORY_MIB
