"""Tell by its first bytes what a file or an HTTP body is; names and declared types are not asked.

Knows DICOM only by its prefix: that the rest is not DICOM is for the reader in ``pacs`` to say.
Called by the download, which must not take an error page for an archive, and while unpacking.
"""

from __future__ import annotations

from enum import Enum

HEAD_BYTES = 512
"""As many first bytes as :func:`kind_of` wants, if there are as many."""


class Kind(Enum):
    """What some bytes are; the value is the word an operator reads."""

    DICOM = "DICOM"
    ZIP = "zip archive"
    GZIP = "gzip"
    TAR = "tar archive"
    EMPTY = "empty"
    JSON = "JSON"
    XML = "XML or HTML"
    TEXT = "text"
    IMAGE = "image or video"
    PDF = "PDF"
    APPLE_DOUBLE = "AppleDouble"
    PROGRAM = "program"
    OTHER = "other"


ARCHIVES = frozenset({Kind.ZIP, Kind.GZIP, Kind.TAR})
MESSAGES = frozenset({Kind.JSON, Kind.XML, Kind.TEXT})

MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (b"PK\x03\x04", Kind.ZIP),
    (b"PK\x05\x06", Kind.ZIP),
    (b"PK\x07\x08", Kind.ZIP),
    (b"\x1f\x8b", Kind.GZIP),
    (b"\xff\xd8\xff", Kind.IMAGE),
    (b"\x89PNG", Kind.IMAGE),
    (b"GIF8", Kind.IMAGE),
    (b"II*\x00", Kind.IMAGE),
    (b"MM\x00*", Kind.IMAGE),
    (b"RIFF", Kind.IMAGE),
    (b"%PDF", Kind.PDF),
    (b"\x00\x05\x16\x07", Kind.APPLE_DOUBLE),
    (b"MZ", Kind.PROGRAM),
    (b"\x7fELF", Kind.PROGRAM),
)


def kind_of(head: bytes) -> Kind:
    """Return what begins with ``head``; ``OTHER`` may still be DICOM without its preamble."""
    if not head:
        return Kind.EMPTY
    if head[128:132] == b"DICM":
        return Kind.DICOM
    if head[257:262] == b"ustar":
        return Kind.TAR
    known = next((kind for magic, kind in MAGIC if head.startswith(magic)), None)
    return known or _kind_of_text(head[:HEAD_BYTES])


def _kind_of_text(head: bytes) -> Kind:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in text):
        return Kind.OTHER
    if text.startswith(b"<"):
        return Kind.XML
    return Kind.JSON if text.startswith((b"{", b"[")) else Kind.TEXT
