"""The SQLite file and its one writer: opening, schema, check after a crash, group commit.

All that blocks goes through the offload seam, and never from two threads at once.

Group commit: operations are posted now and committed together, off the trio thread.
:meth:`Writer.post` and :meth:`Writer.call` only append. The writer takes *everything* posted so
far and commits it in one transaction, in the order it was posted. It can only take between two
checkpoints, so operations posted in one synchronous stretch are committed together or not at all.

Reads go the same way. They see all operations posted before them, and answer only after these are
committed: a crash cannot take back an answer.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Generic, TypeVar, TypeVarTuple, cast

import apsw
import trio

from proxy.errors import LedgerError
from proxy.runtime import marks
from proxy.runtime.marks import Mark
from proxy.runtime.offload import Offload

APPLICATION_ID = 0x49544850  # "ITHP"
MIGRATIONS = ("schema.sql", "schema_2.sql", "schema_3.sql", "schema_4.sql", "schema_5.sql")
"""The n-th script leads from schema n to schema n + 1; schema 0 is the empty file."""

PRAGMAS = (
    # No other process can open the file beside us, and no shared memory file is needed.
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    # In WAL, NORMAL loses commits at a power cut; FULL syncs the log at every commit.
    "synchronous = FULL",
    "foreign_keys = ON",
    # Deleted rows hold patient ids: overwrite them.
    "secure_delete = ON",
    "temp_store = MEMORY",
    f"journal_size_limit = {16 << 20}",
)

VACUUM_BYTES = 32 << 20
"""A larger file is not rewritten at once: that takes a third of a second for as many bytes."""

DAMAGED = LedgerError(
    "the ledger is damaged",
    hint="Stop the service, keep a copy of the state directory for analysis, remove ledger.db* "
    "from it and start again: unfinished dispatches must then be repeated in ITH.",
)

_SENTENCES: tuple[tuple[type[apsw.Error], LedgerError], ...] = (
    (apsw.CorruptError, DAMAGED),
    (apsw.NotADBError, DAMAGED),
    (
        apsw.FullError,
        LedgerError(
            "the disk is full: the ledger cannot be written",
            hint="Free space on the file system of the state directory and start again; "
            "nothing that was accepted is lost.",
        ),
    ),
    (
        apsw.BusyError,
        LedgerError(
            "the ledger is in use by another process",
            hint="Is another ith-proxy running with the same --state-dir? Stop it first.",
        ),
    ),
    (
        apsw.IOError,
        LedgerError(
            "the disk failed while the ledger was read or written",
            hint="Check the disk and the system's log, then start again.",
        ),
    ),
)
_OTHERWISE = "Check that the service's user may read and write the state directory."


def grave(error: BaseException) -> bool:
    """Whether the file or the disk is at fault, so that nothing can be written any more."""
    ours = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError, apsw.BindingsError)
    return isinstance(error, apsw.Error) and not isinstance(error, ours)


@contextmanager
def translated() -> Iterator[None]:
    """Turn SQLite's and the operating system's errors into LedgerError."""
    try:
        yield
    except apsw.Error as error:
        for kind, said in _SENTENCES:
            if isinstance(error, kind):
                raise LedgerError(str(said), hint=said.hint) from error
        raise LedgerError(f"the ledger failed ({type(error).__name__})", hint=_OTHERWISE) from error
    except OSError as error:
        raise LedgerError(
            f"the ledger cannot be opened ({error.strerror})", hint=_OTHERWISE
        ) from error


@contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """Commit all statements of the block, or none of them.

    After a full disk or an I/O error SQLite has rolled back by itself, and a second attempt
    would only hide the first error; apsw's own context manager does that.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(apsw.Error):
                connection.execute("ROLLBACK")
        raise


def open_database(path: Path) -> tuple[apsw.Connection, bool]:
    """Open or create the file at the present schema; also whether it was left by a crash.

    Raises LedgerError if it is damaged, foreign, newer than this program or in use.
    """
    with translated():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(path)
        # An orderly close removes the log, so one with content was left by a crash.
        log = path.with_name(path.name + "-wal")
        was_unclean = log.exists() and log.stat().st_size > 0
        connection = apsw.Connection(str(path))
        try:
            _prepare(connection, was_unclean=was_unclean)
        except BaseException:
            connection.close()
            raise
        return connection, was_unclean


