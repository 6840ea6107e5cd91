"""Many worlds, on all processors, and the table of what they were and found."""

from __future__ import annotations

import logging
import os
import re
import signal
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from proxy.machines import MACHINES
from proxy.runtime.marks import Mark
from proxy.simulation.scenario import Blow, Scenario, draw
from proxy.simulation.shrink import Shrunk, shrink
from proxy.simulation.world import Result, run

TWICE_ONE_IN = 100
"""One world in so many is run twice, and must be the same."""
MEMORY = Path("/dev/shm")  # noqa: S108 - the directories in it are made safely
BATCH = 4
"""So many worlds are run before Ctrl-C takes effect."""


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
    incidents: Counter[str] = field(default_factory=Counter)
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
        self.incidents.update(_spoken(type(each)) for each in result.scenario.incidents)
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
            (self.incidents, other.incidents),
        ):
            mine.update(others)
        self.seconds += other.seconds
        self.steps += other.steps


def _spoken(kind: type) -> str:
    """Return the name of a class as words: ``partial outage``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()


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
    with ProcessPoolExecutor(initializer=begin_process) as processes:
        try:
            for part in processes.map(simulate_seeds, batches):
                total.merge(part)
                on_batch(total)
        except KeyboardInterrupt:
            processes.shutdown(cancel_futures=True)
            raise
    return total


def begin_process() -> None:
    """Write no log into the terminal, and leave Ctrl-C to the process that waits."""
    logging.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def shrunk(scenario: Scenario) -> Shrunk:
    """Return the smallest scenario found that fails as this one does."""
    kind = _kind(simulate(scenario).violations)
    return shrink(scenario, lambda smaller: _kind(simulate(smaller).violations) == kind)


def _kind(violations: list[str]) -> str:
    """Tell violations apart without their numbers and names: shrinking stays with one failure."""
    first = brief(violations[0]).partition(" s: ")[2] if violations else ""
    return " ".join(re.findall(r"\b[a-z]{3,}\b", first))


WIDTH = 80
"""Of a terminal, in columns."""


def table(total: Total, wall_seconds: float) -> Iterator[str]:
    """Yield the lines of the table, none wider than a terminal."""
    yield _line("worlds", f"{total.worlds:,}")
    yield _line("worlds that failed", f"{len(total.failed):,}")
    yield _line("run twice", f"{total.twice:,}")
    yield _line("run twice, and differed", f"{len(total.differed):,}")
    yield _line("simulated time", f"{total.seconds / 3600:,.0f} h")
    yield _line("steps of tasks", f"{total.steps:,}")
    yield _line("time", f"{wall_seconds:,.0f} s")
    yield _line("worlds a second", f"{total.worlds / wall_seconds:.1f}")
    yield ""
    yield from _coverage(total)
    yield ""
    yield "incidents"
    yield from _counted(total.incidents)
    yield "reports that ended"
    yield from (_line(f"  {word}", f"{count:,}") for word, count in sorted(total.endings.items()))
    if total.expected:
        yield "failed though it healed, as in this version"
        yield from _counted(total.expected)
    yield from _faults(total.faults)
    for seed, violations in sorted(total.failed.items()):
        yield ""
        yield f"seed {seed}: ith-proxy sim --seed {seed}"
        yield from wrapped(brief(violations[0]), "  ")
    for seed in sorted(total.differed):
        yield f"seed {seed}: two runs differed"


def _coverage(total: Total) -> Iterator[str]:
    rows = {row.id for machine in MACHINES for row in machine.rows}
    yield _share("rows taken", len(total.rows & rows), len(rows))
    for machine in MACHINES:
        mine = [row.id for row in machine.rows]
        left = sorted(row for row in mine if row not in total.rows)
        yield _share(f"  {machine.name}", len(mine) - len(left), len(mine))
        if left:
            yield from wrapped(f"not taken: {' '.join(left)}", "    ")
    unreached = [mark.name for mark in Mark if mark.name not in total.marks]
    yield _share("marks reached", len(Mark) - len(unreached), len(Mark))
    if unreached:
        yield from wrapped(f"not reached: {' '.join(unreached)}", "    ")


def _faults(faults: Counter[str]) -> Iterator[str]:
    aimed = {kind for kind in faults if " at " in kind}
    yield "faults that occurred"
    yield from _counted(Counter({kind: faults[kind] for kind in faults if kind not in aimed}))
    if aimed:
        yield "".join((f"{'faults at marks':<24}", *(f"{blow.name:>11}" for blow in Blow)))
        for mark in Mark:
            counts = [faults[f"{blow.name} at {mark.name}"] for blow in Blow]
            yield "".join((f"  {mark.name:<22}", *(f"{count or '-':>11}" for count in counts)))


def _counted(counts: Counter[str]) -> Iterator[str]:
    for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        yield _line(f"  {kind}", f"{count:,}")


def _line(label: str, figure: str, remark: str = "") -> str:
    return f"{label:<48}{figure:>15}{remark:>8}".rstrip()


def _share(label: str, part: int, of: int) -> str:
    return _line(label, f"{part:,} of {of:,}", f"{part / of:.0%}")


def wrapped(text: str, indent: str = "", hanging: str | None = None) -> list[str]:
    """Break a line so that a terminal shows it well; ``hanging`` indents what follows the first."""
    further = indent if hanging is None else hanging
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=further, break_on_hyphens=False
    )


def brief(violation: str) -> str:
    """Return a violation without the middle of its traceback, if it has one."""
    first, *others = (line for line in violation.splitlines() if line.strip(" |+-"))
    return f"{first} … {others[-1].strip(' |')}" if others else first


def timed() -> Callable[[], float]:
    """Return a function that tells the seconds since now."""
    begun = time.perf_counter()
    return lambda: time.perf_counter() - begun
