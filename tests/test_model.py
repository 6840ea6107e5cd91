from __future__ import annotations

import pytest

from proxy.model import shown

pytestmark = pytest.mark.pure


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2", "2.25.0", "1." + "2" * 62])
def test_a_uid_is_shown_as_it_is(uid: str) -> None:
    assert shown(uid) == uid


@pytest.mark.parametrize(
    "uid",
    [
        "",
        "1",
        "1.2.",
        ".1.2",
        "1..2",
        "1.02",
        "1.2.DOE^JANE",
        "1.2 ",
        "1." + "2" * 63,
        "1.2\n",
        "1.٣",
    ],
)
def test_a_uid_that_breaks_the_rules_is_masked(uid: str) -> None:
    assert shown(uid) == "(a UID that breaks PS3.5 9.1)"
