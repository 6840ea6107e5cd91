"""A DICOM node in memory, for a virtual clock: it takes what it is sent, and says when.

It speaks by pynetdicom's encoders and shares nothing with the product.
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from random import Random
from typing import NamedTuple

import trio
from pynetdicom import dsutils

from tests.dicom import scripted as node
from tests.dicom.scripted import Peer
from tests.dicom.virtual import VirtualStream

QUICK_S, SLOW_S = 0.001, 0.05
"""The bounds of an answer's delay."""

C_STORE, IS_RESPONSE = 0x0001, 0x8000


class Stored(NamedTuple):
    """An instance, and when it came in seconds of trio's clock; ``sha256`` is of its data set."""

    at: float
    sop_instance_uid: str
    sha256: str


class VirtualNode:
    """It accepts every association and every instance; its delays are drawn from ``rng``."""

    def __init__(self, rng: Random) -> None:
        self.stored: list[Stored] = []
        self.echoes = 0
        self._rng = rng

    async def handle(self, stream: VirtualStream) -> None:
        """Serve one association."""
        peer = Peer(stream)
        await peer.accept_all()
        while (message := await peer.message_or_release()) is not None:
            command, data_set = message
            asked = dsutils.decode(BytesIO(command), is_implicit_vr=True, is_little_endian=True)
            uid = ""
            if asked.CommandField == C_STORE:
                uid = str(asked.AffectedSOPInstanceUID)
                digest = hashlib.sha256(data_set).hexdigest()
                self.stored.append(Stored(trio.current_time(), uid, digest))
            else:
                self.echoes += 1
            await trio.sleep(self._rng.uniform(QUICK_S, SLOW_S))
            kind = asked.CommandField | IS_RESPONSE
            answer = node.command(node.response(0, asked.MessageID, uid, kind))
            await peer.send(node.data(node.pdv(answer, context_id=peer.context_id)))
