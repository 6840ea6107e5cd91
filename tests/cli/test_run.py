from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from proxy.cli.exits import Exit
from tests.support.waiting import PATIENCE_S

KEY = "pk_canary+/="
RUN = [sys.executable, "-m", "proxy", "run", "-v", "--state-dir"]


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def environ() -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "ITH_URL": f"http://127.0.0.1:{closed_port()}",
        "ITH_TOKEN": KEY,
    }


def test_a_run_logs_json_hides_the_key_and_ends_well_on_sigterm(tmp_path: Path) -> None:
    state = tmp_path / "state"
    command = [*RUN, str(state)]
    with subprocess.Popen(command, env=environ(), stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr
        lines = []
        for line in daemon.stderr:
            lines.append(line)
            if json.loads(line)["event"] == "link.lost":
                daemon.send_signal(signal.SIGTERM)
                break
        lines += daemon.stderr.readlines()
    assert daemon.returncode == Exit.OK
    events = [json.loads(line)["event"] for line in lines]
    assert events[0] != events[-1] == "service.stopped"
    assert KEY not in "".join(lines)
    assert state.stat().st_mode & 0o777 == 0o700


def test_signals_are_caught_before_anything_that_takes_long_is_imported() -> None:
    heavy = "('trio', 'msgspec', 'platformdirs', 'proxy.logs', 'proxy.settings', 'proxy.service')"
    code = f"import proxy.cli.run, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The end to write to of a pipe that holds no more, and that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"\n" * 4096)
    os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"ITH_URL": "", "ITH_TOKEN": ""}, Exit.CONFIG),
        ({"ITH_PROXY__ITH__TOKEN_FILE": "key", "ITH_TOKEN": ""}, Exit.REFUSED),
        ({"STATE_DIRECTORY": "key/state"}, Exit.STATE_DIRECTORY),
        ({"STATE_DIRECTORY": "damaged"}, Exit.DISK),
    ],
)
def test_an_error_ends_it_where_nobody_reads_what_it_says(
    settings: dict[str, str], code: Exit, tmp_path: Path, full_pipe: int
) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o644)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "ledger.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    given = environ() | {"STATE_DIRECTORY": "state"} | settings
    command = RUN[:-1]
    done = subprocess.run(
        command, env=given, stderr=full_pipe, cwd=tmp_path, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == code


@pytest.mark.parametrize("closed", [[2], [0, 1, 2]])
def test_a_run_without_standard_files_works_and_has_none_of_its_own_in_their_place(
    closed: list[int], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    close = " ".join(f"{number}>&-" for number in closed)
    command = ["sh", "-c", f'exec "$0" "$@" {close}', *RUN, str(state)]
    with subprocess.Popen(command, env=environ()) as daemon:
        began = time.monotonic()
        while not (state / "control.sock").exists() and time.monotonic() - began < PATIENCE_S:
            time.sleep(0.01)
        files = [Path(f"/proc/{daemon.pid}/fd/{number}").readlink() for number in closed]
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(PATIENCE_S) == Exit.OK
    assert {*files} == {Path(os.devnull)}
