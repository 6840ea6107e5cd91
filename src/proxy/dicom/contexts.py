"""Presentation contexts: those to propose for some instances, and those that the node accepted.

There is one context for each pair of SOP class and transfer syntax: if a context offers several
syntaxes the node picks one, and it need not be the one of the stored bytes
(PS3.8 sections 9.3.2.2 and 9.3.3.2). An instance that can be converted without loss is also offered
in the syntaxes to convert to, for nodes that accept only the default (PS3.5 section 10.1).

A node may accept fewer contexts than it could: one for each class or association, or so many. What
is left is proposed on further associations, until the node accepts nothing more.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from proxy.dicom.dimse import VERIFICATION
from proxy.dicom.pdu import Proposal
from proxy.machines.failures import Failure, Remedy, classify_context
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

DEFINITE = frozenset({0, 3, SYNTAX_REFUSED})
"""The results of a context that is not usable that name the reason; 0 came with a foreign syntax.

By the others a node may mean the number of contexts, or their company.
"""

FALLBACKS = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""The syntaxes to convert to if the node does not accept the instance's own; best first."""

CONVERTIBLE = frozenset({*FALLBACKS, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN})
"""The syntaxes that can be converted: compressed pixel data are never decompressed."""

ECHO = Proposal(VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))


def plan(
    instances: Iterable[Instance],
    limit: int = MAX_CONTEXTS,
    refused: Container[Proposal] = frozenset(),
) -> list[tuple[Proposal, ...]]:
    """The proposals for ``instances``, in their order: one tuple for each association needed.

    Each tuple has up to ``limit`` contexts, none of them ``refused``. All convertible syntaxes of
    one SOP class are in one association, together with the syntaxes to convert to, if they fit.
    """
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for each in instances:
        syntax = each.transfer_syntax_uid
        key = each.sop_class_uid, "" if syntax in CONVERTIBLE else syntax
        groups.setdefault(key, {})[syntax] = None
    planned: list[list[Proposal]] = []
    for (sop_class, alone), syntaxes in groups.items():
        others = () if alone else FALLBACKS
        offered = (Proposal(sop_class, (syntax,)) for syntax in dict.fromkeys([*syntaxes, *others]))
        left = [each for each in offered if each not in refused]
        for proposals in (left[at : at + limit] for at in range(0, len(left), limit)):
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
            if result == 0 and not syntax and len(proposal.transfer_syntax_uids) == 1:
                (syntax,) = proposal.transfer_syntax_uids
            if result == 0 and syntax in proposal.transfer_syntax_uids:
                self._accepted.setdefault((proposal.sop_class_uid, syntax), context_id)
            elif result is not None:
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

    def is_usable(self, instance: Instance) -> bool:
        """Whether such an instance can be sent, as it is or converted."""
        uids = instance.sop_class_uid, instance.transfer_syntax_uid
        return self.find(*uids) is not None or self.fallback(*uids) is not None

    def takes(self, proposal: Proposal) -> bool:
        """Whether the node accepted a proposal of one transfer syntax."""
        return self.find(*_uids(proposal)) is not None

    def refusal(self, sop_class_uid: str, transfer_syntax_uid: str) -> int | None:
        """Return the result (PS3.8 Table 9-18) by which such an instance was refused, if any.

        Some nodes refuse a syntax with the SOP class as the reason, or with no reason. If the node
        accepted the class in another syntax, the reason is the syntax.
        """
        if any(taken == sop_class_uid for taken, _ in self._accepted):
            return SYNTAX_REFUSED
        return self._refused.get((sop_class_uid, transfer_syntax_uid))


class Offers:
    """The proposals of one delivery to its node, by what the node has answered so far.

    A refusal whose reason the node has named is final. One that it has not is final only in an
    association for one context: before, fewer contexts are proposed at a time. Where the node ends
    or rejects the association instead, the refusal holds until :meth:`begin`, for the next attempt:
    a node that starts does so too.
    """

    def __init__(self) -> None:
        self._limit = MAX_CONTEXTS
        self._taken: set[str] = set()
        """The SOP classes of which the node has accepted a context."""
        self._refused: dict[Proposal, Failure] = {}

    def begin(self) -> None:
        """Begin an attempt: propose again what was refused for what may have been the moment."""
        final = {each: row for each, row in self._refused.items() if not _is_passing(row)}
        self._refused = final

    def next(self, instances: Iterable[Instance], *, spare: int = 0) -> tuple[Proposal, ...]:
        """Return the proposals for the next association; empty if all of them are refused.

        ``spare`` contexts are left for other services.
        """
        limit = min(self._limit, MAX_CONTEXTS - spare)
        return next(iter(plan(instances, limit, self._refused)), ())

    def refusal(self, instance: Instance) -> Failure | None:
        """Return the reason for which an instance cannot be sent; None while it may be."""
        own, *others = proposals_for(instance)
        if not self._refused.keys() >= {own, *others}:
            return None
        return self._refused[own]

    def accepted(self, contexts: Contexts, instances: Iterable[Instance]) -> None:
        """Learn from an accepted association, whose contexts were proposed for ``instances``."""
        proposed = [*contexts.proposed.values()]
        usable = any(contexts.is_usable(each) for each in instances)
        self._taken |= {each.sop_class_uid for each in proposed if contexts.takes(each)}
        if usable:
            return
        wanted = {each for instance in instances for each in proposals_for(instance)}
        results = {each: contexts.refusal(*_uids(each)) for each in proposed if each in wanted}
        final = {each: result for each, result in results.items() if result in DEFINITE}
        if not final and len(results) > 1:
            self._narrow(len(results))
            return
        for each, result in (final or results).items():
            is_syntax = each.sop_class_uid in self._taken and result != 0
            self._refused[each] = classify_context(SYNTAX_REFUSED if is_syntax else result)

    def ended(
        self, proposed: Sequence[Proposal], row: Failure, instances: Iterable[Instance]
    ) -> None:
        """Learn from an association that the node rejected, or ended before it answered anything.

        One that ended after it was accepted says nothing for other syntaxes of an instance.
        """
        if len(proposed) > 1:
            self._narrow(len(proposed))
            return
        self._refused.update(dict.fromkeys(proposed, row))
        if row is not classify_context("rejected"):
            for instance in instances:
                self._refused.update(dict.fromkeys(proposals_for(instance), row))

    def _narrow(self, proposed: int) -> None:
        self._limit = max(min(self._limit, proposed) // 2, 1)


def proposals_for(instance: Instance) -> list[Proposal]:
    """Return the contexts in which an instance can be sent: its own, and those to convert to."""
    own = instance.transfer_syntax_uid
    others = [each for each in FALLBACKS if each != own] if own in CONVERTIBLE else []
    return [Proposal(instance.sop_class_uid, (syntax,)) for syntax in (own, *others)]


def _uids(proposal: Proposal) -> tuple[str, str]:
    return proposal.sop_class_uid, proposal.transfer_syntax_uids[0]


def _is_passing(row: Failure) -> bool:
    return row.remedy is Remedy.RETRY_LATER
