"""Read the content of a gzip (RFC 1952), bzip2 or xz file once and forwards, in bounded steps.

They may have any number of members. ``gzip`` would pass millions of empty ones, or a name of
gigabytes, within one read; here a checkpoint lies between any two steps.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, BinaryIO, Protocol

from proxy.backend.content import ContentKind
from proxy.backend.faults import Unread, corrupt, damaged
from proxy.backend.inflate import Decoder, Deflated

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 64 * 1024
"""Packed bytes that are read at a time."""

GZIP = zlib.MAX_WBITS | 16
"""Makes zlib read the header and verify the checksum and the length."""

MAX_MEMORY = 128 * 1024 * 1024
"""The memory that the decoder of xz may use, in bytes; ``xz -9`` asks for 65 MiB."""


class StreamDecoder(Decoder, Protocol):
    """A decoder that knows where a member ends."""

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What was given behind the end."""
        ...


STREAMS: Mapping[ContentKind, tuple[bytes, Callable[[], StreamDecoder]]] = {
    ContentKind.GZIP: (b"\x1f\x8b", lambda: Deflated(GZIP)),
    ContentKind.BZIP2: (b"BZh", bz2.BZ2Decompressor),
    ContentKind.XZ: (
        b"\xfd7zXZ",
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_MEMORY),
    ),
}
"""The first bytes of a member, and what decodes one."""


class Gunzip(io.RawIOBase):
    """The unpacked content of ``file``, a packed file of this ``kind`` from its start.

    Other bytes behind the last member are ignored, as gzip(1) does.
    """

    def __init__(
        self,
        file: BinaryIO,
        checkpoint: Callable[[], None],
        kind: ContentKind = ContentKind.GZIP,
    ) -> None:
        super().__init__()
        self._file = file
        self._checkpoint = checkpoint
        self._magic, self._new_decoder = STREAMS[kind]
        self._decoder = self._new_decoder()
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
            if self._decoder.eof and not self._begin_member():
                break
            packed = b""
            if self._decoder.needs_input:
                packed, self._packed = self._packed or self._file.read(CHUNK), b""
                if not packed:
                    raise damaged()
            try:
                block = self._decoder.decompress(packed, size)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
                raise corrupt() from None
            if self._decoder.eof:
                self._packed = self._decoder.unused_data
        return block

    def _begin_member(self) -> bool:
        """Skip the zeros behind a member; False if no other member follows."""
        while True:
            self._packed = self._packed.lstrip(b"\0")
            if len(self._packed) >= len(self._magic):
                break
            more = self._file.read(CHUNK)
            if not more:
                break
            self._checkpoint()
            self._packed += more
        if not self._packed.startswith(self._magic):
            return False
        self._decoder = self._new_decoder()
        return True
