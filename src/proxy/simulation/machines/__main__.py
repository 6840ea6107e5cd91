"""Walk through many sites; print how fast, and which rows of the tables were taken.

``python -m proxy.simulation.machines --steps 1000000 --seed 1``
"""

from __future__ import annotations

import gc
import sys
import time
from collections import Counter

import click

from proxy.simulation.machines.moves import shrunk, told
from proxy.simulation.machines.rules import LARGE, Rules, charts
from proxy.simulation.machines.walk import walk

SHARE = 10
"""One step of so many is made at small sites, where more happens in fewer steps."""


@click.command()
@click.option("--steps", default=1_000_000, show_default=True, help="Steps of machines to make.")
@click.option("--seed", default=1, show_default=True, help="What the moves are drawn from.")
def main(steps: int, seed: int) -> None:
    """Walk through sites of machines and policy alone."""
    small, large = Rules(), Rules(limits=LARGE)
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)  # a site is a knot of objects that is dropped as one
    try:
        _walk("small sites", small, seed, steps // SHARE)
        _walk("large sites", large, seed, steps - steps // SHARE)
    finally:
        gc.set_threshold(*before)
    for one, other in zip(charts(small), charts(large), strict=True):
        machine, taken = one.machine, one.taken + other.taken
        rows, ignores = [each.id for each in machine.rows], [each.id for each in machine.ignores]
        missing = [each for each in (*rows, *ignores) if not taken[each]]
        click.echo(
            f"{machine.name:10}  {_share('rows', rows, taken)}, "
            f"{_share('ignores', ignores, taken)}; not taken: {' '.join(missing) or 'none'}"
        )


def _walk(name: str, rules: Rules, seed: int, steps: int) -> None:
    before = time.process_time()
    walked = walk(rules, seed, steps)
    seconds = time.process_time() - before
    click.echo(
        f"{walked.steps} steps at {walked.sites} {name} in {seconds:.1f} s of the processor: "
        f"{walked.steps / max(seconds, 1e-9):.0f} steps a second"
    )
    if walked.error is not None:
        click.echo("\n".join(told(rules, shrunk(rules, walked.moves))))
        sys.exit(1)


def _share(name: str, ids: list[str], taken: Counter[str]) -> str:
    return f"{sum(taken[each] > 0 for each in ids):2} of {len(ids):2} {name}"


if __name__ == "__main__":
    main()
