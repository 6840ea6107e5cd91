"""Archives as they may come from ITH, made in memory, and what unpacking makes of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tarfile
import traceback
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from proxy.backend.archive import ArchiveLimits, Unpacked, unpack
from proxy.errors import BackendError
from proxy.pacs.header import read_instance

CANARY = "ZZCANARY^PHI"
LIMITS = ArchiveLimits(reserve_bytes=0)
SC = "1.2.840.10008.5.1.4.1.1.7"
Files = list[tuple[str, bytes]]


@cache
def dicom(number: int = 1, series: int = 1, pixels: bytes = b"\0\0", **changes: str) -> bytes:
    data = Dataset()
    data.SOPClassUID = SC
    data.SOPInstanceUID = f"1.2.3.{series}.{number}"
    data.StudyInstanceUID = "1.2.3"
    data.SeriesInstanceUID = f"1.2.3.{series}"
    data.PatientName = CANARY
    data.PatientID = CANARY
    data.InstanceNumber = number
    for name, value in changes.items():
        setattr(data, name, value)
    data.PixelData = pixels
    data["PixelData"].VR = "OB"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: Files, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def targz(files: Files) -> bytes:
    return gzip.compress(tarred(files))


PACKERS: list[Callable[[Files], bytes]] = [zipped, targz, tarred]


def unpacked(
    tmp_path: Path, archive: bytes, limits: ArchiveLimits = LIMITS, *, comes_again: bool = False
) -> Unpacked:
    path = tmp_path / "archive"
    path.write_bytes(archive)
    return unpack(
        path, tmp_path / "staging", limits, lambda: None, read_instance, comes_again=comes_again
    )


def refused(
    tmp_path: Path, archive: bytes, limits: ArchiveLimits = LIMITS, *, comes_again: bool = False
) -> BackendError:
    with pytest.raises(BackendError) as caught:
        unpacked(tmp_path, archive, limits, comes_again=comes_again)
    told = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert "CANARY" not in told
    assert not (tmp_path / "staging").exists()
    return caught.value


def with_free_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = type(shutil.disk_usage("/"))(free, 0, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def contents(got: Unpacked) -> list[bytes]:
    for staged in got.instances:
        content = staged.path.read_bytes()
        assert staged.instance.sha256 == hashlib.sha256(content).hexdigest()
        assert staged.instance.size == len(content)
    return [staged.path.read_bytes() for staged in got.instances]


def cancelled_at_every_checkpoint(archive: Path, staging: Path) -> int:
    """Cancel the unpacking at its first checkpoint, at its second, …; return how many there are.

    No cancellation must leave a file.
    """
    passed = last = 0

    class Stop(BaseException):
        pass

    def checkpoint() -> None:
        nonlocal passed
        passed += 1
        if passed == last:
            raise Stop

    for last in range(1, 1000):  # noqa: B007 - checkpoint() looks at it
        passed = 0
        try:
            unpack(archive, staging, LIMITS, checkpoint, read_instance)
        except Stop:
            assert not staging.exists()
        else:
            break
    return last
