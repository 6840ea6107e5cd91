"""The steps of a machine's test: one event, and all its effects."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from trio.testing import wait_all_tasks_blocked

from proxy.fsm import Event
from tests.support.machine_suite import Bench

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output


def told(bench: Bench[S, D, O], event: Event) -> tuple[S, D, list[O]]:
    """Tell one event; return the state and the data after it, and what was put out for it."""
    bench.outputs.clear()
    bench.run.tell(event)
    return now(bench)


def now(bench: Bench[S, D, O]) -> tuple[S, D, list[O]]:
    """Return the state, the data and the outputs since the last event."""
    return bench.run.state, bench.run.data, bench.outputs[:]


def untouched(bench: Bench[S, D, O], event: Event) -> bool:
    """Tell one event; return whether it left everything as it was."""
    state, data = bench.run.state, bench.run.data
    return told(bench, event) == (state, data, [])


async def failed(bench: Bench[S, D, O]) -> tuple[S, D, list[O]]:
    """Let the activity fail; return what became of it."""
    await wait_all_tasks_blocked()
    bench.outputs.clear()
    await bench.fail()
    return now(bench)


def names(words: str) -> set[str]:
    """Read a list of states, typed by hand."""
    return {*words.split()}
