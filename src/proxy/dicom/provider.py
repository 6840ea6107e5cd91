"""The upper layer service provider, requestor's side: the association machine over a wire (PS3.8).

The task that uses it is the one that runs it: there is no reader beside it, no thread and no
queue. While it sends, it listens; while it waits, the limit of the machine's state runs. What the
messages are is the service user's: ``proxy.dicom.association``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from proxy.dicom import pdu
from proxy.dicom.translate import error_of, event_of
from proxy.errors import AssociationLost, NodeError, NodeUnreachable
from proxy.fsm import Event
from proxy.machines import upper_layer as ul
from proxy.machines.association import ASSOCIATION, AssociationState
from proxy.machines.upper_layer import Clocks
from proxy.runtime.runner import Run
from proxy.runtime.wire import Buffer, Network, Wire, lost

_FIXED_PDUS = {ul.Pdu.RELEASE_RQ: pdu.RELEASE_RQ, ul.Pdu.RELEASE_RP: pdu.RELEASE_RP}


class Provider(ABC):
    """One association as PS3.8 sees it; the service user is the subclass.

    ``local_address`` is ours towards the node.
    """

    def __init__(self, clocks: Clocks) -> None:
        self.local_address = ""
        self._clocks = clocks
        self._run = Run(ASSOCIATION, clocks, {}, self._perform)
        self._wire: Wire | None = None
        self._reader = pdu.PduReader()
        self._received: pdu.Received | None = None
        self._unsent: list[Buffer] = []
        self._cut = False
        self._error: NodeError | None = None

    @abstractmethod
    def _request(self) -> bytes:
        """Encode A-ASSOCIATE-RQ."""

    @abstractmethod
    def _agree(self, answer: pdu.Accept) -> None:
        """Take what the node accepted."""

    @abstractmethod
    def _join(self, pdvs: tuple[pdu.Pdv, ...]) -> None:
        """Take fragments of messages."""

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
        self._check()
        self.local_address = self._connected.local
        self._run.tell(ul.ConnectionOpened())
        await self._stay()
        self._check()

    async def release(self) -> None:
        """Release, unless it is over already. Nothing that happens here is an error."""
        self._run.tell(ul.ReleaseRequested())
        while self._run.state in {AssociationState.Sta7, AssociationState.Sta11}:
            await self._stay()

    async def abort(self) -> None:
        """Abort, unless it is over, and wait for the node to close if it can have heard of it."""
        self._run.tell(ul.AbortRequested())
        if self._run.state is AssociationState.Sta13 and not self._cut:
            await self._stay()

    def close(self) -> None:
        """Close the socket now; what is left in it is thrown away if it could not be ended well."""
        if self._run.state is AssociationState.Sta13:
            self._run.tell(ul.ArtimExpired())
        if self._wire is not None:
            cut = self._cut or bool(self._unsent) or self._reader.is_broken
            self._wire.close(reset=cut)

    async def send(self, buffers: list[Buffer]) -> None:
        """Send whole PDUs of a message; ``buffers`` is used up.

        Raises :class:`proxy.errors.AssociationLost`, at once when the node aborts.
        """
        self._listen_now()
        self._check()
        self._unsent = buffers
        while self._unsent and self._error is None:
            await self._send_some()
        self._check()

    def give_up(self, code: str) -> AssociationLost:
        """Abort for a reason of ours; returns the error to raise, an ``AssociationLost.code``."""
        error = lost(code)
        self._error = self._error or error
        self._run.tell(ul.AbortRequested())
        return error

    @property
    def _connected(self) -> Wire:
        if self._wire is None:
            raise RuntimeError("the association was never opened")
        return self._wire

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    @contextmanager
    def _limit(self) -> Iterator[None]:
        """Tell the machine when the limit of its present state is over."""
        definition = ASSOCIATION.definition(self._run.state)
        with trio.move_on_after(ASSOCIATION.seconds(self._run.state, self._clocks)) as scope:
            yield
        if scope.cancelled_caught and definition and definition.after:
            self._run.tell(definition.after.event())

    async def _stay(self) -> None:
        """Send what is due and listen, until the state is left or its limit is over."""
        state = self._run.state
        with self._limit():
            while self._run.state is state:
                if self._unsent:
                    await self._send_some()
                else:
                    await self._listen()

    async def _send_some(self) -> None:
        """Send some of what is due; hear what the node says meanwhile, which is no movement."""
        before, state, taken = self._connected.queued(), self._run.state, 0
        with trio.move_on_after(self._clocks.stall) as stall:
            try:
                while self._run.state is state and not taken:
                    taken = await self._connected.send_some(self._unsent)
                    if not taken:
                        self._listen_now()
            except AssociationLost as error:
                self._listen_now()  # The node's A-ABORT may have come before its reset.
                if not self._run.over:
                    self._lose(error)
                return
        if taken:
            _drop(self._unsent, taken)
        elif stall.cancelled_caught and self._connected.queued() >= before:
            self.give_up("stalled")

    async def _listen(self) -> None:
        try:
            data = await self._connected.receive_some()
        except AssociationLost as error:
            self._lose(error)
        else:
            self._hear(data)

    def _listen_now(self) -> None:
        """Hear what has come already."""
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
                self._run.tell(event_of(received))
                if self._run.over:
                    return
        except pdu.InvalidPdu as fault:
            if self._run.state is AssociationState.Sta5 and fault.speaks_tls:
                self._error = lost("tls")
            self._run.tell(ul.InvalidPduCame(fault.reason))

    def _lose(self, error: NodeError) -> None:
        self._error = self._error or error
        self._run.tell(ul.TransportClosed())

    def _perform(self, output: ul.AssociationOutput) -> None:
        """Do what the machine asks for."""
        match output:
            case ul.Connect() | ul.Send(ul.Pdu.DATA):
                pass  # open() connects, the caller of begin() sends.
            case ul.Send(ul.Pdu.ASSOCIATE_RQ):
                self._unsent.append(self._request())
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
        """Take in what concerns the service user, which is this object too."""
        match primitive, self._received:
            case ul.Primitive.ACCEPTED, pdu.Accept() as answer:
                self._agree(answer)
            case ul.Primitive.DATA, pdu.Data(pdvs) if self.established:
                self._join(pdvs)
            case ul.Primitive.RELEASE, _:
                asked_first = self._run.state is AssociationState.Sta8
                if asked_first:
                    self._error = error_of(primitive, cause)
                # The rest of a message would leave with the answer, though it counts as unsent.
                cut = asked_first and self._unsent
                self._run.tell(ul.AbortRequested() if cut else ul.ReleaseAnswered())
            case ((ul.Primitive.REJECTED | ul.Primitive.ABORTED), _):
                self._error = self._error or error_of(primitive, cause)
            case _:
                pass  # Released; or data that came too late to matter.


def _drop(buffers: list[Buffer], taken: int) -> None:
    """Drop the first ``taken`` bytes of ``buffers``."""
    whole = 0
    while whole < len(buffers) and taken >= len(buffers[whole]):
        taken -= len(buffers[whole])
        whole += 1
    del buffers[:whole]
    if taken:
        buffers[0] = memoryview(buffers[0])[taken:]
