"""The settings as a table: one :class:`Key` for each, read off the structs of ``schema.py``.

Checks one value at a time; an error is one sentence about that value.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Literal, cast, get_args, get_origin, get_type_hints

import msgspec

from proxy.errors import ConfigError
from proxy.settings.schema import Section, Settings

LONGEST_SHOWN = 60
SEE_REFERENCE = "`ith-proxy config reference` lists all settings."


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One setting; msgspec converts to ``type``, and ``unset`` is the meaning of an empty value.

    ``kind`` describes the type in words; ``unit`` and ``bounds`` ("1 to 60") are for numbers.
    """

    section: str
    name: str
    type: object
    default: object
    sentence: str
    kind: str
    unit: str
    bounds: str
    unset: str

    @property
    def path(self) -> str:
        """The setting's name everywhere: ``section.name``."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"ITH_PROXY__{self.section}__{self.name}".upper()

    @property
    def allowed(self) -> str:
        """The allowed values, in words that follow "it must be"."""
        unit = f" of {self.unit}" if self.unit else ""
        return f"{self.kind}{unit} from {self.bounds}" if self.bounds else self.kind

    def convert(self, value: object, source: str, *, strict: bool = True) -> object:
        """Return ``value`` as this key's type, or raise :class:`ConfigError`.

        Not ``strict``: numbers, booleans and comma-separated lists may be written as strings.
        """
        if not strict and isinstance(value, str) and isinstance(self.default, tuple):
            value = [item.strip() for item in value.split(",")]
        try:
            converted: object = msgspec.convert(value, self.type, strict=strict)
        except msgspec.ValidationError:
            sentence = f"{source}: {self.path} is {shown(value)}; it must be {self.allowed}."
            raise ConfigError(sentence) from None
        return converted


def written(value: object) -> str:
    """Return a value as TOML writes it."""
    match value:
        case bool() | str():
            return json.dumps(value, ensure_ascii=False)
        case list() | tuple():
            return f"[{', '.join(map(written, value))}]"
        case int() | float():
            return _number(value)
        case dict():
            return "a table"
        case _:
            return str(value)


def shown(value: object) -> str:
    """Return a value for a sentence: cut if it is long, with invisible characters escaped."""
    text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in written(value))
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…"


def _number(value: float) -> str:
    """Return a number without needless decimals, in groups of three digits if it is long."""
    if isinstance(value, float):
        if not value.is_integer():
            return str(value)
        value = int(value)
    return f"{value:_}" if abs(value) >= 100_000 else str(value)


def one_of(words: list[str]) -> str:
    """Return an enumeration in words."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _kind(kind: object, allowed: object) -> str:
    """Return the values of a type in words."""
    if get_origin(kind) is Literal:
        return one_of([written(choice) for choice in get_args(kind)])
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    return str(allowed) if allowed else words.get(cast("type", kind), "text")


def _key(section: str, field: msgspec.structs.FieldInfo, hint: object) -> Key:
    kind, meta = get_args(hint)
    extra = meta.extra or {}
    return Key(
        section=section,
        name=field.name,
        type=hint,
        default=field.default,
        sentence=meta.description or "",
        kind=_kind(kind, extra.get("allowed")),
        unit=str(extra.get("unit", "")),
        bounds="" if meta.ge is None else f"{_number(meta.ge)} to {_number(meta.le)}",
        unset=str(extra.get("unset", "")),
    )


def _sections() -> Iterator[tuple[str, type[Section]]]:
    for name, kind in get_type_hints(Settings).items():
        if isinstance(kind, type) and issubclass(kind, Section):
            yield name, kind


SECTIONS: dict[str, type[Section]] = dict(_sections())
"""The tables of the settings file, in the order of the reference."""

KEYS: dict[str, Key] = {
    key.path: key
    for section, struct in SECTIONS.items()
    for field, hint in zip(
        msgspec.structs.fields(struct),
        get_type_hints(struct, include_extras=True).values(),
        strict=True,
    )
    for key in [_key(section, field, hint)]
}
"""Every setting by its path, in the order of the reference."""


def find(section: str, name: str) -> Key | None:
    """Return the key of that name in that section, or None."""
    return KEYS.get(f"{section}.{name}")


def nearest(section: str, name: str) -> Key | None:
    """Return the key most likely meant by an unknown one, if any comes near."""
    elsewhere = [key for key in KEYS.values() if key.name == name]
    if elsewhere:
        return elsewhere[0]
    siblings = [key.name for key in KEYS.values() if key.section == section]
    for match in difflib.get_close_matches(name, siblings, n=1):
        return find(section, match)
    for match in difflib.get_close_matches(f"{section}.{name}", KEYS, n=1, cutoff=0.75):
        return KEYS[match]
    return None
