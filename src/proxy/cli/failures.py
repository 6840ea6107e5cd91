"""Print failures: the error and its hint, and never a traceback."""

from __future__ import annotations

import click

from proxy.cli.exits import Exit, exit_of
from proxy.errors import ProxyError


def tell(error: Exception) -> Exit:
    """Print an error on standard error, and return its exit code."""
    foreseen, defects = _sort(error)
    for problem in foreseen:
        _print(str(problem), problem.hint)
    for defect in defects:
        _tell_defect(defect)
    return Exit.DEFECT if defects else exit_of(foreseen[0])


def _sort(error: Exception) -> tuple[list[ProxyError], list[Exception]]:
    """Return the foreseen errors and the others, out of groups and of lists of problems."""
    match error:
        case ExceptionGroup():
            parts = [_sort(each) for each in error.exceptions]
            return [each for part in parts for each in part[0]], [
                each for part in parts for each in part[1]
            ]
        case ProxyError():
            return list(getattr(error, "problems", [error])), []
        case _:
            return [], [error]


def _tell_defect(error: Exception) -> None:
    """Print type and place of a defect; its text might hold patient data."""
    from proxy.logs import describe  # noqa: PLC0415 - only now

    line = describe(error)
    trace = line.get("trace")
    place = f", at {trace[-1]}" if isinstance(trace, list) and trace else ""
    _print(
        f"A defect of ith-proxy: {line['error']}{place}.",
        "Nothing that was accepted is lost; it can be started again. Please report the line above "
        "with the log (standard error; under systemd: journalctl -u ith-proxy).",
    )


def _print(sentence: str, hint: str) -> None:
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {sentence}", err=True)
    if hint:
        click.echo(f"       {hint}", err=True)
