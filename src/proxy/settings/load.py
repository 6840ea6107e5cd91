"""Put the settings together: default, then file, then environment, then command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from proxy.errors import ConfigError
from proxy.settings.keys import SECTIONS
from proxy.settings.rules import problems as rule_problems
from proxy.settings.schema import IthSettings, Settings
from proxy.settings.secret import Secret, as_key, read_key
from proxy.settings.sources import (
    KEY_HINT,
    config_file,
    from_environment,
    from_file,
    from_flags,
    state_directory,
)

NO_FLAGS: Mapping[str, tuple[str, object]] = {}


class SettingsError(ConfigError):
    """Several settings cannot be used; ``problems`` has an error for each."""

    def __init__(self, problems: list[ConfigError]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load(
    *,
    config: Path | None = None,
    state_dir: Path | None = None,
    flags: Mapping[str, tuple[str, object]] = NO_FLAGS,
    environ: Mapping[str, str] = os.environ,
    runnable: bool = True,
) -> Settings:
    """Return the settings as the sources give them, with the origin of each value.

    ``runnable``: also require the settings that a run needs, the address of ITH and the proxy key.
    Without it, neither is checked, and the key is not read. Raises :class:`ConfigError`, or
    :class:`SettingsError` for more than one problem.
    """
    problems: list[ConfigError] = []
    directory, directory_origin = state_directory(state_dir, environ)
    origins = {"state_dir": directory_origin}
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    path = config_file(config, environ)
    for given in (
        *(from_file(path, problems) if path else ()),
        *from_environment(environ, problems),
        *from_flags(flags),
    ):
        key = given.key
        try:
            converted = key.convert(given.value, given.source, strict=given.strict)
        except ConfigError as problem:
            problems.append(problem)
        else:
            values[key.section][key.name] = converted
            origins[key.path] = given.origin
    tables: dict[str, Any] = {name: SECTIONS[name](**values[name]) for name in SECTIONS}
    settings = Settings(**tables, state_dir=directory, config_file=path, origins=origins)
    if runnable and not problems:
        problems += rule_problems(settings.ith)
        try:
            settings = msgspec.structs.replace(settings, token=_key(settings.ith, environ))
        except ConfigError as problem:
            problems.append(problem)
    if problems:
        raise problems[0] if len(problems) == 1 else SettingsError(problems)
    return settings


def _key(ith: IthSettings, environ: Mapping[str, str]) -> Secret:
    """Return the proxy key: ITH_TOKEN, else the content of the named file."""
    if token := environ.get("ITH_TOKEN"):
        return as_key(token, "ITH_TOKEN")
    if ith.token_file:
        return read_key(ith.token_file, environ)
    raise ConfigError("There is no proxy key.", hint=KEY_HINT)
