"""The upper layer service provider, requestor's side: the association machine over a wire (PS3.8).

The task that uses it runs it: there is no reader task, no thread and no queue. It listens while it
sends; while it waits, the limit of the machine's state runs. The messages are the concern of the
service user, ``proxy.dicom.association``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from proxy.dicom import pdu
from proxy.dicom.strangers import stranger
from proxy.errors import AssociationLost, AssociationRejected, NodeError, NodeUnreachable
from proxy.fsm import Event
from proxy.machines import upper_layer as ul
from proxy.machines.association import ASSOCIATION, AssociationState
from proxy.machines.failures import classify_abort, classify_rejection
from proxy.machines.upper_layer import Clocks
from proxy.runtime.runner import Run
from proxy.runtime.wire import Buffer, Network, Wire, lost, unreachable

_PLAIN_EVENTS: dict[type[pdu.Received], type[Event]] = {
    pdu.Accept: ul.AssociateAccepted,
    pdu.AssociateRequest: ul.AssociateRequestCame,
    pdu.Data: ul.DataCame,
    pdu.ReleaseRequest: ul.ReleaseRequestCame,
    pdu.ReleaseReply: ul.ReleaseReplyCame,
}
_FIXED_PDUS = {ul.Pdu.RELEASE_RQ: pdu.RELEASE_RQ, ul.Pdu.RELEASE_RP: pdu.RELEASE_RP}


class ServiceUser(Protocol):
    """The user of a provider: it knows the messages, and receives the node's answers."""

    def request(self) -> bytes:
        """Encode A-ASSOCIATE-RQ."""
        ...

    def agree(self, answer: pdu.Accept) -> None:
        """Apply the node's answer to the request."""
        ...

    def join(self, pdvs: tuple[pdu.Pdv, ...]) -> None:
        """Take fragments of messages."""
        ...


