"""The log's destination and the format of its lines: JSON for machines, columns for people."""

from __future__ import annotations

import logging
import os
import re
from datetime import UTC, datetime
from typing import Final, Literal, TextIO, TypeAlias
from urllib.parse import quote

import msgspec

from proxy.logs.fields import DROPPED, Line, hash_with
from proxy.logs.lines import LOGGER, Level, describe, place
from proxy.logs.standard_error import standard_error

Format: TypeAlias = Literal["auto", "json", "text"]

REDACTED = "[key]"


def configure(
    *, level: Level, format: Format = "auto", key: str = "", stream: TextIO | None = None
) -> None:
    """Send everything logged in this process to ``stream``, standard error unless given.

    Writing to standard error never waits: see :func:`standard_error`. A given stream is written to
    at once. ``key`` is the proxy key: it is never written, and UIDs are hashed with it.
    """
    if key:
        hash_with(key)
    handler = _Handler(stream or standard_error())
    terminal = handler.stream.isatty()
    as_text = format == "text" or (format == "auto" and terminal)
    colour = terminal and not os.environ.get("NO_COLOR")
    handler.setFormatter(Text(key, colour=colour) if as_text else JsonFormatter(key))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    LOGGER.setLevel(level.upper())
    logging.captureWarnings(capture=True)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes our lines, and only warnings and errors of libraries, whatever level they set."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or hasattr(record, "line")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Count a line that could not be written, instead of printing its content."""
        DROPPED["line"] += 1


class JsonFormatter(logging.Formatter):
    """One JSON object for each line."""

    def __init__(self, key: str = "") -> None:
        super().__init__()
        self._secrets = sorted({key, quote(key, safe=""), quote(key)} - {""}, key=len)[::-1]

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; its first three fields are time, level and event."""
        return msgspec.json.encode(self.line(record)).decode()

    def line(self, record: logging.LogRecord) -> Line:
        """Return a record's fields made safe; a library's message is reduced to its origin."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        ours: Line | None = getattr(record, "line", None)
        event = record.getMessage() if ours is not None else "library.message"
        head: Line = {"time": f"{time[:-6]}Z", "level": record.levelname.lower(), "event": event}
        fields = _foreign(record) if ours is None else ours
        return head | {name: self._safe(value) for name, value in fields.items()}

    def _safe(self, value: str | float | bool | list[str]) -> str | int | float | bool | list[str]:
        """Return a value without the key, and without characters that forge or colour a line."""
        if isinstance(value, list):
            return [str(self._safe(item)) for item in value]
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, REDACTED)
            if not value.isprintable():
                value = "".join(each if each.isprintable() else "\ufffd" for each in value)
        return value


class Text(JsonFormatter):
    """One line for people: time, level and event in columns, then the fields."""

    COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31"}

    def __init__(self, key: str = "", *, colour: bool = False) -> None:
        super().__init__(key)
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a trace follows on lines of its own."""
        line = self.line(record)
        time, level, event = (str(line.pop(name)) for name in ("time", "level", "event"))
        lists = {name: value for name, value in line.items() if isinstance(value, list)}
        fields = [
            f"{self._paint('2', f'{name}=')}{_written(value)}"
            for name, value in line.items()
            if not isinstance(value, list)
        ]
        head = f"{self._paint('2', time)} {self._paint(self.COLOURS[level], f'{level:<7}')}"
        rows = [" ".join([head, self._paint("1", f"{event:<24}"), *fields]).rstrip()]
        rows += [f"    {self._paint('2', name)} {item}" for name in lists for item in lists[name]]
        return "\n".join(rows)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def _foreign(record: logging.LogRecord) -> Line:
    """Return the origin of a library's message; its text may hold patient data."""
    line: Line = {"logger": record.name, "at": f"{place(record.pathname)}:{record.lineno}"}
    error = record.exc_info[1] if record.exc_info else None
    return line | (describe(error) if error else {})


def _written(value: object) -> str:
    """Return a value as text, in quotes if it is not one plain word."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if re.fullmatch(r"[^\s\"=]+", text) else msgspec.json.encode(text).decode()
