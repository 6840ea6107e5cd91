from __future__ import annotations

import io
import random
import struct
import traceback
import tracemalloc
import warnings
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_dataset, write_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from proxy.errors import DicomUnreadable, NotDicom
from proxy.model import Instance
from proxy.pacs.header import read_instance
from tests.field.make import CASES, syntax_of

pytestmark = pytest.mark.pure

CANARY = "ZZCANARY^PHI"
SYNTAXES = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]

SAMPLES = [
    *("CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm"),
    *("MR_small_RLE.dcm", "JPEG2000.dcm", "JPEG-lossy.dcm", "MR_small_jpeg_ls_lossless.dcm"),
    *("image_dfl.dcm", "rtplan.dcm", "rtdose.dcm", "reportsi.dcm", "test-SR.dcm"),
    *("waveform_ecg.dcm", "liver_1frame.dcm", "examples_jpeg2k.dcm", "examples_palette.dcm"),
    *("ExplVR_BigEnd.dcm", "693_J2KI.dcm", "UN_sequence.dcm", "no_meta_group_length.dcm"),
    *("rtstruct.dcm", "MR_truncated.dcm", "badVR.dcm", "priv_SQ.dcm", "nested_priv_SQ.dcm"),
    *("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "no_meta.dcm"),
]


def sample(name: str) -> Path:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), name
    return Path(path)


@cache
def written(syntax: str = ExplicitVRLittleEndian) -> bytes:
    data = data_set()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(syntax)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    buffer = io.BytesIO()
    dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def data_set() -> Dataset:
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data.SOPInstanceUID = "1.2.3.4.5"
    data.StudyInstanceUID = "1.2.3"
    data.SeriesInstanceUID = "1.2.3.4"
    data.SeriesNumber = 7
    data.InstanceNumber = -2
    data.PatientID = "Zoë-ZZCANARY"
    data.PatientName = CANARY
    inner = Dataset()
    inner.SOPInstanceUID = "9.9.9"
    inner.StudyInstanceUID = "9.9.9"
    data.ReferencedStudySequence = Sequence([inner, inner])
    data["ReferencedStudySequence"].is_undefined_length = True
    data.PixelData = random.Random(1).randbytes(200_000)
    data["PixelData"].VR = "OW"
    return data


def read(tmp_path: Path, content: bytes) -> Instance:
    path = tmp_path / "file"
    path.write_bytes(content)
    return read_instance(path, "hash")


def refused(tmp_path: Path, content: bytes, kind: type[Exception] = DicomUnreadable) -> str:
    with pytest.raises(kind) as caught:
        read(tmp_path, content)
    told = "".join(traceback.format_exception(caught.value))
    assert "CANARY" not in told
    return f"{caught.value}"


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.filterwarnings("ignore")
def test_agrees_with_pydicom(name: str) -> None:
    path = sample(name)
    other = pydicom.dcmread(path, force=True)
    uids = [
        str(other.get(keyword, "")).strip(" \0")
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    ]
    media = [
        str(other.file_meta.get(f"MediaStorage{keyword}", ""))
        for keyword in ("SOPClassUID", "SOPInstanceUID")
    ]
    uids[:2] = (own or told for own, told in zip(uids[:2], media, strict=True))
    if not all(uids[:2]):
        with pytest.raises((DicomUnreadable, NotDicom)):
            read_instance(path, "hash")
        return
    ours = read_instance(path, "hash")
    assert uids == [
        ours.sop_class_uid,
        ours.sop_instance_uid,
        ours.study_instance_uid,
        ours.series_instance_uid,
    ]
    assert ours.series_number == other.get("SeriesNumber")
    assert ours.instance_number == other.get("InstanceNumber")
    assert ours.patient_id == (other.get("PatientID") or "")
    assert ours.size == path.stat().st_size
    declared = other.file_meta.get("TransferSyntaxUID")
    implicit, little = other.original_encoding
    assumed = {(True, True): SYNTAXES[0], (False, True): SYNTAXES[1], (False, False): SYNTAXES[2]}
    assert ours.transfer_syntax_uid == (declared or assumed[bool(implicit), bool(little)])
    if declared is not None and declared != DeflatedExplicitVRLittleEndian:
        first = next(iter(other))
        head = struct.pack("<HH" if little else ">HH", first.tag.group, first.tag.element)
        assert path.read_bytes()[ours.offset :][:4] == head


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_reads_every_encoding(tmp_path: Path, syntax: str) -> None:
    content = written(syntax)
    got = read(tmp_path, content)
    assert got == Instance(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3.4.5",
        transfer_syntax_uid=syntax,
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.4",
        sha256="hash",
        size=len(content),
        offset=got.offset,
        series_number=7,
        instance_number=-2,
        patient_id="Zoë-ZZCANARY",
    )
    assert got.offset == 144 + int.from_bytes(content[140:144], "little")


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
def test_reads_a_bare_data_set_and_guesses_its_syntax(tmp_path: Path, syntax: str) -> None:
    content = written(syntax)
    offset = read(tmp_path, content).offset
    got = read(tmp_path, content[offset:])
    assert (got.transfer_syntax_uid, got.offset) == (syntax, 0)
    assert got.sop_instance_uid == "1.2.3.4.5"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_reads_a_file_without_its_preamble(tmp_path: Path, syntax: str) -> None:
    content = written(syntax)
    whole = read(tmp_path, content)
    for cut in (128, 132):
        got = read(tmp_path, content[cut:])
        assert got.offset == whole.offset - cut
        assert got.transfer_syntax_uid == syntax


