"""The page of one world: the verdict, the incidents, and what happened, in lanes.

It is one HTML file that needs nothing else, no script either. It holds no patient data, and of a
UID the last digits alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from importlib import resources

import msgspec

from proxy.simulation.diagram import diagram, safe
from proxy.simulation.scenario import NOON, Incident, Scenario
from proxy.simulation.words import duration, in_words
from proxy.simulation.world import Result


def page(result: Result, *, drawn: Scenario | None = None, runs: int = 0) -> str:
    """Return the page of a world that was run with its history.

    If its scenario was shrunk, ``drawn`` is what the seed drew, and ``runs`` how many it took.
    """
    scenario = result.scenario
    title = f"World of seed {scenario.seed}"
    body = "\n".join(
        (
            *_head(result, title),
            *_incidents(scenario, drawn, runs),
            *diagram(result),
            "<h2>The scenario as JSON</h2>",
            f"<details><summary>show</summary><pre>{_json(scenario)}</pre></details>",
        )
    )
    style = resources.files("proxy.simulation").joinpath("page.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n"
        "</main>\n</body>\n</html>\n"
    )


def _json(scenario: Scenario) -> str:
    return escape(msgspec.json.format(msgspec.json.encode(scenario), indent=1).decode())


# The head ----------------------------------------------------------------------------------------


def _head(result: Result, title: str) -> Iterator[str]:
    violations = result.violations
    kind, words = "good", "nothing is wrong"
    if violations:
        kind = "bad"
        words = "1 violation" if len(violations) == 1 else f"{len(violations)} violations"
    yield f'<h1>{title}</h1> <span class="verdict {kind}">{words}</span>'
    yield '<ol class="violations">'
    for number, violation in enumerate(violations, 1):
        yield (
            f'<li class="violation"><a href="#violation-{number}"><pre>{safe(violation)}</pre>'
            "</a></li>"
        )
    yield "</ol>"
    scenario = result.scenario
    ahead = scenario.ahead - NOON
    clock = "right"
    if ahead:
        clock = f"{duration(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}"
    endings = ", ".join(f"{count} {word}" for word, count in sorted(result.endings.items()))
    yield '<table class="facts">'
    for name, value in (
        ("replay", f"<code>{scenario.command}</code>"),
        ("world", f"{result.seconds:,.0f} s, {result.steps:,} steps of tasks"),
        ("associations per node", str(scenario.associations)),
        ("reports", f"{scenario.detail}; ended: {endings or 'none'}"),
        ("wall clock at the start", clock),
        ("trace", f"<code>{result.trace}</code>"),
    ):
        yield f"<tr><th>{name}</th><td>{value}</td></tr>"
    yield "</table>"


def _incidents(scenario: Scenario, drawn: Scenario | None, runs: int) -> Iterator[str]:
    yield "<h2>Incidents</h2>"
    if drawn is not None:
        yield (
            f"<p>{len(scenario.incidents)} of {len(drawn.incidents)} are enough for this "
            f"violation, as {runs} runs have shown.</p>"
        )
    yield from _table(scenario.incidents)
    if drawn is not None:
        yield f"<details><summary>all {len(drawn.incidents)} of the seed</summary>"
        yield from _table(drawn.incidents)
        yield "</details>"


def _table(incidents: Iterable[Incident]) -> Iterator[str]:
    yield "<table>"
    for incident in incidents:
        yield (
            f'<tr><td class="number">{incident.at:,.3f} s</td>'
            f"<td>{safe(in_words(incident))}</td></tr>"
        )
    yield "</table>"
