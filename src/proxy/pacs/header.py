"""Read the properties of a DICOM file that storing it needs: UIDs, numbers, start of the data set.

Reads the file meta group and the data set up to InstanceNumber, a few kilobytes in most files;
never pixel data. Takes files with and without preamble or file meta group (PS3.10 chapter 7).
No part of a value gets into an error or a log. Called in a worker thread while an archive is
unpacked.
"""

from __future__ import annotations

import io
import re
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from proxy.errors import DicomUnreadable, NotDicom
from proxy.logs import log
from proxy.model import (
    DEFLATED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Instance,
)
from proxy.pacs.elements import (
    BIG_LONG,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    LITTLE_LONG,
    UNDEFINED,
    Elements,
    Encoding,
    is_vr,
    read_values,
)

GROUP_LENGTH = 0x00020000
MEDIA_SOP_CLASS, MEDIA_SOP_INSTANCE, TRANSFER_SYNTAX = 0x00020002, 0x00020003, 0x00020010
CHARSET, SOP_CLASS, SOP_INSTANCE = 0x00080005, 0x00080016, 0x00080018
PATIENT_ID = 0x00100020
STUDY, SERIES, SERIES_NUMBER, INSTANCE_NUMBER = 0x0020000D, 0x0020000E, 0x00200011, 0x00200013

META_TAGS = frozenset({GROUP_LENGTH, MEDIA_SOP_CLASS, MEDIA_SOP_INSTANCE, TRANSFER_SYNTAX})
DATA_TAGS = frozenset(
    {CHARSET, SOP_CLASS, SOP_INSTANCE, PATIENT_ID, STUDY, SERIES, SERIES_NUMBER, INSTANCE_NUMBER}
)

PIXEL_DATA = 0x7FE00010

META_GROUP = {b"\x02\x00": EXPLICIT_LITTLE, b"\x00\x02": EXPLICIT_BIG}
"""The encoding of an element of group 0002 by its first two bytes; big endian is wrong there.

:class:`Elements` notices missing VRs.
"""
UNCOMPRESSED = {
    IMPLICIT_LITTLE: IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_LITTLE: EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_BIG: EXPLICIT_VR_BIG_ENDIAN,
}

MEDIA_DIRECTORY_UID = "1.2.840.10008.1.3.10"

INFLATED_HEAD = 1024 * 1024
"""The bytes of a deflated data set that are inflated at most."""

UID = re.compile(r"[0-9]+(\.[0-9]+)*")
INTEGER = re.compile(r"[+-]?[0-9]{1,11}")


class _Start(NamedTuple):
    """The offset of the data set, and the values of the file meta group."""

    offset: int
    marked: bool
    meta: dict[int, bytes]


