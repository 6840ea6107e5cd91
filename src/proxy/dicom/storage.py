"""C-STORE and C-ECHO over an association (PS3.7 sections 9.1.1 and 9.1.5, PS3.4 annex B).

The data set is sent as it is on disk, from after the file meta group to the end of the file; it is
read in blocks into one buffer, and the PDU headers are put between slices of that buffer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import msgspec

from proxy.dicom import dimse
from proxy.dicom.association import Association, Clocks, Target, associate
from proxy.dicom.contexts import ECHO
from proxy.dicom.dimse import DimsePriority, Response
from proxy.dicom.pdu import fragments
from proxy.errors import AssociationLost, InstanceUnusable, NodeError
from proxy.machines.failures import (
    Failure,
    Remedy,
    classify_context,
    classify_local,
    classify_store,
    unreadable,
    unusable,
)
from proxy.model import DEFLATED, Instance
from proxy.runtime import marks
from proxy.runtime.marks import Mark
from proxy.runtime.wire import Network


class StoreResult(msgspec.Struct, frozen=True):
    """The outcome for one instance; ``failure`` is its row of the table, also for a success.

    ``status`` is None if the instance was not sent, because the node did not accept its
    presentation context or its data set is damaged. ``comment`` is the node's free text and may
    hold patient data.
    """

    failure: Failure
    status: int | None = None
    comment: str = ""
    error_id: int | None = None
    offending_elements: tuple[str, ...] = ()

    @property
    def confirms_content(self) -> bool:
        """Whether the node confirms that it has this content, not only an instance of this UID.

        0111H, duplicate SOP instance, is about the UID (PS3.7 section C.5.11).
        """
        stored = self.failure.remedy in {Remedy.STORED, Remedy.STORED_WITH_WARNING}
        return stored and self.status != 0x0111


class StoreInterrupted(AssociationLost):
    """The association ended within a C-STORE.

    With ``sent_whole`` the last byte was handed to the kernel and the outcome is unknown;
    without, the node cannot have stored the instance.
    """

    def __init__(self, lost: AssociationLost, *, sent_whole: bool) -> None:
        super().__init__(
            lost.code, str(lost), source=lost.source, reason=lost.reason, hint=lost.hint
        )
        self.sent_whole = sent_whole


async def store(
    association: Association,
    instance: Instance,
    path: Path,
    *,
    priority: DimsePriority = DimsePriority.MEDIUM,
) -> StoreResult:
    """Send one instance and wait for the node's response.

    A file that cannot be read, or has changed (SHA-256), raises
    :class:`proxy.errors.InstanceUnusable` before its last fragment is sent. The association stays
    open if nothing was sent yet; else it is aborted, because bytes cannot be taken back. A lost
    association, or a response to another message, raises :class:`StoreInterrupted`.
    """
    uids = instance.sop_class_uid, instance.transfer_syntax_uid
    context_id = association.contexts.find(*uids)
    if context_id is None:
        return StoreResult(classify_context(association.contexts.refusal(*uids)))
    if (instance.size - instance.offset) % 2 and instance.transfer_syntax_uid not in DEFLATED:
        return StoreResult(classify_local("odd"))  # no PDV may be odd (PS3.8 annex E)
    with _open(path, instance) as file:
        marks.reached(Mark.INSTANCE_READ)
        try:
            response = await _send(association, context_id, instance, file, priority)
        except AssociationLost as lost:
            if association.refusal is None:
                raise StoreInterrupted(lost, sent_whole=association.sent_whole) from lost
            response = association.refusal
    return StoreResult(
        classify_store(response.status),
        response.status,
        response.comment,
        response.error_id,
        response.offending_elements,
    )


async def echo(association: Association) -> None:
    """Verify with C-ECHO that the node answers.

    Raises :class:`proxy.errors.NodeError` if it does not answer with success.
    """
    context_id = association.contexts.find(ECHO.sop_class_uid, ECHO.transfer_syntax_uids[0])
    if context_id is None:
        raise NodeError("The node does not accept verification (C-ECHO)")
    command = dimse.encode_echo_request(association.begin(context_id, dimse.C_ECHO_RSP))
    (response,) = await association.exchange(context_id, command)
    if response.status != 0:
        raise NodeError(f"The node answered C-ECHO with status {response.status:04X}H")


async def verify(
    network: Network, target: Target, clocks: Clocks, on_accepted: Callable[[], None] = lambda: None
) -> None:
    """Associate, C-ECHO, release; call ``on_accepted`` once the node accepts the association.

    Raises :class:`proxy.errors.NodeError`.
    """
    async with associate(network, target, (ECHO,), clocks) as association:
        on_accepted()
        await echo(association)


async def _send(
    association: Association,
    context_id: int,
    instance: Instance,
    file: int,
    priority: DimsePriority,
) -> Response:
    """Send the command and the data set, and return the response that belongs to them."""
    blocks = _blocks(association, instance, file)
    first = next(blocks)
    uids = instance.sop_class_uid, instance.sop_instance_uid
    message_id = association.begin(context_id, dimse.C_STORE_RSP, instance.sop_instance_uid)
    command = dimse.encode_store_request(*uids, message_id, priority)
    size = association.fragment_size
    pending = [*fragments(memoryview(command), context_id, size, is_command=True)]
    try:
        for block, is_last in chain([first], blocks):
            pending += fragments(block, context_id, size, is_last=is_last)
            await association.send(pending, is_last=is_last)
    except InstanceUnusable:
        association.give_up("local")
        raise
    marks.reached(Mark.INSTANCE_SENT)
    (response,) = await association.responses(instance.size - instance.offset)
    return response


@contextmanager
def _open(path: Path, instance: Instance) -> Iterator[int]:
    """Open an instance's file, which must be as long as it was when it was stored."""
    with _readable():
        file = os.open(path, os.O_RDONLY)
    try:
        if os.fstat(file).st_size < instance.size:
            raise unusable("short")
        yield file
    finally:
        os.close(file)


