"""Many orders at once: the link answers, the urgent ones overtake, memory stays flat."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.flood import URGENT, flooded
from tests.end_to_end.sessions import hashes_of
from tests.end_to_end.site import Site

ORDERS = 300
BEFORE_A_PONG = ORDERS // 2
"""Messages that may come before the answer to a ping, of several for each order: what was on its
way when it was asked, and what came of the orders that the proxy had to read before it."""
MEMORY_MIB = 120
"""The memory limit of the program; a MiB kept for each association would be a multiple of it."""
GROWTH_MIB = 15


@pytest.mark.needs("storescp")
async def test_many_orders_at_once_for_four_nodes_of_which_one_is_dead_and_one_slow(
    site: Site, tmp_path: Path
) -> None:
    flood = await flooded(site, tmp_path, ORDERS)

    assert flood.exit_code == 0
    everything = hashes_of(instance for session in flood.sessions for instance in session)
    for node_id, count in (("one", ORDERS), ("two", ORDERS), ("slow", len(flood.for_all))):
        assert flood.files[node_id] == len(flood.stored[node_id]) == count
        assert flood.stored[node_id].items() <= everything.items()
    for ending in flood.at_the_dead:
        assert ending is not None
        assert ending["status"] == "failed"
        assert "no program listens on that port" in ending["error"]
    assert max(each.messages for each in flood.answers) < BEFORE_A_PONG
    urgent = {*flood.ids[-URGENT:]}
    for node_id in ("one", "two"):
        order_of_service = flood.completed[node_id]
        assert sorted(order_of_service) == sorted(flood.ids)
        assert urgent <= {*order_of_service[: ORDERS // 10]}
    assert flood.most_mib < flood.warm_mib + GROWTH_MIB
    assert flood.most_mib < MEMORY_MIB
