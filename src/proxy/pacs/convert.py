"""Write an instance once more, without loss: in another transfer syntax, or with even lengths.

It is converted for a node that refuses its transfer syntax, and padded if a value in it has an odd
length, which cannot be sent (PS3.5 section 7.1.1).

Between the syntaxes without compression (PS3.5 A.1 to A.3, A.5) only the headers of the elements
differ, and for big endian the order of bytes in a value. So the values are copied, in blocks, and
none is decoded: text in any character set, private elements, padding and pixels stay unchanged.
Blocking: called through ``Offload``.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from proxy.errors import DicomUnreadable, NotConverted
from proxy.machines.failures import classify_local, unreadable, unusable
from proxy.model import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Instance,
)
from proxy.pacs.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_END,
    LITTLE,
    LITTLE_LONG,
    LONG_VRS,
    SEQUENCE_END,
    UNDEFINED,
    Element,
    Elements,
    is_vr,
)
from proxy.pacs.inflate import Inflated
from proxy.runtime import marks
from proxy.runtime.marks import Mark

MAX_BYTES = 1 << 30
"""The largest data set that is converted, in bytes: the association is idle meanwhile."""
MAX_ELEMENTS = 1_000_000
MAX_DEPTH = 400
"""The deepest nesting of sequences and items that is converted; far from Python's own limit."""

_BLOCK = 1 << 16
_NO_DELIMITER = -1
_IMPLICIT = struct.Struct("<HHL")
_PIXEL_REPRESENTATION = 0x00280103

_ENCODINGS = {
    IMPLICIT_VR_LITTLE_ENDIAN: IMPLICIT_LITTLE,
    EXPLICIT_VR_LITTLE_ENDIAN: EXPLICIT_LITTLE,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: EXPLICIT_LITTLE,
    EXPLICIT_VR_BIG_ENDIAN: EXPLICIT_BIG,
}
_WORDS = {
    **dict.fromkeys((b"AT", b"OW", b"SS", b"US"), "H"),
    **dict.fromkeys((b"FL", b"OF", b"OL", b"SL", b"UL"), "I"),
    **dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), "Q"),
}
"""The words of 2, 4 or 8 bytes that the values of a VR consist of (PS3.5 7.3)."""
_BYTES = frozenset(b"AE AS CS DA DS DT IS LO LT OB PN SH SQ ST TM UC UI UN UR UT".split())


def convert(
    path: Path, instance: Instance, syntax: str, copy: Path, checkpoint: Callable[[], None]
) -> Instance:
    """Write the data set of the file at ``path`` to ``copy``, in Implicit or Explicit VR LE.

    The instance returned describes the copy, which has no file meta group and a hash of its own.
    ``checkpoint`` is called between blocks and may raise, to cancel or because the disk is full.
    Group lengths (gggg,0000) are left out: they would be wrong, and are retired (PS3.5 7.2). If the
    data set is of odd length, each value of odd length gets a null byte. In its own syntax an
    instance may have compressed pixel data.

    Raises :class:`NotConverted`, or :class:`InstanceUnusable` for a file that has changed: its
    hash is compared while it is read.
    """
    if instance.size - instance.offset > MAX_BYTES:
        raise _not_converted("large")
    try:
        with _data_set(path, instance) as stream, _new(copy) as out:
            encoding = _ENCODINGS.get(instance.transfer_syntax_uid, EXPLICIT_LITTLE)
            explicit = _ENCODINGS.get(syntax, EXPLICIT_LITTLE).explicit
            elements = Elements(stream, encoding, MAX_ELEMENTS)
            _Rewriter(
                elements,
                out,
                checkpoint,
                explicit=explicit,
                has_fragments=instance.transfer_syntax_uid not in _ENCODINGS,
                pads=(instance.size - instance.offset) % 2 == 1,
            ).data_set()
            size = out.tell()
        sha256 = _hash_of(copy, checkpoint)
    except DicomUnreadable:
        raise _broken() from None
    except OSError as error:
        raise _not_converted("copy") from error
    return msgspec.structs.replace(
        instance, transfer_syntax_uid=syntax, sha256=sha256, size=size, offset=0
    )


