"""The bounds of tasks, connections, files and memory, each with a fault that breaks it.

The faults are planted in the program, for one world.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import pytest
import trio

from proxy.activities.node import NodeAtWork
from proxy.backend import archive
from proxy.backend.rest import Backend
from proxy.dicom import pdu
from proxy.dicom.provider import Provider
from proxy.reporting.outbox import Outbox, Parcel
from proxy.simulation.bounds import memory, open_files
from proxy.simulation.internet import ITH, Manner
from proxy.simulation.ith import HOST
from proxy.simulation.many import simulate
from proxy.simulation.misbehaviour import Kind, Misbehaviour
from proxy.simulation.scenario import (
    NODES,
    NOON,
    EntityLevel,
    Incident,
    OrderSent,
    Outage,
    Scenario,
    Stop,
    Trouble,
)

ORDER = OrderSent(at=1.0, number=3, level=EntityLevel.SUBJECT, session=0, nodes=NODES)
STOP = Stop(at=100.0, twice=False)
FLOOD = Misbehaviour(Kind.FLOOD, after=1 << 20)


def violations(*incidents: Incident) -> list[str]:
    return simulate(Scenario(4, NOON, 2, "both", (ORDER, *incidents))).violations


@pytest.fixture(autouse=True, scope="module")
def begun() -> None:
    """Let the process have run a world, so that what is made from now on is counted."""
    assert violations() == []


@pytest.fixture
def opened() -> list[BinaryIO]:
    """Files to be closed after a test."""
    return []


def test_the_program_itself_stays_within_its_bounds() -> None:
    outage = Outage(at=2.0, of=ITH, seconds=60.0, manner=Manner.SILENT)
    trouble = Trouble(at=0.0, node="a", misbehaviour=FLOOD)
    assert violations(STOP, outage, trouble) == []


def test_a_task_is_left_with_each_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    original = NodeAtWork._verify

    async def verify(self: NodeAtWork, *args: Any) -> Any:
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery
        nursery.start_soon(trio.sleep_forever)
        return await original(self, *args)

    monkeypatch.setattr(NodeAtWork, "_verify", verify)
    sentence, _ = violations()
    assert "tasks at rest, where 23 are enough" in sentence


def test_a_thousand_tasks_live_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Backend.configuration

    async def configuration(self: Backend) -> bytes:
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(trio.sleep, 0.1)
        return await original(self)

    monkeypatch.setattr(Backend, "configuration", configuration)
    (sentence,) = violations()
    assert "tasks at one time" in sentence


def test_connections_to_nodes_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Provider, "close", lambda self: None)
    found = "\n".join(violations())
    assert "connections to a at rest" in found
    assert "connections to a at one time" in found


def test_connections_to_ith_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    original, kept = Backend.configuration, []

    async def configuration(self: Backend) -> bytes:
        kept.append(await trio.open_tcp_stream(HOST, urlsplit(self._settings.url).port or 0))
        return await original(self)

    monkeypatch.setattr(Backend, "configuration", configuration)
    assert "2 connections to ith at rest" in violations()[0]
    assert "the program ended, and 1 connections to ith are open" in violations(STOP)[0]


def test_a_file_is_left_open(monkeypatch: pytest.MonkeyPatch, opened: list[BinaryIO]) -> None:
    original = archive._Unpacking.unpack

    def unpack(self: archive._Unpacking) -> archive.Unpacked:
        opened.append(self._archive.open("rb"))
        return original(self)

    monkeypatch.setattr(archive._Unpacking, "unpack", unpack)
    found = violations(STOP)
    for file in opened:
        file.close()
    assert "the program ended, and these files are open: staging/" in found[0]


def test_a_file_is_left_in_staging(monkeypatch: pytest.MonkeyPatch) -> None:
    original = archive._Unpacking.unpack

    def unpack(self: archive._Unpacking) -> archive.Unpacked:
        self._archive.parent.with_name("forgotten").touch()
        return original(self)

    monkeypatch.setattr(archive._Unpacking, "unpack", unpack)
    assert "1 files are left in staging at rest" in violations()[0]


def test_the_program_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Backend.configuration

    async def configuration(self: Backend) -> bytes:
        await trio.open_tcp_listeners(0, host="192.0.2.10")
        return await original(self)

    monkeypatch.setattr(Backend, "configuration", configuration)
    assert "1 listeners of the program" in violations()[0]


def test_reports_are_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Parcel] = []
    original = Outbox.put

    def put(self: Outbox, key: str, report: Any) -> None:
        kept.extend(Parcel(key, report) for _ in range(50))
        original(self, key, report)

    monkeypatch.setattr(Outbox, "put", put)
    found = violations()
    assert "objects of the program, where" in found[0]
    assert "proxy.reporting.outbox.Parcel" in found[0]


def test_bytes_are_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bytes] = []
    original = pdu.PduReader.feed

    def feed(self: pdu.PduReader, data: bytes) -> None:
        kept.append(bytes(100_000))
        original(self, data)

    monkeypatch.setattr(pdu.PduReader, "feed", feed)
    (sentence,) = violations()
    assert "bytes in buffers" in sentence


def test_a_flood_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdu.PduReader, "feed", lambda self, data: None)
    flood = Misbehaviour(Kind.FLOOD, after=9 << 20)
    sentence = violations(Trouble(at=0.0, node="a", misbehaviour=flood))[-1]
    assert "bytes were taken on one connection to a (P7)" in sentence


def test_a_flood_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdu.PduReader, "pdus", lambda self: iter(()))
    flood = Misbehaviour(Kind.FLOOD)
    sentence = violations(Trouble(at=0.0, node="a", misbehaviour=flood))[-1]
    assert "it is sent much, and keeps 4" in sentence
    assert "bytes in buffers" in sentence


def test_open_files_are_those_below_a_directory(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    with (tmp_path / "below" / "one").open("wb"), (tmp_path / "other").open("wb"):
        assert open_files(tmp_path) == ["below/one", "other"]
        assert open_files(tmp_path / "below") == ["one"]
    assert open_files(tmp_path) == []


def test_memory_counts_what_came_since_the_start() -> None:
    before, parcels = memory(), [Parcel("key", "content")]
    blocks = [bytes(2000), bytes(500)]
    after = memory()
    assert len(parcels) + len(blocks) == 3
    assert after.buffered - before.buffered == 2000
