"""Many orders at once for four nodes, of which one is dead and one slow; and what came of it.

    flood = await flooded(site, tmp_path, orders=1000)

The proxy and the nodes are programs of their own: the test's process plays ITH and has enough to
do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from proxy.demo import frames
from proxy.demo.archives import zip_session
from proxy.demo.encoding import SampleInstance
from proxy.demo.frames import JsonObject
from proxy.demo.node import DemoNode
from tests.end_to_end.program import Program, the_program
from tests.end_to_end.sessions import hashes_in, many_sessions
from tests.end_to_end.site import Site
from tests.support.peers import Node, free_port, storescp
from tests.support.relay import relay

URGENT = 10
"""They are sent last."""
WARM = 0.1
"""This part of the orders is done when memory has its size."""
EACH_S = 0.24
"""For an order, at the most."""
BETWEEN_PINGS_S = 0.05


@dataclass(frozen=True)
class Answer:
    """A pong: the seconds it took, and how many other messages came before it."""

    seconds: float
    messages: int


@dataclass
class Flood:
    """The instances sent and stored, the reports to ITH, and the resources of the program."""

    sessions: list[list[SampleInstance]]
    ids: list[str]
    """The correlation ids in the order in which they were sent; the last ones are urgent."""
    for_all: range
    """The orders that are for the slow and the dead node too."""
    seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    warm_mib: float = 0.0
    most_mib: float = 0.0
    exit_code: int = -1
    files: dict[str, int] = field(default_factory=dict)
    """By node, how many it has stored."""
    stored: dict[str, dict[str, str]] = field(default_factory=dict)
    """By node, the hash of each by SOP Instance UID."""
    completed: dict[str, list[str]] = field(default_factory=dict)
    """By node, the correlation ids in the order in which ITH heard of their end."""
    at_the_dead: list[JsonObject | None] = field(default_factory=list)
    """The outcomes of the orders for the dead node."""


async def flooded(site: Site, root: Path, orders: int) -> Flood:
    """Send the orders at once, ping all the while, and return when all have ended."""
    sessions = many_sessions(81, orders)
    for number, session in enumerate(sessions):
        site.backend.rest.offer("session", f"sess-{number}", zip_session(session, level=0))
    for_all = range(0, orders, 10)
    events = [
        frames.session_dispatch(
            f"sess-{number}",
            ["one", "two", "slow", "dead"] if number in for_all else ["one", "two"],
            priority="urgent" if number >= orders - URGENT else "normal",
        )
        for number in range(orders)
    ]
    flood = Flood(sessions, [str(event["correlation_id"]) for event in events], for_all)
    dead = DemoNode("DEAD")
    dead.port = free_port()

    def done() -> int:
        return sum((each, None) in site.backend.statuses for each in flood.ids)

    with _disks(root, "ONE", "TWO", "SLOW") as (one, two, third):
        async with relay(third, delay_s=0.05) as slow:
            site.has(one=one, two=two, slow=slow, dead=dead)
            async with the_program(site, dicom__retry_delay_seconds="0.1") as program:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_ping_all_the_time, site, flood.answers)
                    began = trio.current_time()
                    for event in events:
                        await site.backend.send_event(event)
                    await site.until(lambda: done() >= WARM * orders)
                    flood.warm_mib = _memory_mib(program)
                    with trio.fail_after(EACH_S * orders):
                        while done() < orders:
                            flood.most_mib = max(flood.most_mib, _memory_mib(program))
                            await trio.sleep(0.2)
                    flood.seconds = trio.current_time() - began
                    nursery.cancel_scope.cancel("the flood is over")
                flood.exit_code = await program.terminate()
    for name, node in (("one", one), ("two", two), ("slow", third)):
        flood.files[name], flood.stored[name] = len(node.stored), hashes_in(node.stored)
        flood.completed[name] = _completed_at(site, name)
    flood.at_the_dead = [site.backend.final_status(flood.ids[number], "dead") for number in for_all]
    return flood


@contextmanager
def _disks(root: Path, *titles: str) -> Iterator[list[Node]]:
    with ExitStack() as nodes:
        yield [
            nodes.enter_context(storescp(root / title, "+B", "+uf", ae_title=title))
            for title in titles
        ]


def _memory_mib(program: Program) -> float:
    lines = Path(f"/proc/{program.process.pid}/status").read_text().splitlines()
    resident = next(line for line in lines if line.startswith("VmRSS"))
    return int(resident.split()[1]) / 1024


async def _ping_all_the_time(site: Site, answers: list[Answer]) -> None:
    while True:
        answers.append(await _answer(site))
        await trio.sleep(BETWEEN_PINGS_S)


async def _answer(site: Site) -> Answer:
    asked, heard = trio.current_time(), len(site.backend.heard)
    await site.backend.send_event(frames.control_ping())
    while True:
        for messages, each in enumerate(site.backend.heard[heard:]):
            if each.frame.get("type") == "pong":
                return Answer(each.at - asked, messages)
        await site.backend.changed()


def _completed_at(site: Site, node_id: str) -> list[str]:
    return [
        each.frame["correlation_id"]
        for each in site.backend.heard
        if each.frame.get("event_type") == "dispatch.status"
        and each.frame["payload"].get("node_id") == node_id
        and each.frame["payload"]["status"] == "completed"
    ]
