"""Deletions and restarts at every step of a dispatch: nothing stays that should not."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest
import trio
from pydicom.uid import ImplicitVRLittleEndian

from proxy.demo import frames
from proxy.demo.archives import zip_session
from proxy.demo.backend import DemoBackend
from proxy.demo.encoding import SampleInstance
from proxy.demo.frames import JsonObject
from proxy.demo.node import EVERY_TRANSFER_SYNTAX, DemoNode
from proxy.demo.sample import Study, ct_series
from proxy.machines.delivery import DeliveryState
from proxy.machines.dispatch import DispatchState
from proxy.runtime.offload import Inline
from proxy.work.fair_queue import Grant
from tests.support.program import Program, configure, running_program, uids

P = ParamSpec("P")
T = TypeVar("T")

COMMITS = {
    "record": "accept",
    "keep": "keep",
    "plan": "plan",
    "settle": "settle",
    "over": "end_dispatch",
}
"""Steps that are a commit, and the ledger's function in it."""
STEPS = [
    "event",
    "queued",
    "download",
    *COMMITS,
    "unpack",
    "adopt",
    "convert",
    "store 0",
    "store 1",
    "store 5",
]
GONE = ("instance", "holding", "holding_instance", "sending", "stored_at", "tombstone")


class Gate(Inline):
    """Holds up one kind of blocking call until it is opened."""

    def __init__(self, waits_for: Callable[[Any, tuple[Any, ...]], bool]) -> None:
        self._waits_for = waits_for
        self.reached = False
        self.opened = trio.Event()
        self.waiting = trio.CancelScope()
        """To be shielded where no cancellation is to be heard meanwhile, as in a thread."""

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if not self.opened.is_set() and self._waits_for(function, args):
            self.reached = True
            with self.waiting:
                await self.opened.wait()
                return await super().__call__(function, *args, **kwargs)
        return await super().__call__(function, *args, **kwargs)


def commits(name: str | None) -> Callable[[Any, tuple[Any, ...]], bool]:
    """Whether a call is the commit of a batch with this function in it."""

    def waits(call: Any, _: tuple[Any, ...]) -> bool:
        batch = call.args[1] if isinstance(call, partial) else []
        return any(posted.function.__name__ == name for posted in batch)

    return waits


class Scene:
    """A session of two scans on its way to a node, held up at one step."""

    def __init__(self, directory: Path, backend: DemoBackend, node: DemoNode) -> None:
        self.directory = directory
        self.backend = backend
        self.node = node
        self.keep, self.gone = (
            ct_series(Study(1), slices=4, size=16, series=number) for number in (1, 2)
        )
        self.all: list[SampleInstance] = [*self.keep, *self.gone]
        backend.rest.offer("session", "sess-1", zip_session(self.all))
        configure(backend, [node])

    @asynccontextmanager
    async def at(self, step: str) -> AsyncIterator[tuple[Program, str, Callable[[], None]]]:
        """Stop the dispatch at a step; yields program, order, and the gate that lets it go on."""
        gate = Gate(commits(COMMITS.get(step)))
        async with running_program(
            self.directory, self.backend, ledger_offload=gate, downloads=1
        ) as program:
            await program.configured()
            await program.online()
            turn: Grant | None = None
            if step == "queued":
                turn = await program.registry.downloads.acquire(0, flow=frozenset({"a"}))
            if step == "download":
                self.backend.rest.archives["session", "sess-1"].bytes_per_s = 20_000
            if step == "unpack":
                gate = Gate(lambda call, _: call.__name__ == "unpack")
                object.__setattr__(program.services, "offload", gate)  # it is frozen
            if step in {"adopt", "convert"}:
                gate = Gate(lambda call, _: call.__name__.strip("_") == step)
                program.services.pacs._offload = gate
            if step.startswith("store"):
                self.node.script.delay_s = 0.05
            order = program.tell(dispatch())

            def go_on() -> None:
                gate.opened.set()
                self.backend.rest.archives["session", "sess-1"].bytes_per_s = None
                self.node.script.delay_s = 0.0
                if turn is not None:
                    turn.release()

            match step.split():
                case ["queued"]:
                    await program.until(
                        lambda: program.dispatch_state(order) is DispatchState.QUEUED
                    )
                case ["download"]:
                    await program.until(lambda: self.backend.rest.downloads)
                case ["store", n]:
                    await program.until(lambda: len(self.node.arrivals) > int(n))
                case ["event"]:
                    pass
                case _:
                    await program.until(lambda: gate.reached)
            try:
                yield program, order, go_on
            finally:
                go_on()

    def files(self) -> list[Path]:
        """Objects and temporary files."""
        roots = (self.directory / "objects", self.directory / "staging")
        return [path for root in roots for path in root.rglob("*") if path.is_file()]

    def rows(self) -> dict[str, int]:
        """Return the number of rows of the deleted entity in the closed ledger."""
        with sqlite3.connect(self.directory / "ledger.db") as ledger:
            counts = {
                table: ledger.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
                for table in GONE
            }
        ledger.close()
        return counts

    def deletion(self, kind: str) -> JsonObject:
        uid = self.all[0].study_instance_uid
        match kind:
            case "session":
                return frames.session_deleted("sess-1", study_instance_uid=uid)
            case "subject":
                return frames.subject_deleted("subj-1", subject_identifier="DEMO-0001")
            case _:
                return frames.scan_deleted("scan-2", study_instance_uid=uid, scan_number=2)


