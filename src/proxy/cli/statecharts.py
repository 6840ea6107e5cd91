"""``ith-proxy statecharts``: the documents that show the tables this program runs on."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import click
import msgspec

from proxy.cli.exits import Exit
from proxy.cli.requirement_pages import trace_page
from proxy.fsm.page import goes_to, names, page, table, text
from proxy.fsm.scxml import scxml
from proxy.machines import MACHINES
from proxy.machines.changes import CHANGES, Change
from proxy.machines.failures import FAILURES, Layer

README = "README.md"
"""The one file of the directory that is written by hand."""


@click.command()
@click.option("--check", is_flag=True, help="Compare with DIRECTORY instead of writing there.")
@click.argument(
    "directory", required=False, type=click.Path(file_okay=False, path_type=Path, exists=False)
)
@click.pass_context
def statecharts(context: click.Context, *, check: bool, directory: Path | None) -> None:
    """Print the state machines this program runs on.

    Without DIRECTORY the pages are printed. With it, they are written there, and beside each one
    the same machine as SCXML for tools. With --check nothing is written: the files in DIRECTORY,
    by default ./statecharts, are compared byte for byte with those this program would write.
    """
    if check:
        wrong = list(differences(_committed(directory)))
        for line in wrong:
            click.echo(line)
        click.echo(f"{len(wrong)} differences" if wrong else f"{len(documents())} files agree")
        context.exit(Exit.NEGATIVE if wrong else Exit.OK)
    if directory is None:
        pages = (body for name, body in documents().items() if name.endswith(".md"))
        click.echo("\n".join(pages), nl=False)
        return
    directory.mkdir(parents=True, exist_ok=True)
    for name, body in documents().items():
        (directory / name).write_bytes(body.encode())
    click.echo(f"{len(documents())} files written to {directory}")


def _committed(directory: Path | None) -> Path:
    committed = directory or Path("statecharts")
    if not committed.is_dir():
        raise click.UsageError(
            f"There is no directory {committed} to compare with. Name the directory of the "
            "controlled pages, or run this in the directory that has ./statecharts."
        )
    return committed


def documents() -> dict[str, str]:
    """Return every generated file: name to text, in the order a reader meets them."""
    found = {}
    for machine in MACHINES:
        found[f"{machine.name}.md"] = page(machine)
        found[f"{machine.name}.scxml"] = scxml(machine)
    found["changes.md"] = _changes()
    found["failures.md"] = _failures()
    found["trace.md"] = trace_page(_trace())
    return found


def differences(directory: Path) -> Iterator[str]:
    """Yield, file by file, how ``directory`` differs from the files this program would write."""
    for name, body in documents().items():
        file = directory / name
        if not file.is_file():
            yield f"missing: {name}"
        elif file.read_bytes() != body.encode():
            yield f"differs: {name}"
    for file in sorted(directory.iterdir()):
        if file.name not in {*documents(), README}:
            yield f"left over: {file.name}"


def _changes() -> str:
    head = (
        "# changes\n\n"
        "The effects of a change on running machines: the events that announce it, and the rows "
        "they take.\n\n"
        f"Software item `{CHANGES[0].__module__}`. Written by `ith-proxy statecharts`, the rows "
        "from the tables that the program runs; not to be edited. In a state that is not listed "
        "nothing happens, on purpose; the machine's own page has the reason.\n"
    )
    return head + "".join(
        f"\n## {change.id} {change.when}\n\n{change.means}\n{_rows_told(change)}{_shown_by(change)}"
        for change in CHANGES
    )


def _rows_told(change: Change) -> str:
    lines = table(
        ("Machine", "Event", "In", "Row", "Goes to", "Why"),
        (
            (
                f"[{machine.name}]({machine.name}.md)",
                f"`{event.__name__}`",
                names(machine, row.sources),
                row.id,
                goes_to(row),
                text(row.doc),
            )
            for machine, events in change.tells
            for event in events
            for row in machine.rows
            if event in row.on
        ),
    )
    return f"\n{lines}" if lines else ""


def _shown_by(change: Change) -> str:
    """Return the line with the end-to-end tests that show it."""
    return (
        "\nShown in `tests/end_to_end` by " + ", ".join(f"`{t}`" for t in change.shown_by) + ".\n"
    )


def _trace() -> dict[str, list[str]]:
    """Return, for each row or ignore, the tests in which a running machine takes it."""
    found: dict[str, list[str]] = msgspec.json.decode(
        resources.files("proxy.machines").joinpath("trace.json").read_bytes(),
        type=dict[str, list[str]],
    )
    return found


def _failures() -> str:
    head = (
        "# failures\n\n"
        "The failures between the proxy and a node, and their handling.\n\n"
        f"Software item `{FAILURES[0].__module__}`. Written by `ith-proxy statecharts` from the "
        "table that the program itself uses; not to be edited. `*` stands for every code "
        "that no other line of its table names.\n"
    )
    titles = ("Id", "Code", "Remedy", "Sentence", "Hint", "Source")
    return head + "".join(
        f"\n## {layer.value.capitalize()}\n\n"
        + table(
            titles,
            (
                (
                    row.id,
                    ", ".join(f"`{code}`" for code in row.codes),
                    text(row.remedy.value),
                    text(row.sentence),
                    text(row.hint),
                    text(row.source),
                )
                for row in FAILURES
                if row.layer is layer
            ),
        )
        for layer in Layer
    )
