"""What one attempt to deliver says of the node: its failures, its complaints, what it bore."""

from __future__ import annotations

from proxy.activities.node import fault_of
from proxy.errors import NodeError
from proxy.machines import policy
from proxy.machines.failures import Remedy, classify_error
from proxy.work.runs import NodeAtWork, Site

ROOM_INSTANCES = 100
"""After so many without complaint a node that complained is given one association more."""


class NodeFeedback:
    """One attempt at a node as it is configured now; ``accepted`` says that it let us in.

    A node that moves meanwhile is another one: nothing of this is counted for that.
    """

    def __init__(self, site: Site, at: NodeAtWork) -> None:
        self.node = at.node
        self.accepted = False
        self._site = site
        self._at = at
        self._given = at.run.data.associations
        self._complained = False

    @property
    def _has_moved(self) -> bool:
        return self._at.node.address != self.node.address

    def blame(self, error: NodeError) -> Remedy:
        """Count an error against the node, if it is one; returns what to do about it.

        An association that is not to be had beside one that the node has accepted is a matter of
        room: many take one at a time, and let the next one wait without a word.
        """
        remedy = classify_error(error).remedy
        if remedy is Remedy.RETRY_LATER and self._at.established and not self.accepted:
            return Remedy.FEWER_ASSOCIATIONS
        if remedy not in {Remedy.FEWER_ASSOCIATIONS, Remedy.RETRY_NOW} and not self._has_moved:
            run = self._at.run
            run.tell(fault_of(self._site, run, error.in_full, is_probe=False))
        return remedy

    def complain(self) -> None:
        """Have the node given fewer associations at a time: it had no room for this one."""
        self._complained = True
        fewer = policy.congested(self._at.run.data, given=self._given)
        if fewer is not None and not self._has_moved:
            self._at.run.tell(fewer)

    def end(self, stored: int) -> None:
        """Count for the node what it stored in this attempt, unless it complained."""
        if not self._complained and not self._has_moved:
            self._at.run.tell(policy.coped(self._at.run.data, stored, threshold=ROOM_INSTANCES))
