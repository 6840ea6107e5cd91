"""A DICOM node: an SCP of Storage, Verification and Query that counts and can misbehave.

It is built on pynetdicom with threads of its own and shares nothing with the proxy, which meets it
only over TCP. The demonstration and the end-to-end tests run it.
"""

from __future__ import annotations

import hashlib
import itertools
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import cast

import trio
from pydicom.dataset import Dataset
from pynetdicom import (
    AE,
    ALL_TRANSFER_SYNTAXES,
    AllStoragePresentationContexts,
    build_context,
    evt,
    register_uid,
)
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_RELEASE
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class
from pynetdicom.transport import AssociationServer, AssociationSocket

from proxy.demo.node_script import (
    LOCAL_LIMIT_EXCEEDED,
    STUDY_ROOT_FIND,
    SUCCESS,
    VERIFICATION,
    Arrival,
    NodeScript,
    Tally,
)

PROCESSING_FAILURE = 0x0110
PENDING = 0xFF00
POLL_S = 0.02
NEGOTIATION_S = 5
UNLIMITED = 10_000

EVERY_STORAGE_CLASS = tuple(str(cx.abstract_syntax) for cx in AllStoragePresentationContexts)
EVERY_TRANSFER_SYNTAX = tuple(str(uid) for uid in ALL_TRANSFER_SYNTAXES)