def _make_private(path: Path) -> None:
    """Create the file for its owner alone, or make an existing one so."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # It is not opened here: closing any descriptor drops this process's locks on the file.
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file") from None
        path.chmod(0o600)


def _prepare(connection: apsw.Connection, *, was_unclean: bool) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    version = _check_origin(connection)
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    if was_unclean:
        if connection.pragma("integrity_check", 1) != "ok":
            raise LedgerError(str(DAMAGED), hint=DAMAGED.hint)
        empty_log(connection)
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        sql = resources.files("proxy.ledger").joinpath(script).read_text(encoding="utf-8")
        with transaction(connection):
            connection.execute(sql)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
    connection.execute("CREATE TEMP TABLE chosen (id INTEGER PRIMARY KEY)")


def _check_origin(connection: apsw.Connection) -> int:
    """Return the schema's number, or raise before anything in the file is changed."""
    version = connection.pragma("user_version")
    is_empty = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
    if not is_empty and connection.pragma("application_id") != APPLICATION_ID:
        raise LedgerError(
            "the file named ledger.db is not a ledger of ith-proxy",
            hint="Give --state-dir a directory of its own.",
        )
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"the ledger has schema {version}, this program knows up to {len(MIGRATIONS)}",
            hint="A newer ith-proxy wrote it: install that version again, or start this one "
            "with another --state-dir.",
        )
    return int(version)


def scrub(connection: apsw.Connection, most: float) -> None:
    """Leave no copy of deleted rows in the file or its log.

    ``secure_delete`` overwrites a deleted row, but not what SQLite leaves in the gaps of pages
    when it moves rows between them: only a new file is without that. A file of more than ``most``
    bytes is not rewritten, because nothing can be committed meanwhile, nor one for which the disk
    has no room. The log still holds pages from before, and is cut to nothing in any case.
    """
    if connection.pragma("page_count") * connection.pragma("page_size") <= most:
        with suppress(apsw.FullError, apsw.IOError):
            connection.execute("VACUUM")
    empty_log(connection)


def empty_log(connection: apsw.Connection) -> None:
    """Fold the log into the file and cut it to nothing."""
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def close_database(connection: apsw.Connection) -> None:
    """Fold the log into the file and close it."""
    with translated():
        connection.close()


def last_written_at(path: Path) -> float:
    """The time of the last write to the file or its log, in UTC seconds; ask before opening it."""
    beside = (path, path.with_name(path.name + "-wal"))
    return max((file.stat().st_mtime for file in beside if file.exists()), default=0.0)


T = TypeVar("T")
Args = TypeVarTuple("Args")

LINGER_S = 0.01
"""Seconds that posted operations wait for more of them, unless a task waits for a result."""
LAST_COMMIT_S = 30.0
"""Seconds that the last commit may take at the end, even if the program was cancelled."""


class _Posted:
    """One operation; ``done`` exists if a task waits for it."""

    __slots__ = ("args", "done", "error", "function", "result")

    def __init__(
        self, function: Callable[..., object], args: tuple[object, ...], done: trio.Event | None
    ) -> None:
        self.function = function
        self.args = args
        self.done = done
        self.result: object = None
        self.error: Exception | None = None

    def fail(self, error: LedgerError) -> None:
        """Raise an exception of its own in the waiting task: each has its own traceback."""
        self.error = LedgerError(str(error), hint=error.hint)
        if self.done is not None:
            self.done.set()


class PendingResult(Generic[T]):
    """The result of an operation: any task may await it at any time, or none."""

    def __init__(self, posted: _Posted, done: trio.Event) -> None:
        self._posted = posted
        self._done = done

    def __await__(self) -> Generator[Any, None, T]:
        """Wait until it is durable; raises the error of the operation."""
        yield from self._done.wait().__await__()
        if self._posted.error:
            raise self._posted.error
        return cast("T", self._posted.result)


