"""Apply a change of the nodes, and say what it means for what is running (protocol.md 6.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from proxy.nodes.node import Node
from proxy.nodes.reading import NodeInvalid, NodesRead, Problem, problem_of, read_id, read_node


def apply_change(nodes: Iterable[Node], changed_action: str, raw: Sequence[object]) -> NodesRead:
    """Return the nodes after a ``proxy.nodes_changed``.

    ``removed`` drops the nodes that ``raw`` names; ``replaced`` leaves only those; every other
    word inserts or overwrites. The event says less about a node than the configuration does, so
    what it leaves out stays as it was, and a description that cannot be used changes nothing.
    """
    old = {node.node_id: node for node in nodes}
    action = changed_action.strip().lower()
    named: dict[str, Node | None] = {}
    problems: list[Problem] = []
    for entry in raw:
        try:
            node_id = read_id(entry)
            named[node_id] = named.get(node_id) or old.get(node_id)
            if action != "removed":
                named[node_id] = read_node(entry, named[node_id])
        except NodeInvalid as error:
            problems.append(problem_of(error))
    match action:
        case "removed":
            after = [node for node_id, node in old.items() if node_id not in named]
        case "replaced":
            after = [node for node in named.values() if node]
        case _:
            after = [node for node in {**old, **named}.values() if node]
    return NodesRead(tuple(after), tuple(problems))


class NodesDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the nodes; no id is in two of these, and an unchanged one in none.

    Holds the new description of each node, of the removed ones the last.
    """

    added: tuple[Node, ...] = ()
    removed: tuple[Node, ...] = ()
    deactivated: tuple[Node, ...] = ()
    activated: tuple[Node, ...] = ()
    moved: tuple[Node, ...] = ()
    """Active before and after, at another host, port or AE title: associations are made anew."""
    retuned: tuple[Node, ...] = ()
    """Changed otherwise, or while inactive: nothing that runs is touched."""


def diff(old: Iterable[Node], new: Iterable[Node]) -> NodesDiff:
    """Compare two lists of nodes, in each of which an id occurs once."""
    before = {node.node_id: node for node in old}
    after = {node.node_id: node for node in new}
    changed = [
        (before[node_id], node)
        for node_id, node in after.items()
        if node_id in before and before[node_id] != node
    ]

    def those(belongs: Callable[[Node, Node], bool]) -> tuple[Node, ...]:
        return tuple(now for was, now in changed if belongs(was, now))

    def moved(was: Node, now: Node) -> bool:
        return was.is_active and now.is_active and was.address != now.address

    return NodesDiff(
        added=tuple(node for node_id, node in after.items() if node_id not in before),
        removed=tuple(node for node_id, node in before.items() if node_id not in after),
        deactivated=those(lambda was, now: was.is_active and not now.is_active),
        activated=those(lambda was, now: now.is_active and not was.is_active),
        moved=those(moved),
        retuned=those(lambda was, now: was.is_active == now.is_active and not moved(was, now)),
    )
