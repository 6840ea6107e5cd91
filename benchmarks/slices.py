"""Make CT slices of 512 x 512 to send: ``slices.py DIRECTORY COUNT``.

Beside the directory, in DIRECTORY.json, is what the proxy keeps in its ledger of each file since
it came: its UIDs, its length and its SHA-256.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import msgspec

from proxy.demo.sample import Study, ct_series
from proxy.pacs.header import read_instance


def make(directory: Path, count: int) -> None:
    """Write the files, named by number, and the index."""
    directory.mkdir()
    index = {}
    for number, sample in enumerate(ct_series(Study(1), slices=count, size=512)):
        path = directory / f"{number:05}.dcm"
        path.write_bytes(sample.content)
        index[path.name] = read_instance(path, hashlib.sha256(sample.content).hexdigest())
    directory.with_suffix(".json").write_bytes(msgspec.json.encode(index))


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]))
