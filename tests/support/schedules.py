"""Run a scenario on a virtual clock: under many schedules, or cancelled at each of its steps.

A scenario is an async function without arguments that builds all it uses; a plain (not async) test
calls these functions. Nothing here is random: the same test takes the same steps every time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from trio.testing import MockClock

from proxy.simulation.schedule import shuffled

T = TypeVar("T")


def in_every_order(scenario: Callable[[], Awaitable[T]], schedules: int = 60) -> Counter[T]:
    """Count what the scenario returns under differently shuffled orders of ready tasks."""
    results: Counter[T] = Counter()
    for seed in range(schedules):
        with shuffled(seed):
            results[trio.run(scenario, clock=MockClock(autojump_threshold=0))] += 1
    return results


def cancelled_at_every_step(
    scenario: Callable[[], Awaitable[object]], check: Callable[[], None]
) -> int:
    """Cancel the scenario at its first task step, at its second, … and check after each run.

    Returns at how many steps it was cancelled: all there are.
    """
    step = 0
    while True:
        step += 1
        knife = _CancelAtStep(step)
        with shuffled(step):
            trio.run(
                knife.run, scenario, clock=MockClock(autojump_threshold=0), instruments=[knife]
            )
        check()
        if not knife.fired:
            return step - 1


class _CancelAtStep(trio.abc.Instrument):
    def __init__(self, step: int) -> None:
        self.fired = False
        self._left = step
        self._scope = trio.CancelScope()
        self._root: trio.lowlevel.Task | None = None

    async def run(self, scenario: Callable[[], Awaitable[object]]) -> None:
        self._root = trio.lowlevel.current_task()
        with self._scope:
            await scenario()
        self._root = None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._root and not self.fired and self._is_ours(task):
            self._left -= 1
            if not self._left:
                self.fired = True
                self._scope.cancel("the test cancels at this step")

    def _is_ours(self, task: trio.lowlevel.Task | None) -> bool:
        while task and task is not self._root:
            task = task.parent_nursery.parent_task if task.parent_nursery else None
        return task is not None
