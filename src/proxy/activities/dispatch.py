"""The activities of a dispatch: recording the order, waiting for a turn, fetching the entity."""

from __future__ import annotations

from functools import partial

from proxy.activities.target import repush_for
from proxy.backend.archive import unpack
from proxy.backend.rest import NotModified
from proxy.errors import ArchiveError, BackendError
from proxy.ledger import Undeliverable
from proxy.logs import log
from proxy.machines import dispatch, policy
from proxy.machines.dispatch import DispatchData, DispatchOutput, DispatchState
from proxy.machines.operation import OperationState
from proxy.pacs.header import read_instance
from proxy.runtime.runner import Activity
from proxy.work.runs import DispatchAtWork, DispatchRun, Site

FETCH_ATTEMPTS = 5
"""Whole downloads that are tried; each of them resumes by itself first."""


class DispatchActivities:
    """Does what one dispatch needs from ITH."""

    def __init__(self, site: Site, at: DispatchAtWork) -> None:
        self._site = site
        self._at = at

    def all(self) -> dict[str, Activity[DispatchState, DispatchData, DispatchOutput]]:
        """The activities by the names the machine gives them."""
        return {"record": self.record, "wait_for_turn": self.wait_for_turn, "fetch": self.fetch}

    async def record(self, run: DispatchRun) -> None:
        """Write the order to the ledger; a node that another dispatch of it serves is left out."""
        at = self._at
        if at.acceptance is not None:
            accepted = await at.acceptance
            at.whole.recall(accepted.over)
            if not accepted.is_new:
                run.tell(dispatch.AlreadyKnown())
                return
            at.dispatch_id = accepted.dispatch_id
            for node_id in at.deliveries.keys() - set(accepted.node_ids):
                del at.deliveries[node_id]
        if self._site.operation.state is OperationState.ACTIVE:
            run.tell(dispatch.Recorded())
        else:
            run.tell(dispatch.RecordedWhilePaused())

    async def wait_for_turn(self, run: DispatchRun) -> None:
        """Wait for a free download, and until no other dispatch downloads the same entity."""
        at, order = self._at, self._at.order
        at.release_grant()  # one that was granted in the instant of a hold
        while at.grant is None:
            for other in self._others():
                await other.run.until(*(set(DispatchState) - {DispatchState.FETCHING}))
            at.grant = await self._site.downloads.acquire(
                order.priority.rank, at.dispatch_id, flow=frozenset(order.node_ids)
            )
            if any(other.run.state is DispatchState.FETCHING for other in self._others()):
                at.release_grant()
        run.tell(dispatch.TurnGranted())
        if run.state is not DispatchState.FETCHING:
            self._at.release_grant()

    async def fetch(self, run: DispatchRun) -> None:
        """Bring the entity into the local PACS, plan each delivery, and say how it went."""
        try:
            is_held = await self._site.ledger.cached_entity(self._at.order.entity) is not None
            if not (is_held and (self._at.planned or self._at.is_fresh)):
                await self._hold(run)
            run.tell(dispatch.Fetched(await self._plan()))
        except BackendError as error:
            log("dispatch.fetch_failed", level="warning", error=error, permanent=error.permanent)
            run.tell(
                policy.after_fetch(
                    run.data,
                    error.in_full,
                    permanent=error.permanent,
                    attempts=FETCH_ATTEMPTS,
                    cap=self._site.settings.dicom.retry_max_seconds,
                    uniform=self._site.rng.random(),
                    retry_after=error.retry_after or 0.0,
                )
            )
        finally:
            self._at.release_grant()

    async def _hold(self, run: DispatchRun) -> None:
        """Download the entity, unless ITH says that what is held is what it has.

        The other dispatches of it that have been accepted by now need not ask again.
        """
        site, order = self._site, self._at.order
        served = [self._at, *(other for other in self._others() if other.dispatch_id)]
        held = await site.ledger.cached_entity(order.entity)
        async with site.pacs.staging(self._at.dispatch_id) as staging:
            got = await site.backend.download(
                order.entity,
                order.workspace_id,
                staging / "archive",
                held.etag if held else None,
                partial(_tell_progress, run),
            )
            if isinstance(got, NotModified):
                log("dispatch.held_already")
                for each in served:
                    each.is_fresh = True
                return
            unpacked = await site.offload(
                unpack,
                got.path,
                staging / "entries",
                site.archive_limits,
                site.offload.check_cancelled,
                read_instance,
            )
            passed_over = sum(unpacked.passed_over.values())
            undeliverable = Undeliverable(unpacked.damaged + unpacked.conflicting, passed_over)
            log("dispatch.fetched", entries=len(unpacked.instances), bytes=got.size)
            for reason, count in sorted(unpacked.skipped.items()):
                log("archive.skipped", reason=reason, entries=count)
            for reason, count in sorted(unpacked.passed_over.items()):
                log("archive.passed_over", level="warning", reason=reason, entries=count)
            if undeliverable.damaged:
                log("archive.damaged", level="warning", entries=undeliverable.damaged)
            for each in served:
                each.undeliverable = undeliverable
                site.ledger.post_undeliverable(each.dispatch_id, undeliverable)
            await site.pacs.take_in(
                order.entity,
                [(each.path, each.instance) for each in unpacked.instances],
                # What is undeliverable is to come again, not to be taken for all there is.
                None if undeliverable.total else got.etag,
                # What was deleted before the youngest order is wanted again by that one.
                dispatch_id=max(each.dispatch_id for each in served),
            )
            for each in served:
                each.is_fresh = True

    def _others(self) -> list[DispatchAtWork]:
        """The other dispatches of the same entity."""
        same = self._site.dispatches.of(self._at.order.entity)
        return [other for other in same if other is not self._at]

    async def _plan(self) -> int:
        """Plan every delivery from what is held; returns the number of instances."""
        ledger, at = self._site.ledger, self._at
        total = await ledger.plan(at.dispatch_id)
        if not total:
            raise ArchiveError("nothing to send: the content was deleted", permanent=True)
        planned = total
        for delivery in at.deliveries.values():
            node = delivery.node.node
            anew = repush_for(self._site.settings.dispatch, node) == "all"
            counts = await ledger.settle(at.dispatch_id, node.node_id, node.identity, anew=anew)
            delivery.run.tell(at.ready(counts))
            # After a restart also what a node answered for and a deletion has taken since.
            planned = max(planned, counts.total)
        at.planned = planned
        return total + at.undeliverable.total


def _tell_progress(run: DispatchRun, received: int, total: int | None) -> None:
    """Tell the run how far the download is, where that is known and in whole percent."""
    if total:
        percent = min(100 * received // total, 99)
        if percent > run.data.percent:
            run.tell(dispatch.FetchAdvanced(percent))
