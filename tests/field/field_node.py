"""A node over TCP that negotiates and answers as sites' nodes do, and keeps what it stored.

    node = FieldNode(negotiate=rejecting(lambda proposed: len(proposed) > 16))
    async with node.running():
        ...  # node.port, node.stored, node.proposed

Its codec is this folder's, pynetdicom's and that of the scripted peers; nothing is the program's.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from typing import NamedTuple, TypeAlias

import trio
from pydicom.dataset import Dataset
from pynetdicom import dsutils
from pynetdicom.pdu import A_ASSOCIATE_RQ

from tests.dicom import scripted as said
from tests.dicom.scripted import Peer

VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT = "1.2.840.10008.1.2"
C_STORE, C_FIND, C_ECHO = 0x0001, 0x0020, 0x0030


class Proposed(NamedTuple):
    """One context of an A-ASSOCIATE-RQ."""

    number: int
    sop_class: str
    syntaxes: tuple[str, ...]


class Answered(NamedTuple):
    """One item of an A-ASSOCIATE-AC."""

    number: int
    result: int
    syntax: str = ""


Negotiate: TypeAlias = Callable[[list[Proposed]], "bytes | list[Answered]"]
"""Returns the answer to the contexts: their results, or PDUs to send in place of the acceptance."""
Respond: TypeAlias = Callable[[Dataset, Dataset, bytes], bytes]
"""Returns what to send for a request, its response, and that response's PDU."""


def accepted(proposed: Proposed) -> Answered:
    return Answered(proposed.number, 0, proposed.syntaxes[0])


def accept_all(proposed: list[Proposed]) -> list[Answered]:
    return [accepted(each) for each in proposed]


def is_echo(proposed: list[Proposed]) -> bool:
    """Whether an association is for Verification alone."""
    return all(each.sop_class == VERIFICATION for each in proposed)


def choosing(choose: Callable[[list[Proposed]], Sequence[Proposed]], result: int) -> Negotiate:
    """Accept those that ``choose`` returns, refuse the others with ``result``; -1 is silence."""

    def negotiate(proposed: list[Proposed]) -> list[Answered]:
        chosen = choose(proposed)
        answers = [
            accepted(each) if each in chosen else Answered(each.number, result) for each in proposed
        ]
        return [each for each in answers if each.result >= 0]

    return negotiate


def answering_with(pdus: bytes, where: Callable[[list[Proposed]], bool]) -> Negotiate:
    """Answer with ``pdus`` the associations ``where`` says so, and accept the others."""
    return lambda proposed: pdus if where(proposed) else accept_all(proposed)


def once(_: Dataset, __: Dataset, answer: bytes) -> bytes:
    return answer


class FieldNode:
    """``proposed`` are the contexts of each association for more than Verification."""

    def __init__(
        self,
        *,
        negotiate: Negotiate = accept_all,
        respond: Respond = once,
        status: Callable[[str], int] = lambda _: 0,
        max_pdu_size: int = 16384,
        at_once: bytes = b"",
        release_answer: bytes = said.RELEASE_RP,
        greeting: bytes = b"",
    ) -> None:
        self.negotiate = negotiate
        self.respond = respond
        self.status = status
        self.max_pdu_size = max_pdu_size
        self.at_once = at_once
        """Sent with each acceptance of an association for more than Verification."""
        self.release_answer = release_answer
        self.greeting = greeting
        """Sent in place of all answers."""
        self.port = 0
        self.proposed: list[list[Proposed]] = []
        self.accepted: list[list[Proposed]] = []
        self.stored: dict[str, str] = {}
        """SOP Instance UID to transfer syntax."""
        self.came: list[str] = []
        self.open = self.most_open = self.echoes = self.longest = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FieldNode]:
        (listener,) = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self.serve, [listener])
            yield self
            nursery.cancel_scope.cancel("the test is over")

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(AssertionError, trio.BrokenResourceError):
                await self._serve(Peer(stream))

    async def _serve(self, peer: Peer) -> None:
        if self.greeting:
            await peer.pdu()
            await peer.send(self.greeting)
            await peer.until_end()
            return
        proposed = await _request(peer)
        if not is_echo(proposed):
            self.proposed.append(proposed)
        answer = self.negotiate(proposed)
        if isinstance(answer, bytes):
            await peer.send(answer)
            await peer.until_end()
            return
        contexts = {each.number: each.syntax for each in answer if each.result == 0}
        if not is_echo(proposed):
            self.accepted.append([each for each in proposed if each.number in contexts])
        at_once = b"" if is_echo(proposed) else self.at_once
        await peer.send(_acceptance(answer, self.max_pdu_size), at_once)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            while await self._message(peer, contexts):
                pass
        finally:
            self.open -= 1

    async def _message(self, peer: Peer, contexts: dict[int, str]) -> bool:
        """Serve one message; False after a release."""
        parts = {1: b"", 0: b""}
        command = Dataset()
        while True:
            kind, body = await peer.pdu()
            if kind == 5:
                await peer.send(self.release_answer)
                await peer.until_end()
                return False
            assert kind == 4
            self.longest = max(self.longest, len(body))
            length, context_id, control = struct.unpack_from(">IBB", body)
            assert length + 4 == len(body)
            assert context_id in contexts
            parts[control & 1] += body[6:]
            if control == 3:
                command = dsutils.decode(BytesIO(parts[1]), True, True)
            has_data = command.get("CommandDataSetType", 0x0101) != 0x0101
            if control == 2 or (control == 3 and not has_data):
                break
        field = int(command.CommandField)
        uid = str(command.get("AffectedSOPInstanceUID", ""))
        status = self.status(uid) if field == C_STORE else 0
        if field == C_STORE:
            self.came.append(uid)
            if status == 0:
                self.stored[uid] = contexts[context_id]
        self.echoes += field == C_ECHO
        response = said.response(status, int(command.MessageID), uid, field | 0x8000)
        whole = said.data(said.pdv(said.command(response), context_id=context_id))
        await peer.send(self.respond(command, response, whole))
        return True


async def _request(peer: Peer) -> list[Proposed]:
    kind, body = await peer.pdu()
    assert kind == 1
    request = A_ASSOCIATE_RQ()
    request.decode(struct.pack(">BBI", 1, 0, len(body)) + body)
    return [
        Proposed(
            each.context_id or 0, str(each.abstract_syntax), (*map(str, each.transfer_syntax),)
        )
        for each in request.presentation_context
    ]


def _acceptance(answers: Sequence[Answered], max_pdu_size: int) -> bytes:
    items = said.item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, result, syntax in answers:
        answer = bytes((number, 0, result, 0)) + said.item(0x40, syntax.encode())
        items += said.item(0x21, answer)
    user = said.item(0x51, max_pdu_size.to_bytes(4, "big")) + said.item(0x52, b"1.2.3.4")
    body = bytes((0, 1, 0, 0)) + b"NODE".ljust(16) * 2 + bytes(32) + items + said.item(0x50, user)
    return struct.pack(">BBI", 2, 0, len(body)) + body
