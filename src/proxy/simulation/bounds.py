"""What the program may hold of the machine, seen from outside: tasks, connections, files, memory.

Tasks are counted as trio starts and ends them, connections by the internet, files by the operating
system. Memory is counted in living objects, and in the bytes of buffers.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import NamedTuple

import trio

from proxy.simulation.internet import ITH, Internet
from proxy.simulation.object_files import STAGING, files_in
from proxy.simulation.scenario import NODES

DESCRIPTORS = Path("/proc/self/fd")
COUNTED = ("proxy.", "trio", "wsproto", "h11", "httpcore2", "httpx2", "apsw")
OTHERS = ("proxy.simulation", "proxy.demo")
"""Packages that are no part of the program."""
BUFFERS = (bytes, bytearray)
LEAST_BYTES = 1024
"""Smaller buffers are not counted."""

TASKS, TASKS_OF_NODE = 17, 2
"""Of the program at rest: the tasks without a node, and those of each."""
TASKS_OF_ORDER, TASKS_OF_DELIVERY = 4, 4
TASKS_OF_CHANCE = 12
"""While it connects, asks and answers."""
LINKS = 2
"""An old link to ITH may end while a new one begins."""
QUESTIONS = 2
"""Requests to ITH beside the downloads, of which an urgent one may be one more."""
LISTENERS = 1
"""ITH's own: the program listens on no network."""
PROBES = 1
"""Associations with a node beside those of its deliveries."""
OBJECTS, OBJECTS_OF_ORDER = 80, 120
"""The program's objects at rest; an order adds so many, and leaves a few for each node."""
LIBRARIES = 700
"""The objects of libraries at rest, ITH's end of the link included."""
BUFFERED_BYTES = 4 << 20
HEARD_BYTES = 8 << 20
"""The most that is taken on one connection: an association that ends reads on for a while."""

_PROGRAM: ContextVar[object] = ContextVar("program", default=None)
"""Which program a task belongs to: tasks hand it on to those that they start."""


class Population(trio.abc.Instrument):
    """Counts the living tasks of the program that runs; ``most`` is the most there ever were."""

    def __init__(self) -> None:
        self.living = 0
        self.most = 0
        self._program: object = None

    @contextmanager
    def of_program(self) -> Iterator[None]:
        """Count the tasks that this task starts in the block, and theirs, and no others."""
        self._program, self.living = object(), 0
        token = _PROGRAM.set(self._program)
        try:
            yield
        finally:
            _PROGRAM.reset(token)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Count a task of the program."""
        if self._program and task.context.get(_PROGRAM) is self._program:
            self.living += 1
            self.most = max(self.most, self.living)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Count it no longer."""
        if self._program and task.context.get(_PROGRAM) is self._program:
            self.living -= 1


def open_files(directory: Path) -> list[str]:
    """Return the files below a directory that this process has open, once for each descriptor.

    Paths are relative to the directory, in order. Without procfs there are none.
    """
    if not DESCRIPTORS.exists():
        return []
    found = []
    for descriptor in DESCRIPTORS.iterdir():
        with suppress(OSError):
            found.append(str(descriptor.readlink()))
    below = f"{directory}{os.sep}"
    return sorted(path.removeprefix(below) for path in found if path.startswith(below))


@cache
def freeze() -> None:
    """Leave what this process has by now, modules above all, out of every count and collection."""
    gc.collect()
    gc.freeze()


class Memory(NamedTuple):
    """What a process has come to hold since :func:`freeze`."""

    objects: Counter[str]
    """The living objects of the program's classes and of its libraries', by class."""
    buffered: int
    """The bytes in buffers of more than ``LEAST_BYTES``, but for those of the world itself."""

    @property
    def ours(self) -> int:
        """The number of the program's objects."""
        return sum(n for kind, n in self.objects.items() if kind.startswith("proxy."))

    @property
    def libraries(self) -> int:
        """The number of its libraries' objects."""
        return self.objects.total() - self.ours


