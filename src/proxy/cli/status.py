"""``ith-proxy status``: the state of the running proxy, for a person or for a program."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import click
import msgspec

from proxy.cli.exits import Exit
from proxy.cli.options import state_dir_option
from proxy.cli.screen import screen
from proxy.control.client import ask
from proxy.control.messages import ControlRequest
from proxy.settings import state_directory


@click.command()
@state_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print everything, as JSON.")
def status(state_dir: Path | None, as_json: bool) -> int:
    """Show the state of the running proxy.

    Exit code 0: all is well. 1: a pause, no link to ITH, or an offline node needs attention, and
    is listed with a hint. 3: no proxy is running.
    """
    directory, _ = state_directory(state_dir, os.environ)
    now = ask(directory, ControlRequest("status"))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(now), indent=2))
    else:
        for line in screen(now, shutil.get_terminal_size((100, 24)).columns):
            click.echo(line)
    return Exit.OK if now.healthy else Exit.NEGATIVE
