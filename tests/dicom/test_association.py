"""Every row of the association machine, taken by real associations against scripted nodes."""

from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import MockClock

from proxy.dicom import dimse
from proxy.dicom.association import Association, Target, associate
from proxy.dicom.contexts import ECHO
from proxy.dicom.storage import echo, verify
from proxy.errors import AssociationLost, AssociationRejected, NodeError, NodeUnreachable
from proxy.fsm import WHEN_OVER, Event
from proxy.machines import upper_layer as ul
from proxy.machines.association import ASSOCIATION
from proxy.runtime.runner import Run
from proxy.runtime.wire import TcpNetwork, Wire
from tests.dicom import scripted as node
from tests.dicom.scripted import CLOCKS, Peer, scripted
from tests.support.observed import rows_taken
from tests.support.peers import free_port


def fail() -> None:
    raise ZeroDivisionError


async def answer_echo(peer: Peer) -> None:
    await peer.message(has_data=False)
    await peer.send(node.data(node.pdv(node.command(node.response(0, kind=0x8030)))))


async def test_an_echo_goes_through_the_standard_states(network: TcpNetwork) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await answer_echo(peer)
        await peer.finish()

    with rows_taken() as rows:
        async with scripted(script) as target:
            await verify(network, target, CLOCKS)
    assert rows == [
        "ASC-01",
        "ASC-02",
        "ASC-03",
        "ASC-05",
        "ASC-06",
        "ASC-07",
        "ASC-11",
        WHEN_OVER,
    ]


