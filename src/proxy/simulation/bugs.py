"""Planted bugs: each is a mistake that such programs make, and that the simulation must catch.

A bug is planted by replacing a part of the program for the length of a block, in this process
alone. :func:`hunt` runs the worlds of the seeds 1, 2, 3 … until one fails.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import trio
from msgspec.structs import replace

from proxy.activities.delivery import attempt, delivery
from proxy.activities.delivery.attempt import Assignment, InstanceSender, after_failure
from proxy.backend import link
from proxy.backend.receipts import Receipts
from proxy.dicom import storage
from proxy.dicom.association import Association
from proxy.dicom.pdu import InvalidPdu, PduReader, Received
from proxy.dicom.provider import Provider
from proxy.dicom.storage import StoreInterrupted, StoreResult
from proxy.events.incoming import Incoming
from proxy.ledger import Counts, Ledger, database, statements
from proxy.machines.connection import ConnectionData
from proxy.machines.delivery import AttemptsExhausted
from proxy.machines.failures import Failure, Remedy, classify_store
from proxy.machines.policy import Ending
from proxy.model import Instance
from proxy.pacs.local import LocalPacs
from proxy.reporting.outbox import Outbox, Parcel
from proxy.simulation.internet import SimulatedWire
from proxy.simulation.many import begin_process, simulate
from proxy.simulation.scenario import draw
from proxy.supervision.supervisor import Supervisor
from proxy.work.runs import DeliveryRun
from proxy.work.scheduler import Scheduler

BETWEEN_FRAMES_S = 0.01

MOST_SEEDS = 500
"""A bug that so many seeds do not show is not caught."""


@dataclass(frozen=True)
class PlantedBug:
    """A bug, in words; ``planted`` has it in the program for the length of a block."""

    name: str
    sentence: str
    planted: Callable[[], AbstractContextManager[None]]


class Caught(NamedTuple):
    """The seed that showed a bug, the number of seeds it took, and what failed."""

    name: str
    seed: int | None
    seeds: int
    violation: str

    @property
    def promise(self) -> str:
        """The number of the promise that was broken first, empty where it has none."""
        found = re.search(r"\((P\d+)\)", self.violation)
        return found.group(1) if found else ""


BUGS: list[PlantedBug] = []


def _bug(sentence: str) -> Callable[[Callable[[], Iterator[None]]], None]:
    """Add a bug to the list; its name is the function's."""

    def add(plant: Callable[[], Iterator[None]]) -> None:
        name = plant.__name__.strip("_").replace("_", " ")
        BUGS.append(PlantedBug(name, sentence, contextmanager(plant)))

    return add


@contextmanager
def _replaced(owner: object, **parts: object) -> Iterator[None]:
    """Replace attributes of a class or module for the length of the block."""
    before = {name: getattr(owner, name) for name in parts}
    for name, part in parts.items():
        setattr(owner, name, part)
    try:
        yield
    finally:
        for name, part in before.items():
            setattr(owner, name, part)


@_bug("An instance counts as stored when its last byte was sent.")
def _report_before_response() -> Iterator[None]:
    original = InstanceSender.store

    async def store(self: InstanceSender, instance: Instance) -> StoreResult | None:
        try:
            return await original(self, instance)
        except StoreInterrupted as lost:
            if lost.sent_whole:
                return StoreResult(classify_store(0), 0)
            raise

    with _replaced(InstanceSender, store=store):
        yield


@_bug("The ledger does not sync its log.")
def _forgotten_fsync() -> Iterator[None]:
    pragmas = tuple(each.replace("= FULL", "= OFF") for each in database.PRAGMAS)
    with _replaced(database, PRAGMAS=pragmas):
        yield


@_bug("A refusal for good (C000H) is tried again.")
def _permanent_refusal_retried() -> Iterator[None]:
    def classify(status: int) -> Failure:
        return classify_store(0xA700 if status == 0xC000 else status)

    with _replaced(storage, classify_store=classify):
        yield


@_bug("The waits between attempts to connect begin again with each link.")
def _back_off_reset_early() -> Iterator[None]:
    original = ConnectionData
    with _replaced(link, LinkData=lambda *a, **k: replace(original(*a, **k), stable_seconds=0.0)):
        yield


@_bug("A warning (B000H) counts as a failure.")
def _warning_is_failure() -> Iterator[None]:
    def classify(status: int) -> Failure:
        return classify_store(0xC000 if status & 0xF000 == 0xB000 else status)

    with _replaced(storage, classify_store=classify):
        yield


@_bug("The outbox forgets a report when it is sent.")
def _outbox_forgets_when_sent() -> Iterator[None]:
    original = Outbox.sent

    def sent(self: Outbox, parcel: Parcel) -> None:
        original(self, parcel)
        self.confirm(self.mark())
        if (kept := self._kept.pop(parcel.key, None)) is not None:
            self._ledger.post_forget([kept.report_id])

    with _replaced(Outbox, sent=sent):
        yield


@_bug("A pong proves a report, and what is proven is forgotten.")
def _pong_taken_as_a_receipt() -> Iterator[None]:
    original = Outbox.confirm

    def confirm(self: Outbox, mark: int) -> None:
        original(self, mark)
        self._ledger.post_forget([kept.report_id for kept in self._kept.values()])
        self._kept.clear()

    with _replaced(Outbox, confirm=confirm), _replaced(Receipts, _pongs_prove=True):
        yield


