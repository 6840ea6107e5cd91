from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy import cli
from proxy.cli.exits import Exit
from proxy.simulation import checker


@pytest.fixture(autouse=True)
def present_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer of a node counts as a success, so every report of one is wrong."""
    monkeypatch.setattr(checker, "SUCCESS", ())


def sim(*arguments: str) -> tuple[int, str]:
    done: Result = CliRunner().invoke(cli.group, ["sim", *arguments], standalone_mode=False)
    assert done.exception is None, done.exception
    assert all(len(line) <= 80 for line in done.output.splitlines())
    return done.return_value, done.output


def test_one_world_is_told_in_a_few_lines(present_directory: Path) -> None:
    code, output = sim("--seed", "12")
    assert code == Exit.OK
    lines = output.splitlines()
    assert lines[0] == "World of seed 12, 3 incidents:"
    assert len([line for line in lines if " s  ITH orders " in line]) == 3
    assert re.fullmatch(r"Reports that ended: \d+ completed\.", lines[-2])
    assert lines[-1] == "Nothing is wrong."
    assert not [*present_directory.iterdir()]


def test_a_sound_world_is_drawn_on_request(present_directory: Path) -> None:
    code, output = sim("--seed", "12", "--page", "of-12.html")
    assert code == Exit.OK
    assert output.splitlines()[-1] == "Page: of-12.html"
    assert "World of seed 12" in (present_directory / "of-12.html").read_text("utf-8")


@pytest.mark.usefixtures("no_success")
def test_a_world_that_failed_is_shrunk_and_drawn(present_directory: Path) -> None:
    code, output = sim("--seed", "12")
    assert code == Exit.NEGATIVE
    assert "but the nodes have confirmed 0 " in output
    assert re.search(
        r"^1 of its 3 incidents are enough, as \d+ runs have shown:$", output, re.MULTILINE
    )
    assert output.splitlines()[-4:] == [
        "Page: ith-proxy-sim-12.html",
        "Scenario: ith-proxy-sim-12.json",
        "Replay: ith-proxy sim --seed 12",
        "Replay of the smaller world: ith-proxy sim --scenario ith-proxy-sim-12.json",
    ]
    page = (present_directory / "ith-proxy-sim-12.html").read_text("utf-8")
    assert "1 of 3 are enough" in page
    assert "but the nodes have confirmed 0 " in page


@pytest.mark.usefixtures("no_success")
def test_the_smaller_world_is_run_again_from_its_file() -> None:
    sim("--seed", "12")
    code, output = sim("--scenario", "ith-proxy-sim-12.json", "--page", "again.html")
    assert code == Exit.NEGATIVE
    assert output.splitlines()[0] == "World of seed 12, 1 incidents:"
    assert "but the nodes have confirmed 0 " in output


def test_a_world_with_an_aim_says_so() -> None:
    code, output = sim("--seed", "12", "--aim", "CON-16")
    assert code == Exit.OK
    assert re.match(r"World of seed 12, aimed at CON-16, \d+ incidents:\n", output)


def test_an_aim_or_a_file_that_is_none_is_refused(present_directory: Path) -> None:
    done = CliRunner().invoke(cli.group, ["sim", "--aim", "CON-99"])
    assert done.exit_code == Exit.USAGE
    assert "'CON-99' is neither a row" in done.output
    (present_directory / "empty.json").write_text("{}")
    done = CliRunner().invoke(cli.group, ["sim", "--scenario", "empty.json"])
    assert done.exit_code != Exit.OK
    assert "no scenario of this version" in done.output


@pytest.mark.usefixtures("no_success")
def test_a_failure_is_kept_as_it_is_on_request(present_directory: Path) -> None:
    code, output = sim("--seed", "12", "--no-shrink", "--page", "whole.html")
    assert code == Exit.NEGATIVE
    assert "are enough" not in output
    assert "are enough" not in (present_directory / "whole.html").read_text("utf-8")


def test_a_page_that_cannot_be_written_is_named() -> None:
    done = CliRunner().invoke(cli.group, ["sim", "--seed", "12", "--page", "no/such/page.html"])
    assert done.exit_code != 0
    assert "no/such/page.html" in done.output


def test_many_worlds_end_with_the_table(present_directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "sim", "--seed", "99", "--seeds", "3"],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (Exit.OK, "")
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    figures = {line[:48].strip(): line[48:].split() for line in lines}
    assert figures["worlds"] == ["3"]
    assert figures["worlds that failed"] == ["0"]
    assert figures["run twice"] == ["1"]
    assert figures["run twice, and differed"] == ["0"]
    assert figures["rows taken"][1] == "of"
    assert not [*present_directory.iterdir()]
