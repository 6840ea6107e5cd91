"""Nodes that never stop speaking: they hold up nobody else, and nothing of it is kept.

The node is a thread that writes as fast as the kernel takes it, so that there is always something
to receive.
"""

from __future__ import annotations

import socket
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
import trio

from proxy.dicom.association import Target, associate
from proxy.dicom.contexts import ECHO, plan
from proxy.dicom.pdu import ALLOWANCE, InvalidPdu, PduReader
from proxy.dicom.storage import store, verify
from proxy.errors import AssociationLost
from proxy.runtime.wire import TcpNetwork
from tests.dicom import scripted as node
from tests.dicom.objects import write_ct
from tests.dicom.scripted import CLOCKS
from tests.support.waiting import PATIENCE_S

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

FLOODS = {
    "requests for release": node.RELEASE_RQ,
    "replies to a release": node.RELEASE_RP,
    "P-DATA without a PDV": node.data(),
    "empty fragments of a command": node.data(node.pdv(b"", control=1)),
    "empty fragments of a data set": node.data(node.pdv(b"", control=0)),
    "many empty fragments in one PDU": node.data(*[node.pdv(b"", control=1)] * 100_000),
    "fragments of one byte": node.data(node.pdv(b"\0", control=1)),
    "answers to nothing": node.data(node.pdv(node.command(node.response(0, 77)))),
    "acceptances": node.accept({1: (0, IMPLICIT)}),
    "an acceptance of many items": node.accept(
        {1: (0, IMPLICIT)}, extra=node.item(0x99, b"") * 9000
    ),
    "garbage": node.GARBAGE,
    "a PDU of 4 GiB": b"\x04\0\xff\xff\xff\xff" + bytes(60_000),
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@contextmanager
def flooding(flood: bytes, *answers: bytes) -> Iterator[Target]:
    """Take one connection, send an answer to each thing that comes, then the flood, for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    for answer in answers:
                        connection.recv(65536)
                        connection.sendall(answer)
                    burst = flood * (1 + (1 << 20) // len(flood))
                    while True:
                        connection.sendall(burst)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Target("127.0.0.1", server.getsockname()[1], "NODE", "ITH")
        server.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "the socket is still open"


@contextmanager
def memory_under(mebibytes: float) -> Iterator[None]:
    """Show that no more was allocated at any time in the block."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < mebibytes * (1 << 20)


@pytest.fixture(params=[*FLOODS.values()], ids=[*FLOODS])
def flood(request: pytest.FixtureRequest) -> bytes:
    content: bytes = request.param
    return content


class Others:
    """Another task, which wants its turn all the time."""

    def __init__(self) -> None:
        self.turns = 0

    async def run(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.turns += 1


async def test_a_c_echo_meets_a_flood(network: TcpNetwork, flood: bytes) -> None:
    """The regular C-ECHO needs no order: its association ends within its clocks."""
    clocks = msgspec.structs.replace(CLOCKS, response=1.0, release=0.3, answer=1.0)
    others = Others()
    with flooding(flood, node.accept({1: (0, IMPLICIT)})) as target, memory_under(24):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others.run)
            with pytest.raises(AssociationLost):
                await verify(network, target, clocks)
            nursery.cancel_scope.cancel("it is over")
    assert others.turns > 0


async def test_the_request_for_an_association_meets_a_flood(
    network: TcpNetwork, flood: bytes
) -> None:
    clocks = msgspec.structs.replace(CLOCKS, answer=1.0)
    with flooding(flood, b"") as target, memory_under(24), pytest.raises(AssociationLost):
        await verify(network, target, clocks)


async def test_a_c_store_meets_a_flood(network: TcpNetwork, tmp_path: Path, flood: bytes) -> None:
    """The node takes nothing of the data set either."""
    instance = write_ct(tmp_path / "ct", 12_000_000)
    (proposals,) = plan([instance])
    accepted = node.accept({1: (0, EXPLICIT), 3: (0, IMPLICIT)})
    clocks = msgspec.structs.replace(CLOCKS, stall=1.0, response=1.0)
    with (
        flooding(flood, accepted) as target,
        memory_under(24),
        pytest.raises(AssociationLost) as caught,
    ):
        async with associate(network, target, proposals, clocks) as association:
            await store(association, instance, tmp_path / "ct")
    assert caught.value.code in {"protocol", "released", "closed", "stalled"}


async def test_a_release_meets_a_flood(network: TcpNetwork, flood: bytes) -> None:
    """Nothing that happens at a release is an error."""
    clocks = msgspec.structs.replace(CLOCKS, release=1.0)
    accepted = node.accept({1: (0, IMPLICIT)})
    with flooding(flood, accepted, b"") as target, memory_under(24):
        async with associate(network, target, (ECHO,), clocks):
            pass


def test_nothing_is_kept_behind_an_invalid_pdu() -> None:
    reader = PduReader()
    reader.feed(node.GARBAGE)
    with pytest.raises(InvalidPdu):
        [*reader.pdus()]
    assert reader.is_broken
    more = bytes(1 << 20)
    with memory_under(1):
        for _ in range(200):
            reader.feed(more)
            assert [*reader.pdus()] == []


@pytest.mark.parametrize("times", [1, 3])
def test_an_allowance_is_for_one_answer(times: int) -> None:
    reader = PduReader()
    for _ in range(times):
        reader.allow()
        reader.feed(node.RELEASE_RP * ALLOWANCE)
        assert len([*reader.pdus()]) == ALLOWANCE
    reader.feed(node.RELEASE_RP)
    with pytest.raises(InvalidPdu):
        [*reader.pdus()]


async def test_the_socket_is_reset_behind_an_invalid_pdu(network: TcpNetwork) -> None:
    """Closed in order, it would go on taking what nobody reads."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended: list[str] = []

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(node.GARBAGE)
                try:
                    while connection.recv(65536):
                        pass
                    ended.append("closed")
                except ConnectionResetError:
                    ended.append("reset")

        thread = threading.Thread(target=serve)
        thread.start()
        target = Target("127.0.0.1", server.getsockname()[1], "NODE", "ITH")
        with pytest.raises(AssociationLost):
            await verify(network, target, CLOCKS)
        await trio.to_thread.run_sync(thread.join, PATIENCE_S)
    assert ended == ["reset"]
