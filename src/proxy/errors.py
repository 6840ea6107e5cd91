"""What can go wrong, as the operator and ITH are told it.

Foreign exceptions are translated at the edge (``backend``, ``dicom``, ``ledger``); an activity
turns a :class:`ProxyError` into a fact for its machine. Anything else is a defect.
"""

from __future__ import annotations


class ProxyError(Exception):
    """Base of all errors we foresee: ``str()`` is one sentence, ``hint`` what to do about it.

    Neither holds patient data, secrets or names taken from a data set or an archive.
    """

    def __init__(self, sentence: str, *, hint: str = "") -> None:
        super().__init__(sentence)
        self.hint = hint

    @property
    def in_full(self) -> str:
        """The sentence, and what to do."""
        return f"{self}. {self.hint}" if self.hint else str(self)


class ConfigError(ProxyError):
    """The settings cannot be used; the program does not start."""


class SecretExposed(ConfigError):
    """The file with the proxy key can be read by others than its owner."""


class StateDirectoryError(ProxyError):
    """The directory that holds all state cannot be made, read or written."""


class ControlFailed(ProxyError):
    """The running proxy did not do what a command asked of it."""


class NotRunning(ControlFailed):
    """No proxy runs that a command could ask."""


class LedgerError(ProxyError):
    """The ledger cannot be opened, read or written."""


class LinkLost(ProxyError):
    """The connection to ITH ended or could not be made; it is tried again."""


class LinkRefused(ProxyError):
    """ITH refused the proxy key; trying again soon cannot help."""


class LinkEvicted(ProxyError):
    """ITH closed the connection because another program connected with the same key."""


class BackendError(ProxyError):
    """ITH's HTTPS interface did not give what was asked; ``permanent`` if it never will.

    ``retry_after`` is how many seconds ITH asked us to wait, None where it said nothing.
    """

    def __init__(
        self,
        sentence: str,
        *,
        permanent: bool,
        hint: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(sentence, hint=hint)
        self.permanent = permanent
        self.retry_after = retry_after


class ArchiveError(BackendError):
    """A downloaded archive is broken, too large, or holds no DICOM instance."""


class NotDicom(ProxyError):
    """A file is no DICOM instance; ``reason`` says in a word or two what it is instead."""

    def __init__(self, reason: str = "not DICOM") -> None:
        super().__init__(f"The file is no DICOM instance: {reason}")
        self.reason = reason


class DicomUnreadable(ProxyError):
    """A file is DICOM, but damaged or without what identifies an instance."""


class InstanceUnusable(ProxyError):
    """The local file of an instance cannot be sent: the fault is ours, not the node's.

    ``code`` is ``gone``, ``short`` or ``damaged``: the object is lost; or ``read``: it may be read
    later.
    """

    def __init__(self, code: str, sentence: str, *, hint: str = "") -> None:
        super().__init__(sentence, hint=hint)
        self.code = code


class NotConverted(ProxyError):
    """An instance cannot be had in the transfer syntax that the node takes.

    ``code`` is ``large``, ``encoding`` (its own is broken), or ``copy`` (our disk).
    """

    def __init__(self, code: str, sentence: str, *, hint: str = "") -> None:
        super().__init__(sentence, hint=hint)
        self.code = code


class NodeError(ProxyError):
    """A DICOM node did not do what it was asked; the subclasses say at which layer."""


class NodeUnreachable(NodeError):
    """No TCP connection to the node; ``code`` is an errno name, ``timeout`` or ``dns``."""

    def __init__(self, code: str, sentence: str, *, hint: str = "") -> None:
        super().__init__(sentence, hint=hint)
        self.code = code


class AssociationRejected(NodeError):
    """The node answered A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""

    def __init__(
        self, result: int, source: int, reason: int, sentence: str, *, hint: str = ""
    ) -> None:
        super().__init__(sentence, hint=hint)
        self.result = result
        self.source = source
        self.reason = reason


class AssociationLost(NodeError):
    """An established association ended early.

    ``code`` is ``abort``, ``closed``, ``released``, ``stalled``, ``timeout``, ``protocol``,
    ``tls`` or ``local`` (we could not read our own file in the middle of it);
    ``source`` and ``reason`` are A-ABORT's (PS3.8 Table 9-26), None for the other codes.
    """

    def __init__(
        self,
        code: str,
        sentence: str,
        *,
        source: int | None = None,
        reason: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(sentence, hint=hint)
        self.code = code
        self.source = source
        self.reason = reason


def first(error: BaseException) -> BaseException:
    """The error that began it: the first of a group, which the others only followed."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
