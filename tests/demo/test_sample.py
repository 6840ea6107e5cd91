"""The sample session, judged by pydicom and by DCMTK."""

from __future__ import annotations

import hashlib
import io
import subprocess
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, RLELossless

from proxy.demo.encoding import SampleInstance
from proxy.demo.phantom import Phantom
from proxy.demo.sample import (
    CANARY,
    NATIVE,
    Study,
    assortment,
    ct_series,
    private_object,
)

ALL = [*assortment(Study()), private_object(Study())]

# PS3.3 A.3, the attributes that must be there (type 1) and may be empty (type 2), by module.
CT_TYPE_1 = (
    "StudyInstanceUID Modality SeriesInstanceUID FrameOfReferenceUID PixelSpacing "
    "ImageOrientationPatient ImagePositionPatient SamplesPerPixel PhotometricInterpretation Rows "
    "Columns BitsAllocated BitsStored HighBit PixelRepresentation PixelData ImageType "
    "RescaleIntercept RescaleSlope RescaleType SOPClassUID SOPInstanceUID "
)
CT_TYPE_2 = (
    "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime ReferringPhysicianName "
    "StudyID AccessionNumber SeriesNumber PatientPosition PositionReferenceIndicator Manufacturer "
    "InstanceNumber SliceThickness KVP AcquisitionNumber "
)


def read(instance: SampleInstance) -> pydicom.FileDataset:
    return pydicom.dcmread(io.BytesIO(instance.content))


def test_a_slice_has_what_the_ct_image_iod_requires() -> None:
    ds = read(ct_series(Study(), slices=1, size=32)[0])
    assert [name for name in CT_TYPE_1.split() if name not in ds or ds[name].is_empty] == []
    assert [name for name in CT_TYPE_2.split() if name not in ds] == []
    assert ds.SOPClassUID == CTImageStorage
    assert ds.Modality == "CT"


def test_the_slices_are_one_series_in_order() -> None:
    slices = [read(instance) for instance in ct_series(Study(), slices=4, size=16)]
    assert len({ds.SOPInstanceUID for ds in slices}) == 4
    for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({ds[name].value for ds in slices}) == 1
    assert [ds.InstanceNumber for ds in slices] == [1, 2, 3, 4]
    assert [ds.ImagePositionPatient[2] for ds in slices] == [0, -5, -10, -15]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    def series(seed: int) -> list[SampleInstance]:
        return ct_series(Study(seed), slices=2, size=32)

    assert series(1) == series(1)
    assert not {one.sop_instance_uid for one in series(1)} & {
        one.sop_instance_uid for one in series(2)
    }
    assert read(series(1)[0]).PixelData != read(series(2)[0]).PixelData


@pytest.mark.parametrize("instance", ALL, ids=lambda instance: instance.sop_instance_uid[-6:])
def test_pydicom_reads_it_and_the_record_is_true(instance: SampleInstance) -> None:
    ds = read(instance)
    ds.decode()
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == instance.sop_class_uid
    assert ds.SOPInstanceUID == instance.sop_instance_uid
    assert ds.file_meta.TransferSyntaxUID == instance.transfer_syntax_uid
    encoded = instance.content[-instance.data_set_size :]
    assert hashlib.sha256(encoded).hexdigest() == instance.sha256
    assert all(pydicom.uid.UID(ds[name].value).is_valid for name in ("SOPInstanceUID",))


@pytest.mark.parametrize("instance", ALL, ids=lambda instance: instance.sop_instance_uid[-6:])
@pytest.mark.needs("dcmftest")
def test_dcmtk_reads_it_without_a_word(instance: SampleInstance, tmp_path: Path) -> None:
    path = tmp_path / "instance.dcm"
    path.write_bytes(instance.content)
    subprocess.run(["dcmftest", path], check=True, capture_output=True)
    dump = subprocess.run(["dcmdump", path], check=True, capture_output=True, text=True)
    assert "(0008,0018) UI" in dump.stdout
    assert dump.stderr == ""


FOR_DCIODVFY = [
    each for each in ALL[:-1] if each.transfer_syntax_uid != DeflatedExplicitVRLittleEndian
]
"""It knows no private classes and cannot inflate."""


@pytest.mark.needs("dciodvfy")
@pytest.mark.parametrize(
    "instance", FOR_DCIODVFY, ids=lambda instance: instance.sop_instance_uid[-6:]
)
def test_dciodvfy_finds_no_error(instance: SampleInstance, tmp_path: Path) -> None:
    path = tmp_path / "instance.dcm"
    path.write_bytes(instance.content)
    verdict = subprocess.run(["dciodvfy", path], check=False, capture_output=True, text=True)
    assert "Error" not in verdict.stderr


def test_pixels_are_the_same_in_every_syntax() -> None:
    images = [
        read(ct_series(Study(), slices=1, size=48, transfer_syntax_uid=syntax)[0]).pixel_array
        for syntax in (*NATIVE, RLELossless)
    ]
    for image in images[1:]:
        assert (image == images[0]).all()


def test_the_phantom_looks_like_a_body() -> None:
    image = read(ct_series(Study(), slices=1, size=128)[0]).pixel_array
    assert image[2, 2] == -1000
    assert abs(image[38:46, 60:68].mean() - 40) < 20, "soft tissue"
    assert abs(image[60:68, 26:33].mean() + 820) < 130, "lung"
    assert image[84:90, 58:61].mean() > 300, "bone"


def test_the_phantom_has_one_value_per_pixel() -> None:
    assert len(Phantom(seed=1, size=33).slice(0.5)) == 33 * 33 * 2


def test_the_canary_is_in_every_instance_that_asked_for_it() -> None:
    study = Study(patient_name=CANARY)
    deflated = {instance.transfer_syntax_uid: instance for instance in assortment(study)}
    assert all(read(instance).PatientName == CANARY for instance in deflated.values())
