"""Conditions beyond the type of a single setting, to be met before the program may run."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from proxy.errors import ConfigError
from proxy.settings.schema import IthSettings

LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


def is_loopback(host: str) -> bool:
    """Whether a host's name alone shows that it is this machine (RFC 6761, 6.3).

    An IPv6 address may have its brackets. A number that only some resolvers read as an address,
    such as ``127.1``, does not count.
    """
    try:
        address = ipaddress.ip_address(_without_brackets(host))
    except ValueError:
        name = host.lower().removesuffix(".")
        return name in LOOPBACK_NAMES or (name.endswith(".localhost") and all(name.split(".")))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _without_brackets(host: str) -> str:
    bracketed = host.startswith("[") and host.endswith("]") and ":" in host
    return host[1:-1] if bracketed else host


def url_problem(url: str, *, allow_insecure: bool) -> ConfigError | None:
    """Return why ``url`` cannot be the base address of ITH, if so; it is shown without secrets."""
    example = "An address looks like https://ith.example.org."
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return ConfigError("ith.url is not an address.", hint=example)
    if parts.username is not None or parts.password is not None:
        return ConfigError("ith.url holds a user name or password.", hint="Leave only the host.")
    if parts.query or parts.fragment:
        return ConfigError("ith.url holds a query or fragment.", hint="Leave out ? and #.")
    if parts.scheme not in {"http", "https"} or not host or not url.isascii() or " " in url:
        return ConfigError("ith.url is not an https address.", hint=example)
    if parts.scheme == "http" and not allow_insecure and not is_loopback(host):
        return ConfigError(
            f"ith.url is http://{parts.netloc}, which would send the proxy key in clear.",
            hint="Use https. For a test network, ith.allow_insecure = true permits http.",
        )
    return None


def problems(ith: IthSettings) -> Iterator[ConfigError]:
    """Yield the errors of these settings that prevent a run, except those of the proxy key."""
    if not ith.url:
        hint = "Set the environment variable ITH_URL, or url below [ith] in the settings file."
        yield ConfigError("ith.url is not set.", hint=hint)
    elif problem := url_problem(ith.url, allow_insecure=ith.allow_insecure):
        yield problem
    if ith.ca_file and (reason := _unreadable(Path(ith.ca_file))):
        yield ConfigError(f"ith.ca_file is {ith.ca_file}, which {reason}.")


def _unreadable(path: Path) -> str | None:
    """Return why there is no file to read, None where there is one."""
    try:
        return None if path.is_file() else "is not a file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
