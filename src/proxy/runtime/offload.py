"""The seam for calls that block: files, SQLite, unpacking, name look-up.

Every call that blocks goes through :class:`Offload`, so that a simulation on a virtual clock can
run it inline: a mock clock's autojump does not wait for threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")


class Offload(Protocol):
    """Runs a blocking function without blocking trio."""

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``function`` returns; the call is not abandoned when cancelled."""
        ...

    def check_cancelled(self) -> None:
        """Let ``function``, which calls this, hear of a cancellation.

        Raises :class:`trio.Cancelled`.
        """
        ...


class Threads:
    """Runs blocking functions in worker threads, at most ``limit`` at a time."""

    def __init__(self, limit: int) -> None:
        self._limiter = trio.CapacityLimiter(limit)

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``function`` returns; the call is not abandoned when cancelled."""
        return await trio.to_thread.run_sync(
            lambda: function(*args, **kwargs), limiter=self._limiter
        )

    def check_cancelled(self) -> None:
        """Raise :class:`trio.Cancelled` if the call that this thread works for was cancelled."""
        trio.from_thread.check_cancelled()


class Inline:
    """Runs blocking functions in the calling task, for simulations on a virtual clock."""

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what ``function`` returns, after one checkpoint as a thread would have."""
        await trio.lowlevel.checkpoint()
        return function(*args, **kwargs)

    def check_cancelled(self) -> None:
        """Do nothing: no task runs beside the function, so none can cancel it meanwhile."""
