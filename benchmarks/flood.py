"""Send a thousand orders at once, and time how long the link takes to answer a ping meanwhile.

    python benchmarks/flood.py [--orders 1000]

The orders are for four nodes, of which one is dead and one slow. Proxy, nodes and ITH share this
machine: the seconds are of all of them together, and say nothing on one that is busy. The
guarantees on any machine are in tests/end_to_end/test_flood.py. Exit code 1 if a pong took a
second, or memory grew.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.end_to_end.flood import Flood, flooded
from tests.end_to_end.site import a_site

ANSWER_S = 1.0
GROWTH_MIB = 15


def main() -> int:
    """Send them, print what was measured, and say whether all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--orders", type=int, default=1000, help="how many (1000)")
    options = parser.parse_args()
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="flood-") as name:
        flood = trio.run(flooded_alone, Path(name), options.orders)
    seconds = [each.seconds for each in flood.answers]
    growth = flood.most_mib - flood.warm_mib
    print(f"{options.orders} orders took {flood.seconds:.1f} s.")
    print(
        f"{len(seconds)} pongs: median {statistics.median(seconds) * 1000:.0f} ms,"
        f" slowest {max(seconds) * 1000:.0f} ms, the limit is {ANSWER_S * 1000:.0f} ms."
    )
    print(
        f"Memory: {flood.most_mib:.0f} MiB at most, {growth:.1f} MiB more than after a tenth of"
        f" the orders, the limit is {GROWTH_MIB} MiB."
    )
    return 1 if max(seconds) >= ANSWER_S or growth >= GROWTH_MIB else 0


async def flooded_alone(root: Path, orders: int) -> Flood:
    """Make a site for it."""
    async with a_site(root) as site:
        return await flooded(site, root, orders)


if __name__ == "__main__":
    sys.exit(main())
