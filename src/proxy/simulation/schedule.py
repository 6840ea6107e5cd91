"""What else there is of chance in a process: trio's order of tasks, and what libraries draw."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from trio._core import _run


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
