"""Presentation contexts: those to propose for some instances, and those that the node accepted.

There is one context for each pair of SOP class and transfer syntax: if a context offers several
syntaxes the node picks one, and it need not be the one of the stored bytes
(PS3.8 sections 9.3.2.2 and 9.3.3.2). An instance that can be converted without loss is offered once
more, in a context of its own, for nodes that accept only the default (PS3.5 section 10.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from proxy.dicom.dimse import VERIFICATION
from proxy.dicom.pdu import Proposal
from proxy.model import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Instance,
)

MAX_CONTEXTS = 128
"""Context ids are the odd numbers of one byte."""

SYNTAX_REFUSED = 4
"""The result of a presentation context whose transfer syntaxes the node does not take."""

FALLBACKS = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""The syntaxes to convert to if the node does not accept the instance's own; best first."""

CONVERTIBLE = frozenset({*FALLBACKS, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN})
"""The syntaxes that can be converted: compressed pixel data are never decompressed."""

ECHO = Proposal(VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))


def plan(instances: Iterable[Instance], limit: int = MAX_CONTEXTS) -> list[tuple[Proposal, ...]]:
    """The proposals for ``instances``, in their order: one tuple for each association needed.

    Each tuple has up to ``limit`` contexts. All convertible syntaxes of one SOP class are in one
    association, together with the syntaxes to convert to.
    """
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for each in instances:
        syntax = each.transfer_syntax_uid
        key = each.sop_class_uid, "" if syntax in CONVERTIBLE else syntax
        groups.setdefault(key, {})[syntax] = None
    planned: list[list[Proposal]] = []
    for (sop_class, alone), syntaxes in groups.items():
        proposals = [Proposal(sop_class, (syntax,)) for syntax in syntaxes]
        others = tuple(syntax for syntax in FALLBACKS if syntax not in syntaxes)
        if others and not alone:
            proposals.append(Proposal(sop_class, others))
        if not planned or len(planned[-1]) + len(proposals) > limit:
            planned.append([])
        planned[-1] += proposals
    return [tuple(proposals) for proposals in planned]


class Contexts:
    """The contexts of one association: proposed at first, negotiated once the node answered."""

    def __init__(self, proposals: Sequence[Proposal]) -> None:
        if not 1 <= len(proposals) <= MAX_CONTEXTS:
            raise ValueError(f"{len(proposals)} presentation contexts; 1 to {MAX_CONTEXTS} fit")
        self.proposed = {2 * n + 1: proposal for n, proposal in enumerate(proposals)}
        self._accepted: dict[tuple[str, str], int] = {}
        self._refused: dict[tuple[str, str], int] = {}

    def negotiate(self, answer: dict[int, tuple[int, str]]) -> None:
        """Apply the node's result and syntax for each context; ignore those not proposed."""
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

    def fallback(self, sop_class_uid: str, transfer_syntax_uid: str) -> str | None:
        """Return the accepted transfer syntax that such an instance can be converted to, if any."""
        if transfer_syntax_uid not in CONVERTIBLE:
            return None
        taken = (s for s in FALLBACKS if (sop_class_uid, s) in self._accepted)
        return next((syntax for syntax in taken if syntax != transfer_syntax_uid), None)

    def refusal(self, sop_class_uid: str, transfer_syntax_uid: str) -> int | None:
        """Return the result (PS3.8 Table 9-18) by which such an instance was refused, if any.

        Some nodes refuse a syntax with the SOP class as the reason, or with no reason. If the node
        accepted the class in another syntax, the reason is the syntax.
        """
        if any(taken == sop_class_uid for taken, _ in self._accepted):
            return SYNTAX_REFUSED
        return self._refused.get((sop_class_uid, transfer_syntax_uid))
