"""Options that several commands share, and the settings they lead to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])


def settings_options(command: Command) -> Command:
    """Add --config and --state-dir."""
    config = click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Settings file (TOML). Default: $ITH_PROXY_CONFIG, else config.toml in "
        "~/.config/ith-proxy or /etc/ith-proxy, if there is one.",
    )
    return config(state_dir_option(command))


def state_dir_option(command: Command) -> Command:
    """Add --state-dir."""
    option = click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Directory for all state. Default: $STATE_DIRECTORY, else ~/.local/state/ith-proxy.",
    )
    return option(command)
