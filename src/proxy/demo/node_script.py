"""The behaviour of an embedded node, and its counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

VERIFICATION = "1.2.840.10008.1.1"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
SUCCESS = 0x0000
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


@dataclass(frozen=True)
class Arrival:
    """One C-STORE request as it arrived; ``ordinal`` counts from 1 over the node's life.

    ``sha256`` (hex) and ``size`` are of the data set's bytes, without file meta information;
    ``at`` is in seconds of ``time.monotonic``.
    """

    ordinal: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    size: int
    calling_ae_title: str
    at: float


def accept(_: Arrival) -> int:
    """Answer success."""
    return SUCCESS


@dataclass
class NodeScript:
    """The behaviour of a node; every field may be changed while it runs.

    ``rejection`` is result, source and reason of the A-ASSOCIATE-RJ (PS3.8 Table 9-21), sent to
    the next ``reject_next`` associations. ``answer`` gives the status of a C-STORE response, or
    a data set with the status and, say, an Error Comment (PS3.7 Annex C); ``delay_s`` passes
    before it. ``abort_at``, ``drop_at`` and ``stall_at`` name the arrival at which the node
    sends A-ABORT, closes the socket, or never answers; with ``stores_first`` it stores the
    instance before that.

    ``echo_status`` is its answer to C-ECHO, after ``echo_delay_s``.

    With ``finds`` it answers C-FIND at the level IMAGE for an instance it holds, and takes
    ``find_delay_s`` for an answer.
    """

    reject_next: int = 0
    rejection: tuple[int, int, int] = LOCAL_LIMIT_EXCEEDED
    answer: Callable[[Arrival], int | Dataset] = accept
    echo_status: int = SUCCESS
    echo_delay_s: float = 0.0
    delay_s: float = 0.0
    abort_at: int | None = None
    drop_at: int | None = None
    stall_at: int | None = None
    stores_first: bool = False
    finds: bool = False
    find_delay_s: float = 0.0


@dataclass
class Tally:
    """The counts of a node so far, kept over restarts."""

    associations: int = 0
    rejections: int = 0
    echoes: int = 0
    finds: int = 0
    bytes: int = 0
    calling_ae_titles: set[str] = field(default_factory=set)
