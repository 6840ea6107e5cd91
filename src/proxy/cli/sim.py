"""``ith-proxy sim``: run the whole program in simulated worlds, and show what is wrong there."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.exits import Exit

if TYPE_CHECKING:
    from proxy.simulation.many import Total
    from proxy.simulation.scenario import Incident, Scenario


@click.command()
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, help="Seed of the first world."
)
@click.option(
    "--seeds",
    "count",
    type=click.IntRange(1),
    default=1,
    metavar="COUNT",
    help="Run as many worlds, on all processors, and print a table.",
)
@click.option(
    "--aim",
    metavar="ROW",
    help="Draw incidents that may lead to this row of a machine, or to this mark. A failure names "
    "the aim of its world.",
)
@click.option(
    "--scenario",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Run the world of this file, in place of that of a seed. A failure writes one.",
)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the page of the world, or of the first one that failed, to this file. A world "
    "that failed is written in any case, by default to ith-proxy-sim-SEED.html, and its scenario "
    "to a file beside it that ends in .json.",
)
@click.option(
    "--teeth",
    is_flag=True,
    help="Plant known bugs in the program, one at a time, and print the seed that shows each.",
)
@click.option("--no-shrink", is_flag=True, help="Keep the incidents that a failure does not need.")
def sim(
    *,
    seed: int,
    count: int,
    aim: str | None,
    file: Path | None,
    page: Path | None,
    teeth: bool,
    no_shrink: bool,
) -> int:
    """Run the whole program in simulated worlds.

    A seed decides what happens in a world: what ITH orders and deletes, and which faults occur, in
    the network, at the nodes, on the disk and of the clock. The same seed gives the same world.
    Of many worlds, the later ones aim at what the earlier ones have seldom reached.
    Needs no account and no network.
    Exit code 1 if the program did wrong in a world, if two runs of a world differed, or if a
    planted bug was not caught.
    """
    code = Exit.INTERRUPTED
    logging.disable()  # the program's log is about a world that does not exist
    try:
        if teeth:
            code = _teeth()
        elif count == 1 or file is not None or aim is not None:
            scenario = _drawn(seed, aim) if file is None else _read(file)
            code = _one(scenario, page, shrinks=not no_shrink)
        else:
            code = _many(seed, count, page, shrinks=not no_shrink)
    except* KeyboardInterrupt:
        _clear()  # it comes in a group, from any task of a world
    finally:
        logging.disable(logging.NOTSET)
    return code


def _drawn(seed: int, aim: str | None) -> Scenario:
    """Draw the scenario of a seed, perhaps with an aim."""
    from proxy.simulation.scenario import draw  # noqa: PLC0415 - help appears at once
    from proxy.simulation.steering import AIMS  # noqa: PLC0415

    if aim is not None and aim not in AIMS:
        raise click.BadParameter(
            f"{aim!r} is neither a row, as CON-01, nor a mark, as ORDER_POSTED.",
            param_hint="'--aim'",
        )
    return draw(seed, aim or "")


def _read(file: Path) -> Scenario:
    """Read a scenario from a file."""
    import msgspec  # noqa: PLC0415

    from proxy.simulation.scenario import Scenario  # noqa: PLC0415

    try:
        return msgspec.json.decode(file.read_bytes(), type=Scenario)
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise click.FileError(str(file), f"no scenario of this version: {error}") from error


def _one(scenario: Scenario, page: Path | None, *, shrinks: bool) -> Exit:
    """Run one world, and print what happens in it."""
    from proxy.simulation.many import simulate  # noqa: PLC0415 - help appears at once

    aim = f", aimed at {scenario.aim}" if scenario.aim else ""
    click.echo(f"World of seed {scenario.seed}{aim}, {len(scenario.incidents)} incidents:")
    _list(scenario.incidents)
    result = simulate(scenario, with_history=True)
    click.echo(f"It lasted {result.seconds:,.0f} s and took {result.steps:,} steps of tasks.")
    endings = ", ".join(f"{count} {word}" for word, count in sorted(result.endings.items()))
    click.echo(f"Reports that ended: {endings or 'none'}.")
    differs = simulate(scenario).trace != result.trace
    if differs:
        click.echo("A second run of the same world differed.")
    if result.violations:
        _write_failed(scenario, result.violations, page, shrinks=shrinks)
    else:
        click.echo("Nothing is wrong.")
        if page is not None:
            from proxy.simulation.page import page as drawn  # noqa: PLC0415

            _write(page, drawn(result))
    return Exit.NEGATIVE if result.violations or differs else Exit.OK


def _many(seed: int, count: int, page: Path | None, *, shrinks: bool) -> Exit:
    """Run many worlds, and print their table last."""
    from proxy.simulation.many import simulate_many, table, timed  # noqa: PLC0415

    elapsed = timed()
    total = simulate_many(seed, count, _progress(count, elapsed))
    seconds = elapsed()
    _clear()
    if total.failed:
        first = min(total.failed)
        click.echo(f"World of seed {first}:")
        scenario = _drawn(first, total.aims.get(first) or None)
        _write_failed(scenario, total.failed[first], page, shrinks=shrinks)
        click.echo()
    for line in table(total, seconds):
        click.echo(line)
    return Exit.NEGATIVE if total.failed or total.differed else Exit.OK


def _teeth() -> Exit:
    """Hunt planted bugs, print each as it is caught, and their table last."""
    from proxy.simulation.bugs import MOST_SEEDS, Caught, hunt_all  # noqa: PLC0415
    from proxy.simulation.many import brief, wrapped  # noqa: PLC0415

    def show(caught: Caught) -> None:
        if caught.seed is None:
            click.echo(f"{caught.name}: not caught by {caught.seeds} seeds")
        else:
            click.echo(f"{caught.name}: seed {caught.seed}")
            click.echo("\n".join(wrapped(brief(caught.violation), "    ", "    ")))

    found = hunt_all(on_caught=show)
    click.echo(f"\n{'planted bug':<44}{'seeds':>8}  broken")
    for caught in found:
        seeds = "-" if caught.seed is None else caught.seeds
        click.echo(f"{caught.name:<44}{seeds:>8}  {caught.promise}".rstrip())
    missed = [caught for caught in found if caught.seed is None]
    click.echo(
        f"{len(found) - len(missed)} of {len(found)} planted bugs caught in {MOST_SEEDS} seeds."
    )
    return Exit.NEGATIVE if missed else Exit.OK


def _write_failed(
    scenario: Scenario, violations: list[str], page: Path | None, *, shrinks: bool
) -> None:
    """Print why a world failed, find the incidents that it takes, and write its page."""
    import msgspec  # noqa: PLC0415

    from proxy.simulation.many import brief, shrunk, simulate, wrapped  # noqa: PLC0415
    from proxy.simulation.page import page as drawn  # noqa: PLC0415

    click.echo("1 violation:" if len(violations) == 1 else f"{len(violations)} violations:")
    for violation in violations:
        click.echo("\n".join(wrapped(brief(violation), "  ", "      ")))
    if shrinks:
        smaller, runs = shrunk(scenario, _say_run)
        _clear()
        click.echo(
            f"{len(smaller.incidents)} of its {len(scenario.incidents)} incidents are enough, as "
            f"{runs} runs have shown:"
        )
        _list(smaller.incidents)
        text = drawn(simulate(smaller, with_history=True), drawn=scenario, runs=runs)
    else:
        smaller = scenario
        text = drawn(simulate(scenario, with_history=True))
    page = page or Path(f"ith-proxy-sim-{scenario.seed}.html")
    _write(page, text)
    file = page.with_suffix(".json")
    _write(file, msgspec.json.format(msgspec.json.encode(smaller), indent=1).decode(), "Scenario")
    click.echo(f"Replay: {scenario.command}")
    if smaller != scenario:
        click.echo(f"Replay of the smaller world: ith-proxy sim --scenario {file}")


def _say_run(runs: int, left: int) -> None:
    _say(f"Leaving out incidents, for as long as it still fails: {left} are left, run {runs} …")


def _list(listed: Iterable[Incident]) -> None:
    from proxy.simulation.many import wrapped  # noqa: PLC0415
    from proxy.simulation.words import in_words  # noqa: PLC0415

    for incident in listed:
        line = f"{incident.at:>11,.3f} s  {in_words(incident)}"
        click.echo("\n".join(wrapped(line, hanging=" " * 15)))


def _write(file: Path, text: str, what: str = "Page") -> None:
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from error
    click.echo(f"{what}: {file}")


# A line that is overwritten, on a terminal ------------------------------------------------------


def _progress(count: int, elapsed: Callable[[], float]) -> Callable[[Total], None]:
    def show(total: Total) -> None:
        left = elapsed() / total.worlds * (count - total.worlds)
        _say(
            f"{total.worlds:,} of {count:,} worlds, {len(total.failed):,} failed, "
            f"{left / 60:,.0f} min left"
        )

    return show


def _say(text: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)


def _clear() -> None:
    _say("")
