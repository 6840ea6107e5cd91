"""Decide which job is served next, and which one yields between two services; never waits.

A service is one instance sent, or one download. A job waits, is served until it leaves, and may be
asked between two services to yield. ``proxy.work.fair_queue`` asks for the associations of each
node and for the downloads. Each of these has a scheduler of its own, so that no node ever waits for
another one's jobs. The order of service in one scheduler:

* The most urgent job is first. It waits for no more than the service under way, unless the job
  under way is ``unbroken``: that one leaves of its own accord alone.
* Without a ``quantum`` a job keeps its place until it leaves, and equal ones are served in their
  order. So a node gets all of a dispatch over one association.
* With a ``quantum`` jobs of one priority are served in rounds, one turn for each flow in a round. A
  turn lasts so many services if an equal job waits. At a node a dispatch is a flow. For downloads
  the dispatches to the same set of nodes are one flow: many orders for one node keep an order for
  another node waiting for one round.
* Jobs age: after ``aging`` services in a row that were not for the oldest job, it gets the next
  place that is left at the end of a turn, whatever its priority. So no job waits for ever, and none
  is interrupted for a less urgent one. An urgent job lets at most one less urgent service pass,
  the one under way when it came included, if the job that yields leaves at once.
* ``reserved`` places beyond the limit are for urgent jobs, whose wait would be too long. While
  only urgent jobs are served, the oldest job takes such a place when its turn has come.
* A job that is not admitted at the moment is passed over, and makes no other job yield.
* If the limit falls below the places in use, the least urgent jobs leave between two services.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import TypeAlias, cast

URGENT = 0
"""The rank that aging does not overtake twice."""


@dataclass(eq=False, slots=True)
class Job:
    """A job to be served; ``used`` counts the services of the present turn.

    ``round`` is the round of its next turn: the one after its arrival, or after the last turn of
    its flow. ``unbroken`` says that it must not be made to yield. ``overtaken`` says of an urgent
    job that a less urgent service passed, ``yields`` of a served one that it is to leave, and
    ``interrupted`` that it does so for a more urgent one.
    """

    rank: int
    order: int
    arrival: int
    flow: Hashable
    round: int
    unbroken: bool = False
    used: int = 0
    overtaken: bool = False
    yields: bool = False
    interrupted: bool = False


Admits: TypeAlias = Callable[[Job], bool]


def admit_all(_: Sequence[Job]) -> Admits:
    """Admit every job, without regard to the served ones."""
    return lambda _: True


def backlog_limit(
    most: int, backlog: Callable[[str], Counter[int]]
) -> Callable[[Sequence[Job]], Admits]:
    """Let a dispatch be downloaded if one of its nodes has not too many as urgent backlog.

    ``backlog`` is that of a node, by rank. No priority waits for another here, because the turns
    decide the order. A node that is down or slow delays only the dispatches that are for no other
    node.
    """

    def admission(downloading: Sequence[Job]) -> Admits:
        coming = Counter((node_id, each.rank) for each in downloading for node_id in _nodes(each))

        def takes_more(node_id: str, rank: int) -> bool:
            return backlog(node_id)[rank] + coming[node_id, rank] < most

        @cache  # in a flood of orders very many jobs of few flows wait
        def admits(node_ids: frozenset[str], rank: int) -> bool:
            return any(takes_more(node_id, rank) for node_id in node_ids)

        return lambda job: admits(_nodes(job), job.rank)

    return admission


def _nodes(job: Job) -> frozenset[str]:
    """The flow that a download is for."""
    return cast("frozenset[str]", job.flow)


class Scheduler:
    """The jobs on one pool of ``limit`` places; a place serves one job at a time.

    ``quantum`` of None lets a job keep its place until it is done. ``admission`` gets the served
    jobs before a place is given, and returns for each waiting job whether it may have one.
    """

    def __init__(
        self,
        limit: int,
        *,
        quantum: int | None,
        aging: int,
        reserved: int = 0,
        admission: Callable[[Sequence[Job]], Admits] = admit_all,
    ) -> None:
        self.limit = limit
        self.waiting: list[Job] = []
        self.served: list[Job] = []
        self._quantum = quantum
        self._aging = aging
        self._reserved = reserved
        self._admission = admission
        self._arrivals = count()
        self._round = 0
        self._past_oldest = 0
        self._interrupted = 0
        """The free places that jobs have yielded to more urgent ones."""

    def job(
        self, rank: int, order: int = 0, flow: Hashable = None, *, unbroken: bool = False
    ) -> Job:
        """Put a job in the line; ``rank`` 0 is the most urgent one.

        ``order`` sorts jobs of one rank and round: one that was interrupted comes before younger
        ones, and the order of arrival may be random.
        """
        turn = 0 if self._quantum is None else self._round + 1
        job = Job(rank, order, next(self._arrivals), flow, turn, unbroken)
        job.overtaken = any(each.rank > URGENT for each in self.served)
        self.waiting.append(job)
        return job

    def promote(self, flow: Hashable, rank: int) -> None:
        """Raise the jobs of a flow to ``rank``, if they were less urgent."""
        for job in (*self.waiting, *self.served):
            if job.flow == flow:
                job.rank = min(job.rank, rank)

    def leave(self, job: Job) -> None:
        """Take a job out of the line, or its place from it; further calls do nothing."""
        if job in self.waiting:
            self.waiting.remove(job)
        elif job in self.served:
            self.served.remove(job)
            self._interrupted += job.interrupted

    def serve(self) -> list[Job]:
        """Give the free places to the jobs that are next; return these."""
        begun: list[Job] = []
        while any(map(self._is_free_for, self.waiting)):
            admitted = self._admitted()
            is_aged = bool(admitted) and self._favours_oldest() and not self._interrupted
            line = self._aged_line(admitted) if is_aged else self._line(admitted)
            job = next(filter(self._is_free_for, line), None)
            if job is None:
                break
            if is_aged:
                job = line[0]  # else the urgent ones, taking the reserved place, leave it no other
            self._interrupted = max(self._interrupted - 1, 0)
            if job is self._oldest(admitted):
                self._past_oldest = -1
            self.waiting.remove(job)
            self.served.append(job)
            self._close_round(job)
            self._count(job)
            begun.append(job)
        self._interrupted = 0
        return begun

    def _admitted(self) -> list[Job]:
        return list(filter(self._admission(self.served), self.waiting))

    def _is_free_for(self, job: Job) -> bool:
        return len(self.served) < self.limit + (self._reserved if job.rank == URGENT else 0)

    def may_continue(self, job: Job) -> bool:
        """Whether a served job may begin another service; if not, it must leave.

        Each job that leaves frees a place for one waiting job, so two do not leave for the same
        one.
        """
        if job not in self.served:
            return False
        if job.unbroken:
            self._count(job)
            return True
        staying = [each for each in self.served if each is job or not each.yields]
        free = self.limit - len(staying)
        line = self._line(self._admitted())
        if free < 0:
            yielding = (each for each in staying if not each.unbroken)
            leaves = job is max(yielding, key=lambda each: (each.rank, each.arrival))
        else:
            leaves = free < len(line) and self._gives_way(job, line[free])
            job.interrupted = leaves and line[free].rank < job.rank
        if leaves:
            job.yields = True
            return False
        self._count(job)
        return True

    def _gives_way(self, job: Job, other: Job) -> bool:
        is_over = self._quantum is not None and job.used >= self._quantum
        return other.rank < job.rank or (other.rank == job.rank and is_over)

    def _line(self, waiting: list[Job]) -> list[Job]:
        """Return the waiting jobs in the order of service."""
        return sorted(waiting, key=lambda each: (each.rank, each.round, each.order, each.arrival))

    def _aged_line(self, waiting: list[Job]) -> list[Job]:
        """Return the waiting jobs in the order of service, but the oldest first."""
        oldest = self._oldest(waiting)
        return [oldest, *(each for each in self._line(waiting) if each is not oldest)]

    def _oldest(self, waiting: list[Job]) -> Job:
        return min(waiting, key=lambda each: each.arrival)

    def _favours_oldest(self) -> bool:
        spent = any(each.rank == URGENT and each.overtaken for each in self.waiting)
        return self._past_oldest >= self._aging and not spent

    def _close_round(self, job: Job) -> None:
        """Note that the flow of a job has had its turn in this round."""
        if self._quantum is None:
            return
        self._round = max(self._round, job.round)
        for each in self.waiting:
            if (each.rank, each.flow) == (job.rank, job.flow):
                each.round = max(each.round, job.round + 1)

    def _count(self, job: Job) -> None:
        """Count one more service that begins."""
        job.used += 1
        self._past_oldest = self._past_oldest + 1 if self.waiting else 0
        if job.rank > URGENT:
            for each in self.waiting:
                each.overtaken = True
