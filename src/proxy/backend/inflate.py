"""Unpack the content of one zip entry in steps of bounded size, whatever its method.

Methods are those of APPNOTE 4.4.5 whose decoder in the standard library bounds its output.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Protocol

from proxy.backend.faults import damaged_entry, unreadable_entry

MAX_WINDOW = 64 * 1024 * 1024
"""The largest dictionary of an LZMA entry, which the decoder keeps in memory."""

LZMA_HEADER = struct.Struct("<xxHBL")
"""The header before the content (APPNOTE 5.8.8): the length of the properties, and they."""


class Decoder(Protocol):
    """The part of the decoders of ``bz2`` and ``lzma`` that is used here."""

    @property
    def needs_input(self) -> bool:
        """Whether there is no output without more input."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return up to ``max_length`` bytes of output; none behind the end of the content."""
        ...


class Stored:
    """Content that is not packed."""

    def __init__(self) -> None:
        self._data = b""

    @property
    def needs_input(self) -> bool:
        """Whether all was returned."""
        return not self._data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return the next bytes."""
        data = self._data + data
        self._data = data[max_length:]
        return data[:max_length]


class Deflated:
    """A deflate stream (RFC 1951), raw or in another ``form`` of zlib's."""

    def __init__(self, form: int = -zlib.MAX_WBITS) -> None:
        self._inflater = zlib.decompressobj(form)
        self._is_full = False

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return self._inflater.eof

    @property
    def unused_data(self) -> bytes:
        """What was given behind the end."""
        return self._inflater.unused_data

    @property
    def needs_input(self) -> bool:
        """Whether zlib holds neither input nor output back."""
        return not (self._inflater.unconsumed_tail or self._is_full)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return the next bytes; none once the stream has ended."""
        block = self._inflater.decompress(self._inflater.unconsumed_tail + data, max_length)
        self._is_full = len(block) == max_length
        return block


class Lzma:
    """An LZMA stream behind the header that zip gives it."""

    def __init__(self) -> None:
        self._decoder: lzma.LZMADecompressor | None = None

    @property
    def needs_input(self) -> bool:
        """Whether there is no output without more input."""
        return self._decoder is None or self._decoder.needs_input

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return the next bytes; the first ``data`` begin with the header."""
        if self._decoder is None:
            self._decoder, data = _lzma_decoder(data)
        return b"" if self._decoder.eof else self._decoder.decompress(data, max_length)


class Bzip2:
    """A bzip2 stream."""

    def __init__(self) -> None:
        self._decoder = bz2.BZ2Decompressor()

    @property
    def needs_input(self) -> bool:
        """Whether there is no output without more input."""
        return self._decoder.needs_input

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return the next bytes; none once the stream has ended."""
        return b"" if self._decoder.eof else self._decoder.decompress(data, max_length)


STORED = 0
METHODS: Mapping[int, Callable[[], Decoder]] = {STORED: Stored, 8: Deflated, 12: Bzip2, 14: Lzma}


def _lzma_decoder(data: bytes) -> tuple[lzma.LZMADecompressor, bytes]:
    """Return the decoder that the header describes, and the ``data`` behind the header."""
    if len(data) < LZMA_HEADER.size:
        raise damaged_entry()
    length, packed, window = LZMA_HEADER.unpack_from(data)
    if length != 5 or packed >= 9 * 5 * 5:
        raise damaged_entry()
    if window > MAX_WINDOW:
        raise unreadable_entry("needs too much memory to be unpacked")
    filters = [
        {
            "id": lzma.FILTER_LZMA1,
            "dict_size": window,
            "lc": packed % 9,
            "lp": packed // 9 % 5,
            "pb": packed // 45,
        }
    ]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters), data[LZMA_HEADER.size :]
