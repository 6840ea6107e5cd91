"""Many worlds, on all processors, and the table of what they were and found."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from proxy.machines import MACHINES
from proxy.runtime.marks import Mark
from proxy.simulation.scenario import Scenario, draw
from proxy.simulation.shrink import Shrunk, shrink
from proxy.simulation.world import Result, run

TWICE_ONE_IN = 100
"""One world in so many is run twice, and must be the same."""
MEMORY = Path("/dev/shm")  # noqa: S108 - the directories in it are made safely
BATCH = 10


@dataclass
class Total:
    """What many worlds were."""

    worlds: int = 0
    failed: dict[int, list[str]] = field(default_factory=dict)
    twice: int = 0
    differed: list[int] = field(default_factory=list)
    rows: set[str] = field(default_factory=set)
    marks: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    expected: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    steps: int = 0

    def add(self, result: Result) -> None:
        """Add one world."""
        self.worlds += 1
        if result.violations:
            self.failed[result.scenario.seed] = result.violations
        self.rows |= result.rows
        self.marks.update(result.marks)
        self.faults.update(result.faults)
        self.expected.update(result.expected)
        self.endings.update(result.endings)
        self.seconds += result.seconds
        self.steps += result.steps

    def merge(self, other: Total) -> None:
        """Add what another process has run."""
        self.worlds += other.worlds
        self.failed |= other.failed
        self.twice += other.twice
        self.differed += other.differed
        self.rows |= other.rows
        for mine, others in (
            (self.marks, other.marks),
            (self.faults, other.faults),
            (self.expected, other.expected),
            (self.endings, other.endings),
        ):
            mine.update(others)
        self.seconds += other.seconds
        self.steps += other.steps


def simulate(scenario: Scenario, *, with_history: bool = False) -> Result:
    """Run one world in a directory of its own, in memory where there is some."""
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory, prefix="ith-proxy-sim-") as directory:
        return run(scenario, Path(directory), with_history=with_history)


def simulate_seeds(seeds: Iterable[int]) -> Total:
    """Run the worlds of some seeds in this process."""
    total = Total()
    for seed in seeds:
        scenario = draw(seed)
        result = simulate(scenario)
        total.add(result)
        if seed % TWICE_ONE_IN == 0:
            total.twice += 1
            if simulate(scenario).trace != result.trace:
                total.differed.append(seed)
    return total


def simulate_many(
    first: int, count: int, on_batch: Callable[[Total], None] = lambda _: None
) -> Total:
    """Run the worlds of ``count`` seeds on all processors; ``on_batch`` is told now and then."""
    total = Total()
    seeds = range(first, first + count)
    batches = [seeds[start : start + BATCH] for start in range(0, count, BATCH)]
    with ProcessPoolExecutor() as processes:
        for part in processes.map(simulate_seeds, batches):
            total.merge(part)
            on_batch(total)
    return total


def shrunk(scenario: Scenario) -> Shrunk:
    """Return the smallest scenario found that fails as this one does."""
    kind = _kind(simulate(scenario).violations)
    return shrink(scenario, lambda smaller: _kind(simulate(smaller).violations) == kind)


def _kind(violations: list[str]) -> str:
    """Tell violations apart without their numbers, so that shrinking stays with one failure."""
    first = violations[0].partition(" s: ")[2] if violations else ""
    return "".join(c for c in first if not c.isdigit())


def table(total: Total, wall_seconds: float) -> Iterator[str]:
    """Yield the lines of the table."""
    rows = {row.id: machine.name for machine in MACHINES for row in machine.rows}
    yield f"worlds                 {total.worlds:>10}"
    yield f"worlds that failed     {len(total.failed):>10}"
    yield f"run twice, differed    {total.twice:>10}{len(total.differed):>8}"
    yield f"simulated hours        {total.seconds / 3600:>10.0f}"
    yield f"steps of tasks         {total.steps:>10}"
    yield f"seconds, worlds a second {wall_seconds:>8.0f}{total.worlds / wall_seconds:>8.1f}"
    taken = total.rows & rows.keys()
    yield f"rows taken             {len(taken):>10} of {len(rows)} ({len(taken) / len(rows):.0%})"
    for machine in MACHINES:
        mine = {row.id for row in machine.rows}
        left = sorted(mine - total.rows)
        yield f"  {machine.name:<20} {len(mine) - len(left):>10} of {len(mine)}"
        if left:
            yield f"    not taken: {' '.join(left)}"
    unreached = [mark.name for mark in Mark if mark.name not in total.marks]
    yield f"marks reached          {len(Mark) - len(unreached):>10} of {len(Mark)}"
    if unreached:
        yield f"    not reached: {' '.join(unreached)}"
    yield "reports that ended:    " + ", ".join(
        f"{count} {word}" for word, count in sorted(total.endings.items())
    )
    yield "failed though it healed, as this version does:"
    yield from (f"  {count:>8} {reason}" for reason, count in total.expected.most_common())
    yield "faults that occurred:"
    yield from (f"  {count:>8} {fault}" for fault, count in total.faults.most_common())
    for seed, violations in sorted(total.failed.items()):
        yield f"seed {seed}: {violations[0]}"


def timed() -> Callable[[], float]:
    """Return a function that tells the seconds since now."""
    begun = time.perf_counter()
    return lambda: time.perf_counter() - begun
