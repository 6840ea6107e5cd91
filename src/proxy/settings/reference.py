"""The settings in print: the reference, itself a settings file, and the settings in force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from proxy.settings.keys import KEYS, SECTIONS, Key, written
from proxy.settings.schema import Settings

REMARK_AT = 40
HEAD = """\
# Settings of ith-proxy, each with its default.
#
# Remove the "#" of a line to set it. An option of the command line overrides the environment,
# the environment overrides this file. The variable for `key` below [section] is
# ITH_PROXY__SECTION__KEY; ITH_URL and PROXY_HOST_IP are short for ith.url and local.ip_address.
# The proxy key comes from ITH_TOKEN or from the file named in ith.token_file, never from here.
"""

PAGE_HEAD = """\
# Configuration

Every setting of `ith-proxy`. This page is written by `ith-proxy config reference --markdown`.
`ith-proxy config reference` prints the same as a settings file to start from.

The settings file is `/etc/ith-proxy/config.toml`, or the one that `--config` names. An option of
the command line comes before the environment, the environment before the file. The variable for
`key` below `[section]` is `ITH_PROXY__SECTION__KEY`; `ITH_URL` and `PROXY_HOST_IP` are short for
`ith.url` and `local.ip_address`. The proxy key comes from `ITH_TOKEN` or from the file named in
`ith.token_file`, never from the settings file.
"""


def reference() -> str:
    """Return every setting with its sentence, range and default, as a TOML file."""
    return "\n".join(line.rstrip() for line in [HEAD, "", *_reference_lines()])


def reference_page() -> str:
    """Return every setting as a Markdown page, in the order of the reference."""
    lines = [PAGE_HEAD]
    for section, struct in SECTIONS.items():
        lines += [f"## `[{section}]`", "", f"{struct.__doc__}", "", *_table(section)]
    return "\n".join(lines)


def _table(section: str) -> Iterator[str]:
    yield "| setting | default | allowed | meaning |"
    yield "|---|---|---|---|"
    for key in _keys(section):
        allowed = ", ".join(filter(None, [key.unit, key.bounds])) if key.bounds else key.kind
        unset = f" {written(key.default)}: {key.unset}." if key.unset else ""
        cells = (f"`{key.name}`", f"`{written(key.default)}`", allowed, f"{key.sentence}{unset}")
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def _reference_lines() -> Iterator[str]:
    for section, struct in SECTIONS.items():
        yield f"# {struct.__doc__}"
        yield f"[{section}]"
        for key in _keys(section):
            yield f"# {key.sentence}"
            yield f"#{key.name} = {written(key.default)}".ljust(REMARK_AT) + _remark(key)
        yield ""


def _remark(key: Key) -> str:
    """Return a comment: the allowed values, and the meaning of an empty value."""
    if key.bounds:
        allowed = ", ".join(filter(None, [key.unit, key.bounds]))
    else:
        allowed = "" if key.kind in {"text", "true or false"} else key.kind
    empty = f"{written(key.default)}: {key.unset}" if key.unset else ""
    remark = "; ".join(filter(None, [allowed, empty]))
    return f"# {remark}" if remark else ""


class SettingInForce(NamedTuple):
    """A setting in force: its line of TOML, and the source of its value."""

    section: str
    line: str
    origin: str


def in_force(settings: Settings) -> Iterator[SettingInForce]:
    """Yield the settings in force, in the order of the reference."""
    for key in KEYS.values():
        value = getattr(getattr(settings, key.section), key.name)
        origin = settings.origins.get(key.path, "default")
        yield SettingInForce(key.section, f"{key.name} = {written(value)}", origin)


def _keys(section: str) -> Iterator[Key]:
    return (key for key in KEYS.values() if key.section == section)
