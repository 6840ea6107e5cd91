"""The one directory that holds all state."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from proxy.errors import StateDirectoryError

OTHERS = 0o007


def prepare(directory: Path) -> None:
    """Make the directory if it is missing, and shut out other users: it holds patient data.

    Raises :class:`StateDirectoryError`.
    """
    hint = "Name another with --state-dir, or give this program's user the right to write there."
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(directory.stat().st_mode)
        if mode & OTHERS:
            directory.chmod(mode & ~OTHERS)
    except OSError as error:
        sentence = f"The state directory {directory} cannot be used: {error.strerror}."
        raise StateDirectoryError(sentence, hint=hint) from None
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        sentence = f"The state directory {directory} cannot be read and written."
        raise StateDirectoryError(sentence, hint=hint)
