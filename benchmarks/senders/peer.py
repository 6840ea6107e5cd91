"""Send files to a node with pynetdicom: ``peer.py PORT AE_TITLE DIRECTORY [best]``.

With ``best`` it has the settings that make it fastest: no waiting for acknowledgements, neither
of its own nor of the node, and data sets that are sent as they lie on disk.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config, evt

LAST_OF_DATA_SET = b"\x02"
"""The message control header of a PDV that is (PS3.8 section E.2), byte 11 of its PDU."""


def send(port: int, ae_title: str, directory: Path, *, best: bool) -> None:
    """Send every file of the directory over one association."""
    files = sorted(directory.iterdir())
    entity = AE(ae_title="BENCHMARK")
    metas = [read_file_meta_info(path) for path in files]
    for kind in {(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID) for meta in metas}:
        entity.add_requested_context(*kind)
    _config.STORE_SEND_CHUNKED_DATASET = best
    handlers: list[evt.EventHandlerType] = []
    if best:
        handlers += [(evt.EVT_CONN_OPEN, set_no_delay), (evt.EVT_DATA_SENT, acknowledge)]
    association = entity.associate("127.0.0.1", port, ae_title=ae_title, evt_handlers=handlers)
    if not association.is_established:
        sys.exit("no association")
    for path in files:
        # Else pynetdicom's other thread, not asleep yet, now and then takes the answer away.
        while best and association._is_paused:  # noqa: SLF001
            time.sleep(0.0001)
        status = association.send_c_store(path if best else dcmread(path))
        if status.Status != 0:
            sys.exit(f"status {status.Status}")
    association.release()


def set_no_delay(event: evt.Event) -> None:
    """Switch Nagle's algorithm off."""
    set_on(event, socket.TCP_NODELAY)


def acknowledge(event: evt.Event) -> None:
    """Have the answer to a message acknowledged at once, part by part."""
    if event.data[11:12] == LAST_OF_DATA_SET:
        set_on(event, socket.TCP_QUICKACK)


def set_on(event: evt.Event, option: int) -> None:
    """Set an option of the connection."""
    connection = event.assoc.dul.socket
    if connection and connection.socket:
        connection.socket.setsockopt(socket.IPPROTO_TCP, option, 1)


if __name__ == "__main__":
    send(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), best="best" in sys.argv[4:])
