"""Apply a change of the nodes, and find the runs that a change affects (protocol.md 6.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Protocol, TypeVar

from proxy.nodes.configuration import Configuration
from proxy.nodes.node import Node
from proxy.nodes.reading import NodeInvalid, NodesRead, Problem, problem_of, read_id, read_node


def apply_change(nodes: Iterable[Node], changed_action: str, raw: Sequence[object]) -> NodesRead:
    """Return the nodes after a ``proxy.nodes_changed``.

    ``removed`` drops the nodes that ``raw`` names; ``replaced`` leaves only those; every other
    word inserts or overwrites. The event has fewer fields of a node than the configuration, so
    missing fields keep their values, and a description that cannot be used changes nothing.
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


class Effect(Enum):
    """The effect of a change of the configuration on a run; the value is the reason it reports."""

    CANCEL = "node removed from configuration"
    HOLD = "the node is set inactive"
    RESUME = "the node is set active"
    RESTART = "the node's address changed"


class ForNode(Protocol):
    """A run that is for one node: the node's own, or a delivery to it."""

    @property
    def node_id(self) -> str:
        """ITH's id of the node."""
        ...


R = TypeVar("R", bound=ForNode)


def affected(
    runs: Iterable[R], old: Configuration, new: Configuration
) -> tuple[tuple[R, Effect], ...]:
    """Return the runs that a change of the configuration affects, in the order of ``runs``.

    A run is affected when its node was removed, was enabled or disabled, or has a new host, port
    or AE title, even while it is inactive. No other change affects a run under way: not the change
    of another node, and not a new name, retry count or time limit, which are read when they are
    next needed.
    """
    before = {node.node_id: node for node in old.effective_nodes}
    after = {node.node_id: node for node in new.effective_nodes}
    effects = {node_id: [*_effects(was, after.get(node_id))] for node_id, was in before.items()}
    return tuple((run, effect) for run in runs for effect in effects.get(run.node_id, ()))


def _effects(was: Node, now: Node | None) -> Iterator[Effect]:
    if now is None:
        yield Effect.CANCEL
        return
    if was.address != now.address:
        yield Effect.RESTART
    if was.is_active != now.is_active:
        yield Effect.RESUME if now.is_active else Effect.HOLD
