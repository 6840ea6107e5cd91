"""What ITH is told about a dispatch: the status words, the numbers, one stream for each node.

Pure of decisions: the machines say when; here it is put into ``dispatch.status`` events
(protocol.md 2.16, 4.3). One stream for each node carries ``node_id``; one closing message of the
dispatch does not. ``status_detail`` chooses among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

from msgspec.structs import replace

from proxy.events import codec
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
"""Percent of a node's progress that the download makes up; storing makes up the rest."""


class Reports:
    """Puts status events into the outbox."""

    def __init__(self, outbox: Outbox, detail: Detail, clock: Clock) -> None:
        self._outbox = outbox
        self._detail = detail
        self._clock = clock
        self._reached: dict[str, int] = {}

    def recover(self, order: Order, known: Mapping[str, DeliveryProgress]) -> None:
        """Take up how far each node was before a restart: no stream's progress must fall.

        To be called for each dispatch of the order: the first may have told more when it was alone.
        """
        streams: dict[str | None, Iterable[DeliveryProgress]] = (
            {None: known.values()} if self.aggregate else {node: [known[node]] for node in known}
        )
        for node_id, every in streams.items():
            done = _total(every)
            if done.files_total:
                key = _key(order, node_id)
                self._reached[key] = max(self._reached.get(key, 0), _percent(done))

    def downloading(self, order: Order, node_ids: Iterable[str], percent: int) -> None:
        """Say how far the one download for these nodes is, in percent."""
        progress = percent * DOWNLOAD_SHARE // 100
        for node_id in self._streams(node_ids):
            if self._reached.get(_key(order, node_id), 0) < DOWNLOAD_SHARE:
                self._put(order, node_id, "downloading", DeliveryProgress(), progress)

    def processing(self, order: Order, node_id: str, every: Iterable[DeliveryProgress]) -> None:
        """Say how far the delivery to a node is; ``every`` is of this one node, or of all."""
        done = _total(every)
        for stream in self._streams([node_id]):
            self._put(order, stream, "processing", done, _percent(done))

    def delivery_over(
        self, order: Order, node_id: str, outcome: Outcome, progress: DeliveryProgress
    ) -> None:
        """Say how the delivery to one node ended."""
        if self._detail != "aggregate":
            self._close(order, node_id, outcome, _sound(progress))

    def order_over(self, order: Order, endings: Endings) -> None:
        """Say, in the last message, how the order as a whole ended."""
        if self._detail != "per-node":
            outcome, error = policy.verdict(endings)
            total = _total(progress for _, progress in endings.values())
            self._close(order, None, outcome, replace(total, error=error))

    def again(self, order: Order, endings: Endings, *, is_over: bool) -> None:
        """Say once more how its nodes ended: ITH repeats an order whose answer it has lost."""
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
        key = _key(order, node_id)
        final = status in {"completed", "failed"}
        percent = max(percent, self._reached.pop(key, 0))
        if not final:
            self._reached[key] = percent
        event = DispatchStatusEvent.create(
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
        self._outbox.put(key, codec.encode(event), progress=percent, final=final)


def _key(order: Order, node_id: str | None) -> str:
    """Name a stream of reports: of one node, or of the whole dispatch."""
    return "\0".join((order.correlation_id, order.entity.id, node_id or ""))


def _sound(progress: DeliveryProgress) -> DeliveryProgress:
    """Let the total include one that was deleted while it was sent: it counts no more."""
    answered = progress.files_stored + progress.files_refused
    return replace(progress, files_total=max(progress.files_total, answered))


def _percent(done: DeliveryProgress) -> int:
    """Percent of a node's progress once the download is whole; 100 is for completed alone."""
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
