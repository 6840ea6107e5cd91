"""Ask a node by C-FIND for the instances in doubt, before they are sent again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.activities.delivery.assignment import Assignment
from proxy.dicom.association import Association
from proxy.dicom.find import find, is_answered
from proxy.errors import AssociationLost
from proxy.logs import log
from proxy.model import Instance


class InstanceQuery:
    """The questions of one delivery to its node.

    A node that leaves over a question is not asked again: else each attempt would end there, and
    the delivery would fail for what it can do without.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._has_left = False

    async def in_doubt(self) -> set[Instance]:
        """Return the instances to ask for: none where all are sent, whatever the node has."""
        if self._has_left or self._assignment.repush == "all":
            return set()
        node, ledger = self._assignment.node.configured, self._assignment.services.ledger
        dispatch_id = self._assignment.dispatch_id
        return {*await ledger.in_doubt(dispatch_id, node.node_id, node.identity)}

    async def ask(
        self,
        association: Association,
        in_doubt: Sequence[Instance],
        settle: Callable[[Instance, bool], None],
        may_begin: Callable[[], bool],
    ) -> bool:
        """Ask for one after the other; ``settle`` is told of each whether the node has it.

        A question takes the node's time as an instance does. Returns False where ``may_begin`` did
        not allow one; the instances that were not asked for stay in doubt.

        Raises :class:`proxy.errors.AssociationLost`.
        """
        if not in_doubt or not is_answered(association):
            return True
        asked = found = 0
        try:
            for instance in in_doubt:
                if not may_begin():
                    break
                is_there = await find(association, instance)
                settle(instance, is_there)
                asked += 1
                found += is_there
        except AssociationLost:
            self._has_left = True
            raise
        log("delivery.asked", node_id=self._assignment.node_id, count=asked, found=found)
        return asked == len(in_doubt)
