"""The ways in which a simulated node misbehaves, and the count of those it has shown.

A node asks for a kind at the moment which that kind spoils. If one is armed it fires, and the node
acts accordingly. A kind that cannot take effect at such a moment does not fire.
"""

from __future__ import annotations

import sys
from collections import Counter
from enum import StrEnum

import msgspec

ALWAYS = sys.maxsize
"""For ``times``: a trait of the node rather than a fault."""


class Kind(StrEnum):
    """One way to misbehave, with the moment it spoils.

    ``code``, ``after`` and ``seconds`` are those of :class:`Misbehaviour`. A silent node reads on
    and says nothing more in that association.
    """

    # At A-ASSOCIATE-RQ.

    REJECT = "reject"
    """A-ASSOCIATE-RJ with ``code``, 0xRRSSTT: result, source, reason; 0 stands for 0x010101."""
    ASSOCIATION_UNANSWERED = "association_unanswered"
    """A-ASSOCIATE-RQ gets no answer; the node is silent."""
    ASSOCIATION_ABORTED = "association_aborted"
    """A-ASSOCIATE-RQ is answered by A-ABORT with ``code``, 0xSSTT: source, reason."""
    ASSOCIATION_CLOSED = "association_closed"
    """The connection closes at A-ASSOCIATE-RQ without a word."""
    ONE_ASSOCIATION = "one_association"
    """While another association is open, A-ASSOCIATE-RJ as by REJECT; 0 stands for 0x020302."""
    ACCEPTED_THEN_ABORTED = "accepted_then_aborted"
    """The association is accepted, and A-ABORT with ``code`` (0xSSTT) follows at once."""
    CONTEXTS_REFUSED = "contexts_refused"
    """The association is accepted, and each context refused with result ``code``, or else 3."""
    ECHO_CONTEXT_REFUSED = "echo_context_refused"
    """The context of Verification is refused with result ``code``, or else 3."""
    FIND_CONTEXT_REFUSED = "find_context_refused"
    """The context of C-FIND is refused with result ``code``, or else 3."""
    CLASS_REFUSED = "class_refused"
    """One of the SOP classes proposed for storage is refused; ``code`` modulo their number."""
    FIRST_SYNTAX_ONLY = "first_syntax_only"
    """Each SOP class is accepted in the transfer syntax proposed first, and in no other context."""
    IMPLICIT_ONLY = "implicit_only"
    """Contexts for storage are accepted only in Implicit VR Little Endian."""
    PDU_LIMIT = "pdu_limit"
    """The longest PDU that the node announces to take is ``code`` bytes; 0 is unlimited."""
    FORGET = "forget"
    """The node has lost all that it stored when the association is requested."""

    # At C-ECHO.

    ECHO_STATUS = "echo_status"
    """C-ECHO is answered with status ``code``."""
    ECHO_ABORTED = "echo_aborted"
    """C-ECHO is answered by A-ABORT with ``code``, 0xSSTT: source, reason."""
    ECHO_UNANSWERED = "echo_unanswered"
    """C-ECHO gets no answer; the node is silent."""

    # In a data set: after ``after`` bytes of it, or at its end if it is shorter.

    ABORTED_IN_DATA = "aborted_in_data"
    """A-ABORT with ``code`` (0xSSTT) comes in a data set; nothing is stored."""
    CLOSED_IN_DATA = "closed_in_data"
    """The connection closes in a data set; nothing is stored."""
    STALL = "stall"
    """The node stops reading for ``seconds`` in a data set, and goes on then."""
    EARLY_STATUS = "early_status"
    """The C-STORE response comes before the end of the data set, with status ``code``."""

    # At the end of a data set.

    CLOSED_BEFORE_STORING = "closed_before_storing"
    """The connection closes after the last byte of a data set; nothing is stored."""
    STORE_STATUS = "store_status"
    """C-STORE is answered with status ``code``; with a failure nothing is stored.

    0111H, duplicate SOP instance, is true: if the node has no such instance, it keeps this one.
    """
    ANSWER_LOST = "answer_lost"
    """The instance is stored, and the connection closes without an answer."""
    STORE_UNANSWERED = "store_unanswered"
    """The instance is stored and gets no answer; the node is silent."""
    WRONG_UID = "wrong_uid"
    """The instance is stored, and the response names another SOP instance."""
    RELEASE_BY_NODE = "release_by_node"
    """After its response to a C-STORE the node requests release; what still comes it ignores."""

    # At any response to a message.

    WRONG_MESSAGE_ID = "wrong_message_id"
    """The response names another message id."""
    DUPLICATE_RESPONSE = "duplicate_response"
    """The final response is sent twice."""

    # At any answer, to A-ASSOCIATE-RQ and A-RELEASE-RQ too.

    LATE = "late"
    """The answer comes ``seconds`` late."""
    DRIP = "drip"
    """The answer comes byte by byte, with ``seconds`` between two of them."""
    GARBAGE = "garbage"
    """Bytes that are no PDU come in place of the answer, the node is silent; ``code`` modulo 4.

    0: by chance, 1: HTTP, 2: a TLS alert, 3: SMTP.
    """
    HALF_PDU = "half_pdu"
    """One half of the answer comes; the node is silent."""
    HUGE_PDU = "huge_pdu"
    """A PDU of 4 GiB is announced in place of the answer and its beginning sent; then silence."""
    FLOOD = "flood"
    """Small PDUs come in place of the answer, as many as the stream takes, ready at once.

    ``code`` modulo 5 chooses them: 0: P-DATA-TF without content, 1: A-RELEASE-RQ, 2: empty
    fragments of a command, 3: responses to nothing, 4: heads of P-DATA-TF of 4 GiB, the others
    being the content of the first. Meanwhile the node reads nothing. After about ``after`` bytes it
    is silent; with 0 it goes on until the stream breaks. ``seconds`` pass between two bursts of
    64 KiB: on a virtual clock no time passes without.
    """

    # At A-RELEASE-RQ.

    RELEASE_UNANSWERED = "release_unanswered"
    """A-RELEASE-RQ gets no answer; the node is silent."""
    RELEASE_ABORTED = "release_aborted"
    """A-RELEASE-RQ is answered by A-ABORT with ``code``, 0xSSTT: source, reason."""
    RELEASE_COLLISION = "release_collision"
    """The node asked for release at the same time: its A-RELEASE-RQ comes, then its answer."""
    RELEASE_CLOSED = "release_closed"
    """The connection closes at A-RELEASE-RQ without an answer."""

    # At C-FIND.

    FIND_STATUS = "find_status"
    """C-FIND is answered with status ``code`` alone."""
    FIND_EMPTY = "find_empty"
    """C-FIND is answered as if the node had nothing."""
    FIND_CLAIMS_ALL = "find_claims_all"
    """C-FIND is answered as if the node had what it is asked for."""