class _Rewriter:
    """Copies a data set, with the element headers of another encoding."""

    def __init__(
        self,
        elements: Elements,
        out: BinaryIO,
        checkpoint: Callable[[], None],
        *,
        explicit: bool,
        has_fragments: bool,
        pads: bool,
    ) -> None:
        self._in = elements
        self._out = out
        self._checkpoint = checkpoint
        self._explicit = explicit
        self._has_fragments = has_fragments
        self._pads = pads
        self._is_signed = False
        self._depth = 0
        self._room = MAX_BYTES

    def data_set(self) -> None:
        """Copy all elements to the end of the stream."""
        for element in self._each(None, _NO_DELIMITER):
            self._copy(element)

    def _each(self, end: int | None, delimiter: int) -> Iterator[Element]:
        """Yield elements up to an offset, to the delimiter if there is none, or to the end."""
        stream = self._in.stream
        while end is None or stream.tell() < end:
            element = self._in.next()
            if element is None:
                if delimiter == _NO_DELIMITER:
                    return
                raise _broken()
            if end is None and element.tag == delimiter:
                return
            yield element
        if stream.tell() > end:
            raise _broken()

    def _copy(self, element: Element) -> None:
        vr = self._vr(element)
        undefined = element.length == UNDEFINED
        if vr == b"SQ" or (vr == b"UN" and undefined):
            self._sequence(element, vr)
        elif undefined:
            self._fragments(element, vr)
        elif element.tag & 0xFFFF == 0 and element.length == 4:
            self._in.stream.read(4)
        else:
            self._header(element.tag, vr, self._padded(element.length))
            if element.tag == _PIXEL_REPRESENTATION and not self._in.encoding.explicit:
                value = self._in.value(element)
                self._is_signed = value[:1] == b"\1"
                self._out.write(value)
            else:
                self._value(element.length, None if self._in.encoding.little else _WORDS.get(vr))

    def _fragments(self, element: Element, vr: bytes) -> None:
        """Copy compressed pixel data, which are in fragments (PS3.5 A.4)."""
        if not self._has_fragments:
            raise _broken()
        self._header(element.tag, vr, element.length)
        with self._within(element, SEQUENCE_END) as items:
            for item in items:
                if item.tag != ITEM or item.length == UNDEFINED:
                    raise _broken()
                self._header(ITEM, b"", self._padded(item.length))
                self._value(item.length, None)

    def _sequence(self, element: Element, vr: bytes) -> None:
        encodings = self._in.encoding, self._explicit
        self._header(element.tag, vr, element.length)
        if vr == b"UN":
            # The items are in Implicit VR Little Endian: PS3.5 6.2.2.
            self._in.encoding, self._explicit = IMPLICIT_LITTLE, False
        with self._within(element, SEQUENCE_END) as items:
            for item in items:
                if item.tag != ITEM:
                    raise _broken()
                self._item(item)
        self._in.encoding, self._explicit = encodings

    def _item(self, item: Element) -> None:
        is_signed = self._is_signed
        self._header(ITEM, b"", item.length)
        with self._within(item, ITEM_END) as elements:
            for element in elements:
                self._copy(element)
        self._is_signed = is_signed

    @contextmanager
    def _within(self, outer: Element, delimiter: int) -> Iterator[Iterator[Element]]:
        """Yield the elements in a sequence or item; a defined length is filled in afterwards."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _broken()
        out, begin = self._out, self._out.tell()
        undefined = outer.length == UNDEFINED
        yield self._each(None if undefined else self._in.stream.tell() + outer.length, delimiter)
        if undefined:
            self._header(delimiter, b"", 0)
        else:
            end = out.tell()
            out.seek(begin - LITTLE_LONG.size)
            out.write(LITTLE_LONG.pack(end - begin))
            out.seek(end)
        self._depth -= 1

    def _header(self, tag: int, vr: bytes, length: int) -> None:
        """Write the header of an element; items and delimiters have no VR (PS3.5 7.5)."""
        group, number = tag >> 16, tag & 0xFFFF
        if not self._explicit or not vr:
            self._out.write(_IMPLICIT.pack(group, number, length))
        elif vr not in LONG_VRS and length <= 0xFFFF:
            self._out.write(LITTLE.pack(group, number, vr, length))
        else:
            # A value too long for its VR is UN: PS3.5 6.2.2.
            vr = vr if vr in LONG_VRS else b"UN"
            self._out.write(LITTLE.pack(group, number, vr, 0) + LITTLE_LONG.pack(length))

    def _padded(self, length: int) -> int:
        return length + length % 2 * self._pads

    def _value(self, length: int, word: str | None) -> None:
        """Copy a value; its words, if any, are turned from big to little endian."""
        if word and length % array(word).itemsize:
            raise _broken()
        padding = self._padded(length) - length
        while length:
            self._checkpoint()
            size = min(length, _BLOCK)
            block = self._in.stream.read(size)
            if len(block) < size:
                raise _broken()
            length -= size
            self._room -= size
            if self._room < 0:
                raise _not_converted("large")
            if word:
                words = array(word, block)
                words.byteswap()
                block = words.tobytes()
            marks.reached(Mark.ENTRY_WRITTEN)
            self._out.write(block)
        self._out.write(b"\0" * padding)

    def _vr(self, element: Element) -> bytes:
        """Return an element's VR; it does not matter if input and copy are implicit."""
        if element.tag >> 16 == ITEM >> 16:
            raise _broken()
        if element.vr in _BYTES or element.vr in _WORDS:
            return element.vr
        is_long = self._in.stream.tell() - element.start > _IMPLICIT.size
        if element.vr and element.length and is_long and not is_vr(element.vr):
            raise _broken()  # other readers take it for a length of 16 bits: who is right?
        if not self._explicit and self._in.encoding.little:
            return b"UN"
        vr = _dictionary_vr(element.tag)
        if vr == "US or SS":
            return b"SS" if self._is_signed else b"US"
        return b"OW" if "OW" in vr else vr.encode()


