"""Stop deliveries in every phase in which a node can stall, for every reason, and list leftovers.

    python benchmarks/cancel.py [--runs 20] [--phase NAME …] [--reason NAME …]
                                [--cancel-seconds 3] [--megabytes 200]

Each line of the table is one phase and one reason: the runs of it, side by side, each with a proxy
and a node of its own. The seconds go from the cause to the end of the connection as the node sees
it. What is left is counted twice, while the proxies run and when they have ended. Exit code 1 if
anything is late, left or wrong.
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from enum import Enum
from itertools import product
from pathlib import Path
from typing import TypeVar

import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.end_to_end.stops.batch import Batch, Bench
from tests.end_to_end.stops.leftovers import left_since, steady
from tests.end_to_end.stops.node import Phase
from tests.end_to_end.stops.reasons import Reason

LATE_S = 1.0
"""The seconds that a busy machine may add to the limit of a stop."""

E = TypeVar("E", bound=Enum)
HEADER = (
    f"{'stalled at':27}{'stopped by':15}{'runs':>5}{'p50':>7}{'p95':>7}{'max':>7}{'limit':>7}"
    f"{'tasks':>7}{'threads':>8}{'sockets':>8}{'files':>6}{'wrong':>6}"
)


def main() -> int:
    """Hold the trials, print the table, and say whether all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="of each combination (20)")
    parser.add_argument("--phase", action="append", help=names(Phase))
    parser.add_argument("--reason", action="append", help=names(Reason))
    parser.add_argument("--cancel-seconds", type=float, default=3.0, help="the setting (3)")
    parser.add_argument("--megabytes", type=int, default=200, help="of the large instance (200)")
    options = parser.parse_args()
    phases = chosen(parser, Phase, options.phase)
    reasons = chosen(parser, Reason, options.reason)
    logging.getLogger("proxy").setLevel(logging.CRITICAL)  # of stalled nodes there is much to say
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="check-cancel-") as name:
        large = options.megabytes * 10**6
        bench = Bench(
            Path(name), cancel_seconds=options.cancel_seconds, late_seconds=LATE_S, large=large
        )
        tempfile.tempdir = str(bench.temporary)
        return trio.run(hold_all, bench, phases, reasons, options.runs)


async def hold_all(
    bench: Bench, phases: Iterable[Phase], reasons: Iterable[Reason], runs: int
) -> int:
    """Hold the trials of one combination after the other; return the exit code."""
    began, problems = time.monotonic(), []
    print(HEADER, flush=True)
    at_first = await steady()
    for phase, reason in product(phases, reasons):
        batch = await bench.hold([(phase, reason)] * runs)
        print(line(batch), flush=True)
        problems += batch.problems
    left = await left_since(at_first)
    print(f"\nAfter all of it, {'nothing' if left.is_clean else left} is left.", end=" ")
    print(f"It took {time.monotonic() - began:.0f} s.")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems or not left.is_clean else 0


def line(batch: Batch) -> str:
    """One line of the table."""
    first = batch.trials[0]
    seconds = sorted(trial.seconds for trial in batch.trials)
    p50 = statistics.median(seconds)
    p95 = seconds[math.ceil(0.95 * len(seconds)) - 1]
    looks = batch.live, batch.left
    wrong = sum(len(trial.wrong) for trial in batch.trials)
    files = sum(x.files for x in looks) + batch.temporary
    return (
        f"{first.phase.value:27}{first.reason.value:15}{len(seconds):5}"
        f"{p50:7.2f}{p95:7.2f}{seconds[-1]:7.2f}{first.limit:7.2f}"
        f"{sum(x.tasks.total() for x in looks):7}{sum(x.threads.total() for x in looks):8}"
        f"{sum(x.sockets for x in looks):8}{files:6}{wrong:6}"
    )


def names(enum: type[Enum]) -> str:
    """The names of the members on the command line."""
    return ", ".join(spelled(each) for each in enum)


def spelled(each: Enum) -> str:
    """The name of one of them."""
    return each.name.lower().replace("_", "-")


def chosen(parser: argparse.ArgumentParser, enum: type[E], wanted: list[str] | None) -> list[E]:
    """The members that were asked for, or all; ends the program at a name there is not."""
    by_name = {spelled(each): each for each in enum}
    if unknown := [name for name in wanted or () if name not in by_name]:
        parser.error(f"there is no {unknown[0]}; there are: {names(enum)}")
    return [by_name[name] for name in wanted or by_name]


if __name__ == "__main__":
    sys.exit(main())
