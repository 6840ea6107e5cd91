"""The file that a download is written to. Blocking: called through ``Offload``.

The file is ``<name>.part`` until it is complete, then takes its name. It is not synced, because it
can be fetched again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from proxy.errors import BackendError
from proxy.runtime import marks
from proxy.runtime.marks import Mark


class Part:
    """An incomplete file; ``size`` is the number of bytes written."""

    def __init__(self, target: Path, *, max_bytes: int | None, reserve_bytes: int) -> None:
        self.size = 0
        self._target = target
        self._path = target.with_name(target.name + ".part")
        self._max_bytes = max_bytes
        self._reserve_bytes = reserve_bytes
        self._file = -1

    def open(self) -> None:
        """Create the file; the leftover of a killed run is removed."""
        self._path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o600)

    def empty(self) -> None:
        """Discard the bytes written so far."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self.size = 0

    def expect(self, size: int) -> None:
        """Raise :class:`BackendError` unless ``size`` bytes in all are allowed and fit the disk."""
        if self._max_bytes is not None and size > self._max_bytes:
            raise BackendError(
                f"The archive is larger than {self._max_bytes} bytes",
                permanent=True,
                hint="If it is to be dispatched all the same, raise limits.archive_bytes.",
            )
        free = shutil.disk_usage(self._path.parent).free
        if free - (size - self.size) < self._reserve_bytes:
            raise BackendError(
                "The disk is too full for the archive",
                permanent=False,
                hint="Free disk space on this machine, or lower limits.reserve_gb.",
            )

    def append(self, blocks: Sequence[bytes]) -> None:
        """Write ``blocks`` at the end; raises as :meth:`expect` does."""
        for block in blocks:
            view = memoryview(block)
            while view:
                marks.reached(Mark.BLOCK_WRITTEN)
                written = os.write(self._file, view)
                self.size += written
                view = view[written:]
        self.expect(self.size)

    def finish(self) -> None:
        """Give the complete file its name."""
        self._path.replace(self._target)
        self._close()
        marks.reached(Mark.DOWNLOAD_DONE)

    def discard(self) -> None:
        """Remove the file, unless it was never opened or is finished."""
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, -1
        os.close(file)
