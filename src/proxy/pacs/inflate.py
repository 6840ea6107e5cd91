"""A deflated data set as a stream of its inflated bytes (PS3.5 section A.5)."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

from proxy.errors import DicomUnreadable

_BLOCK = 1 << 16


class Inflated(io.RawIOBase):
    """Inflates only the bytes that are read. The bytes after its end are ignored.

    Seekable if ``file`` is; to go back it inflates once more from its beginning. Reading raises
    :class:`DicomUnreadable` if the stream is damaged or ends too early, or once ``most`` bytes
    were inflated, counting each time.
    """

    def __init__(self, file: BinaryIO, most: int | None = None) -> None:
        self._file = file
        self._left = most
        self._begin = file.tell()
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._at = 0

    def readable(self) -> bool:
        """Whether this can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether this can go back."""
        return self._file.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to an offset from the beginning or from here; the end, if it is beyond that."""
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end is not known")
        offset += self._at if whence == io.SEEK_CUR else 0
        if offset < self._at:
            self._file.seek(self._begin)
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            self._at = 0
        while self._at < offset and self.read(min(offset - self._at, _BLOCK)):
            pass
        return self._at

    def tell(self) -> int:
        """Return how many bytes were inflated."""
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override] # io passes this
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
        if self._left is not None:
            self._left -= len(inflated)
            if self._left < 0:
                raise DicomUnreadable("identifiers too far inside a deflated data set")
        return len(inflated)


def _damaged() -> DicomUnreadable:
    return DicomUnreadable("a deflated data set that is damaged")
