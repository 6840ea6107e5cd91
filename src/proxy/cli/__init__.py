"""The command ``ith-proxy``: options, printing, exit codes. Other packages do the work.

Commands are imported when they are called, so that help appears at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import click

from proxy.cli.exits import Exit
from proxy.cli.failures import tell


class Lazy(NamedTuple):
    """The place of a command, and its line in the overview."""

    module: str
    name: str
    line: str


COMMANDS = {
    "run": Lazy("proxy.cli.run", "run", "Run the proxy until a signal stops it."),
    "demo": Lazy(
        "proxy.cli.demo", "demo", "Demonstrate the proxy with a backend and nodes of its own."
    ),
    "status": Lazy("proxy.cli.status", "status", "Show the state of the running proxy."),
    "pause": Lazy("proxy.cli.pause", "pause", "Make the running proxy keep orders, send nothing."),
    "resume": Lazy("proxy.cli.pause", "resume", "End the operator's pause."),
    "config": Lazy("proxy.cli.config", "config", "Show, check and explain the settings."),
    "statecharts": Lazy(
        "proxy.cli.statecharts", "statecharts", "Print the state machines this program runs on."
    ),
    "version": Lazy("proxy.cli.version", "version", "Print the version and its libraries'."),
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the overview."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if (lazy := COMMANDS.get(cmd_name)) is None:
            return None
        command = getattr(import_module(lazy.module), lazy.name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{lazy.module}.{lazy.name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview without importing a command, then the exit codes."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.line) for name, lazy in COMMANDS.items()])
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), code.sentence) for code in Exit])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def group() -> None:
    """Bring imaging sessions from ITH to the DICOM nodes of a site.

    To begin: ITH_URL=https://… ITH_TOKEN=… ith-proxy run
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; errors are printed on standard error."""
    try:
        code = group.main(arguments, prog_name="ith-proxy", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last boundary
        return tell(error)
    return code if isinstance(code, int) else Exit.OK
