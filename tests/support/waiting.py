"""Waiting for what must happen: patient with a busy machine, and not for ever."""

from __future__ import annotations

from collections.abc import Callable

import trio

PATIENCE_S = 30.0
"""The seconds after which a wait has failed.

No promise of speed: "at once" is shown against a clock that runs for a minute or more.
"""


async def until(happened: Callable[[], object]) -> None:
    """Wait until a condition holds, be it of a task, a thread, a file or a program."""
    with trio.fail_after(PATIENCE_S):
        while not happened():  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.003)
