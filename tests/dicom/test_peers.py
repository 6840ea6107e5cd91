"""Sending to real nodes: the instances arrive byte for byte."""

from __future__ import annotations

import io
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from proxy.dicom.association import Target, associate
from proxy.dicom.contexts import plan
from proxy.dicom.storage import StoreResult, store, verify
from proxy.errors import AssociationRejected
from proxy.machines.failures import Remedy
from proxy.runtime.wire import TcpNetwork
from tests.dicom.objects import SAMPLES, data_set, instance_of, sample, write_ct
from tests.dicom.scripted import CLOCKS
from tests.support.peers import Node, dcmqrscp, free_port, orthanc, storescp


def target_of(node: Node) -> Target:
    return Target(node.host, node.port, node.ae_title, "ITH")


async def store_all(
    network: TcpNetwork, target: Target, paths: list[Path]
) -> dict[Path, StoreResult]:
    instances = {path: instance_of(path) for path in paths}
    results = {}
    for proposals in plan(instances.values()):
        async with associate(network, target, proposals, CLOCKS) as association:
            for path, instance in instances.items():
                results[path] = await store(association, instance, path)
    return results


@pytest.mark.needs("storescp")
async def test_storescp_gets_the_same_bytes(network: TcpNetwork, tmp_path: Path) -> None:
    paths = [sample(name) for name in SAMPLES]
    with storescp(tmp_path, "+B", "+xa", "--unique-filenames") as node:
        await verify(network, target_of(node), CLOCKS)
        results = await store_all(network, target_of(node), paths)
        arrived = sorted(map(data_set, node.stored))
    assert {result.status for result in results.values()} == {0}
    sent = [data_set(path) for path in paths]
    assert arrived == sorted(each + b"\0" * (len(each) % 2) for each in sent)


@pytest.mark.needs("storescp")
async def test_storescp_without_compression_refuses_compressed_ones_alone(
    network: TcpNetwork, tmp_path: Path
) -> None:
    plain, compressed = sample("CT_small.dcm"), sample("JPEG2000.dcm")
    with storescp(tmp_path, "+x=") as node:
        results = await store_all(network, target_of(node), [compressed, plain])
    assert results[plain].status == 0
    assert results[compressed].status is None
    assert results[compressed].failure.remedy in {Remedy.OTHER_SYNTAX, Remedy.NEVER}


@pytest.mark.needs("storescp")
async def test_storescp_refuses_the_association(network: TcpNetwork, tmp_path: Path) -> None:
    with storescp(tmp_path, "--refuse") as node, pytest.raises(AssociationRejected):
        await verify(network, target_of(node), CLOCKS)


@pytest.mark.needs("storescp")
@pytest.mark.parametrize("max_pdu", [4096, 16384, 131072])
async def test_storescp_checks_the_length_of_each_pdu(
    network: TcpNetwork, tmp_path: Path, max_pdu: int
) -> None:
    path = tmp_path / "ct"
    write_ct(path, 400_000)
    with storescp(tmp_path, "+B", "-pdu", str(max_pdu)) as node:
        results = await store_all(network, target_of(node), [path])
        (arrived,) = node.stored
    assert results[path].status == 0
    assert data_set(arrived) == data_set(path)


@pytest.mark.needs("dcmqrscp", "dcmqridx")
async def test_dcmqrscp_stores(network: TcpNetwork, tmp_path: Path) -> None:
    paths = [sample("CT_small.dcm"), sample("MR_small.dcm")]
    with dcmqrscp(tmp_path) as node:
        await verify(network, target_of(node), CLOCKS)
        results = await store_all(network, target_of(node), paths)
        with pytest.raises(AssociationRejected, match="called AE title"):
            await verify(network, Target(node.host, node.port, "WRONG", "ITH"), CLOCKS)
    assert {result.status for result in results.values()} == {0}


@pytest.mark.needs("orthanc")
async def test_orthanc_stores(network: TcpNetwork, tmp_path: Path) -> None:
    paths = [sample("CT_small.dcm"), sample("MR_small.dcm"), sample("JPEG2000.dcm")]
    with orthanc(tmp_path) as node:
        await verify(network, target_of(node), CLOCKS)
        first = await store_all(network, target_of(node), paths)
        again = await store_all(network, target_of(node), paths)
        api = f"http://{node.host}:{node.http_port}/instances"
        ids = json.loads(fetch(api))
        arrived = [fetch(f"{api}/{each}/file") for each in ids]
    assert {r.status for r in [*first.values(), *again.values()]} == {0}
    assert len(ids) == len(paths)
    uids = {pydicom.dcmread(io.BytesIO(file)).SOPInstanceUID for file in arrived}
    assert uids == {instance_of(path).sop_instance_uid for path in paths}


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        body: bytes = answer.read()
        return body


@contextmanager
def pynetdicom_node(status: int, came: list[bytes]) -> Iterator[Target]:
    """A node made of pynetdicom that answers ``status`` with a comment."""

    def keep(event: Any) -> Any:
        came.append(event.request.DataSet.getvalue())
        answer = pydicom.Dataset()
        answer.Status = status
        answer.ErrorComment = "as the test wants"
        return answer

    entity = AE("PYNETDICOM")
    entity.add_supported_context(Verification)
    for path in map(sample, SAMPLES):
        instance = instance_of(path)
        entity.add_supported_context(instance.sop_class_uid, instance.transfer_syntax_uid)
    port = free_port()
    server = entity.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)]
    )
    try:
        yield Target("127.0.0.1", port, "PYNETDICOM", "ITH")
    finally:
        assert server is not None
        server.shutdown()


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xA702, 0xC123])
async def test_pynetdicom_gets_the_same_bytes(network: TcpNetwork, status: int) -> None:
    came: list[bytes] = []
    path = sample("MR_small.dcm")
    with pynetdicom_node(status, came) as target:
        await verify(network, target, CLOCKS)
        results = await store_all(network, target, [path])
    assert came == [data_set(path)]
    assert results[path].status == status
    assert results[path].comment == "as the test wants"


async def test_pynetdicom_may_not_know_a_class(network: TcpNetwork, tmp_path: Path) -> None:
    path = tmp_path / "private"
    write_ct(path, sop_class="1.2.826.0.1.3680043.8.498.1.2.3")
    with pynetdicom_node(0, []) as target:
        results = await store_all(network, target, [path])
    assert results[path].failure.remedy is Remedy.NEVER
    assert "SOP class" in results[path].failure.sentence