@pytest.mark.parametrize("syntax", SYNTAXES[:2])
def test_says_what_the_data_are_when_the_meta_group_lies(tmp_path: Path, syntax: str) -> None:
    content = written(syntax)
    uid, other = [
        (s + "\0" * (len(s) % 2)).encode() for s in (syntax, SYNTAXES[:2][syntax == SYNTAXES[0]])
    ]
    start = content.index(b"UI" + struct.pack("<H", len(uid)) + uid)
    lying = content.replace(
        content[start : start + 4 + len(uid)], b"UI" + struct.pack("<H", len(other)) + other, 1
    )
    assert read(tmp_path, lying).transfer_syntax_uid == syntax


def stray(element: int, value: bytes, *, explicit: bool = True, order: str = "<") -> bytes:
    """Encode one more element of group 0002."""
    value += b"\0" * (len(value) % 2)
    if explicit:
        return struct.pack(f"{order}HH2sH", 2, element, b"UI", len(value)) + value
    return struct.pack(f"{order}HHL", 2, element, len(value)) + value


def with_length(content: bytes, length: int) -> bytes:
    """Say another length of the file meta group."""
    return content[:140] + struct.pack("<L", length) + content[144:]


COMPRESSED = "1.2.840.10008.1.2.4.70"
OTHERS = [b"1.2.840.10008.1.2.1", COMPRESSED.encode(), b"1.2.840.10008.1.2.2", b"1.2.3"]


@pytest.mark.parametrize("counted", [True, False], ids=["in the group's length", "behind it"])
@pytest.mark.parametrize("encoding", [(True, "<"), (False, "<"), (True, ">"), (False, ">")])
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("syntax", [*SYNTAXES[:3], COMPRESSED])
def test_the_first_transfer_syntax_holds(
    tmp_path: Path, syntax: str, other: bytes, encoding: tuple[bool, str], counted: bool
) -> None:
    """Any repeated element, in any encoding, and any length of the group."""
    explicit, order = encoding
    content = in_syntax(syntax)
    whole = read(tmp_path, content)
    strays = (0x0010, other), (0x0002, b"6.6.6"), (0x0003, b"7.7.7")
    more = b"".join(stray(*each, explicit=explicit, order=order) for each in strays)
    changed = content[: whole.offset] + more + content[whole.offset :]
    if counted:
        changed = with_length(changed, whole.offset + len(more) - 144)
    got = read(tmp_path, changed)
    assert got == msgspec.structs.replace(
        whole, size=whole.size + len(more), offset=whole.offset + len(more)
    )
    assert changed[got.offset :] == content[whole.offset :]


