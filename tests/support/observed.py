"""What machines did, seen from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from proxy.fsm import Machine, Step
from proxy.runtime.runner import Run, observing


@contextmanager
def rows_taken(machine: Machine[Any, Any, Any] | None = None) -> Iterator[list[str]]:
    """Give the rows that runs made in the block take, in order: of one machine, or of all."""
    rows: list[str] = []

    def note(run: Run[Any, Any, Any], step: Step[Any, Any, Any]) -> None:
        if machine is None or run.machine is machine:
            rows.append(step.row)

    with observing(note):
        yield rows