@_bug("After an interruption everything is sent again, stored or not.")
def _sent_twice_after_a_resume() -> Iterator[None]:
    to_send = statements._TO_SEND  # noqa: SLF001
    everything = statements._INSTANCES + to_send[to_send.index("ORDER BY") :]  # noqa: SLF001
    with _replaced(statements, _TO_SEND=everything):
        yield


@_bug("An association that is aborted keeps its socket.")
def _association_leaked() -> Iterator[None]:
    original = Provider.close

    def close(self: Provider) -> None:
        if self.error is None:
            original(self)

    with _replaced(Provider, close=close):
        yield


@_bug("A deletion leaves the files.")
def _deletion_leaves_files() -> Iterator[None]:
    async def keep(self: LocalPacs, hashes: Iterable[str]) -> None:
        pass

    with _replaced(LocalPacs, _remove_unreferenced=keep):
        yield


@_bug("An order with low priority waits for as long as more urgent ones come.")
def _low_priority_starved() -> Iterator[None]:
    with _replaced(Scheduler, _favours_oldest=lambda _: False):
        yield


@_bug("Each failure of a node counts as an attempt of every order for it.")
def _attempts_counted_against_a_known_outage() -> Iterator[None]:
    def counted(
        assignment: Assignment, run: DeliveryRun, error: str, *remedy: Remedy, away: bool = False
    ) -> Ending:
        node = assignment.node
        retries, _ = node.retries
        if away and run.data.stop is None and node.run.data.failures >= retries:
            return AttemptsExhausted(error)
        return after_failure(assignment, run, error, *remedy, away=away)

    with _replaced(delivery, after_failure=counted), _replaced(attempt, after_failure=counted):
        yield


@_bug("The counts of a dispatch's first node are told for each of its nodes.")
def _counts_swapped() -> Iterator[None]:
    original, latest = Ledger.settle, dict[int, Counts]()

    async def settle(
        self: Ledger, dispatch_id: int, node_id: str, node: str, *, resend: bool
    ) -> Counts:
        counts = await original(self, dispatch_id, node_id, node, resend=resend)
        return latest.setdefault(dispatch_id, counts)

    with _replaced(Ledger, settle=settle):
        yield


@_bug("An order that comes at the same moment as another event is dropped.")
def _order_dropped() -> Iterator[None]:
    original, latest = Supervisor.handle, [-math.inf]

    def handle(self: Supervisor, event: Incoming) -> None:
        is_first = trio.current_time() - latest[0] > BETWEEN_FRAMES_S
        latest[0] = trio.current_time()
        if is_first:
            original(self, event)

    with _replaced(Supervisor, handle=handle):
        yield


@_bug("Bytes that are there are taken without letting another task run.")
def _no_yield_in_the_receive_loop() -> Iterator[None]:
    original = SimulatedWire.receive_some

    async def receive_some(self: SimulatedWire) -> bytes:
        data = self.receive_now()
        return await original(self) if data is None else data

    with _replaced(SimulatedWire, receive_some=receive_some):
        yield


@_bug("After a broken PDU the received bytes are kept, and more are read.")
def _buffer_kept_after_a_broken_pdu() -> Iterator[None]:
    def pdus(self: PduReader) -> Iterator[Received]:
        while not self.is_broken:
            try:
                received = self._next()
            except InvalidPdu:
                return
            if received is None:
                return
            yield received

    with _replaced(PduReader, pdus=pdus):
        yield


@_bug("The content is not compared with its hash while it is sent.")
def _content_not_compared() -> Iterator[None]:
    original = storage._blocks  # noqa: SLF001

    def blocks(
        association: Association, instance: Instance, file: int
    ) -> Iterator[tuple[memoryview, bool]]:
        actual = hashlib.sha256(os.pread(file, instance.size, 0)).hexdigest()
        return original(association, replace(instance, sha256=actual), file)

    with _replaced(storage, _blocks=blocks):
        yield


def hunt(bug: PlantedBug, most: int = MOST_SEEDS, first: int = 1) -> Caught:
    """Run worlds with the bug until one fails that holds without it."""
    for number, seed in enumerate(range(first, first + most), 1):
        scenario = draw(seed)
        with bug.planted():
            violations = simulate(scenario).violations
        if violations and not simulate(scenario).violations:
            return Caught(bug.name, seed, number, violations[0])
    return Caught(bug.name, None, most, "")


def hunt_all(
    most: int = MOST_SEEDS, on_caught: Callable[[Caught], None] = lambda _: None
) -> list[Caught]:
    """Hunt every bug, on all processors; ``on_caught`` is told of each as its hunt ends.

    The result has the order of ``BUGS``.
    """
    with ProcessPoolExecutor(initializer=begin_process) as processes:
        hunts = [processes.submit(_hunt_number, number, most) for number in range(len(BUGS))]
        try:
            for ended in as_completed(hunts):
                on_caught(ended.result())
        except KeyboardInterrupt:
            processes.shutdown(wait=False, cancel_futures=True)
            raise
        return [each.result() for each in hunts]


def _hunt_number(number: int, most: int) -> Caught:
    return hunt(BUGS[number], most)
