"""The problems that need a person's attention, each with its remedy.

Pure. A problem that ends by itself, such as one failed attempt to send, is not among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from proxy.control.messages import (
    Attention,
    ConnectionStatus,
    LockStatus,
    NodeStatus,
    OperationStatus,
)

RESUME = {
    "operator": "When the reason is gone: ith-proxy resume",
    "backend": "Set the proxy active in ITH; no command here can do that.",
}

LINK = {
    "refused": "Have ITH issue a new key for this proxy, put it in place of the old one, restart.",
    "evicted": "Stop the other program that uses this proxy's key, or give it a key of its own.",
}
RETRIED = "The proxy keeps trying. If it lasts: check network, firewall and ITH's address."

GIVEN_UP = frozenset({"offline", "probing"})
NODE = "The proxy keeps checking; waiting deliveries go on by themselves when the node answers."


def attention(
    operation: OperationStatus,
    connection: ConnectionStatus,
    nodes: Iterable[NodeStatus],
    *,
    is_configured: bool,
) -> tuple[Attention, ...]:
    """Return the problems that need attention, the most far-reaching first; none means healthy."""
    return tuple(_all(operation, connection, nodes, is_configured=is_configured))


def _all(
    operation: OperationStatus,
    connection: ConnectionStatus,
    nodes: Iterable[NodeStatus],
    *,
    is_configured: bool,
) -> Iterator[Attention]:
    if operation.state in {"draining", "stopped"}:
        yield Attention("The proxy is stopping.", "Unsent instances are sent after the next start.")
    for lock in operation.locks:
        yield Attention(_paused(lock), RESUME[lock.lock])
    if not connection.online:
        problem = _because("There is no link to ITH", connection.error)
        yield Attention(problem, LINK.get(connection.state, RETRIED))
    if not is_configured:
        yield Attention("ITH has not told this proxy its nodes yet.", "Orders wait until it does.")
    for node in nodes:
        if node.state in GIVEN_UP:
            yield Attention(_because(f"Node {node.ae_title} is offline", node.error), NODE)


def _paused(lock: LockStatus) -> str:
    holder = "the operator" if lock.lock == "operator" else "ITH"
    paused = f"Paused by {holder}"
    return _because(paused, None if lock.reason.lower() == paused.lower() else lock.reason)


def _because(what: str, why: str | None) -> str:
    """Return one sentence, or several if there are several in ``why``."""
    return f"{what}: {why}".rstrip(".") + "." if why else f"{what}."
