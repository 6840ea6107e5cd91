"""One DICOM association to a node, for callers with messages to send (PS3.7).

It negotiates contexts and exchanges messages. The protocol below it is in
``proxy.dicom.provider``, the messages are in ``proxy.dicom.storage`` and ``proxy.dicom.find``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec
import trio

from proxy.dicom import pdu
from proxy.dicom.contexts import Contexts
from proxy.dicom.dimse import InvalidMessage, MessageReader, Response, is_same_uid
from proxy.dicom.provider import Provider
from proxy.errors import AssociationLost, NodeError
from proxy.machines.upper_layer import Clocks
from proxy.runtime.wire import Buffer, Network, lost

__all__ = ["Association", "Clocks", "Target", "associate"]

_OWN_PDU_LIMIT = 128 * 1024
_PDV_HEADER = 6
_BLOCK_BYTES = 1 << 20
_BLOCK_FRAGMENTS = 500
"""With the two buffers of each fragment's PDU, a block stays below the limit of one sendmsg."""
_MEGABYTE = 1_000_000
_LOOK_SECONDS = 1.0
"""Seconds after which the kernel is asked again for the bytes it still has to deliver."""
_ANSWERED = 256
"""So many answered messages are kept, to know their answers again; a repeat comes at once."""
_MAX_PENDING = 64
"""The most answers to one C-FIND; the queries of this program have one."""


class Target(msgspec.Struct, frozen=True):
    """The node to ask for an association, and our AE title.

    ``max_pdu_size`` is the longest PDU that we announce to receive, in bytes.
    """

    host: str
    port: int
    called_ae_title: str
    calling_ae_title: str
    max_pdu_size: int = 16384


class Due(NamedTuple):
    """The response that is due to a message: its context, its kind and the id of the message.

    It may name only ``sop_instance_uid``, or any instance if that is empty.
    """

    context_id: int
    command_field: int
    message_id: int
    sop_instance_uid: str

    def is_met_by(self, context_id: int, response: Response) -> bool:
        """Whether a response received in a context is this one (PS3.7 section 9.3)."""
        answers = context_id, response.command_field, response.message_id
        is_it = answers == self[:3]
        named, due = response.sop_instance_uid, self.sop_instance_uid
        return is_it and not (due and named and not is_same_uid(named, due))


@asynccontextmanager
async def associate(
    network: Network, target: Target, proposals: Sequence[pdu.Proposal], clocks: Clocks
) -> AsyncIterator[Association]:
    """Hold an association for the length of the block.

    At a normal end it is released; a node that does not answer the release is no error. At an error
    or a cancellation it is aborted, and its socket is closed within ``clocks.abort`` even if the
    node has stopped reading.

    Raises :class:`proxy.errors.NodeUnreachable`, :class:`proxy.errors.AssociationRejected` or
    :class:`proxy.errors.AssociationLost`.
    """
    association = Association(target, proposals, clocks)
    try:
        await association.open(network)
        yield association
        await association.release()
    finally:
        with trio.move_on_after(clocks.abort, shield=True):
            await association.abort()
        association.close()


