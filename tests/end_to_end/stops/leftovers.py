"""The tasks, threads and descriptors of this process, and the difference between two moments."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trio

IDLE_WORKER = "Trio thread "
"""Trio's name of a worker thread that is kept some seconds for the next call: it holds nothing."""
STEADY_S = 0.3
PATIENCE_S = 5.0


@dataclass(frozen=True)
class Look:
    """The tasks, threads and descriptors at a moment, counted by name or target."""

    tasks: Counter[str]
    threads: Counter[str]
    descriptors: Counter[str]

    def __sub__(self, other: Look) -> Look:
        return Look(
            self.tasks - other.tasks,
            self.threads - other.threads,
            self.descriptors - other.descriptors,
        )

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing."""
        return not (self.tasks or self.threads or self.descriptors)

    @property
    def sockets(self) -> int:
        """The number of descriptors that are sockets."""
        return self.descriptors["socket"]

    @property
    def files(self) -> int:
        """The number of descriptors that are no sockets."""
        return self.descriptors.total() - self.sockets


def look() -> Look:
    """Look at what there is now."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    threads = [t.name for t in threading.enumerate() if not t.name.startswith(IDLE_WORKER)]
    return Look(Counter(_tasks(root)), Counter(threads), Counter(_descriptors()))


async def steady() -> Look:
    """Look once nothing changes any more."""
    before = look()
    while True:
        await trio.sleep(STEADY_S)
        now = look()
        if now == before:
            return now
        before = now


async def left_since(before: Look, expected: Look | None = None) -> Look:
    """Return the things that were not there before; those about to end have some seconds."""
    deadline = trio.current_time() + PATIENCE_S
    while True:
        left = look() - before
        left = left - expected if expected else left
        if left.is_clean or trio.current_time() > deadline:
            return left
        await trio.sleep(0.05)


def _tasks(task: trio.lowlevel.Task) -> Iterator[str]:
    yield task.name
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child)


def _descriptors() -> Iterator[str]:
    for each in [*Path("/proc/self/fd").iterdir()]:
        try:
            target = str(each.readlink())
        except FileNotFoundError:  # that of the listing itself
            continue
        yield target.partition(":")[0] if ":[" in target else target
