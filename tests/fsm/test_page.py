from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from proxy.fsm.page import names, page, sentence, table, text
from tests.support.sample import FERRY, MOORED, SAILING, TURNING, Sighted, count_buoy

GOLDEN = Path(__file__).with_name("ferry.md")


def test_the_page_of_the_sample_looks_like_this() -> None:
    assert page(FERRY) == GOLDEN.read_text()


def test_a_machine_without_actions_has_no_table_of_them() -> None:
    rows = tuple(replace(row, action=None) for row in FERRY.rows)
    assert "## Actions" not in page(replace(FERRY, rows=rows))
    assert table(("A", "B"), ()) == ""


def test_the_requirements_have_a_column_where_a_row_names_one() -> None:
    rows = tuple(replace(row, traces=()) for row in FERRY.rows)
    assert "| Why | Serves |" in page(FERRY)
    assert "Serves" not in page(replace(FERRY, rows=rows))


def test_only_the_first_paragraph_of_a_docstring_is_printed() -> None:
    assert sentence(Sighted) == "One more buoy went by."
    assert sentence(count_buoy) == ""


def test_prose_cannot_break_a_table() -> None:
    assert text("a | b\n  <c> & d") == "a \\| b &lt;c> &amp; d"


def test_a_group_is_named_for_all_of_its_states() -> None:
    assert names(FERRY, (MOORED, TURNING, SAILING)) == "MOORED, UNDER_WAY"
    assert names(FERRY, (TURNING,)) == "TURNING"


def test_of_ids_that_were_not_retired_nothing_is_said() -> None:
    said = "Ids that are not given again"
    assert said in page(FERRY)
    assert said not in page(replace(FERRY, retired={}))