def read_instance(path: Path, sha256: str) -> Instance:
    """Read the identifiers of the instance in the file at ``path``, whose content has that hash.

    All UIDs but the transfer syntax are those of the data set, never of the file meta group.
    Raises :class:`NotDicom` for anything but a DICOM file and for a DICOMDIR, and
    :class:`DicomUnreadable` for a DICOM file that is damaged or lacks a UID.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        start = _start(file)
        if _uid(start.meta.get(MEDIA_SOP_CLASS)) == MEDIA_DIRECTORY_UID:
            raise NotDicom("DICOMDIR")
        try:
            syntax, stream, encoding = _open_data_set(file, start)
            values = read_values(stream, encoding, DATA_TAGS, INSTANCE_NUMBER)
            instance = Instance(
                sop_class_uid=_required(values, SOP_CLASS, "SOP class"),
                sop_instance_uid=_required(values, SOP_INSTANCE, "SOP instance"),
                transfer_syntax_uid=syntax,
                study_instance_uid=_required(values, STUDY, "study instance"),
                series_instance_uid=_required(values, SERIES, "series instance"),
                sha256=sha256,
                size=size,
                offset=start.offset,
                series_number=_integer(values.get(SERIES_NUMBER)),
                instance_number=_integer(values.get(INSTANCE_NUMBER)),
                patient_id=_text(values.get(PATIENT_ID, b""), values.get(CHARSET, b"")),
            )
        except DicomUnreadable:
            if start.marked:
                raise
        else:
            _compare(instance, start.meta)
            return instance
    raise NotDicom


def _start(file: BinaryIO) -> _Start:
    """Find the file meta group: after the preamble, at the very start, or nowhere."""
    file.seek(0)
    head = file.read(132)
    if head[128:] == b"DICM":
        begin, marked = 132, True
    elif head[:4] == b"DICM":
        begin, marked = 4, True
    else:
        begin, marked = 0, False
    if not marked and head[:2] not in META_GROUP:
        return _Start(0, marked=False, meta={})
    try:
        meta = _file_meta(file, begin)
    except DicomUnreadable:
        if marked:
            raise
        raise NotDicom from None
    return _Start(file.tell(), marked, meta)


def _file_meta(file: BinaryIO, begin: int) -> dict[int, bytes]:
    """Read all of group 0002 before the data set, up to its end.

    Of two elements with one tag the first counts. The first element of another group marks the
    end: the group's length is often wrong, and some writers leave elements of it in the data set,
    in the data set's own encoding.
    """
    file.seek(begin)
    elements = Elements(file, EXPLICIT_LITTLE)
    meta: dict[int, bytes] = {}
    end = 0
    while (group := file.read(2)) in META_GROUP:
        at = file.seek(-2, io.SEEK_CUR)
        if at == end and _uid(meta.get(TRANSFER_SYNTAX)) in DEFLATED:
            return meta  # deflated bytes may look like one more element: here the length decides
        elements.encoding = META_GROUP[group]
        element = elements.due()
        if element.tag not in META_TAGS:
            elements.skip(element)
            continue
        value = meta.setdefault(element.tag, elements.value(element))
        if element.tag == GROUP_LENGTH and not end:
            order = LITTLE_LONG if elements.encoding.little else BIG_LONG
            end = file.tell() + (order.unpack(value)[0] if len(value) == order.size else 0)
    file.seek(-len(group), io.SEEK_CUR)
    return meta


def _open_data_set(file: BinaryIO, start: _Start) -> tuple[str, BinaryIO, Encoding]:
    """Return the transfer syntax, a stream at the data set's start, and its encoding.

    The file meta group decides. Only among the syntaxes without compression, or if it names none,
    the first element shows which one it is; then the pixel data must not be compressed.
    """
    value = start.meta.get(TRANSFER_SYNTAX, b"").strip(b" \0")
    declared = _uid(value)
    if value and not declared:
        raise DicomUnreadable("The transfer syntax UID is malformed in a DICOM file")
    file.seek(start.offset)
    stream = _inflated(file) if declared in DEFLATED else file
    origin = stream.tell()
    head = stream.read(6)
    stream.seek(origin)
    explicit = is_vr(head[4:])
    big = explicit and head[:1] == b"\0" and head[1:2] != b"\0"
    encoding = EXPLICIT_BIG if big else EXPLICIT_LITTLE if explicit else IMPLICIT_LITTLE
    if declared and declared not in UNCOMPRESSED.values():
        return declared, stream, encoding
    shown = UNCOMPRESSED[encoding]
    if shown != declared and _is_encapsulated(stream, encoding):
        raise DicomUnreadable("The transfer syntax of compressed pixel data is missing")
    stream.seek(origin)
    return shown, stream, encoding


def _is_encapsulated(stream: BinaryIO, encoding: Encoding) -> bool:
    """Whether the pixel data are in fragments, as all compressed ones are (PS3.5 A.4)."""
    read_values(stream, encoding, (), PIXEL_DATA - 1)
    element = Elements(stream, encoding).next()
    return element is not None and (element.tag, element.length) == (PIXEL_DATA, UNDEFINED)


def _inflated(file: BinaryIO) -> BinaryIO:
    """Return the head of a deflated data set, inflated (PS3.5 A.5)."""
    try:
        head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(
            file.read(INFLATED_HEAD), INFLATED_HEAD
        )
    except zlib.error:
        raise DicomUnreadable("A deflated DICOM data set is damaged") from None
    return io.BytesIO(head)


def _uid(value: bytes | None) -> str:
    """Return a UID without its padding; "" if the value is none (PS3.5 9.1)."""
    if value is None:
        return ""
    text = value.decode("latin-1").strip(" \0")
    return text if len(text) <= 64 and UID.fullmatch(text) else ""


def _required(values: dict[int, bytes], tag: int, name: str) -> str:
    uid = _uid(values.get(tag))
    if not uid:
        state = "missing from" if not values.get(tag, b"").strip(b" \0") else "malformed in"
        raise DicomUnreadable(f"The {name} UID is {state} a DICOM file")
    return uid


def _integer(value: bytes | None) -> int | None:
    """Return an Integer String's number; None if it is empty, malformed or several."""
    text = (value or b"").decode("latin-1").strip(" \0")
    return int(text) if INTEGER.fullmatch(text) else None


def _text(value: bytes, charset: bytes) -> str:
    """Decode a Long String; the character set matters only to values beyond ASCII."""
    value = value.strip(b" \0")
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    from pydicom.charset import python_encoding  # noqa: PLC0415 - slow to import, rarely needed

    names = [name.strip() for name in charset.decode("latin-1").strip(" \0").split("\\")]
    name = next((name for name in reversed(names) if name in python_encoding), "ISO_IR 100")
    return value.decode(python_encoding[name], errors="replace").strip(" \0")


def _compare(instance: Instance, meta: dict[int, bytes]) -> None:
    """Log each contradiction between the file meta group and the data set."""
    for tag, value, name in (
        (MEDIA_SOP_CLASS, instance.sop_class_uid, "SOP class"),
        (MEDIA_SOP_INSTANCE, instance.sop_instance_uid, "SOP instance"),
    ):
        declared = _uid(meta.get(tag))
        if declared and declared != value:
            log(
                "file_meta.contradicted",
                reason=f"another {name} UID",
                instance_uid=instance.sop_instance_uid,
            )