@pytest.mark.parametrize(
    ("result", "source", "reason", "words"),
    [
        (1, 1, 1, "gives no reason"),
        (1, 1, 2, "application context"),
        (1, 1, 3, "our calling AE title"),
        (2, 1, 3, "our calling AE title"),
        (1, 1, 7, "the called AE title"),
        (1, 2, 1, "gives no reason"),
        (1, 2, 2, "version 1"),
        (2, 3, 1, "congested"),
        (2, 3, 2, "limit of associations"),
        (2, 1, 1, "for now"),
        (9, 9, 9, "gives no reason"),
    ],
)
async def test_each_kind_of_rejection_is_named(
    network: TcpNetwork, result: int, source: int, reason: int, words: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(node.reject(result, source, reason))
        await peer.until_end()

    with rows_taken() as rows:
        async with scripted(script) as target:
            with pytest.raises(AssociationRejected, match=words) as caught:
                await verify(network, target, CLOCKS)
    assert (caught.value.result, caught.value.source, caught.value.reason) == (
        result,
        source,
        reason,
    )
    assert caught.value.hint
    assert "ASC-04" in rows


async def test_nobody_listens(network: TcpNetwork) -> None:
    target = Target("127.0.0.1", free_port(), "NODE", "ITH")
    with rows_taken() as rows, pytest.raises(NodeUnreachable, match="refuses") as caught:
        await verify(network, target, CLOCKS)
    assert caught.value.code == "ECONNREFUSED"
    assert rows == ["ASC-01", "ASC-18", WHEN_OVER]


class NeverConnects:
    async def connect(self, host: str, port: int) -> Wire:
        await trio.sleep_forever()
        raise AssertionError


async def test_the_connection_does_not_open_in_time(autojump_clock: MockClock) -> None:
    target = Target("node.example", 104, "NODE", "ITH")
    begun = trio.current_time()
    with rows_taken() as rows, pytest.raises(NodeUnreachable) as caught:
        await verify(NeverConnects(), target, CLOCKS)
    assert caught.value.code == "timeout"
    assert trio.current_time() - begun == pytest.approx(CLOCKS.connect)
    assert rows == ["ASC-01", "ASC-31", WHEN_OVER]


async def test_cancelled_while_connecting(autojump_clock: MockClock) -> None:
    target = Target("node.example", 104, "NODE", "ITH")
    with rows_taken() as rows, trio.move_on_after(1):
        await verify(NeverConnects(), target, CLOCKS)
    assert rows == ["ASC-01", "ASC-15"]


async def test_no_answer_to_the_request(network: TcpNetwork) -> None:
    clocks = msgspec.structs.replace(CLOCKS, answer=0.1)
    heard = b""

    async def script(peer: Peer) -> None:
        nonlocal heard
        await peer.request()
        heard = await peer.until_end()

    with rows_taken() as rows:
        async with scripted(script) as target:
            with pytest.raises(AssociationLost) as caught:
                await verify(network, target, clocks)
    assert caught.value.code == "timeout"
    assert heard == node.abort(0)
    assert rows == ["ASC-01", "ASC-02", "ASC-32", "ASC-99", "ASC-28"]


@pytest.mark.parametrize(
    ("sent", "row", "reason"),
    [
        (node.data(node.pdv(b"")), "ASC-19", 2),
        (node.RELEASE_RQ, "ASC-19", 2),
        (node.RELEASE_RP, "ASC-19", 2),
        (node.ASSOCIATE_RQ, "ASC-19", 2),
        (node.GARBAGE, "ASC-19", 1),
        (b"\x02\x00\xff\xff\xff\xff", "ASC-19", 6),
        (b"\x03\x00\x00\x00\x00\x01\x00", "ASC-19", 6),
        (b"\x02\x00\x00\x00\x00\x02\x00\x01", "ASC-19", 6),
    ],
    ids=[
        "data",
        "release request",
        "release reply",
        "request",
        "garbage",
        "4 GiB",
        "short rejection",
        "short acceptance",
    ],
)
async def test_what_does_not_belong_in_the_answer_is_aborted(
    network: TcpNetwork, sent: bytes, row: str, reason: int
) -> None:
    heard = b""

    async def script(peer: Peer) -> None:
        nonlocal heard
        await peer.request()
        await peer.send(sent)
        heard = await peer.until_end()

    with rows_taken() as rows:
        async with scripted(script) as target:
            with pytest.raises(AssociationLost) as caught:
                await verify(network, target, CLOCKS)
    assert caught.value.code == "protocol"
    assert heard == node.abort(2, reason)
    assert row in rows


async def test_a_node_that_speaks_tls_is_recognised(network: TcpNetwork) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(bytes.fromhex("15030100020250"))
        await peer.until_end()

    async with scripted(script) as target:
        with pytest.raises(AssociationLost) as caught:
            await verify(network, target, CLOCKS)
    assert caught.value.code == "tls"
    assert caught.value.found == "a TLS server answers there"
    assert "TLS" not in caught.value.in_full


@pytest.mark.parametrize(
    ("sent", "row"),
    [
        (node.accept({}), "ASC-19"),
        (node.reject(1, 1, 1), "ASC-19"),
        (node.ASSOCIATE_RQ, "ASC-19"),
        (node.RELEASE_RP, "ASC-19"),
        (node.GARBAGE, "ASC-19"),
        (b"\x04\x00\xff\xff\xff\xff", "ASC-19"),
    ],
    ids=["accept", "reject", "request", "release reply", "garbage", "4 GiB"],
)
async def test_what_does_not_belong_in_an_association_is_aborted(
    network: TcpNetwork, sent: bytes, row: str
) -> None:
    heard = b""

    async def script(peer: Peer) -> None:
        nonlocal heard
        await peer.accept_all()
        await peer.message(has_data=False)
        await peer.send(sent)
        heard = await peer.until_end()

    with rows_taken() as rows:
        async with scripted(script) as target:
            with pytest.raises(AssociationLost) as caught:
                await verify(network, target, CLOCKS)
    assert caught.value.code == "protocol"
    assert heard[:9] == node.abort(2)[:9]
    assert row in rows


@pytest.mark.parametrize("source", [0, 2])
async def test_the_node_aborts(network: TcpNetwork, source: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message(has_data=False)
        await peer.send(node.abort(source, 6))
        await peer.until_end()

    with rows_taken() as rows:
        async with scripted(script) as target:
            with pytest.raises(AssociationLost) as caught:
                await verify(network, target, CLOCKS)
    assert (caught.value.code, caught.value.source, caught.value.reason) == ("abort", source, 6)
    assert rows[-2:] == ["ASC-17", WHEN_OVER]


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["connected", "requested", "accepted", "asked"])
async def test_the_node_goes_without_a_word(network: TcpNetwork, when: str, how: str) -> None:
    async def script(peer: Peer) -> None:
        if when != "connected":
            await peer.request()
        if when in {"accepted", "asked"}:
            await peer.send(node.accept({1: (0, "1.2.840.10008.1.2")}))
        if when == "asked":
            await peer.message(has_data=False)
        if how == "reset":
            peer.reset()

    with rows_taken() as rows:
        async with scripted(script) as target:
            with pytest.raises(AssociationLost) as caught:
                await verify(network, target, CLOCKS)
    assert caught.value.code == "closed"
    assert "ASC-18" in rows


async def test_the_node_releases_first(network: TcpNetwork) -> None:
    heard = b""

    async def script(peer: Peer) -> None:
        nonlocal heard
        await peer.accept_all()
        await peer.message(has_data=False)
        await peer.send(node.RELEASE_RQ)
        heard = await peer.until_end()

    with rows_taken() as rows:
        async with scripted(script) as target:
            with pytest.raises(AssociationLost) as caught:
                await verify(network, target, CLOCKS)
    assert caught.value.code == "released"
    assert heard == node.RELEASE_RP
    assert rows[4:6] == ["ASC-08", "ASC-13"]


async def test_release_collision(network: TcpNetwork) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await answer_echo(peer)
        assert await peer.pdu() == (5, bytes(4))
        await peer.send(node.RELEASE_RQ)
        assert await peer.pdu() == (6, bytes(4))
        await peer.send(node.RELEASE_RP)
        assert await peer.until_end() == b""

    with rows_taken() as rows:
        async with scripted(script) as target:
            await verify(network, target, CLOCKS)
    assert rows[-5:] == ["ASC-07", "ASC-10", "ASC-14", "ASC-11", WHEN_OVER]


async def test_late_data_before_the_release_reply(network: TcpNetwork) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await answer_echo(peer)
        await peer.pdu()
        await peer.send(node.data(node.pdv(b"late", control=0)), node.RELEASE_RP)
        assert await peer.until_end() == b""

    with rows_taken() as rows:
        async with scripted(script) as target:
            await verify(network, target, CLOCKS)
    assert rows[-3:] == ["ASC-06", "ASC-11", WHEN_OVER]


@pytest.mark.parametrize("how", ["silent", "closes", "aborts"])
async def test_a_missing_release_reply_is_no_failure(network: TcpNetwork, how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await answer_echo(peer)
        await peer.pdu()
        if how == "aborts":
            await peer.send(node.abort())
        if how != "closes":
            await peer.until_end()

    with rows_taken() as rows:
        async with scripted(script) as target:
            await verify(network, target, msgspec.structs.replace(CLOCKS, release=0.1))
    assert {"silent": "ASC-33", "closes": "ASC-18", "aborts": "ASC-17"}[how] in rows


@pytest.mark.parametrize(
    ("sent", "row"),
    [
        (node.ASSOCIATE_RQ, "ASC-26"),
        (node.GARBAGE, "ASC-26"),
        (node.abort(), "ASC-28"),
        (b"", "ASC-28"),
        (node.accept({}), "ASC-90"),
        (node.reject(1, 1, 1), "ASC-90"),
        (node.data(node.pdv(b"")), "ASC-90"),
        (node.RELEASE_RQ, "ASC-90"),
        (node.RELEASE_RP, "ASC-90"),
    ],
)
async def test_what_comes_after_our_abort(network: TcpNetwork, sent: bytes, row: str) -> None:
    clocks = msgspec.structs.replace(CLOCKS, abort=0.5)

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        assert await peer.pdu() == (7, bytes(4))
        if sent:
            await peer.send(sent)

    with rows_taken() as rows:
        async with scripted(script) as target:
            with pytest.raises(ZeroDivisionError):
                async with associate(network, target, (ECHO,), clocks):
                    fail()
    assert rows[3] == "ASC-16"
    assert row in rows


def test_requests_in_a_wrong_state_are_no_surprise() -> None:
    run = Run(ASSOCIATION, CLOCKS, {}, lambda _: None)
    told: list[Event] = [
        ul.AssociateRequested(),
        ul.AssociateRequested(),
        ul.ConnectionOpened(),
        ul.DataRequested(),
        ul.ReleaseAnswered(),
        ul.AssociateAccepted(),
        ul.ReleaseRequestCame(),
        ul.DataRequested(),
    ]
    rows = [run.tell(event).row for event in told]
    assert rows == ["ASC-01", "ASC-95", "ASC-02", "ASC-96", "ASC-98", "ASC-03", "ASC-08", "ASC-05"]


async def test_an_association_cannot_be_used_after_its_block(network: TcpNetwork) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.finish()

    with rows_taken() as rows:
        async with scripted(script) as target:
            async with associate(network, target, (ECHO,), CLOCKS) as association:
                assert association.established
                assert association.local_address == "127.0.0.1"
            with pytest.raises(AssociationLost):
                await echo(association)
            await association.release()
    assert rows[-2:] == [WHEN_OVER, WHEN_OVER]


async def test_a_node_that_accepts_nothing_is_an_association_all_the_same(
    network: TcpNetwork,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(node.accept({1: (3, ""), 77: (0, "1.2.3")}))
        await peer.finish()

    async with (
        scripted(script) as target,
        associate(network, target, (ECHO,), CLOCKS) as association,
    ):
        assert association.contexts.refusal(ECHO.sop_class_uid, "1.2.840.10008.1.2") == 3
        with pytest.raises(NodeError, match="verification"):
            await echo(association)


async def test_the_answer_may_come_byte_by_byte_and_hold_unknown_items(
    network: TcpNetwork,
) -> None:
    unknown = node.item(0x5F, b"whatever") + node.item(0x54, b"") + node.item(0x99, bytes(300))

    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in node.accept({1: (0, "1.2.840.10008.1.2")}, 16384, unknown):
            await peer.send(bytes((byte,)))
        await peer.message(has_data=False)
        whole = node.command(node.response(0, kind=0x8030))
        fragments = [node.pdv(whole[n : n + 7], control=1) for n in range(0, len(whole), 7)]
        await peer.send(node.data(*fragments[:2]), *map(node.data, fragments[2:]))
        for byte in node.data(node.pdv(b"", control=3)):
            await peer.send(bytes((byte,)))
        await peer.finish()

    async with scripted(script) as target:
        await verify(network, target, CLOCKS)


async def test_an_echo_may_be_answered_with_a_failure(network: TcpNetwork) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message(has_data=False)
        await peer.send(node.data(node.pdv(node.command(node.response(0x0122, kind=0x8030)))))
        await peer.until_end()

    async with scripted(script) as target:
        with pytest.raises(NodeError, match="0122H"):
            await verify(network, target, CLOCKS)


async def test_no_byte_moves_while_the_answer_is_awaited(network: TcpNetwork) -> None:
    clocks = msgspec.structs.replace(CLOCKS, response=0.1)

    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message(has_data=False)
        assert await peer.until_end() == node.abort()

    async with scripted(script) as target:
        with pytest.raises(AssociationLost, match="did not answer") as caught:
            await verify(network, target, clocks)
    assert caught.value.code == "timeout"


@pytest.mark.parametrize("size", [1, 4, 6, 7])
async def test_an_unusable_pdu_size_is_aborted(network: TcpNetwork, size: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all(max_pdu_size=size)
        assert await peer.until_end() == node.abort()

    async with scripted(script) as target:
        with pytest.raises(AssociationLost) as caught:
            await verify(network, target, CLOCKS)
    assert caught.value.code == "pdu"
    assert "maximum PDU size" in str(caught.value)


def test_an_association_that_never_opened_has_no_wire() -> None:
    association = Association(Target("h", 1, "A", "B"), (ECHO,), CLOCKS)
    with pytest.raises(RuntimeError):
        association.begin(1, dimse.C_ECHO_RSP)


async def test_an_echo_that_is_answered_twice(network: TcpNetwork) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept_all()
        await peer.message(has_data=False)
        await peer.send(node.data(node.pdv(node.command(node.response(0, kind=0x8030)))) * 2)
        await peer.finish()

    async with scripted(script) as target:
        await verify(network, target, CLOCKS)
