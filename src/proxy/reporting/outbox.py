"""The reports to ITH: put now, sent later by the link's one writer.

A final report is a row of the ledger, posted in the same synchronous stretch as the change that it
reports: both are durable together or neither. Progress is kept in memory, the latest per key, and
at most one message per key and interval is sent. So the outbox needs no limit: it holds the
unproven final reports and one progress report per key, and drops no unproven one.

Per key the order is kept: progress never falls, and nothing follows the final report. A report that
would fall is raised to what its key has reached; that number is kept here alone, and forgotten with
the final report. A frame leaves only after the ledger has committed the change that it reports.
After a reconnect every unproven frame is taken again. The link decides on the proof.

ITH may lose its last minutes, when it dies or is restored from a backup. So a final report is kept
for an hour after its proof, and sent once more on each later link that lasts some seconds. The hour
counts only while there is a link: an outage of ITH does not use it up. The key of a kept report is
open, and the next report of the key replaces it. After a restart all rows count as unproven.

A progress report waits as values and is encoded when the link sends it, since most are replaced
before. A final report is encoded at once, for its row. The outbox sends nothing itself. Heartbeats
and other messages that are stale a moment later are not put here.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import trio
from msgspec.structs import replace

from proxy.events.outgoing import DispatchStatusEvent
from proxy.events.outgoing.dispatch_status import FINAL
from proxy.ledger import Ledger
from proxy.runtime import marks
from proxy.runtime.marks import Mark

PROGRESS_INTERVAL_S = 1.0
KEPT_S = 3600.0
"""Seconds with a link for which a final report is kept after its proof."""
KEPT_MOST = 1000
"""The most proven reports that are kept; the oldest are dropped first."""
REPEAT_AFTER_S = 5.0
"""Age of a link in seconds at which kept reports are repeated: short links repeat none."""


class Parcel(msgspec.Struct, frozen=True):
    """One report on its way; ``report_id`` is its row in the ledger, None for progress."""

    key: str
    content: str | DispatchStatusEvent
    report_id: int | None = None

    @property
    def frame(self) -> str:
        """The report as the wire has it; progress is encoded here, at each use."""
        return self.content if isinstance(self.content, str) else self.content.to_json()


class Kept(NamedTuple):
    """A final report that was proven, and the time on links, in seconds, at which it was."""

    report_id: int
    parcel: Parcel
    since: float


class Outbox:
    """The supervisor puts, one link takes; ``load`` comes before both."""

    def __init__(self, ledger: Ledger, *, progress_interval: float = PROGRESS_INTERVAL_S) -> None:
        """Make an empty outbox; ``progress_interval`` is in seconds."""
        self._ledger = ledger
        self._interval = progress_interval
        self._finals: dict[int, Parcel] = {}  # all that are unproven, by report id
        self._closed: Counter[str] = Counter()  # the number of them by key
        self._waiting: deque[Parcel] = deque()  # final reports to be taken, some of them again
        self._progress: dict[str, Parcel] = {}  # to be taken, the latest of each key
        self._reached: dict[str, int] = {}  # in percent
        self._quiet_until: dict[str, float] = {}
        self._flying: deque[Parcel] = deque()  # taken and unproven, in the order of taking
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # proven, the last final of each key
        self._repeats: list[Parcel] = []  # those of them that were proven on an earlier link
        self._repeat_at = math.inf
        self._linked = 0.0  # seconds with a link, up to its last proof
        self._looked_at = 0.0  # by trio's clock; set by each new link and each proof
        self._sent = 0
        self._proven = 0
        self._changed = trio.Event()

    async def load(self) -> None:
        """Take up the final reports that an earlier run left."""
        for report_id, key, frame in await self._ledger.reports():
            self._file(Parcel(key, frame, report_id), report_id)
        self.rewind()

    def recover(self, key: str, progress: int) -> None:
        """Let no report of this key fall below ``progress``, which an earlier run has reached."""
        self._reached[key] = max(progress, self.reached(key))

    def reached(self, key: str) -> int:
        """The progress in percent below which no report of this key falls."""
        return self._reached.get(key, 0)

    def put(self, key: str, report: DispatchStatusEvent) -> None:
        """Queue ``report`` for sending; returns at once.

        Progress that would fall is raised. Progress that follows an unproven final report of its
        key is not sent. A proven one of its key is kept no longer.
        """
        if (outdated := self._kept.pop(key, None)) is not None:
            self._ledger.post_forget([outdated.report_id])
        progress = max(report.payload.progress, self.reached(key))
        if progress > report.payload.progress:
            report = replace(report, payload=replace(report.payload, progress=progress))
        if report.payload.status in FINAL:
            frame = report.to_json()
            report_id = self._ledger.post_report(key, frame)
            parcel = Parcel(key, frame, report_id)
            self._file(parcel, report_id)
            self._waiting.append(parcel)
        else:
            self._reached[key] = progress
            if key not in self._closed:
                self._progress[key] = Parcel(key, report)
        self._wake()

    async def take(self) -> Parcel:
        """Wait for a frame to send, and until the change that it reports is durable.

        When cancelled, it has taken nothing. Raises LedgerError if the ledger cannot be written.
        """
        while True:
            changed = self._changed
            parcel = self._next()
            if parcel is None:
                with trio.move_on_at(self._next_due()):
                    await changed.wait()
                continue
            await self._ledger.settled()
            if self._withdraw(parcel):
                marks.reached(Mark.REPORT_TAKEN)
                return parcel

    def sent(self, parcel: Parcel) -> None:
        """Note that a parcel was sent. One sender takes and sends in turn."""
        if self._flying[self._sent - self._proven] is not parcel:
            raise ValueError("parcels are sent in the order they were taken")
        self._sent += 1
        self._wake()

    def mark(self) -> int:
        """The number of parcels sent so far; the answer to a message sent now proves them."""
        return self._sent

    def confirm(self, mark: int) -> None:
        """Note the proof of the parcels sent before ``mark``; keep final reports for an hour."""
        now = trio.current_time()
        self._linked += now - self._looked_at
        self._looked_at = now
        unproven = len(self._finals)
        forgotten = []
        while self._proven < mark:
            parcel = self._flying.popleft()
            self._proven += 1
            if parcel.report_id in self._finals and not self._keep(parcel.report_id):
                forgotten.append(parcel.report_id)
        if len(self._finals) < unproven:
            marks.reached(Mark.REPORT_PROVEN)
        forgotten += self._outdated()
        if forgotten:
            self._ledger.post_forget(forgotten)

    def rewind(self) -> None:
        """Begin a new link: every unproven parcel is to be taken again, in its order.

        The kept final reports follow when the link is ``REPEAT_AFTER_S`` old.
        """
        self._looked_at = trio.current_time()
        self._repeats = [kept.parcel for kept in self._kept.values()]
        self._repeat_at = self._looked_at + REPEAT_AFTER_S if self._repeats else math.inf
        for parcel in reversed(self._flying):
            if parcel.report_id is None and parcel.key not in self._closed:
                self._progress.setdefault(parcel.key, parcel)
        self._flying.clear()
        self._proven = self._sent
        self._waiting = deque(self._finals.values())
        self._wake()

    async def flushed(self) -> None:
        """Wait until every final report put so far, or meanwhile, has been sent."""
        while not self._is_flushed:
            await self._changed.wait()

    def keeps(self, key: str) -> bool:
        """Whether a final report of this key is yet to be proven delivered."""
        return key in self._closed

    @property
    def queued(self) -> int:
        """The number of final reports that are not proven delivered."""
        return len(self._finals)

    @property
    def _is_flushed(self) -> bool:
        is_waiting = any(parcel.report_id in self._finals for parcel in self._waiting)
        return not is_waiting and self._sent - self._proven == len(self._flying)

    def _file(self, parcel: Parcel, report_id: int) -> None:
        """Keep a final report; its key is closed until the report is proven delivered."""
        self._finals[report_id] = parcel
        self._closed[parcel.key] += 1
        for of_key in (self._progress, self._reached, self._quiet_until):
            of_key.pop(parcel.key, None)

    def _keep(self, report_id: int) -> bool:
        """Keep a proven report and open its key, unless a later one of its key is unproven."""
        parcel = self._finals.pop(report_id)
        self._closed[parcel.key] -= 1
        if self._closed[parcel.key]:
            return False
        del self._closed[parcel.key]
        self._kept[parcel.key] = Kept(report_id, parcel, self._linked)
        return True

    def _outdated(self) -> Iterator[int]:
        """Drop the reports that were kept long enough or are too many; yield their ids."""
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if len(self._kept) <= KEPT_MOST and self._linked < kept.since + KEPT_S:
                return
            del self._kept[key]
            yield kept.report_id

    def _next(self) -> Parcel | None:
        """Return a parcel that may be sent now, final reports first."""
        now = trio.current_time()
        if now >= self._repeat_at:
            self._repeat_at = math.inf
            self._waiting.extend(self._repeats)
        while self._waiting and not self._is_wanted(self._waiting[0]):
            self._waiting.popleft()
        if self._waiting:
            return self._waiting[0]
        open_now = (p for p in self._progress.values() if self._due(p) <= now)
        return next(open_now, None)

    def _is_wanted(self, parcel: Parcel) -> bool:
        """Whether a final report is unproven, or kept."""
        if parcel.report_id in self._finals:
            return True
        kept = self._kept.get(parcel.key)
        return kept is not None and kept.parcel is parcel

    def _next_due(self) -> float:
        """The time at which something may be sent next, on trio's clock."""
        return min(self._repeat_at, min(map(self._due, self._progress.values()), default=math.inf))

    def _due(self, progress: Parcel) -> float:
        return self._quiet_until.get(progress.key, -math.inf)

    def _withdraw(self, parcel: Parcel) -> bool:
        """Take a parcel out, unless it was overtaken while the ledger was being written.

        Progress may have been replaced by progress that is not durable yet: then the older one is
        sent.
        """
        if parcel.report_id is not None:
            is_next = bool(self._waiting) and self._waiting[0] is parcel
            if not (is_next and self._is_wanted(parcel)):
                return False
            self._waiting.popleft()
        elif parcel.key in self._closed:
            return False
        else:
            if self._progress[parcel.key] is parcel:
                del self._progress[parcel.key]
            self._quiet_until[parcel.key] = trio.current_time() + self._interval
        self._flying.append(parcel)
        return True

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
