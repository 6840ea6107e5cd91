"""One public name means one thing in the whole program, and the glossary has the central ones."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/proxy"

SHARED_EVENTS = {"ContentLost", "HoldRequested", "ResumeRequested", "RetryDue", "TurnGranted"}
"""Events of more than one machine: each says the same to all of them."""

FORMER_WORDS = (
    "Roster", "Undecided", "Recency", "Vitals", "Asking", "Storing", "Trial", "Claim", "Wish",
)  # fmt: skip


def public_names() -> dict[str, list[str]]:
    """Return where each public class, protocol and type alias is defined."""
    found = defaultdict(list)
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.ClassDef(name=name):
                    pass
                case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                    pass
                case _:
                    continue
            if not name.startswith("_"):
                found[name].append(str(path.relative_to(SOURCE)))
    return found


def test_a_public_name_means_one_thing() -> None:
    several = {name: paths for name, paths in public_names().items() if len(paths) > 1}
    assert several.keys() == SHARED_EVENTS, several
    assert all(path.startswith("machines/") for name in several for path in several[name])


@pytest.mark.parametrize("word", FORMER_WORDS)
def test_a_word_of_the_private_vocabulary_is_no_class(word: str) -> None:
    assert word not in public_names()


def test_the_glossary_has_each_term_once_in_order() -> None:
    page = (ROOT / "docs/glossary.md").read_text()
    terms = re.findall(r"^\| \**([^|*]+?)\** \|", page, re.MULTILINE)
    terms = [term for term in terms if term not in {"term", "Term"} and set(term) != {"-"}]
    assert len(terms) > 50
    plain = [re.sub(r"[^a-z]", "", term.lower()) for term in terms]
    assert plain == sorted(plain)
    assert len({*terms}) == len(terms)
