"""Send files to a node with our own sending side: ``ours.py PORT AE_TITLE DIRECTORY``."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from proxy.dicom.association import Target, associate
from proxy.dicom.contexts import plan
from proxy.dicom.part10 import read_file_meta
from proxy.dicom.storage import store
from proxy.machines.upper_layer import Clocks
from proxy.model import Instance
from proxy.wire import TcpNetwork


def instance(path: Path) -> Instance:
    """What must be known of a file to send it."""
    with path.open("rb") as file:
        meta = read_file_meta(file.read(4096))
    return Instance(
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        study_instance_uid="",
        series_instance_uid="",
        sha256="",
        size=path.stat().st_size,
        offset=meta.offset,
    )


async def send(port: int, ae_title: str, files: dict[Instance, Path]) -> None:
    """Send all files over one association."""
    target = Target("127.0.0.1", port, ae_title, "BENCHMARK")
    (proposals,) = plan(files)
    async with associate(TcpNetwork(), target, proposals, Clocks()) as association:
        for each, path in files.items():
            result = await store(association, each, path)
            if result.status != 0:
                sys.exit(f"status {result.status}")


if __name__ == "__main__":
    paths = sorted(Path(sys.argv[3]).iterdir())
    trio.run(send, int(sys.argv[1]), sys.argv[2], {instance(path): path for path in paths})
