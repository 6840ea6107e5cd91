"""The errors of reading an archive; every error of the libraries becomes one of them, at the edge.

No error contains anything of the content, not even a name.
"""

from __future__ import annotations

import errno
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from proxy.errors import ArchiveError

INCOMPLETE = "is damaged or incomplete"
FETCHED_AGAIN = "The download is tried again; if it keeps failing, the archive is broken at ITH."
CAN_BE_READ = "Only zip (stored, deflated, bzip2 or LZMA), tar, gzip, bzip2 and xz can be unpacked."


class Unread(ArchiveError):
    """An archive that was not read completely; ``what`` is the reason, such as "is damaged".

    The same words describe an archive within the archive. ``spoils`` says that what was read of
    it before the error must not be used either.
    """

    subject = "The archive"

    def __init__(self, what: str, *, permanent: bool, hint: str, spoils: bool = False) -> None:
        super().__init__(f"{self.subject} {what}", permanent=permanent, hint=hint)
        self.what = what
        self.spoils = spoils


class EntryUnread(Unread):
    """One file in an archive that was not read; the files after it can be."""

    subject = "A file in the archive"


class BeyondLimit(Unread):
    """An archive that exceeds a limit of this machine."""


def damaged(what: str = INCOMPLETE) -> Unread:
    """Build the error for an archive that ends too early, or that breaks off in between."""
    return Unread(what, permanent=False, hint=FETCHED_AGAIN)


def corrupt() -> Unread:
    """Build the error for wrong bytes: any file read before them may be wrong as well."""
    return Unread(INCOMPLETE, permanent=False, hint=FETCHED_AGAIN, spoils=True)


def damaged_entry(what: str = INCOMPLETE) -> EntryUnread:
    """Build the error for a file that another download may bring undamaged."""
    return EntryUnread(what, permanent=False, hint=FETCHED_AGAIN)


def unreadable_entry(what: str) -> EntryUnread:
    """Build the error for a file that this program cannot read, however often it comes."""
    return EntryUnread(what, permanent=True, hint=CAN_BE_READ)


def entry_too_large(size: int) -> EntryUnread:
    """Build the error for a file of more than ``size`` bytes."""
    return EntryUnread(f"has more than {size} bytes", permanent=True, hint=_raising("entry_bytes"))


def too_large(what: str, setting: str) -> BeyondLimit:
    """Build the error for an archive beyond a limit; ``setting`` is the limit's name."""
    return BeyondLimit(what, permanent=True, hint=_raising(setting), spoils=True)


def disk_full() -> BeyondLimit:
    """Build the error for an archive that would leave the disk less than its reserve."""
    return BeyondLimit(
        "needs more space than the disk has",
        permanent=False,
        hint="Free disk space on this machine, or lower limits.reserve_gb.",
        spoils=True,
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn the errors that the libraries raise on bad input into :class:`Unread`."""
    try:
        yield
    except zlib.error:
        raise corrupt() from None
    except (tarfile.TarError, struct.error, EOFError, OverflowError, ValueError):
        raise damaged() from None
    except OSError as error:
        # A damaged archive can give a file position that is an invalid argument.
        if error.errno in {None, errno.EINVAL}:
            raise damaged() from None
        raise


def _raising(setting: str) -> str:
    return f"If the archive is to be trusted, raise limits.{setting} in the settings."
