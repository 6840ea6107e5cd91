"""The complete program in one process, on a virtual clock and in a virtual network: one order.

Afterwards ITH deletes what was ordered.

Nothing of ``proxy`` is patched: ``serve`` is given a network, a way to run blocking functions, a
clock and chance, and trio its own. The WebSocket, HTTP and DICOM are spoken in full, byte by byte.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import trio
from trio.testing import MockClock

from proxy.demo import frames, http
from proxy.demo.backend import DemoBackend
from proxy.fsm import Step
from proxy.runtime import marks
from proxy.runtime.marks import Mark
from proxy.runtime.offload import Inline
from proxy.runtime.runner import Run, observing
from proxy.service import serve
from proxy.settings import IthSettings, LimitSettings, Secret, Settings
from proxy.simulation.internet import OURS, Internet
from proxy.simulation.node import SimulatedNode
from proxy.simulation.schedule import shuffled
from proxy.simulation.world import Watchdog
from tests.ledger.make import fast_directory
from tests.support.clocks import VirtualClock
from tests.support.program import configure, offer

ORDER = "corr_000000000001"
PING = "corr_000000000002"
HOST = "ith.localhost"
PACS = ("198.51.100.4", 104)
A_DAY_S = 24 * 3600.0


class Ith(DemoBackend):
    """An ITH without a clock or chance of its own.

    It ends each HTTP connection with the answer. Else the HTTP library would decide by the real
    time, the one thing it asks for, whether a connection is too old to be used again.
    """

    async def _answer(self, request: http.HttpRequest, reply: http.Reply) -> None:
        await super()._answer(request, reply)
        raise http.Hangup


@dataclass
class Simulated:
    """The record of a run: the steps of machines, the frames at ITH, the instances at the node."""

    steps: list[tuple[float, str, str, str, str]]
    ith: Ith
    node: SimulatedNode
    sent: dict[str, str]
    internet: Internet
    marks: list[Mark]

    @property
    def trace(self) -> str:
        """The hash of all of it, with the times on the virtual clock."""
        marks = [mark.name for mark in self.marks]
        received = [msgspec.structs.astuple(each) for each in self.node.received]
        all_of_it = [self.steps, self.ith.heard, received, marks]
        return hashlib.sha256(json.dumps(all_of_it).encode()).hexdigest()


async def one_order(directory: Path, seed: int, watchdog: Watchdog) -> Simulated:
    """Let the proxy start, be asked how it is, carry out an order and a deletion, and stop."""
    rng = Random(seed)
    ith, node = Ith(), SimulatedNode(rng)
    ith.script.ping_every_s = A_DAY_S  # ITH's own would have the real time in them
    steps: list[tuple[float, str, str, str, str]] = []
    reached: list[Mark] = []

    def note(run: Run[Any, Any, Any], step: Step[Any, Any, Any]) -> None:
        name, before, after = run.machine.name, step.before.name, step.after.name
        steps.append((trio.current_time(), name, step.row, before, after))

    with observing(note):
        async with AsyncExitStack() as stack:
            world = await stack.enter_async_context(trio.open_nursery())
            internet = Internet(rng, {HOST: "127.0.0.1"}, world)
            internet.install()
            watchdog.internet = internet
            internet.nodes[PACS] = ("a", node.serve)
            await stack.enter_async_context(ith.running())
            configure(ith, [frames.rest_node("a", "A", *PACS)])
            instances = offer(ith)
            sent = {each.sop_instance_uid: each.sha256 for each in instances}
            settings = Settings(
                ith=IthSettings(url=f"http://{HOST}:{ith.port}"),
                limits=LimitSettings(reserve_gb=0.0),
                state_dir=directory,
                token=Secret(ith.key),
            )
            proxy = partial(
                serve,
                settings,
                network=internet,
                offload=lambda _: Inline(),
                clock=VirtualClock(),
                rng=Random(rng.random()),
            )
            async with trio.open_nursery() as program:
                with marks.marking(reached.append):
                    supervisor = await program.start(proxy)
                with trio.fail_after(A_DAY_S):
                    await ith.wait_for(lambda ith: bool(ith.frames_named("config_update")))
                    await ith.send_raw('{"type": "ping"}')
                    await ith.send_event(frames.event_ping() | {"correlation_id": PING})
                    await ith.send_event(
                        frames.session_dispatch("sess-1", ["a"], correlation_id=ORDER)
                    )
                    await ith.wait_for(lambda ith: ith.final_status(ORDER) is not None)
                    await trio.sleep(600)
                    study = instances[0].study_instance_uid
                    await ith.send_event(frames.session_deleted("sess-1", study_instance_uid=study))
                    await trio.sleep(60)
                supervisor.drain("the simulation is over")
            world.cancel_scope.cancel("the program has ended")
    return Simulated(steps, ith, node, sent, internet, reached)


def simulate(seed: int) -> Simulated:
    clock, watchdog = MockClock(autojump_threshold=0), Watchdog()
    with fast_directory() as directory, shuffled(seed):
        return trio.run(one_order, directory, seed, watchdog, clock=clock, instruments=[watchdog])


def test_the_same_seed_gives_the_same_run() -> None:
    one, again, other = simulate(1), simulate(1), simulate(2)
    final = one.ith.final_status(ORDER)
    assert final is not None
    assert (final["status"], final["files_sent"]) == ("completed", len(one.sent))
    assert {each.sop_instance_uid: each.sha256 for each in one.node.received} == one.sent
    assert one.node.violations == []
    assert [frame["ip_address"] for frame in one.ith.frames_named("config_update")] == [OURS]
    assert {*one.internet.looked_up} == {HOST}
    assert (one.steps, one.ith.heard, one.node.received) == (
        again.steps,
        again.ith.heard,
        again.node.received,
    )
    assert one.trace == again.trace
    assert one.trace != other.trace


def test_a_run_with_an_order_and_a_deletion_reaches_every_mark() -> None:
    run = simulate(1)
    assert {*run.marks} == {*Mark}
    by_instance = Mark.INSTANCE_READ, Mark.INSTANCE_SENT, Mark.INSTANCE_ANSWERED
    by_object = Mark.OBJECT_MOVED, Mark.OBJECT_ADOPTED, Mark.OBJECT_REMOVED
    counts = Counter(run.marks)
    assert {counts[mark] for mark in by_instance + by_object} == {len(run.sent)}
