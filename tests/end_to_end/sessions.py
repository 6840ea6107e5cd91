"""The sessions that these tests dispatch, and the comparison of two copies.

Nothing here is the proxy's: data sets are cut out of files by hand, and read with pydicom.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file, get_testdata_files
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from proxy.demo.encoding import SampleInstance
from proxy.demo.sample import CANARY, Study, assortment, ct_series, mr_series

PATIENT_ID = "ZZCANARY-0001"
CANARIES = tuple(text.encode() for text in (CANARY, PATIENT_ID))
UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
IMPROPER = {"SC_rgb_jpeg.dcm", "rtdose_rle.dcm", "rtdose_rle_1frame.dcm", "MR_truncated.dcm"}
"""Implicit VRs in a compressed transfer syntax (PS3.5 A.4), which DCMTK refuses; half a file."""
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def canary_study(seed: int) -> Study:
    return Study(seed, patient_name=CANARY, patient_id=PATIENT_ID)


def ct_session(seed: int, slices: int, size: int = 32) -> list[SampleInstance]:
    return ct_series(canary_study(seed), slices=slices, size=size)


def many_sessions(seed: int, count: int) -> list[list[SampleInstance]]:
    """Return sessions of one small instance each, which differ in their UIDs alone.

    To encode each of a thousand by itself would take longer than to send them all.
    """
    (model,) = ct_session(seed, slices=1, size=16)
    return [[_copy(model, number)] for number in range(count)]


def _copy(model: SampleInstance, number: int) -> SampleInstance:
    uids = (model.study_instance_uid, model.series_instance_uid, model.sop_instance_uid)
    study, series, instance = fresh = [f"{uid[:-6]}{number:06}" for uid in uids]
    content = model.content
    for uid, other in zip(uids, fresh, strict=True):
        content = content.replace(uid.encode(), other.encode())
    return replace(
        model,
        study_instance_uid=study,
        series_instance_uid=series,
        sop_instance_uid=instance,
        content=content,
        sha256=sha256(data_set_bytes(content)),
    )


def small_mixed_session(seed: int) -> list[SampleInstance]:
    return assortment(canary_study(seed))


def large_mixed_session(seed: int) -> list[SampleInstance]:
    """Return over 200 instances: generated ones, and all proper ones that pydicom brings."""
    study = canary_study(seed)
    generated = [
        *assortment(study),
        *ct_series(study, slices=30, size=128, series=21),
        *mr_series(study, slices=20, series=22),
    ]
    return [*generated, *pydicom_instances()]


@cache
def pydicom_instances() -> tuple[SampleInstance, ...]:
    """Return pydicom's own test files, each with a SOP Instance UID of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(_unique(Path(name) for name in sorted(get_testdata_files())))


def _unique(paths: Iterable[Path]) -> Iterator[SampleInstance]:
    seen: set[str] = set()
    for path in paths:
        if path.name in IMPROPER:
            continue
        try:
            ds = dcmread(path)
        except (InvalidDicomError, ValueError, EOFError, OSError):
            continue
        content = path.read_bytes()
        proper = all(keyword in ds for keyword in UIDS) and content[132:136] == b"\2\0\0\0"
        if not proper or "TransferSyntaxUID" not in ds.file_meta:
            continue
        if ds.SOPInstanceUID in seen:
            ds.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            rewritten = io.BytesIO()
            ds.save_as(rewritten)
            content = rewritten.getvalue()
        seen.add(ds.SOPInstanceUID)
        data = data_set_bytes(content)
        if len(data) % 2 and ds.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
            data += b"\0"  # a stream of odd length is padded when it is sent (PS3.5 A.5)
        elif len(data) % 2:
            continue  # truncated
        yield SampleInstance(
            sop_class_uid=str(ds.SOPClassUID),
            sop_instance_uid=str(ds.SOPInstanceUID),
            study_instance_uid=str(ds.StudyInstanceUID),
            series_instance_uid=str(ds.SeriesInstanceUID),
            transfer_syntax_uid=str(ds.file_meta.TransferSyntaxUID),
            content=content,
            sha256=sha256(data),
            data_set_size=len(data),
        )


