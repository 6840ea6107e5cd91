"""Objects that this host's disk loses or damages between the download and the node.

The disk damages an object in the very moment in which it is opened to be sent.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import trio

from proxy.demo import frames
from proxy.demo.archives import zip_session
from proxy.demo.backend import DemoBackend
from proxy.demo.encoding import SampleInstance
from proxy.demo.node import EVERY_TRANSFER_SYNTAX, DemoNode
from proxy.demo.rest import Fault
from proxy.demo.sample import Study, ct_series
from proxy.machines.delivery import DeliveryState
from proxy.machines.dispatch import DispatchState
from proxy.model import IMPLICIT_VR_LITTLE_ENDIAN, Instance
from proxy.runtime.marks import Mark, marking
from tests.ledger.make import fast_directory
from tests.support.clocks import Always
from tests.support.program import Program, configure, running_program, some_nodes, uids

Harm: TypeAlias = Callable[[Path], None]

SMALL, LARGE = 16, 1024
"""Rows and columns: data sets of one fragment, and of several blocks of many fragments."""


def turn_a_bit(path: Path) -> None:
    """Turn one bit of the last pixel."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def overwrite(path: Path) -> None:
    """Leave nulls where the data were, as some file systems do after a power cut."""
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def remove(path: Path) -> None:
    path.unlink()


HARMS = [turn_a_bit, overwrite, cut, remove]


class Disk:
    """A disk that harms an object in the moments ``when`` says, counted from 1."""

    def __init__(
        self, program: Program, victim: SampleInstance, harm: Harm, when: Sequence[int]
    ) -> None:
        self.opened = 0
        self._path = program.services.pacs.path
        self._victim = victim.sop_instance_uid
        self._harm = harm
        self._when = when

    def path(self, instance: Instance) -> Path:
        path = self._path(instance)
        if instance.sop_instance_uid == self._victim and path.exists():
            self.opened += 1
            if self.opened in self._when:
                self._harm(path)
        return path


ALWAYS = range(1, 1000)


@asynccontextmanager
async def a_site(
    monkeypatch: pytest.MonkeyPatch,
    harm: Harm,
    when: Sequence[int],
    *,
    size: int = SMALL,
    syntaxes: Sequence[str] = EVERY_TRANSFER_SYNTAX,
) -> AsyncIterator[tuple[Program, DemoNode, list[SampleInstance], Disk]]:
    """A site whose disk harms the third of six instances."""
    node = DemoNode("A", node_id="a", transfer_syntaxes=syntaxes)
    instances = ct_series(Study(1), slices=6, size=size)
    with fast_directory() as directory:
        async with DemoBackend().running() as backend, node.running():
            backend.rest.offer("session", "sess-1", zip_session(instances))
            configure(backend, [node])
            async with running_program(directory, backend) as program:
                disk = Disk(program, instances[2], harm, when)
                monkeypatch.setattr(program.services.pacs, "path", disk.path)
                await program.configured()
                yield program, node, instances, disk
                assert program.turns_taken() == 0


def assert_sound(node: DemoNode, instances: Sequence[SampleInstance]) -> None:
    """Show that the node got each of these once, bit by bit, and nothing else."""
    came = {arrival.sop_instance_uid: arrival.sha256 for arrival in node.arrivals}
    assert len(node.arrivals) == len(instances)
    assert came == {i.sop_instance_uid: data_set_hash(i.content) for i in instances}


def data_set_hash(content: bytes) -> str:
    """Hash what follows the file meta group, as its length says."""
    return hashlib.sha256(content[144 + int.from_bytes(content[140:144], "little") :]).hexdigest()


def assert_one_story(program: Program, order: str) -> None:
    """Show that no stream fell, and that each ended once."""
    for node_id in ("a", None):
        stream = program.stream(order, node_id)
        progress = [payload["progress"] for payload in stream]
        assert progress == sorted(progress)
        assert [p["status"] in {"completed", "failed"} for p in stream].count(True) == 1


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("harm", HARMS)
async def test_what_the_disk_lost_is_fetched_again_and_arrives_as_it_is_at_ith(
    monkeypatch: pytest.MonkeyPatch, harm: Harm, times: int, size: int
) -> None:
    when = range(1, times + 1)
    async with a_site(monkeypatch, harm, when, size=size) as (program, node, instances, _):
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        ending = await program.over(order, "a")
        assert (ending["status"], ending["files_sent"]) == ("completed", 6)
        assert (await program.over(order))["status"] == "completed"
        assert_sound(node, instances)
        assert len(program.backend.rest.downloads) == 1 + times
        assert_one_story(program, order)
        await program.idle()


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("harm", HARMS)
async def test_a_disk_that_loses_it_again_and_again_fails_the_dispatch_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, harm: Harm, size: int
) -> None:
    """Everything else is delivered."""
    async with a_site(monkeypatch, harm, ALWAYS, size=size) as (program, node, instances, _):
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        ending = await program.over(order, "a")
        assert (ending["status"], ending["files_sent"], ending["files_total"]) == ("failed", 5, 6)
        assert ending["error"].startswith("1 of 6 instances refused: The local file of the object")
        assert "Check this host's disk" in ending["error"]
        assert (await program.over(order))["status"] == "failed"
        assert_sound(node, [i for i in instances if i is not instances[2]])
        assert len(program.backend.rest.downloads) == 3
        assert_one_story(program, order)
        await program.idle()


