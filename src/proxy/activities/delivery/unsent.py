"""What one delivery has left to send. A deletion may take of it while it is being sent."""

from __future__ import annotations

from proxy.model import Instance
from proxy.work.runs import DeliveryAtWork, Site


class UnsentInstances:
    """The instances that the node has not answered for, as of the present attempt."""

    def __init__(self, site: Site, at: DeliveryAtWork) -> None:
        self._ledger = site.ledger
        self._at = at
        self._instances: set[Instance] | None = None

    async def read(self) -> list[Instance]:
        """Return what is left, in the order to send it, and keep it up from now on."""
        listed = await self._list()
        self._instances = set(listed)
        return listed

    async def has(self, instance: Instance) -> bool:
        """Whether an instance is still to be sent.

        That its file is there does not say so: files go after the rows, and a later order for what
        was deleted brings them back, for its own nodes.
        """
        if self._at.is_outdated and self._instances:
            self._instances &= set(await self._list())
        return instance in (self._instances or ())

    def answered(self, instance: Instance) -> None:
        """Note that the node has answered for an instance."""
        if self._instances:
            self._instances.discard(instance)

    def forget(self) -> None:
        """Begin an attempt that has not read yet what is left."""
        self._instances = None

    @property
    def is_nothing(self) -> bool:
        """Whether it is known that nothing is left."""
        return self._instances == set()

    async def _list(self) -> list[Instance]:
        self._at.is_outdated = False  # the ledger answers in turn: after the deletions up to now
        return await self._ledger.to_send(self._at.dispatch.dispatch_id, self._at.node_id)
