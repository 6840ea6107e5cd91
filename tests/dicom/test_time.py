"""The time limits as they are by default, on a virtual clock and a virtual network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from proxy.dicom.association import Target, associate
from proxy.dicom.contexts import plan
from proxy.dicom.storage import StoreInterrupted, store, verify
from proxy.errors import AssociationLost, NodeUnreachable
from proxy.machines.upper_layer import Clocks
from tests.dicom import scripted as node
from tests.dicom.objects import write_ct
from tests.dicom.scripted import Peer
from tests.dicom.virtual import CAPACITY, VirtualNetwork, VirtualStream

TARGET = Target("pacs", 104, "PACS", "ITH")
CLOCKS = Clocks()


@asynccontextmanager
async def network(script: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[VirtualNetwork]:
    async def handle(stream: VirtualStream) -> None:
        await script(Peer(stream))

    async with trio.open_nursery() as nursery:
        yield VirtualNetwork(nursery, {("pacs", 104): handle})
        nursery.cancel_scope.cancel("the test is over")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instance"


async def test_a_node_that_does_not_exist(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(NodeUnreachable):
            await verify(VirtualNetwork(nursery, {}), TARGET, CLOCKS)


async def test_no_answer_costs_the_time_for_the_answer(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.until_end()

    begun = trio.current_time()
    async with network(script) as virtual:
        with pytest.raises(AssociationLost) as caught:
            await verify(virtual, TARGET, CLOCKS)
        took = trio.current_time() - begun
    assert caught.value.code == "timeout"
    assert took == pytest.approx(CLOCKS.answer + CLOCKS.abort, abs=0.01)


async def be_silent(_: Peer) -> None:
    await trio.sleep_forever()


async def speak_all_the_time(peer: Peer) -> None:
    while True:
        await trio.sleep(CLOCKS.stall * 0.4)
        await peer.send(node.data(node.pdv(b"\0", control=1)))


@pytest.mark.parametrize("behave", [be_silent, speak_all_the_time])
async def test_a_node_that_takes_nothing_costs_the_time_for_a_stall(
    autojump_clock: MockClock, path: Path, behave: Callable[[Peer], Awaitable[None]]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await behave(peer)

    instance = write_ct(path, 1_000_000)
    (proposals,) = plan([instance])
    begun = trio.current_time()
    async with network(script) as virtual:
        with pytest.raises(StoreInterrupted) as caught:
            async with associate(virtual, TARGET, proposals, CLOCKS) as association:
                await store(association, instance, path)
        took = trio.current_time() - begun
        assert [wire.was_reset for wire in virtual.wires] == [True]
    assert (caught.value.code, caught.value.sent_whole) == ("stalled", False)
    assert took == pytest.approx(CLOCKS.stall, abs=0.01)


async def test_a_node_that_asks_for_release_within_a_data_set_does_not_get_it_whole(
    autojump_clock: MockClock, path: Path
) -> None:
    """Otherwise the node might store an instance that counts as unsent."""
    received = trio.Event()
    rest = b""

    async def script(peer: Peer) -> None:
        nonlocal rest
        await peer.accept_all()
        await peer.pdu()
        await trio.sleep(1)
        await peer.send(node.RELEASE_RQ)
        await trio.sleep(0.01)  # read on at once, it might have it all before the request is heard
        rest = await peer.until_end()
        received.set()

    instance = write_ct(path, 4 * CAPACITY)  # the most of it is not sent by then
    (proposals,) = plan([instance])
    async with network(script) as virtual:
        with pytest.raises(StoreInterrupted) as caught:
            async with associate(virtual, TARGET, proposals, CLOCKS) as association:
                await store(association, instance, path)
        await received.wait()
        assert virtual.wires[0].was_reset
    assert caught.value.code == "released"
    assert not caught.value.sent_whole
    assert len(rest) < instance.size - instance.offset


async def test_a_node_may_take_a_byte_a_minute(autojump_clock: MockClock, path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        for _ in range(5):
            await trio.sleep(CLOCKS.stall - 1)
            peer.read_ahead(await peer.stream.receive_some(1))
        await peer.message()
        await peer.send(node.data(node.pdv(node.command(node.response(0)))))
        await peer.finish()

    instance = write_ct(path, 1_000_000)
    (proposals,) = plan([instance])
    async with (
        network(script) as virtual,
        associate(virtual, TARGET, proposals, CLOCKS) as association,
    ):
        result = await store(association, instance, path)
    assert result.status == 0


@pytest.mark.parametrize("megabytes", [0.01, 5])
async def test_the_time_for_a_response_grows_with_the_object(
    autojump_clock: MockClock, path: Path, megabytes: float
) -> None:
    size = int(megabytes * 1e6)

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message()
        await trio.sleep_forever()

    instance = write_ct(path, size)
    (proposals,) = plan([instance])
    begun = trio.current_time()
    async with network(script) as virtual:
        with pytest.raises(StoreInterrupted) as caught:
            async with associate(virtual, TARGET, proposals, CLOCKS) as association:
                await store(association, instance, path)
        took = trio.current_time() - begun
    assert (caught.value.code, caught.value.sent_whole) == ("timeout", True)
    expected = CLOCKS.response + CLOCKS.response_per_megabyte * megabytes + CLOCKS.abort
    assert expected <= took < expected + 1.1


async def test_a_missing_release_reply_costs_little(autojump_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message(has_data=False)
        await peer.send(node.data(node.pdv(node.command(node.response(0, kind=0x8030)))))
        await peer.until_end()

    begun = trio.current_time()
    async with network(script) as virtual:
        await verify(virtual, TARGET, CLOCKS)
        took = trio.current_time() - begun
    assert took == pytest.approx(CLOCKS.release + CLOCKS.abort, abs=0.01)


async def test_cancelled_at_any_step_everything_is_closed(
    autojump_clock: MockClock, path: Path
) -> None:
    async def script(peer: Peer) -> None:
        with suppress(AssertionError):  # It reads what should not be there when we cancel.
            await peer.accept_all()
            await peer.message()
            await trio.sleep(1)
            await peer.send(node.data(node.pdv(node.command(node.response(0)))))
            await peer.finish()

    instance = write_ct(path, 300_000)
    (proposals,) = plan([instance])
    whole = 0.0
    for step in range(400):
        at = step * 0.003
        async with network(script) as virtual:
            with trio.move_on_after(at) as scope:
                async with associate(virtual, TARGET, proposals, CLOCKS) as association:
                    await store(association, instance, path)
            assert all(wire.send_now(b"x") is False for wire in virtual.wires)
        if not scope.cancelled_caught:
            whole = at
            break
    assert 1 < whole < 1.2
