"""Read the properties of a DICOM file that storing it needs: UIDs, numbers, start of the data set.

Reads the file meta group and the data set up to InstanceNumber, a few kilobytes in most files;
never pixel data. Takes files with and without preamble or file meta group (PS3.10 chapter 7).
Judges nothing that a node can judge: a file is refused only if it cannot be sent at all. No part of
a value gets into an error or a log. Called in a worker thread while an archive is unpacked.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
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
    VRS,
    Elements,
    Encoding,
    is_vr,
    read_values,
)
from proxy.pacs.inflate import Inflated

GROUP_LENGTH = 0x00020000
MEDIA_SOP_CLASS, MEDIA_SOP_INSTANCE, TRANSFER_SYNTAX = 0x00020002, 0x00020003, 0x00020010
CHARSET, SOP_CLASS, SOP_INSTANCE = 0x00080005, 0x00080016, 0x00080018
PATIENT_ID = 0x00100020
STUDY, SERIES, SERIES_NUMBER, INSTANCE_NUMBER = 0x0020000D, 0x0020000E, 0x00200011, 0x00200013

META_TAGS = frozenset({GROUP_LENGTH, MEDIA_SOP_CLASS, MEDIA_SOP_INSTANCE, TRANSFER_SYNTAX})
DATA_TAGS = frozenset(
    {CHARSET, SOP_CLASS, SOP_INSTANCE, PATIENT_ID, STUDY, SERIES, SERIES_NUMBER, INSTANCE_NUMBER}
)

UIDS = frozenset({SOP_CLASS, SOP_INSTANCE, STUDY, SERIES})
"""What is looked for beyond its place, if the elements are out of order."""

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

INFLATED_HEAD = 1 << 28
"""The bytes of a deflated data set that are inflated at most to find its identifiers."""

INTEGER = re.compile(r"[+-]?[0-9]{1,11}")
UID = re.compile(r"[0-9]+(\.[0-9]+)*")
LONGEST_UID = 64

_NO_UID = "the {} UID is missing from the data set and the file meta group"


class _Start(NamedTuple):
    """The offset of the data set, and the values of the file meta group."""

    offset: int
    marked: bool
    meta: dict[int, bytes]


class _DataSet(NamedTuple):
    """The identifiers of a data set, and the encoding that they were found in."""

    values: dict[int, bytes]
    encoding: Encoding
    has_vrs: bool

    @property
    def names_itself(self) -> bool:
        """Whether it has the two UIDs that a node is told."""
        return all(_uid(self.values.get(tag)) for tag in (SOP_CLASS, SOP_INSTANCE))

    @property
    def shown(self) -> Encoding:
        """The encoding as the elements show it."""
        return self.encoding if self.has_vrs or not self.encoding.explicit else IMPLICIT_LITTLE


def read_instance(path: Path, sha256: str) -> Instance:
    """Read the identifiers of the instance in the file at ``path``, whose content has that hash.

    The UIDs are those of the data set, as they are but for padding; where it has none, SOP class
    and instance are those of the file meta group. The other identifiers are empty if they cannot
    be found. Raises :class:`NotDicom` for anything but a DICOM file and for a DICOMDIR, and
    :class:`DicomUnreadable` for a DICOM file that cannot be sent, with the reason.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        start = _start(file)
        if _uid(start.meta.get(MEDIA_SOP_CLASS)) == MEDIA_DIRECTORY_UID:
            raise NotDicom("DICOMDIR")
        data_set = _DataSet({}, EXPLICIT_LITTLE, has_vrs=True)
        try:
            data_set = _read(file, start, size)
            syntax = _transfer_syntax(file, start, data_set)
            sop_class = _required(data_set, start, SOP_CLASS, MEDIA_SOP_CLASS)
            sop_instance = _required(data_set, start, SOP_INSTANCE, MEDIA_SOP_INSTANCE)
        except DicomUnreadable as error:
            if not start.marked:
                raise NotDicom from None
            error.sop_class_uid = _sop_class(data_set, start)
            raise
    values = data_set.values
    instance = Instance(
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        transfer_syntax_uid=syntax,
        study_instance_uid=_uid(values.get(STUDY)),
        series_instance_uid=_uid(values.get(SERIES)),
        sha256=sha256,
        size=size,
        offset=start.offset,
        series_number=_integer(values.get(SERIES_NUMBER)),
        instance_number=_integer(values.get(INSTANCE_NUMBER)),
        patient_id=_text(values.get(PATIENT_ID, b""), values.get(CHARSET, b"")),
    )
    _compare(instance, start.meta)
    return instance


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
            raise DicomUnreadable("the file meta group ends within an element") from None
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


