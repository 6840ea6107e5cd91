"""The answer of a simulated node to the presentation contexts proposed (PS3.8 section 9.3.3.2)."""

from __future__ import annotations

from proxy.simulation import node_bytes as codec
from proxy.simulation.misbehaviour import Kind, Misbehaviours
from proxy.simulation.node_bytes import AssociationRequest

SOP_CLASS_NOT_SUPPORTED, SYNTAXES_NOT_SUPPORTED = 3, 4
"""Results of a presentation context (PS3.8 Table 9-18)."""

QUERY_SYNTAXES = (codec.IMPLICIT_VR_LITTLE_ENDIAN, codec.EXPLICIT_VR_LITTLE_ENDIAN)


def negotiate(
    request: AssociationRequest, misbehaviours: Misbehaviours
) -> dict[int, tuple[int, str]]:
    """Return the result and the transfer syntax for each context.

    A node takes Verification, C-FIND of the study root, and every other SOP class for storage.
    """
    refused = _refused(request, misbehaviours)
    stores = any(_is_storage(sop_class) for _, sop_class, _ in request.contexts)
    first_only = stores and misbehaviours.fires(Kind.FIRST_SYNTAX_ONLY)
    implicit_only = stores and misbehaviours.fires(Kind.IMPLICIT_ONLY)
    answers = {}
    seen: set[str] = set()
    for context_id, sop_class, syntaxes in request.contexts:
        result, syntax = _usual_answer(sop_class, syntaxes)
        if sop_class in refused:
            result = refused[sop_class]
        elif _is_storage(sop_class):
            if implicit_only:
                syntax = codec.IMPLICIT_VR_LITTLE_ENDIAN
                result = 0 if syntax in syntaxes else SYNTAXES_NOT_SUPPORTED
            if first_only and sop_class in seen:
                result = SYNTAXES_NOT_SUPPORTED
            seen.add(sop_class)
        answers[context_id] = result, syntax
    return answers


def _refused(request: AssociationRequest, misbehaviours: Misbehaviours) -> dict[str, int]:
    """Return the SOP classes to refuse, with the result."""
    refused: dict[str, int] = {}
    classes = [*dict.fromkeys(sop_class for _, sop_class, _ in request.contexts)]
    for kind, affected in (
        (Kind.CONTEXTS_REFUSED, classes),
        (Kind.ECHO_CONTEXT_REFUSED, [each for each in classes if each == codec.VERIFICATION]),
        (Kind.FIND_CONTEXT_REFUSED, [each for each in classes if each == codec.STUDY_ROOT_FIND]),
    ):
        if affected and (refusal := misbehaviours.fires(kind)):
            refused |= dict.fromkeys(affected, refusal.code or SOP_CLASS_NOT_SUPPORTED)
    storage = [each for each in classes if _is_storage(each)]
    if storage and (refusal := misbehaviours.fires(Kind.CLASS_REFUSED)):
        refused[storage[refusal.code % len(storage)]] = SOP_CLASS_NOT_SUPPORTED
    return refused


def _is_storage(sop_class: str) -> bool:
    return sop_class != codec.VERIFICATION and not sop_class.startswith(codec.QUERY_CLASSES)


def _usual_answer(sop_class: str, syntaxes: tuple[str, ...]) -> tuple[int, str]:
    """Accept the first transfer syntax; for queries, the first that the node reads."""
    if not sop_class.startswith(codec.QUERY_CLASSES):
        return 0, syntaxes[0]
    if sop_class != codec.STUDY_ROOT_FIND:
        return SOP_CLASS_NOT_SUPPORTED, syntaxes[0]
    syntax = next((each for each in syntaxes if each in QUERY_SYNTAXES), None)
    return (0, syntax) if syntax else (SYNTAXES_NOT_SUPPORTED, syntaxes[0])
