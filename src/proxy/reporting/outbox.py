"""The reports to ITH: put now, sent later by the link's one writer.

A final report is a row of the ledger, posted in the same synchronous stretch as the change that it
reports: both are durable together or neither. Progress is kept in memory, the latest per key, and
at most one message per key and interval is sent. So the outbox needs no limit: it holds the
unproven final reports and one progress report per key, and drops no final report.

Per key the order is kept: progress never falls, and nothing follows the final report. A report that
would fall is raised to what its key has reached; that number is kept here alone, and forgotten with
the final report. A frame leaves only after the ledger has committed the change that it reports. It
is forgotten only when a later round trip proves that it arrived; after a reconnect every unproven
frame is taken again.

A progress report waits as values and is encoded when the link sends it, since most are replaced
before. A final report is encoded at once, for its row. The outbox sends nothing itself. Heartbeats
and other messages that are stale a moment later are not put here.
"""

from __future__ import annotations

import math
from collections import Counter, deque

import msgspec
import trio
from msgspec.structs import replace

from proxy.events import codec
from proxy.events.outgoing import DispatchStatusEvent
from proxy.ledger import Ledger
from proxy.runtime import marks
from proxy.runtime.marks import Mark

PROGRESS_INTERVAL_S = 1.0


class Parcel(msgspec.Struct, frozen=True):
    """One report on its way; ``report_id`` is its row in the ledger, None for progress."""

    key: str
    content: str | DispatchStatusEvent
    report_id: int | None = None

    @property
    def frame(self) -> str:
        """The report as the wire has it; progress is encoded here, at each use."""
        return self.content if isinstance(self.content, str) else codec.encode(self.content)


class Outbox:
    """The supervisor puts, one link takes; ``load`` comes before both."""

    def __init__(self, ledger: Ledger, *, progress_interval: float = PROGRESS_INTERVAL_S) -> None:
        """Make an empty outbox; ``progress_interval`` is in seconds."""
        self._ledger = ledger
        self._interval = progress_interval
        self._finals: dict[int, Parcel] = {}  # all that are unproven, by report id
        self._closed: Counter[str] = Counter()  # the number of them by key
        self._waiting: deque[Parcel] = deque()  # those of them that are to be taken
        self._progress: dict[str, Parcel] = {}  # to be taken, the latest of each key
        self._reached: dict[str, int] = {}  # in percent
        self._quiet_until: dict[str, float] = {}
        self._flying: deque[Parcel] = deque()  # taken and unproven, in the order of taking
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
        key is not sent.
        """
        progress = max(report.payload.progress, self.reached(key))
        if progress > report.payload.progress:
            report = replace(report, payload=replace(report.payload, progress=progress))
        if report.is_final:
            frame = codec.encode(report)
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
        """The number of parcels sent so far, to be kept with a ping that is sent now."""
        return self._sent

    def confirm(self, mark: int) -> None:
        """Forget the parcels sent before ``mark``: the ping that followed them was answered."""
        proven = []
        while self._proven < mark:
            parcel = self._flying.popleft()
            self._proven += 1
            if parcel.report_id is not None:
                proven.append(parcel.report_id)
                self._forget(parcel.report_id)
        if proven:
            marks.reached(Mark.REPORT_PROVEN)
            self._ledger.post_forget(proven)

    def rewind(self) -> None:
        """Begin a new link: every unproven parcel is to be taken again, in its order."""
        for parcel in reversed(self._flying):
            if parcel.report_id is None and parcel.key not in self._closed:
                self._progress.setdefault(parcel.key, parcel)
        self._flying.clear()
        self._proven = self._sent
        self._waiting = deque(self._finals.values())
        self._wake()

    async def flushed(self) -> None:
        """Wait until every final report put so far, or meanwhile, has been sent."""
        while self._waiting or self._sent - self._proven < len(self._flying):
            await self._changed.wait()

    def keeps(self, key: str) -> bool:
        """Whether a final report of this key is yet to be proven delivered."""
        return key in self._closed

    @property
    def queued(self) -> int:
        """The number of final reports that are not proven delivered."""
        return len(self._finals)

    def _file(self, parcel: Parcel, report_id: int) -> None:
        """Keep a final report; its key is closed until the report is proven delivered."""
        self._finals[report_id] = parcel
        self._closed[parcel.key] += 1
        for of_key in (self._progress, self._reached, self._quiet_until):
            of_key.pop(parcel.key, None)

    def _forget(self, report_id: int) -> None:
        key = self._finals.pop(report_id).key
        self._closed[key] -= 1
        if not self._closed[key]:
            del self._closed[key]

    def _next(self) -> Parcel | None:
        """Return a parcel that may be sent now, final reports first."""
        if self._waiting:
            return self._waiting[0]
        now = trio.current_time()
        open_now = (p for p in self._progress.values() if self._due(p) <= now)
        return next(open_now, None)

    def _next_due(self) -> float:
        """The time at which progress may be sent next, on trio's clock."""
        return min(map(self._due, self._progress.values()), default=math.inf)

    def _due(self, progress: Parcel) -> float:
        return self._quiet_until.get(progress.key, -math.inf)

    def _withdraw(self, parcel: Parcel) -> bool:
        """Take a parcel out, unless it was overtaken while the ledger was being written.

        Progress may have been replaced by progress that is not durable yet: then the older one is
        sent.
        """
        if parcel.report_id is not None:
            if not self._waiting or self._waiting[0] is not parcel:
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
