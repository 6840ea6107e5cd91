"""The simulated node behind a real TCP listener, met by DCMTK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from proxy.demo.sample import Study, assortment
from proxy.simulation.node import Kind, Misbehaviour, SimulatedNode
from tests.support import tools

INSTANCES = assortment(Study(seed=5))
PROPOSE: dict[str, str] = {
    ImplicitVRLittleEndian: "-xi",
    ExplicitVRLittleEndian: "-xe",
    ExplicitVRBigEndian: "-xb",
    DeflatedExplicitVRLittleEndian: "-xd",
    RLELossless: "-xr",
}
"""The option of storescu to propose an instance's own transfer syntax."""


@asynccontextmanager
async def listening(node: SimulatedNode) -> AsyncIterator[str]:
    """Serve on the loopback interface; yield the port."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, node.serve, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        yield str(listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel("the test is over")


async def run(tool: str, *arguments: str) -> tuple[int, str]:
    """Run a program of DCMTK; return its exit code and all that it printed."""
    program = tools.find(tool)
    assert program is not None
    done = await trio.run_process(
        [program, *arguments], capture_stdout=True, capture_stderr=True, check=False
    )
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


@pytest.mark.needs("echoscu", "storescu", "findscu")
async def test_dcmtk_stores_and_finds(tmp_path: Path) -> None:
    files: dict[str, list[str]] = {}
    for number, instance in enumerate(INSTANCES):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(instance.content)
        files.setdefault(instance.transfer_syntax_uid, []).append(str(path))
    node = SimulatedNode(Random(1))
    async with listening(node) as port:
        assert await run("echoscu", "127.0.0.1", port) == (0, "")
        for syntax, paths in files.items():
            code, said = await run("storescu", PROPOSE[syntax], "127.0.0.1", port, *paths)
            assert code == 0, said
        one = INSTANCES[0]
        keys = ("-k", "QueryRetrieveLevel=IMAGE", "-k", f"SOPInstanceUID={one.sop_instance_uid}")
        code, said = await run("findscu", "-S", *keys, "127.0.0.1", port)
        assert code == 0
        assert one.series_instance_uid in said
    assert node.holds == {each.sop_instance_uid: each.sha256 for each in INSTANCES}
    assert not node.violations
    assert node.associations.open == 0


@pytest.mark.needs("storescu")
async def test_dcmtk_understands_a_refusal(tmp_path: Path) -> None:
    path = tmp_path / "0.dcm"
    path.write_bytes(INSTANCES[0].content)
    node = SimulatedNode(Random(1))
    node.misbehave(Misbehaviour(Kind.REJECT, code=0x010107))
    node.misbehave(Misbehaviour(Kind.STORE_STATUS, code=0xA700))
    async with listening(node) as port:
        _, rejected = await run("storescu", "127.0.0.1", port, str(path))
        _, refused = await run("storescu", "-v", "127.0.0.1", port, str(path))
    assert "Called AE Title Not Recognized" in rejected
    assert "OutOfResources" in refused
    assert node.holds == {}
