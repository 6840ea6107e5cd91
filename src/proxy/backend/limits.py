"""What unpacking an archive may cost, and the meter that stops it where that is exceeded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from proxy.errors import ArchiveError

MIB = 1024**2
GIB = 1024**3


class ArchiveLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what one archive may unpack to; sizes in bytes.

    ``ratio`` is how many bytes may come out of one packed byte, over the archive so far and past
    its first MiB; ``total_bytes`` of None leaves the disk's free space above ``reserve_bytes``.
    """

    entries: int = 200_000
    entry_bytes: int = 8 * GIB
    total_bytes: int | None = None
    ratio: int = 200
    reserve_bytes: int = GIB


class Meter:
    """Counts what comes out of an archive; every count is also a point to cancel at."""

    def __init__(
        self, limits: ArchiveLimits, directory: Path, checkpoint: Callable[[], None]
    ) -> None:
        self.limits = limits
        self._directory = directory
        self._checkpoint = checkpoint
        self._entries = 0
        self._unpacked = 0

    def entry(self) -> None:
        """Count one more entry, of whatever type."""
        self._checkpoint()
        self._entries += 1
        if self._entries > self.limits.entries:
            raise too_large(f"The archive has more than {self.limits.entries} entries", "entries")

    def unpacked(self, size: int, packed: int) -> None:
        """Count ``size`` more bytes; all so far came out of ``packed`` bytes."""
        self._checkpoint()
        self._unpacked += size
        total, ratio = self.limits.total_bytes, self.limits.ratio
        if total is not None and self._unpacked > total:
            raise too_large(f"The archive unpacks to more than {total} bytes", "archive_bytes")
        if self._unpacked > max(MIB, ratio * packed):
            raise too_large(f"The archive unpacks to more than {ratio} times its size", "ratio")

    def written(self, size: int) -> None:
        """Check an entry that has grown to ``size`` bytes, and the disk."""
        if size > self.limits.entry_bytes:
            raise too_large(
                f"A file in the archive is larger than {self.limits.entry_bytes} bytes",
                "entry_bytes",
            )
        if shutil.disk_usage(self._directory).free < self.limits.reserve_bytes:
            raise ArchiveError(
                "The disk is too full to unpack the archive",
                permanent=False,
                hint="Free disk space on this machine, or lower limits.reserve_gb.",
            )


def too_large(sentence: str, setting: str) -> ArchiveError:
    """Build the error for an archive beyond a limit; ``setting`` is the limit's name."""
    return ArchiveError(
        sentence,
        permanent=True,
        hint=f"If the archive is to be trusted, raise limits.{setting} in the settings.",
    )
