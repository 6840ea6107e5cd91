"""The site's configuration: ``GET /api/v1/proxy/configuration`` and our own copy of it.

It is read value by value: an unusable value is reported as a problem, and the former value stays,
except for values that ``config_update`` repeats to ITH.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from proxy.errors import ProxyError
from proxy.nodes import fields
from proxy.nodes.node import Node
from proxy.nodes.reading import NodesRead, Problem, read_nodes

_HINT = "Correct the proxy's configuration on the ITH platform."


class ConfigurationInvalid(ProxyError):
    """The data received or kept are not a configuration."""


class SiteConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The proxy's own settings as ITH keeps them; a default applies until ITH sends a value.

    The site reaches this machine by address, port, AE title and ``api_url``. ``config_update``
    repeats the last three to ITH; None if ITH has a value that cannot be read, which the proxy must
    not replace. ``enable_phi_anonymization`` guards nothing here: it says whether ITH's data of the
    site are pseudonymised, None if ITH does not tell. ``mode`` is for programs that accept
    connections, which this one does not. The last five are defaults for nodes without a value of
    their own; seconds for ``timeout`` and ``retry_delay``.
    """

    ip_address: str = ""
    port: int | None = 11112
    ae_title: str | None = "DICOMRCV"
    mode: Literal["private", "public"] = "private"
    enable_phi_anonymization: bool | None = None
    api_url: str | None = ""
    timeout: float | None = None
    max_pdu_size: int | None = None
    retry_count: int | None = None
    retry_delay: float | None = None
    calling_ae_title: str | None = None


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that ITH knows about this proxy."""

    proxy_id: str
    workspace_id: str = ""
    name: str = ""
    description: str = ""
    is_active: bool = True
    config: SiteConfig = SiteConfig()
    nodes: tuple[Node, ...] = ()

    @property
    def effective_nodes(self) -> tuple[Node, ...]:
        """The nodes, completed from the defaults that the site has for all of them."""
        defaults = {
            "connection_timeout": self.config.timeout,
            "max_pdu_size": self.config.max_pdu_size,
            "retry_count": self.config.retry_count,
            "retry_delay": self.config.retry_delay,
            "calling_ae_title": self.config.calling_ae_title,
        }
        return tuple(
            msgspec.structs.replace(
                node,
                **{key: value for key, value in defaults.items() if getattr(node, key) is None},
            )
            for node in self.nodes
        )


class ConfigurationRead(msgspec.Struct, frozen=True):
    """A usable configuration, and the problems of its unusable parts."""

    configuration: Configuration
    problems: tuple[Problem, ...]


class ConfigMerged(msgspec.Struct, frozen=True):
    """The settings after a change, the names of those that differ now, and the problems."""

    config: SiteConfig
    changed_fields: tuple[str, ...]
    problems: tuple[Problem, ...]


def _mode(value: object) -> str:
    word = fields.text(value).strip().lower()
    if word not in {"private", "public"}:
        raise ValueError("must be private or public")
    return word


_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "proxy_id": ("id",),
    "api_url": ("api_url", "resolver_information_url"),
    "timeout": ("timeout", "connection_timeout"),
}
_CONFIG: Mapping[str, Callable[[object], object]] = {
    "ip_address": fields.text,
    "port": fields.port,
    "ae_title": fields.ae_title,
    "mode": _mode,
    "enable_phi_anonymization": fields.flag,
    "api_url": fields.text,
    "timeout": fields.timeout,
    "max_pdu_size": fields.pdu_size,
    "retry_count": fields.count,
    "retry_delay": fields.seconds,
    "calling_ae_title": fields.ae_title,
}
_REPEATED = frozenset({"port", "ae_title", "api_url"})
"""The fields of ``config_update``: neither a default nor an old value may stand for ITH's value."""

