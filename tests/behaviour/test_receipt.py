"""What ITH has taken and lost again: final reports reach its application, and reach it once more.

The whole program on a virtual clock, in a virtual network, so that hours pass in moments.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from proxy.demo import frames
from proxy.demo.backend import FINAL, DemoBackend
from proxy.runtime.offload import Inline
from proxy.service import serve
from proxy.settings import DicomSettings, IthSettings, LimitSettings, Secret, Settings
from proxy.simulation.internet import Internet
from proxy.simulation.node import SimulatedNode
from proxy.simulation.world import Watchdog
from tests.support.clocks import VirtualClock
from tests.support.program import configure, offer
from tests.test_simulated import HOST, PACS, Ith

ORDER, NEXT_ORDER = "corr_000000000001", "corr_000000000002"
STREAMS = ("a", None)
"""Of each order: its one node's, and the closing message."""
A_MOMENT_S, A_MINUTE_S, AN_HOUR_S = 3.0, 60.0, 3600.0
RARELY = IthSettings(ping_seconds=60.0, heartbeat=False)


@asynccontextmanager
async def a_site(directory: Path, ith_settings: IthSettings = RARELY) -> AsyncIterator[Ith]:
    """Run the proxy, its ITH and one node that takes everything."""
    rng = Random(1)
    ith, node, watchdog = Ith(), SimulatedNode(rng), Watchdog()
    async with AsyncExitStack() as stack:
        trio.lowlevel.add_instrument(watchdog)
        stack.callback(trio.lowlevel.remove_instrument, watchdog)
        world = await stack.enter_async_context(trio.open_nursery())
        internet = Internet(rng, {HOST: "127.0.0.1"}, world)
        internet.install()
        watchdog.internet = internet
        internet.nodes[PACS] = ("a", node.serve)
        await stack.enter_async_context(ith.running())
        configure(ith, [frames.rest_node("a", "A", *PACS)])
        offer(ith)
        settings = Settings(
            ith=replace(ith_settings, url=f"http://{HOST}:{ith.port}"),
            dicom=DicomSettings(echo_interval_seconds=AN_HOUR_S),
            limits=LimitSettings(reserve_gb=0.0),
            state_dir=directory,
            token=Secret(ith.key),
        )
        async with trio.open_nursery() as program:
            supervisor = await program.start(
                partial(
                    serve,
                    settings,
                    network=internet,
                    offload=lambda _: Inline(),
                    clock=VirtualClock(),
                    rng=rng,
                )
            )
            with trio.fail_after(24 * AN_HOUR_S):
                await ith.wait_for(lambda ith: bool(ith.frames_named("config_update")))
                yield ith
            supervisor.drain("the test is over")
        world.cancel_scope.cancel("the program has ended")


async def order(ith: Ith, correlation_id: str) -> None:
    await ith.send_event(frames.session_dispatch("sess-1", ["a"], correlation_id=correlation_id))


async def ended(ith: Ith, correlation_id: str) -> None:
    """Wait until ITH's application has heard how the order ended."""
    await ith.wait_for(lambda ith: all(finals(ith, correlation_id)))


async def reconnected(ith: Ith) -> None:
    """Cut the link, and wait until the proxy is back."""
    links = ith.connections
    ith.drop()
    await ith.wait_for(lambda ith: ith.connections > links and ith.online)


def finals(ith: DemoBackend, correlation_id: str) -> list[int]:
    """The number of final reports that ITH's application has, by stream."""
    return [
        sum(payload["status"] in FINAL for payload in ith.statuses[correlation_id, stream])
        for stream in STREAMS
    ]


def kept(directory: Path) -> int:
    """The number of reports in the closed ledger."""
    with closing(sqlite3.connect(directory / "ledger.db")) as ledger:
        count: int = ledger.execute("SELECT count(*) FROM report").fetchone()[0]
        return count


async def test_what_a_dead_application_never_saw_is_told_to_its_successor(
    directory: Path, autojump_clock: MockClock
) -> None:
    async with a_site(directory) as ith:
        await order(ith, ORDER)
        ith.die()
        await trio.sleep(AN_HOUR_S)
        assert (ith.connections, ith.online) == (1, True)  # every ping was answered
        assert not ith.statuses

        ith.revive()
        await ith.wait_for(lambda ith: ith.connections == 2 and ith.online)

        await trio.sleep(A_MOMENT_S)
        assert finals(ith, ORDER) == [1, 1]


async def test_a_dead_application_is_waited_for(directory: Path, autojump_clock: MockClock) -> None:
    """Its WebSocket library takes link after link."""
    async with a_site(directory) as ith:
        await order(ith, ORDER)
        ith.die()
        await trio.sleep(A_MINUTE_S)
        await reconnected(ith)
        await trio.sleep(AN_HOUR_S)
        assert (ith.connections > 10, not ith.statuses) == (True, True)

        ith.revive()

        await ended(ith, ORDER)


async def test_the_final_states_of_the_last_hour_are_said_again_after_a_reconnect(
    directory: Path, autojump_clock: MockClock
) -> None:
    async with a_site(directory) as ith:
        await order(ith, ORDER)
        await trio.sleep(AN_HOUR_S + A_MINUTE_S)
        await order(ith, NEXT_ORDER)
        await trio.sleep(A_MINUTE_S)
        assert (finals(ith, ORDER), finals(ith, NEXT_ORDER)) == ([1, 1], [1, 1])

        for _ in range(2):
            ith.statuses.clear()  # ITH is restored as it was minutes ago
            await reconnected(ith)
            await trio.sleep(10 * A_MINUTE_S)
            assert (finals(ith, ORDER), finals(ith, NEXT_ORDER)) == ([0, 0], [1, 1])

        ith.statuses.clear()
        await trio.sleep(AN_HOUR_S)
        await reconnected(ith)
        await trio.sleep(A_MINUTE_S)
        assert finals(ith, NEXT_ORDER) == [0, 0]
    assert kept(directory) == 0


async def test_an_outage_does_not_use_up_the_hour(
    directory: Path, autojump_clock: MockClock
) -> None:
    async with a_site(directory) as ith:
        await order(ith, ORDER)
        await trio.sleep(A_MINUTE_S)
        ith.statuses.clear()
        await ith.vanish()
        await trio.sleep(3 * AN_HOUR_S)
        await ith.listen()

        await ended(ith, ORDER)

        await trio.sleep(AN_HOUR_S + 5 * A_MINUTE_S)
        assert finals(ith, ORDER) == [1, 1]
    assert kept(directory) == 0


@pytest.mark.parametrize("asks", [True, False])
async def test_where_no_health_update_is_answered_a_pong_is_the_proof(
    directory: Path, autojump_clock: MockClock, asks: bool
) -> None:
    async with a_site(directory, replace(RARELY, health_update=asks)) as ith:
        ith.script.answer = False
        await reconnected(ith)
        await order(ith, ORDER)
        await trio.sleep(2 * A_MINUTE_S)

        await reconnected(ith)
        await trio.sleep(A_MOMENT_S)  # what is unproven is said by now
        assert finals(ith, ORDER) == [1, 1]
        await trio.sleep(AN_HOUR_S + 5 * A_MINUTE_S)
        assert finals(ith, ORDER) == [2, 2]
    assert kept(directory) == 0