def pack(instances: Iterable[SampleInstance], *more: bytes) -> bytes:
    """Return a zip as nasty as real ones are; ``more`` are files under names of DICOM."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in _entries([*instances], more):
            archive.writestr(name, content)
    return packed.getvalue()


def _entries(instances: list[SampleInstance], more: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    directory = get_testdata_file("DICOMDIR")
    assert isinstance(directory, str)
    yield "DICOMDIR", Path(directory).read_bytes()
    yield "README.txt", b"Open index.htm.\r\n"
    yield "index.htm", b"<html><body>The viewer</body></html>"
    yield "viewer/setup.exe", b"MZ\x90\0" + b"\0" * 200
    yield "viewer/.DS_Store", b"\0\0\0\1Bud1"
    yield "__MACOSX/._IM0001.dcm", b"\0\5\x16\7" + b"\0" * 78
    yield "IMAGES/", b""
    yield "IMAGES/empty.dcm", b""
    yield "IMAGES/text.dcm", b"this is no DICOM file"
    yield "IMAGES/noise.dcm", bytes(range(256)) * 4
    yield "IMAGES/preview.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0\xff\xd9"
    places = ("IMAGES/IM{:04}", "a/b c/d/e/f/g/h/i/j/k/l/m/é {}.DCM", "../../up {}.dcm", "/abs{}")
    for number, instance in enumerate(instances):
        yield places[number % len(places)].format(number), instance.content
    yield "once more.dcm", instances[0].content
    for number, content in enumerate(more):
        yield f"more/{number}.dcm", content


def data_set_bytes(content: bytes) -> bytes:
    """Return what follows the file meta group, whose first element says how long it is."""
    assert content[128:136] == b"DICM\2\0\0\0", "no file meta group"
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hashes_of(instances: Iterable[SampleInstance]) -> dict[str, str]:
    """Return the hash of each data set by SOP Instance UID."""
    return {each.sop_instance_uid: each.sha256 for each in instances}


def hashes_in(files: Iterable[Path]) -> dict[str, str]:
    """Return the hash of the data set in each file by the SOP Instance UID within."""
    return {
        str(read(path.read_bytes()).SOPInstanceUID): sha256(data_set_bytes(path.read_bytes()))
        for path in files
    }


def arrivals_in(files: Iterable[Path]) -> Counter[str]:
    """Count files by the SOP Instance UID within: of a node that overwrites none."""
    return Counter(str(read(path.read_bytes()).SOPInstanceUID) for path in files)


def once_each(*sessions: Iterable[SampleInstance]) -> Counter[str]:
    """Return the counts of a node where each of these instances came once."""
    return Counter(each.sop_instance_uid for session in sessions for each in session)


def read(content: bytes) -> Dataset:
    """Read a file with pydicom, which has much to say about its own test files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(io.BytesIO(content))


def elements(content: bytes) -> dict[str, object]:
    """Return a file's elements decoded, so that files written by different nodes can be compared.

    Elements without meaning, and those a node may rewrite, are left out: group lengths and data
    set trailing padding (PS3.5 7.2, PS3.10 7.2), and the padding of values.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _elements(read(content))


def _elements(ds: Dataset) -> dict[str, object]:
    found: dict[str, object] = {}
    for element in ds:
        if element.tag.element == 0 or element.tag == 0xFFFCFFFC:
            continue
        value = element.value
        if element.VR == "SQ":
            found[str(element.tag)] = [_elements(item) for item in value]
        elif isinstance(value, bytes):
            found[str(element.tag)] = value.rstrip(b"\0 ")
        elif isinstance(value, float):
            found[str(element.tag)] = repr(value)
        else:
            found[str(element.tag)] = str(value or "").rstrip("\0 ")
    return found
