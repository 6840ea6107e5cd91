"""Instances on disk for the tests of this directory, written by pydicom."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from proxy.model import Instance


def write_ct(path: Path, pixel_bytes: int = 2048, sop_class: str = CTImageStorage) -> Instance:
    """Write a CT slice whose pixel data have that many bytes."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.PatientName = "Canary^Bird"
    dataset.PatientID = "CANARY"
    dataset.StudyDate = dataset.StudyTime = dataset.StudyID = dataset.AccessionNumber = ""
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = 1, min(pixel_bytes // 2, 0xFFFF)
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    pattern = bytes(range(256)) * (pixel_bytes // 256 + 1)
    dataset.PixelData = pattern[:pixel_bytes]
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return instance_of(path)


def instance_of(path: Path) -> Instance:
    """Describe a file as pydicom reads it; the offset comes from (0002,0000)."""
    meta = pydicom.filereader.read_file_meta_info(path)
    return Instance(
        sop_class_uid=str(meta.MediaStorageSOPClassUID),
        sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        study_instance_uid="1.2.3",
        series_instance_uid="1.2.3.4",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        size=path.stat().st_size,
        offset=128 + 4 + 12 + int(meta.FileMetaInformationGroupLength),
    )


def data_set(path: Path) -> bytes:
    """Return the bytes after the file meta group, as pydicom finds it."""
    meta = pydicom.filereader.read_file_meta_info(path)
    return path.read_bytes()[128 + 4 + 12 + int(meta.FileMetaInformationGroupLength) :]


SAMPLES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_RLE.dcm",
    "JPEG2000.dcm",
    "JPEG-lossy.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_small_odd.dcm",
    "rtplan.dcm",
    "rtdose.dcm",
    "image_dfl.dcm",
    "reportsi.dcm",
    "waveform_ecg.dcm",
)


def sample(name: str) -> Path:
    """Return one of pydicom's own test files."""
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found)