class Provider:
    """One association as PS3.8 sees it.

    ``local_address`` is ours towards the node. ``error`` is the reason of a lost association.
    ``release_problem`` is the reason why the node did not answer a release.
    """

    def __init__(self, clocks: Clocks, user: ServiceUser) -> None:
        self.local_address = ""
        self.error: NodeError | None = None
        self.release_problem: NodeError | None = None
        self._clocks = clocks
        self._user = user
        self._run = Run(ASSOCIATION, clocks, {}, self._perform)
        self._wire: Wire | None = None
        self._reader = pdu.PduReader()
        self._received: pdu.Received | None = None
        self._unsent: list[Buffer] = []
        self._cut = False

    @property
    def established(self) -> bool:
        """Whether messages can be sent."""
        return self._run.state is AssociationState.Sta6

    async def open(self, network: Network, host: str, port: int) -> None:
        """Connect and negotiate.

        Raises :class:`proxy.errors.NodeUnreachable`, :class:`proxy.errors.AssociationRejected`
        or :class:`proxy.errors.AssociationLost`.
        """
        self._run.tell(ul.AssociateRequested())
        try:
            with self._limit():
                self._wire = await network.connect(host, port)
        except NodeUnreachable as error:
            self._lose(error)
        self.check()
        self.local_address = self._connected.local
        self._run.tell(ul.ConnectionOpened())
        await self._stay()
        self.check()

    async def release(self) -> None:
        """Release, unless it is over already. A failure of the release is no error."""
        self._run.tell(ul.ReleaseRequested())
        releasing = {AssociationState.Sta7, AssociationState.Sta11}
        if self._run.state not in releasing:
            return
        while self._run.state in releasing:
            await self._stay()
        if self._run.state is AssociationState.Sta13 or self.error is not None:
            self.release_problem = self.error or lost("timeout")

    async def abort(self) -> None:
        """Abort, unless it is over, and wait for the node to close if the abort can reach it."""
        self._run.tell(ul.AbortRequested())
        if self._run.state is AssociationState.Sta13 and not self._cut:
            await self._stay()

    def close(self) -> None:
        """Close the socket now; after an irregular end the bytes left in it are discarded."""
        if self._run.state is AssociationState.Sta13:
            self._run.tell(ul.ArtimExpired())
        if self._wire is not None:
            cut = self._cut or bool(self._unsent) or self._reader.is_broken
            self._wire.close(reset=cut)

    async def send(self, buffers: list[Buffer]) -> None:
        """Send complete PDUs of a message; ``buffers`` is used up.

        Raises :class:`proxy.errors.AssociationLost`, at once when the node aborts.
        """
        self.listen_now()
        self.check()
        self._unsent = buffers
        while self._unsent and self.error is None:
            await self._send_some()
        self.check()

    def give_up(self, code: str) -> AssociationLost:
        """Abort for ``code`` of :class:`AssociationLost`, and return the error to raise."""
        error = lost(code)
        self.error = self.error or error
        self._run.tell(ul.AbortRequested())
        return error

    @property
    def _connected(self) -> Wire:
        if self._wire is None:
            raise RuntimeError("the association was never opened")
        return self._wire

    def begin(self) -> bool:
        """Ask the machine for a message; False where there is no association to send it on."""
        self.listen_now()
        self.check()
        is_sent = ul.Send(ul.Pdu.DATA) in self._run.tell(ul.DataRequested()).outputs
        if is_sent:
            self.allow()
        return is_sent

    def allow(self) -> None:
        """Allow the node the PDUs of one more answer."""
        self._reader.allow()

    def queued(self) -> int:
        """Return the number of bytes that the node's host has not acknowledged yet."""
        return self._connected.queued()

    def check(self) -> None:
        """Raise the error for which the association is lost."""
        if self.error is not None:
            raise self.error

    @contextmanager
    def _limit(self) -> Iterator[None]:
        """Tell the machine when the limit of its present state is over."""
        definition = ASSOCIATION.definition.get(self._run.state)
        with trio.move_on_after(ASSOCIATION.seconds(self._run.state, self._clocks)) as scope:
            yield
        if scope.cancelled_caught and definition and definition.after:
            self._run.tell(definition.after.event())

    async def _stay(self) -> None:
        """Send the pending bytes and listen, until the state is left or its limit is over."""
        state = self._run.state
        with self._limit():
            while self._run.state is state:
                if self._unsent:
                    await self._send_some()
                else:
                    await self.listen()

    async def _send_some(self) -> None:
        """Send some of the pending bytes; bytes received meanwhile do not count as movement."""
        before, state, taken = self._connected.queued(), self._run.state, 0
        with trio.move_on_after(self._clocks.stall) as stall:
            try:
                while self._run.state is state and not taken:
                    taken = await self._connected.send_some(self._unsent)
                    if not taken:
                        self.listen_now()
            except AssociationLost as error:
                self.listen_now()  # The node's A-ABORT may have come before its reset.
                if not self._run.over:
                    self._lose(error)
                return
        if taken:
            _drop(self._unsent, taken)
        elif stall.cancelled_caught and self._connected.queued() >= before:
            self.give_up("stalled")

    async def listen(self) -> None:
        """Wait for bytes of the node, and take them."""
        try:
            data = await self._connected.receive_some()
        except AssociationLost as error:
            self._lose(error)
        else:
            self._hear(data)

    def listen_now(self) -> None:
        """Take the bytes that have already arrived."""
        if self._run.over:
            return
        try:
            data = self._connected.receive_now()
        except AssociationLost as error:
            self._lose(error)
        else:
            if data is not None:
                self._hear(data)

    def _hear(self, data: bytes) -> None:
        """Step the machine with each PDU that is complete."""
        if not data:
            self._lose(lost("closed"))
            return
        self._reader.feed(data)
        try:
            for received in self._reader.pdus():
                self._received = received
                self._run.tell(_event_of(received))
                if self._run.over:
                    return
        except pdu.InvalidPdu as fault:
            if self._run.state is AssociationState.Sta5:
                self.error = stranger(fault.head)
            self._run.tell(ul.InvalidPduCame(fault.reason))

    def _lose(self, error: NodeError) -> None:
        self.error = self.error or error
        self._run.tell(ul.TransportClosed())

    def _perform(self, output: ul.AssociationOutput) -> None:
        """Perform an output of the machine."""
        match output:
            case ul.Connect() | ul.Send(ul.Pdu.DATA):
                pass  # open() connects, the caller of begin() sends.
            case ul.Send(ul.Pdu.ASSOCIATE_RQ):
                self._unsent.append(self._user.request())
            case ul.Send(kind):
                self._unsent.append(_FIXED_PDUS[kind])
            case ul.Abort(source, reason):
                abort = pdu.encode_abort(source, reason)
                self._cut = bool(self._unsent) or not self._connected.send_now(abort)
            case ul.Indicate(primitive, cause):
                self._be_told(primitive, cause)
            case ul.Close():
                self.close()

    def _be_told(self, primitive: ul.Primitive, cause: Event) -> None:
        """Pass a primitive to the service user."""
        match primitive, self._received:
            case ul.Primitive.ACCEPTED, pdu.Accept() as answer:
                self._user.agree(answer)
            case ul.Primitive.DATA, pdu.Data(pdvs) if self.established:
                self._user.join(pdvs)
            case ul.Primitive.RELEASE, _:
                asked_first = self._run.state is AssociationState.Sta8
                if asked_first:
                    self.error = _error_of(primitive, cause)
                # The rest of a message would leave with the answer, though it counts as unsent.
                cut = asked_first and self._unsent
                self._run.tell(ul.AbortRequested() if cut else ul.ReleaseAnswered())
            case ((ul.Primitive.REJECTED | ul.Primitive.ABORTED), _):
                self.error = self.error or _error_of(primitive, cause)
            case _:
                pass  # The association is released, or the data came too late.


def _drop(buffers: list[Buffer], taken: int) -> None:
    """Drop the first ``taken`` bytes of ``buffers``."""
    whole = 0
    while whole < len(buffers) and taken >= len(buffers[whole]):
        taken -= len(buffers[whole])
        whole += 1
    del buffers[:whole]
    if taken:
        buffers[0] = memoryview(buffers[0])[taken:]


def _event_of(received: pdu.Received) -> Event:
    """Return the event that a received PDU is (PS3.8 Table 9-10)."""
    match received:
        case pdu.Reject(result, source, reason):
            return ul.AssociateRejected(result, source, reason)
        case pdu.PeerAbort(source, reason):
            return ul.AbortCame(source, reason)
        case _:
            return _PLAIN_EVENTS[type(received)]()


def _error_of(primitive: ul.Primitive, cause: Event) -> NodeError:
    """Build the operator's error for an association that ended, or did not begin."""
    match primitive, cause:
        case ul.Primitive.REJECTED, ul.AssociateRejected(result, source, reason):
            failure = classify_rejection(result, source, reason)
            return AssociationRejected(result, source, reason, failure.sentence, hint=failure.hint)
        case ul.Primitive.RELEASE, _:
            return lost("released")
        case _, ul.AbortCame(source, reason):
            failure = classify_abort(source, reason)
            return AssociationLost(
                "abort", failure.sentence, source=source, reason=reason, hint=failure.hint
            )
        case _, ul.TransportTimedOut():
            return unreachable("timeout")
        case _:
            return lost("timeout" if isinstance(cause, ul.AnswerTimedOut) else "protocol")
