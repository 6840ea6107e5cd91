"""What must hold in every world, checked while it runs and at its end.

The checker knows what ITH ordered, what the nodes answered and what ITH's application was told; it
knows nothing of the program's insides. A violation is one sentence with the numbers of the
promises in ``docs/requirements.md`` that it breaks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from proxy.demo.frames import JsonObject
from proxy.simulation.content import Thing
from proxy.simulation.misbehaviour import Kind
from proxy.simulation.node import SimulatedNode

FINAL = ("completed", "failed")
MOST_ATTEMPTS, ATTEMPTS_S = 25, 60.0
STOP_S = 10.0
"""After a pause, removal or deletion reached the program, no new instance begins."""

SUCCESS = (0x0000, 0x0111, 0xB000, 0xB006, 0xB007)
"""The C-STORE statuses that say that the node has the instance (PS3.4 B.2.3, PS3.7 C)."""
REMOVED = "no: the node was removed"
AWAY = "wait: the node was away"
SHORTEST_RETRIES_S = 2.0
"""Four attempts at a node take longer: the last waits are a tenth of 10 and of 20 s at least."""
FOR_GOOD = (*SUCCESS, 0xC000, 0x0122)
"""The statuses that another attempt does not change."""

EXCUSES: dict[Kind, str] = {
    **dict.fromkeys(
        (
            Kind.REJECT,
            Kind.ASSOCIATION_UNANSWERED,
            Kind.ASSOCIATION_ABORTED,
            Kind.ASSOCIATION_CLOSED,
            Kind.ONE_ASSOCIATION,
            Kind.ACCEPTED_THEN_ABORTED,
            Kind.ECHO_UNANSWERED,
            Kind.ABORTED_IN_DATA,
            Kind.CLOSED_IN_DATA,
            Kind.STALL,
            Kind.EARLY_STATUS,
            Kind.CLOSED_BEFORE_STORING,
            Kind.ANSWER_LOST,
            Kind.STORE_UNANSWERED,
            Kind.WRONG_UID,
            Kind.WRONG_MESSAGE_ID,
            Kind.RELEASE_BY_NODE,
            Kind.LATE,
            Kind.DRIP,
            Kind.GARBAGE,
            Kind.HALF_PDU,
            Kind.HUGE_PDU,
            Kind.FLOOD,
        ),
        "wait: a node misbehaved",
    ),
    **dict.fromkeys(
        (Kind.CONTEXTS_REFUSED, Kind.CLASS_REFUSED, Kind.PDU_LIMIT),
        "no: a node refused",
    ),
}
"""Why an order may fail at a node that has shown one of these; the others excuse nothing."""


@dataclass
class Ordered:
    """One order: the entity, the nodes, and when ITH's application heard of it first.

    ``named`` are the nodes in the message, ``node_ids`` those of them that were configured.
    """

    correlation_id: str
    thing: Thing
    named: tuple[str, ...]
    node_ids: tuple[str, ...]
    heard_at: float | None = None


class Excuse(NamedTuple):
    """Why orders may fail: those to a node, those with an instance of a thing, or all."""

    reason: str
    node: str | None
    uids: frozenset[str] | None


class Checker:
    """Collects violations; ``now`` is the time of the world in seconds."""

    def __init__(
        self, nodes: Mapping[str, SimulatedNode], detail: str, now: Callable[[], float]
    ) -> None:
        self.violations: list[str] = []
        self.orders: dict[str, Ordered] = {}
        self.finals: dict[tuple[str, str | None], JsonObject] = {}
        self.expected: Counter[str] = Counter()
        """Failures that the program explains, and later versions are to avoid, by their cause."""
        self.had_crash = False
        self.purged: set[str] = set()
        """The UIDs of what ITH deleted, and the program had deleted from its ledger."""
        self._nodes = nodes
        self._detail = detail
        self._now = now
        self._reached: dict[tuple[str, str | None], int] = {}
        self._deleted_uids: set[str] = set()
        self._ordered_at: dict[str, float] = {}
        self._ended_at: dict[tuple[str, str | None], float] = {}
        self._excuses: set[Excuse] = set()
        self._silences: list[tuple[float, float]] = []

    def say(self, sentence: str) -> None:
        """Note a violation."""
        self.violations.append(f"{self._now():.3f} s: {sentence}")

    # -- ITH orders and deletes -------------------------------------------------------------------

    def ordered(self, order: Ordered) -> None:
        """Take notice of an order."""
        self.orders[order.correlation_id] = order
        self._ordered_at[order.correlation_id] = self._now()

    def deleted(self, gone: Thing) -> None:
        """Take notice of a deletion: orders with an instance of it may fail."""
        self._deleted_uids.update(gone.sent)
        self.excuse("no: ITH deleted it", thing=gone)

    def is_deleted(self, thing: Thing) -> bool:
        """Whether ITH has deleted a part of something."""
        return not self._deleted_uids.isdisjoint(thing.sent)

    def excuse(self, reason: str, *, node: str | None = None, thing: Thing | None = None) -> None:
        """Let orders fail for a reason that begins with "no: ", or with "wait: " if it healed."""
        self._excuses.add(Excuse(reason, node, frozenset(thing.sent) if thing else None))

    def excuses(self, order: Ordered, node: str) -> set[str]:
        """Return why an order may have failed at a node."""
        return {
            each.reason
            for each in self._excuses
            if each.node in {None, node}
            and (each.uids is None or not each.uids.isdisjoint(order.thing.sent))
        } | self._reasons_of(self._nodes[node])

    def _reasons_of(self, node: SimulatedNode) -> set[str]:
        """Return why orders to a node may have failed, from what it has done."""
        reasons = {EXCUSES[kind] for kind in node.hits if kind in EXCUSES}
        if any(each.status not in {None, *SUCCESS} for each in node.received):
            reasons.add("no: a node refused")
        return reasons

    # -- ITH's application is told ----------------------------------------------------------------

    def status(self, frame: JsonObject) -> None:
        """Check one report as it reaches ITH's application."""
        payload = frame["payload"]
        key = correlation_id, node = frame["correlation_id"], payload.get("node_id")
        order = self.orders.get(correlation_id)
        if order is None:
            self.say(f"a report for {correlation_id}, which was never ordered")
            return
        order.heard_at = order.heard_at or self._now()
        status, progress = payload["status"], payload["progress"]
        if key in self.finals:
            former = self.finals[key]
            if status not in FINAL:
                self.say(f"{key}: {status} after the final {former['status']} (P12)")
            elif status != former["status"]:
                self.say(f"{key}: {status} after {former['status']} (P12)")
            return
        if progress < self._reached.get(key, 0):
            self.say(f"{key}: progress falls from {self._reached[key]} to {progress} (P12)")
        self._reached[key] = progress
        if progress == 100 and status != "completed":
            self.say(f"{key}: progress 100 and {status}")
        self._check_numbers(order, node, payload)
        if status in FINAL:
            self.finals[key] = payload
            self._ended_at[key] = self._now()

    def _check_numbers(self, order: Ordered, node: str | None, payload: JsonObject) -> None:
        """Check the counts of a report against what the nodes have answered by now."""
        named = order.named if node is None else (node,)
        nodes = order.node_ids if node is None else (node,)
        confirmed = sum(len(self._confirmed(order.thing, each)) for each in named)
        if payload["files_sent"] > confirmed:
            self.say(
                f"{order.correlation_id} {node}: {payload['files_sent']} sent, "
                f"but the nodes have confirmed {confirmed} (P3)"
            )
        if payload["status"] != "completed":
            return
        nodes = tuple(each for each in nodes if not self._is_changed(each))
        due = (order.thing.sent.keys() - self._deleted_uids) or {*order.thing.sent}
        lacking = sum(len(due - self._confirmed(order.thing, each)) for each in nodes)
        if lacking:
            self.say(
                f"{order.correlation_id} {node}: completed, but the nodes have confirmed "
                f"{len(due) * len(nodes) - lacking} of {len(due) * len(nodes)} (P3)"
            )

    def _is_changed(self, node: str) -> bool:
        """Whether ITH removed a node: before and after it may be ours to the program or not."""
        return any(each.reason == REMOVED and each.node == node for each in self._excuses)

    def _confirmed(self, thing: Thing, node: str) -> set[str]:
        """Return the UIDs that a node has said it has, with the right content.

        It says so by its answer to C-STORE, or to C-FIND, which may be a lie. What was converted to
        another transfer syntax has another hash, and is not compared.
        """
        known = self._nodes[node]
        if known.hits[Kind.FIND_CLAIMS_ALL]:
            return {*thing.sent}
        original = thing.instances[0].transfer_syntax_uid
        said = {
            (
                each.sop_instance_uid,
                each.sha256
                if each.transfer_syntax_uid == original
                else thing.sent.get(each.sop_instance_uid, ""),
            )
            for each in known.received
            if each.status in SUCCESS and each.sha256
        }
        if known.finds:
            said.update(known.holds.items())
        return {uid for uid, _ in said.intersection(thing.sent.items())}

    def silence(self, begin: float, end: float) -> None:
        """Take notice that no node is to be sent an instance between two times."""
        self._silences.append((begin, end))

    # -- The end ----------------------------------------------------------------------------------

    @property
    def waiting(self) -> list[tuple[str, str | None]]:
        """The streams of reports that have no end yet."""
        return [key for key in self._streams() if key not in self.finals]

    def _streams(self) -> Iterable[tuple[str, str | None]]:
        """Name the streams of reports that must end: none for a node that was removed."""
        gone = {each.node for each in self._excuses if each.reason == REMOVED}
        for order in self.orders.values():
            nodes = [node for node in order.node_ids if node not in gone]
            if self._detail != "aggregate":
                yield from ((order.correlation_id, node) for node in nodes)
            if self._detail != "per-node" and nodes:
                yield order.correlation_id, None

    def end(self) -> None:
        """Check what must be so once every fault has healed."""
        for correlation_id, node in self.waiting:
            self.say(f"{correlation_id} {node}: no end, though every fault has healed (P1)")
        for (correlation_id, node), payload in self.finals.items():
            order = self.orders[correlation_id]
            nodes = order.node_ids if node is None else (node,)
            excuses = set[str]().union(*(self.excuses(order, each) for each in nodes))
            if payload["status"] == "failed" and not excuses:
                self.say(
                    f"{correlation_id} {node}: failed, and nobody said no (P1): {payload['error']}"
                )
            elif payload["status"] == "failed":
                self._check_patience((correlation_id, node), excuses)
                self.expected.update(each for each in excuses if each.startswith("wait: "))
        self._check_repeats()
        for name, peer in self._nodes.items():
            for each in peer.received:
                if any(begin < each.at < end for begin, end in self._silences):
                    self.say(f"{name}: an instance began at {each.at:.3f} s, in a pause (P6)")
            for violation in peer.violations:
                self.say(f"{name}: the program broke the standard: {violation}")

    def _check_patience(self, key: tuple[str, str | None], excuses: set[str]) -> None:
        """Check that an order which failed for an outage alone had all its attempts."""
        lasted = self._ended_at[key] - self._ordered_at[key[0]]
        if excuses == {AWAY} and lasted < SHORTEST_RETRIES_S:
            self.say(f"{key[0]} {key[1]}: given up after {lasted:.3f} s, as the node was away (P1)")

    def check_attempts(self, times: Sequence[float]) -> None:
        """Check that no storm of attempts to connect came over ITH."""
        for first, last in zip(times, times[MOST_ATTEMPTS:], strict=False):
            if last - first < ATTEMPTS_S:
                self.say(f"more than {MOST_ATTEMPTS} attempts to connect in {ATTEMPTS_S} s (P8)")
                return

    def _check_repeats(self) -> None:
        """Check that nothing was sent again to a node whose answer for it has arrived.

        An answer has arrived if another instance or the release followed on the same association.
        A crash may have come before the ledger had it.
        """
        if self.had_crash:
            return
        for name, node in self._nodes.items():
            last: dict[int, float] = {each.association: each.at for each in node.received}
            answered: Counter[str] = Counter()
            repeated: Counter[str] = Counter()
            # What the network held back comes late, over an association that was given up.
            for each in sorted(node.received, key=lambda one: one.association):
                repeated[each.sop_instance_uid] += answered[each.sop_instance_uid] > 0
                goes_on = last[each.association] >= (each.answered_at or math.inf)
                has_arrived = goes_on or each.association in node.released
                if each.status in FOR_GOOD and has_arrived:
                    answered[each.sop_instance_uid] += 1
            for uid, times in repeated.items():
                wanted = sum(
                    uid in order.thing.sent and name in order.named
                    for order in self.orders.values()
                )
                if times >= max(wanted, 1):
                    self.say(f"{name}: an instance was sent {times} times more than needed (P4)")
