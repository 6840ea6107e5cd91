"""Read nodes as ITH sends them, in every known spelling (protocol.md 2.13, 6.1).

A bad description does not affect the others: it becomes a :class:`Problem` with a hint, and a node
that was known before keeps its former description.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from proxy.errors import ProxyError
from proxy.nodes import fields
from proxy.nodes.node import Node

_HINT = "Correct the node's entry on the ITH platform; it takes effect as soon as it is saved."

_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "node_id": ("node_id", "id"),
    "host": ("host", "ip_address", "ip"),
}
_READERS: Mapping[str, Callable[[object], object]] = {
    "node_id": fields.text,
    "name": fields.text,
    "ae_title": fields.ae_title,
    "host": fields.host,
    "port": fields.port,
    "is_active": fields.flag,
    "permission": fields.permission,
    "description": fields.text,
    "storage_path": fields.text,
    "connection_timeout": fields.timeout,
    "max_pdu_size": fields.pdu_size,
    "retry_count": fields.count,
    "retry_delay": fields.seconds,
    "calling_ae_title": fields.ae_title,
    "repush": fields.repush,
    "whole_studies": fields.flag,
}
_IN_METADATA = frozenset({"repush", "whole_studies"})
"""The fields that users of the platform write into the node's metadata, for want of a field."""


class NodeInvalid(ProxyError):
    """A node's description cannot be used; ``node_id`` is None if even the id cannot be read."""

    def __init__(self, node_id: str | None, sentence: str, *, hint: str = _HINT) -> None:
        super().__init__(sentence, hint=hint)
        self.node_id = node_id


class Problem(msgspec.Struct, frozen=True):
    """An unused part of the configuration: its place, the reason and the remedy."""

    sentence: str
    hint: str = ""
    node_id: str | None = None


class NodesRead(msgspec.Struct, frozen=True):
    """The usable nodes, each id once, and the problems of the others."""

    nodes: tuple[Node, ...]
    problems: tuple[Problem, ...]


def read_id(raw: object) -> str:
    """Return the id of a node; ``raw`` is its description, or the id itself."""
    value = fields.pick(raw, "node_id", _SPELLINGS) if isinstance(raw, Mapping) else raw
    try:
        node_id = fields.text(value)
    except ValueError:
        node_id = ""
    if not node_id:
        raise NodeInvalid(None, "A node has no usable id.")
    return node_id


def read_node(raw: object, known: Node | None = None) -> Node:
    """Return the node that ``raw`` describes.

    Fields that ``raw`` does not mention are as in ``known``. Raises :class:`NodeInvalid`.
    """
    if not isinstance(raw, Mapping):
        raise NodeInvalid(None, "A node is described by something that is not an object.")
    node_id = read_id(raw)
    values: dict[str, object] = msgspec.structs.asdict(known) if known else {}
    for field, read in _READERS.items():
        value = _find(raw, field)
        if value is None:
            continue
        try:
            values[field] = read(value)
        except ValueError as error:
            raise NodeInvalid(node_id, f"Node {node_id!a}: {field} {error}.") from None
    missing = [field for field in ("ae_title", "host", "port") if field not in values]
    if missing:
        raise NodeInvalid(node_id, f"Node {node_id!a}: {missing[0]} is missing.")
    values["name"] = values.get("name") or node_id
    return msgspec.convert(values, Node)


def _find(raw: Mapping[str, object], field: str) -> object:
    if field not in _IN_METADATA:
        return fields.pick(raw, field, _SPELLINGS)
    metadata = raw.get("metadata")
    return fields.pick(metadata, field, _SPELLINGS) if isinstance(metadata, Mapping) else None


def read_nodes(raw: Sequence[object], known: Iterable[Node] = ()) -> NodesRead:
    """Read complete descriptions; of two with one id the later counts.

    A node of ``known`` keeps its old description if the new one cannot be used.
    """
    old = {node.node_id: node for node in known}
    nodes: dict[str, Node] = {}
    problems = []
    for entry in raw:
        try:
            node = read_node(entry)
        except NodeInvalid as error:
            problems.append(problem_of(error))
            if error.node_id in old:
                nodes.setdefault(error.node_id, old[error.node_id])
            continue
        if node.node_id in nodes:
            problems.append(
                Problem(
                    f"Node {node.node_id!a} is listed twice; the later entry is used.",
                    _HINT,
                    node.node_id,
                )
            )
        nodes[node.node_id] = node
    return NodesRead(tuple(nodes.values()), tuple(problems))


def problem_of(error: NodeInvalid) -> Problem:
    """Keep an error as a value."""
    return Problem(str(error), error.hint, error.node_id)
