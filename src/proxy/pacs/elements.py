"""Walk over the data elements of a DICOM data set without loading it (PS3.5 chapter 7).

Only values that the caller asks for are read, and only short ones; everything else, sequences of
undefined length included, is skipped. No value is converted, no character set decoded. What the
standard does not have is not judged: of the possible readings that one is taken after which the
data set goes on. Reads from the stream it is given. Called by ``header.py`` and ``convert.py``.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Collection
from contextlib import suppress
from typing import BinaryIO, NamedTuple

from proxy.errors import DicomUnreadable

UNDEFINED = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD

LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations whose length takes 32 bits, after two reserved bytes (PS3.5 7.1.2)."""
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
VRS = LONG_VRS | SHORT_VRS

MAX_VALUE = 16_384
MAX_ELEMENTS = 2_000_000
"""Bounds on hostile input: bytes of a value that is read, elements that are walked over."""

LITTLE, BIG = struct.Struct("<HH2sH"), struct.Struct(">HH2sH")
LITTLE_LONG, BIG_LONG = struct.Struct("<L"), struct.Struct(">L")

_ITEM_HEAD = struct.pack("<HH", ITEM >> 16, ITEM & 0xFFFF)
_FITS, _NOTHING = 0, 1 << 32
"""How well an element follows another one: with a known VR and in order; not at all.

Between them it is the distance of the tags.
"""
_UNLIKELY = 1 << 31


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
    """A position in a data set; the stream must be seekable only for :meth:`skip`.

    ``vrs`` counts the elements that have a value representation, and ``bare`` those that have none
    where the encoding is explicit: some writers fall back to implicit VR within explicit data.
    """

    def __init__(self, stream: BinaryIO, encoding: Encoding, most: int = MAX_ELEMENTS) -> None:
        self.stream = stream
        self.encoding = encoding
        self.vrs = self.bare = 0
        self._left = most

    def next(self) -> Element | None:
        """Read up to the next element's value; None at the end of the stream.

        Raises :class:`DicomUnreadable` if the stream ends within an element.
        """
        self._left -= 1
        if self._left < 0:
            raise DicomUnreadable("too many data elements before its identifiers")
        start = self.stream.tell()
        head = self.stream.read(8)
        if not head:
            return None
        if len(head) < 8:
            raise _ended()
        little = self.encoding.little
        group, number, vr, length = (LITTLE if little else BIG).unpack(head)
        tag = group << 16 | number
        long = LITTLE_LONG if little else BIG_LONG
        if not self.encoding.explicit or group == ITEM >> 16:
            # Items have no VR (PS3.5 7.5), whatever their length looks like.
            vr = b""
            (length,) = long.unpack_from(head, 4)
        elif vr in SHORT_VRS:
            self.vrs += 1
        elif vr in LONG_VRS:
            self.vrs += 1
            (length,) = long.unpack(self._four())
        else:
            vr, length = self._odd(tag, vr, length, long.unpack_from(head, 4)[0])
        return Element(start, tag, vr, length)

    def due(self) -> Element:
        """Read up to the next element's value, as :meth:`next` does; there must be one."""
        element = self.next()
        if element is None:
            raise _ended()
        return element

    def value(self, element: Element) -> bytes:
        """Read the value of ``element``, which was the last one; it must be short."""
        if element.length > MAX_VALUE:
            raise DicomUnreadable("an identifier that is longer than any can be")
        value = self.stream.read(element.length)
        if len(value) < element.length:
            raise _ended()
        return value

    def skip(self, element: Element) -> None:
        """Skip the value of ``element``, which was the last one.

        A sequence or an item without its delimiter ends at the first element that it cannot hold.
        """
        if element.length != UNDEFINED:
            self.stream.seek(element.length, 1)
            return
        around = [(element.tag == ITEM, self._enter(element))]
        while around:
            in_item, outer = around[-1]
            inner = self.due()
            ends = {ITEM, ITEM_END, SEQUENCE_END}
            if inner.tag == (ITEM_END if in_item else SEQUENCE_END):
                around.pop()
                self.encoding = outer
            elif (inner.tag in ends) if in_item else (inner.tag != ITEM):
                around.pop()
                self.encoding = outer
                self.stream.seek(inner.start)
            elif inner.length == UNDEFINED:
                around.append((inner.tag == ITEM, self._enter(inner)))
            else:
                self.stream.seek(inner.length, 1)

    def _enter(self, element: Element) -> Encoding:
        """Go into a value of undefined length; return the encoding around it.

        A UN of undefined length holds Implicit VR Little Endian only (PS3.5 6.2.2). Some writers
        leave Explicit VR in it, and some in the sequences of an implicit data set.
        """
        outer = self.encoding
        if element.vr == b"UN":
            self.encoding = IMPLICIT_LITTLE
        if element.tag != ITEM and self.encoding == IMPLICIT_LITTLE:
            head = self._ahead(0, 20)
            if len(head) == 20 and head[12:14] in VRS and head.startswith(_ITEM_HEAD):
                self.encoding = EXPLICIT_LITTLE
                group, number, vr, length = LITTLE.unpack_from(head, 8)
                size = LITTLE_LONG.unpack_from(head, 16)[0] if vr in LONG_VRS else length
                behind = 8 + (12 if vr in LONG_VRS else 8) + size
                if self._following(behind, group << 16 | number) != _FITS and size != UNDEFINED:
                    self.encoding = IMPLICIT_LITTLE
        return outer

    def _odd(self, tag: int, vr: bytes, short: int, implicit: int) -> tuple[bytes, int]:
        """Read the length of an element whose VR is none that the standard has.

        It may be in 16 or 32 bits behind that VR, or be in its place. The reading after which the
        data set goes on is taken; if each or none is possible, the likeliest.
        """
        readings = [(vr, 0, short)]
        if not short:
            tail = self._ahead(0, 4)
            long = LITTLE_LONG if self.encoding.little else BIG_LONG
            readings += [(vr, 4, long.unpack(tail)[0])] if len(tail) == 4 else []
        readings.append((b"", 0, implicit))
        # The bytes of a small length, and of no VR that anybody writes.
        is_bare = vr != b"\0\0" and min(vr) < ord(" ")
        scores = []
        for read_vr, size, length in readings:
            score = _FITS if length == UNDEFINED else self._following(size + length, tag)
            is_unlikely = bool(read_vr) if is_bare else not read_vr and score != _FITS
            scores.append(score + _UNLIKELY * is_unlikely)
        vr, size, length = readings[scores.index(min(scores))]
        self.stream.seek(size, 1) if self.stream.seekable() else self.stream.read(size)
        self.vrs += bool(vr)
        self.bare += not vr
        return vr, length

    def _following(self, offset: int, tag: int) -> int:
        """Tell how well what is ``offset`` bytes ahead follows an element: less is better."""
        head = self._ahead(offset - 1, 9)[1:]
        if len(head) < 8:
            return _NOTHING if head or not self._ahead(offset - 1, 1) else _FITS
        group, number, vr, _ = (LITTLE if self.encoding.little else BIG).unpack(head)
        following: int = group << 16 | number
        if group == ITEM >> 16:
            return _FITS if following in {ITEM, ITEM_END, SEQUENCE_END} else _NOTHING
        if following > tag:
            return _FITS if vr in VRS else following - tag
        return min((tag - following + 1) << 8, _NOTHING)

    def _ahead(self, offset: int, size: int) -> bytes:
        """Return bytes from ``offset`` on, or fewer near the end; the position is not changed."""
        if self.stream.seekable():
            at = self.stream.tell()
            self.stream.seek(offset, 1)
            found = self.stream.read(size)
            self.stream.seek(at)
            return found
        if isinstance(self.stream, io.BufferedReader):
            return self.stream.peek(offset + size)[offset : offset + size]
        return b""

    def _four(self) -> bytes:
        four = self.stream.read(4)
        if len(four) < 4:
            raise _ended()
        return four