@pytest.mark.parametrize("status", [404, 500])
async def test_what_ith_has_no_longer_keeps_nobody_from_the_rest(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    async with a_site(monkeypatch, turn_a_bit, ALWAYS) as (program, node, instances, _):
        faults = program.backend.rest.download_faults
        faults += [Fault(), *[Fault(status=status, body=None)] * 40]
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        ending = await program.over(order, "a")
        assert (ending["status"], ending["files_sent"], ending["files_total"]) == ("failed", 5, 6)
        await program.over(order)
        assert_sound(node, [i for i in instances if i is not instances[2]])
        assert_one_story(program, order)
        await program.idle()


async def test_a_later_dispatch_sends_what_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_site(monkeypatch, turn_a_bit, range(1, 4)) as (program, node, instances, _):
        first = program.tell(frames.session_dispatch("sess-1", ["a"]))
        assert (await program.over(first))["status"] == "failed"
        again = program.tell(frames.session_dispatch("sess-1", ["a"]))
        ending = await program.over(again, "a")
        assert (ending["status"], ending["files_sent"]) == ("completed", 6)
        assert_sound(node, instances)
        await program.idle()


@pytest.mark.parametrize("harm", HARMS)
async def test_what_is_read_to_be_converted_is_compared_too(
    monkeypatch: pytest.MonkeyPatch, harm: Harm
) -> None:
    """The disk harms it as its own syntax is tried, which the node does not take."""
    implicit = (IMPLICIT_VR_LITTLE_ENDIAN,)
    async with a_site(monkeypatch, harm, [1], syntaxes=implicit) as (program, node, instances, _):
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        ending = await program.over(order, "a")
        assert (ending["status"], ending["files_sent"]) == ("completed", 6)
        assert node.holds.keys() == uids(instances)
        assert len(node.arrivals) == 6
        assert len(program.backend.rest.downloads) == 2
        await program.idle()


@pytest.mark.parametrize("mark", [Mark.BLOCK_WRITTEN, Mark.ENTRY_WRITTEN, Mark.OBJECT_MOVED])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_disk_that_fails_once_while_content_is_kept_costs_one_attempt(
    monkeypatch: pytest.MonkeyPatch, mark: Mark, number: int
) -> None:
    failed: list[Mark] = []

    def fail_once(reached: Mark) -> None:
        if reached is mark and not failed:
            failed.append(reached)
            raise OSError(number, "the disk")

    with marking(fail_once):
        async with a_site(monkeypatch, remove, []) as (program, node, instances, _):
            order = program.tell(frames.session_dispatch("sess-1", ["a"]))
            assert (await program.over(order, "a"))["status"] == "completed"
            assert_sound(node, instances)
            assert failed == [mark]
            await program.idle()


async def test_another_node_goes_on_meanwhile(
    monkeypatch: pytest.MonkeyPatch, directory: Path, backend: DemoBackend
) -> None:
    """Each instance is sent once to each node; one delivery finds the damage."""
    instances = ct_series(Study(1), slices=6, size=SMALL)
    backend.rest.offer("session", "sess-1", zip_session(instances))
    async with some_nodes("a", "b") as nodes:
        configure(backend, nodes)
        async with running_program(directory, backend) as program:
            disk = Disk(program, instances[2], turn_a_bit, [1])
            monkeypatch.setattr(program.services.pacs, "path", disk.path)
            await program.configured()
            order = program.tell(frames.session_dispatch("sess-1", ["a", "b"]))
            assert (await program.over(order))["status"] == "completed"
            for node in nodes:
                assert_sound(node, instances)
            for node_id in ("a", "b"):
                ahead = program.registry.nodes[node_id].backlog
                assert set(ahead.values()) <= {0}
            await program.idle()


async def test_who_waits_for_lost_content_keeps_no_other_dispatch_of_it_waiting(
    monkeypatch: pytest.MonkeyPatch, directory: Path, backend: DemoBackend, node: DemoNode
) -> None:
    """Only one may wait for the node with its content, and that is the one that could follow."""
    instances = ct_series(Study(1), slices=6, size=SMALL)
    backend.rest.offer("session", "sess-1", zip_session(instances))
    configure(backend, [node])
    async with running_program(directory, backend, limits={"dispatches_per_node": 1}) as program:
        await program.configured()

        def fail(path: Path) -> None:
            turn_a_bit(path)
            backend.rest.download_faults += [Fault(status=500, body=None)] * 5

        disk = Disk(program, instances[2], fail, [1])
        monkeypatch.setattr(program.services.pacs, "path", disk.path)
        orders = [program.tell(frames.session_dispatch("sess-1", [node.node_id])) for _ in "12"]
        for order in orders:
            assert (await program.over(order))["status"] == "completed"
        assert_sound(node, instances)
        await program.idle()


async def test_nothing_is_fetched_again_in_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_site(monkeypatch, turn_a_bit, [1]) as (program, node, instances, disk):

        def pause(path: Path) -> None:
            program.tell(frames.status_changed(is_active=False))
            turn_a_bit(path)

        disk._harm = pause
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        await program.until(lambda: program.state(order, "a") is DeliveryState.HELD)
        await program.until(lambda: program.dispatch_state(order) is DispatchState.HELD)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(program.backend.rest.downloads) == 1
        program.tell(frames.status_changed(is_active=True))
        assert (await program.over(order))["status"] == "completed"
        assert_sound(node, instances)
        assert len(program.backend.rest.downloads) == 2
        await program.idle()


async def test_a_deletion_in_the_same_moment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_site(monkeypatch, remove, [1]) as (program, node, instances, disk):

        def delete(path: Path) -> None:
            uid = instances[0].study_instance_uid
            program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))
            remove(path)

        disk._harm = delete
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        ending = await program.over(order, "a")
        assert (ending["status"], ending["files_sent"]) == ("failed", 2)
        assert "deleted" in ending["error"]
        assert len(program.backend.rest.downloads) == 1
        assert len(node.arrivals) == 2
        await program.idle()


