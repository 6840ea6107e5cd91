"""``ith-proxy version``."""

from __future__ import annotations

import platform
from importlib.metadata import version as installed

import click

FOUNDATIONS = ("trio", "apsw", "httpx2", "pydicom", "pynetdicom")


@click.command()
def version() -> None:
    """Print the version and its libraries'."""
    click.echo(f"ith-proxy {installed('ith-proxy')}")
    names = [f"Python {platform.python_version()}"]
    names += [f"{name} {installed(name)}" for name in FOUNDATIONS]
    click.echo(", ".join(names))