class Association:
    """An open association; :func:`associate` makes one.

    After an error or a cancellation, ``sent_whole`` says whether the last byte of a message without
    an answer was handed to the kernel. If it was not, the node cannot have stored the message.
    ``refusal`` is the answer to a message that is not completely sent: a failure may come early
    (PS3.7 section 9.3.1).
    """

    def __init__(self, target: Target, proposals: Sequence[pdu.Proposal], clocks: Clocks) -> None:
        self.contexts = Contexts(proposals)
        self.fragment_size = 0
        self._buffer = memoryview(b"")
        self.sent_whole = False
        self._clocks = clocks
        self._target = target
        self._provider = Provider(clocks, self)
        self._messages = MessageReader()
        self._responses: list[Response] = []
        self._due: Due | None = None
        self._answered: dict[int, Due] = {}
        """The last messages that were answered, by their ids."""
        self._message_id = 0

    @property
    def established(self) -> bool:
        """Whether messages can be sent."""
        return self._provider.established

    @property
    def local_address(self) -> str:
        """Our own address towards the node."""
        return self._provider.local_address

    async def open(self, network: Network) -> None:
        """Connect and negotiate; raises as :func:`associate` does."""
        await self._provider.open(network, self._target.host, self._target.port)

    @property
    def release_problem(self) -> NodeError | None:
        """The error for which the node did not answer the release; None if it did.

        All messages are answered by then, so their outcomes stand.
        """
        return self._provider.release_problem

    async def release(self) -> None:
        """Release, unless it is over already. A failure of the release is no error."""
        await self._provider.release()

    async def abort(self) -> None:
        """Abort, unless it is over, and wait for the node to close if the abort can reach it."""
        await self._provider.abort()

    def give_up(self, code: str) -> AssociationLost:
        """Abort for ``code`` of :class:`AssociationLost`, and return the error to raise."""
        return self._provider.give_up(code)

    def close(self) -> None:
        """Close the socket, and free the buffer now: a reference cycle would keep it long."""
        self._provider.close()
        self._buffer = memoryview(b"")

    @property
    def buffer(self) -> memoryview:
        """The buffer to read data sets into, in blocks of complete fragments.

        Raises :class:`proxy.errors.AssociationLost` if there is no association to send on.
        """
        self._provider.check()
        if not self._buffer:
            raise lost("closed")
        return self._buffer

    def begin(self, context_id: int, answer: int, sop_instance_uid: str = "") -> int:
        """Begin a message in a context; return its id. ``answer`` is the response's command field.

        The response may name no other instance than ``sop_instance_uid``, if that is given. A node
        that left in the meantime is noticed here, before anything is sent.

        Raises :class:`proxy.errors.AssociationLost`.
        """
        self.sent_whole = False
        if not self._provider.begin():
            raise lost("closed")
        self._message_id = self._message_id % 0xFFFF + 1
        self._answered.pop(self._message_id, None)
        self._due = Due(context_id, answer, self._message_id, sop_instance_uid)
        return self._message_id

    async def send(self, buffers: list[Buffer], *, is_last: bool = True) -> None:
        """Send complete PDUs of a message, as :meth:`Provider.send`; ``is_last`` ends the message.

        Raises :class:`proxy.errors.AssociationLost`.
        """
        await self._provider.send(buffers)
        self.sent_whole = is_last

    @property
    def refusal(self) -> Response | None:
        """The answer that came before the end of its request."""
        return None if self.sent_whole or self._due else next(iter(self._responses), None)

    async def exchange(
        self, context_id: int, command: bytes, identifier: bytes = b""
    ) -> list[Response]:
        """Send a short message, and wait for its responses as :meth:`responses` does.

        Raises :class:`proxy.errors.AssociationLost`.
        """
        size = self.fragment_size
        message = [*pdu.fragments(memoryview(command), context_id, size, is_command=True)]
        if identifier:
            message += pdu.fragments(memoryview(identifier), context_id, size)
        await self.send(message)
        return await self.responses(len(command) + len(identifier))

    async def responses(self, sent_bytes: int) -> list[Response]:
        """Return the pending responses and the final one to a message of ``sent_bytes``.

        The time limit for all of them begins when the node's host has the last byte. On a slow
        line the kernel may need minutes to deliver the bytes it took from us; until then the limit
        of a stall applies.

        Raises :class:`proxy.errors.AssociationLost`.
        """
        patience = self._clocks.response
        patience += self._clocks.response_per_megabyte * sent_bytes / _MEGABYTE
        moved_at, queued = trio.current_time(), self._provider.queued()
        while True:
            until = moved_at + (self._clocks.stall if queued else patience)
            with trio.move_on_at(min(until, trio.current_time() + _LOOK_SECONDS)):
                while self._due is not None and self._provider.error is None:
                    await self._provider.listen()
            if self._responses and self._due is None:
                self.sent_whole = False
                complete, self._responses = self._responses, []
                return complete
            self._provider.check()
            if (left := self._provider.queued()) < queued:
                moved_at, queued = trio.current_time(), left
            elif trio.current_time() >= until:
                raise self.give_up("stalled" if queued else "timeout")

    def agree(self, answer: pdu.Accept) -> None:
        """Apply the node's answer: its longest PDU limits ours, fragments have even length."""
        self.contexts.negotiate(answer.contexts)
        longest = min(answer.max_pdu_size or _OWN_PDU_LIMIT, _OWN_PDU_LIMIT)
        self.fragment_size = (longest - _PDV_HEADER) // 2 * 2
        if self.fragment_size < 2:
            self.give_up("pdu")
            return
        fragments = min(_BLOCK_BYTES // self.fragment_size, _BLOCK_FRAGMENTS)
        self._buffer = memoryview(bytearray(fragments * self.fragment_size))

    def join(self, pdvs: tuple[pdu.Pdv, ...]) -> None:
        """Join fragments to responses, and take only those that are due (PS3.7 section 9.3)."""
        try:
            for pdv in pdvs:
                response = self._messages.add(pdv)
                if response is not None:
                    self._take(pdv.context_id, response)
        except InvalidMessage:
            self._responses.clear()
            self.give_up("protocol")

    def _take(self, context_id: int, response: Response) -> None:
        """Take the response that is due; it must come in the context of its message.

        Some nodes send each response twice: one to a message that is answered says nothing new.
        """
        answered = self._answered.get(response.message_id)
        if answered is not None and answered.is_met_by(context_id, response):
            return
        if self._due is None or not self._due.is_met_by(context_id, response):
            raise InvalidMessage("a response that is not due")
        if not (self.sent_whole or response.is_failure):
            raise InvalidMessage("a success before the end of its request")
        self._provider.allow()
        self._responses.append(response)
        if not response.is_pending:
            self._remember(self._due)
            self._due = None
        elif len(self._responses) > _MAX_PENDING:
            raise InvalidMessage("answers without end")

    def _remember(self, answered: Due) -> None:
        self._answered[answered.message_id] = answered
        if len(self._answered) > _ANSWERED:
            del self._answered[next(iter(self._answered))]

    def request(self) -> bytes:
        """Encode A-ASSOCIATE-RQ."""
        target = self._target
        return pdu.encode_associate_request(
            target.called_ae_title,
            target.calling_ae_title,
            self.contexts.proposed,
            target.max_pdu_size,
        )