def _read(file: BinaryIO, start: _Start, size: int) -> _DataSet:
    """Read the identifiers in the encoding in which they can be found.

    The first encoding is that of the file meta group. The others are tried if that shows no SOP
    class and instance; the one that shows most UIDs is taken.
    """
    if start.offset >= size:
        raise DicomUnreadable("there is no data set")
    declared = _uid(start.meta.get(TRANSFER_SYNTAX))
    # What nothing marks as DICOM must look more like it.
    is_marked = start.marked or bool(start.meta) or _first(file, start, declared)[4:] in VRS
    tried = []
    for encoding in _encodings(file, start, declared):
        elements = Elements(_open(file, start, declared), encoding)
        values = read_values(elements, DATA_TAGS, INSTANCE_NUMBER, UIDS, ordered=not is_marked)
        found = _DataSet(values, encoding, has_vrs=elements.vrs >= elements.bare)
        if found.names_itself:
            return found
        tried.append(found)
    return max(tried, key=lambda each: len(each.values.keys() & UIDS))


def _encodings(file: BinaryIO, start: _Start, declared: str) -> Iterator[Encoding]:
    """Yield the encodings to try: as declared, as the first element looks, and the others."""
    own = next((each for each, uid in UNCOMPRESSED.items() if uid == declared), None)
    head = _first(file, start, declared)
    explicit = is_vr(head[4:])
    big = explicit and head[:1] == b"\0" and head[1:2] != b"\0"
    shown = EXPLICIT_BIG if big else EXPLICIT_LITTLE if explicit else IMPLICIT_LITTLE
    tried = [*([own] if own else []), shown, EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG]
    yield from dict.fromkeys(tried)


def _first(file: BinaryIO, start: _Start, declared: str) -> bytes:
    """Return tag and VR of the first element; nothing if the data set cannot be inflated."""
    try:
        return _open(file, start, declared).read(6)
    except DicomUnreadable:
        return b""


def _open(file: BinaryIO, start: _Start, declared: str) -> BinaryIO:
    """Return a stream at the start of the data set."""
    file.seek(start.offset)
    return io.BufferedReader(Inflated(file, INFLATED_HEAD)) if declared in DEFLATED else file


def _transfer_syntax(file: BinaryIO, start: _Start, data_set: _DataSet) -> str:
    """Return the transfer syntax: that of the file meta group.

    If it names none, or one without compression in which no identifier can be found, it is the one
    in which they were; then the pixel data must not be compressed.
    """
    value = start.meta.get(TRANSFER_SYNTAX, b"").strip(b" \0")
    declared = _uid(value)
    if value and (len(declared) > LONGEST_UID or not UID.fullmatch(declared)):
        raise DicomUnreadable("the transfer syntax UID is malformed")
    shown = UNCOMPRESSED[data_set.shown]
    is_open = not declared or (declared in UNCOMPRESSED.values() and data_set.names_itself)
    if not is_open or shown == declared:
        return declared
    if _is_encapsulated(_open(file, start, declared), data_set.encoding):
        raise DicomUnreadable("the transfer syntax UID of compressed pixel data is missing")
    return shown


def _is_encapsulated(stream: BinaryIO, encoding: Encoding) -> bool:
    """Whether the pixel data are in fragments, as all compressed ones are (PS3.5 A.4)."""
    elements = Elements(stream, encoding)
    read_values(elements, (), PIXEL_DATA - 1)
    try:
        element = elements.next()
    except DicomUnreadable:
        return False
    return element is not None and (element.tag, element.length) == (PIXEL_DATA, UNDEFINED)


def _uid(value: bytes | None) -> str:
    """Return a UID without its padding, whatever it is made of; "" if there is none."""
    return (value or b"").rstrip(b" \0").decode("latin-1")


def _sop_class(data_set: _DataSet, start: _Start) -> str:
    return _uid(data_set.values.get(SOP_CLASS)) or _uid(start.meta.get(MEDIA_SOP_CLASS))


def _required(data_set: _DataSet, start: _Start, tag: int, media_tag: int) -> str:
    """Return a UID of the data set, or else of the file meta group; a node must be told it."""
    uid = _uid(data_set.values.get(tag)) or _uid(start.meta.get(media_tag))
    if not uid:
        raise DicomUnreadable(_NO_UID.format("SOP class" if tag == SOP_CLASS else "SOP instance"))
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