def _commit(
    connection: apsw.Connection, batch: Sequence[_Posted], *, scrubbed: float | None
) -> None:
    """Perform a batch in one transaction; then scrub a file up to ``scrubbed`` bytes. Blocks."""
    with translated():
        marks.reached(Mark.COMMIT_BEGUN)
        with transaction(connection):
            for posted in batch:
                if posted.done is None:
                    posted.function(connection, *posted.args)
                else:
                    _perform_alone(connection, posted)
        marks.reached(Mark.COMMIT_DONE)
        if scrubbed is not None:
            scrub(connection, scrubbed)


def _perform_alone(connection: apsw.Connection, posted: _Posted) -> None:
    """Perform one operation; its own fault undoes it alone, and is raised in its caller."""
    connection.execute("SAVEPOINT alone")
    try:
        posted.result = posted.function(connection, *posted.args)
    except Exception as error:
        if grave(error):
            raise
        posted.error = error
        connection.execute("ROLLBACK TO alone")
    connection.execute("RELEASE alone")


class Writer:
    """The one task that touches the connection."""

    def __init__(self, connection: apsw.Connection, offload: Offload) -> None:
        self._connection = connection
        self._offload = offload
        self._queue: list[_Posted] = []
        self._batch: list[_Posted] = []
        self._wake = trio.Event()
        self._hurry = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._scrub: float | None = None
        self._closing = False
        self._ended = False
        self._failure: LedgerError | None = None

    def post(self, function: Callable[[apsw.Connection, *Args], object], *args: *Args) -> None:
        """Have ``function`` performed; return at once.

        After a failure nothing is performed any more, silently: the error is raised by
        :meth:`Ledger.open` and in every task that waits.
        """
        self._append(_Posted(function, args, None))

    async def call(self, function: Callable[[apsw.Connection, *Args], T], *args: *Args) -> T:
        """Return the result of ``function``, once it and all before it are durable.

        If the caller is cancelled, the operation is performed all the same.
        """
        return await self.begin(function, *args)

    def begin(
        self,
        function: Callable[[apsw.Connection, *Args], T],
        *args: *Args,
        scrub: float | None = None,
    ) -> PendingResult[T]:
        """As :meth:`call`, but ``function`` takes its place among all posted operations now.

        With ``scrub``, no copy of deleted rows is left at the answer: in the file up to so many
        bytes, and in its log (:func:`proxy.ledger.database.scrub`).
        """
        if scrub is not None:
            self._scrub = max(scrub, self._scrub or 0.0)
        done = trio.Event()
        posted = _Posted(function, args, done)
        self._append(posted)
        self._hurry.set()
        return PendingResult(posted, done)

    async def settled(self) -> None:
        """Wait until everything posted so far is durable."""
        if self._queue or self._batch or self._failure:
            await self.call(lambda _: None)
        else:
            await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Let the writer commit what is posted, and end."""
        self._closing = True
        self._scope.deadline = trio.current_time() + LAST_COMMIT_S
        self._wake.set()
        self._hurry.set()

    async def run(self) -> None:
        """Commit until closed; raises LedgerError when the file cannot be written.

        Cancelling the program does not cancel this task, only :meth:`close` ends it: operations
        posted by the program's clean-up are committed as well.
        """
        try:
            await self._commit_until_closed()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._ended = True

    async def _commit_until_closed(self) -> None:
        with self._scope:
            while self._queue or not self._closing:
                await self._wake.wait()
                with trio.move_on_after(LINGER_S):
                    await self._hurry.wait()
                await self._commit_all()
        if self._scope.cancelled_caught:
            raise LedgerError("the last commit took too long", hint="Check the disk.")

    async def _commit_all(self) -> None:
        self._batch, self._queue = self._queue, []
        if not self._closing:
            self._wake, self._hurry = trio.Event(), trio.Event()
        scrubbed, self._scrub = self._scrub, None
        await self._offload(partial(_commit, self._connection, self._batch, scrubbed=scrubbed))
        batch, self._batch = self._batch, []
        for posted in batch:
            if posted.done is not None:
                posted.done.set()

    def _append(self, posted: _Posted) -> None:
        if self._failure:
            posted.fail(self._failure)
        elif self._ended:
            raise trio.ClosedResourceError
        else:
            self._queue.append(posted)
            self._wake.set()

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, LedgerError):
            error = LedgerError(f"the ledger stopped ({type(error).__name__})")
        self._failure = error
        for posted in (*self._batch, *self._queue):
            posted.fail(error)
