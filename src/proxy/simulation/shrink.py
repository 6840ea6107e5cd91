"""Delta debugging (ddmin): leave out incidents of a scenario for as long as it still fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from proxy.simulation.scenario import Incident, Scenario

MAX_RUNS = 200


class Shrunk(NamedTuple):
    """The smallest scenario found that fails, and how many runs it took to find it."""

    scenario: Scenario
    runs: int


def shrink(
    scenario: Scenario,
    fails: Callable[[Scenario], bool],
    max_runs: int = MAX_RUNS,
    *,
    on_run: Callable[[int, int], None] = lambda runs, left: None,
) -> Shrunk:
    """Leave out as many incidents as possible; ``fails`` runs a scenario.

    ``on_run`` is told before each run of its number, and how many incidents are left by then.
    """
    runs = 0

    def still_fails(some: list[Incident]) -> bool:
        nonlocal runs
        runs += 1
        on_run(runs, len(kept))
        return fails(scenario.only(some))

    kept, parts = [*scenario.incidents], 2
    while len(kept) > 1 and runs < max_runs:
        size = -(-len(kept) // parts)
        chunks = [kept[start : start + size] for start in range(0, len(kept), size)]
        for number in range(len(chunks)):
            rest = [each for other, chunk in enumerate(chunks) if other != number for each in chunk]
            if runs < max_runs and still_fails(rest):
                kept, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(parts * 2, len(kept))
    return Shrunk(scenario.only(kept), runs)
