"""The proxy key: a value that does not print itself, and the sources it is read from."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from proxy.errors import ConfigError, SecretExposed

LONGEST = 4096
PRINTABLE = re.compile(r"[!-~]+")
CREDENTIAL = re.compile(r"credential:(?P<name>[^/\0]+)")


class Secret:
    """A string that is never printed; only :meth:`reveal` returns it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself, for the header or query that needs it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret(…)" if self else "Secret()"


def as_key(value: str, source: str) -> Secret:
    """Return a key without the white space around it; ``source`` names its origin.

    Raises :class:`ConfigError` if it is empty or cannot be an HTTP header. ITH alone decides on
    its format (protocol.md 1.1).
    """
    value = value.strip()
    if not value:
        raise ConfigError(
            f"{source} holds no proxy key.", hint="Put the key there that ITH shows for this proxy."
        )
    if len(value) > LONGEST or not PRINTABLE.fullmatch(value):
        raise ConfigError(
            f"{source} holds something that is not a proxy key.",
            hint="A key is one line of printable ASCII characters without spaces.",
        )
    return Secret(value)


def read_key(token_file: str, environ: Mapping[str, str]) -> Secret:
    """Read the key from a file or from a credential that systemd passed on.

    Raises :class:`SecretExposed` if others can read the file, :class:`ConfigError` if it cannot
    be read. systemd guards its credentials by itself, with access lists that modes do not show.
    """
    credential = CREDENTIAL.fullmatch(token_file)
    if credential is None:
        return _read(Path(token_file), guarded=False)
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise ConfigError(
            f"ith.token_file is {token_file}, but systemd passed no credentials on.",
            hint=f"Add LoadCredential={credential['name']}:/path/to/key to the unit, "
            "or give a path.",
        )
    return _read(Path(directory, credential["name"]), guarded=True)


def _read(path: Path, *, guarded: bool) -> Secret:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(
            f"ith.token_file is {path}, which cannot be read: {error.strerror}.",
            hint="Write the proxy key there, readable to this program's user only.",
        ) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"ith.token_file is {path}, which is not a file.")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077 and not guarded:
            raise SecretExposed(
                f"ith.token_file is {path}, which others can read (mode {mode:04o}).",
                hint=f"chmod 600 {path}, and have ITH make a new key if others may have seen it.",
            )
        content = os.read(descriptor, LONGEST + 3)
    finally:
        os.close(descriptor)
    return as_key(content.decode("ascii", errors="replace"), f"The file {path}")