async def test_a_defect_while_it_is_fetched_again_ends_the_order_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_site(monkeypatch, turn_a_bit, [1]) as (program, node, _, disk):

        def break_the_download(path: Path) -> None:
            turn_a_bit(path)
            monkeypatch.setattr(program.services.backend, "download", None)

        disk._harm = break_the_download
        order = program.tell(frames.session_dispatch("sess-1", ["a"]))
        ending = await program.over(order, "a")
        assert (ending["status"], ending["error"]) == ("failed", "internal error: TypeError")
        assert (await program.over(order))["status"] == "failed"
        assert_one_story(program, order)
        assert len(node.arrivals) == 2
        await program.idle()


@pytest.mark.parametrize("restarts", [False, True], ids=["goes on", "restarts"])
async def test_a_defect_while_it_is_fetched_again_leaves_a_node_that_still_gets_it(
    monkeypatch: pytest.MonkeyPatch, directory: Path, backend: DemoBackend, restarts: bool
) -> None:
    """Its delivery ends by itself, with its own counts, and is told."""
    instances = ct_series(Study(1), slices=6, size=SMALL)
    backend.rest.offer("session", "sess-1", zip_session(instances))
    async with some_nodes("a", "b") as nodes:
        configure(backend, nodes)
        nodes[0].script.answer = lambda arrival: 0 if arrival.ordinal > 1 else 0xA700
        nodes[1].script.delay_s = 0.3
        waits = {"retry_delay_seconds": 1.0, "retry_max_seconds": 1.0}
        with monkeypatch.context() as patched:
            async with running_program(directory, backend, dicom=waits, rng=Always(0.5)) as program:

                def break_the_download(path: Path) -> None:
                    turn_a_bit(path)
                    patched.setattr(program.services.backend, "download", None)

                disk = Disk(program, instances[0], break_the_download, [3])
                patched.setattr(program.services.pacs, "path", disk.path)
                await program.configured()
                order = program.tell(frames.session_dispatch("sess-1", ["a", "b"]))
                assert (await program.over(order, "a"))["error"] == "internal error: TypeError"
                assert len(nodes[1].holds) < 6
                if not restarts:
                    ending = await program.over(order, "b")
                    assert (ending["status"], ending["files_sent"]) == ("completed", 6)
                    assert (await program.over(order))["status"] == "failed"
                    await program.idle()
        if restarts:
            async with running_program(directory, backend) as program:
                await program.configured()
                assert (await program.over(order, "b"))["status"] == "completed"
                assert (await program.over(order))["status"] == "failed"
                await program.idle()
        assert nodes[1].holds.keys() == uids(instances)
