"""Read the content of a gzip file (RFC 1952) once and forwards, however many members it has.

``gzip`` would pass millions of empty members, or a name of gigabytes, within one read; here a
checkpoint lies between any two steps.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from proxy.backend.faults import Unread, damaged, translated

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 64 * 1024
"""Packed bytes that are read at a time."""

GZIP = zlib.MAX_WBITS | 16
"""Makes zlib read the header and verify the checksum and the length."""

MAGIC = b"\x1f\x8b"


class Gunzip(io.RawIOBase):
    """The unpacked content of ``file``, a gzip file from its start.

    Other bytes behind the last member are ignored, as gzip(1) does.
    """

    def __init__(self, file: BinaryIO, checkpoint: Callable[[], None]) -> None:
        super().__init__()
        self._file = file
        self._checkpoint = checkpoint
        self._inflater = zlib.decompressobj(GZIP)
        self._packed = b""
        self._error: Unread | None = None

    def readable(self) -> bool:
        """Whether this can be read: always."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill ``buffer``; less only at the end.

        Raises ArchiveError if the file is damaged, once all before the damage was returned.
        """
        if self._error is not None:
            raise self._error
        view = memoryview(buffer)
        filled = 0
        try:
            while filled < len(view) and (block := self._next(len(view) - filled)):
                view[filled : filled + len(block)] = block
                filled += len(block)
        except Unread as error:
            if not filled:
                raise
            self._error = error
        return filled

    def _next(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        block = b""
        while not block:
            self._checkpoint()
            if self._inflater.eof and not self._begin_member():
                break
            if not self._packed:
                self._packed = self._file.read(CHUNK)
                if not self._packed:
                    raise damaged()
            with translated():
                block = self._inflater.decompress(self._packed, size)
            self._packed = self._inflater.unconsumed_tail or self._inflater.unused_data
        return block

    def _begin_member(self) -> bool:
        """Skip the zeros behind a member; False if no other member follows."""
        while True:
            self._packed = self._packed.lstrip(b"\0")
            if len(self._packed) >= len(MAGIC):
                break
            more = self._file.read(CHUNK)
            if not more:
                break
            self._checkpoint()
            self._packed += more
        if not self._packed.startswith(MAGIC):
            return False
        self._inflater = zlib.decompressobj(GZIP)
        return True
