"""Print how long a dispatch waits for a node at worst: python benchmarks/starvation.py [--seeds N].

Random dispatches of all priorities compete for one node; when one is done, a new one like it comes.
The scheduler of the program decides; a service is one instance. Printed are, by priority, the
longest waits that were seen, in instances of others, beside the bound that the tests hold.
"""

from __future__ import annotations

import argparse
from itertools import count
from random import Random

from proxy.activities.node import AGING_INSTANCES
from proxy.model import Priority
from proxy.work.scheduler import Job, Scheduler

SERVICES = 20_000
LONGEST = 400
MOST = 12


def longest_waits(chance: Random, limit: int, turn: int | None) -> tuple[dict[int, int], int]:
    """Return the longest wait of each rank at one node, and the bound for all of them."""
    scheduler = Scheduler(limit, quantum=turn, aging=AGING_INSTANCES)
    length = {n: chance.randint(1, LONGEST) for n in range(chance.randint(2, MOST))}
    rank = {n: chance.choice([*Priority]).rank for n in length}
    left = dict(length)
    number = dict(enumerate(length))
    numbers = count(len(length))
    kind_of: dict[Job, int] = {}
    since: dict[Job, int] = {}
    worst = dict.fromkeys(rank.values(), 0)

    def come(kind: int) -> None:
        job = scheduler.job(rank[kind], number[kind], flow=number[kind])
        kind_of[job], since[job] = kind, 0

    def serve() -> None:
        for job in scheduler.serve():
            worst[job.rank] = max(worst[job.rank], since.pop(job))

    for kind in length:
        come(kind)
    serve()
    for _ in range(SERVICES):
        job = chance.choice(scheduler.served)
        kind = kind_of[job]
        left[kind] -= 1
        for each in since:
            since[each] += 1
        if left[kind] and scheduler.may_continue(job):
            continue
        if not left[kind]:
            left[kind], number[kind] = length[kind], next(numbers)
        scheduler.leave(job)
        serve()
        come(kind)
        serve()
    for each, waited in since.items():
        worst[each.rank] = max(worst[each.rank], waited)
    return worst, (AGING_INSTANCES + 1 + sum(length.values())) * len(length)


def main() -> int:
    """Print the waits; return 1 if one is longer than the bound."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--seeds", type=int, default=50, help="nodes to try (default 50)")
    seeds = range(options.parse_args().seeds)
    print(f"{'':28}" + "".join(f"{each.value:>10}" for each in Priority) + f"{'bound':>10}")
    is_broken = False
    for turn in (None, 50):
        for limit in (1, 2):
            waits, bounds = {each.rank: 0 for each in Priority}, []
            for seed in seeds:
                worst, bound = longest_waits(Random(seed), limit, turn)  # noqa: S311
                bounds.append(bound)
                is_broken |= max(worst.values()) > bound
                for rank, wait in worst.items():
                    waits[rank] = max(waits[rank], wait)
            turns = "no turns" if turn is None else f"turns of {turn}"
            associations = "1 association" if limit == 1 else f"{limit} associations"
            figures = "".join(f"{waits[each.rank]:>10,}" for each in Priority)
            print(f"{associations:16}{turns:12}{figures}{max(bounds):>10,}")
    return int(is_broken)


if __name__ == "__main__":
    raise SystemExit(main())
