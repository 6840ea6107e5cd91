"""Real DICOM nodes as programs of their own: Debian's storescp, dcmqrscp and Orthanc.

    with storescp(tmp_path, "+B") as node:
        ...  # node.port, node.ae_title, node.directory

Each waits until its node listens and ends it afterwards. Mark tests with
``@pytest.mark.needs("storescp")`` and the like.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support import tools

HOST = "127.0.0.1"
PORTS = range(16384, 32768)
CHANCE = random.SystemRandom()
"""Not seeded, as the chance of the tests is: two processes must not draw the same."""
START_SECONDS = 20
END_SECONDS = 5


@dataclass(frozen=True)
class Node:
    """A node that listens; ``directory`` is where it stores, ``log`` what it printed so far."""

    port: int
    ae_title: str
    directory: Path
    log_file: Path
    pid: int
    http_port: int = 0
    host: str = HOST

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def stored(self) -> list[Path]:
        """The files in the node's directory."""
        return sorted(path for path in self.directory.rglob("*") if path.is_file())


def free_port() -> int:
    """Return a port that nobody listened on a moment ago.

    It is below those that the kernel gives to connections, and by chance: tests run side by side
    in several processes, and a port that is only probed may be given away before it is used.
    """
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, CHANCE.choice(PORTS)))
            return int(probe.getsockname()[1])


@contextmanager
def storescp(
    directory: Path, *options: str, ae_title: str = "STORESCP", env: Mapping[str, str] | None = None
) -> Iterator[Node]:
    """DCMTK's storescp: ``+B`` stores the bytes as they came, ``--ignore`` stores nothing."""
    stored = _new(directory / "storescp")
    port = free_port()
    command = ["storescp", "-aet", ae_title, *options]
    command += [] if "--ignore" in options else ["-od", str(stored)]
    with _running([*command, str(port)], directory, port, env or {}) as (pid, log):
        yield Node(port, ae_title, stored, log, pid)


@contextmanager
def dcmqrscp(
    directory: Path, *options: str, ae_title: str = "QRSCP", also: Sequence[str] = ()
) -> Iterator[Node]:
    """DCMTK's dcmqrscp, a small archive that answers C-FIND too.

    It is called by its AE title, or by those in ``also``: each stores in a directory of its name.
    """
    stored = _new(directory / "dcmqrscp")
    port = free_port()
    areas = [(ae_title, stored), *((title, _new(directory / title)) for title in also)]
    table = "".join(f"{title} {area} RW (200, 1024mb) ANY\n" for title, area in areas)
    config = directory / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{table}AETable END\n"
    )
    command = ["dcmqrscp", "-c", str(config), *options]
    with _running(command, directory, port, {}) as (pid, log):
        yield Node(port, ae_title, stored, log, pid)


@contextmanager
def orthanc(
    directory: Path, settings: Mapping[str, object] | None = None, ae_title: str = "ORTHANC"
) -> Iterator[Node]:
    """Orthanc, with its REST interface on ``http_port``; ``settings`` go over ours."""
    stored = _new(directory / "orthanc")
    port, http_port = free_port(), free_port()
    config = {
        "Name": ae_title,
        "StorageDirectory": str(stored),
        "IndexDirectory": str(stored),
        "DicomAet": ae_title,
        "DicomPort": port,
        "HttpPort": http_port,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowFind": True,
        "Plugins": [],
        **(settings or {}),
    }
    config_file = directory / "orthanc.json"
    config_file.write_text(json.dumps(config))
    with _running(["orthanc", str(config_file)], directory, port, {}) as (pid, log):
        _wait_until_listening(http_port)
        yield Node(port, ae_title, stored, log, pid, http_port)


def _new(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextmanager
def _running(
    command: list[str], directory: Path, port: int, env: Mapping[str, str]
) -> Iterator[tuple[int, Path]]:
    """Run a program until the end of the block; it must listen on ``port``."""
    program = tools.find(command[0])
    assert program is not None, tools.how_to_install(command[0])
    log = directory / f"{command[0]}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,
        )
    try:
        _wait_until_listening(port, process)
        yield process.pid, log
    finally:
        _end(process)


def _wait_until_listening(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_listening(port):
        assert process is None or process.poll() is None, "the node ended at once"
        assert time.monotonic() < deadline, "the node does not listen"
        time.sleep(0.02)


def _is_listening(port: int) -> bool:
    """Whether a socket listens, read from the kernel: a connection would be one to the node."""
    wanted = f":{port:04X}"
    lines = [line for name in ("tcp", "tcp6") for line in _sockets(name)]
    return any(line[1].endswith(wanted) and line[3] == "0A" for line in lines)


def _sockets(name: str) -> list[list[str]]:
    table = Path("/proc/net") / name
    return [line.split() for line in table.read_text().splitlines()[1:]] if table.exists() else []


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and the children it has forked."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(END_SECONDS)
        except ProcessLookupError:
            process.wait(END_SECONDS)
            return
        except subprocess.TimeoutExpired:
            continue
