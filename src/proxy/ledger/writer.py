"""Group commit: operations are posted now and committed together, off the trio thread.

The contract: :meth:`Writer.post` and :meth:`Writer.call` only append. The writer takes
*everything* posted so far and commits it in one transaction, in the order it was posted.
It can only take between two checkpoints, so operations posted in one synchronous stretch are
committed together or not at all.

Reads go the same way. They see all operations posted before them, and answer only after these are
committed: a crash cannot take back an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar, TypeVarTuple, cast

import apsw
import trio

from proxy.errors import LedgerError
from proxy.ledger.database import grave, scrub, transaction, translated
from proxy.runtime import marks
from proxy.runtime.marks import Mark
from proxy.runtime.offload import Offload

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
