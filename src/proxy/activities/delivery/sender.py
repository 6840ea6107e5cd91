"""Storing at a node instance by instance, in another transfer syntax where it wants one."""

from __future__ import annotations

from contextlib import AsyncExitStack

from proxy.dicom.association import Association
from proxy.dicom.storage import StoreResult, store
from proxy.errors import NotConverted
from proxy.logs import log
from proxy.machines.delivery import DeliveryState
from proxy.machines.failures import Remedy, classify_local
from proxy.model import Instance
from proxy.work.runs import DeliveryRun
from proxy.work.services import Services


class InstanceSender:
    """Stores what one delivery sends over one association, and counts what it converted."""

    def __init__(self, services: Services, run: DeliveryRun, association: Association) -> None:
        self.association = association
        self._pacs = services.pacs
        self._reserve_bytes = services.archive_limits.reserve_bytes
        self._run = run
        self._converted = 0

    async def store(self, instance: Instance) -> StoreResult | None:
        """Send one instance; None where a stop came while it was converted, so nothing was sent.

        It is sent as it is. If the node does not take its transfer syntax, or finds that it does
        not match its SOP class, it is sent once more in a syntax that was accepted beside it.
        Raises what :func:`proxy.dicom.storage.store` does.
        """
        association = self.association
        result = await store(association, instance, self._pacs.path(instance))
        if result.failure.remedy is not Remedy.OTHER_SYNTAX:
            return result
        syntax = association.contexts.fallback(instance.sop_class_uid, instance.transfer_syntax_uid)
        return result if syntax is None else await self._store_converted(instance, syntax)

    async def _store_converted(self, instance: Instance, syntax: str) -> StoreResult | None:
        async with AsyncExitStack() as stack:
            with self._run.only_in(DeliveryState.STORING):
                try:
                    path, converted = await stack.enter_async_context(
                        self._pacs.converted(instance, syntax, self._reserve_bytes)
                    )
                except NotConverted as error:
                    return StoreResult(classify_local(error.code))
            if self._run.state is not DeliveryState.STORING:
                return None
            result = await store(self.association, converted, path)
            self._converted += 1
            return result

    def log(self, node_id: str) -> None:
        """Tell the log how many instances were sent converted."""
        if self._converted:
            log("delivery.converted", node_id=node_id, count=self._converted)
