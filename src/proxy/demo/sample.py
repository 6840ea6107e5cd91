"""Sample DICOM instances: a CT session that is valid, synthetic, and the same for the same seed.

The attributes are those that the IODs require (PS3.3 A.3, A.4, A.8, A.35, A.45), types 1 and 2.
Written with pydicom alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from proxy.demo.encoding import SampleInstance, encode
from proxy.demo.phantom import Phantom

CANARY = "ZZCANARY^PHI"
"""A patient's name to search for in logs, reports and metrics, where it must never be."""

UID_ROOT = "1.2.826.0.1.3680043.8.498."
"""pydicom's own root, free to use for generated UIDs."""

PRIVATE_CLASS = f"{UID_ROOT}9999.1"

DATE, TIME = "20260301", "080000"
NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


@dataclass(frozen=True)
class Study:
    """The common attributes of the instances of one sample session."""

    seed: int = 1
    patient_name: str = "DEMO^PHANTOM"
    patient_id: str = "DEMO-0001"

    def uid(self, *what: object) -> str:
        """Return a UID that depends on the seed and on ``what`` alone."""
        entropy = ["ith-proxy", str(self.seed), *map(str, what)]
        return str(generate_uid(UID_ROOT, entropy_srcs=entropy))

    def data_set(self, sop_class_uid: str, modality: str, series: int, number: int) -> Dataset:
        """Return the patient, study, series, equipment and SOP common modules."""
        ds = Dataset()
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.SOPClassUID = sop_class_uid
        ds.SOPInstanceUID = self.uid("instance", sop_class_uid, series, number)
        ds.StudyDate = ds.SeriesDate = ds.ContentDate = DATE
        ds.StudyTime = ds.SeriesTime = ds.ContentTime = TIME
        ds.AccessionNumber = ""
        ds.Modality = modality
        ds.Manufacturer = "ith-proxy demonstration"
        ds.ReferringPhysicianName = ""
        ds.PatientName = self.patient_name
        ds.PatientID = self.patient_id
        ds.PatientBirthDate = "19700101"
        ds.PatientSex = "O"
        ds.StudyInstanceUID = self.uid("study")
        ds.SeriesInstanceUID = self.uid("series", series)
        ds.StudyID = "1"
        ds.BodyPartExamined = "HEAD"
        ds.SeriesNumber = series
        ds.InstanceNumber = number
        return ds


def ct_series(
    study: Study,
    *,
    slices: int = 24,
    size: int = 256,
    series: int = 1,
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
) -> list[SampleInstance]:
    """Return a CT series of the phantom, ``size`` pixels square."""
    phantom = Phantom(study.seed, size)

    def one(number: int) -> SampleInstance:
        ds = study.data_set(CTImageStorage, "CT", series, number)
        _add_plane(study, ds, number, size, series)
        _add_pixels(ds, size, phantom.slice((number - 0.5) / slices))
        ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.PixelRepresentation = 1
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "HU"
        ds.WindowCenter, ds.WindowWidth = 40, 400
        ds.KVP = 120
        ds.AcquisitionNumber = 1
        return encode(ds, transfer_syntax_uid)

    return [one(number) for number in range(1, slices + 1)]


def mr_series(
    study: Study, *, slices: int = 8, size: int = 64, series: int = 2
) -> list[SampleInstance]:
    """Return an MR series, small instances of the same phantom."""
    phantom = Phantom(study.seed, size)

    def one(number: int) -> SampleInstance:
        ds = study.data_set(MRImageStorage, "MR", series, number)
        _add_plane(study, ds, number, size, series)
        _add_pixels(ds, size, phantom.slice((number - 0.5) / slices))
        ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        ds.PixelRepresentation = 1
        ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", "NONE", ""
        ds.MRAcquisitionType = "2D"
        ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = 500, 15, 1
        return encode(ds)

    return [one(number) for number in range(1, slices + 1)]


def secondary_capture(study: Study, *, size: int = 64, series: int = 3) -> SampleInstance:
    """Return a grey gradient as a Secondary Capture Image."""
    ds = study.data_set(SecondaryCaptureImageStorage, "OT", series, 1)
    _add_pixels(ds, size, bytes(x % 256 for x in range(size)) * size, bits=8)
    ds.ConversionType = "WSD"
    ds.PatientOrientation = ""
    return encode(ds)


def encapsulated_pdf(study: Study, *, series: int = 4) -> SampleInstance:
    """Return an empty page as an Encapsulated PDF."""
    page = (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>endobj\n"
        b"trailer<</Root 1 0 R>>\n%%EOF\n"
    )
    ds = study.data_set(EncapsulatedPDFStorage, "DOC", series, 1)
    ds.ConversionType = "WSD"
    ds.AcquisitionDateTime = ""
    ds.BurnedInAnnotation = "NO"
    ds.DocumentTitle = "Empty page"
    ds.ConceptNameCodeSequence = Items()
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    ds.EncapsulatedDocument = page + b"\n" * (len(page) % 2)
    return encode(ds)


def text_report(study: Study, *, series: int = 5) -> SampleInstance:
    """Return a Basic Text SR of one sentence."""
    ds = study.data_set(BasicTextSRStorage, "SR", series, 1)
    ds.ReferencedPerformedProcedureStepSequence = Items()
    ds.PerformedProcedureCodeSequence = Items()
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = Items([_code("18748-4", "LN", "Diagnostic imaging study")])
    finding = Dataset()
    finding.RelationshipType, finding.ValueType = "CONTAINS", "TEXT"
    finding.ConceptNameCodeSequence = Items([_code("121071", "DCM", "Finding")])
    finding.TextValue = "A synthetic lesion in a synthetic lung."
    ds.ContentSequence = Items([finding])
    return encode(ds)


def private_object(study: Study, *, series: int = 6) -> SampleInstance:
    """Return an instance of a SOP class that no dictionary knows."""
    return encode(study.data_set(PRIVATE_CLASS, "OT", series, 1))


def assortment(study: Study) -> list[SampleInstance]:
    """Return a session of several SOP classes and transfer syntaxes, as real ones are."""
    syntaxes: Sequence[str] = (*NATIVE, RLELossless)
    several = [
        instance
        for number, syntax in enumerate(syntaxes)
        for instance in ct_series(
            study, slices=2, size=64, series=10 + number, transfer_syntax_uid=syntax
        )
    ]
    single: Sequence[Callable[[Study], SampleInstance]] = (
        secondary_capture,
        encapsulated_pdf,
        text_report,
    )
    return [*several, *mr_series(study, slices=3), *(make(study) for make in single)]


def _add_plane(study: Study, ds: Dataset, number: int, size: int, series: int) -> None:
    """Add the frame of reference and image plane modules: slices of 5 mm, 360 mm across."""
    spacing = round(360 / size, 4)
    ds.FrameOfReferenceUID = study.uid("frame of reference", series)
    ds.PositionReferenceIndicator = ""
    ds.PatientPosition = "HFS"
    ds.PixelSpacing = [spacing, spacing]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-180, -180, -5 * (number - 1)]
    ds.SliceThickness = 5
    ds.SliceLocation = -5 * (number - 1)


def _add_pixels(ds: Dataset, size: int, pixels: bytes, bits: int = 16) -> None:
    """Add the image pixel module: one grey, native sample for each pixel."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = size
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = 0
    ds.add_new("PixelData", "OW" if bits > 8 else "OB", pixels)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
