from __future__ import annotations

from typing import Literal

import msgspec
import pytest
import trio
from trio.testing import MockClock

from proxy.fsm import Event
from tests.support.machine_suite import example, running
from tests.support.sample import (
    FERRY,
    HOME,
    MOORED,
    SAILING,
    SUNK,
    TURNING,
    Called,
    Loaded,
    Log,
    State,
)

pytestmark = pytest.mark.pure


class Inner(msgspec.Struct, frozen=True):
    name: str


class Rich(Event, frozen=True):
    text: str
    count: int
    share: float
    flag: bool
    data: bytes
    state: State
    inner: Inner
    names: tuple[str, ...]
    either: str | None
    word: Literal["a", "b"]
    left_out: int = 7


class Odd(Event, frozen=True):
    error: Exception


def test_an_example_has_a_value_of_each_type() -> None:
    assert example(Rich) == Rich(
        text="1",
        count=1,
        share=1.0,
        flag=True,
        data=b"1",
        state=MOORED,
        inner=Inner("1"),
        names=(),
        either="1",
        word="a",
    )


def test_what_cannot_be_guessed_is_asked_for() -> None:
    with pytest.raises(TypeError, match="give make_event"):
        example(Odd)


@pytest.mark.parametrize("state", list(State))
async def test_a_run_is_brought_to_any_state(state: State, autojump_clock: MockClock) -> None:
    async with running(FERRY, Log(), state) as bench:
        assert bench.run.state is state
        assert bench.outputs == []


async def test_a_run_is_told_timed_and_failed(autojump_clock: MockClock) -> None:
    async with running(FERRY, Log(), TURNING) as bench:
        assert bench.run.data == Log(cars=1)
        await trio.sleep(5.5)
        assert bench.run.state is MOORED
        bench.run.tell(Loaded(9))
        assert bench.outputs == ["horn", "9 cars"]
        await bench.fail()
        assert bench.run.state is SUNK
        assert [type(fault) for fault in bench.faults] == [RuntimeError]


async def test_a_run_on_the_bench_ends_with_the_test(autojump_clock: MockClock) -> None:
    async with running(FERRY, Log(), SAILING):
        pass
    async with running(FERRY, Log(), MOORED) as bench:
        bench.run.tell(Called())
        await bench.run.until(HOME)
