"""The simulated node's own codec: what it refuses to read, and pydicom's view of the rest."""

from __future__ import annotations

import struct

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from proxy.simulation.node_bytes import (
    Found,
    Violation,
    data,
    number,
    read_command,
    read_request,
    read_uids,
    uid,
)
from tests.dicom.objects import SAMPLES, data_set, sample
from tests.dicom.scripted import command, item
from tests.simulation.requestor import CT, EXPLICIT, IMPLICIT, encoded, request

pytestmark = pytest.mark.pure

CLASS, SYNTAX = item(0x30, b"1.2.840.10008.1.1"), item(0x40, b"1.2.840.10008.1.2")
FIXED = bytes(68)


def context(*parts: bytes, context_id: int = 1) -> bytes:
    return item(0x20, bytes((context_id, 0, 0, 0)) + b"".join(parts))


def test_pynetdicoms_request_is_read() -> None:
    body = request([("1.2.840.10008.1.1", [IMPLICIT]), (CT, [EXPLICIT, IMPLICIT])], 4096)[6:]
    read = read_request(body)
    assert read.fixed == body[:68]
    assert read.longest == 4096
    assert read.contexts == (
        (1, "1.2.840.10008.1.1", (IMPLICIT,)),
        (3, CT, (EXPLICIT, IMPLICIT)),
    )


@pytest.mark.parametrize(
    "items",
    [
        b"",
        item(0x50, b""),
        context(CLASS, SYNTAX)[:-1],
        context(CLASS, SYNTAX) + b"\x50\0",
        context(CLASS, SYNTAX, context_id=2),
        context(CLASS, SYNTAX) * 2,
        context(CLASS),
        context(SYNTAX),
        context(CLASS, CLASS, SYNTAX),
        item(0x20, b"\1\0"),
    ],
)
def test_a_request_that_breaks_the_standard(items: bytes) -> None:
    with pytest.raises(Violation):
        read_request(FIXED + items)


def test_a_request_that_is_too_short() -> None:
    with pytest.raises(Violation):
        read_request(FIXED[:-1])


def a_command() -> Dataset:
    elements = Dataset()
    elements.AffectedSOPClassUID = CT
    elements.CommandField = 1
    return elements


def test_a_command_is_read() -> None:
    read = read_command(command(a_command()))
    assert (uid(read, 0x0002), number(read, 0x0100)) == (CT, 1)
    for missing in (lambda: uid(read, 0x1000), lambda: number(read, 0x0110)):
        with pytest.raises(Violation):
            missing()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        command(a_command())[:-1],
        command(a_command())[12:],
        command(a_command()) + b"\0\0\0\x08",
        struct.pack("<HHII", 0, 0, 4, 8) + struct.pack("<HHI", 8, 0x18, 0),
    ],
)
def test_a_command_that_breaks_the_standard(content: bytes) -> None:
    with pytest.raises(Violation):
        read_command(content)


@pytest.mark.parametrize("longest", [0, 7, 8, 20, 16384])
def test_fragments_are_as_long_as_the_peer_takes(longest: int) -> None:
    content = bytes(range(100))
    encoded_pdus = data(5, content, longest, is_command=True)
    joined, controls = b"", []
    at = 0
    while at < len(encoded_pdus):
        kind, _, length, size, context_id, control = struct.unpack_from(">BBIIBB", encoded_pdus, at)
        assert (kind, size, context_id) == (4, length - 4, 5)
        assert not longest or length <= max(longest, 8)
        joined += encoded_pdus[at + 12 : at + 6 + length]
        controls.append(control)
        at += 6 + length
    assert joined == content
    assert controls == [1] * (len(controls) - 1) + [3]


BEHIND = {"JPEG2000.dcm", "JPEG-lossy.dcm", "reportsi.dcm"}
"""Their UIDs are behind a sequence of undefined length, which is not read."""


@pytest.mark.parametrize("name", SAMPLES)
def test_uids_as_pydicom_reads_them(name: str) -> None:
    path = sample(name)
    read = pydicom.dcmread(path)
    head = data_set(path)[:4096]
    found = read_uids(head, str(read.file_meta.TransferSyntaxUID), "1.2")
    uids = ("", "") if name in BEHIND else (read.StudyInstanceUID, read.SeriesInstanceUID)
    assert found == (*uids, "1.2")


def with_a_sequence(*, undefined: bool) -> Dataset:
    inside = Dataset()
    inside.StudyInstanceUID = "1.2.9"
    elements = Dataset()
    elements.ReferencedStudySequence = Sequence([inside])
    elements["ReferencedStudySequence"].is_undefined_length = undefined
    elements.StudyInstanceUID = UID("1.2.3")
    return elements


@pytest.mark.parametrize("implicit", [True, False])
def test_a_sequence_is_skipped(*, implicit: bool) -> None:
    content = encoded(with_a_sequence(undefined=False), implicit=implicit)
    syntax = IMPLICIT if implicit else EXPLICIT
    assert read_uids(content, syntax, "1") == Found("1.2.3", "", "1")


@pytest.mark.parametrize("implicit", [True, False])
def test_behind_a_sequence_of_undefined_length_nothing_is_read(*, implicit: bool) -> None:
    content = encoded(with_a_sequence(undefined=True), implicit=implicit)
    syntax = IMPLICIT if implicit else EXPLICIT
    assert read_uids(content, syntax, "1") == Found("", "", "1")


def test_what_cannot_be_read_has_no_uids() -> None:
    assert read_uids(b"\xff" * 40, "1.2.840.10008.1.2.1.99", "1") == Found("", "", "1")
    assert read_uids(b"\x08\0\x05\0OB\0\0", EXPLICIT, "1") == Found("", "", "1")
    assert read_uids(b"\x08\0\x05\0CS\x40\0", EXPLICIT, "1") == Found("", "", "1")
