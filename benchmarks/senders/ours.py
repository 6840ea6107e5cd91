"""Send files to a node with our own sending side: ``ours.py PORT AE_TITLE DIRECTORY [unchecked]``.

The index of the files is in DIRECTORY.json, as it is in the proxy's ledger. Their SHA-256 is
computed while they are sent, and compared. With ``unchecked`` it is not, which shows the cost.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import trio

from proxy.dicom import storage
from proxy.dicom.association import Target, associate
from proxy.dicom.contexts import plan
from proxy.errors import NodeError
from proxy.machines.upper_layer import Clocks
from proxy.model import Instance
from proxy.runtime.wire import TcpNetwork


class Unhashed:
    """In the place of ``hashlib``: computes nothing, and every file agrees with its instance."""

    def __init__(self, instances: dict[str, Instance]) -> None:
        self._expected = iter([instance.sha256 for instance in instances.values()])

    def sha256(self) -> Unhashed:
        """Begin the next file."""
        return self

    def update(self, block: memoryview) -> None:
        """Leave a block alone."""

    def hexdigest(self) -> str:
        """Say what is expected."""
        return next(self._expected)


async def send(port: int, ae_title: str, directory: Path, instances: dict[str, Instance]) -> None:
    """Send all files over one association."""
    target = Target("127.0.0.1", port, ae_title, "BENCHMARK")
    (proposals,) = plan(instances.values())
    async with associate(TcpNetwork(), target, proposals, Clocks()) as association:
        for name, instance in instances.items():
            result = await storage.store(association, instance, directory / name)
            if result.status != 0:
                sys.exit(f"status {result.status}")


def main(port: str, ae_title: str, directory: Path, *options: str) -> None:
    """Read the index and send."""
    index = directory.with_suffix(".json").read_bytes()
    instances = msgspec.json.decode(index, type=dict[str, Instance])
    if "unchecked" in options:
        vars(storage)["hashlib"] = Unhashed(instances)
    try:
        trio.run(send, int(port), ae_title, directory, instances)
    except NodeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
