"""The exit codes of the program and their meaning: those of sysexits.h if one fits."""

from __future__ import annotations

from enum import IntEnum
from typing import Self

from proxy.errors import (
    BackendError,
    ConfigError,
    ControlFailed,
    LedgerError,
    LinkEvicted,
    LinkLost,
    LinkRefused,
    NodeError,
    NotRunning,
    ProxyError,
    SecretExposed,
    StateDirectoryError,
)


class Exit(IntEnum):
    """An exit code, and the sentence that explains it."""

    sentence: str

    def __new__(cls, code: int, sentence: str) -> Self:
        """Make a member that is its code."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member

    OK = 0, "Done, or stopped on request."
    NEGATIVE = 1, "The answer is no, or something needs attention."
    USAGE = 2, "The command line is wrong."
    NOT_RUNNING = 3, "No proxy is running that could answer."
    UNAVAILABLE = 69, "ITH, a node or the running proxy does not carry out a request."
    DEFECT = 70, "A defect of this program."
    STATE_DIRECTORY = 73, "The state directory cannot be made or written."
    DISK = 74, "The disk or the ledger fails."
    REFUSED = 77, "ITH refuses the proxy key, or other users can read its file."
    CONFIG = 78, "The settings cannot be used."
    INTERRUPTED = 130, "Stopped by Ctrl-C before the end."


OF_ERROR: dict[type[ProxyError], Exit] = {
    SecretExposed: Exit.REFUSED,
    NotRunning: Exit.NOT_RUNNING,
    ControlFailed: Exit.UNAVAILABLE,
    ConfigError: Exit.CONFIG,
    StateDirectoryError: Exit.STATE_DIRECTORY,
    LedgerError: Exit.DISK,
    LinkRefused: Exit.REFUSED,
    LinkEvicted: Exit.UNAVAILABLE,
    LinkLost: Exit.UNAVAILABLE,
    BackendError: Exit.UNAVAILABLE,
    NodeError: Exit.UNAVAILABLE,
}


def exit_of(error: ProxyError) -> Exit:
    """Return the code for an unhandled error, by the nearest of its types."""
    kinds = (kind for kind in type(error).__mro__ if kind in OF_ERROR)
    return next((OF_ERROR[kind] for kind in kinds), Exit.NEGATIVE)