def in_syntax(syntax: str) -> bytes:
    """Write a file in a syntax; a compressed one has its pixel data in fragments."""
    if syntax != COMPRESSED:
        return written(syntax)
    data = data_set()
    data.PixelData = encapsulate([b"\xff\xd8 a compressed frame \xff\xd9"])
    data["PixelData"].VR = "OB"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(syntax)
    buffer = io.BytesIO()
    dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("length", [0, 4, 50, 60_000, 2**32 - 1])
@pytest.mark.parametrize("syntax", [*SYNTAXES, COMPRESSED])
def test_the_length_of_the_meta_group_may_be_wrong(
    tmp_path: Path, syntax: str, length: int
) -> None:
    content = in_syntax(syntax)
    assert read(tmp_path, with_length(content, length)) == read(tmp_path, content)


@pytest.mark.parametrize("syntax", [*SYNTAXES, COMPRESSED])
@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("order", "<>")
def test_the_meta_group_may_be_in_any_encoding(
    tmp_path: Path, syntax: str, explicit: bool, order: str
) -> None:
    """PS3.10 7.1 knows Explicit VR Little Endian only; writers know others."""
    content = in_syntax(syntax)
    data = content[read(tmp_path, content).offset :]
    parts = [(0x0002, b"1.2.3"), (0x0003, b"6.6.6"), (0x0010, syntax.encode())]
    group = b"".join(stray(*part, explicit=explicit, order=order) for part in parts)
    length = struct.pack(f"{order}L", len(group))
    head = struct.pack(f"{order}HH", 2, 0)
    head += struct.pack(f"{order}2sH", b"UL", 4) if explicit else struct.pack(f"{order}L", 4)
    for preamble in (bytes(128) + b"DICM", b"DICM", b""):
        got = read(tmp_path, preamble + head + length + group + data)
        assert got.transfer_syntax_uid == syntax
        assert got.sop_instance_uid == "1.2.3.4.5"
        assert got.offset == len(preamble + head + length + group)


