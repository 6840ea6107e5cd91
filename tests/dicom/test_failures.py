"""The table of failures: every code falls into one row, and the rows say what to do."""

from __future__ import annotations

import errno

import pytest

from proxy.errors import AssociationLost, AssociationRejected, NodeError, NodeUnreachable
from proxy.machines.failures import (
    FAILURES,
    Layer,
    Remedy,
    classify_abort,
    classify_context,
    classify_error,
    classify_local,
    classify_loss,
    classify_rejection,
    classify_store,
    classify_transport,
)

pytestmark = pytest.mark.pure

DONE = {Remedy.STORED, Remedy.STORED_WITH_WARNING}


def statuses(code: str) -> range:
    first, _, last = code.partition("-")
    return range(int(first, 16), int(last or first, 16) + 1)


def test_every_status_falls_into_one_row() -> None:
    rows = [row for row in FAILURES if row.layer is Layer.STORE and row.codes != ("unknown",)]
    (rest,) = [row for row in rows if row.codes == ("*",)]
    named = [(s, row) for row in rows if row is not rest for c in row.codes for s in statuses(c)]
    by_status = dict(named)
    assert len(by_status) == len(named)
    for status in range(0x10000):
        assert classify_store(status) is by_status.get(status, rest), f"{status:04X}"


SINGLE = {
    0x0000: Remedy.STORED,
    0x0111: Remedy.STORED,
    0x0001: Remedy.STORED_WITH_WARNING,
    0x0107: Remedy.STORED_WITH_WARNING,
    0x0116: Remedy.STORED_WITH_WARNING,
    0x0117: Remedy.NEVER,
    0x0118: Remedy.NEVER,
    0x0119: Remedy.NEVER,
    0x0122: Remedy.NEVER,
    0x0124: Remedy.NEVER,
    0xA900: Remedy.OTHER_SYNTAX,
}
BY_FIRST_DIGITS = {
    "A7": Remedy.FEWER_ASSOCIATIONS,
    "A9": Remedy.NEVER,
    "B": Remedy.STORED_WITH_WARNING,
    "C": Remedy.NEVER,
}


def by_the_standard(status: int) -> Remedy:
    """PS3.4 Table B.2-1 and PS3.7 annex C, once more and in other words."""
    digits = f"{status:04X}"
    of_range = next((r for first, r in BY_FIRST_DIGITS.items() if digits.startswith(first)), None)
    return SINGLE.get(status) or of_range or Remedy.RETRY_LATER


def test_every_status_has_the_remedy_of_its_class() -> None:
    wrong = [
        f"{status:04X}"
        for status in range(0x10000)
        if classify_store(status).remedy is not by_the_standard(status)
    ]
    assert not wrong


def test_a_missing_answer_is_asked_for() -> None:
    assert classify_store(None).remedy is Remedy.ASK_NODE


@pytest.mark.parametrize(
    ("result", "source", "reason", "remedy"),
    [
        (1, 1, 3, Remedy.RETRY_LATER),
        (2, 1, 3, Remedy.RETRY_LATER),
        (1, 1, 7, Remedy.RETRY_LATER),
        (2, 3, 1, Remedy.FEWER_ASSOCIATIONS),
        (1, 3, 1, Remedy.FEWER_ASSOCIATIONS),
        (1, 3, 2, Remedy.FEWER_ASSOCIATIONS),
        (2, 3, 2, Remedy.FEWER_ASSOCIATIONS),
        (1, 1, 1, Remedy.RETRY_LATER),
        (1, 2, 1, Remedy.RETRY_LATER),
        (1, 1, 2, Remedy.NEVER),
        (1, 2, 2, Remedy.NEVER),
        (2, 1, 1, Remedy.RETRY_LATER),
        (2, 2, 1, Remedy.RETRY_LATER),
        (0, 0, 0, Remedy.RETRY_LATER),
    ],
)
def test_a_rejection_is_read_by_source_and_reason_first(
    result: int, source: int, reason: int, remedy: Remedy
) -> None:
    assert classify_rejection(result, source, reason).remedy is remedy


@pytest.mark.parametrize(
    ("result", "remedy"),
    [
        (3, Remedy.NEVER),
        (4, Remedy.OTHER_SYNTAX),
        (1, Remedy.NEVER),
        (0, Remedy.NEVER),
        (None, Remedy.NEVER),
        ("rejected", Remedy.RETRY_LATER),
        ("aborted", Remedy.RETRY_LATER),
        ("closed", Remedy.RETRY_LATER),
        ("released", Remedy.RETRY_LATER),
    ],
)
def test_a_refused_context(result: int | str | None, remedy: Remedy) -> None:
    assert classify_context(result).remedy is remedy


def test_the_reason_of_an_abort_counts_for_the_provider_alone() -> None:
    assert classify_abort(2, 2) is not classify_abort(0, 2)
    assert classify_abort(0, 2) is classify_abort(0, 0)


def test_every_errno_has_words() -> None:
    for code in errno.errorcode.values():
        assert classify_transport(code).sentence
    assert classify_transport("ECONNREFUSED") is not classify_transport("EHOSTUNREACH")


@pytest.mark.parametrize(
    ("error", "row"),
    [
        (NodeUnreachable("timeout", "x"), classify_transport("timeout")),
        (AssociationLost("timeout", "x"), classify_loss("timeout")),
        (AssociationLost("abort", "x", source=2, reason=2), classify_abort(2, 2)),
        (AssociationRejected(1, 1, 3, "x"), classify_rejection(1, 1, 3)),
        (NodeError("x"), classify_transport("*")),
    ],
)
def test_an_error_finds_its_row(error: NodeError, row: object) -> None:
    assert classify_error(error) is row


def test_a_late_connection_and_a_late_answer_are_two_things() -> None:
    assert classify_loss("timeout") is not classify_transport("timeout")


def test_the_rows_are_whole() -> None:
    ids = [row.id for row in FAILURES]
    assert len({*ids}) == len(ids)
    for layer in Layer:
        codes = [code for row in FAILURES if row.layer is layer for code in row.codes]
        assert "*" in codes
        assert len({*codes}) == len(codes)
    for row in FAILURES:
        assert row.sentence[0].isupper(), row.id
        assert not row.sentence.endswith("."), row.id
        assert row.source, row.id
        assert row.hint or row.remedy in DONE, row.id
    assert classify_local("anything").layer is Layer.LOCAL