def _blocks(
    association: Association, instance: Instance, file: int
) -> Iterator[tuple[memoryview, bool]]:
    """Read a data set into the association's buffer; yield each block and whether it is the last.

    The last block is the last fragment: it is yielded only if the complete file has the instance's
    hash. A block is hashed after it was sent, while the node works on it.

    An odd number of bytes is sent unchanged, because only its last element could be padded. A
    deflated data set is a stream, and gets a null byte at its end then (PS3.5 section A.5).
    """
    buffer, fragment = association.buffer, association.fragment_size
    digest = hashlib.sha256()
    at = 0
    while at < instance.offset:
        meta = _read(file, buffer, at, instance.offset)
        digest.update(meta)
        at += len(meta)
    is_end = False
    while not is_end:
        block = _read(file, buffer, at, instance.size)
        at += len(block)
        is_end = at == instance.size
        last = max(len(block) - 1, 0) // fragment * fragment if is_end else len(block)
        if last:
            yield block[:last], False
        digest.update(block)
    if digest.hexdigest() != instance.sha256:
        raise unusable("damaged")
    end = len(block)
    if end % 2 and instance.transfer_syntax_uid in DEFLATED:
        buffer[end] = 0
        end += 1
    yield buffer[last:end], True


def _read(file: int, buffer: memoryview, at: int, end: int) -> memoryview:
    """Read from ``at`` up to ``end``, or as much as ``buffer`` holds; return that part of it.

    The read blocks: handing it to a thread takes longer than most reads.
    """
    block = into = buffer[: end - at]
    with _readable():
        while into:
            count = os.preadv(file, [into], at)
            if count == 0:
                raise unusable("short")
            into = into[count:]
            at += count
    return block


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unreadable(error) from error