@pytest.mark.parametrize("told", ["", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"])
def test_compressed_pixels_are_not_taken_for_plain_ones(tmp_path: Path, told: str) -> None:
    """No syntax, or one that the first element belies: the guess must not be a plain one then."""
    content = in_syntax(COMPRESSED)
    start = read(tmp_path, content).offset
    group = stray(0x0002, b"1.2.3") + (stray(0x0010, told.encode()) if told else b"")
    lying = bytes(128) + b"DICM" + group + content[start:]
    assert "transfer syntax" in refused(tmp_path, lying)


@pytest.mark.parametrize("told", ["1.2.840.10008.1.2.4.70x", "JPEG", "1." * 40 + "1", "1.2..4"])
def test_a_transfer_syntax_that_is_no_uid_is_not_replaced_by_a_guess(
    tmp_path: Path, told: str
) -> None:
    content = in_syntax(COMPRESSED)
    start = read(tmp_path, content).offset
    group = stray(0x0010, told.encode()) + stray(0x0010, b"1.2.840.10008.1.2.1")
    lying = bytes(128) + b"DICM" + group + content[start:]
    assert "transfer syntax UID is malformed" in refused(tmp_path, lying)


def test_the_first_of_two_uids_in_the_data_set_holds(tmp_path: Path) -> None:
    content = written()
    start = read(tmp_path, content).offset
    more = struct.pack("<HH2sH", 0x0008, 0x0018, b"UI", 6) + b"9.9.9\0"
    behind = content.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    got = read(tmp_path, content[:behind] + more + content[behind:])
    assert (got.sop_instance_uid, got.offset) == ("1.2.3.4.5", start)


def test_the_data_set_wins_over_the_meta_group(tmp_path: Path) -> None:
    content = written()
    first = content.index(b"1.2.3.4.5")
    got = read(tmp_path, content[:first] + b"6.6.6.6.6" + content[first + 9 :])
    assert got.sop_instance_uid == "1.2.3.4.5"


def test_strips_padding(tmp_path: Path) -> None:
    content = written().replace(b"1.2.3.4.5\0", b"1.2.3.4 \0\0")
    assert read(tmp_path, content).sop_instance_uid == "1.2.3.4"


ODD_UIDS = [
    *(b"ZZCANARY^", b"1.2\\3.4.5", b"1..3.4.5.", b"1.02.3.4.", b"1.2 3.4.5", b"1.2\0\x003.45"),
    b"1.2.M\xdcLLR",
]


@pytest.mark.parametrize("value", ODD_UIDS)
@pytest.mark.parametrize("tag", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_odd_uid_is_taken_as_it_is(tmp_path: Path, value: bytes, tag: str) -> None:
    content = without("ReferencedStudySequence", changes={tag: "8.7.6.5.43"[: len(value)]})
    got = read(tmp_path, content.replace(b"8.7.6.5.43"[: len(value)], value))
    uids = got.sop_instance_uid, got.study_instance_uid, got.series_instance_uid
    assert value.decode("latin-1") in uids


@pytest.mark.parametrize("length", [65, 70, 200, 5000])
def test_a_long_uid_is_taken_as_it_is(tmp_path: Path, length: int) -> None:
    uid = ("1.2.826." + "7" * length)[:length]
    got = read(tmp_path, without(changes={"StudyInstanceUID": uid, "SOPInstanceUID": uid}))
    assert (got.study_instance_uid, got.sop_instance_uid) == (uid, uid)


def without(
    *keywords: str,
    meta: tuple[str, str] | None = ("1.2.3", "1.2.3.4.5"),
    changes: Mapping[str, str] | None = None,
) -> bytes:
    """Write the data set without some elements; ``meta`` is what the file meta group says."""
    data = data_set()
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword in keywords:
            delattr(data, keyword)
        for keyword, value in (changes or {}).items():
            setattr(data, keyword, value)
        write_dataset(buffer, data)
    group = stray(0x0010, ExplicitVRLittleEndian.encode())
    for number, uid in enumerate(meta or ()):
        group += stray(0x0002 + number, uid.encode())
    return bytes(128) + b"DICM" + group + buffer.getvalue()


@pytest.mark.parametrize("value", [b"         ", bytes(9)])
def test_an_empty_uid_is_that_of_the_file_meta_group(tmp_path: Path, value: bytes) -> None:
    content = without(meta=("1.2.3", "6.6.6")).replace(b"1.2.3.4.5", value)
    assert read(tmp_path, content).sop_instance_uid == "6.6.6"
    assert "SOP instance UID is missing" in refused(
        tmp_path, without(meta=None).replace(b"1.2.3.4.5", value)
    )


@pytest.mark.parametrize("gone", ["SOPClassUID", "SOPInstanceUID"])
def test_a_uid_that_only_the_file_meta_group_has(tmp_path: Path, gone: str) -> None:
    got = read(tmp_path, without(gone, meta=("1.2.3", "6.6.6")))
    of_class, of_instance = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5"
    expected = {"SOPClassUID": ("1.2.3", of_instance), "SOPInstanceUID": (of_class, "6.6.6")}
    assert (got.sop_class_uid, got.sop_instance_uid) == expected[gone]
    assert (got.study_instance_uid, got.series_instance_uid) == ("1.2.3", "1.2.3.4")
    assert "missing" in refused(tmp_path, without(gone, meta=None))


def test_a_file_without_its_class_says_so_and_one_without_its_instance_says_its_class(
    tmp_path: Path,
) -> None:
    for gone, known in (("SOPClassUID", ""), ("SOPInstanceUID", "1.2.840.10008.5.1.4.1.1.2")):
        with pytest.raises(DicomUnreadable) as caught:
            read(tmp_path, without(gone, meta=None))
        assert caught.value.sop_class_uid == known


@pytest.mark.parametrize(
    "gone",
    [
        ("StudyInstanceUID",),
        ("SeriesInstanceUID",),
        ("PatientID",),
        ("SeriesNumber", "InstanceNumber"),
        ("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "SeriesNumber", "InstanceNumber"),
    ],
)
def test_what_is_missing_of_the_rest_is_empty(tmp_path: Path, gone: tuple[str, ...]) -> None:
    got = read(tmp_path, without(*gone))
    found = {
        "StudyInstanceUID": got.study_instance_uid,
        "SeriesInstanceUID": got.series_instance_uid,
        "PatientID": got.patient_id,
        "SeriesNumber": got.series_number,
        "InstanceNumber": got.instance_number,
    }
    assert {keyword for keyword, value in found.items() if not value} == {*gone}


def test_a_file_that_ends_with_its_meta_group_has_no_data_set(tmp_path: Path) -> None:
    content = without()
    assert "no data set" in refused(tmp_path, content[: read(tmp_path, content).offset])


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdirtests/DICOMDIR"])
def test_a_dicomdir_is_no_instance(name: str) -> None:
    with pytest.raises(NotDicom) as caught:
        read_instance(sample("DICOMDIR").parent / Path(name).name, "hash")
    assert caught.value.reason == "DICOMDIR"


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08\x00", b"\x02\x00", CANARY.encode() * 99, bytes(1000), b"\x08\0\x05\0" * 99],
)
def test_other_files_are_not_dicom(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path, content, NotDicom)


def test_an_item_length_may_look_like_a_vr(tmp_path: Path) -> None:
    """0x4F42 bytes: as text "BO", which an item without VR must not be taken for."""
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0x4F42) + bytes(0x4F42)
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    sequence = struct.pack("<HH2sHL", 0x0008, 0x1110, b"SQ", 0, 0xFFFFFFFF) + item + end
    content = written()
    first_of_10 = content.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    got = read(tmp_path, content[:first_of_10] + sequence + content[first_of_10:])
    assert got.study_instance_uid == "1.2.3"


def test_unknown_sequences_are_implicit_inside(tmp_path: Path) -> None:
    """PS3.5 6.2.2: a length of 0x4D41 would be read as the VR "AM" if it were explicit."""
    value = struct.pack("<HHL", 0x0009, 0x1001, 0x4D41) + bytes(0x4D41)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + value
    ends = struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    unknown = struct.pack("<HH2sHL", 0x0009, 0x1000, b"UN", 0, 0xFFFFFFFF) + item + ends
    content = written()
    first_of_10 = content.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    got = read(tmp_path, content[:first_of_10] + unknown + content[first_of_10:])
    assert got.study_instance_uid == "1.2.3"


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"])
def test_what_refers_to_pixels_elsewhere_may_be_deflated(tmp_path: Path, syntax: str) -> None:
    content = written(DeflatedExplicitVRLittleEndian)
    meta = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True).file_meta
    meta.TransferSyntaxUID = UID(syntax)
    head = DicomBytesIO()
    head.is_little_endian, head.is_implicit_VR = True, False
    write_file_meta_info(head, meta)
    deflated = content[read(tmp_path, content).offset :]
    got = read(tmp_path, bytes(128) + b"DICM" + head.getvalue() + deflated)
    assert (got.transfer_syntax_uid, got.study_instance_uid) == (syntax, "1.2.3")


def test_deflated_bytes_may_look_like_the_meta_group(tmp_path: Path) -> None:
    """An empty block, then a stored one: ``02 00`` is valid deflate (RFC 1951 3.2.3)."""
    content = written(DeflatedExplicitVRLittleEndian)
    start = read(tmp_path, content).offset
    data = zlib.decompress(content[start:], -15)[:2000]
    stored = b"\x02\x00" + struct.pack("<HH", len(data), len(data) ^ 0xFFFF) + data
    assert zlib.decompressobj(-15).decompress(stored) == data
    assert read(tmp_path, content[:start] + stored).offset == start


def test_hostile_structures_end_soon(tmp_path: Path) -> None:
    content = written()
    start = read(tmp_path, content).offset
    open_sequence = struct.pack("<HH2sHL", 0x0008, 0x1110, b"SQ", 0, 0xFFFFFFFF)
    open_item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    empty = struct.pack("<HH2sH", 0x0008, 0x0001, b"CS", 0)
    long_id = struct.pack("<HHLL", 0x0008, 0x0018, int.from_bytes(b"UN\0\0", "little"), 2**31)
    nested = (open_sequence + open_item) * 5000
    for hostile in (nested, empty * 300_000, long_id + bytes(10_000)):
        got = read(tmp_path, content[:start] + hostile)  # the node may be able to read it
        assert (got.study_instance_uid, got.sop_instance_uid) == ("", "1.2.3.4.5")


def test_inflates_only_the_head(tmp_path: Path) -> None:
    content = written(DeflatedExplicitVRLittleEndian)
    start = read(tmp_path, content).offset
    packer = zlib.compressobj(wbits=-15)
    element = struct.pack("<HH2sHL", 0x0008, 0x0001, b"OB", 0, 200_000_000)
    bomb = packer.compress(element) + packer.compress(bytes(20_000_000)) + packer.flush()
    assert len(bomb) < 100_000
    tracemalloc.start()
    assert read(tmp_path, content[:start] + bomb).study_instance_uid == ""
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
    assert read(tmp_path, content[:start] + b"\xff" * 1000).study_instance_uid == ""


@pytest.mark.parametrize("name", CASES)
def test_each_file_from_the_field_is_read(tmp_path: Path, name: str) -> None:
    """Where the data set begins, and what is told to a node; ``tests/field`` sends them."""
    content = CASES[name]()
    if name in UNREADABLE:
        refused(tmp_path, content)
        return
    got = read(tmp_path, content)
    assert got.sop_class_uid
    assert got.sop_instance_uid
    assert got.transfer_syntax_uid == syntax_of(name)
    if not {*EMPTY} & {name}:
        assert got.study_instance_uid
        assert got.series_number == 1


UNREADABLE = {
    *("10-no-class", "10-no-instance", "10-class-nowhere-filled"),
    *("12-none-compressed", "12-malformed", "12-malformed-compressed", "12-dot-end"),
}
EMPTY = {
    *("10-no-study", "10-no-study-no-series-no-patient", "10-empty-study", "10-bare-no-study"),
    "12-says-deflated-is-not",
}


def test_only_the_head_of_a_file_is_read(tmp_path: Path) -> None:
    content = written()
    path = tmp_path / "file"
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate(8 * 1024**3)  # sparse: reading it all would take seconds
    assert read_instance(path, "hash").size == 8 * 1024**3


@pytest.mark.parametrize(
    ("charset", "encoding", "name"),
    [
        ("ISO_IR 100", "latin-1", "Müller"),
        ("ISO_IR 144", "iso8859-5", "Иванов"),
        ("\\ISO 2022 IR 87", "iso2022_jp", "山田"),
        ("unheard of", "latin-1", "Müller"),
    ],
)
def test_decodes_a_patient_id_beyond_ascii(
    tmp_path: Path, charset: str, encoding: str, name: str
) -> None:
    def element(number: int, vr: bytes, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        group, low = number >> 16, number & 0xFFFF
        return struct.pack("<HH2sH", group, low, vr, len(value)) + value

    content = b"".join(
        (
            element(0x00080005, b"CS", charset.encode()),
            element(0x00080016, b"UI", b"1.2"),
            element(0x00080018, b"UI", b"1.2.3"),
            element(0x00100020, b"LO", name.encode(encoding)),
            element(0x0020000D, b"UI", b"1.4"),
            element(0x0020000E, b"UI", b"1.5"),
            element(0x00200011, b"IS", b"one"),
        )
    )
    got = read(tmp_path, content)
    assert got.patient_id == name
    assert got.series_number is None


@given(st.data())
def test_no_damage_raises_anything_else(data: st.DataObject) -> None:
    import tempfile

    content = bytearray(written(data.draw(st.sampled_from(SYNTAXES)))[:1500])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file"
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        try:
            read_instance(path, "hash")
        except (DicomUnreadable, NotDicom) as error:
            assert "CANARY" not in "".join(traceback.format_exception(error))  # noqa: PT017
