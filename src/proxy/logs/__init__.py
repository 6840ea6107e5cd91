"""The log: one line for each named event, on standard error, with fields from a closed list.

What is not in :data:`FIELDS` cannot be logged, UIDs only hashed, exceptions without their text
unless it is ours, and lines of libraries without theirs: patient data travels in all of these.
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
