"""The display of a running demonstration: progress bars, plain lines, or nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from proxy.demo.encoding import SampleInstance
from proxy.demo.node import DemoNode
from proxy.demo.verdict import NodeVerdict, Observed, Verdict

STEPS = 4
"""The number of parts of the session; a plain line is printed when each has arrived."""


class Show:
    """Receives the events of a demonstration; this one shows nothing: machines read the verdict."""

    def begin(
        self, url: str, nodes: Sequence[DemoNode], instances: Sequence[SampleInstance]
    ) -> None:
        """Everything is ready."""

    def stored(self, node: DemoNode) -> None:
        """An instance or an association may have reached a node."""

    def heard(self, observed: Observed) -> None:
        """A message may have reached the backend."""

    def stop(self) -> None:
        """No more events follow, after success or failure."""

    def end(self, verdict: Verdict) -> None:
        """The verdict is known."""


class Lines(Show):
    """Plain lines, one for each important event: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0
        self._said: set[str] = set()

    def begin(
        self, url: str, nodes: Sequence[DemoNode], instances: Sequence[SampleInstance]
    ) -> None:
        """Introduce the parties."""
        self._total = len(instances)
        _introduce(self._console, url, nodes, instances)

    def stored(self, node: DemoNode) -> None:
        """Print the first rejection, and each quarter that has arrived."""
        if node.tally.rejections:
            self._say(f"{node.ae_title}: rejected an association")
        step = len(node.holds) * STEPS // self._total
        if step:
            self._say(f"{node.ae_title}: {step * 100 // STEPS} % of the instances are there")

    def heard(self, observed: Observed) -> None:
        """Print each status word once."""
        for node in observed.nodes:
            for word in observed.words(node.node_id):
                self._say(f"{node.ae_title}: reported to ITH: {word}")

    def end(self, verdict: Verdict) -> None:
        """Show the table."""
        _conclude(self._console, verdict)

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._console.print(f"  {line}", highlight=False, markup=False)


class Bars(Show):
    """A progress bar for each node: for a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("  [bold]{task.description:<10}"),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TextColumn("[cyan]{task.fields[word]:<12}"),
            TextColumn("[yellow]{task.fields[remark]}"),
            console=console,
            auto_refresh=False,
        )
        self._bars: dict[str, TaskID] = {}

    def begin(
        self, url: str, nodes: Sequence[DemoNode], instances: Sequence[SampleInstance]
    ) -> None:
        """Introduce the parties and draw the bars."""
        _introduce(self._console, url, nodes, instances)
        for node in nodes:
            self._bars[node.node_id] = self._progress.add_task(
                node.ae_title, total=len(instances), word="", remark=""
            )
        self._progress.start()

    def stored(self, node: DemoNode) -> None:
        """Move a node's bar."""
        remark = f"{node.tally.rejections} association rejected" if node.tally.rejections else ""
        bar = self._bars[node.node_id]
        self._progress.update(bar, completed=len(node.holds), remark=remark, refresh=True)

    def heard(self, observed: Observed) -> None:
        """Show the last status word of each node."""
        for node in observed.nodes:
            word = (observed.words(node.node_id) or ("",))[-1]
            self._progress.update(self._bars[node.node_id], word=word)
        self._progress.refresh()

    def stop(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def end(self, verdict: Verdict) -> None:
        """Show the table."""
        _conclude(self._console, verdict)


def _introduce(
    console: Console, url: str, nodes: Sequence[DemoNode], instances: Sequence[SampleInstance]
) -> None:
    console.print(f"A backend stands in for ITH at {url}.", highlight=False)
    for node in nodes:
        remark = ", which rejects the first association" if node.script.reject_next else ""
        where = f"{node.host}:{node.port}"
        console.print(f"Node {node.ae_title} listens at {where}{remark}.", highlight=False)
    size = sum(len(instance.content) for instance in instances) / 1e6
    console.print(
        f"ITH orders a CT session of {len(instances)} instances ({size:.1f} MB) for both:\n",
        highlight=False,
    )


def _conclude(console: Console, verdict: Verdict) -> None:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("node")
    for name in ("instances", "MB", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("reported to ITH")
    for node in verdict.nodes:
        table.add_row(*_row(node))
    console.print()
    console.print(table)
    console.print()
    if verdict.problems:
        for problem in verdict.problems:
            console.print(f"✘ {problem}", style="bold red", highlight=False, markup=False)
    else:
        console.print(
            "✔ Both nodes hold every instance, byte for byte, and every report to ITH is right.",
            style="bold green",
            highlight=False,
        )


def _row(node: NodeVerdict) -> tuple[str, ...]:
    seconds = "–" if node.seconds is None else f"{node.seconds:.1f}"
    words = " → ".join(node.words) or "nothing"
    return node.ae_title, str(node.instances), f"{node.bytes / 1e6:.1f}", seconds, words
