"""The demonstration: the real proxy passes, and each misbehaviour is found."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
from rich.console import Console
from trio.testing import MockClock

from proxy.cli import main
from proxy.demo.run import Plan, demonstrate
from proxy.demo.show import Bars, Lines, Show
from proxy.service import serve
from tests.support.waiting import PATIENCE_S

from .small_proxy import SmallProxy

PLAN = Plan(seed=5, slices=6, size=32)


@pytest.fixture(autouse=True)
def nothing_stays_behind(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(directory))  # short: a socket's path is limited
    yield
    assert [*directory.iterdir()] == []


async def test_the_proxy_does_right() -> None:
    with trio.fail_after(PATIENCE_S):
        verdict = await demonstrate(PLAN, serve, Show())
    assert verdict.problems == ()
    assert [node.rejections for node in verdict.nodes] == [0, 1]
    assert all(node.words[-1] == "completed" for node in verdict.nodes)
    assert verdict.words[-1] == "completed"


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--json", "--slices", "3", "--seed", "7"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["schema"] == "ith-proxy/demo/1"
    assert outcome["ok"] is True
    assert outcome["seed"] == 7
    assert [node["instances"] for node in outcome["nodes"]] == [3, 3]
    assert all(node["intact"] for node in outcome["nodes"])


def test_the_command_prints_plain_lines_off_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["demo", "--slices", "3"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "PLANNING: rejected an association" in out
    assert "byte for byte" in out


def test_ctrl_c_ends_it_without_a_traceback(directory: Path) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-u", "-m", "proxy", "demo", "--slices", "250"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(directory)},
        # Tests that run in the background ignore SIGINT, and the program would inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert demo.stdout
    while "downloading" not in demo.stdout.readline():
        assert demo.poll() is None
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("proxy", "problems"),
    [
        (SmallProxy(), set()),
        (
            SmallProxy(loses=1),
            {"READROOM holds 5 of 6 instances", "PLANNING holds 5 of 6 instances"},
        ),
        (
            SmallProxy(tampers=True),
            {
                "READROOM holds other bytes than were sent",
                "PLANNING holds other bytes than were sent",
            },
        ),
        (
            SmallProxy(goes_on=True),
            {
                "READROOM got another status after the final one",
                "PLANNING got another status after the final one",
            },
        ),
        (SmallProxy(miscounts=1), {"the dispatch was reported with other counts than 12 of 12"}),
        (
            SmallProxy(progress=(30, 0)),
            {"the progress of READROOM went backwards", "the progress of PLANNING went backwards"},
        ),
        (
            SmallProxy(last_word="failed"),
            {
                "READROOM was reported as failed",
                "PLANNING was reported as failed",
                "the dispatch was reported as failed",
            },
        ),
    ],
)
async def test_whoever_does_wrong_is_found_out(proxy: SmallProxy, problems: set[str]) -> None:
    with trio.fail_after(PATIENCE_S):
        verdict = await demonstrate(PLAN, proxy, Show())
    assert {*verdict.problems} == problems
    assert verdict.to_dict()["ok"] is (not problems)


@pytest.mark.parametrize(
    ("proxy", "problems"),
    [
        (SmallProxy(connects=False), {"the proxy did not connect"}),
        (SmallProxy(closes=False), {"no final status came for the dispatch"}),
        (
            SmallProxy(reports=False),
            {"no final status came for READROOM", "no final status came for PLANNING"},
        ),
    ],
)
async def test_who_never_reports_is_given_up(
    proxy: SmallProxy, problems: set[str], mock_clock: MockClock
) -> None:
    mock_clock.rate = 1.0
    plan = Plan(slices=3, size=16, limit_s=PATIENCE_S)
    proxy = replace(proxy, at_the_end=lambda: mock_clock.jump(PATIENCE_S))
    with trio.fail_after(2 * PATIENCE_S):
        verdict = await demonstrate(plan, proxy, Show())
    assert {*verdict.problems} == problems


async def test_a_fault_of_the_proxy_is_not_hidden() -> None:
    async def faulty(_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("on purpose")

    with trio.fail_after(PATIENCE_S), pytest.RaisesGroup(ValueError, flatten_subgroups=True):
        await demonstrate(PLAN, faulty, Show())


async def test_bars_are_drawn_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with trio.fail_after(PATIENCE_S):
        await demonstrate(PLAN, SmallProxy(), Bars(console))
    assert isinstance(console.file, io.StringIO)
    drawn = console.file.getvalue()
    assert "6/6" in drawn
    assert "1 association rejected" in drawn
    assert "completed" in drawn


async def test_lines_tell_each_thing_once() -> None:
    console = Console(file=io.StringIO(), width=100)
    with trio.fail_after(PATIENCE_S):
        await demonstrate(PLAN, SmallProxy(loses=6), Lines(console))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert sum("READROOM: reported to ITH: completed" in line for line in lines) == 1
    assert any("✘ READROOM holds 0 of 6 instances" in line for line in lines)
