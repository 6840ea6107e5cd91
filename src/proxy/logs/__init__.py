"""The log: one line for each named event, on standard error, with fields from a closed list.

Only fields in :data:`FIELDS` are logged. UIDs are hashed, exceptions are logged without their text
unless it is ours, and lines of libraries without theirs: all of these may hold patient data.
The standard library's logging carries the lines, so there is one sink; nothing else is needed.
"""

from proxy.logs.fields import DROPPED, FIELDS, FieldKind, FieldValue, NotAllowed, hashed
from proxy.logs.lines import Level, bound, describe, log
from proxy.logs.sink import Format, JsonFormatter, Text, configure
from proxy.logs.standard_error import standard_error

__all__ = [
    "DROPPED",
    "FIELDS",
    "FieldKind",
    "FieldValue",
    "Format",
    "JsonFormatter",
    "Level",
    "NotAllowed",
    "Text",
    "bound",
    "configure",
    "describe",
    "hashed",
    "log",
    "standard_error",
]
