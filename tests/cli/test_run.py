from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from proxy.cli.exits import Exit

KEY = "pk_canary+/="


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_a_run_logs_json_hides_the_key_and_ends_well_on_sigterm(tmp_path: Path) -> None:
    state = tmp_path / "state"
    environ = {
        "PATH": os.environ["PATH"],
        "ITH_URL": f"http://127.0.0.1:{closed_port()}",
        "ITH_TOKEN": KEY,
    }
    command = [sys.executable, "-m", "proxy", "run", "-v", "--state-dir", str(state)]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as daemon:
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
