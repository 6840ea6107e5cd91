"""A DICOM node in memory: an acceptor of C-STORE, C-ECHO and C-FIND that can misbehave.

It is written from PS3.7 and PS3.8, shares nothing with the program and serves any stream. Time is
trio's, chance is the ``Random`` it is given. It also judges: ``violations`` lists what a peer did
against the standard.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from random import Random
from typing import NoReturn

import msgspec
import trio

from proxy.simulation import node_bytes as codec
from proxy.simulation.misbehaviour import ALWAYS, Kind, Misbehaviour, Misbehaviours
from proxy.simulation.node_archive import LEVELS, NodeArchive, ReceivedInstance
from proxy.simulation.node_bytes import Violation
from proxy.simulation.node_contexts import negotiate
from proxy.simulation.node_wire import ConnectionOver, NodeWire

__all__ = ["ALWAYS", "Associations", "Kind", "Misbehaviour", "ReceivedInstance", "SimulatedNode"]

LOCAL_LIMIT_EXCEEDED = 0x020302
NO_REASON_GIVEN = 0x010101

ARTIM_S = 30.0
"""Seconds for the peer to close the connection after the release."""

HEAD_BYTES = 4096
"""As much of each data set is kept, for the UIDs that C-FIND asks for."""

BY_PROVIDER = 0x0200
"""The source of an A-ABORT for what breaks the standard (PS3.8 Table 9-26)."""

ANOTHER_UID = "2.25.1"


class Associations(msgspec.Struct):
    """The associations of a node: open now, the most at one time, accepted so far, rejected."""

    open: int = 0
    most: int = 0
    total: int = 0
    rejected: int = 0


class SimulatedNode:
    """A node, over all its connections.

    ``max_pdu`` is the longest PDU it announces to take, in bytes. Each answer takes it a time drawn
    from ``answer_s``, in seconds. If an instance comes once more, the node keeps the new content;
    without ``overwrites`` it keeps the old one, and answers success all the same.
    """

    def __init__(
        self,
        rng: Random,
        *,
        overwrites: bool = True,
        max_pdu: int = 16384,
        answer_s: tuple[float, float] = (0.001, 0.02),
    ) -> None:
        self.rng = rng
        self.overwrites = overwrites
        self.max_pdu = max_pdu
        self.answer_s = answer_s
        self.received: list[ReceivedInstance] = []
        self.archive = NodeArchive()
        self.holds = self.archive.holds
        """SOP Instance UID to SHA-256 of the data set, of the instances it keeps now."""
        self.associations = Associations()
        self.echoes = 0
        self.finds = 0
        self.released: set[int] = set()
        """The numbers of the associations whose release was asked for."""
        self.violations: list[str] = []
        self.misbehaviours = Misbehaviours()
        self.hits = self.misbehaviours.hits
        """How often each kind has fired."""

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to its end, and close it."""
        over = (ConnectionOver, trio.BrokenResourceError, trio.ClosedResourceError)
        async with stream:
            with suppress(*over):
                await _Connection(self, stream).serve()

    def misbehave(self, misbehaviour: Misbehaviour) -> None:
        """Arm a misbehaviour; it holds for all connections, also for those that are open."""
        self.misbehaviours.arm(misbehaviour)

    def behave(self) -> None:
        """Disarm all misbehaviours; a connection that is silent already stays so."""
        self.misbehaviours.disarm()

    def forget(self) -> None:
        """Lose all that was stored."""
        self.archive.forget()


class _Message:
    """A request whose data set is still to come."""

    __slots__ = ("command", "context_id", "digest", "head", "received")

    def __init__(
        self, context_id: int, command: dict[int, bytes], received: ReceivedInstance | None
    ) -> None:
        self.context_id = context_id
        self.command = command
        self.received = received
        """None for a query."""
        self.digest = hashlib.sha256()
        self.head = b""


