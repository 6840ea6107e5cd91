"""The errors of reading an archive; every error of the libraries becomes one of them, at the edge.

No error contains anything of the content, not even a name.
"""

from __future__ import annotations

import errno
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.errors import ArchiveError


class Unread(ArchiveError):
    """An archive that was not read completely; ``what`` is the reason, such as "is damaged".

    The same words describe an archive within the archive.
    """

    def __init__(self, what: str, *, permanent: bool, hint: str) -> None:
        super().__init__(f"The archive {what}", permanent=permanent, hint=hint)
        self.what = what


class BeyondLimit(Unread):
    """An archive that exceeds a limit of this machine."""


def damaged(what: str = "is damaged or incomplete") -> Unread:
    """Build the error for an archive that another download may bring undamaged."""
    return Unread(
        what,
        permanent=False,
        hint="The download is tried again; if it keeps failing, the archive is broken at ITH.",
    )


def unreadable(what: str) -> Unread:
    """Build the error for an archive that this program cannot read, however often it comes."""
    return Unread(
        what,
        permanent=True,
        hint="Only plain zip (stored or deflated) and tar.gz archives can be unpacked.",
    )


def too_large(what: str, setting: str) -> BeyondLimit:
    """Build the error for an archive beyond a limit; ``setting`` is the limit's name."""
    return BeyondLimit(
        what,
        permanent=True,
        hint=f"If the archive is to be trusted, raise limits.{setting} in the settings.",
    )


def disk_full() -> BeyondLimit:
    """Build the error for an archive that would leave the disk less than its reserve."""
    return BeyondLimit(
        "needs more space than the disk has",
        permanent=False,
        hint="Free disk space on this machine, or lower limits.reserve_gb.",
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn the errors that the libraries raise on bad input into :class:`Unread`."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        struct.error,
        EOFError,
        OverflowError,
        ValueError,
    ):
        raise damaged() from None
    except NotImplementedError:
        raise unreadable("holds content of an unknown kind") from None
    except OSError as error:
        # A damaged archive can give a file position that is an invalid argument.
        if error.errno in {None, errno.EINVAL}:
            raise damaged() from None
        raise
