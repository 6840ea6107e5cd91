"""``ith-proxy config``: the settings in force, their check, and their reference."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path

import click

from proxy import settings
from proxy.cli.options import settings_options

ORIGIN_AT = 52


def key_origin(given: settings.Settings) -> str:
    """Return the source of the proxy key."""
    if os.environ.get("ITH_TOKEN"):
        return "environment: ITH_TOKEN"
    return given.ith.token_file or "not given"


@click.group()
def config() -> None:
    """Show, check and explain the settings."""


@config.command()
@settings_options
@click.option("--origin", is_flag=True, help="Show the source of each value.")
def show(config: Path | None, state_dir: Path | None, origin: bool) -> None:
    """Print the settings in force, as a settings file."""
    given = settings.load(config=config, state_dir=state_dir, runnable=False)
    click.echo(f"# settings file    {given.config_file or 'none'}")
    click.echo(f"# state directory  {given.state_dir} ({given.origins['state_dir']})")
    click.echo(f"# proxy key        {key_origin(given)}")
    rows = settings.in_force(given)
    for section, group in groupby(rows, key=lambda row: row.section):
        click.echo(f"\n[{section}]")
        for row in group:
            line = click.style(row.line, bold=row.origin != "default")
            gap = " " * max(2, ORIGIN_AT - len(row.line))
            click.echo(f"{line}{gap}# {row.origin}" if origin else line)


@config.command()
@settings_options
def validate(config: Path | None, state_dir: Path | None) -> None:
    """Check that the proxy can run with these settings; changes nothing."""
    given = settings.load(config=config, state_dir=state_dir)
    click.echo("The settings are good.")
    click.echo(f"  ITH        {given.ith.url}")
    click.echo(f"  proxy key  {key_origin(given)}")
    click.echo(f"  file       {given.config_file or 'none'}")
    click.echo(f"  state      {given.state_dir}")


@config.command()
@click.option("--markdown", is_flag=True, help="Print a page for people instead.")
def reference(markdown: bool) -> None:
    """Print every setting with its default; a settings file to start from."""
    click.echo(settings.reference_page() if markdown else settings.reference(), nl=not markdown)
