"""Many worlds, on all processors, and the table of what they were and found."""

from __future__ import annotations

import logging
import re
import signal
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from proxy.machines import MACHINES
from proxy.runtime.marks import Mark
from proxy.simulation.scenario import Scenario, draw, happens
from proxy.simulation.scratch import scratch_directory
from proxy.simulation.shrink import Shrunk, shrink
from proxy.simulation.steering import UNREACHABLE, aim_of, rare
from proxy.simulation.words import spoken
from proxy.simulation.world import Result, run

TWICE_ONE_IN = 100
"""One world in so many is run twice, and must be the same."""
BATCH = 4
"""So many worlds are run before Ctrl-C takes effect."""
ROUND = 100
"""After so many worlds, the next ones are aimed at what was seldom reached."""


@dataclass
class Total:
    """What many worlds were.

    ``reached`` counts the worlds in which a row was taken or a mark reached, ``marks`` how often a
    mark was. ``aims`` are those of the worlds that failed or differed, by their seeds.
    """

    worlds: int = 0
    failed: dict[int, list[str]] = field(default_factory=dict)
    twice: int = 0
    differed: list[int] = field(default_factory=list)
    aims: dict[int, str] = field(default_factory=dict)
    reached: Counter[str] = field(default_factory=Counter)
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
            self.aims[result.scenario.seed] = result.scenario.aim
        self.reached.update(result.rows | result.marks.keys())
        self.marks.update(result.marks)
        self.faults.update(result.faults)
        self.expected.update(result.expected)
        self.endings.update(result.endings)
        self.incidents.update(spoken(type(happens(each))) for each in result.scenario.incidents)
        self.seconds += result.seconds
        self.steps += result.steps

    def merge(self, other: Total) -> None:
        """Add what another process has run."""
        self.worlds += other.worlds
        self.failed |= other.failed
        self.twice += other.twice
        self.differed += other.differed
        self.aims |= other.aims
        for mine, others in (
            (self.reached, other.reached),
            (self.marks, other.marks),
            (self.faults, other.faults),
            (self.expected, other.expected),
            (self.endings, other.endings),
            (self.incidents, other.incidents),
        ):
            mine.update(others)
        self.seconds += other.seconds
        self.steps += other.steps


def simulate(scenario: Scenario, *, with_history: bool = False) -> Result:
    """Run one world in a directory of its own, in memory where there is some."""
    with scratch_directory() as directory:
        return run(scenario, directory, with_history=with_history)


def simulate_seeds(seeds: Iterable[int], aims: Sequence[str] = ()) -> Total:
    """Run the worlds of some seeds in this process; every other one has one of the aims."""
    total = Total()
    for seed in seeds:
        scenario = draw(seed, aim_of(seed, aims))
        result = simulate(scenario)
        total.add(result)
        if seed % TWICE_ONE_IN == 0:
            total.twice += 1
            if simulate(scenario).trace != result.trace:
                total.differed.append(seed)
                total.aims[seed] = scenario.aim
    return total


def simulate_many(
    first: int, count: int, on_batch: Callable[[Total], None] = lambda _: None
) -> Total:
    """Run the worlds of ``count`` seeds on all processors; ``on_batch`` is told now and then.

    They run in rounds. What a round has seldom reached is what the next one aims at, so the aim of
    a seed depends on the first seed, and on no processor.
    """
    total = Total()
    last = first + count
    with ProcessPoolExecutor(initializer=begin_process) as processes:
        try:
            for begin in range(first, last, ROUND):
                seeds = range(begin, min(begin + ROUND, last))
                batches = [seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH)]
                aims = rare(total.reached, total.worlds)
                for part in processes.map(partial(simulate_seeds, aims=aims), batches):
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


def shrunk(
    scenario: Scenario, on_run: Callable[[int, int], None] = lambda runs, left: None
) -> Shrunk:
    """Return the smallest scenario found that fails as this one does."""
    kind = _kind(simulate(scenario).violations)
    return shrink(
        scenario, lambda smaller: _kind(simulate(smaller).violations) == kind, on_run=on_run
    )


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
        yield f"seed {seed}: {draw(seed, total.aims.get(seed, '')).command}"
        yield from wrapped(brief(violations[0]), "  ")
    for seed in sorted(total.differed):
        yield f"seed {seed}: two runs of {draw(seed, total.aims.get(seed, '')).command} differed"


def _coverage(total: Total) -> Iterator[str]:
    """Yield how many rows and marks were reached, by machine, and those that seldom were."""
    rows = [row.id for machine in MACHINES for row in machine.rows]
    few = {*rare(total.reached, total.worlds)}
    yield _share("rows taken", sum(row in total.reached for row in rows), len(rows))
    for machine in MACHINES:
        mine = [row.id for row in machine.rows]
        left = [row for row in mine if row not in total.reached and row not in UNREACHABLE]
        seldom = [row for row in mine if row in few and row not in left]
        yield _share(f"  {machine.name}", sum(row in total.reached for row in mine), len(mine))
        yield from _named("not taken", left)
        yield from _named("no world takes", [row for row in mine if row in UNREACHABLE])
        yield from _named("in few worlds", [f"{row} {total.reached[row]}" for row in seldom], ", ")
    yield _share("marks reached", sum(mark.name in total.marks for mark in Mark), len(Mark))
    yield from (_line(f"  {mark.name}", f"{total.marks[mark.name]:,}") for mark in Mark)


def _named(what: str, names: Sequence[str], between: str = " ") -> Iterator[str]:
    if names:
        yield from wrapped(f"{what}: {between.join(names)}", "    ")


def _faults(faults: Counter[str]) -> Iterator[str]:
    """Yield the faults, then by what and at which moments something happened."""
    at_moments = Counter({kind: faults[kind] for kind in faults if " at " in kind})
    yield "faults that occurred"
    yield from _counted(faults - at_moments)
    for which, part in (("what happened at moments", 0), ("moments at which it happened", 2)):
        counts: Counter[str] = Counter()
        for kind, count in at_moments.items():
            counts[kind.partition(" at ")[part]] += count
        if counts:
            yield which
            yield from _counted(counts)


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
