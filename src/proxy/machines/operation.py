"""The operation of the complete proxy: active, paused, draining or stopped."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import ClassVar, TypeAlias

import msgspec

from proxy.fsm import STAY, WHEN_OVER, Event, Machine, Source, group, ignore, limit, row, state


class OperationState(Enum):
    """The states of the complete proxy."""

    ACTIVE = "Dispatches are carried out."
    PAUSED = "Dispatches are accepted and kept. Nothing is downloaded or sent."
    DRAINING = "The program stops. C-STOREs in flight may end. The rest stays in the ledger."
    STOPPED = "No work is left running."


class PauseLock(Enum):
    """The holders of a pause; the proxy is active only when no lock is held."""

    BACKEND = "backend"
    OPERATOR = "operator"


class PauseRequested(Event, frozen=True):
    """ITH set the proxy inactive, or the operator paused it; ``since`` in UTC seconds."""

    source: ClassVar[Source] = Source.BACKEND
    lock: PauseLock
    reason: str
    since: float = 0.0


class LockReleased(Event, frozen=True):
    """One holder released its lock, and the other one still holds the pause."""

    source: ClassVar[Source] = Source.BACKEND
    lock: PauseLock


class LastLockReleased(Event, frozen=True):
    """The last lock was released."""

    source: ClassVar[Source] = Source.BACKEND
    lock: PauseLock


class DrainRequested(Event, frozen=True):
    """The first signal that stops the program came."""

    source: ClassVar[Source] = Source.OPERATOR
    reason: str


class StopRequested(Event, frozen=True):
    """A second signal came: stop at once."""

    source: ClassVar[Source] = Source.OPERATOR
    reason: str


class Drained(Event, frozen=True):
    """No association is open any longer."""

    source: ClassVar[Source] = Source.SUPERVISOR


class DrainTimedOut(Event, frozen=True):
    """The drain limit is over."""

    source: ClassVar[Source] = Source.TIMER


class PauseReason(msgspec.Struct, frozen=True):
    """The reason of one lock, and the time since which it is held (UTC seconds, 0 for unknown)."""

    reason: str
    since: float = 0.0


class PauseLocks(msgspec.Struct, frozen=True):
    """The data of the operation machine: the locks that are held, each with its reason.

    ``drain_seconds`` is the limit of a drain.
    """

    backend: PauseReason | None = None
    operator: PauseReason | None = None
    drain_seconds: float = 20.0

    @property
    def held(self) -> Mapping[PauseLock, PauseReason]:
        """The locks that are held."""
        both = {PauseLock.BACKEND: self.backend, PauseLock.OPERATOR: self.operator}
        return {lock: kept for lock, kept in both.items() if kept is not None}

    @property
    def reason(self) -> str:
        """The reasons of all held locks."""
        return "; ".join(kept.reason for kept in self.held.values())


class HoldWork(msgspec.Struct, frozen=True):
    """Output: hold every dispatch and delivery."""

    reason: str


class ResumeWork(msgspec.Struct, frozen=True):
    """Output: let held work go on."""


class SaveLocks(msgspec.Struct, frozen=True):
    """Output: write the locks to the ledger."""

    locks: PauseLocks


class StopWork(msgspec.Struct, frozen=True):
    """Output: cancel what still runs; the ledger keeps it for the next start."""

    reason: str


OperationOutput: TypeAlias = HoldWork | ResumeWork | SaveLocks | StopWork
_Result: TypeAlias = tuple[PauseLocks, tuple[OperationOutput, ...]]


def _take(locks: PauseLocks, event: PauseRequested) -> PauseLocks:
    """Take a lock; one that is held keeps its time and gets the newer reason."""
    held = locks.held.get(event.lock)
    reason = PauseReason(event.reason, held.since if held else event.since)
    return msgspec.structs.replace(locks, **{event.lock.value: reason})


def _give(locks: PauseLocks, lock: PauseLock) -> PauseLocks:
    return msgspec.structs.replace(locks, **{lock.value: None})


def pause(locks: PauseLocks, event: PauseRequested) -> _Result:
    """Keep the lock and hold all work."""
    locks = _take(locks, event)
    return locks, (SaveLocks(locks), HoldWork(event.reason))


def keep_lock(locks: PauseLocks, event: PauseRequested) -> _Result:
    """Keep the lock; the work is held already."""
    locks = _take(locks, event)
    return locks, (SaveLocks(locks),)


def release_lock(locks: PauseLocks, event: LockReleased | LastLockReleased) -> _Result:
    """Save that this lock is released."""
    locks = _give(locks, event.lock)
    return locks, (SaveLocks(locks),)


def resume(locks: PauseLocks, event: LastLockReleased) -> _Result:
    """Save that no lock is left, and let the work go on."""
    locks = _give(locks, event.lock)
    return locks, (SaveLocks(locks), ResumeWork())


def drain(locks: PauseLocks, event: DrainRequested) -> _Result:
    """Hold all work; the locks stay as they are."""
    return locks, (HoldWork(event.reason),)


def stop(locks: PauseLocks, event: StopRequested | Drained) -> _Result:
    """Cancel what still runs."""
    reason = event.reason if isinstance(event, StopRequested) else "drained"
    return locks, (StopWork(reason),)


def stop_late(locks: PauseLocks, event: DrainTimedOut) -> _Result:
    """Cancel what did not end in time."""
    return locks, (StopWork("the drain limit is over"),)


ACTIVE, PAUSED, DRAINING, STOPPED = OperationState
RUNNING = group(
    "RUNNING", ACTIVE, PAUSED, doc="The program accepts orders, and no stop was requested."
)

OPERATION: Machine[OperationState, PauseLocks, OperationOutput] = Machine(
    name="operation",
    purpose=__doc__,
    initial=ACTIVE,
    final=frozenset({STOPPED}),
    groups=(RUNNING,),
    definitions=(
        state(ACTIVE, untimed="this is the normal state"),
        state(PAUSED, untimed="a pause lasts until its locks are released"),
        state(
            DRAINING,
            after=limit(
                lambda locks: locks.drain_seconds,
                DrainTimedOut,
                "service.drain_seconds (default 20 s)",
            ),
        ),
    ),
    rows=(
        row(
            "OPS-01",
            ACTIVE,
            PauseRequested,
            PAUSED,
            pause,
            doc="All work is held, and no work is lost.",
            traces=("REQ-EVT-09", "BEH-43", "BEH-44"),
        ),
        row(
            "OPS-02",
            (PAUSED, DRAINING),
            PauseRequested,
            STAY,
            keep_lock,
            doc="Each holder has its own lock, and while one is held the next start is paused too.",
            traces=("REQ-PROT-53", "REQ-OPS-05", "BEH-43", "REQ-OPS-04"),
        ),
        row(
            "OPS-03",
            PAUSED,
            LockReleased,
            STAY,
            release_lock,
            doc="The other holder still wants the pause.",
            traces=("REQ-PROT-53", "REQ-OPS-05", "BEH-43"),
        ),
        row(
            "OPS-04",
            PAUSED,
            LastLockReleased,
            ACTIVE,
            resume,
            doc="The work goes on from the ledger.",
            traces=("REQ-EVT-09", "BEH-43", "BEH-46"),
        ),
        row(
            "OPS-05",
            RUNNING,
            DrainRequested,
            DRAINING,
            drain,
            doc="The program stops in order.",
            traces=("REQ-OPS-01",),
        ),
        row(
            "OPS-06",
            DRAINING,
            Drained,
            STOPPED,
            stop,
            doc="Nothing is in flight any longer.",
            traces=("REQ-OPS-01",),
        ),
        row(
            "OPS-07",
            DRAINING,
            DrainTimedOut,
            STOPPED,
            stop_late,
            doc="The program does not wait longer than the drain limit.",
            traces=("REQ-OPS-02",),
        ),
        row(
            "OPS-08",
            (*RUNNING, DRAINING),
            StopRequested,
            STOPPED,
            stop,
            doc="A second signal asks for an immediate stop.",
            traces=("REQ-OPS-02",),
        ),
        row(
            "OPS-10",
            DRAINING,
            (LockReleased, LastLockReleased),
            STAY,
            release_lock,
            doc="The lock is released for the next start, and the drain goes on.",
            traces=("REQ-OPS-04", "BEH-43"),
        ),
    ),
    ignores=(
        ignore(
            "OPS-90",
            ACTIVE,
            (LockReleased, LastLockReleased),
            doc="The proxy is not paused, so no lock is held.",
        ),
        ignore("OPS-92", DRAINING, DrainRequested, doc="The program is draining already."),
        ignore(
            "OPS-93", RUNNING, Drained, doc="An idle program goes on until a stop is requested."
        ),
    ),
    retired={
        "OPS-09": "OPS-02",
        "OPS-11": "OPS-10",
        "OPS-91": "OPS-90",
        "OPS-94": WHEN_OVER,
        "OPS-95": WHEN_OVER,
        "OPS-96": WHEN_OVER,
        "OPS-97": WHEN_OVER,
        "OPS-98": WHEN_OVER,
        "OPS-99": WHEN_OVER,
    },
    notes=(
        "The ledger keeps the locks, each with its reason. A proxy that was paused starts paused.",
        "ITH and the operator have one lock each. Work goes on when both are released.",
        "Link, heartbeat, deletions and configuration work in every state but STOPPED.",
    ),
)