class _Connection:
    """One connection, from A-ASSOCIATE-RQ to its end."""

    def __init__(self, node: SimulatedNode, stream: trio.abc.Stream) -> None:
        self._node = node
        self._wire = NodeWire(stream, node.rng, node.answer_s, node.misbehaviours)
        self._fires = node.misbehaviours.fires
        self._contexts: dict[int, tuple[str, str]] = {}
        """SOP class and transfer syntax of the accepted ones."""
        self._peer_limit = 0
        """The longest PDU that the peer takes; 0 is unlimited."""
        self._number = 0
        self._is_open = False
        self._releasing = self._collided = False
        self._began = 0.0
        self._command = b""
        self._message: _Message | None = None

    async def serve(self) -> None:
        """Serve to the end; raises :class:`ConnectionOver`."""
        try:
            await self._associate()
            while True:
                await self._take(*await self._wire.pdu())
        except Violation as violation:
            self._node.violations.append(str(violation))
            await self._wire.abort(BY_PROVIDER | violation.reason)
        finally:
            self._leave()

    async def _take(self, kind: int, body: bytes) -> None:
        """Take a PDU once the association is there."""
        match kind:
            case codec.P_DATA_TF:
                await self._take_data(body)
            case codec.RELEASE_RQ:
                await self._release()
            case codec.RELEASE_RP if self._releasing:
                await self._end_own_release()
            case codec.ABORT:
                raise ConnectionOver
            case _:
                raise Violation(f"PDU {kind:02X}H is not due", codec.UNEXPECTED_PDU)

    # The association ---------------------------------------------------------------------------

    async def _associate(self) -> None:
        kind, body = await self._wire.pdu()
        if kind != codec.ASSOCIATE_RQ:
            raise Violation(f"PDU {kind:02X}H before the association", codec.UNEXPECTED_PDU)
        request = codec.read_request(body)
        if self._fires(Kind.FORGET):
            self._node.forget()
        await self._refuse()
        answers = negotiate(request, self._node.misbehaviours)
        for context_id, sop_class, _ in request.contexts:
            result, syntax = answers[context_id]
            if not result:
                self._contexts[context_id] = sop_class, syntax
        self._peer_limit = request.longest
        limited = self._fires(Kind.PDU_LIMIT)
        self._wire.limit = limited.code if limited else self._node.max_pdu
        self._enter()
        accepted = codec.accept(request, answers, self._wire.limit)
        if aborted := self._fires(Kind.ACCEPTED_THEN_ABORTED):
            await self._wire.answer(accepted + codec.abort(aborted.code))
            raise ConnectionOver
        await self._wire.answer(accepted)

    async def _refuse(self) -> None:
        """Do not accept the association, if the node is to misbehave so."""
        if rejected := self._fires(Kind.REJECT):
            await self._reject(rejected.code or NO_REASON_GIVEN)
        if self._node.associations.open and (rejected := self._fires(Kind.ONE_ASSOCIATION)):
            await self._reject(rejected.code or LOCAL_LIMIT_EXCEEDED)
        if self._fires(Kind.ASSOCIATION_UNANSWERED):
            await self._wire.be_silent()
        if aborted := self._fires(Kind.ASSOCIATION_ABORTED):
            await self._wire.abort(aborted.code)
        if self._fires(Kind.ASSOCIATION_CLOSED):
            raise ConnectionOver

    async def _reject(self, code: int) -> NoReturn:
        self._node.associations.rejected += 1
        await self._wire.answer(codec.reject(code))
        raise ConnectionOver

    def _enter(self) -> None:
        count = self._node.associations
        count.open += 1
        count.total += 1
        count.most = max(count.most, count.open)
        self._number = count.total
        self._is_open = True

    def _leave(self) -> None:
        self._node.associations.open -= self._is_open
        self._is_open = False

    async def _release(self) -> None:
        """Answer A-RELEASE-RQ; after a collision, the requestor answers first (PS3.8 AR-8)."""
        self._node.released.add(self._number)
        if self._releasing:
            self._collided = True
            return
        if self._fires(Kind.RELEASE_UNANSWERED):
            await self._wire.be_silent()
        if aborted := self._fires(Kind.RELEASE_ABORTED):
            await self._wire.abort(aborted.code)
        if self._fires(Kind.RELEASE_CLOSED):
            raise ConnectionOver
        if self._fires(Kind.RELEASE_COLLISION):
            self._releasing = self._collided = True
            await self._wire.answer(codec.RELEASE_REQUEST)
            return
        await self._wire.take_time()
        self._leave()
        await self._wire.send(codec.RELEASE_REPLY)
        with trio.move_on_after(ARTIM_S):
            await self._wire.be_silent()
        raise ConnectionOver

    async def _end_own_release(self) -> None:
        self._leave()
        if self._collided:
            await self._wire.send_now(codec.RELEASE_REPLY)
        raise ConnectionOver

    # Messages ----------------------------------------------------------------------------------

    async def _take_data(self, body: bytes) -> None:
        """Take the fragments of a P-DATA-TF."""
        at = 0
        while at < len(body):
            if at + 6 > len(body):
                raise Violation("a P-DATA-TF ends in a fragment's head")
            size, context_id, control = codec.PDV.unpack_from(body, at)
            at += 4 + size
            if size < 2 or at > len(body):
                raise Violation("a fragment is longer than its PDU")
            if context_id not in self._contexts:
                raise Violation("a fragment in a context that was not accepted")
            if size % 2:
                self._node.violations.append("a fragment of odd length")
            fragment = body[at - size + 2 : at]
            is_last = bool(control & 2)
            if control & 1:
                if is_last:  # its data set is waited for where it comes in
                    self._wire.put_back(body[at:])
                    at = len(body)
                await self._take_command(context_id, fragment, is_last=is_last)
            else:
                await self._take_data_set(context_id, fragment, is_last=is_last)

    async def _take_command(self, context_id: int, fragment: bytes, *, is_last: bool) -> None:
        if self._message:
            raise Violation("a command within a data set")
        if not self._command:
            self._began = trio.current_time()
        self._command += fragment
        if is_last:
            encoded, self._command = self._command, b""
            command = codec.read_command(encoded)
            if codec.number(command, 0x0800) == codec.NO_DATA_SET:
                await self._perform(context_id, command)
            else:
                await self._begin(context_id, command)

    async def _perform(self, context_id: int, command: dict[int, bytes]) -> None:
        """Perform a request that has no data set."""
        field = codec.number(command, 0x0100)
        if self._releasing or field == codec.C_CANCEL:
            return
        if field == codec.C_ECHO:
            await self._echo(context_id, command)
        else:
            self._node.violations.append(f"operation {field:04X}H without a data set")
            await self._respond(context_id, command, codec.UNRECOGNIZED_OPERATION)

    async def _echo(self, context_id: int, command: dict[int, bytes]) -> None:
        self._node.echoes += 1
        if self._fires(Kind.ECHO_UNANSWERED):
            await self._wire.be_silent()
        if aborted := self._fires(Kind.ECHO_ABORTED):
            await self._wire.abort(aborted.code)
        refused = self._fires(Kind.ECHO_STATUS)
        await self._respond(context_id, command, refused.code if refused else codec.SUCCESS)

    async def _begin(self, context_id: int, command: dict[int, bytes]) -> None:
        """Begin a request whose data set follows."""
        field = codec.number(command, 0x0100)
        sop_class, syntax = self._contexts[context_id]
        if codec.uid(command, 0x0002) != sop_class:
            raise Violation("a request of another SOP class than its context's")
        received = None
        if field == codec.C_STORE:
            uid = codec.uid(command, 0x1000)
            received = ReceivedInstance(self._began, sop_class, uid, syntax, self._number)
            self._node.received.append(received)
        elif field != codec.C_FIND:
            raise Violation(f"operation {field:04X}H with a data set", codec.UNEXPECTED_PDU)
        self._message = _Message(context_id, command, received)
        if received and not self._releasing:
            await self._spoil_data_set(self._message, received)

    async def _spoil_data_set(self, message: _Message, received: ReceivedInstance) -> None:
        if stall := self._fires(Kind.STALL):
            await self._wire.wait_for_data(stall.after)
            await trio.sleep(stall.seconds)
        if early := self._fires(Kind.EARLY_STATUS):
            await self._wire.wait_for_data(early.after)
            await self._respond_to_store(message, received, early.code)
        if aborted := self._fires(Kind.ABORTED_IN_DATA):
            await self._wire.wait_for_data(aborted.after)
            await self._wire.abort(aborted.code)
        if closed := self._fires(Kind.CLOSED_IN_DATA):
            await self._wire.wait_for_data(closed.after)
            raise ConnectionOver

    async def _take_data_set(self, context_id: int, fragment: bytes, *, is_last: bool) -> None:
        message = self._message
        if message is None or message.context_id != context_id:
            raise Violation("a data set that is not due")
        received = message.received
        if received is None:
            message.head += fragment
        else:
            received.size += len(fragment)
            message.digest.update(fragment)
            if len(message.head) < HEAD_BYTES:
                message.head += fragment[: HEAD_BYTES - len(message.head)]
        if is_last:
            self._message = None
            if received is not None:
                await self._end_store(message, received)
            elif not self._releasing:
                await self._find(message)

    async def _end_store(self, message: _Message, received: ReceivedInstance) -> None:
        received.sha256 = message.digest.hexdigest()
        if self._releasing:
            return
        if received.status is not None:
            if codec.is_stored(received.status):
                self._keep(message, received, received.status)
            return
        if self._fires(Kind.CLOSED_BEFORE_STORING):
            raise ConnectionOver
        refused = self._fires(Kind.STORE_STATUS)
        status = refused.code if refused else codec.SUCCESS
        if codec.is_stored(status):
            self._keep(message, received, status)
        if self._fires(Kind.ANSWER_LOST):
            raise ConnectionOver
        if self._fires(Kind.STORE_UNANSWERED):
            await self._wire.be_silent()
        await self._respond_to_store(message, received, status)
        if self._fires(Kind.RELEASE_BY_NODE):
            self._releasing = True
            await self._wire.send_now(codec.RELEASE_REQUEST)

    def _keep(self, message: _Message, received: ReceivedInstance, status: int) -> None:
        overwrites = self._node.overwrites and status != codec.DUPLICATE
        self._node.archive.keep(received, message.head, overwrites=overwrites)

    async def _respond_to_store(
        self, message: _Message, received: ReceivedInstance, status: int
    ) -> None:
        uid = ANOTHER_UID if self._fires(Kind.WRONG_UID) else received.sop_instance_uid
        await self._respond(message.context_id, message.command, status, uid)
        received.status = status
        received.answered_at = trio.current_time()

    async def _find(self, message: _Message) -> None:
        self._node.finds += 1
        context_id, command = message.context_id, message.command
        syntax = self._contexts[context_id][1]
        keys = codec.read_values(message.head, syntax, last=0xFFFFFFFF)
        level = keys.get(codec.LEVEL, b"").decode("ascii", "replace").strip()
        if refused := self._fires(Kind.FIND_STATUS):
            await self._respond(context_id, command, refused.code)
            return
        if level not in LEVELS:
            await self._respond(context_id, command, codec.IDENTIFIER_DOES_NOT_MATCH)
            return
        if self._fires(Kind.FIND_EMPTY):
            matches: list[bytes] = []
        elif self._fires(Kind.FIND_CLAIMS_ALL):
            matches = [message.head]
        else:
            depth = LEVELS.index(level) + 1
            matches = [
                codec.identifier(level, found[:depth], syntax)
                for found in self._node.archive.find(level, keys)
            ]
        await self._respond(context_id, command, codec.SUCCESS, matches=matches)

    async def _respond(
        self,
        context_id: int,
        command: dict[int, bytes],
        status: int,
        sop_instance: str = "",
        matches: list[bytes] | None = None,
    ) -> None:
        """Send the response to a message, behind the pending ones with ``matches``."""
        message_id = codec.number(command, 0x0110)
        if self._fires(Kind.WRONG_MESSAGE_ID):
            message_id = message_id % 0xFFFF + 1
        limit = self._peer_limit
        parts = []
        for match in matches or ():
            pending = codec.response(command, codec.PENDING, message_id, has_data_set=True)
            parts.append(codec.data(context_id, pending, limit, is_command=True))
            parts.append(codec.data(context_id, match, limit, is_command=False))
        final = codec.response(command, status, message_id, sop_instance)
        parts.append(codec.data(context_id, final, limit, is_command=True))
        if self._fires(Kind.DUPLICATE_RESPONSE):
            parts.append(parts[-1])
        await self._wire.answer(b"".join(parts))
