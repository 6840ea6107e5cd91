"""``ith-proxy demo``: run a demonstration, and check its results."""

from __future__ import annotations

import json

import click

from proxy import logs
from proxy.cli.exits import Exit


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the sample session.")
@click.option(
    "--slices",
    type=click.IntRange(1, 1000),
    default=48,
    show_default=True,
    help="Instances of the sample session.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON and nothing else.")
@click.option("-v", "--verbose", is_flag=True, help="Show the proxy's own log as well.")
def demo(seed: int, slices: int, as_json: bool, verbose: bool) -> int:
    """Demonstrate the proxy with a backend and nodes of its own.

    Dispatches a synthetic CT session to two DICOM nodes on this machine, one of which rejects the
    first association. Needs no account and no network, and leaves nothing behind.
    Exit code 1 if a node does not hold all instances, or a report to ITH was wrong.
    """
    logs.configure(level="info" if verbose else "error")

    import trio  # noqa: PLC0415 - help appears at once
    from rich.console import Console  # noqa: PLC0415

    from proxy.demo.run import Plan, demonstrate  # noqa: PLC0415
    from proxy.demo.show import Bars, Lines, Show  # noqa: PLC0415
    from proxy.service import serve  # noqa: PLC0415

    console = Console()
    show = Show() if as_json else (Bars if console.is_terminal else Lines)(console)
    verdict = None
    try:
        verdict = trio.run(demonstrate, Plan(seed, slices), serve, show)
    except* KeyboardInterrupt:
        pass  # it comes in a group, from any task that was running
    if verdict is None:
        return Exit.INTERRUPTED
    if as_json:
        click.echo(json.dumps(verdict.to_dict()))
    return Exit.NEGATIVE if verdict.problems else Exit.OK