def read_values(
    elements: Elements,
    wanted: Collection[int],
    last: int,
    needed: Collection[int] = (),
    *,
    ordered: bool = False,
) -> dict[int, bytes]:
    """Return the ``wanted`` top-level values up to the tag ``last``.

    Elements may be out of order, unless they must be ``ordered``: all are looked at until the
    ``needed`` values are found, too. Of two elements with one tag the first counts. After the call
    the stream stands at the first element after ``last``, or at its end. Nothing is raised: where
    the data set cannot be read on, the values found so far are returned.
    """
    found: dict[int, bytes] = {}
    before = -1
    with suppress(DicomUnreadable):
        while (element := elements.next()) is not None:
            if ordered and element.tag <= before:
                break
            before = element.tag
            if element.tag > last and found.keys() >= set(needed):
                elements.stream.seek(element.start)
                break
            if element.tag in wanted and element.length <= MAX_VALUE:
                found.setdefault(element.tag, elements.value(element))
            else:
                elements.skip(element)
    return found


def is_vr(two_bytes: bytes) -> bool:
    """Whether the bytes can be a value representation: two capital letters (PS3.5 6.2)."""
    return two_bytes.isalpha() and two_bytes.isupper() and two_bytes.isascii()


def _ended() -> DicomUnreadable:
    return DicomUnreadable("an end within an element")
