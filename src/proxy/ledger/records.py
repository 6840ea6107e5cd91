"""The ledger's answers: plain values for the supervisor, the outbox and the local PACS."""

from __future__ import annotations

from enum import Enum
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from proxy.model import EntityType, Order

OutcomeWord: TypeAlias = Literal["completed", "failed", "cancelled"]


class InstanceState(Enum):
    """The state of one instance on its way to one node."""

    PLANNED = "planned"
    """Not sent yet, or to be sent again."""
    SENDING = "sending"
    """Handed to an association; after a crash its outcome is not known."""
    STORED = "stored"
    STORED_WITH_WARNING = "stored_with_warning"
    REFUSED = "refused"
    """The node refused it, and sending it again cannot help."""
    UNKNOWN = "unknown"
    """The last byte was sent, and no usable answer arrived."""


class Counts(msgspec.Struct, frozen=True):
    """The counts of one delivery, in instances; ``stored`` includes those stored with a warning."""

    total: int = 0
    stored: int = 0
    refused: int = 0
    unknown: int = 0


class Undeliverable(NamedTuple):
    """Files from ITH that cannot be sent to any node; they count among the files to be sent.

    ``damaged`` counts instances, ``passed_over`` files and archives that may hold images and could
    not be read. ``why`` is what is said of the instances.
    """

    damaged: int = 0
    passed_over: int = 0
    why: str = ""


class Over(msgspec.Struct, frozen=True):
    """The end of a delivery whose dispatch is over; the total includes undeliverable files."""

    node_id: str
    outcome: OutcomeWord
    error: str | None
    counts: Counts


class Accepted(msgspec.Struct, frozen=True):
    """The answer to an order: the dispatch that serves ``node_ids``.

    ``over`` has the ends of earlier dispatches of the same order.
    """

    dispatch_id: int
    is_new: bool
    node_ids: tuple[str, ...]
    over: tuple[Over, ...] = ()


class RecordedDelivery(msgspec.Struct, frozen=True):
    """One dispatch to one node; ``next_attempt_at`` is in UTC seconds since 1970.

    ``away`` says that the last attempt failed because the node did not answer.
    """

    node_id: str
    attempts: int
    next_attempt_at: float | None
    error: str | None
    outcome: OutcomeWord | None
    counts: Counts
    away: bool = False

    @property
    def is_final(self) -> bool:
        """Whether this delivery is over while its dispatch is not."""
        return self.outcome is not None


class Unfinished(msgspec.Struct, frozen=True):
    """A dispatch that is to go on after a restart.

    ``deleted`` is set where ITH has deleted its entity since, to the type of what was deleted: the
    entity or its parent. The dispatch is to be cancelled. ``over`` is that of :class:`Accepted`.
    """

    dispatch_id: int
    order: Order
    deliveries: tuple[RecordedDelivery, ...]
    deleted: EntityType | None
    undeliverable: Undeliverable = Undeliverable()
    over: tuple[Over, ...] = ()


class CachedEntity(msgspec.Struct, frozen=True):
    """An entity that is complete in the local PACS.

    ``etag`` names the archive it came from; None if ITH gave none, or if a deletion has removed
    some of its instances since.
    """

    etag: str | None
    instances: int


class Deleted(msgspec.Struct, frozen=True):
    """The result of a deletion: rows, and the objects (sha256) that no row refers to any more.

    ``confirmed`` counts the deleted instances that nodes had confirmed, once for each node: the
    nodes keep them. ``deliveries`` are those with less to send now, by dispatch and node id.
    """

    instances: int
    orphans: tuple[str, ...]
    confirmed: int = 0
    deliveries: frozenset[tuple[int, str]] = frozenset()


class Report(NamedTuple):
    """A frame for ITH without a proof of arrival, or with a recent one."""

    id: int
    key: str
    frame: str
