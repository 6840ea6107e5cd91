"""Many trials side by side, and what they leave behind in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.end_to_end.stops.leftovers import Look, left_since, steady
from tests.end_to_end.stops.node import Phase
from tests.end_to_end.stops.reasons import Reason
from tests.end_to_end.stops.session import SMALL, Prepared, prepare
from tests.end_to_end.stops.trial import Trial

NOTHING: Counter[str] = Counter()
STARTING = 6
"""Trials that get ready at a time: the start of a proxy is work, all the rest is waiting."""


@dataclass(frozen=True)
class Batch:
    """The results of some trials: ``live`` was left while the proxies ran, ``left`` afterwards."""

    trials: Sequence[Trial]
    live: Look
    left: Look
    temporary: int
    """Files in the directory for temporary ones."""

    @property
    def problems(self) -> list[str]:
        """The problems: late, left or wrong things, one sentence each."""
        found = [
            f"{t.phase.value}, {t.reason.value}: {wrong}" for t in self.trials for wrong in t.wrong
        ]
        found += [
            f"{t.phase.value}, {t.reason.value}: {t.seconds:.2f} s, the limit is {t.limit:.2f} s"
            for t in self.trials
            if t.seconds > t.limit
        ]
        for when, look in (("after the stop", self.live), ("at the end", self.left)):
            for what in ("tasks", "threads", "descriptors"):
                found += [f"left {when}: {n} × {x}" for x, n in getattr(look, what).items()]
        if self.temporary:
            found.append(f"left at the end: {self.temporary} temporary files")
        return found


class Bench:
    """The place of the trials; sessions are prepared once."""

    def __init__(
        self, root: Path, *, cancel_seconds: float, late_seconds: float, large: int
    ) -> None:
        """Make it; ``late_seconds`` is what a busy machine may add to the limit of a stop."""
        self._root = root
        self.temporary = root / "temporary"
        """The directory for temporary files of this process: any file in it is a leftover."""
        self.temporary.mkdir()
        self._cancel_seconds = cancel_seconds
        self._late_seconds = late_seconds
        self._large = large
        self._prepared: dict[int, Prepared] = {}
        self._held = 0

    async def hold(self, combinations: Sequence[tuple[Phase, Reason]]) -> Batch:
        """Hold a trial of each combination, all at the same time."""
        for phase, _ in combinations:
            await self._session(phase)
        nothing = await steady()
        async with trio.open_nursery() as nursery:
            begin, end = trio.Event(), trio.Event()
            places = trio.Semaphore(STARTING)
            trials = [await self._trial(*each) for each in combinations]
            for trial in trials:
                await places.acquire()
                nursery.start_soon(trial.run, begin, end)
                nursery.start_soon(_free, trial, places)
            for trial in trials:
                await trial.ready.wait()
            before = await steady()
            begin.set()
            for trial in trials:
                await trial.stopped.wait()
            held = sum((trial.held_tasks for trial in trials), start=Counter[str]())
            live = await left_since(before, Look(held, NOTHING, NOTHING))
            end.set()
        left = await left_since(nothing)
        return Batch(trials, live, left, len([*self.temporary.iterdir()]))

    async def _trial(self, phase: Phase, reason: Reason) -> Trial:
        self._held += 1
        root = self._root / f"{self._held:04}"
        prepared = await self._session(phase)
        return Trial(
            phase,
            reason,
            prepared,
            root,
            cancel_seconds=self._cancel_seconds,
            late_seconds=self._late_seconds,
        )

    async def _session(self, phase: Phase) -> Prepared:
        size = self._large if phase is Phase.ZERO_WINDOW else SMALL
        if size not in self._prepared:
            self._prepared[size] = await prepare(self._root / f"session-{size}", size)
        return self._prepared[size]


async def _free(trial: Trial, places: trio.Semaphore) -> None:
    await trial.ready.wait()
    places.release()
