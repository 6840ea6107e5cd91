"""The instances that an attempt has left to send. A deletion may take some while they are sent."""

from __future__ import annotations

from proxy.activities.delivery.assignment import Assignment
from proxy.model import Instance


class UnsentInstances:
    """The instances that the node has not answered for.

    ``is_outdated`` says that ITH deleted something since they were read.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._instances: set[Instance] | None = None
        self.is_outdated = False

    async def read(self) -> list[Instance]:
        """Return the instances that are left, in the order to send them, and track them."""
        listed = await self._list()
        self._instances = set(listed)
        return listed

    async def has(self, instance: Instance) -> bool:
        """Whether an instance is still to be sent.

        That its file is there does not say so: files go after the rows, and a later order for a
        deleted entity brings its files back, for its own nodes.
        """
        if self.is_outdated and self._instances:
            self._instances &= set(await self._list())
        return instance in (self._instances or ())

    def answered(self, instance: Instance) -> None:
        """Note that the node has answered for an instance."""
        if self._instances:
            self._instances.discard(instance)

    @property
    def is_empty(self) -> bool:
        """Whether it is known that nothing is left."""
        return self._instances == set()

    async def _list(self) -> list[Instance]:
        self.is_outdated = False  # the ledger answers in turn: after the deletions up to now
        ledger = self._assignment.services.ledger
        return await ledger.to_send(self._assignment.dispatch_id, self._assignment.node_id)
