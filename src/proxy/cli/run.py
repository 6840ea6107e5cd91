"""``ith-proxy run``: catch signals, read the settings, open the log, hand over to the service."""

from __future__ import annotations

from pathlib import Path

import click

from proxy.cli.options import settings_options
from proxy.runtime.signals import ProcessSignals


@click.command()
@settings_options
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "text"]),
    help="auto: plain lines on a terminal, else JSON.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log details, too.")
def run(config: Path | None, state_dir: Path | None, log_format: str | None, verbose: bool) -> int:
    """Run the proxy until a signal stops it.

    SIGTERM or Ctrl-C: the instances in flight end, the rest waits for the next start.
    A second one: stop now. A terminal that is closed counts as SIGTERM.
    """
    signals = ProcessSignals()

    from proxy import logs, settings  # noqa: PLC0415 - signals are caught before this slow import

    logs.standard_error()  # nor do error messages wait for a reader
    flags: dict[str, tuple[str, object]] = {}
    if log_format:
        flags["log.format"] = ("--log-format", log_format)
    if verbose:
        flags["log.level"] = ("--verbose", "debug")
    given = settings.load(config=config, state_dir=state_dir, flags=flags)
    settings.prepare(given.state_dir)
    logs.configure(level=given.log.level, format=given.log.format, key=given.token.reveal())

    from proxy.service import main  # noqa: PLC0415 - errors in the settings are printed at once

    return main(given, signals)
