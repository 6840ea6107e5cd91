"""Data sets made into DICOM files, in any transfer syntax pydicom writes, and RLE Lossless."""

from __future__ import annotations

import hashlib
import struct
from array import array
from dataclasses import dataclass
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless


@dataclass(frozen=True)
class SampleInstance:
    """One DICOM file; ``sha256`` (hex) is of its data set alone, after the file meta group."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    content: bytes
    sha256: str
    data_set_size: int


def encode(ds: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> SampleInstance:
    """Return the DICOM file of a data set; 16 bit pixels are encoded as the syntax requires."""
    if transfer_syntax_uid == RLELossless:
        frame = _rle_frame(ds.PixelData, ds.Columns)
        ds.add_new("PixelData", "OB", encapsulate([frame]))
        ds["PixelData"].is_undefined_length = True
    elif transfer_syntax_uid == ExplicitVRBigEndian:
        ds.PixelData = _swapped(ds.PixelData)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    file = BytesIO()
    dcmwrite(file, ds, enforce_file_format=True)
    content = file.getvalue()
    # Preamble and "DICM" (132 bytes), then the group length's element (12), whose value counts
    # the rest of the group (PS3.10 7.1).
    offset = 144 + int.from_bytes(content[140:144], "little")
    return SampleInstance(
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        transfer_syntax_uid=str(transfer_syntax_uid),
        content=content,
        sha256=hashlib.sha256(memoryview(content)[offset:]).hexdigest(),
        data_set_size=len(content) - offset,
    )


def _rle_frame(pixels: bytes, columns: int) -> bytes:
    """Return 16 bit pixels as RLE segments of literal runs, high bytes first (PS3.5 Annex G)."""
    segments = [_rle_segment(pixels[start::2], columns) for start in (1, 0)]
    offsets = [64, 64 + len(segments[0]), *[0] * 13]
    return struct.pack("<16I", len(segments), *offsets) + b"".join(segments)


def _rle_segment(plane: bytes, columns: int) -> bytes:
    """Return one byte plane, each row encoded by itself, of even length."""
    runs = bytearray()
    for row in range(0, len(plane), columns):
        for start in range(row, row + columns, 128):
            run = plane[start : min(start + 128, row + columns)]
            runs.append(len(run) - 1)
            runs += run
    return bytes(runs) + b"\0" * (len(runs) % 2)


def _swapped(pixels: bytes) -> bytes:
    """Return 16 bit pixels with their bytes swapped."""
    words = array("H", pixels)
    words.byteswap()
    return words.tobytes()
