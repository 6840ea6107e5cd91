"""A fair queue without trio: the program's own scheduler, and signals for the grants."""

from __future__ import annotations

from collections.abc import Hashable

from proxy.simulation.machines.tasks import SOON, Signal, Steps
from proxy.work.scheduler import Job, Scheduler


class Queue:
    """As :class:`proxy.work.fair_queue.FairQueue`; a job is its own grant."""

    __slots__ = ("_granted", "scheduler")

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._granted: dict[Job, Signal] = {}

    @property
    def in_use(self) -> int:
        """How many grants are in use."""
        return len(self.scheduler.served)

    @property
    def limit(self) -> int:
        """How many grants there are."""
        return self.scheduler.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self.scheduler.limit = limit
        self.serve()

    def acquire(self, rank: int, order: int, flow: Hashable) -> Steps[Job]:
        """Wait for a grant; who is cancelled leaves the queue."""
        job = self.scheduler.job(rank, order, flow)
        granted = self._granted[job] = Signal()
        try:
            yield SOON
            self.serve()
            yield granted
        except GeneratorExit:
            self.leave(job)
            raise
        finally:
            del self._granted[job]
        return job

    def leave(self, job: Job) -> None:
        """Give a place, in the line or served, to the next one."""
        self.scheduler.leave(job)
        self.serve()

    def promote(self, flow: Hashable, rank: int) -> None:
        """Serve a flow as those of ``rank`` are from now on, if it was less urgent."""
        self.scheduler.promote(flow, rank)
        self.serve()

    def serve(self) -> None:
        """Serve every job that can be served now."""
        if self.scheduler.waiting:
            for job in self.scheduler.serve():
                self._granted[job].set()
