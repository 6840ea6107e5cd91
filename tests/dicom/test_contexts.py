from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dicom.contexts import CONVERTIBLE, FALLBACKS, SYNTAX_REFUSED, Contexts, Offers, plan
from proxy.dicom.pdu import Proposal
from proxy.machines.failures import classify_context
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
    assert len({*pairs} - own) <= len(convertible) * len(FALLBACKS)
    assert all(len(proposal) == 2 for proposal in pairs), "one syntax in each"
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
def test_contexts_of_their_own_offer_the_native_syntaxes_that_are_missing(
    own: list[str], more: list[str]
) -> None:
    (proposals,) = plan([of(1, syntax) for syntax in own])
    wanted = [Proposal("1.1", (syntax,)) for syntax in own]
    wanted += [Proposal("1.1", (syntax,)) for syntax in more]
    assert [*proposals] == wanted


def test_a_fallback_is_what_the_node_picked() -> None:
    deflated = of(1, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    (proposals,) = plan([deflated])
    for number, syntax in zip((3, 5), FALLBACKS, strict=True):
        contexts = Contexts(proposals)
        contexts.negotiate({1: (4, ""), 3: (4, ""), 5: (4, ""), number: (0, syntax)})
        assert contexts.find("1.1", deflated.transfer_syntax_uid) is None
        assert contexts.fallback("1.1", deflated.transfer_syntax_uid) == syntax
        assert contexts.fallback("1.1", JPEG_2000) is None
    contexts = Contexts(proposals)
    contexts.negotiate({1: (0, deflated.transfer_syntax_uid), 3: (4, ""), 5: (4, "")})
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


# Offers: what is proposed by what the node has answered ------------------------------------------

REJECTED, ABORTED = classify_context("rejected"), classify_context("aborted")
contents = st.lists(
    st.builds(of, st.integers(0, 5), st.sampled_from(SYNTAXES[:8])), min_size=1, max_size=30
)


def left_over(offers: Offers, instances: list[Instance]) -> list[Instance]:
    return [each for each in instances if offers.refusal(each) is None]


@given(contents, st.integers(1, 6), st.sampled_from(["accepts so many", "rejects", "aborts"]))
def test_offers_reach_every_node_with_a_limit(
    instances: list[Instance], most: int, how: str
) -> None:
    """Every instance is sent at last, over associations of no more contexts than the node takes."""
    offers = Offers()
    left = [*instances]
    for _ in range(300):
        if not left:
            return
        assert left_over(offers, left) == left, "none is given up"
        proposals = offers.next(left)
        if len(proposals) > most and how != "accepts so many":
            offers.ended(proposals, REJECTED if how == "rejects" else ABORTED, left)
            continue
        contexts = Contexts(proposals)
        contexts.negotiate(
            {
                number: (0, proposal.transfer_syntax_uids[0]) if at < most else (2, "")
                for at, (number, proposal) in enumerate(contexts.proposed.items())
            }
        )
        offers.accepted(contexts, left)
        left = [each for each in left if not contexts.is_usable(each)]
    pytest.fail(f"{len(left)} left")


@given(contents, st.sampled_from([0, 1, 2, 3, 4, None, "rejected", "aborted", "closed"]))
def test_offers_come_to_an_end(instances: list[Instance], says: int | str | None) -> None:
    """Where the node takes nothing, few associations show it: each context is proposed alone."""
    offers = Offers()
    asked = 0
    while proposals := offers.next(left_over(offers, instances)):
        asked += 1
        if isinstance(says, str):
            offers.ended(proposals, classify_context(says), [])
            continue
        contexts = Contexts(proposals)
        contexts.negotiate({} if says is None else dict.fromkeys(contexts.proposed, (says, "9.9")))
        offers.accepted(contexts, instances)
    contexts_of_all = len({p for part in plan(instances) for p in part})
    assert asked <= (1 if says in {0, 3, 4} else contexts_of_all + 8)
    reasons = [offers.refusal(each) for each in instances]
    assert {*reasons} == {classify_context(says)}
    offers.begin()
    is_for_now = isinstance(says, str)
    assert bool(offers.next(left_over(offers, instances))) is is_for_now


def test_an_association_that_ended_says_nothing_for_other_syntaxes() -> None:
    """The content of an object may be what ends it: it is not converted for that."""
    instance = of(1, EXPLICIT_VR_LITTLE_ENDIAN)
    offers = Offers()
    offers.ended(offers.next([instance]), ABORTED, [instance])
    (own,) = offers.next([instance])
    assert own.transfer_syntax_uids == (EXPLICIT_VR_LITTLE_ENDIAN,)
    offers.ended((own,), ABORTED, [instance])
    assert offers.refusal(instance) is ABORTED


def test_one_that_is_rejected_alone_is_offered_converted() -> None:
    instance = of(1, EXPLICIT_VR_LITTLE_ENDIAN)
    offers = Offers()
    for _ in range(2):
        offers.ended(offers.next([instance]), REJECTED, [instance])
    assert offers.next([instance]) == (Proposal("1.1", (IMPLICIT_VR_LITTLE_ENDIAN,)),)


def test_a_class_that_was_taken_once_is_refused_for_its_syntax() -> None:
    plain, compressed = of(1, EXPLICIT_VR_LITTLE_ENDIAN), of(1, JPEG_2000)
    offers = Offers()
    contexts = Contexts(offers.next([plain, compressed]))
    contexts.negotiate({1: (0, EXPLICIT_VR_LITTLE_ENDIAN), 3: (3, ""), 5: (3, "")})
    offers.accepted(contexts, [plain, compressed])
    contexts = Contexts(offers.next([compressed]))
    contexts.negotiate({1: (3, "")})
    offers.accepted(contexts, [compressed])
    assert offers.refusal(compressed) is classify_context(SYNTAX_REFUSED)


def test_an_acceptance_without_a_syntax_is_for_the_one_that_was_proposed() -> None:
    contexts = Contexts([Proposal("1.1", ("2.1",)), Proposal("1.2", ("2.1", "2.2"))])
    contexts.negotiate({1: (0, ""), 3: (0, "")})
    assert contexts.find("1.1", "2.1") == 1
    assert contexts.find("1.2", "2.1") is None
