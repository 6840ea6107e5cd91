"""Find an archive in a file that begins as something else: at its end, or behind a program."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from proxy.backend.central import may_hide_directory
from proxy.backend.content import ARCHIVES, HEAD_BYTES, SEALED, ContentKind, kind_of

TRAILERS: tuple[tuple[int, bytes, ContentKind], ...] = (
    (512, b"koly", ContentKind.APPLE_DISK),
    (512, b"conectix", ContentKind.VIRTUAL_DISK),
    (12, b"NER5", ContentKind.NERO),
    (8, b"NERO", ContentKind.NERO),
)
"""Signatures by their distance from the end of the file."""

TRAILER_BYTES = max(distance for distance, _, _ in TRAILERS)

SECTIONS = 96
"""The largest number of sections of a program that Windows loads."""

CARRIED = (ARCHIVES | SEALED) - {ContentKind.CABINET}
"""Kinds behind a program that may hold a study; a cabinet holds the files of an installer."""

INSTALLER = b";!@Install@!UTF-8!"
"""The instructions that a self-extracting 7z archive may have before its signature begin so."""


def hidden_in(file: BinaryIO) -> ContentKind | None:
    """Return the kind of archive that ``file`` holds although it does not begin as one, or None.

    A zip may have anything before it, a self-extracting one has a program.
    """
    size = file.seek(0, io.SEEK_END)
    if may_hide_directory(file):
        return ContentKind.ZIP
    file.seek(max(0, size - TRAILER_BYTES))
    tail = file.read(TRAILER_BYTES)
    for distance, magic, kind in TRAILERS:
        if len(tail) >= distance and tail.startswith(magic, len(tail) - distance):
            return kind
    return _behind_program(file)


def _behind_program(file: BinaryIO) -> ContentKind | None:
    """Return the archive behind the last section of a Windows program (PE format, 3.3 and 4)."""
    file.seek(0)
    head = file.read(64)
    if len(head) < 64 or not head.startswith(b"MZ"):
        return None
    (header,) = struct.unpack_from("<L", head, 60)
    file.seek(header)
    header_block = file.read(24)
    if len(header_block) < 24 or not header_block.startswith(b"PE\0\0"):
        return None
    sections, optional = struct.unpack_from("<6xH12xH", header_block)
    file.seek(optional, io.SEEK_CUR)
    table = file.read(40 * min(sections, SECTIONS))
    ends = [
        size + position
        for size, position in struct.iter_unpack("<16xLL16x", table[: len(table) // 40 * 40])
    ]
    file.seek(max(ends, default=0))
    behind = file.read(HEAD_BYTES)
    kind = ContentKind.SEVEN_ZIP if behind.startswith(INSTALLER) else kind_of(behind)
    return kind if kind in CARRIED else None
