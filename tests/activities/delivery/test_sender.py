"""Storing at nodes that want another transfer syntax than the instances have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.demo import frames
from proxy.demo.archives import zip_session
from proxy.demo.backend import DemoBackend
from proxy.demo.encoding import SampleInstance, encode
from proxy.demo.node import EVERY_TRANSFER_SYNTAX, DemoNode
from proxy.demo.node_script import Arrival
from proxy.demo.sample import Study, ct_series
from proxy.machines.delivery import DeliveryState
from proxy.model import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tests.end_to_end.sessions import elements
from tests.ledger.make import fast_directory
from tests.support.program import Program, configure, offer, running_program, uids

ONLY_IMPLICIT = (IMPLICIT_VR_LITTLE_ENDIAN,)


@asynccontextmanager
async def a_site(
    transfer_syntaxes: Sequence[str] = EVERY_TRANSFER_SYNTAX, directory: Path | None = None
) -> AsyncIterator[tuple[Program, DemoNode]]:
    node = DemoNode("A", node_id="a", transfer_syntaxes=transfer_syntaxes, directory=directory)
    with fast_directory() as where:
        async with DemoBackend().running() as backend, node.running():
            configure(backend, [node])
            async with running_program(where, backend) as program:
                await program.configured()
                yield program, node
                assert copies(program) == []


def stored_in(directory: Path) -> list[dict[str, object]]:
    """Return the elements of the files that a node has stored, decoded."""
    return [elements(path.read_bytes()) for path in directory.iterdir()]


def copies(program: Program) -> list[Path]:
    """Return the converted copies on disk."""
    return [*(program.services.settings.state_dir / "staging").glob("copies/*")]


def logged(caplog: pytest.LogCaptureFixture) -> list[int]:
    """Return the numbers of converted instances, line by line of the log."""
    lines = [vars(each)["line"] for each in caplog.records if each.msg == "delivery.converted"]
    assert all(line["node_id"] == "a" for line in lines)
    return [line["count"] for line in lines]


async def test_a_node_that_takes_the_default_alone_gets_it_and_has_the_instance(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "proxy.logs")
    async with a_site(ONLY_IMPLICIT, tmp_path) as (program, node):
        instances = offer(program.backend, slices=5)
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        ending = await program.over(order, "a")
        assert (ending["status"], ending["files_sent"]) == ("completed", 5)
        assert {each.transfer_syntax_uid for each in node.arrivals} == {*ONLY_IMPLICIT}
        by_uid = {str(found["(0008,0018)"]): found for found in stored_in(tmp_path)}
        assert by_uid.keys() == uids(instances)
        for each in instances:
            assert by_uid[each.sop_instance_uid] == elements(each.content)
        await program.idle()
        assert logged(caplog) == [5]

        again = await program.over(program.tell(frames.session_dispatch("sess-1", ["a"])), "a")
        assert (again["status"], again["files_sent"]) == ("completed", 5)
        assert len(node.arrivals) == 5, "what is confirmed is the content that ITH has"
        await program.idle()


async def test_where_its_own_syntax_is_taken_an_instance_is_sent_untouched(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "proxy.logs")
    async with a_site() as (program, node):
        instances = offer(program.backend)
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        assert (await program.over(order, "a"))["status"] == "completed"
        assert node.holds == {each.sop_instance_uid: each.sha256 for each in instances}
        assert logged(caplog) == []


@pytest.mark.parametrize("cured", [True, False])
async def test_what_does_not_match_its_class_is_tried_once_in_another_syntax(cured: bool) -> None:
    def answer(arrival: Arrival) -> int:
        matches = cured and arrival.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
        return 0 if matches or arrival.sop_instance_uid != odd_one else 0xA900

    async with a_site() as (program, node):
        instances = offer(program.backend, slices=3)
        odd_one = instances[1].sop_instance_uid
        node.script.answer = answer
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        ending = await program.over(order, "a")
        status, sent = ("completed", 3) if cured else ("failed", 2)
        assert (ending["status"], ending["files_sent"]) == (status, sent)
        assert ("does not match its SOP class" in ending.get("error", "")) is not cured
        tried = [a.transfer_syntax_uid for a in node.arrivals if a.sop_instance_uid == odd_one]
        assert tried == [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]
        assert len(node.arrivals) == 4
        await program.idle()


async def test_what_cannot_be_converted_holds_up_no_other() -> None:
    async with a_site(ONLY_IMPLICIT) as (program, node):
        good = ct_series(Study(), slices=3, size=16)
        bad = ct_series(Study(), slices=1, size=16, series=9)[0]
        # Something that only a reader of the whole data set finds.
        broken = bad.content.replace(b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00??")
        assert broken != bad.content
        packed = zip_session([*good, with_content(bad, broken)])
        program.backend.rest.offer("session", "sess-1", packed)
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        ending = await program.over(order, "a")
        assert (ending["status"], ending["files_sent"], ending["files_total"]) == ("failed", 3, 4)
        assert ending["error"].startswith(
            "1 of 4 instances refused: The node does not take the object as it is encoded, and"
        )
        assert node.holds.keys() == uids(good)
        await program.idle()


def with_content(sample: SampleInstance, content: bytes) -> SampleInstance:
    return SampleInstance(**{**vars(sample), "content": content})


def large(study: Study) -> SampleInstance:
    """Return an instance that is small while it is deflated."""
    ds = study.data_set("1.2.840.10008.5.1.4.1.1.2", "CT", 1, 1)
    ds.add_new("PixelData", "OW", bytes(range(256)) * 300_000)
    return encode(ds, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)


async def test_a_stop_while_an_instance_is_converted_ends_at_once_and_leaves_nothing() -> None:
    async with a_site(ONLY_IMPLICIT) as (program, node):
        program.backend.rest.offer("session", "sess-1", zip_session([large(Study())], level=0))
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.until(lambda: any(copy.stat().st_size for copy in copies(program)))
        (copy,) = copies(program)
        program.tell(frames.status_changed(is_active=False))
        assert program.state(order, "a") is DeliveryState.STOPPING
        await program.until(lambda: program.state(order, "a") is DeliveryState.HELD)
        assert not copy.exists()
        assert node.arrivals == []
        assert program.turns_taken() == 0
