"""Send files to a node with pynetdicom: ``peer.py PORT AE_TITLE DIRECTORY``."""

from __future__ import annotations

import sys
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE


def send(port: int, ae_title: str, directory: Path) -> None:
    """Send every file of the directory over one association."""
    files = sorted(directory.iterdir())
    entity = AE(ae_title="BENCHMARK")
    kinds = {
        (str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID))
        for meta in (dcmread(path, stop_before_pixels=True).file_meta for path in files)
    }
    for sop_class, syntax in kinds:
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", port, ae_title=ae_title)
    if not association.is_established:
        sys.exit("no association")
    for path in files:
        status = association.send_c_store(dcmread(path))
        if status.Status != 0:
            sys.exit(f"status {status.Status}")
    association.release()


if __name__ == "__main__":
    send(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