def memory() -> Memory:
    """Count what is in memory; what is waste is collected before."""
    gc.collect()
    living = [each for each in gc.get_objects() if not _is_of_world(type(each))]
    kinds = Counter(map(type, living))
    counted = {kind: n for kind, n in kinds.items() if kind.__module__.startswith(COUNTED)}
    buffers = {
        id(held): len(held)
        for held in gc.get_referents(*living)
        if type(held) in BUFFERS and len(held) > LEAST_BYTES
    }
    return Memory(
        Counter({f"{kind.__module__}.{kind.__qualname__}": n for kind, n in counted.items()}),
        sum(buffers.values()),
    )


def _is_of_world(kind: type) -> bool:
    """Whether the objects of a class are no part of the program."""
    return kind.__module__.startswith(OTHERS)


class Bounds:
    """Says of what the program holds more than its settings and its work explain."""

    def __init__(self, population: Population, internet: Internet) -> None:
        self._population = population
        self._internet = internet

    def after_its_end(self, directory: Path) -> Iterator[str]:
        """Yield what a program that has ended left open."""
        for to, ends in self._internet.ends.items():
            if ends:
                yield f"the program ended, and {len(ends)} connections to {to} are open"
        if files := open_files(directory):
            yield f"the program ended, and these files are open: {', '.join(files)}"

    def at_rest(self, directory: Path, orders: int, *, is_weighed: bool) -> Iterator[str]:
        """Yield one thing that is more than a program may hold that has nothing left to do.

        Memory is looked at in worlds that are to be weighed alone, since that takes time.
        """
        most = TASKS + TASKS_OF_NODE * len(NODES)
        if self._population.living > most:
            yield f"{self._population.living} tasks at rest, where {most} are enough"
            return
        for to, ends in self._internet.ends.items():
            if len(ends) > (to == ITH):
                yield f"{len(ends)} connections to {to} at rest"
                return
        files = [file for file in open_files(directory) if not file.startswith("ledger.db")]
        if files:
            yield f"these files are open at rest: {', '.join(files)}"
            return
        if staged := files_in(directory / STAGING):
            yield f"{len(staged)} files are left in staging at rest"
            return
        if len(self._internet.listeners) > LISTENERS:
            yield f"{len(self._internet.listeners) - LISTENERS} listeners of the program"
            return
        if is_weighed:
            yield from self._memory(OBJECTS + orders * (1 + len(NODES)), LIBRARIES)

    def at_work(self, orders: int) -> Iterator[str]:
        """Yield what is more than a program may hold with so many orders."""
        yield from self._memory(OBJECTS + orders * OBJECTS_OF_ORDER, LIBRARIES * (1 + orders))

    def _memory(self, ours: int, libraries: int) -> Iterator[str]:
        held = memory()
        kinds = ", ".join(f"{count} {kind}" for kind, count in held.objects.most_common(5))
        if held.ours > ours:
            yield f"{held.ours} objects of the program, where {ours} are enough: {kinds}"
        if held.libraries > libraries:
            yield f"{held.libraries} objects of libraries, where {libraries} are enough: {kinds}"
        if held.buffered > BUFFERED_BYTES:
            yield f"{held.buffered} bytes in buffers"

    def ever(self, orders: int, associations: int, downloads: int) -> Iterator[str]:
        """Yield of what there was too much at one time or another."""
        most = TASKS + TASKS_OF_NODE * len(NODES) + TASKS_OF_CHANCE
        most += orders * (TASKS_OF_ORDER + TASKS_OF_DELIVERY * len(NODES))
        if self._population.most > most:
            yield f"{self._population.most} tasks at one time, where {most} are enough"
        for to, ends in sorted(self._internet.most_ends.items()):
            most = associations + PROBES if to != ITH else LINKS + QUESTIONS + downloads + 1
            if ends > most:
                yield f"{ends} connections to {to} at one time, where {most} are enough"
        for to, heard in sorted(self._internet.most_heard.items()):
            if heard > HEARD_BYTES:
                yield f"{heard} bytes were taken on one connection to {to} (P7)"
