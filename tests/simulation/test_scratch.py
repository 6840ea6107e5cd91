from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.simulation import scratch
from proxy.simulation.scratch import scratch_directory, sweep

KILLED = """
import os, signal
from proxy.simulation.scratch import scratch_directory
with scratch_directory() as directory:
    (directory / "file").touch()
    print(directory, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scratch, "_place", lambda: tmp_path)
    return tmp_path


def test_a_directory_is_empty_and_removed_with_what_was_made_in_it(place: Path) -> None:
    with scratch_directory() as directory:
        assert directory.parent == place
        assert list(directory.iterdir()) == []
        (directory / "file").touch()
    assert list(place.iterdir()) == []


def test_one_in_use_stays(place: Path) -> None:
    with scratch_directory() as directory:
        sweep(place)
        assert directory.exists()


def test_what_a_killed_process_left_is_removed() -> None:
    command = [sys.executable, "-c", KILLED]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    left = Path(done.stdout.strip())
    assert (left / "file").exists()
    sweep(left.parent)
    assert not left.exists()


def test_what_is_not_ours_stays(place: Path) -> None:
    (place / "other").mkdir()
    sweep(place)
    assert (place / "other").exists()
