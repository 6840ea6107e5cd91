"""Examine the members of an archive that are no instances, for images that they may hold.

An archive in the archive is not unpacked for sending. It is read one level deep, and it counts as
passed over unless it was read completely and nothing in it is DICOM.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeAlias

from proxy.backend.content import ARCHIVES, PLAIN, SEALED, ContentKind, kind_of
from proxy.backend.entry import BLOCK, Entry, spooled
from proxy.backend.faults import BeyondLimit, Unread
from proxy.backend.hidden import hidden_in
from proxy.backend.limits import CopyMeter, LookMeter
from proxy.backend.members import members
from proxy.errors import DicomUnreadable, NotDicom
from proxy.model import Instance

ReadInstance: TypeAlias = Callable[[Path, str], Instance]
"""Reads one DICOM file, given its path and SHA-256; raises NotDicom or DicomUnreadable."""

CANDIDATES = frozenset({ContentKind.DICOM, ContentKind.OTHER})
"""The kinds that ``ReadInstance`` decides on."""

CANNOT_BE_UNPACKED = "cannot be unpacked"
HOLDS_DICOM = "holds DICOM"
HOLDS_AN_ARCHIVE = "holds another archive"


class Inside:
    """Examines the members of one archive.

    Each answer is the reason to count a member as passed over; None if nothing in it can be an
    image. Files are written to ``staging`` one at a time, and removed.
    """

    def __init__(
        self, staging: Path, copies: CopyMeter, contents: LookMeter, read: ReadInstance
    ) -> None:
        self._staging = staging
        self._copies = copies
        self._contents = contents
        self._read = read

    def of_entry(self, entry: Entry, head: bytes, kind: ContentKind) -> str | None:
        """Examine ``entry``, whose first block is ``head``.

        Raises :class:`proxy.errors.ArchiveError` if the archive that contains it is damaged.
        """
        if kind in SEALED:
            return _reason(kind, CANNOT_BE_UNPACKED)
        if _is_settled(head, kind):
            return None
        try:
            with spooled(entry, head, self._staging, self._copies) as file:
                return self._of(file, kind)
        except BeyondLimit as error:
            return _reason(kind, error.what)

    def of_file(self, file: BinaryIO) -> str | None:
        """Examine ``file``, which does not begin as an archive."""
        return self._of(file, ContentKind.OTHER)

    def _of(self, file: BinaryIO, begins_as: ContentKind) -> str | None:
        kind = begins_as if begins_as in ARCHIVES else hidden_in(file)
        if kind is None:
            return None
        if kind is not begins_as and kind is not ContentKind.ZIP:
            return _reason(kind, CANNOT_BE_UNPACKED)
        self._contents.begin()
        try:
            why = self._of_archive(file)
        except Unread as error:
            why = error.what
        return why and _reason(kind, why)

    def _of_archive(self, file: BinaryIO) -> str | None:
        for entry in members(file, self._staging, self._contents):
            if why := self._of_member(entry):
                return why
        return None

    def _of_member(self, entry: Entry) -> str | None:
        head = entry.read()
        kind = kind_of(head)
        if kind not in PLAIN:
            return HOLDS_AN_ARCHIVE
        if _is_settled(head, kind):
            self._contents.unpacked(len(head), entry.packed())
            return None
        with spooled(entry, head, self._staging, self._contents) as file:
            if kind in CANDIDATES and self._is_dicom(Path(file.name)):
                return HOLDS_DICOM
            return HOLDS_AN_ARCHIVE if hidden_in(file) else None

    def _is_dicom(self, path: Path) -> bool:
        try:
            self._read(path, "")
        except NotDicom:
            return False
        except DicomUnreadable:
            return True
        return True


def _is_settled(head: bytes, kind: ContentKind) -> bool:
    """Whether the first block alone shows that the file holds no archive."""
    is_whole = kind not in ARCHIVES | CANDIDATES and len(head) < BLOCK
    return is_whole and not hidden_in(io.BytesIO(head))


def _reason(kind: ContentKind, why: str) -> str:
    return f"{kind.value} that {why}"
