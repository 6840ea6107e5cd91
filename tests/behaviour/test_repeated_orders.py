"""The same order once more, for nodes that it did not name before, or that were not ours yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.frames import JsonObject
from proxy.demo.node import DemoNode
from proxy.machines.delivery import DeliveryState
from tests.support.program import Program, configure, offer, running_program


@pytest.fixture
async def nodes(backend: DemoBackend, nodes: list[DemoNode]) -> list[DemoNode]:
    configure(backend, nodes)
    return nodes


def dispatch(program: Program, *node_ids: str, correlation_id: str = "corr_1") -> str:
    return program.tell(
        frames.session_dispatch("sess-1", list(node_ids), correlation_id=correlation_id)
    )


def brief(payload: JsonObject) -> tuple[object, ...]:
    return (
        payload.get("node_id"),
        payload["status"],
        payload["files_sent"],
        payload["files_total"],
        payload.get("error", "").partition(":")[0],
    )


def finals(program: Program) -> list[tuple[object, ...]]:
    return [brief(payload) for payload in program.finals("corr_1")]


REFUSED_BY_A = ("a", "failed", 0, 4, "4 of 4 instances refused")
STORED_BY_A = ("a", "completed", 4, 4, "")
STORED_BY_B = ("b", "completed", 4, 4, "")
BOTH = (None, "completed", 8, 8, "")
ONE_OF_TWO = (None, "failed", 4, 8, "1 of 2 nodes lack instances")


async def test_a_node_that_became_ours_does_not_make_up_for_the_one_that_lacks_everything(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    nodes[0].script.answer = lambda _: 0xC000
    configure(backend, nodes[:1])
    offer(backend)
    async with running_program(directory, backend) as program:
        await program.configured()
        dispatch(program, "a", "b")
        await program.until(lambda: len(finals(program)) == 2)
        assert finals(program)[1] == (None, "failed", 0, 4, "1 of 1 nodes lack instances")
        await program.idle()
        configure(backend, nodes)
        program.supervisor.came_online()
        await program.until(lambda: "b" in program.registry.nodes)
        dispatch(program, "a", "b")
        await program.until(lambda: len(finals(program)) == 5)
        assert finals(program)[2:] == [REFUSED_BY_A, STORED_BY_B, ONE_OF_TWO]
        await program.idle()
        dispatch(program, "a", "b")
        await program.until(lambda: len(finals(program)) == 8)
        assert finals(program)[5:] == [REFUSED_BY_A, STORED_BY_B, ONE_OF_TWO]
        await program.idle()
    assert len(nodes[0].arrivals) == len(nodes[1].arrivals) == 4


async def test_the_whole_counts_a_node_that_the_order_names_no_more(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    nodes[0].script.answer = lambda _: 0xC000
    offer(backend)
    async with running_program(directory, backend) as program:
        await program.configured()
        for node_id in ("a", "b"):
            dispatch(program, node_id)
            await program.over("corr_1", node_id)
            await program.idle()
        await program.until(lambda: len(finals(program)) == 4)
        assert finals(program)[2:] == [STORED_BY_B, ONE_OF_TWO]


@pytest.mark.parametrize("slow", [0, 1])
async def test_the_whole_is_closed_when_the_last_of_its_dispatches_is_over(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], slow: int
) -> None:
    offer(backend)
    nodes[slow].script.delay_s = 0.1
    async with running_program(directory, backend) as program:
        await program.configured()
        dispatch(program, "a")
        dispatch(program, "a", "b")
        await program.over("corr_1", "ba"[slow])
        dispatch(program, "b", "a")
        await program.over("corr_1")
        await program.idle()
    told = finals(program)
    assert told[-2:] == [[STORED_BY_A, STORED_BY_B][slow], BOTH]
    assert [each[0] for each in told].count(None) == 1


@pytest.mark.parametrize("first_is_over", [True, False])
async def test_a_restart_forgets_no_part_of_the_whole(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode], first_is_over: bool
) -> None:
    offer(backend)
    nodes[0].script.answer = lambda _: 0xC000
    nodes[0].script.delay_s = 0.0 if first_is_over else 0.1
    nodes[1].script.delay_s = 0.1
    async with running_program(directory, backend) as program:
        await program.configured()
        dispatch(program, "a")
        dispatch(program, "a", "b")
        await program.until(lambda: nodes[1].holds)
        if first_is_over:
            await program.over("corr_1", "a")
        else:
            await program.until(lambda: nodes[0].arrivals)
        assert program.final("corr_1") is None
    async with running_program(directory, backend) as program:
        await program.configured()
        assert brief(await program.over("corr_1")) == ONE_OF_TWO
        await program.idle()
        assert {each[0] for each in finals(program)} == {*"ab", None}


async def test_one_stream_for_all_nodes_counts_all_dispatches(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    offer(backend)
    nodes[1].script.delay_s = 0.05
    async with running_program(directory, backend, detail="aggregate") as program:
        await program.configured()
        dispatch(program, "a")
        dispatch(program, "b")
        assert brief(await program.over("corr_1")) == BOTH
        await program.idle()
        stream = program.statuses("corr_1")
        for key in ("progress", "files_sent", "files_total"):
            assert [p[key] for p in stream] == sorted(p[key] for p in stream)


async def test_one_stream_for_all_nodes_does_not_fall_over_a_restart(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    """The progress of the first node was reported before the order came again and named another."""
    offer(backend)
    nodes[0].script.answer = lambda arrival: 0 if arrival.ordinal < 4 else 0xA700
    nodes[1].script.answer = lambda _: 0xA700
    patient = {"retry_count": 1000}
    async with running_program(directory, backend, detail="aggregate", dicom=patient) as program:
        await program.configured()
        dispatch(program, "a")
        await program.until(lambda: program.state("corr_1", "a") is DeliveryState.BACKING_OFF)
        dispatch(program, "a", "b")
        await program.until(lambda: program.state("corr_1", "b") is DeliveryState.BACKING_OFF)
    told = program.statuses("corr_1")
    nodes[0].script.answer = nodes[1].script.answer = lambda _: 0
    async with running_program(directory, backend, detail="aggregate", dicom=patient) as program:
        await program.configured()
        assert brief(await program.over("corr_1")) == BOTH
    progress = [payload["progress"] for payload in (*told, *program.statuses("corr_1"))]
    assert 81 in progress
    assert progress == sorted(progress)


async def test_what_ith_could_not_give_is_answered_again_in_the_same_words(
    directory: Path, backend: DemoBackend, nodes: list[DemoNode]
) -> None:
    async with running_program(directory, backend) as program:
        await program.configured()
        for times in (1, 2):
            dispatch(program, "a", "b")
            await program.until(lambda times=times: len(finals(program)) == 3 * times)  # type: ignore[misc]
            await program.idle()
        first, again = program.finals("corr_1")[:3], program.finals("corr_1")[3:]
        assert first == again
        assert len({payload["error"] for payload in first}) == 1