IN_DATA = (Kind.ABORTED_IN_DATA, Kind.CLOSED_IN_DATA, Kind.STALL, Kind.EARLY_STATUS)
"""The kinds that count bytes."""


class Misbehaviour(msgspec.Struct, frozen=True):
    """One misbehaviour to come: it spoils ``times`` of its moments, after ``skip`` good ones.

    ``code`` is a status, a reason or a choice, ``after`` a number of bytes, ``seconds`` a time; the
    kind says which of them it uses.
    """

    kind: Kind
    times: int = 1
    skip: int = 0
    code: int = 0
    after: int = 0
    seconds: float = 0.0


class _Armed(msgspec.Struct):
    misbehaviour: Misbehaviour
    skip: int
    times: int


class Misbehaviours:
    """The misbehaviours that a node has still to show; ``hits`` counts those it has shown.

    Several of one kind count their moments side by side, each from when it was armed. At one
    moment one of them fires: the first that has no moment left to skip.
    """

    def __init__(self) -> None:
        self.hits: Counter[Kind] = Counter()
        self._armed: dict[Kind, list[_Armed]] = {}

    def arm(self, misbehaviour: Misbehaviour) -> None:
        """Add one."""
        armed = _Armed(misbehaviour, misbehaviour.skip, misbehaviour.times)
        if armed.times > 0:
            self._armed.setdefault(misbehaviour.kind, []).append(armed)

    def disarm(self) -> None:
        """Drop all that have not fired."""
        self._armed.clear()

    def fires(self, kind: Kind) -> Misbehaviour | None:
        """Tell that a moment of this kind has come; return the misbehaviour that spoils it."""
        if not self._armed:
            return None  # as nearly always: to look an enum up takes time
        armed = self._armed.get(kind)
        if armed is None:
            return None
        firing = None
        for each in armed:
            if each.skip:
                each.skip -= 1
            elif firing is None:
                firing = each
        if firing is None:
            return None
        firing.times -= 1
        if not firing.times:
            armed.remove(firing)
            if not armed:
                del self._armed[kind]
        self.hits[kind] += 1
        return firing.misbehaviour

    @property
    def count_bytes(self) -> bool:
        """Whether one is armed for which the node must not read ahead."""
        return not self._armed.keys().isdisjoint(IN_DATA)
