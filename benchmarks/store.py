"""Time our sending side beside DCMTK's and pynetdicom's, against the same receivers.

    python benchmarks/store.py [--slices 300] [--rounds 5] [--receiver NAME …]

Each round sends the same CT slices of 512 x 512 to each receiver with each sender in turn, as
complete processes, so that other work of the machine affects all of them. The others send as they
are installed, and at their best: with the settings of their own that were found to make them
fastest. What is printed is medians over the rounds, of seconds and of ratios to our time in the
same round: seconds mean little on a shared machine, ratios hold. Exit code 1 if a bound is not
kept.

Before each run the same command runs against a receiver that rejects every association: that is
its start-up, from reading what it has to know of the files to the end of the process. Sending
alone is the whole process less the median of these, for all senders alike.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.support import peers, tools  # noqa: E402 - of this checkout, which is no package

MEMORY_LIMIT_MIB = 60
"""Peak of our sender's process."""

NO_DELAY = {"TCP_NODELAY": "1"}
"""The variable that makes DCMTK's programs switch Nagle's algorithm off."""

DCMTK_BEST = {**NO_DELAY, "TCP_BUFFER_LENGTH": "262144"}
"""Their fastest settings. The longest PDU the receiver takes is their default."""

OVERWRITE = {"OverwriteInstances": True}
OURS = "ours"


@dataclass(frozen=True)
class Receiver:
    """A node to send to; ``bound`` is the least ratio of dcmsend's time to ours, as installed."""

    start: Callable[[Path], AbstractContextManager[peers.Node]]
    bound: float | None


@dataclass(frozen=True)
class Sender:
    """The command of a sender for a node and a directory, and its environment."""

    command: Callable[[peers.Node, Path], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Samples:
    """The cost of one sender at one receiver: seconds, and the peak of its memory in MiB."""

    whole: list[float] = field(default_factory=list)
    start_up: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    @property
    def alone(self) -> list[float]:
        """The seconds without the start-up."""
        start_up = median(self.start_up)
        return [seconds - start_up for seconds in self.whole]


@contextmanager
def sink(*options: str) -> Iterator[peers.Node]:
    """Run a receiver of ours that discards, or rejects."""
    with socket.create_server((peers.HOST, 0)) as listener:
        command = [sys.executable, str(HERE / "sink.py"), str(listener.fileno()), *options]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])
        try:
            yield peers.Node(listener.getsockname()[1], "SINK", HERE, Path(os.devnull), process.pid)
        finally:
            process.kill()
            process.wait()


def script(name: str, *options: str) -> Callable[[peers.Node, Path], list[str]]:
    """One of the programs in ``senders``."""
    program = [sys.executable, str(HERE / "senders" / name)]
    return lambda node, files: [*program, str(node.port), node.ae_title, str(files), *options]


def dcmtk(name: str, *options: str) -> Callable[[peers.Node, Path], list[str]]:
    """One of DCMTK's programs."""

    def command(node: peers.Node, files: Path) -> list[str]:
        program = tools.find(name) or sys.exit(tools.how_to_install(name))
        whom = ["-aec", node.ae_title, node.host, str(node.port)]
        return [program, "-q", "+sd", *options, *whom, str(files)]

    return command


RECEIVERS = {
    "storescp, stock": Receiver(lambda where: peers.storescp(where, "--ignore"), 8.0),
    "Orthanc, stock": Receiver(lambda where: peers.orthanc(where, OVERWRITE), 4.0),
    "storescp, TCP_NODELAY=1": Receiver(
        lambda where: peers.storescp(where, "--ignore", env=NO_DELAY), 1.0
    ),
    "sink": Receiver(lambda _: sink(), None),
}

SENDERS = {
    OURS: Sender(script("ours.py")),
    "ours, SHA-256 not checked": Sender(script("ours.py", "unchecked")),
    "dcmsend": Sender(dcmtk("dcmsend")),
    "dcmsend at its best": Sender(dcmtk("dcmsend", "--no-uid-checks"), DCMTK_BEST),
    "storescu": Sender(dcmtk("storescu")),
    "storescu at its best": Sender(dcmtk("storescu"), DCMTK_BEST),
    "pynetdicom": Sender(script("peer.py")),
    "pynetdicom at its best": Sender(script("peer.py", "best")),
}


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
                unwilling = stack.enter_context(sink("reject"))
                results = compare(node, unwilling, files, options.rounds)
            kept &= tell(label, results, RECEIVERS[label].bound)
    return 0 if kept else 1


def compare(
    node: peers.Node, unwilling: peers.Node, files: Path, rounds: int
) -> dict[str, Samples]:
    """Let the senders take turns, after one round each that is not counted."""
    results = {name: Samples() for name in SENDERS}
    for turn in range(rounds + 1):
        for name, sender in SENDERS.items():
            start_up, _ = measure(sender, unwilling, files, succeeds=False)
            seconds, memory = measure(sender, node, files)
            if turn:
                results[name].start_up.append(start_up)
                results[name].whole.append(seconds)
                results[name].memory.append(memory)
    return results


def measure(
    sender: Sender, node: peers.Node, files: Path, *, succeeds: bool = True
) -> tuple[float, float]:
    """Run a sender, which must succeed or fail; return its seconds and its peak memory in MiB."""
    command = sender.command(node, files)
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stderr=None if succeeds else subprocess.DEVNULL,
        env={**os.environ, **sender.environment},
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if (process.returncode == 0) is not succeeds:
        sys.exit(f"{command[0]} ended with exit code {process.returncode}")
    return seconds, usage.ru_maxrss / 1024


def tell(label: str, results: dict[str, Samples], bound: float | None) -> bool:
    """Print one receiver's table; return whether the bounds are kept."""
    ours = results[OURS]
    print(f"\n{label:27} {'whole process':^22} {'sending alone':^22}    peak")
    for name, samples in results.items():
        print(
            f"  {name:25} {column(samples.whole, ours.whole)} {column(samples.alone, ours.alone)}"
            f"  {max(samples.memory):4.0f} MiB"
        )
    small = max(ours.memory) < MEMORY_LIMIT_MIB
    print(f"  our peak is under {MEMORY_LIMIT_MIB} MiB: {'kept' if small else 'MISSED'}")
    if bound is None:
        return small
    ratio = over(results["dcmsend"].whole, ours.whole)
    fast = ratio >= bound
    print(
        f"  dcmsend takes {ratio:.2f} x our time; wanted {bound:g}: {'kept' if fast else 'MISSED'}"
    )
    return fast and small


def column(seconds: list[float], ours: list[float]) -> str:
    """The median, and how many times ours it is."""
    return f"{median(seconds):7.2f} s {over(seconds, ours):6.2f} x ours"


def over(seconds: list[float], ours: list[float]) -> float:
    """The median of the ratios of the rounds."""
    return median(one / other for one, other in zip(seconds, ours, strict=True))


if __name__ == "__main__":
    sys.exit(main())
