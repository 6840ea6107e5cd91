"""The types of requirements, and the functions that link them to tests and tables.

Data alone. ``proxy.machines.requirements`` and ``proxy.machines.behaviours`` use these types.
"""

from __future__ import annotations

import msgspec

from proxy.machines.failures import FAILURES, Remedy


class Requirement(msgspec.Struct, frozen=True):
    """One numbered demand on the program.

    ``source`` is a document and a section. ``tests`` are node ids of pytest without parameters.
    ``carried_by`` are modules below ``src/proxy``. ``tables`` are the ids of failures and changes
    that belong to it. ``more`` is prose that follows the sentence in ``docs/behaviour.md``. A
    requirement that is ``planned`` is not built yet.
    """

    id: str
    sentence: str
    source: str
    tests: tuple[str, ...] = ()
    carried_by: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    more: str = ""
    planned: bool = False


class Chapter(msgspec.Struct, frozen=True):
    """Requirements of one source, or behaviours of one subject."""

    title: str
    about: str
    requirements: tuple[Requirement, ...]


BEHAVIOUR = "docs/behaviour.md"
"""The source of every behaviour: the page that is generated from this package."""


def shown(file: str, *names: str) -> tuple[str, ...]:
    """Return the node ids of the tests ``names`` of a file below ``tests``."""
    return tuple(f"tests/{file}::{name}" for name in names)


def failures_with(*remedies: Remedy) -> tuple[str, ...]:
    """Return the ids of the failures that have one of these remedies."""
    return tuple(row.id for row in FAILURES if row.remedy in remedies)
