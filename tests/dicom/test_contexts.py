from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dicom.contexts import Contexts, plan
from proxy.dicom.pdu import Proposal
from proxy.model import Instance


def instance(sop_class: int, syntax: int) -> Instance:
    return Instance(f"1.{sop_class}", "1.2", f"2.{syntax}", "1", "1", "", 10, 0)


@given(
    st.lists(st.builds(instance, st.integers(0, 30), st.integers(0, 20)), max_size=400),
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
    assert len({*pairs}) == len(pairs)
    assert {*pairs} == {(i.sop_class_uid, i.transfer_syntax_uid) for i in instances}
    assert len(planned) == -(-len(pairs) // limit)


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
