from __future__ import annotations

import io
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from proxy.dicom.part10 import read_file_meta
from proxy.errors import DicomUnreadable, NotDicom

META = FileMetaDataset()
META.FileMetaInformationVersion = b"\x00\x01"
META.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.2")
META.MediaStorageSOPInstanceUID = UID("1.2.3.4.55")
META.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
META.ImplementationClassUID = UID("1.2.3")
META.PrivateInformationCreatorUID = UID("1.2.9")
META.PrivateInformation = bytes(3000)

DATA_SET = bytes.fromhex("0800 0500 4353 0000")


def encoded(meta: FileMetaDataset = META) -> bytes:
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=False)
    return buffer.getvalue()


def with_group_length() -> bytes:
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, META, enforce_standard=True)
    return buffer.getvalue()


def own_files() -> list[Path]:
    """The test files in pydicom's wheel that have a preamble and the three UIDs."""
    found = []
    for path in (Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm"):
        head = path.read_bytes()[:132]
        if head[128:] == b"DICM":
            meta = pydicom.filereader.read_file_meta_info(path)
            wanted = {"MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID"}
            if all(meta.get(keyword) for keyword in wanted):
                found.append(path)
    return found


def test_every_file_of_pydicom_is_read_as_pydicom_reads_it() -> None:
    files = own_files()
    assert len(files) > 50
    for path in files:
        with path.open("rb") as file:
            meta = pydicom.filereader.read_partial(file, stop_when=lambda *_: True).file_meta
            offset = file.tell()
        ours = read_file_meta(path.read_bytes()[:4096])
        assert ours.sop_class_uid == meta.MediaStorageSOPClassUID
        assert ours.sop_instance_uid == meta.MediaStorageSOPInstanceUID
        assert ours.transfer_syntax_uid == meta.TransferSyntaxUID
        if meta.TransferSyntaxUID != "1.2.840.10008.1.2.1.99":
            assert abs(ours.offset - offset) <= 12, path.name


@pytest.mark.parametrize("prefix", [bytes(128) + b"DICM", b"DICM", b""])
@pytest.mark.parametrize("group_length", [True, False])
def test_preamble_prefix_and_group_length_may_be_missing(
    prefix: bytes,
    group_length: bool,
) -> None:
    head = prefix + (with_group_length() if group_length else encoded())
    meta = read_file_meta(head + DATA_SET)
    assert meta.sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    assert meta.sop_instance_uid == "1.2.3.4.55"
    assert meta.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert meta.offset == len(head)


@pytest.mark.parametrize("cut", [1, 2, 7, 8, 100, 2000, 3100])
def test_a_head_that_ends_too_early_is_said_to(cut: int) -> None:
    head = bytes(128) + b"DICM" + with_group_length()
    with pytest.raises(DicomUnreadable):
        read_file_meta(head[:-cut])


@pytest.mark.parametrize(
    "keyword", ["MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID"]
)
def test_a_missing_uid_is_named(keyword: str) -> None:
    meta = FileMetaDataset()
    meta.update({element.tag: element for element in META if element.keyword != keyword})
    with pytest.raises(DicomUnreadable, match=r"lacks \(0002,00"):
        read_file_meta(b"DICM" + encoded(meta) + DATA_SET)


@pytest.mark.parametrize("value", [b"../../etc/passwd", b"", b"\0\0", b"1" * 68, b"1.2\n3"])
def test_what_is_no_uid_is_refused(value: bytes) -> None:
    element = b"\x02\x00\x03\x00UI" + len(value).to_bytes(2, "little") + value
    with pytest.raises(DicomUnreadable, match="not a UID") as caught:
        read_file_meta(b"DICM" + element + DATA_SET)
    assert "passwd" not in str(caught.value)


@pytest.mark.parametrize("head", [b"", b"PK\x03\x04", b"%PDF-1.7", b"<html>", bytes(200)])
def test_what_is_no_dicom_file_is_refused(head: bytes) -> None:
    with pytest.raises(NotDicom):
        read_file_meta(head)


def test_an_implicit_group_is_refused() -> None:
    head = b"DICM" + bytes.fromhex("0200 1000 14000000") + b"1.2.840.10008.1.2.1\0"
    with pytest.raises(DicomUnreadable, match="Explicit VR"):
        read_file_meta(head)


@given(st.binary(max_size=400))
def test_whatever_follows_the_prefix_is_read_or_refused(rest: bytes) -> None:
    try:
        meta = read_file_meta(b"DICM" + rest)
    except DicomUnreadable:
        return
    assert meta.offset <= 4 + len(rest)


def test_nothing_of_the_data_set_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "head"
    path.write_bytes(b"DICM" + encoded() + DATA_SET)
    with io.FileIO(path) as file:
        head = file.read(4096)
    assert read_file_meta(head).offset == path.stat().st_size - len(DATA_SET)
