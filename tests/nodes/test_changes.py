from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.nodes import (
    Configuration,
    Effect,
    Node,
    Permission,
    SiteConfig,
    affected,
    apply_change,
)
from tests.nodes.make import FROM_EVENT

replace = msgspec.structs.replace


def node(node_id: str = "n1", /, **changes: object) -> Node:
    known = Node(node_id=node_id, name="Reading room", ae_title="READROOM", host="pacs", port=104)
    return replace(known, **changes)


def described(node_id: str, **changes: object) -> dict[str, object]:
    return FROM_EVENT | {"node_id": node_id} | changes


OLD = (node("n1"), node("n2", is_active=False, permission=Permission.READ), node("n3"))


@pytest.mark.parametrize("action", ["added", "updated", "Updated ", "whatever", ""])
def test_most_actions_insert_or_overwrite(action: str) -> None:
    after = apply_change(OLD, action, [described("n1", port=105), described("n4")])
    assert after.problems == ()
    assert [n.node_id for n in after.nodes] == ["n1", "n2", "n3", "n4"]
    assert after.nodes[0].port == 105
    assert after.nodes[1:3] == OLD[1:]


@pytest.mark.parametrize("action", ["updated", "replaced"])
def test_what_an_event_leaves_out_stays_as_it_was(action: str) -> None:
    after = apply_change(OLD, action, [{"id": "n2", "port": 2762}])
    assert next(n for n in after.nodes if n.node_id == "n2") == replace(OLD[1], port=2762)


def test_removed_needs_the_id_only() -> None:
    after = apply_change(OLD, "removed", [{"id": "n1"}, {"node_id": "n3", "port": 0}, "n9"])
    assert after.nodes == (OLD[1],)
    assert after.problems == ()
    assert apply_change(OLD, "REMOVED", ["n1", "n2", "n3"]).nodes == ()


def test_replaced_leaves_exactly_what_is_named() -> None:
    after = apply_change(OLD, "replaced", [described("n9"), described("n3")])
    assert [n.node_id for n in after.nodes] == ["n9", "n3"]
    assert apply_change(OLD, "replaced", []).nodes == ()


@pytest.mark.parametrize("action", ["updated", "replaced"])
def test_a_description_that_cannot_be_used_changes_nothing(action: str) -> None:
    raw = [described("n1", port=0), described("n9", port=0), described("n2"), described("n3"), 7]
    after = apply_change(OLD, action, raw)
    assert [n.node_id for n in after.nodes] == ["n1", "n2", "n3"]
    assert after.nodes[0] == OLD[0]
    assert [problem.node_id for problem in after.problems] == ["n1", "n9", None]


def test_a_removal_without_id_is_a_problem() -> None:
    after = apply_change(OLD, "removed", [{}])
    assert after.nodes == OLD
    assert after.problems[0].sentence == "A node has no usable id."


def test_of_two_changes_of_one_node_both_hold() -> None:
    after = apply_change((), "added", [described("n1"), {"id": "n1", "port": 7}])
    assert [n.port for n in after.nodes] == [7]


@dataclass(frozen=True)
class Running:
    """A run for a node: its own, or a delivery to it."""

    node_id: str
    name: str = ""


def configured(*nodes: Node, **config: object) -> Configuration:
    return Configuration(proxy_id="proxy-1", nodes=nodes, config=SiteConfig(**config))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        ({}, {"host": "other"}, (Effect.RESTART,)),
        ({}, {"port": 105}, (Effect.RESTART,)),
        ({}, {"ae_title": "OTHER"}, (Effect.RESTART,)),
        ({}, {"calling_ae_title": "OTHER"}, (Effect.RESTART,)),
        ({}, {"is_active": False}, (Effect.HOLD,)),
        ({}, {"is_active": False, "port": 105}, (Effect.RESTART, Effect.HOLD)),
        ({"is_active": False}, {"is_active": True}, (Effect.RESUME,)),
        ({"is_active": False}, {"is_active": True, "port": 105}, (Effect.RESTART, Effect.RESUME)),
        ({"is_active": False}, {"is_active": False, "port": 105}, (Effect.RESTART,)),
        ({}, {"name": "Reading room 2"}, ()),
        ({}, {"description": "beside the lift"}, ()),
        ({}, {"retry_count": 9}, ()),
        ({}, {"retry_delay": 9.0}, ()),
        ({}, {"connection_timeout": 9.0}, ()),
        ({}, {"max_pdu_size": 0}, ()),
        ({}, {"repush": "all"}, ()),
        ({}, {"storage_path": "/srv"}, ()),
        ({}, {"permission": Permission.READ}, ()),
    ],
)
def test_what_a_change_of_a_node_does_to_what_runs_for_it(
    was: dict[str, object], now: dict[str, object], expected: tuple[Effect, ...]
) -> None:
    its_own, delivery, of_another = Running("n1"), Running("n1", "delivery"), Running("other")
    touched = affected(
        [its_own, of_another, delivery],
        configured(node(**was), node("other")),
        configured(node(**now), node("other")),
    )
    assert touched == tuple((run, effect) for run in (its_own, delivery) for effect in expected)


