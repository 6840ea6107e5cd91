"""The errors of this program, in the words that the operator and ITH read.

Foreign exceptions are translated at the edge (``backend``, ``dicom``, ``ledger``); an activity
turns a :class:`ProxyError` into a fact for its machine. Anything else is a defect.
"""

from __future__ import annotations

import errno


class ProxyError(Exception):
    """Base of all foreseen errors: ``str()`` is one sentence, ``hint`` names the remedy.

    Neither holds patient data, secrets or names taken from a data set or an archive.
    """

    def __init__(self, sentence: str, *, hint: str = "") -> None:
        super().__init__(sentence)
        self.hint = hint

    @property
    def in_full(self) -> str:
        """The sentence, followed by the hint."""
        return f"{self}. {self.hint}" if self.hint else str(self)


class ConfigError(ProxyError):
    """The settings cannot be used; the program does not start."""


class SecretExposed(ConfigError):
    """The file with the proxy key can be read by users other than its owner."""


class StateDirectoryError(ProxyError):
    """The directory that holds all state cannot be made, read or written."""


class ControlFailed(ProxyError):
    """The running proxy did not carry out a command."""


class NotRunning(ControlFailed):
    """No proxy is running that could answer a command."""


class LedgerError(ProxyError):
    """The ledger cannot be opened, read or written."""


class LinkLost(ProxyError):
    """The connection to ITH ended or could not be made; it is tried again."""


class LinkRefused(ProxyError):
    """ITH refused the proxy key; trying again soon cannot help."""


class LinkEvicted(ProxyError):
    """ITH closed the connection because another program connected with the same key."""


CHECK_DISK = "Look at the disk that holds the state directory: space, permissions, health."


class BackendError(ProxyError):
    """ITH's HTTPS interface did not answer as asked; ``permanent`` if another request cannot help.

    ``retry_after`` is the wait that ITH asked for, in seconds; None if it asked for none.
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

    @classmethod
    def of_disk(cls, sentence: str, error: OSError, hint: str = CHECK_DISK) -> BackendError:
        """Return the error for an answer that the disk did not take: it may later."""
        name = errno.errorcode.get(error.errno or 0, "unknown error")
        return cls(f"{sentence} on this machine: {name}", permanent=False, hint=hint)


class ArchiveError(BackendError):
    """A downloaded archive is broken, too large, or holds no DICOM instance."""


class NotDicom(ProxyError):
    """A file is no DICOM instance; ``reason`` names its kind in a word or two."""

    def __init__(self, reason: str = "not DICOM") -> None:
        super().__init__(f"The file is no DICOM instance: {reason}")
        self.reason = reason


class DicomUnreadable(ProxyError):
    """A file is DICOM, and cannot be sent to any node; the text names what it has or lacks.

    ``sop_class_uid`` is empty if it is not known.
    """

    sop_class_uid = ""


class InstanceUnusable(ProxyError):
    """The local file of an instance cannot be sent: the fault is ours, not the node's.

    ``code`` is ``gone``, ``short`` or ``damaged`` if the object is lost, and ``read`` if it may be
    readable later.
    """

    def __init__(self, code: str, sentence: str, *, hint: str = "") -> None:
        super().__init__(sentence, hint=hint)
        self.code = code


class NotConverted(ProxyError):
    """An instance cannot be converted to the transfer syntax that the node accepts.

    ``code`` is ``large``, ``encoding`` (the stored encoding is broken), or ``copy`` (our disk).
    """

    def __init__(self, code: str, sentence: str, *, hint: str = "") -> None:
        super().__init__(sentence, hint=hint)
        self.code = code


class NodeError(ProxyError):
    """A DICOM node did not carry out a request; the subclasses say at which layer.

    ``found`` says what answers in the node's place. It is for the log and the status of the proxy
    alone: ITH must not learn which host of the site serves what.
    """

    found: str = ""

    @property
    def on_site(self) -> str:
        """The sentence with what was found, for the site."""
        return f"{self}: {self.found}" if self.found else str(self)


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

    ``code`` is ``abort``, ``closed``, ``released``, ``stalled``, ``timeout``, ``protocol``, ``pdu``
    (the node takes none that holds a message), ``tls``, ``stranger`` or ``local`` (we could not
    read our own file in the middle of it); ``source`` and ``reason`` are A-ABORT's
    (PS3.8 Table 9-26), None for the other codes.
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
    """The error that came first: within a group, the others only followed from it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
