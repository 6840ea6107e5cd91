"""The order in which trio runs the tasks that are ready, decided by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trio._core import _run


@contextmanager
def shuffled(seed: int) -> Iterator[None]:
    """Let trio shuffle its ready tasks by ``seed``; there is no public way to ask for that."""
    before, state = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()  # noqa: SLF001
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001
    _run._r.seed(seed)  # noqa: SLF001
    try:
        yield
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]  # noqa: SLF001
        _run._r.setstate(state)  # noqa: SLF001
