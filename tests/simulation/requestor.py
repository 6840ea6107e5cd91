"""A requestor for the simulated node that is not the program: its bytes are pynetdicom's.

It says in words what it sees: ``AC``, ``RJ 1/1/3``, ``C-STORE 0000``, ``A-ABORT 2/1``, ``silence``,
``end`` …
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio
from pydicom.dataset import Dataset
from pynetdicom import build_context, dsutils
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)

from proxy.demo.encoding import SampleInstance
from proxy.simulation.node import SimulatedNode
from tests.dicom import scripted
from tests.dicom.virtual import CAPACITY, Pipe, VirtualStream

VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"

PATIENCE_S = 1000.0
"""Of virtual time: whoever says nothing for so long is silent."""

COMMANDS = {0x8001: "C-STORE", 0x8020: "C-FIND", 0x8030: "C-ECHO", 0x8150: "N-DELETE"}

ECHO, STORE, FIND = 1, 3, 5
"""The contexts of :func:`usual_contexts`."""


def usual_contexts(sop_class: str, syntax: str = EXPLICIT) -> list[tuple[str, list[str]]]:
    return [(VERIFICATION, [IMPLICIT]), (sop_class, [syntax]), (STUDY_ROOT_FIND, [IMPLICIT])]


def data_set(instance: SampleInstance) -> bytes:
    return instance.content[-instance.data_set_size :]


def encoded(elements: Dataset, *, implicit: bool = True) -> bytes:
    content = dsutils.encode(elements, is_implicit_vr=implicit, is_little_endian=True)
    assert content is not None
    return content


def decoded(content: bytes, *, implicit: bool = True) -> Dataset:
    return dsutils.decode(io.BytesIO(content), is_implicit_vr=implicit, is_little_endian=True)


def request(contexts: Iterable[tuple[str, list[str]]], longest: int = 16384) -> bytes:
    """A-ASSOCIATE-RQ, with user items that a node may ignore."""
    primitive: Any = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "ITH", "NODE"
    proposed = [build_context(sop_class, syntaxes) for sop_class, syntaxes in contexts]
    for n, context in enumerate(proposed):
        context.context_id = 2 * n + 1
    primitive.presentation_context_definition_list = proposed
    most: Any = MaximumLengthNotification()
    most.maximum_length_received = longest
    implementation: Any = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    window: Any = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 5
    role: Any = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = VERIFICATION, True, False
    identity: Any = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field = 1, b"somebody"
    primitive.user_information = [most, implementation, window, role, identity]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


class Requestor(scripted.Peer):
    """One association at the node's other end."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self.message_id = 0
        self.accepted: dict[int, tuple[int, str]] = {}
        self.longest = 0
        self.matches: list[Dataset] = []
        self.named = ""
        """The SOP instance that the last response named."""

    @property
    def unread(self) -> bytes:
        """What has come of the node's next PDU."""
        return bytes(self._unread)

    async def associate(self, *contexts: tuple[str, list[str]]) -> str:
        await self.send(request(contexts))
        return await self.sees()

    async def echo(self) -> str:
        await self.ask(ECHO, 0x0030, VERIFICATION)
        return await self.sees()

    async def store(self, instance: SampleInstance, *, size: int = 8192) -> str:
        await self.begin_store(instance)
        await self.send_data(data_set(instance), size=size)
        return await self.sees()

    async def find(self, level: str = "IMAGE", **keys: str) -> str:
        """Ask; the answers are in ``matches``."""
        self.matches = []
        await self.ask(FIND, 0x0020, STUDY_ROOT_FIND, has_data=True)
        asked = Dataset()
        asked.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(asked, keyword, value)
        await self.send_data(encoded(asked), context_id=FIND)
        while (seen := await self.sees()) == "C-FIND FF00":
            identifier = await self.identifier()
            if not identifier:
                return "silence"
            self.matches.append(decoded(identifier))
        return seen

    async def identifier(self) -> bytes:
        """Wait for what follows a pending response; nothing if it does not come."""
        with trio.move_on_after(PATIENCE_S):
            _, body = await self.pdu()
            return body[6:]
        return b""

    async def release(self) -> str:
        await self.send(scripted.RELEASE_RQ)
        return await self.sees()

    async def begin_store(self, instance: SampleInstance) -> None:
        await self.ask(STORE, 0x0001, instance.sop_class_uid, instance.sop_instance_uid)

    async def ask(
        self,
        context_id: int,
        field: int,
        sop_class: str,
        sop_instance: str = "",
        *,
        has_data: bool = False,
    ) -> None:
        await self.send(
            scripted.data(
                self.command(context_id, field, sop_class, sop_instance, has_data=has_data)
            )
        )

    def command(
        self,
        context_id: int,
        field: int,
        sop_class: str,
        sop_instance: str = "",
        *,
        has_data: bool = False,
    ) -> bytes:
        """A request as a PDV."""
        self.message_id += 1
        command = Dataset()
        command.AffectedSOPClassUID = sop_class
        command.CommandField = field
        command.MessageID = self.message_id
        command.CommandDataSetType = 1 if has_data or sop_instance else 0x0101
        if sop_instance:
            command.AffectedSOPInstanceUID = sop_instance
        return scripted.pdv(scripted.command(command), context_id=context_id)

    async def send_data(
        self, content: bytes, *, context_id: int = STORE, size: int = 8192, is_end: bool = True
    ) -> None:
        for at in range(0, len(content), size):
            control = 2 if is_end and at + size >= len(content) else 0
            fragment = content[at : at + size]
            pdv = scripted.pdv(fragment, control=control, context_id=context_id)
            await self.send(scripted.data(pdv))

    async def sees(self) -> str:
        """Wait for one thing of the node."""
        try:
            with trio.fail_after(PATIENCE_S):
                kind, length = await self._head()
                if not 1 <= kind <= 7:
                    return "garbage"
                if length > 1 << 20:
                    return "a huge PDU"
                return self._seen(*await self.pdu())
        except trio.TooSlowError:
            return "silence"
        except (AssertionError, trio.BrokenResourceError):
            return "end"

    async def _head(self) -> tuple[int, int]:
        self._unread[:0] = head = await self._exactly(6)
        return head[0], int.from_bytes(head[2:], "big")

    def _seen(self, kind: int, body: bytes) -> str:
        match kind:
            case 2:
                seen = self._accepted(body)
            case 3:
                seen = f"RJ {body[1]}/{body[2]}/{body[3]}"
            case 4:
                seen = self._response(body)
            case 5:
                seen = "RELEASE-RQ"
            case 6:
                seen = "RELEASE-RP"
            case _:
                seen = f"A-ABORT {body[2]}/{body[3]}"
        return seen

    def _accepted(self, body: bytes) -> str:
        answer: Any = A_ASSOCIATE_AC()
        answer.decode(bytes((2, 0)) + len(body).to_bytes(4, "big") + body)
        self.longest = answer.user_information.maximum_length
        self.accepted = {
            each.context_id: (each.result, str(each.transfer_syntax))
            for each in answer.presentation_context
        }
        return "AC"

    def _response(self, body: bytes) -> str:
        if len(body) <= 6:
            return "empty fragment" if body else "empty P-DATA"
        command = decoded(body[6:])
        assert command.CommandGroupLength == len(body) - 6 - 12
        if command.MessageIDBeingRespondedTo != self.message_id:
            return "a response to nothing"
        self.named = str(command.get("AffectedSOPInstanceUID", ""))
        return f"{COMMANDS[command.CommandField]} {command.Status:04X}"


def pair() -> tuple[VirtualStream, VirtualStream]:
    """Two ends of a connection in memory."""
    changed = trio.lowlevel.ParkingLot()
    one, other = Pipe(CAPACITY, changed), Pipe(CAPACITY, changed)
    return VirtualStream(one, other, changed), VirtualStream(other, one, changed)


@asynccontextmanager
async def connected(node: SimulatedNode) -> AsyncIterator[Requestor]:
    """Connect to a node; the connection is closed at the end, and the node has time to notice."""
    ours, its = pair()
    ended = trio.Event()

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await node.serve(its)
        ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        async with ours:
            yield Requestor(ours)
        with trio.move_on_after(PATIENCE_S):
            await ended.wait()
        nursery.cancel_scope.cancel("the test has seen enough")
