"""The complete program in one process, on a virtual clock and in a virtual network: one order.

Nothing of ``proxy`` is patched: ``serve`` is given a network, a way to run blocking functions, a
clock and chance, and trio its own. The WebSocket, HTTP and DICOM are spoken in full, byte by byte.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import trio
from trio.testing import MockClock

from proxy.demo import frames, http
from proxy.demo.backend import DemoBackend
from proxy.fsm import Step
from proxy.runtime.offload import Inline
from proxy.runtime.runner import OBSERVERS, Run
from proxy.service import serve
from proxy.settings import IthSettings, LimitSettings, Secret, Settings
from tests.dicom.virtual import VirtualNetwork
from tests.ledger.make import fast_directory
from tests.support.clocks import VirtualClock
from tests.support.program import configure, offer
from tests.support.schedules import shuffled
from tests.support.virtual_node import VirtualNode
from tests.support.virtual_sockets import OURS, VirtualInternet

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
    node: VirtualNode
    sent: dict[str, str]
    internet: VirtualInternet

    @property
    def trace(self) -> str:
        """The hash of all of it, with the times on the virtual clock."""
        all_of_it = [self.steps, self.ith.heard, self.node.stored]
        return hashlib.sha256(json.dumps(all_of_it).encode()).hexdigest()


async def one_order(directory: Path, seed: int) -> Simulated:
    """Let the proxy start, be asked how it is, carry out one order, and stop."""
    rng = Random(seed)
    ith, node = Ith(), VirtualNode(rng)
    ith.script.ping_every_s = A_DAY_S  # ITH's own would have the real time in them
    internet = VirtualInternet({HOST: "127.0.0.1"}, rng)
    internet.install()
    steps: list[tuple[float, str, str, str, str]] = []

    def note(run: Run[Any, Any, Any], step: Step[Any, Any, Any]) -> None:
        name, before, after = run.machine.name, step.before.name, step.after.name
        steps.append((trio.current_time(), name, step.row, before, after))

    OBSERVERS.append(note)
    try:
        async with ith.running(), trio.open_nursery() as world:
            configure(ith, [frames.rest_node("a", "A", *PACS)])
            sent = {each.sop_instance_uid: each.sha256 for each in offer(ith)}
            settings = Settings(
                ith=IthSettings(url=f"http://{HOST}:{ith.port}"),
                limits=LimitSettings(reserve_gb=0.0),
                state_dir=directory,
                token=Secret(ith.key),
            )
            proxy = partial(
                serve,
                settings,
                network=VirtualNetwork(world, {PACS: node.handle}),
                offload=lambda _: Inline(),
                clock=VirtualClock(),
                rng=Random(rng.random()),
            )
            async with trio.open_nursery() as program:
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
                supervisor.drain("the simulation is over")
            world.cancel_scope.cancel("the program has ended")
    finally:
        OBSERVERS.remove(note)
    return Simulated(steps, ith, node, sent, internet)


def simulate(seed: int) -> Simulated:
    with fast_directory() as directory, shuffled(seed):
        return trio.run(one_order, directory, seed, clock=MockClock(autojump_threshold=0))


def test_the_same_seed_gives_the_same_run() -> None:
    one, again, other = simulate(1), simulate(1), simulate(2)
    final = one.ith.final_status(ORDER)
    assert final is not None
    assert (final["status"], final["files_sent"]) == ("completed", len(one.sent))
    assert {each.sop_instance_uid: each.sha256 for each in one.node.stored} == one.sent
    assert [frame["ip_address"] for frame in one.ith.frames_named("config_update")] == [OURS]
    assert {*one.internet.resolved} == {HOST}
    assert (one.steps, one.ith.heard, one.node.stored) == (
        again.steps,
        again.ith.heard,
        again.node.stored,
    )
    assert one.trace == again.trace
    assert one.trace != other.trace
