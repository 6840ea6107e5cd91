"""The sources of settings: the file, the environment, the command line.

Each source yields its values as :class:`Given`; entries that cannot be understood are collected as
problems, so that the operator sees all of them at once.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import platformdirs

from proxy.errors import ConfigError
from proxy.settings.keys import KEYS, SECTIONS, SEE_REFERENCE, Key, find, nearest

APP = "ith-proxy"
PREFIX = "ITH_PROXY__"
SHORT_NAMES = {"ITH_URL": "ith.url", "PROXY_HOST_IP": "local.ip_address"}
KEY_NAMES = {"token", "proxy_key", "key"}
KEY_HINT = "Put the key in the environment variable ITH_TOKEN, or name its file in ith.token_file."


class Given(NamedTuple):
    """A value that a source (a file, variable or option) gives a key.

    ``strict`` if the value has a type and is not just text.
    """

    key: Key
    value: object
    kind: str
    source: str
    strict: bool = False

    @property
    def origin(self) -> str:
        """The source as ``config show --origin`` prints it."""
        return f"{self.kind}: {self.source}"


def config_file(flag: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the settings file to read: the one named, else the first that exists."""
    named = flag or (Path(name) if (name := environ.get("ITH_PROXY_CONFIG")) else None)
    if named:
        return named
    places = [
        *(environ.get("CONFIGURATION_DIRECTORY") or "").split(os.pathsep),
        platformdirs.user_config_dir(APP),
        f"/etc/{APP}",
    ]
    candidates = (Path(place, "config.toml") for place in places if place)
    return next((path for path in candidates if _may_be_file(path)), None)


def _may_be_file(path: Path) -> bool:
    """Whether there is a file, or one cannot tell: then reading it says why."""
    try:
        return path.is_file()
    except OSError:
        return True


def state_directory(flag: Path | None, environ: Mapping[str, str]) -> tuple[Path, str]:
    """Return the directory for all state, and the source that names it."""
    if flag:
        return flag, "option: --state-dir"
    if given := environ.get("STATE_DIRECTORY"):
        return Path(given.split(os.pathsep)[0]), "environment: STATE_DIRECTORY"
    return Path(platformdirs.user_state_dir(APP)), "default"


def from_file(path: Path, problems: list[ConfigError]) -> Iterator[Given]:
    """Read a TOML file."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        sentence = f"The settings file {path} cannot be read: {error.strerror}."
        problems.append(ConfigError(sentence, hint="Correct --config, or the file's mode."))
        return
    except UnicodeDecodeError:
        problems.append(ConfigError(f"{path} is not a text in UTF-8."))
        return
    except tomllib.TOMLDecodeError as error:
        hint = "The format is TOML: [section], then key = value, with text in quotes."
        problems.append(ConfigError(f"{path}: {error}.", hint=hint))
        return
    for section, table in tables.items():
        if isinstance(table, dict) and section in SECTIONS:
            for name, value in table.items():
                if key := _known(str(path), section, name, problems):
                    yield Given(key, value, "file", str(path), strict=True)
        else:
            problems.append(_no_section(path, section))


def from_environment(environ: Mapping[str, str], problems: list[ConfigError]) -> Iterator[Given]:
    """Read ITH_URL, PROXY_HOST_IP and ITH_PROXY__SECTION__KEY; an empty one counts as not set."""
    for variable, path in SHORT_NAMES.items():
        if value := environ.get(variable):
            yield Given(KEYS[path], value, "environment", variable)
    for variable in sorted(environ):
        value = environ[variable]
        if variable.startswith(PREFIX) and value:
            section, _, name = variable.removeprefix(PREFIX).lower().partition("__")
            if key := _known(variable, section, name, problems):
                yield Given(key, value, "environment", variable)


def from_flags(flags: Mapping[str, tuple[str, object]]) -> Iterator[Given]:
    """Take the values of the command line: by path of the key, the option's name and its value."""
    for path, (option, value) in flags.items():
        yield Given(KEYS[path], value, "option", option)


def _known(source: str, section: str, name: str, problems: list[ConfigError]) -> Key | None:
    """Return the key, or note that there is no such key."""
    key = find(section, name)
    if key is None and section == "ith" and name in KEY_NAMES:
        sentence = f"{source}: ith.{name} is refused: the proxy key does not belong in settings."
        problems.append(ConfigError(sentence, hint=KEY_HINT))
    elif key is None:
        written = source if source.startswith(PREFIX) else f"{source}: {section}.{name}"
        near = nearest(section, name)
        hint = SEE_REFERENCE
        if near:
            hint = f"Did you mean {near.variable if source.startswith(PREFIX) else near.path}?"
        problems.append(ConfigError(f"{written} is not a setting.", hint=hint))
    return key


def _no_section(path: Path, section: str) -> ConfigError:
    """Return the error for a top-level entry that is not a table of ours."""
    if section in SECTIONS:
        return ConfigError(f"{path}: {section} must be a table.", hint=f"Write [{section}].")
    for key in KEYS.values():
        if key.name == section:
            return ConfigError(
                f"{path}: {section} stands outside of a table.",
                hint=f"It belongs below [{key.section}].",
            )
    near = difflib.get_close_matches(section, SECTIONS, n=1)
    hint = f"Did you mean [{near[0]}]?" if near else SEE_REFERENCE
    return ConfigError(f"{path}: [{section}] is not a section.", hint=hint)
