"""Find the kind of a file or an HTTP body by its first bytes, never by names or declared types.

DICOM is recognised only by its prefix; for a file without it the reader in ``pacs`` decides.
Called by the download, which must not take an error page for an archive, and while unpacking.
"""

from __future__ import annotations

import re
from enum import Enum

HEAD_BYTES = 512
"""The number of first bytes that :func:`kind_of` needs; for disc images it needs more."""


class ContentKind(Enum):
    """The kind of some content; the value is the word that an operator reads."""

    DICOM = "DICOM"
    EMPTY = "empty"
    JSON = "JSON"
    XML = "XML or HTML"
    TEXT = "text"
    IMAGE = "image or video"
    PDF = "PDF"
    APPLE_DOUBLE = "AppleDouble"
    PROGRAM = "program"
    OTHER = "other"

    ZIP = "zip archive"
    GZIP = "gzip"
    TAR = "tar archive"

    SEVEN_ZIP = "7z archive"
    RAR = "rar archive"
    CABINET = "cab archive"
    ARJ = "ARJ archive"
    LHA = "LHA archive"
    ACE = "ACE archive"
    ALZ = "ALZ or EGG archive"
    STUFFIT = "StuffIt archive"
    CPIO = "cpio archive"
    AR = "ar archive"
    XAR = "xar archive"
    BZIP2 = "bzip2 file"
    XZ = "xz file"
    LZMA = "lzma file"
    LZIP = "lzip file"
    LZOP = "lzop file"
    ZSTD = "zstd file"
    LZ4 = "lz4 file"
    SNAPPY = "snappy file"
    COMPRESS = "compress (.Z) file"
    ENCRYPTED = "encrypted file"
    ISO = "ISO 9660 image"
    UDF = "UDF image"
    RAW_DISC = "raw CD image"
    NERO = "Nero disc image"
    APPLE_DISK = "Apple disk image"
    VIRTUAL_DISK = "virtual disk"
    WIM = "WIM image"
    SQUASHFS = "squashfs image"


ARCHIVES = frozenset(
    {ContentKind.ZIP, ContentKind.TAR, ContentKind.GZIP, ContentKind.BZIP2, ContentKind.XZ}
)
"""The kinds that this program unpacks."""

PLAIN = frozenset(
    {
        ContentKind.DICOM,
        ContentKind.EMPTY,
        ContentKind.JSON,
        ContentKind.XML,
        ContentKind.TEXT,
        ContentKind.IMAGE,
        ContentKind.PDF,
        ContentKind.APPLE_DOUBLE,
        ContentKind.PROGRAM,
        ContentKind.OTHER,
    }
)
SEALED = frozenset(ContentKind) - PLAIN - ARCHIVES
"""The kinds that may hold any file and that this program cannot unpack."""

MESSAGES = frozenset({ContentKind.JSON, ContentKind.XML, ContentKind.TEXT})

