from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator

import pytest
import trio

from proxy.errors import AssociationLost, NodeUnreachable
from proxy.runtime.wire import TcpNetwork, TcpWire
from tests.support.peers import free_port
from tests.support.waiting import PATIENCE_S


@pytest.fixture
async def pair() -> AsyncIterator[tuple[TcpWire, socket.socket]]:
    """A wire, and the node's end of it as a plain non-blocking socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        wire = await TcpNetwork().connect("127.0.0.1", server.getsockname()[1])
        node, _ = server.accept()
    node.setblocking(False)
    with node:
        yield wire, node
    wire.close()


def option(wire: TcpWire, level: int, name: int) -> int:
    return wire._socket.getsockopt(level, name)


async def test_the_socket_is_set_as_measured(pair: tuple[TcpWire, socket.socket]) -> None:
    wire, _ = pair
    assert option(wire, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert option(wire, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert option(wire, socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    assert option(wire, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
    assert option(wire, socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 0


async def test_what_comes_is_acknowledged_at_once(pair: tuple[TcpWire, socket.socket]) -> None:
    wire, node = pair
    wire._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    node.send(b"x")
    assert await wire.receive_some() == b"x"
    assert option(wire, socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1


async def test_a_node_that_never_stops_speaking_is_not_the_only_one_served(
    pair: tuple[TcpWire, socket.socket],
) -> None:
    """There is always something to receive; all others have their turn, and deadlines are heard."""
    wire, node = pair
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        with trio.move_on_after(0.2) as scope:
            for _ in range(1_000_000):
                node.send(b"x")
                assert await wire.receive_some()
        assert turns
        nursery.cancel_scope.cancel("the time is over")
    assert scope.cancelled_caught


async def test_a_gathered_send_may_be_of_any_length(
    pair: tuple[TcpWire, socket.socket],
) -> None:
    wire, node = pair
    buffers = [bytes((n % 256,)) * 3 for n in range(3000)]
    taken = [0]
    while sum(taken) < 9000:
        taken.append(await wire.send_some(buffers[sum(taken) // 3 :]))
    came = b""
    while len(came) < 9000:
        came += node.recv(1 << 20)
    assert came == b"".join(buffers)
    assert taken == [0, 3 * 1024, 3 * 1024, 9000 - 6 * 1024]


async def test_a_send_that_blocks_hears_the_node(pair: tuple[TcpWire, socket.socket]) -> None:
    wire, node = pair
    block = memoryview(bytes(1 << 22))
    heard = trio.Event()

    async def speak() -> None:
        await trio.sleep(0.05)
        node.send(b"abort")
        heard.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speak)
        with trio.fail_after(PATIENCE_S):
            while await wire.send_some([block]):
                pass
    assert heard.is_set()
    assert wire.receive_now() == b"abort"
    assert wire.receive_now() is None
    assert wire.queued() > 0


async def test_a_send_that_blocks_goes_on_when_the_node_reads(
    pair: tuple[TcpWire, socket.socket],
) -> None:
    wire, node = pair
    total = 1 << 24
    block = memoryview(bytes(total))
    came = 0

    async def read() -> None:
        nonlocal came
        while came < total:
            await trio.lowlevel.wait_readable(node)
            came += len(node.recv(1 << 20))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        sent = 0
        while sent < total:
            sent += await wire.send_some([block[sent:]])
    assert came == total


async def test_a_blocked_send_can_be_cancelled(pair: tuple[TcpWire, socket.socket]) -> None:
    wire, _ = pair
    with trio.move_on_after(0.1) as scope:
        while await wire.send_some([memoryview(bytes(1 << 22))]):
            pass
    assert scope.cancelled_caught


async def test_a_reset_is_an_association_lost(pair: tuple[TcpWire, socket.socket]) -> None:
    wire, node = pair
    node.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
    node.close()
    with pytest.raises(AssociationLost) as caught:
        await wire.receive_some()
    assert caught.value.code == "closed"
    with pytest.raises(AssociationLost):
        await wire.send_some([b"x"])
    assert not wire.send_now(b"x")


async def test_the_end_of_the_stream_is_empty(pair: tuple[TcpWire, socket.socket]) -> None:
    wire, node = pair
    node.close()
    assert await wire.receive_some() == b""


@pytest.mark.parametrize("reset", [True, False])
async def test_closing_twice_is_once(pair: tuple[TcpWire, socket.socket], *, reset: bool) -> None:
    wire, node = pair
    wire.close(reset=reset)
    wire.close(reset=reset)
    await trio.lowlevel.wait_readable(node)
    if reset:
        with pytest.raises(ConnectionResetError):
            node.recv(1)
    else:
        assert node.recv(1) == b""


async def test_nobody_listens() -> None:
    with pytest.raises(NodeUnreachable) as caught:
        await TcpNetwork().connect("127.0.0.1", free_port())
    assert caught.value.code == "ECONNREFUSED"
    assert caught.value.hint


@pytest.mark.parametrize("host", ["node.invalid", "x" * 80, "a..b"])
async def test_a_name_that_cannot_be_resolved(host: str) -> None:
    with pytest.raises(NodeUnreachable) as caught:
        await TcpNetwork().connect(host, 104)
    assert caught.value.code == "dns"


async def test_the_code_of_several_attempts_is_the_first_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(host: str, port: int) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        causes = [OSError(errno.EHOSTUNREACH, f"{host}:{port}"), OSError(errno.ETIMEDOUT, "")]
        raise OSError("all attempts failed") from ExceptionGroup("several", causes)

    monkeypatch.setattr(trio, "open_tcp_stream", fail)
    with pytest.raises(NodeUnreachable, match="no route") as caught:
        await TcpNetwork().connect("192.0.2.1", 104)
    assert caught.value.code == "EHOSTUNREACH"


@pytest.mark.skipif(not socket.has_ipv6, reason="this host has no IPv6")
async def test_ipv6() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        wire = await TcpNetwork().connect("::1", server.getsockname()[1])
        node, _ = server.accept()
    with node:
        assert wire.local == "::1"
        assert await wire.send_some([b"ab", memoryview(b"cd")]) == 4
        assert node.recv(10) == b"abcd"
    wire.close()
