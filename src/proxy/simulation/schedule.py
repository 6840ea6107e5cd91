"""What a world needs of trio and of libraries: their chance comes from a seed, and a clock."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from trio._core import _run
from trio.testing import MockClock

FOR_EVER_S = 1e9


@contextmanager
def shuffled(seed: int) -> Iterator[None]:
    """Let a seed decide how trio shuffles its ready tasks, and what libraries draw.

    There is no public way to ask trio for that. The libraries of the WebSocket take keys and masks
    from ``os.urandom``, the content of pings from ``random``, and all of them are bytes on a wire.
    """
    before, state = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()  # noqa: SLF001
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001
    _run._r.seed(seed)  # noqa: SLF001
    drawn = random.getstate()
    random.seed(seed)
    real, os.urandom = os.urandom, Random(f"urandom {seed}").randbytes
    try:
        yield
    finally:
        os.urandom = real
        random.setstate(drawn)
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]  # noqa: SLF001
        _run._r.setstate(state)  # noqa: SLF001


def world_clock() -> MockClock:
    """Return a clock that jumps to the next deadline whenever every task waits.

    It is trio's own, which trio asks for the time and for a jump some thousand times in a world.
    Here it answers from one number: trio's looks at the real clock as well, and at its statistics.
    """
    clock = MockClock(autojump_threshold=0)
    now = 0.0

    def current_time() -> float:
        return now

    def seconds_until(deadline: float) -> float:
        return 0.0 if deadline <= now else FOR_EVER_S

    def jump() -> None:
        nonlocal now
        deadline = _run.GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline()
        if now < deadline < math.inf:
            now = deadline

    clock.current_time = current_time  # type: ignore[method-assign]
    clock.deadline_to_sleep_time = seconds_until  # type: ignore[method-assign]
    clock._autojump = jump  # type: ignore[method-assign]  # noqa: SLF001
    return clock
