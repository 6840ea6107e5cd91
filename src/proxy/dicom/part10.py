"""Read the head of a DICOM file: its file meta group, and where its data set begins (PS3.10).

Only group 0002 is read, never the data set. What may be absent in the wild is tolerated: the
preamble, the group length (0002,0000). Nothing is read beyond the bytes given.
"""

from __future__ import annotations

import struct

import msgspec

from proxy.errors import DicomUnreadable, NotDicom

HEAD_BYTES = 4096
"""As much of a file as nearly always holds the whole file meta group."""

_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_MAX_UID_BYTES = 66


class FileMeta(msgspec.Struct, frozen=True):
    """What the file meta group says; ``offset`` is where the data set begins in the file."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    offset: int


def read_file_meta(head: bytes) -> FileMeta:
    """Read the file meta group out of the first bytes of a file.

    Raises :class:`proxy.errors.NotDicom` if ``head`` does not begin a DICOM file,
    :class:`proxy.errors.DicomUnreadable` if the group is broken, lacks a UID, or is not whole.
    """
    at = _start(head)
    if at is None:
        raise NotDicom
    uids = {}
    while head[at : at + 2] == b"\x02\x00":
        element, start, length = _element(head, at)
        if element in {0x0002, 0x0003, 0x0010}:
            uids[element] = _uid(head[start : start + length], element)
        at = start + length
    if at + 2 > len(head):
        raise DicomUnreadable("The file ends within its file meta group")
    try:
        return FileMeta(uids[0x0002], uids[0x0003], uids[0x0010], at)
    except KeyError as error:
        missing = error.args[0]
        raise DicomUnreadable(f"The file meta group lacks (0002,{missing:04X})") from error


def _start(head: bytes) -> int | None:
    """Find where group 0002 begins: after the preamble, after a bare prefix, or at once."""
    for prefix in (128, 0):
        if head[prefix : prefix + 4] == b"DICM":
            return prefix + 4
    return 0 if head[:2] == b"\x02\x00" and head[4:6] in _LONG_VRS | _SHORT_VRS else None


def _element(head: bytes, at: int) -> tuple[int, int, int]:
    """Return an element's number, where its value begins, and how long it is."""
    try:
        _, element, vr, length = struct.unpack_from("<HH2sH", head, at)
        start = at + 8
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from("<I", head, start)
            start += 4
        elif vr not in _SHORT_VRS:
            raise DicomUnreadable("The file meta group is not in Explicit VR Little Endian")
    except struct.error as error:
        raise DicomUnreadable("The file ends within its file meta group") from error
    if start + length > len(head):
        raise DicomUnreadable("The file ends within its file meta group")
    return element, start, length


def _uid(value: bytes, element: int) -> str:
    trimmed = value.rstrip(b"\0 ")
    if not trimmed or len(value) > _MAX_UID_BYTES or trimmed.strip(b"0123456789."):
        raise DicomUnreadable(f"The file meta group's (0002,{element:04X}) is not a UID")
    return trimmed.decode("ascii")
