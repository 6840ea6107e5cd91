from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.nodes import Node, NodesDiff, Permission, apply_change, diff
from tests.nodes.site import FROM_EVENT

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


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        ({}, {"host": "other"}, "moved"),
        ({}, {"port": 105}, "moved"),
        ({}, {"ae_title": "OTHER"}, "moved"),
        ({}, {"calling_ae_title": "OTHER"}, "moved"),
        ({}, {"is_active": False}, "deactivated"),
        ({}, {"is_active": False, "port": 105}, "deactivated"),
        ({"is_active": False}, {"is_active": True}, "activated"),
        ({"is_active": False}, {"is_active": True, "port": 105}, "activated"),
        ({"is_active": False}, {"is_active": False, "port": 105}, "retuned"),
        ({}, {"name": "Reading room 2"}, "retuned"),
        ({}, {"retry_count": 9}, "retuned"),
        ({}, {"connection_timeout": 9.0}, "retuned"),
        ({}, {"max_pdu_size": 0}, "retuned"),
        ({}, {"permission": Permission.READ}, "retuned"),
    ],
)
def test_what_a_change_means(was: dict[str, object], now: dict[str, object], expected: str) -> None:
    changed = diff([node(**was), node("other")], [node(**now), node("other")])
    only: dict[str, tuple[Node, ...]] = {expected: (node(**now),)}
    assert changed == msgspec.convert(only, NodesDiff, from_attributes=True)


def test_added_and_removed() -> None:
    assert diff([node("n1")], [node("n2")]) == NodesDiff(added=(node("n2"),), removed=(node("n1"),))


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


@given(SITES, SITES)
def test_every_changed_id_is_in_one_part_and_no_other_is_in_any(
    old: list[Node], new: list[Node]
) -> None:
    parts = msgspec.structs.asdict(diff(old, new)).values()
    ids = [n.node_id for part in parts for n in part]
    before = {n.node_id: n for n in old}
    after = {n.node_id: n for n in new}
    assert len(ids) == len(set(ids))
    assert set(ids) == {i for i in before | after if before.get(i) != after.get(i)}


@given(SITES, SITES)
def test_a_diff_leads_from_the_old_nodes_to_the_new(old: list[Node], new: list[Node]) -> None:
    changed = diff(old, new)
    site = {n.node_id: n for n in old}
    for gone in changed.removed:
        assert site.pop(gone.node_id) == gone
    others = (changed.added, changed.deactivated, changed.activated, changed.moved, changed.retuned)
    site |= {n.node_id: n for part in others for n in part}
    assert site == {n.node_id: n for n in new}


@given(SITES, SITES)
def test_only_a_move_of_an_active_node_counts_as_moved(old: list[Node], new: list[Node]) -> None:
    before = {n.node_id: n for n in old}
    for now in diff(old, new).moved:
        was = before[now.node_id]
        assert was.is_active
        assert now.is_active
        assert (was.host, was.port, was.ae_title, was.calling_ae_title) != (
            now.host,
            now.port,
            now.ae_title,
            now.calling_ae_title,
        )


@given(SITES)
def test_nothing_changed_nothing_touched(site: list[Node]) -> None:
    assert diff(site, reversed(site)) == NodesDiff()


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