def dispatch() -> JsonObject:
    return frames.session_dispatch("sess-1", ["a"], subject_id="subj-1")


@pytest.fixture
async def scene(
    directory: Path, backend: DemoBackend, request: pytest.FixtureRequest
) -> AsyncIterator[Scene]:
    callspec = getattr(request.node, "callspec", None)
    converts = callspec is not None and callspec.params.get("step") == "convert"
    takes = [ImplicitVRLittleEndian] if converts else EVERY_TRANSFER_SYNTAX
    node = DemoNode("A", node_id="a", transfer_syntaxes=takes)
    async with node.running():
        yield Scene(directory, backend, node)


@pytest.fixture(params=["goes on", "is killed"])
def then(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("kind", ["session", "subject"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_deletion_wins_at_every_step(scene: Scene, step: str, kind: str, then: str) -> None:
    async with scene.at(step) as (program, order, go_on):
        program.tell(scene.deletion(kind))
        if then == "goes on":
            go_on()
            closing = await program.over(order)
            assert closing["status"] == ("completed" if step == "over" else "failed")
            await program.idle()
            await program.until(lambda: not scene.files())
    async with running_program(scene.directory, scene.backend) as program:
        await program.configured()
        await program.until(lambda: not program.registry.dispatches)
        assert not scene.files()
        arrived = len(scene.node.arrivals)
        await trio.sleep(0.02)
        assert len(scene.node.arrivals) == arrived
    assert not any(scene.rows().values())
    async with running_program(scene.directory, scene.backend) as program:
        await program.configured()
        closing = await program.over(program.tell(dispatch()))
        assert (closing["status"], closing["files_sent"]) == ("completed", 8)
        assert len(scene.node.arrivals) == arrived + 8


@pytest.mark.parametrize("step", STEPS)
async def test_a_deleted_scan_leaves_the_other(scene: Scene, step: str, then: str) -> None:
    async with scene.at(step) as (program, order, go_on):
        program.tell(scene.deletion("scan"))
        if then == "goes on":
            go_on()
            assert (await program.over(order))["status"] == "completed"
            await program.idle()
    async with running_program(scene.directory, scene.backend) as program:
        await program.configured()
        await program.until(lambda: not program.registry.dispatches)
        await program.until(lambda: len(scene.files()) in {0, 4})
        assert scene.node.holds.keys() >= uids(scene.keep)
        again = await program.over(program.tell(dispatch()))  # ITH has it again: it is wanted again
        assert (again["status"], again["files_sent"]) == ("completed", 8)
        assert scene.node.holds.keys() == uids(scene.all)


@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_at_every_step_loses_and_repeats_nothing(scene: Scene, step: str) -> None:
    async with scene.at(step) as (_, order, _):
        pass
    async with running_program(scene.directory, scene.backend) as program:
        await program.configured()
        await program.until(lambda: not program.registry.dispatches)
        assert len(scene.node.arrivals) <= 9  # the one in flight may come twice
        assert scene.node.holds.keys() == uids(scene.all)
        program.tell({**dispatch(), "correlation_id": order})
        assert (await program.over(order))["status"] == "completed"
        assert not [path for path in scene.files() if "staging" in path.parts]


@pytest.mark.parametrize("kind", ["session", "subject"])
async def test_a_download_that_is_whole_when_its_dispatch_is_over_is_not_kept(
    scene: Scene, kind: str
) -> None:
    async with scene.at("adopt") as (program, order, go_on):
        gate = program.services.pacs._offload
        assert isinstance(gate, Gate)
        gate.waiting.shield = True
        program.tell(scene.deletion(kind))
        assert (await program.over(order))["status"] == "failed"
        assert program.registry.dispatches  # over, but a thread still moves its files
        go_on()
        await program.idle()
        await program.until(lambda: not scene.files())
    assert not any(scene.rows().values())


@pytest.mark.parametrize("kind", ["session", "subject"])
async def test_what_is_ordered_after_a_deletion_is_wanted(scene: Scene, kind: str) -> None:
    async with scene.at("adopt") as (program, order, go_on):
        program.tell(scene.deletion(kind))
        after = program.tell(dispatch())  # the deletion still waits for the local PACS
        go_on()
        assert (await program.over(order))["status"] == "failed"
        closing = await program.over(after)
        assert (closing["status"], closing["files_sent"]) == ("completed", 8)


@pytest.mark.parametrize("step", ["download", "unpack", "adopt", "keep", "plan", "store 1"])
async def test_a_session_deleted_by_its_study_alone_leaves_no_row(scene: Scene, step: str) -> None:
    uid = scene.all[0].study_instance_uid
    async with scene.at(step) as (program, order, go_on):
        program.tell(frames.session_deleted("another", study_instance_uid=uid))
        go_on()
        assert (await program.over(order))["status"] == "failed"
        await program.idle()
        await program.until(lambda: not scene.files())
    assert not any(scene.rows().values())


async def test_a_deletion_before_the_first_configuration_wins(scene: Scene) -> None:
    async with running_program(scene.directory, scene.backend) as program:
        order = program.tell(dispatch())
        program.tell(scene.deletion("session"))
        await program.configured()
        assert (await program.over(order))["error"].startswith(
            "session deleted in ITH; a node keeps"
        )
        await program.idle()
        assert scene.node.arrivals == []


async def test_a_scan_deleted_before_the_first_configuration_is_left_out(scene: Scene) -> None:
    async with running_program(scene.directory, scene.backend) as program:
        order = program.tell(dispatch())
        program.tell(scene.deletion("scan"))
        await program.configured()
        closing = await program.over(order)
        assert (closing["status"], closing["files_sent"]) == ("completed", 4)
        after = await program.over(program.tell(dispatch()))
        assert (after["status"], after["files_sent"]) == ("completed", 8)
    assert scene.node.holds.keys() == uids(scene.all)


async def test_an_order_after_a_deletion_before_the_first_configuration_is_wanted(
    scene: Scene,
) -> None:
    async with running_program(scene.directory, scene.backend) as program:
        before = program.tell(dispatch())
        program.tell(scene.deletion("session"))
        after = program.tell(dispatch())
        await program.services.ledger.settled()
    async with running_program(scene.directory, scene.backend) as program:
        await program.configured()
        assert (await program.over(before))["status"] == "failed"
        closing = await program.over(after)
        assert (closing["status"], closing["files_sent"]) == ("completed", 8)


async def test_a_deleted_scan_is_not_sent_while_its_files_are_yet_to_go(scene: Scene) -> None:
    async with scene.at("store 1") as (program, order, _):
        async with program.services.pacs._lock:  # as while another download is taken in
            program.tell(scene.deletion("scan"))
            await program.until(lambda: scene.node.holds.keys() >= uids(scene.keep))
            await trio.sleep(0.3)
        assert len(scene.files()) >= 4
        assert (await program.over(order))["status"] == "completed"
        assert scene.node.holds.keys() == uids(scene.keep)


async def test_a_deleted_scan_that_a_later_order_brings_back_is_not_sent_for_the_former(
    scene: Scene,
) -> None:
    scene.backend.rest.offer("scan", "scan-2", zip_session(scene.gone))
    async with DemoNode("B", node_id="b").running() as other:
        configure(scene.backend, [scene.node, other])
        async with scene.at("store 0") as (program, order, go_on):
            scene.node.script.delay_s = 0.3
            program.tell(scene.deletion("scan"))
            again = await program.over(program.tell(frames.scan_dispatch("scan-2", ["b"])))
            assert (again["status"], again["files_sent"]) == ("completed", 4)
            assert len(scene.node.arrivals) <= len(scene.keep)  # it has not come to them yet
            go_on()
            closing = await program.over(order)
            assert (closing["status"], closing["files_sent"]) == ("completed", 4)
        assert scene.node.holds.keys() == uids(scene.keep)
        assert other.holds.keys() == uids(scene.gone)


@pytest.mark.parametrize("restart", [False, True], ids=["goes on", "restarts"])
async def test_what_is_deleted_piece_by_piece_is_not_completed(scene: Scene, restart: bool) -> None:
    uid = scene.all[0].study_instance_uid
    first = frames.scan_deleted("scan-1", study_instance_uid=uid, scan_number=1)
    async with scene.at("store 4") as (program, order, _):
        program.supervisor.pause("new switch")
        await program.until(lambda: program.state(order, "a") is DeliveryState.HELD)
        program.tell(first)  # the node has it
        await program.until(lambda: len(scene.files()) == len(scene.gone))
        if not restart:
            program.tell(scene.deletion("scan"))
            assert (await program.over(order))["status"] == "failed"
            return
    async with running_program(scene.directory, scene.backend) as program:
        await program.configured()
        scene.node.script.delay_s = 0.3
        program.supervisor.resume()
        await program.until(lambda: program.state(order, "a") is DeliveryState.STORING)
        program.tell(scene.deletion("scan"))
        closing = await program.over(order)
        assert (closing["status"], closing["files_sent"]) == ("failed", len(scene.node.holds))
        assert len(scene.node.holds) < len(scene.all)
