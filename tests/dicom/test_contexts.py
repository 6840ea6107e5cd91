from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dicom.contexts import CONVERTIBLE, FALLBACKS, SYNTAX_REFUSED, Contexts, plan
from proxy.dicom.pdu import Proposal
from proxy.model import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Instance,
)

pytestmark = pytest.mark.pure

JPEG_2000, MPEG_4 = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.102"
SYNTAXES = [*sorted(CONVERTIBLE), *(f"2.{number}" for number in range(20))]


def of(sop_class: int, syntax: str) -> Instance:
    return Instance(f"1.{sop_class}", "1.2", syntax, "1", "1", "", 10, 0)


@given(
    st.lists(st.builds(of, st.integers(0, 60), st.sampled_from(SYNTAXES)), max_size=400),
    st.sampled_from([128, 127]),
)
def test_every_instance_has_one_context_in_one_association(
    instances: list[Instance], limit: int
) -> None:
    planned = plan(instances, limit)
    assert all(1 <= len(proposals) <= limit for proposals in planned)
    pairs = [
        (proposal.sop_class_uid, *proposal.transfer_syntax_uids)
        for proposals in planned
        for proposal in proposals
    ]
    own = {(i.sop_class_uid, i.transfer_syntax_uid) for i in instances}
    assert len({*pairs}) == len(pairs)
    assert own <= {*pairs}
    convertible = {sop_class for sop_class, syntax in own if syntax in CONVERTIBLE}
    assert len({*pairs} - own) <= len(convertible)
    # No association is begun that is not needed, but for what must stay together.
    assert all(len(proposals) > limit - 4 for proposals in planned[:-1])


@given(st.lists(st.builds(of, st.integers(0, 60), st.sampled_from(SYNTAXES)), max_size=400))
def test_what_can_be_converted_is_offered_so_in_the_same_association(
    instances: list[Instance],
) -> None:
    planned = plan(instances)
    for each in instances:
        own = Proposal(each.sop_class_uid, (each.transfer_syntax_uid,))
        (proposals,) = [proposals for proposals in planned if own in proposals]
        of_class = [p for p in proposals if p.sop_class_uid == each.sop_class_uid]
        offered = {syntax for p in of_class for syntax in p.transfer_syntax_uids}
        if each.transfer_syntax_uid in CONVERTIBLE:
            assert offered >= {*FALLBACKS}
        contexts = Contexts(proposals)
        for number, proposal in contexts.proposed.items():
            if proposal == own:
                continue
            contexts.negotiate({number: (0, proposal.transfer_syntax_uids[-1])})
        fallback = contexts.fallback(each.sop_class_uid, each.transfer_syntax_uid)
        assert (fallback in FALLBACKS) == (each.transfer_syntax_uid in CONVERTIBLE)
        assert fallback != each.transfer_syntax_uid


@pytest.mark.parametrize(
    ("own", "more"),
    [
        ([EXPLICIT_VR_LITTLE_ENDIAN], [IMPLICIT_VR_LITTLE_ENDIAN]),
        ([IMPLICIT_VR_LITTLE_ENDIAN], [EXPLICIT_VR_LITTLE_ENDIAN]),
        ([EXPLICIT_VR_BIG_ENDIAN], FALLBACKS),
        ([DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN], FALLBACKS),
        ([DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN], FALLBACKS[1:]),
        (FALLBACKS, []),
        ([JPEG_2000, MPEG_4], []),
        ([JPEG_2000, EXPLICIT_VR_LITTLE_ENDIAN], [IMPLICIT_VR_LITTLE_ENDIAN]),
    ],
)
def test_one_context_more_offers_the_native_syntaxes_that_are_missing(
    own: list[str], more: list[str]
) -> None:
    (proposals,) = plan([of(1, syntax) for syntax in own])
    wanted = [Proposal("1.1", (syntax,)) for syntax in own]
    wanted += [Proposal("1.1", tuple(more))] if more else []
    assert [*proposals] == wanted


def test_a_fallback_is_what_the_node_picked() -> None:
    deflated = of(1, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    (proposals,) = plan([deflated])
    for syntax in FALLBACKS:
        contexts = Contexts(proposals)
        contexts.negotiate({1: (4, ""), 3: (0, syntax)})
        assert contexts.find("1.1", deflated.transfer_syntax_uid) is None
        assert contexts.fallback("1.1", deflated.transfer_syntax_uid) == syntax
        assert contexts.fallback("1.1", JPEG_2000) is None
    contexts = Contexts(proposals)
    contexts.negotiate({1: (0, deflated.transfer_syntax_uid), 3: (4, "")})
    assert contexts.fallback("1.1", deflated.transfer_syntax_uid) is None


@pytest.mark.parametrize("result", [1, 2, 3, 4, None])
def test_where_the_class_is_taken_it_is_the_syntax_whatever_the_node_says(
    result: int | None,
) -> None:
    (proposals,) = plan([of(1, EXPLICIT_VR_LITTLE_ENDIAN)])
    contexts = Contexts(proposals)
    answer = {} if result is None else {1: (result, "")}
    contexts.negotiate({**answer, 3: (0, IMPLICIT_VR_LITTLE_ENDIAN)})
    assert contexts.refusal("1.1", EXPLICIT_VR_LITTLE_ENDIAN) == SYNTAX_REFUSED


def test_the_node_decides_by_context() -> None:
    contexts = Contexts(
        [Proposal("1.1", ("2.1",)), Proposal("1.1", ("2.2",)), Proposal("1.2", ("2.1",))]
    )
    assert [*contexts.proposed] == [1, 3, 5]
    contexts.negotiate({1: (0, "2.1"), 3: (4, ""), 7: (0, "2.2")})
    assert contexts.find("1.1", "2.1") == 1
    assert contexts.find("1.1", "2.2") is None
    assert contexts.refusal("1.1", "2.2") == 4
    assert contexts.refusal("1.2", "2.1") is None


def test_a_syntax_that_was_not_proposed_is_no_acceptance() -> None:
    contexts = Contexts([Proposal("1.1", ("2.1",))])
    contexts.negotiate({1: (0, "2.9")})
    assert contexts.find("1.1", "2.1") is None
    assert contexts.find("1.1", "2.9") is None


def test_of_several_syntaxes_the_node_picks_one() -> None:
    contexts = Contexts([Proposal("1.1", ("2.1", "2.2"))])
    contexts.negotiate({1: (0, "2.2")})
    assert contexts.find("1.1", "2.2") == 1
    assert contexts.find("1.1", "2.1") is None


@pytest.mark.parametrize("count", [0, 129])
def test_too_many_or_none_is_a_defect(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 128"):
        Contexts(
            [
                msgspec.structs.replace(Proposal("1", ("2",)), sop_class_uid=str(n))
                for n in range(count)
            ]
        )
