"""Presentation contexts: what to propose for the instances at hand, and what the node took.

One context for each pair of SOP class and transfer syntax: where a context offers several
syntaxes the node picks one, and it need not be the one the stored bytes are in
(PS3.8 sections 9.3.2.2 and 9.3.3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from proxy.dicom.dimse import IMPLICIT_VR_LITTLE_ENDIAN, VERIFICATION
from proxy.dicom.pdu import Proposal
from proxy.model import Instance

MAX_CONTEXTS = 128
"""Context ids are the odd numbers of one byte."""

CLASS_REFUSED, SYNTAX_REFUSED = 3, 4
"""Results of a presentation context (PS3.8 Table 9-18)."""

ECHO = Proposal(VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))


def plan(instances: Iterable[Instance], limit: int = MAX_CONTEXTS) -> list[tuple[Proposal, ...]]:
    """What to propose for ``instances``, in their order: one tuple for each association needed.

    Each has up to ``limit`` contexts.
    """
    pairs = dict.fromkeys((i.sop_class_uid, i.transfer_syntax_uid) for i in instances)
    proposals = [Proposal(sop_class, (syntax,)) for sop_class, syntax in pairs]
    return [tuple(proposals[at : at + limit]) for at in range(0, len(proposals), limit)]


class Contexts:
    """The contexts of one association: proposed at first, negotiated once the node answered."""

    def __init__(self, proposals: Sequence[Proposal]) -> None:
        if not 1 <= len(proposals) <= MAX_CONTEXTS:
            raise ValueError(f"{len(proposals)} presentation contexts; 1 to {MAX_CONTEXTS} fit")
        self.proposed = {2 * n + 1: proposal for n, proposal in enumerate(proposals)}
        self._accepted: dict[tuple[str, str], int] = {}
        self._refused: dict[tuple[str, str], int] = {}

    def negotiate(self, answer: dict[int, tuple[int, str]]) -> None:
        """Take in the node's result and syntax for each context; what was not proposed is void."""
        for context_id, proposal in self.proposed.items():
            result, syntax = answer.get(context_id, (None, ""))
            if result == 0 and syntax in proposal.transfer_syntax_uids:
                self._accepted.setdefault((proposal.sop_class_uid, syntax), context_id)
            elif result:
                for refused in proposal.transfer_syntax_uids:
                    self._refused[proposal.sop_class_uid, refused] = result

    def find(self, sop_class_uid: str, transfer_syntax_uid: str) -> int | None:
        """Return the id of the accepted context for such an instance, None if there is none."""
        return self._accepted.get((sop_class_uid, transfer_syntax_uid))

    def refusal(self, sop_class_uid: str, transfer_syntax_uid: str) -> int | None:
        """Return the result (PS3.8 Table 9-18) by which such an instance was refused, if any.

        Some nodes give the SOP class as the reason where it is the syntax: not where they took
        the class in another one.
        """
        result = self._refused.get((sop_class_uid, transfer_syntax_uid))
        if result == CLASS_REFUSED and any(taken == sop_class_uid for taken, _ in self._accepted):
            return SYNTAX_REFUSED
        return result
