"""Files by dcmsend and by this program: ``python -m tests.field.compare [--field] [--implicit]``.

Prints a table of the files that were made here, and of the test files that pydicom and dicom3tools
bring where they are installed: what DCMTK's dcmsend delivers of each to a storescp, with its checks
of UIDs and without them, and what the complete program does. The exit code is 1 if dcmsend
delivers a file that the program does not. ``--field`` and ``--samples`` choose one of the two,
and with ``--implicit`` the node accepts Implicit VR Little Endian alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import pydicom
import trio
from pydicom.data import get_testdata_files

from tests.end_to_end.sessions import data_set_bytes
from tests.end_to_end.site import a_site
from tests.field.make import CASES
from tests.support import tools
from tests.support.peers import Node, storescp

SEND_ALL = ("+f",), ("+f", "--no-uid-checks")
"""The options under which dcmsend reads most; it does not say that it is less strict by both."""

OTHERS = Path("/usr/share/doc/dicom3tools/examples")


def dcmsend(node: Node, path: Path, *options: str) -> bool:
    """Send a file with dcmsend, and return whether it arrived; it is removed there again."""
    program = tools.find("dcmsend")
    assert program is not None, tools.how_to_install("dcmsend")
    command = [program, *options, node.host, f"{node.port}", f"{path}"]
    subprocess.run(command, check=False, capture_output=True, timeout=120)
    stored = node.stored
    for each in stored:
        each.unlink()
    return bool(stored)


def arrived(path: Path) -> tuple[str, bytes]:
    """Return the transfer syntax and the data set of a file that storescp has written."""
    meta = pydicom.filereader.read_file_meta_info(path)
    return str(meta.TransferSyntaxUID), data_set_bytes(path.read_bytes())


def samples() -> dict[str, bytes]:
    """Return the test files of other programs, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = [*map(Path, sorted(get_testdata_files())), *sorted(OTHERS.glob("*.dcm"))]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


async def compare(files: Mapping[str, bytes], root: Path, *options: str) -> list[str]:
    """Print a line for each file; return the names of those that only dcmsend delivers.

    ``options`` are those of storescp: which transfer syntaxes it accepts.
    """
    missed = []
    with storescp(root, "+B", "+uf", *options) as node:
        by_dcmsend = {}
        for name, content in files.items():
            path = root / "input"
            path.write_bytes(content)
            by_dcmsend[name] = [dcmsend(node, path, *options) for options in SEND_ALL]
        async with a_site(root) as site:
            site.has(node=node)
            for name, content in files.items():
                site.backend.rest.offer("session", f"sess-{name}", content)
            await site.start(dicom__retry_count=1)
            for name, delivered in by_dcmsend.items():
                closing = await site.closing(await site.dispatch(f"sess-{name}", "node"))
                for stored in node.stored:
                    stored.unlink()
                ours = closing["status"] == "completed"
                missed += [name] * (any(delivered) and not ours)
                columns = [f"{'yes' if each else 'no':8}" for each in (*delivered, ours)]
                print(f"{name:42}", *columns, (closing.get("error") or "")[:160], flush=True)
    return missed


def main(arguments: list[str]) -> int:
    """Compare the files of one kind, or all."""
    files: dict[str, bytes] = {}
    if "--samples" not in arguments:
        files |= {name: make() for name, make in CASES.items()}
    if "--field" not in arguments:
        files |= samples()
    print(f"{'file':42} {'dcmsend':8} {'-nuc':8} {'ours':8} reason")
    with tempfile.TemporaryDirectory() as root:
        accepts = "+xi" if "--implicit" in arguments else "+xa"
        missed = trio.run(compare, files, Path(root), accepts)
    print(f"{len(files)} files; delivered by dcmsend alone: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
