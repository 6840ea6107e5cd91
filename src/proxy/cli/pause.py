"""``ith-proxy pause`` and ``ith-proxy resume``: the operator's own lock on all sending."""

from __future__ import annotations

import os
from pathlib import Path

import click

from proxy.cli.options import state_dir_option
from proxy.cli.screen import clean, counted
from proxy.control.client import ask
from proxy.control.messages import REASON_LENGTH, ControlRequest, Status
from proxy.settings import state_directory


@click.command()
@state_dir_option
@click.option("--reason", default="", metavar="TEXT", help="Shown by status. No patient data.")
def pause(state_dir: Path | None, reason: str) -> None:
    """Make the running proxy keep orders, send nothing.

    Orders, deletions and changes of the configuration are still accepted, and the proxy is
    reported to ITH as inactive. The pause outlives a restart; it ends with: ith-proxy resume
    """
    if len(reason) > REASON_LENGTH:
        sentence = f"--reason has {len(reason)} characters; {REASON_LENGTH} are possible."
        raise click.UsageError(sentence)
    status = _ask(state_dir, ControlRequest("pause", reason))
    kept = counted(len(status.dispatches), "dispatch", "dispatches")
    click.echo(f"Paused; {kept} kept. To go on: ith-proxy resume")


@click.command()
@state_dir_option
def resume(state_dir: Path | None) -> None:
    """End the operator's pause.

    A proxy that ITH has paused too stays paused until ITH sets it active.
    """
    status = _ask(state_dir, ControlRequest("resume"))
    if status.operation.locks:
        (ith,) = status.operation.locks
        click.echo(f"Your pause is over, but ITH's is not ({clean(ith.reason)}).")
        click.echo("Nothing is sent until the proxy is set active in ITH.")
    else:
        click.echo(f"Resumed; {counted(len(status.dispatches), 'dispatch', 'dispatches')} running.")


def _ask(state_dir: Path | None, request: ControlRequest) -> Status:
    directory, _ = state_directory(state_dir, os.environ)
    return ask(directory, request)
