"""Time our sending side beside DCMTK's dcmsend and pynetdicom, against the same receivers.

    python benchmarks/store.py [--slices 300] [--rounds 5] [--receiver NAME …]

Each round sends the same CT slices of 512 x 512 to each receiver with each sender in turn, as
whole processes, so that whatever else the machine does hits all of them. What is printed is
ratios of medians: seconds mean little on a shared machine, ratios hold. Exit code 1 if a bound is
not kept.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.support import peers, tools  # noqa: E402 - of this checkout, which is no package

SENDERS = HERE / "senders"
MEMORY_LIMIT_MIB = 60
"""Peak of our sender's process."""

NODELAY = {"TCP_NODELAY": "1"}
"""What makes DCMTK's programs switch Nagle's algorithm off."""


@dataclass(frozen=True)
class Receiver:
    """A node to send to; ``bound`` is the least ratio of dcmsend's time to ours."""

    start: Callable[[Path], AbstractContextManager[peers.Node]]
    bound: float


@dataclass
class Samples:
    """What one sender took to one receiver: seconds, and the peak of its memory in MiB."""

    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


RECEIVERS = {
    "storescp, stock": Receiver(lambda where: peers.storescp(where, "--ignore"), 8.0),
    "Orthanc, stock": Receiver(lambda where: peers.orthanc(where, OVERWRITE), 4.0),
    "storescp, TCP_NODELAY=1": Receiver(
        lambda where: peers.storescp(where, "--ignore", env=NODELAY), 1.0
    ),
}
OVERWRITE = {"OverwriteInstances": True}


def commands(node: peers.Node, directory: Path) -> Iterator[tuple[str, list[str]]]:
    """The senders and how each is called."""
    port, title, files = str(node.port), node.ae_title, str(directory)
    yield "ours", [sys.executable, str(SENDERS / "ours.py"), port, title, files]
    dcmsend = tools.find("dcmsend") or sys.exit(tools.how_to_install("dcmsend"))
    yield "dcmsend", [dcmsend, "-q", "-aec", title, "+sd", node.host, port, files]
    yield "pynetdicom", [sys.executable, str(SENDERS / "peer.py"), port, title, files]


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds and its peak memory in MiB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]} failed with exit code {process.returncode}")
    return seconds, usage.ru_maxrss / 1024


def main() -> int:
    """Measure, print, and say whether the bounds are kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--receiver", action="append", choices=RECEIVERS)
    options = parser.parse_args()
    chosen = options.receiver or list(RECEIVERS)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        root = Path(name)
        files = root / "files"
        # A process of its own: the peak of a child counts from the size of who starts it.
        make = [sys.executable, str(HERE / "slices.py"), str(files), str(options.slices)]
        subprocess.run(make, check=True)
        kept = True
        for label in chosen:
            with ExitStack() as stack:
                node = stack.enter_context(RECEIVERS[label].start(root / label.split(",")[0]))
                results = compare(node, files, options.rounds)
            kept &= tell(label, results, RECEIVERS[label].bound)
    return 0 if kept else 1


def compare(node: peers.Node, files: Path, rounds: int) -> dict[str, Samples]:
    """Let the senders take turns, after one round each that is not counted."""
    results: dict[str, Samples] = {}
    for turn in range(rounds + 1):
        for sender, command in commands(node, files):
            seconds, memory = measure(command)
            if turn:
                samples = results.setdefault(sender, Samples())
                samples.seconds.append(seconds)
                samples.memory.append(memory)
    return results


def tell(label: str, results: dict[str, Samples], bound: float) -> bool:
    """Print one receiver's table; return whether the bounds are kept."""
    ours = results["ours"]
    own = statistics.median(ours.seconds)
    print(f"\n{label}")
    for sender, samples in results.items():
        median = statistics.median(samples.seconds)
        print(
            f"  {sender:11} {median:7.2f} s   {median / own:6.2f} x ours"
            f"   peak {max(samples.memory):4.0f} MiB"
        )
    ratio = statistics.median(results["dcmsend"].seconds) / own
    fast, small = ratio >= bound, max(ours.memory) < MEMORY_LIMIT_MIB
    print(
        f"  dcmsend takes {ratio:.2f} x our time; wanted {bound:g}: {'kept' if fast else 'MISSED'}"
    )
    print(f"  our peak is under {MEMORY_LIMIT_MIB} MiB: {'kept' if small else 'MISSED'}")
    return fast and small


if __name__ == "__main__":
    sys.exit(main())
