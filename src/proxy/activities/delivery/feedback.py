"""The facts about a node that one attempt shows: failures, complaints, stored instances."""

from __future__ import annotations

from proxy.activities.node import NodeAtWork
from proxy.errors import NodeError
from proxy.machines import policy
from proxy.machines.failures import Remedy, classify_error

ROOM_INSTANCES = 100
"""After so many without complaint a node that complained is given one association more."""


class NodeFeedback:
    """The feedback of one attempt at a node as it is configured now.

    ``accepted`` says that the node accepted the association. A node that moves meanwhile is another
    one: nothing of this is counted for that.
    """

    def __init__(self, node: NodeAtWork) -> None:
        self.configured = node.configured
        self.accepted = False
        self._node = node
        self._given = node.run.data.associations
        self._complained = False

    @property
    def _has_moved(self) -> bool:
        return self._node.configured.address != self.configured.address

    def blame(self, error: NodeError) -> Remedy:
        """Count an error against the node, if it is one; return what to do about it.

        An association that is not to be had beside one that the node has accepted is a matter of
        congestion: many take one at a time, and let the next one wait without a word.
        """
        remedy = classify_error(error).remedy
        if remedy is Remedy.RETRY_LATER and self._node.established and not self.accepted:
            return Remedy.FEWER_ASSOCIATIONS
        if remedy not in {Remedy.FEWER_ASSOCIATIONS, Remedy.RETRY_NOW} and not self._has_moved:
            self._node.failed(error.in_full, is_probe=False)
        return remedy

    def complain(self) -> None:
        """Have the node given fewer associations at a time: it was congested."""
        self._complained = True
        fewer = policy.congested(self._node.run.data, given=self._given)
        if fewer is not None and not self._has_moved:
            self._node.run.tell(fewer)

    def end(self, stored: int) -> None:
        """Count for the node what it stored in this attempt, unless it complained."""
        if not self._complained and not self._has_moved:
            run = self._node.run
            run.tell(policy.coped(run.data, stored, threshold=ROOM_INSTANCES))