_ABOUT: Mapping[str, Callable[[object], object]] = {
    "proxy_id": fields.text,
    "workspace_id": fields.text,
    "name": fields.text,
    "description": fields.text,
    "is_active": fields.flag,
}


def merge_config(config: SiteConfig, changed: Mapping[str, object]) -> ConfigMerged:
    """Return ``config`` with the values of ``changed``; null and unknown keys change nothing.

    Nor do unreadable values, except for the fields of ``config_update``, which become None.
    """
    values, problems = _read_values(_CONFIG, changed)
    differing = {key: value for key, value in values.items() if getattr(config, key) != value}
    return ConfigMerged(
        msgspec.structs.replace(config, **differing), tuple(differing), tuple(problems)
    )


def read_configuration(body: bytes, known: Configuration | None = None) -> ConfigurationRead:
    """Read ITH's answer; an unreadable value is as in ``known``, or None if it is repeated to ITH.

    Settings that it does not mention are as in ``known``, too: ITH sends some of them only in
    events. Null stands for the default. Raises :class:`ConfigurationInvalid` if it is not a
    configuration at all.
    """
    try:
        raw = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise _not_a_configuration() from None
    about, problems = _read_values(_ABOUT, raw)
    proxy_id = about.get("proxy_id")
    if not isinstance(proxy_id, str) or not proxy_id:
        raise _not_a_configuration()
    if known is None or known.proxy_id != proxy_id:
        known = Configuration(proxy_id=proxy_id)
    site = raw.get("config")
    if not isinstance(site, dict):
        site = {}
        problems.append(Problem("config is missing; the former settings are kept.", _HINT))
    merged = merge_config(_with_defaults(known.config, site), site)
    nodes = raw.get("nodes")
    if isinstance(nodes, list):
        read = read_nodes(nodes, known.nodes)
    else:
        missing = Problem("nodes is missing; those known before are kept.", _HINT)
        read = NodesRead(known.nodes, (missing,))
    configuration = msgspec.structs.replace(known, **about, config=merged.config, nodes=read.nodes)
    return ConfigurationRead(configuration, (*problems, *merged.problems, *read.problems))


def _with_defaults(config: SiteConfig, raw: Mapping[str, object]) -> SiteConfig:
    """Return ``config`` with the default for each value that is null in ``raw``."""
    null = [
        field
        for field in _CONFIG
        if fields.pick(raw, field, _SPELLINGS) is None
        and any(key in raw for key in _SPELLINGS.get(field, (field,)))
    ]
    return msgspec.structs.replace(config, **{each: getattr(SiteConfig(), each) for each in null})


def encode_configuration(configuration: Configuration) -> bytes:
    """Write our own copy, for times when ITH cannot be reached."""
    return msgspec.json.encode(configuration)


def decode_configuration(copy: bytes) -> Configuration:
    """Read our own copy. Raises :class:`ConfigurationInvalid` if it is damaged."""
    try:
        return msgspec.json.decode(copy, type=Configuration)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise ConfigurationInvalid(
            "The kept copy of the configuration cannot be read.",
            hint="It is replaced as soon as ITH has sent the configuration.",
        ) from None


def _read_values(
    readers: Mapping[str, Callable[[object], object]], raw: Mapping[str, object]
) -> tuple[dict[str, object], list[Problem]]:
    values: dict[str, object] = {}
    problems = []
    for field, read in readers.items():
        value = fields.pick(raw, field, _SPELLINGS)
        if value is None:
            continue
        try:
            values[field] = read(value)
        except ValueError as error:
            outcome = "the former value is kept"
            if field in _REPEATED:
                values[field], outcome = None, "ITH's value is left as it is"
            problems.append(Problem(f"{field} {error}; {outcome}.", _HINT))
    return values, problems


def _not_a_configuration() -> ConfigurationInvalid:
    return ConfigurationInvalid(
        "ITH answered with something that is not the configuration of a proxy.",
        hint="Check that the ITH address in the settings is that of the platform.",
    )
