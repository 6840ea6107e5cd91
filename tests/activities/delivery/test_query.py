"""Instances in doubt: the node is asked before they are sent again, and what that proves."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from proxy.demo import frames
from proxy.demo.archives import zip_session
from proxy.demo.backend import DemoBackend
from proxy.demo.encoding import encode
from proxy.demo.node import EVERY_STORAGE_CLASS, DemoNode
from proxy.demo.node_script import Arrival
from proxy.demo.sample import Study, ct_series
from proxy.ledger import InstanceState
from proxy.machines.delivery import DeliveryState
from tests.support.program import Program, configure, described, offer, running_program, uids


@pytest.fixture
async def node(backend: DemoBackend, node: DemoNode) -> DemoNode:
    """A node that can be asked, and stores the third instance without saying so."""
    node.script.finds = node.script.stores_first = True
    node.script.drop_at = 3
    configure(backend, [node])
    return node


def dispatch(program: Program) -> str:
    return program.tell(frames.session_dispatch("sess-1", ["a"]))


async def completed(program: Program, order: str, files: int) -> None:
    """Wait for the end of the delivery; its reports must be true."""
    ending = await program.over(order, "a")
    assert (ending["status"], ending["files_sent"]) == ("completed", files)
    sent = [payload["files_sent"] for payload in program.stream(order, "a")]
    assert sent == sorted(sent)
    await program.idle()


def times(node: DemoNode) -> Counter[int]:
    """Return the number of instances by the number of their arrivals."""
    return Counter(Counter(arrival.sop_instance_uid for arrival in node.arrivals).values())


@pytest.mark.parametrize("aborts", [False, True])
@pytest.mark.parametrize("finds", [True, False])
async def test_what_the_node_stored_without_a_word_is_sent_once_where_it_can_be_asked(
    directory: Path, backend: DemoBackend, node: DemoNode, aborts: bool, finds: bool
) -> None:
    instances = offer(backend, slices=6)
    node.script.finds = finds
    if aborts:
        node.script.abort_at, node.script.drop_at = 3, None
    async with running_program(directory, backend) as program:
        await program.configured()
        await completed(program, dispatch(program), 6)
    assert node.holds.keys() == uids(instances)
    assert times(node) == (Counter({1: 6}) if finds else Counter({1: 5, 2: 1}))
    assert node.tally.finds == finds


async def test_the_log_says_how_many_were_found_and_names_none(
    directory: Path, backend: DemoBackend, node: DemoNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "proxy.logs")
    instances = offer(backend, slices=4)
    async with running_program(directory, backend) as program:
        await program.configured()
        await completed(program, dispatch(program), 4)
    written = [str(vars(record)) for record in caplog.records]
    (asked,) = (line for line in written if "delivery.asked" in line)
    assert "'node_id': 'a', 'count': 1, 'found': 1" in asked
    assert not any(uid in line for line in written for uid in uids(instances))


async def test_a_node_that_drops_every_answer_gets_everything_once(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    instances = offer(backend, slices=5)
    node.script.drop_at = 1
    async with running_program(directory, backend, dicom={"retry_count": 1}) as program:
        await program.configured()
        order = dispatch(program)
        for came in range(1, 6):
            await program.until(lambda came=came: len(node.arrivals) == came)  # type: ignore[misc]
            node.script.drop_at = came + 1
        await completed(program, order, 5)
    assert node.holds.keys() == uids(instances)
    assert times(node) == Counter({1: 5})


async def test_what_the_node_does_not_have_is_sent_again(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    instances = offer(backend, slices=6)
    node.script.stores_first = False
    async with running_program(directory, backend) as program:
        await program.configured()
        await completed(program, dispatch(program), 6)
    assert node.holds.keys() == uids(instances)
    assert times(node) == Counter({1: 5, 2: 1})
    assert node.tally.finds == 1


async def test_nobody_is_asked_where_nothing_is_in_doubt(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    offer(backend, slices=4)
    node.script.drop_at = None
    node.script.answer = lambda arrival: 0xA700 if arrival.ordinal == 2 else 0
    async with running_program(directory, backend) as program:
        await program.configured()
        await completed(program, dispatch(program), 4)
    assert node.tally.finds == 0


async def test_the_question_has_its_place_among_the_contexts_of_an_association(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    study = Study(1)
    instances = [
        encode(study.data_set(sop_class, "OT", 1, number))
        for number, sop_class in enumerate(EVERY_STORAGE_CLASS[:130], 1)
    ]
    backend.rest.offer("session", "sess-1", zip_session(instances))
    async with running_program(directory, backend) as program:
        await program.configured()
        await completed(program, dispatch(program), 130)
    assert node.holds.keys() == uids(instances)
    assert (node.tally.finds, times(node)) == (1, Counter({1: 130}))


async def test_a_find_confirms_no_content(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    offer(backend, slices=4)
    async with running_program(directory, backend) as program:
        await program.configured()
        await completed(program, dispatch(program), 4)
        assert len(node.arrivals) == 4
        found = node.arrivals[2].sop_instance_uid
        await completed(program, dispatch(program), 4)
    assert [arrival.sop_instance_uid for arrival in node.arrivals[4:]] == [found]


@pytest.mark.parametrize("of_the_node", [True, False])
async def test_where_all_is_wanted_again_a_find_proves_nothing(
    directory: Path, backend: DemoBackend, node: DemoNode, of_the_node: bool
) -> None:
    instances = offer(backend, slices=4)
    if of_the_node:
        configure(backend, [described(node, metadata={"repush": "all"})])
    async with running_program(
        directory, backend, repush="new" if of_the_node else "all"
    ) as program:
        await program.configured()
        await completed(program, dispatch(program), 4)
    assert node.holds.keys() == uids(instances)
    assert node.tally.finds == 0
    assert times(node) == Counter({1: 3, 2: 1})


async def test_where_the_node_has_another_content_a_find_proves_nothing(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    old = ct_series(Study(1), slices=4, size=16)
    new = ct_series(Study(1), slices=4, size=24)  # other pixels under the same UIDs
    backend.rest.offer("session", "sess-1", zip_session(old))
    node.script.drop_at, node.script.stores_first = 6, False
    async with running_program(directory, backend) as program:
        await program.configured()
        await completed(program, dispatch(program), 4)
        backend.rest.offer("session", "sess-1", zip_session(new))
        await completed(program, dispatch(program), 4)
    assert node.tally.finds == 0
    assert len(node.arrivals) == 4 + 4 + 1
    assert node.holds == {instance.sop_instance_uid: instance.sha256 for instance in new}


async def test_a_node_that_hangs_over_the_question_is_asked_once(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    instances = offer(backend, slices=4)
    node.script.find_delay_s = 60
    async with running_program(directory, backend, dicom={"response_seconds": 0.3}) as program:
        await program.configured()
        await completed(program, dispatch(program), 4)
    assert node.holds.keys() == uids(instances)
    assert node.tally.finds == 1
    assert times(node) == Counter({1: 3, 2: 1})


async def test_a_stop_ends_the_question_at_once(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    instances = offer(backend, slices=4)
    node.script.find_delay_s = 60
    patient = {"cancel_seconds": 60.0, "release_seconds": 60.0, "response_seconds": 60.0}
    async with running_program(directory, backend, dicom=patient) as program:
        await program.configured()
        order = dispatch(program)
        await program.until(lambda: node.tally.finds == 1)
        program.tell(frames.status_changed(is_active=False))
        await program.until(lambda: program.state(order, "a") is DeliveryState.HELD)
        assert program.turns_taken() == 0
        assert len(node.arrivals) == 3
        node.script.find_delay_s = 0
        program.tell(frames.status_changed(is_active=True))
        await completed(program, order, 4)
    assert node.holds.keys() == uids(instances)
    assert (node.tally.finds, times(node)) == (2, Counter({1: 4}))


async def test_after_a_crash_the_node_is_asked_and_each_is_counted_once(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    instances = offer(backend, slices=6)
    node.script.drop_at, node.script.delay_s = None, 0.5
    async with running_program(directory, backend) as program:
        await program.configured()
        order = dispatch(program)
        await program.until(lambda: len(node.holds) == 1)
    node.script.delay_s = 0
    async with running_program(directory, backend) as program:
        await program.configured()
        await completed(program, order, 6)
    assert node.holds.keys() == uids(instances)
    assert (node.tally.finds, times(node)) == (1, Counter({1: 6}))


async def test_a_crash_between_two_answers_counts_no_instance_twice(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    offer(backend, slices=6)
    node.script.drop_at, node.script.delay_s = None, 0.2
    async with running_program(directory, backend) as program:
        await program.configured()
        order = dispatch(program)
        await program.until(lambda: len(node.holds) == 3)
        dispatch_id = program.dispatch(order).dispatch_id
    node.script.find_delay_s = 0.4
    async with running_program(directory, backend) as program:
        # Two crashes in a row leave this behind: one more was sent, and its answer was lost.
        for instance in await program.services.ledger.to_send(dispatch_id, "a"):
            if instance.sop_instance_uid in node.holds:
                continue
            program.services.ledger.post_result(dispatch_id, "a", instance, InstanceState.SENDING)
            node.holds[instance.sop_instance_uid] = instance.sha256
            break
        await program.configured()
        await program.until(lambda: node.tally.finds == 2)
    node.script.find_delay_s = node.script.delay_s = 0
    async with running_program(directory, backend) as program:
        await program.configured()
        await completed(program, order, 6)
    assert (len(node.arrivals), node.tally.finds) == (5, 3)


async def test_an_urgent_delivery_waits_for_one_question_of_another_and_none_is_lost(
    directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    instances = offer(backend, slices=8)
    node.script.drop_at, node.script.delay_s = None, 60.0
    dicom = {"associations_per_node": 1, "response_seconds": 60.0}
    async with running_program(directory, backend, dicom=dicom) as program:
        await program.configured()
        low = program.tell(frames.session_dispatch("sess-1", ["a"], priority="low"))
        await program.until(lambda: node.arrivals)
        at = program.dispatch(low).dispatch_id
        for instance in await program.services.ledger.to_send(at, "a"):
            # as if the program had ended in mid flight again and again
            program.services.ledger.post_result(at, "a", instance, InstanceState.SENDING)
    urgent_uids = uids(offer(backend, "sess-2", slices=1, seed=2))
    asked_by_then: list[int] = []

    def answer(arrival: Arrival) -> int:
        if arrival.sop_instance_uid in urgent_uids:
            asked_by_then.append(node.tally.finds)
        return 0

    node.script.answer = answer
    node.script.delay_s, node.script.find_delay_s = 0.0, 0.5
    async with running_program(directory, backend, dicom=dicom) as program:
        await program.configured()
        await program.until(lambda: node.tally.finds)
        urgent = program.tell(frames.session_dispatch("sess-2", ["a"], priority="urgent"))
        await program.until(lambda: program.registry.nodes["a"].queue.waiting)
        asked = node.tally.finds
        assert (await program.over(urgent))["status"] == "completed"
        assert asked_by_then[0] <= asked + 1
        node.script.find_delay_s = 0.0
        await completed(program, low, 8)
    assert node.tally.finds == 8
    assert node.holds.keys() == uids(instances) | urgent_uids
    assert times(node) == Counter({1: 9})
