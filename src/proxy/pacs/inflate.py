"""A deflated data set as a stream of its inflated bytes (PS3.5 section A.5)."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

from proxy.errors import DicomUnreadable

_BLOCK = 1 << 16


class Inflated(io.RawIOBase):
    """Inflates only the bytes that are read; not seekable. The bytes after its end are ignored.

    Reading raises :class:`DicomUnreadable` if the stream is damaged or ends too early.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._at = 0

    def readable(self) -> bool:
        """Whether this can be read: always."""
        return True

    def tell(self) -> int:
        """Return how many bytes were inflated."""
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override] # what io gives it
        """Inflate as much as ``buffer`` holds; 0 bytes at the end."""
        inflated = b""
        while not inflated and not self._inflater.eof:
            deflated = self._inflater.unconsumed_tail or self._file.read(_BLOCK)
            try:
                inflated = self._inflater.decompress(deflated, len(buffer))
            except zlib.error:
                raise _damaged() from None
            if not deflated and not inflated:
                raise _damaged()
        buffer[: len(inflated)] = inflated
        self._at += len(inflated)
        return len(inflated)


def _damaged() -> DicomUnreadable:
    return DicomUnreadable("A deflated DICOM data set is damaged")
