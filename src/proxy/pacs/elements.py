"""Walk over the data elements of a DICOM data set without loading it (PS3.5 chapter 7).

Only values that the caller asks for are read, and only short ones; everything else, sequences of
undefined length included, is skipped. No value is converted, no character set decoded. Pure: reads
from the stream it is given. Called by ``header.py`` and ``convert.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import BinaryIO, NamedTuple

from proxy.errors import DicomUnreadable

UNDEFINED = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD

LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations whose length takes 32 bits, after two reserved bytes (PS3.5 7.1.2)."""

MAX_VALUE = 4096
MAX_DEPTH = 32
MAX_ELEMENTS = 100_000
"""Bounds on hostile input: bytes of a value that is read, nesting, elements skipped."""

LITTLE, BIG = struct.Struct("<HH2sH"), struct.Struct(">HH2sH")
LITTLE_LONG, BIG_LONG = struct.Struct("<L"), struct.Struct(">L")


class Encoding(NamedTuple):
    """The encoding of the data elements in a data set."""

    explicit: bool
    little: bool


IMPLICIT_LITTLE = Encoding(explicit=False, little=True)
EXPLICIT_LITTLE = Encoding(explicit=True, little=True)
EXPLICIT_BIG = Encoding(explicit=True, little=False)


class Element(NamedTuple):
    """The header of an element: its offset, tag, VR (if explicit) and length."""

    start: int
    tag: int
    vr: bytes
    length: int


class Elements:
    """A position in a data set; the stream must be seekable only for :meth:`skip`."""

    def __init__(self, stream: BinaryIO, encoding: Encoding, most: int = MAX_ELEMENTS) -> None:
        self.stream = stream
        self.encoding = encoding
        self._left = most

    def next(self) -> Element | None:
        """Read up to the next element's value; None at the end of the stream.

        Raises :class:`DicomUnreadable` if the stream ends within an element.
        """
        self._left -= 1
        if self._left < 0:
            raise DicomUnreadable("A DICOM file has too many data elements before its identifiers")
        start = self.stream.tell()
        head = self.stream.read(8)
        if not head:
            return None
        if len(head) < 8:
            raise _ended()
        little = self.encoding.little
        group, number, vr, length = (LITTLE if little else BIG).unpack(head)
        long = LITTLE_LONG if little else BIG_LONG
        if not self.encoding.explicit or group == ITEM >> 16 or not is_vr(vr):
            # Items have no VR (PS3.5 7.5), whatever their length looks like; and some writers
            # fall back to implicit VR within explicit data.
            vr = b""
            (length,) = long.unpack_from(head, 4)
        elif vr in LONG_VRS:
            tail = self.stream.read(4)
            if len(tail) < 4:
                raise _ended()
            (length,) = long.unpack(tail)
        return Element(start, group << 16 | number, vr, length)

    def due(self) -> Element:
        """Read up to the next element's value, as :meth:`next` does; there must be one."""
        element = self.next()
        if element is None:
            raise _ended()
        return element

    def value(self, element: Element) -> bytes:
        """Read the value of ``element``, which was the last one; it must be short."""
        if element.length > MAX_VALUE:
            raise DicomUnreadable("An identifier in a DICOM file is longer than DICOM allows")
        value = self.stream.read(element.length)
        if len(value) < element.length:
            raise _ended()
        return value

    def skip(self, element: Element, depth: int = 0) -> None:
        """Skip the value of ``element``, which was the last one."""
        if element.length != UNDEFINED:
            self.stream.seek(element.length, 1)
            return
        if depth >= MAX_DEPTH:
            raise DicomUnreadable("Sequences in a DICOM file are nested too deeply")
        # A UN of undefined length holds Implicit VR Little Endian only: PS3.5 6.2.2.
        outer = self.encoding
        if element.vr == b"UN":
            self.encoding = IMPLICIT_LITTLE
        end = ITEM_END if element.tag == ITEM else SEQUENCE_END
        while True:
            inner = self.due()
            if inner.tag == end:
                break
            self.skip(inner, depth + 1)
        self.encoding = outer


def read_values(
    stream: BinaryIO, encoding: Encoding, wanted: Collection[int], last: int
) -> dict[int, bytes]:
    """Return the ``wanted`` top-level values up to the tag ``last``.

    Of two elements with one tag the first counts. After the call the stream stands at the first
    element after ``last``, or at its end.
    """
    elements = Elements(stream, encoding)
    found: dict[int, bytes] = {}
    while (element := elements.next()) is not None:
        if element.tag > last:
            stream.seek(element.start)
            break
        if element.tag in wanted:
            found.setdefault(element.tag, elements.value(element))
        else:
            elements.skip(element)
    return found


def is_vr(two_bytes: bytes) -> bool:
    """Whether the bytes can be a value representation: two capital letters (PS3.5 6.2)."""
    return two_bytes.isalpha() and two_bytes.isupper() and two_bytes.isascii()


def _ended() -> DicomUnreadable:
    return DicomUnreadable("A DICOM file ends before its identifiers")
