"""dcmjs-dimse's SCP as a process: a node written in JavaScript, which no other test shares."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
import pytest

from tests.conftest import REQUIRE_TOOLS
from tests.support.peers import HOST, Node, free_port

VERSION = "0.3.3"
SCRIPT = Path(__file__).with_name("dcmjs_scp.js")
START_SECONDS = 20
INSTALL_SECONDS = 90


def install() -> Path:
    """Return the directory of dcmjs-dimse, installed into the user's cache the first time.

    Of the processes of a test run one installs, and the others wait for it.
    """
    home = Path(platformdirs.user_cache_dir("ith-proxy-tests"), f"dcmjs-dimse-{VERSION}")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _install(home)


def _install(home: Path) -> Path:
    modules = home / "node_modules"
    if not (modules / "dcmjs-dimse" / "package.json").exists():
        npm = shutil.which("npm")
        assert npm is not None
        command = [npm, "install", "--prefix", str(home), "--ignore-scripts", "--no-audit"]
        done = subprocess.run(
            [*command, f"dcmjs-dimse@{VERSION}"],
            capture_output=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            shutil.rmtree(modules, ignore_errors=True)
            leave = pytest.fail if os.environ.get(REQUIRE_TOOLS) == "1" else pytest.skip
            leave("npm cannot install dcmjs-dimse here: is there a registry?")
    return modules


@contextmanager
def dcmjs_scp(modules: Path, directory: Path) -> Iterator[Node]:
    """Run the SCP while the block lasts."""
    stored = directory / "dcmjs"
    stored.mkdir()
    port, log = free_port(), directory / "dcmjs.log"
    node = shutil.which("node")
    assert node is not None
    with log.open("wb") as output:
        process = subprocess.Popen(
            [node, str(SCRIPT), str(port), str(stored)],
            env={**os.environ, "NODE_PATH": str(modules)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _wait_until_listening(process, port)
        yield Node(port, "DCMJS", stored, log, process.pid)
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, "the node ended at once"
        assert time.monotonic() < deadline, "the node does not listen"
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
