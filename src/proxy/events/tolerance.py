"""Read frames that are not canonical: control messages, envelopes, other spellings, broken frames.

``codec`` calls this only for a frame that its one-pass decoder refused. This module starts again
from plain dicts, if necessary one field at a time. An optional field never makes an event
unreadable: null, or a value that cannot be read as the field's type, counts as absent. Without a
required field the frame is broken; the reason names the event type and the field, and no content
of the frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from hashlib import sha256
from typing import TypeVar, cast, get_args

import msgspec

from proxy.events.base import IncomingPayload, ProxyEvent
from proxy.events.incoming import (
    AnyControl,
    AnyEvent,
    BrokenFrame,
    Incoming,
    PingEvent,
    UnknownEvent,
)

T = TypeVar("T", bound=msgspec.Struct)

_EVENTS: dict[object, type[AnyEvent]] = {c.__struct_config__.tag: c for c in get_args(AnyEvent)}
_CONTROLS: dict[object, type[AnyControl | PingEvent]] = {
    c.__struct_config__.tag: c for c in (*get_args(AnyControl), PingEvent)
}
_ENVELOPE = ("workspace_id", "timestamp", "correlation_id", "entity_type", "entity_id")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ABSENT = (None, "")
_KINDS = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "text",
    list: "this list",
    dict: "an object",
}


class _Unreadable(Exception):
    """The sentence is the reason of a :class:`BrokenFrame`, ``event_type`` its event type."""

    event_type = ""


def read(frame: str | bytes, new_correlation_id: Callable[[], str]) -> Incoming:
    """Read any frame; never raises."""
    try:
        return _read_object(msgspec.json.decode(frame), new_correlation_id)
    except _Unreadable as error:
        return BrokenFrame(str(error), len(frame), error.event_type)
    except (msgspec.MsgspecError, UnicodeError):
        reason = "the frame is not JSON"
    except RecursionError:
        reason = "the frame is nested too deeply"
    return BrokenFrame(reason, len(frame))


def _read_object(raw: object, new_correlation_id: Callable[[], str]) -> Incoming:
    if not isinstance(raw, dict):
        raise _Unreadable("the frame is not a JSON object")
    while (inner := _inner_event(raw)) is not None:
        raw = _fill_gaps(inner, raw)
    kind, name = raw.get("type"), raw.get("event_type")
    if isinstance(kind, str) and kind in _CONTROLS:
        identified = _with_correlation_id(raw, new_correlation_id)
        return _read_message(_CONTROLS[kind], identified, kind)
    if name is None:
        name = kind
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _Unreadable("the frame has no usable event_type and no usable type")
    if name in _EVENTS:
        return _read_message(_EVENTS[name], _with_correlation_id(raw, new_correlation_id), name)
    return _read_message(UnknownEvent, {**raw, "event_type": name}, name)


def _inner_event(raw: dict[str, object]) -> dict[str, object] | None:
    """Return the event of a nested envelope (protocol.md 1.6), None if the frame is flat."""
    payload = raw.get("payload")
    nested = isinstance(payload, dict) and isinstance(payload.get("event_type"), str)
    return cast("dict[str, object]", payload) if nested else None


def _fill_gaps(inner: dict[str, object], outer: dict[str, object]) -> dict[str, object]:
    """Return ``inner`` with the values that only the outer object has."""
    gaps = {key: outer.get(key) for key in _ENVELOPE if inner.get(key) in _ABSENT}
    return {**inner, **gaps}


def _with_correlation_id(
    raw: dict[str, object], new_correlation_id: Callable[[], str]
) -> dict[str, object]:
    """Give an event without a correlation id one of its own.

    The same dated event, replayed, gets the same id again. An event without a time may be a second
    order of the same entity, and gets a fresh id: sending twice does no harm, omitting it does.
    """
    if raw.get("correlation_id") not in _ABSENT:
        return raw
    if raw.get("timestamp") in _ABSENT:
        correlation_id = new_correlation_id()
    else:
        content = msgspec.json.encode({**raw, "correlation_id": None}, order="deterministic")
        correlation_id = f"corr_{sha256(content).hexdigest()[:12]}"
    return {**raw, "correlation_id": correlation_id}


def _read_message(cls: type[T], raw: dict[str, object], name: str) -> T:
    """Build ``cls`` at once if only the envelope was unusual, else field by field."""
    with suppress(msgspec.ValidationError):
        return msgspec.convert(raw, cls)
    try:
        return _read_struct(cls, raw, f"{name}: ")
    except _Unreadable as error:
        error.event_type = name
        raise


def _read_struct(cls: type[T], raw: dict[str, object], path: str) -> T:
    """Build ``cls`` from the readable fields; ``path`` is the place of ``raw`` in the frame."""
    values = {}
    for field in _fields(cls):
        try:
            values[field.name] = _read_field(field, raw.get(field.name), path + field.name)
        except _Unreadable:
            is_address = issubclass(cls, ProxyEvent) and field.name == "entity_id"
            if field.required or (is_address and raw.get(field.name) not in _ABSENT):
                raise
    return cls(**values)


def _read_field(field: msgspec.structs.FieldInfo, value: object, path: str) -> object:
    """Return the field's value, or the payload; raises :class:`_Unreadable`."""
    if isinstance(field.type, type) and issubclass(field.type, IncomingPayload):
        if not isinstance(value, dict | None):
            raise _Unreadable(f"{path} is not an object")
        return _read_struct(field.type, field.type.canonical(value or {}), f"{path}.")
    if value in _ABSENT:
        raise _Unreadable(f"{path} is missing")
    for spelling in _spellings(value):
        with suppress(msgspec.ValidationError):
            return msgspec.convert(spelling, field.type, strict=False)
    raise _Unreadable(f"{path} cannot be read from {_KINDS[type(value)]}")


@cache
def _fields(cls: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(cls)


def _spellings(value: object) -> Iterator[object]:
    """Yield the values that ``value`` may stand for, itself first."""
    yield value
    if isinstance(value, str):
        yield value.strip().lower()
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, list):
        yield [str(item) if type(item) is int else item for item in value if item not in _ABSENT]