class _Hashed(io.RawIOBase):
    """A file that hashes the bytes read from it, from the first one on; not seekable."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._at = 0

    def readable(self) -> bool:
        """Whether this can be read: always."""
        return True

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override] # io passes this
        """Read as much as ``buffer`` holds; 0 bytes at the end."""
        block = self._file.read(len(buffer))
        buffer[: len(block)] = block
        self._digest.update(block)
        self._at += len(block)
        return len(block)

    def is_whole(self, instance: Instance) -> bool:
        """Whether the file, read to its end, has the instance's hash."""
        while self.read(_BLOCK):
            pass
        return self._digest.hexdigest() == instance.sha256


@contextmanager
def _data_set(path: Path, instance: Instance) -> Iterator[BinaryIO]:
    """Open the file of an instance at the start of its data set, and compare its hash at the end.

    The hash is compared after an error of the encoding too, which may be due to damage.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise unreadable(error) from error
    with file:
        if os.fstat(file.fileno()).st_size < instance.size:
            raise unusable("short")
        hashed = _Hashed(file)
        source = io.BufferedReader(hashed, _BLOCK)
        source.read(instance.offset)
        deflated = instance.transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
        try:
            yield io.BufferedReader(Inflated(source)) if deflated else source
        except (DicomUnreadable, NotConverted):
            if not hashed.is_whole(instance):
                raise unusable("damaged") from None
            raise
        if not hashed.is_whole(instance):
            raise unusable("damaged")


def _hash_of(copy: Path, checkpoint: Callable[[], None]) -> str:
    """Hash the copy once it is complete, because its lengths are filled in last."""
    digest = hashlib.sha256()
    with copy.open("rb") as file:
        while block := file.read(_BLOCK):
            checkpoint()
            digest.update(block)
    return digest.hexdigest()


def _new(copy: Path) -> BinaryIO:
    """Make a file for the owner alone."""
    return open(copy, "xb", opener=lambda path, flags: os.open(path, flags, 0o600))


def _dictionary_vr(tag: int) -> str:
    """Look up the VR that the standard gives an element; UN for an unknown element."""
    from pydicom.datadict import dictionary_VR  # noqa: PLC0415 - slow to import, rarely needed

    if tag >> 16 & 1:
        is_private_creator = 0x10 <= tag & 0xFFFF <= 0xFF
        return "LO" if is_private_creator else "UN"
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _not_converted(code: str) -> NotConverted:
    failure = classify_local(code)
    return NotConverted(code, failure.sentence, hint=failure.hint)


def _broken() -> NotConverted:
    return _not_converted("encoding")