class DemoNode:
    """One node on the loopback interface; the port is free and stays the same over restarts.

    ``sop_classes`` may name private ones. With a ``directory``, stored instances are also written
    there as DICOM files. ``require_called`` makes the node reject other called AE titles, and
    ``require_calling`` other calling ones.
    """

    def __init__(
        self,
        ae_title: str = "NODE",
        *,
        node_id: str = "node_1",
        script: NodeScript | None = None,
        sop_classes: Sequence[str] = EVERY_STORAGE_CLASS,
        transfer_syntaxes: Sequence[str] = EVERY_TRANSFER_SYNTAX,
        directory: Path | None = None,
        tls: ssl.SSLContext | None = None,
        require_called: bool = False,
        require_calling: Sequence[str] = (),
        maximum_pdu_size: int = 16384,
        maximum_associations: int = 100,
    ) -> None:
        self.ae_title = ae_title
        self.node_id = node_id
        self.host = "127.0.0.1"
        self.port = 0
        self.script = script or NodeScript()
        self.tally = Tally()
        self.arrivals: list[Arrival] = []
        self.holds: dict[str, str] = {}
        """SOP Instance UID to SHA-256 of the instances answered with success or a warning."""
        self._directory = directory
        self._tls = tls
        self._contexts = _contexts(tuple(sop_classes), tuple(transfer_syntaxes))
        self._entity = AE(ae_title)
        self._entity.require_called_aet = require_called
        self._entity.require_calling_aet = [*require_calling]
        self._entity.maximum_associations = UNLIMITED
        self._entity.maximum_pdu_size = maximum_pdu_size
        self._entity.acse_timeout = NEGOTIATION_S
        self._lock = threading.Lock()
        self._ordinals = itertools.count(1)
        self._maximum = maximum_associations
        self._open: set[Association] = set()
        """The associations that are not over for the caller; pynetdicom counts their threads."""
        self._stopping = threading.Event()
        self._server: AssociationServer | None = None
        self._thread: threading.Thread | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._changed = trio.Event()

    # Life --------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[DemoNode]:
        """Run while the block lasts; inside it, :meth:`wait_for` and :meth:`changed` work."""
        self._token = trio.lowlevel.current_trio_token()
        self.start()
        try:
            yield self
        finally:
            with trio.move_on_after(10, shield=True):
                await trio.to_thread.run_sync(self.stop)
            self._token = None

    def start(self) -> None:
        """Listen, on the port of the last time if there was one."""
        self._stopping.clear()
        self._open.clear()
        self._server = self._entity.make_server(
            (self.host, self.port),
            contexts=self._contexts,
            ssl_context=self._tls,
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_ACSE_SENT, self._on_acse_sent),
                (evt.EVT_ABORTED, self._on_over),
                (evt.EVT_CONN_CLOSE, self._on_over),
                (evt.EVT_ACCEPTED, self._on_accepted),
                (evt.EVT_REJECTED, self._on_rejected),
                (evt.EVT_C_STORE, self._on_store),
                (evt.EVT_C_ECHO, self._on_echo),
                (evt.EVT_C_FIND, self._on_find),
            ],
            server_class=AssociationServer,
        )
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name=f"node {self.ae_title}"
        )
        self._thread.start()

    def stop(self) -> None:
        """Abort open associations, close, and return when all threads have ended."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._stopping.set()
        # The class's own shutdown() needs a server that its AE has registered.
        super(AssociationServer, server).shutdown()
        server.server_close()
        thread.join()
        for association in server.active_associations:
            # An association under negotiation has nothing to abort, and an abort would raise in its
            # thread. If no request will come any more, None ends the wait at once instead of after
            # NEGOTIATION_S.
            if not association.is_established:
                association.dul.to_user_queue.put(None)
            while association.is_alive() and not association.is_established:
                association.join(POLL_S)
            association.abort()
            association.join()
        self._server = self._thread = None

    async def wait_for(self, predicate: Callable[[DemoNode], bool]) -> None:
        """Return when ``predicate`` of this node is true."""
        while not predicate(self):
            await self.changed()

    async def changed(self) -> None:
        """Return at the next event at this node."""
        if self._token is None:
            raise RuntimeError("only a node that is running() can be waited for")
        await self._changed.wait()

    # Called by pynetdicom, each in an association's own thread -----------------------------

    def _on_requested(self, event: evt.Event) -> None:
        with self._lock:
            scripted = self.script.reject_next > 0
            self.script.reject_next -= scripted
            rejected = scripted or len(self._open) >= self._maximum
            if not rejected:
                self._open.add(event.assoc)
            self.tally.associations += not rejected
            self.tally.rejections += rejected
        if self.script.finds:
            acceptor = event.assoc.acceptor
            acceptor.supported_contexts = [*self._contexts, build_context(STUDY_ROOT_FIND)]
        if rejected:
            event.assoc.acse.send_reject(
                *(self.script.rejection if scripted else LOCAL_LIMIT_EXCEEDED)
            )
            event.assoc.kill()
            self._tell()

    def _on_acse_sent(self, event: evt.Event) -> None:
        if isinstance(getattr(event, "primitive", None), A_RELEASE):  # about to be sent
            self._on_over(event)

    def _on_over(self, event: evt.Event) -> None:
        with self._lock:
            self._open.discard(event.assoc)

    def _on_accepted(self, event: evt.Event) -> None:
        with self._lock:
            self.tally.calling_ae_titles.add(event.assoc.requestor.ae_title)
        self._tell()

    def _on_rejected(self, event: evt.Event) -> None:
        with self._lock:
            self._open.discard(event.assoc)
            self.tally.associations -= 1
            self.tally.rejections += 1
        self._tell()

    def _on_echo(self, _: evt.Event) -> int:
        with self._lock:
            self.tally.echoes += 1
        self._tell()
        self._stopping.wait(self.script.echo_delay_s)
        return self.script.echo_status

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        with self._lock:
            self.tally.finds += 1
        self._tell()
        asked = event.identifier
        if self._stopping.wait(self.script.find_delay_s):
            yield PROCESSING_FAILURE, None
        elif asked.QueryRetrieveLevel == "IMAGE" and asked.SOPInstanceUID in self.holds:
            yield PENDING, asked

    def _on_store(self, event: evt.Event) -> int | Dataset:
        arrival = self._arrival(event)
        script = self.script
        if script.stores_first:
            self._keep(arrival, event)
        wait_s = None if arrival.ordinal == script.stall_at else script.delay_s
        if self._stopping.wait(wait_s):
            return PROCESSING_FAILURE
        if arrival.ordinal == script.abort_at:
            event.assoc.abort(block=False)
            return PROCESSING_FAILURE
        if arrival.ordinal == script.drop_at:
            cast("AssociationSocket", event.assoc.dul.socket).close()
            return PROCESSING_FAILURE
        answer = script.answer(arrival)
        status = answer.Status if isinstance(answer, Dataset) else answer
        taken = status == SUCCESS or status & 0xF000 == 0xB000
        if taken and not script.stores_first:
            self._keep(arrival, event)
        return answer

    def _arrival(self, event: evt.Event) -> Arrival:
        request = cast("C_STORE", event.request)
        encoded = cast("BytesIO", request.DataSet).getbuffer()
        with self._lock:
            arrival = Arrival(
                ordinal=next(self._ordinals),
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                sha256=hashlib.sha256(encoded).hexdigest(),
                size=len(encoded),
                calling_ae_title=event.assoc.requestor.ae_title,
                at=time.monotonic(),
            )
            self.arrivals.append(arrival)
        self._tell()
        return arrival

    def _keep(self, arrival: Arrival, event: evt.Event) -> None:
        if self._directory:
            path = self._directory / f"{arrival.ordinal:06}.dcm"
            path.write_bytes(event.encoded_dataset())
        with self._lock:
            self.holds[arrival.sop_instance_uid] = arrival.sha256
            self.tally.bytes += arrival.size
        self._tell()

    def _tell(self) -> None:
        """Wake the tasks that wait in trio."""
        if self._token:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._wake)

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


class _Contexts(list[PresentationContext]):
    """The contexts that nodes support: pynetdicom copies them for each association needlessly."""

    def __deepcopy__(self, _: object) -> _Contexts:
        return self


@cache  # pynetdicom takes longer to build them than to store a session of some slices
def _contexts(sop_classes: tuple[str, ...], transfer_syntaxes: tuple[str, ...]) -> _Contexts:
    """Return the supported contexts; classes unknown to pynetdicom become storage classes."""
    for uid in sop_classes:
        if uid_to_service_class(uid) is ServiceClass:  # pynetdicom's value for an unknown class
            register_uid(uid, f"Storage_{uid.replace('.', '_')}", StorageServiceClass)
    storage = [build_context(uid, [*transfer_syntaxes]) for uid in sop_classes]
    return _Contexts([build_context(VERIFICATION), *storage])
