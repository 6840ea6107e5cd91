"""Check single values of a configuration; each function returns the value or raises ``ValueError``.

The sentence of the error completes "<field> …" and says what to correct.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv6Address
from typing import TypeVar, cast, get_args

import msgspec

from proxy.nodes.node import Permission, Repush

T = TypeVar("T", bound=float)

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_PERMISSIONS = {
    "read": Permission.READ,
    "read_only": Permission.READ,
    "write": Permission.WRITE,
    "write_only": Permission.WRITE,
    "read_write": Permission.READ_WRITE,
}


def pick(raw: Mapping[str, object], field: str, spellings: Mapping[str, tuple[str, ...]]) -> object:
    """Return the first spelling of ``field`` in ``raw`` that is not null; None if there is none."""
    found = (raw.get(key) for key in spellings.get(field, (field,)))
    return next((value for value in found if value is not None), None)


def text(value: object) -> str:
    """Read text as it is; it may come as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError("must be text")  # noqa: TRY004 - one kind of error for all fields
    return value


def ae_title(value: object) -> str:
    """Read an AE title: 1 to 16 characters, spaces around it do not count (PS3.5 6.2).

    The default repertoire is printable ASCII; the backslash separates values and is not allowed.
    Errors name a character by code point, because it may be invisible.
    """
    title = text(value).strip(" ")
    for character in title:
        if not " " <= character <= "~" or character == "\\":
            raise ValueError(f"must not contain {_named(character)}; type all of it again")
    if not 1 <= len(title) <= 16:
        raise ValueError(f"must have 1 to 16 characters besides spaces around it, not {len(title)}")
    return title


def host(value: object) -> str:
    """Read a host name, an IPv4 address or an IPv6 address (with or without brackets)."""
    name = text(value).strip()
    if not name:
        raise ValueError("must not be empty")
    for character in name:
        if character.isspace() or not character.isprintable():
            raise ValueError(f"must not contain {_named(character)}")
    if ":" in name:
        return _ipv6(name)
    if len(name) > 253 or not _HOST_NAME.fullmatch(name):
        raise ValueError("must be a host name or an IP address only, without scheme or path")
    return name


def _ipv6(name: str) -> str:
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    try:
        IPv6Address(bare)
    except ValueError:
        raise ValueError(
            "must be a host name or an IP address only; the port has its own field"
        ) from None
    return bare


def port(value: object) -> int:
    """Read a TCP port."""
    return _whole(value, 1, 65535)


def count(value: object) -> int:
    """Read a number of retries."""
    return _whole(value, 0, 1000)


def pdu_size(value: object) -> int:
    """Read a maximum PDU length in bytes; 0 stands for unlimited (PS3.8 D.1)."""
    size = _whole(value, 0, 2**32 - 1)
    if 0 < size < 1024:
        raise ValueError("must be 0 (unlimited) or at least 1024 bytes")
    return size


def seconds(value: object) -> float:
    """Read a duration in seconds, up to a day; 0 is allowed."""
    duration = _lax(value, float)
    if duration is None or not 0 <= duration <= 86_400:
        raise ValueError("must be a number of seconds from 0 to 86400")
    return duration


def timeout(value: object) -> float:
    """Read a limit in seconds, up to a day; 0 is not allowed, because nothing could succeed."""
    if not (duration := seconds(value)):
        raise ValueError("must be longer than 0 seconds")
    return duration


def flag(value: object) -> bool:
    """Read yes or no."""
    truth = _lax(value, bool)
    if truth is None:
        raise ValueError("must be true or false")
    return truth


def permission(value: object) -> Permission:
    """Read the permission of a node, in the words of either generation of the platform."""
    word = text(value).strip().lower().replace("-", "_").replace(" ", "_")
    if word not in _PERMISSIONS:
        raise ValueError("must be read, write or read_write")
    return _PERMISSIONS[word]


def repush(value: object) -> Repush:
    """Read the choice of instances to send again in a later dispatch."""
    word = text(value).strip().lower()
    for known in get_args(Repush):
        if word == known:
            return cast("Repush", known)
    raise ValueError("must be all, new or never")


def _whole(value: object, low: int, high: int) -> int:
    number = _lax(value, int)
    if number is None or not low <= number <= high:
        raise ValueError(f"must be a whole number from {low} to {high}")
    return number


def _lax(value: object, kind: type[T]) -> T | None:
    """Convert ``value``, which may be text; None if that cannot be done."""
    with suppress(msgspec.ValidationError):
        return msgspec.convert(
            value.strip() if isinstance(value, str) else value, kind, strict=False
        )
    return None


def _named(character: str) -> str:
    """Name a character so that an invisible one can be found."""
    name = unicodedata.name(character, "control character")
    return f"U+{ord(character):04X} ({name})"