@pytest.mark.parametrize(
    ("config", "touches"),
    [
        ({"retry_count": 4}, False),
        ({"retry_delay": 60.0}, False),
        ({"timeout": 45.0}, False),
        ({"max_pdu_size": 65536}, False),
        ({"port": 11113}, False),
        ({"ae_title": "OTHER"}, False),
        ({"mode": "public"}, False),
        ({"api_url": "https://proxy.example.org/api"}, False),
        ({"calling_ae_title": "NEWNAME"}, True),
    ],
)
def test_what_a_change_of_the_proxys_configuration_does(
    config: dict[str, object], touches: bool
) -> None:
    nodes = (node("n1"), node("n2", calling_ae_title="OWN"), node("n3", is_active=False))
    runs = [Running("n1"), Running("n2"), Running("n3")]
    touched = affected(runs, configured(*nodes), configured(*nodes, **config))
    moved = ((runs[0], Effect.RESTART), (runs[2], Effect.RESTART))
    assert touched == (moved if touches else ())


def test_a_node_that_goes_takes_its_runs_along() -> None:
    runs = [Running("n1"), Running("n2"), Running("n1", "again")]
    assert affected(runs, configured(node("n1"), node("n2")), configured(node("n2"))) == (
        (runs[0], Effect.CANCEL),
        (runs[2], Effect.CANCEL),
    )


def test_a_node_that_comes_touches_nothing() -> None:
    assert affected([Running("n1"), Running("n2")], configured(), configured(node("n1"))) == ()


NODES = st.builds(
    Node,
    node_id=st.sampled_from("abcdef"),
    name=st.sampled_from(["x", "y"]),
    ae_title=st.sampled_from(["A", "B"]),
    host=st.sampled_from(["h", "i"]),
    port=st.sampled_from([104, 105]),
    is_active=st.booleans(),
    permission=st.sampled_from(Permission),
    retry_count=st.sampled_from([None, 3]),
    calling_ae_title=st.sampled_from([None, "C"]),
)
SITES = st.lists(NODES, unique_by=lambda n: n.node_id)


RUNS = st.lists(st.builds(Running, st.sampled_from("abcdefxyz"), st.text(max_size=1)))
CONFIGS = st.fixed_dictionaries(
    {}, optional={"retry_count": st.just(9), "calling_ae_title": st.sampled_from(["C", "D"])}
)
SIDES = st.builds(lambda nodes, config: configured(*nodes, **config), SITES, CONFIGS)


def spoken_to_as(site: Configuration) -> dict[str, tuple[bool, tuple[object, ...]]]:
    """By node id: its use, address and names, written here independently."""
    default = site.config.calling_ae_title
    return {
        n.node_id: (n.is_active, (n.host, n.port, n.ae_title, n.calling_ae_title or default))
        for n in site.nodes
    }


@given(RUNS, SIDES, SIDES)
def test_a_change_touches_all_that_it_must_and_nothing_else(
    runs: list[Running], old: Configuration, new: Configuration
) -> None:
    before, after = spoken_to_as(old), spoken_to_as(new)
    must: list[tuple[Running, Effect]] = []
    for run in runs:
        if run.node_id not in before:
            continue
        if run.node_id not in after:
            must.append((run, Effect.CANCEL))
            continue
        (was_used, was), (is_used, now) = before[run.node_id], after[run.node_id]
        if was != now:
            must.append((run, Effect.RESTART))
        if was_used and not is_used:
            must.append((run, Effect.HOLD))
        if is_used and not was_used:
            must.append((run, Effect.RESUME))
    assert affected(runs, old, new) == tuple(must)


@given(RUNS, SIDES)
def test_nothing_changed_nothing_touched(runs: list[Running], site: Configuration) -> None:
    shuffled = replace(site, nodes=tuple(reversed(site.nodes)))
    assert affected(runs, site, shuffled) == ()


@given(RUNS, RUNS, SIDES, SIDES)
def test_what_is_done_to_a_run_does_not_depend_on_the_others(
    some: list[Running], others: list[Running], old: Configuration, new: Configuration
) -> None:
    together = affected(some + others, old, new)
    assert together == affected(some, old, new) + affected(others, old, new)


@given(RUNS, SIDES, NODES)
def test_a_change_of_one_node_touches_no_run_of_another(
    runs: list[Running], old: Configuration, changed: Node
) -> None:
    others = tuple(n for n in old.nodes if n.node_id != changed.node_id)
    touched = affected(runs, old, replace(old, nodes=(*others, changed)))
    assert {run.node_id for run, _ in touched} <= {changed.node_id}


@given(SITES, st.lists(st.sampled_from("abcxyz")))
def test_a_removal_touches_no_other_node(site: list[Node], ids: list[str]) -> None:
    after = apply_change(site, "removed", ids)
    assert list(after.nodes) == [n for n in site if n.node_id not in ids]


@given(SITES, SITES)
def test_an_update_touches_no_other_node(site: list[Node], update: list[Node]) -> None:
    raw: list[object] = [msgspec.to_builtins(n) for n in update]
    after = {n.node_id: n for n in apply_change(site, "updated", raw).nodes}
    named = {n.node_id for n in update}
    assert {i: n for i, n in after.items() if i not in named} == {
        n.node_id: n for n in site if n.node_id not in named
    }
    assert named <= set(after)
