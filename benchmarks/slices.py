"""Make CT slices of 512 x 512 to send: ``slices.py DIRECTORY COUNT``."""

from __future__ import annotations

import sys
from pathlib import Path

from proxy.demo.sample import Study, ct_series


def make(directory: Path, count: int) -> None:
    """Write the files, named by number."""
    directory.mkdir()
    for number, sample in enumerate(ct_series(Study(1), slices=count, size=512)):
        (directory / f"{number:05}.dcm").write_bytes(sample.content)


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]))
