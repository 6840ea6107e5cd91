"""The reports to ITH about a dispatch: the status words, the numbers, one stream for each node.

It decides nothing: the machines decide when to report; here their facts are put into
``dispatch.status`` events (protocol.md 2.16, 4.3). The stream of a node carries ``node_id``; the
one closing message of the dispatch does not. ``status_detail`` chooses among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from msgspec.structs import replace

from proxy.events.base import wire_time
from proxy.events.outgoing import DispatchStatusEvent, StatusWord
from proxy.machines import policy
from proxy.machines.delivery import DeliveryProgress, Outcome
from proxy.machines.policy import Endings
from proxy.model import Order
from proxy.reporting.outbox import Outbox
from proxy.runtime.clock import Clock

Detail: TypeAlias = Literal["both", "per-node", "aggregate"]

DOWNLOAD_SHARE = 30
"""The share of the download in a node's progress, in percent; storing is the rest."""


class Reports:
    """Puts status events into the outbox."""

    def __init__(self, outbox: Outbox, detail: Detail, clock: Clock) -> None:
        self._outbox = outbox
        self._detail = detail
        self._clock = clock

    def recover(self, order: Order, known: Mapping[str, DeliveryProgress]) -> None:
        """Restore the progress of each node from before a restart: no stream's progress may fall.

        How far a download had been reported is not kept, so nothing is said of the next one. To be
        called for each dispatch of the order: the first alone may have reported more.
        """
        streams: dict[str | None, Iterable[DeliveryProgress]] = (
            {None: known.values()} if self.aggregate else {node: [known[node]] for node in known}
        )
        for node_id, every in streams.items():
            self._outbox.recover(_key(order, node_id), _percent(_total(every)))

    def downloading(self, order: Order, node_ids: Iterable[str], percent: int) -> None:
        """Report the progress of the one download for these nodes, in percent."""
        progress = percent * DOWNLOAD_SHARE // 100
        for node_id in self._streams(node_ids):
            if self._outbox.reached(_key(order, node_id)) < DOWNLOAD_SHARE:
                self._put(order, node_id, "downloading", DeliveryProgress(), progress)

    def processing(self, order: Order, node_id: str, every: Iterable[DeliveryProgress]) -> None:
        """Report the progress of the delivery to a node; ``every`` is of this node, or of all."""
        done = _total(every)
        for stream in self._streams([node_id]):
            self._put(order, stream, "processing", done, _percent(done))

    def delivery_over(
        self, order: Order, node_id: str, outcome: Outcome, progress: DeliveryProgress
    ) -> None:
        """Report the end of the delivery to one node."""
        if self._detail != "aggregate":
            self._close(order, node_id, outcome, _sound(progress))

    def order_over(self, order: Order, endings: Endings) -> None:
        """Report the end of the order in the closing message."""
        if self._detail != "per-node":
            outcome, error = policy.verdict(endings)
            total = _total(progress for _, progress in endings.values())
            self._close(order, None, outcome, replace(total, error=error))

    def again(self, order: Order, endings: Endings, *, is_over: bool) -> None:
        """Report the ends of its nodes again: ITH repeats an order whose answer it has lost."""
        for node_id in order.node_ids:
            if node_id in endings and not self._outbox.keeps(_key(order, node_id)):
                self.delivery_over(order, node_id, *endings[node_id])
        if is_over and not self._outbox.keeps(_key(order, None)):
            self.order_over(order, endings)

    @property
    def aggregate(self) -> bool:
        """Whether there is one stream for all nodes."""
        return self._detail == "aggregate"

    def _streams(self, node_ids: Iterable[str]) -> Iterable[str | None]:
        return (None,) if self.aggregate else node_ids

    def _close(
        self, order: Order, node_id: str | None, outcome: Outcome, progress: DeliveryProgress
    ) -> None:
        if outcome is Outcome.COMPLETED:
            self._put(order, node_id, "completed", progress, 100)
        else:
            error = progress.error or outcome.value
            percent = _percent(progress) if progress.files_total else 0
            self._put(order, node_id, "failed", progress, percent, error=error)

    def _put(
        self,
        order: Order,
        node_id: str | None,
        status: StatusWord,
        progress: DeliveryProgress,
        percent: int,
        *,
        error: str | None = None,
    ) -> None:
        report = DispatchStatusEvent.create(
            workspace_id=order.workspace_id,
            entity_type=order.entity.type.value,
            entity_id=order.entity.id,
            correlation_id=order.correlation_id,
            node_id=node_id,
            status=status,
            files_sent=progress.files_stored,
            files_total=progress.files_total,
            progress=percent,
            error=error,
            timestamp=wire_time(self._clock.now()),
        )
        self._outbox.put(_key(order, node_id), report)


def _key(order: Order, node_id: str | None) -> str:
    """Name a stream of reports: that of one node, or that of the dispatch."""
    return "\0".join((order.correlation_id, order.entity.id, node_id or ""))


def _sound(progress: DeliveryProgress) -> DeliveryProgress:
    """Let the total include an instance that was deleted while it was sent and counts no more."""
    answered = progress.files_stored + progress.files_refused
    return replace(progress, files_total=max(progress.files_total, answered))


def _percent(done: DeliveryProgress) -> int:
    """A node's progress in percent after the download; 100 is for a completed delivery alone."""
    share = done.files_stored / done.files_total if done.files_total else 0
    return DOWNLOAD_SHARE + int(share * (99 - DOWNLOAD_SHARE))


def _total(every: Iterable[DeliveryProgress]) -> DeliveryProgress:
    every = [_sound(progress) for progress in every]
    errors = [progress.error for progress in every if progress.error]
    return DeliveryProgress(
        files_total=sum(progress.files_total for progress in every),
        files_stored=sum(progress.files_stored for progress in every),
        files_refused=sum(progress.files_refused for progress in every),
        error=errors[0] if errors else None,
    )
