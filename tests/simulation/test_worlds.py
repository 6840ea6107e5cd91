"""Three hundred worlds; ``scripts/simulate --seeds 10000`` runs more of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from proxy.simulation.many import TWICE_ONE_IN, Total, simulate_seeds

BATCH = 10
FIRSTS = range(1, 301, BATCH)
"""Small batches, so that they spread evenly over the processes of pytest-xdist."""


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Write no log: the lines of ten worlds would hide the failure of one."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", FIRSTS)
def test_nothing_is_wrong_in_any_world(first: int) -> None:
    total = simulate_seeds(range(first, first + BATCH))
    assert total.worlds == BATCH
    assert total.twice == int((first + BATCH - 1) % TWICE_ONE_IN == 0)
    if total.failed or total.differed:
        pytest.fail(told(total), pytrace=False)


def told(total: Total) -> str:
    """Say what was wrong, and how to see it again."""
    lines = [
        f"seed {seed}: {violation}\n  replay: ith-proxy sim --seed {seed}"
        for seed, violations in sorted(total.failed.items())
        for violation in violations[:1]
    ]
    lines += [f"seed {seed}: two runs of the same world differed" for seed in total.differed]
    return "\n".join(lines)


def test_a_failure_names_the_seed_and_the_command() -> None:
    total = Total(failed={7: ["1.000 s: wrong", "2.000 s: more"]}, differed=[100])
    assert told(total) == (
        "seed 7: 1.000 s: wrong\n"
        "  replay: ith-proxy sim --seed 7\n"
        "seed 100: two runs of the same world differed"
    )
