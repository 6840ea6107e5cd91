"""The limits of unpacking an archive, and the meters that enforce them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from proxy.backend.faults import BeyondLimit, disk_full, entry_too_large, too_large

GIB = 1024**3
SHARE = 4
"""The ratio is looked at where an archive takes more than one part in so many of the free disk."""


class ArchiveLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on the content of one archive; sizes in bytes.

    With ``total_bytes`` of None the limit is the disk's free space above ``reserve_bytes``.
    ``ratio`` limits the unpacked bytes per packed byte, over the archive so far; it counts only
    beside the disk, for an archive that takes a good share of what is free: blank images shrink to
    a thousandth, and are no bomb.
    """

    entries: int = 200_000
    entry_bytes: int = 8 * GIB
    total_bytes: int | None = None
    ratio: int = 200
    reserve_bytes: int = GIB


class Meter:
    """Counts the entries and bytes of an archive; every count is also a cancellation point."""

    def __init__(
        self, limits: ArchiveLimits, directory: Path, checkpoint: Callable[[], None]
    ) -> None:
        self.limits = limits
        self.checkpoint = checkpoint
        self._directory = directory
        self._entries = 0
        self._unpacked = 0
        self._space = max(0, self._free())

    @property
    def entries_left(self) -> int:
        """The number of entries left within the limit."""
        return self.limits.entries - self._entries

    def entry(self) -> None:
        """Count one more entry, of whatever type."""
        self.checkpoint()
        if self.entries_left <= 0:
            raise self.too_many_entries()
        self._entries += 1

    def too_many_entries(self) -> BeyondLimit:
        """Build the error for more entries than the limit."""
        return too_large(f"has more than {self.limits.entries} entries", "entries")

    def unpacked(self, size: int, packed: int) -> None:
        """Count ``size`` more bytes; all so far came out of ``packed`` bytes."""
        self.checkpoint()
        self._unpacked += size
        total = self.limits.total_bytes
        if total is not None and self._unpacked > total:
            raise too_large(f"unpacks to more than {total} bytes", "archive_bytes")
        self._compare(self._unpacked, packed)

    def written(self, size: int) -> None:
        """Check a file that has grown to ``size`` bytes, and the disk."""
        if size > self.limits.entry_bytes:
            raise entry_too_large(self.limits.entry_bytes)
        if self._free() < 0:
            raise disk_full()

    def _compare(self, unpacked: int, packed: int) -> None:
        ratio = self.limits.ratio
        if unpacked > max(self._space // SHARE, ratio * packed):
            raise too_large(f"unpacks to more than {ratio} times its size", "ratio")

    def _free(self) -> int:
        return shutil.disk_usage(self._directory).free - self.limits.reserve_bytes


class NestedMeter(Meter):
    """Counts the work on archives within an archive.

    It is counted apart from the other files, so that a member beyond a limit does not cost another
    one its place. The copies and the contents of all of them stay within twice the disk, even where
    they are not kept: one that is no bomb needs no more. The ratio is that of the bytes of one
    member to the ``packed`` bytes of the complete archive.
    """

    def __init__(
        self,
        limits: ArchiveLimits,
        directory: Path,
        checkpoint: Callable[[], None],
        packed: int,
    ) -> None:
        super().__init__(limits, directory, checkpoint)
        self._packed = packed
        self._before = 0

    def begin(self) -> None:
        """Begin with another member."""
        self._before = self._unpacked

    def _compare(self, unpacked: int, packed: int) -> None:
        super()._compare(unpacked - self._before, self._packed)
        if unpacked > 2 * self._space:
            raise disk_full()
