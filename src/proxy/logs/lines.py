"""The functions that write to the log: :func:`log` and :func:`bound`."""

from __future__ import annotations

import errno
import logging
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeAlias

from proxy.errors import NodeError, ProxyError
from proxy.logs.fields import FieldValue, Line, put, refuse

Level: TypeAlias = Literal["debug", "info", "warning", "error"]

EVENT = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
FRAMES = 12

LOGGER = logging.getLogger("proxy.logs")
_context: ContextVar[dict[str, FieldValue]] = ContextVar("log_fields")


def log(
    event: str,
    /,
    *,
    level: Level = "info",
    error: BaseException | None = None,
    **fields: FieldValue,
) -> None:
    """Write one line about ``event`` (``noun.happened``); a field of None is left out."""
    number = logging.getLevelNamesMapping()[level.upper()]
    if LOGGER.isEnabledFor(number):
        line: Line = {}
        if not EVENT.fullmatch(event):
            refuse("event", "is not of the form noun.happened")
            event = "unnamed"
        for name, value in (_context.get({}) | fields).items():
            if value is not None:
                put(line, name, value)
        if error is not None:
            line |= describe(error)
        LOGGER.log(number, event, extra={"line": line})


@contextmanager
def bound(**fields: FieldValue) -> Iterator[None]:
    """Add fields to every line written inside, in child tasks too."""
    token = _context.set(_context.get({}) | fields)
    try:
        yield
    finally:
        _context.reset(token)


def describe(error: BaseException) -> Line:
    """Return an exception's type and place; its text only if it is one of our own sentences."""
    names = [type(each).__name__ for each in _causes(error)]
    line: Line = {"error": " < ".join(names)}
    if isinstance(error, ProxyError):
        problem = error.on_site if isinstance(error, NodeError) else str(error)
        return line | {"problem": problem} | ({"hint": error.hint} if error.hint else {})
    if isinstance(error, OSError) and error.errno:
        line["code"] = errno.errorcode.get(error.errno, str(error.errno))
    if isinstance(error, BaseExceptionGroup):
        line["errors"] = [_in_short(describe(each)) for each in error.exceptions]
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    line["trace"] = [f"{place(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]
    return line


def _in_short(line: Line) -> str:
    return ", ".join(str(value) for value in line.values() if value)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def place(filename: str) -> str:
    """Return a source file's path from its package on, which shows nothing of this machine."""
    return re.sub(r"^.*/(?:site-packages|src|lib/python[\d.]+)/", "", filename)
