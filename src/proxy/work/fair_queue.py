"""A fair queue: a bounded number of jobs at a time, in the order the scheduler says.

Used for downloads and for the associations of each node. A grant is an object that knows whether it
was released, because one activity acquires it and the next one releases it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import trio

from proxy.work.scheduler import Admits, Job, Scheduler, admit_all


class Grant:
    """The right of one job to be served, until it is released."""

    def __init__(self, queue: FairQueue, job: Job) -> None:
        self._queue = queue
        self._job = job

    def may_continue(self) -> bool:
        """Whether one more service may begin; if not, the grant is to be released soon."""
        return self._queue._scheduler.may_continue(self._job)  # noqa: SLF001 - a grant's own queue

    def release(self) -> None:
        """Let the next job be served; further calls do nothing."""
        self._queue._leave(self._job)  # noqa: SLF001 - a grant's own queue


class FairQueue:
    """``limit`` grants; see :mod:`proxy.work.scheduler` for the order in which jobs are served.

    The defaults are for jobs that are one service each.
    """

    def __init__(
        self,
        limit: int,
        *,
        quantum: int | None = 1,
        aging: int = 8,
        reserved: int = 0,
        admission: Callable[[Sequence[Job]], Admits] = admit_all,
    ) -> None:
        self._scheduler = Scheduler(
            limit, quantum=quantum, aging=aging, reserved=reserved, admission=admission
        )
        self._wakeups: dict[Job, trio.Event] = {}

    @property
    def limit(self) -> int:
        """The number of grants."""
        return self._scheduler.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._scheduler.limit = limit
        self.serve()

    @property
    def in_use(self) -> int:
        """The number of grants in use."""
        return len(self._scheduler.served)

    @property
    def waiting(self) -> int:
        """The number of waiting jobs."""
        return len(self._scheduler.waiting)

    async def acquire(
        self, rank: int, order: int = 0, flow: Hashable = None, *, unbroken: bool = False
    ) -> Grant:
        """Wait for a grant. A job that is cancelled leaves the queue, and its grant to others.

        Jobs that come in the same instant, as all do when a pause ends, are served by rank too.
        """
        job = self._scheduler.job(rank, order, flow, unbroken=unbroken)
        wakeup = self._wakeups[job] = trio.Event()
        try:
            await trio.lowlevel.checkpoint()
            self.serve()
            await wakeup.wait()
        except trio.Cancelled:
            self._leave(job)
            raise
        finally:
            del self._wakeups[job]
        return Grant(self, job)

    def promote(self, flow: Hashable, rank: int) -> None:
        """Serve a flow with ``rank`` from now on, if it was less urgent."""
        self._scheduler.promote(flow, rank)
        self.serve()

    def _leave(self, job: Job) -> None:
        self._scheduler.leave(job)
        self.serve()

    def serve(self) -> None:
        """Serve every job that can be served now; to be called when more may be admitted."""
        for job in self._scheduler.serve():
            self._wakeups[job].set()


class Granted:
    """A job that a fair queue may serve for as long as it has a grant."""

    grant: Grant | None = None

    def release_grant(self) -> None:
        """Let another job be served; without a grant this does nothing."""
        if self.grant is not None:
            self.grant.release()
            self.grant = None