MAGIC: tuple[tuple[int, bytes, ContentKind], ...] = (
    (128, b"DICM", ContentKind.DICOM),
    (257, b"ustar", ContentKind.TAR),
    (0x8001, b"CD001", ContentKind.ISO),
    (0x8001, b"BEA01", ContentKind.UDF),
    (0, b"PK\x03\x04", ContentKind.ZIP),
    (0, b"PK\x05\x06", ContentKind.ZIP),
    (0, b"PK\x07\x08", ContentKind.ZIP),
    (0, b"\x1f\x8b", ContentKind.GZIP),
    (0, b"\xff\xd8\xff", ContentKind.IMAGE),
    (0, b"\x89PNG", ContentKind.IMAGE),
    (0, b"GIF8", ContentKind.IMAGE),
    (0, b"II*\x00", ContentKind.IMAGE),
    (0, b"MM\x00*", ContentKind.IMAGE),
    (0, b"RIFF", ContentKind.IMAGE),
    (0, b"%PDF", ContentKind.PDF),
    (0, b"\x00\x05\x16\x07", ContentKind.APPLE_DOUBLE),
    (0, b"MZ", ContentKind.PROGRAM),
    (0, b"\x7fELF", ContentKind.PROGRAM),
    (0, b"7z\xbc\xaf\x27\x1c", ContentKind.SEVEN_ZIP),
    (0, b"Rar!\x1a\x07", ContentKind.RAR),
    (0, b"RE~^", ContentKind.RAR),
    (0, b"MSCF\0\0\0\0", ContentKind.CABINET),
    (7, b"**ACE**", ContentKind.ACE),
    (0, b"ALZ\x01", ContentKind.ALZ),
    (0, b"EGGA", ContentKind.ALZ),
    (0, b"StuffIt (c)", ContentKind.STUFFIT),
    (0, b"SIT!", ContentKind.STUFFIT),
    (0, b"!<arch>\n", ContentKind.AR),
    (0, b"xar!", ContentKind.XAR),
    (0, b"\xfd7zXZ\0", ContentKind.XZ),
    (0, b"LZIP", ContentKind.LZIP),
    (0, b"\x89LZO\0\r\n\x1a\n", ContentKind.LZOP),
    (0, b"\x28\xb5\x2f\xfd", ContentKind.ZSTD),
    (0, b"\x04\x22\x4d\x18", ContentKind.LZ4),
    (0, b"\x02\x21\x4c\x18", ContentKind.LZ4),
    (0, b"\xff\x06\0\0sNaPpY", ContentKind.SNAPPY),
    (0, b"-----BEGIN PGP MESSAGE-----", ContentKind.ENCRYPTED),
    (0, b"age-encryption.org/", ContentKind.ENCRYPTED),
    (0, b"Salted__", ContentKind.ENCRYPTED),
    (0, b"\0" + b"\xff" * 10 + b"\0", ContentKind.RAW_DISC),
    (0, b"vhdxfile", ContentKind.VIRTUAL_DISK),
    (0, b"conectix", ContentKind.VIRTUAL_DISK),
    (0, b"KDMV", ContentKind.VIRTUAL_DISK),
    (0, b"QFI\xfb", ContentKind.VIRTUAL_DISK),
    (0, b"MSWIM\0\0\0", ContentKind.WIM),
    (0, b"hsqs", ContentKind.SQUASHFS),
)
"""Signatures by their offset; the first that matches decides."""

PATTERNS: tuple[tuple[re.Pattern[bytes], ContentKind], ...] = (
    (re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), ContentKind.BZIP2),
    (re.compile(rb"\x1f\x9d[\x09-\x10\x89-\x90]"), ContentKind.COMPRESS),
    (
        re.compile(rb"[\x50-\x5f]\x2aM\x18"),
        ContentKind.ZSTD,
    ),  # a skippable frame, which lz4 has as well
    (re.compile(rb"(?s:\].{4}(?:\xff{8}|.{5}\0{3})\0)"), ContentKind.LZMA),
    (re.compile(rb"(?s:..-(?:lh[0-9dx]|lz[45s]|pm[0-2])-)"), ContentKind.LHA),
    (re.compile(rb"(?s:\x60\xea.[\0-\x0a][\x1e-\x30].{5}\x02)"), ContentKind.ARJ),
    (re.compile(rb"07070[127][0-9A-Fa-f]{8}"), ContentKind.CPIO),
)
"""Signatures with bytes that vary."""

TAR_CHECKSUM = slice(148, 156)


def kind_of(head: bytes) -> ContentKind:
    """Return the kind of ``head``; ``OTHER`` may still be DICOM without its preamble."""
    if not head:
        return ContentKind.EMPTY
    for offset, magic, kind in MAGIC:
        if head.startswith(magic, offset):
            return kind
    for pattern, kind in PATTERNS:
        if pattern.match(head):
            return kind
    if is_tar_header(head[:HEAD_BYTES]):
        return ContentKind.TAR
    return _kind_of_text(head[:HEAD_BYTES])


def is_tar_header(block: bytes) -> bool:
    """Whether the checksum of a tar header is right, the only mark of the 1979 format (tar(5)).

    Some programs took the bytes for signed numbers.
    """
    told = block[TAR_CHECKSUM].strip(b" \0")
    if len(block) < HEAD_BYTES or not told or told.translate(None, b"01234567"):
        return False
    others = block[: TAR_CHECKSUM.start] + b" " * 8 + block[TAR_CHECKSUM.stop : HEAD_BYTES]
    total = sum(others)
    return int(told, 8) in {total, total - 256 * sum(byte > 0x7F for byte in others)}


def _kind_of_text(head: bytes) -> ContentKind:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in text):
        return ContentKind.OTHER
    if text.startswith(b"<"):
        return ContentKind.XML
    return ContentKind.JSON if text.startswith((b"{", b"[")) else ContentKind.TEXT
