"""Download one complete body to the disk: resume it after an interruption, or start over.

A resumption requests the rest of the version that was begun (Range with If-Range, RFC 9110 13.1.5
and 14.2), so parts of two versions never mix. The body must go on moving; the wait for its first
byte has a limit of its own. ``rest.py`` is the caller.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import httpx2
import msgspec
import trio

from proxy.backend.content import HEAD_BYTES, MESSAGES, kind_of
from proxy.errors import BackendError
from proxy.runtime import marks
from proxy.runtime.marks import Mark
from proxy.runtime.offload import Offload
from proxy.runtime.rng import Random

ASK_LATER = "This is tried again; if it keeps failing, ask the operators of ITH."
ASK_NETWORK = "Check this machine's network, DNS, firewall and HTTPS proxy on the way to ITH."
ASK_CERTIFICATE = (
    "If the network inspects TLS, put its certificate into the system's store or ith.ca_file."
)

Responder: TypeAlias = "Callable[[dict[str, str]], AbstractAsyncContextManager[httpx2.Response]]"
"""Sends a request with these additional headers; yields the answer after all redirects."""

OnReceived: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes received and the bytes expected; the latter is None if unknown."""

FLUSH_BYTES = 1024 * 1024
FLUSH_SECONDS = 1.0
"""The bytes or seconds after which the body is written and progress is reported."""

MOVING_BYTES = 16 * 1024
"""A body that brings fewer bytes within its limit counts as stalled."""

LONGEST_WAIT_S = 30.0

CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class Interrupted(BackendError):
    """An attempt ended in a way that another one may cure."""

    def __init__(
        self, sentence: str, *, hint: str = ASK_LATER, retry_after: float | None = None
    ) -> None:
        super().__init__(sentence, permanent=False, hint=hint, retry_after=retry_after)


class FetchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a fetch; times in seconds.

    ``attempts`` is the number of attempts in a row that may fail without getting further by a MiB;
    ``backoff_seconds`` is the first wait between them, doubled each time.
    """

    first_byte_seconds: float = 1200.0
    stall_seconds: float = 60.0
    attempts: int = 5
    backoff_seconds: float = 1.0
    retry_after_seconds: float = 120.0


class Fetch:
    """One body on its way into ``part``; ``etag`` names its version once it has begun."""

    def __init__(
        self,
        answer: Responder,
        refuse: Callable[[httpx2.Response], BackendError],
        part: Part,
        limits: FetchLimits,
        *,
        offload: Offload,
        rng: Random,
        on_progress: OnReceived,
    ) -> None:
        self.etag: str | None = None
        self._answer = answer
        self._refuse = refuse
        self._part = part
        self._limits = limits
        self._offload = offload
        self._rng = rng
        self._on_progress = on_progress
        self._total: int | None = None
        self._ranges = False
        self._furthest = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    async def run(self, known_etag: str | None) -> bool:
        """Fetch the complete body; False if ITH still has the version ``known_etag``.

        Raises :class:`BackendError` once an immediate further attempt would be no use.
        """
        fruitless = 0
        while True:
            before = self._furthest
            try:
                return await self._attempt(known_etag)
            except Interrupted as caught:
                error = caught
            await self._keep_pending()
            fruitless = 0 if self._furthest - before >= FLUSH_BYTES else fruitless + 1
            wait = self._wait(error, fruitless)
            if wait is None:
                raise error
            await trio.sleep(wait)

    def _wait(self, error: Interrupted, fruitless: int) -> float | None:
        """Return the seconds until the next attempt; None if the caller is to decide on another."""
        if fruitless >= self._limits.attempts:
            return None
        if error.retry_after is not None:
            in_bounds = error.retry_after <= self._limits.retry_after_seconds
            return error.retry_after if in_bounds else None
        if not self._furthest:
            return None
        longest = min(LONGEST_WAIT_S, self._limits.backoff_seconds * 2.0**fruitless)
        return longest / 2 * (1 + self._rng.random())

    async def _attempt(self, known_etag: str | None) -> bool:
        headers: dict[str, str] = {}
        if self._ranges and self.etag is not None and self._part.size > 0:
            headers = {"Range": f"bytes={self._part.size}-", "If-Range": self.etag}
        elif known_etag is not None:
            headers = {"If-None-Match": known_etag}
        patience = trio.current_time() + self._limits.first_byte_seconds
        with trio.CancelScope(deadline=patience) as clock, translated():
            async with self._answer(headers) as response:
                if response.status_code == 304 and "If-None-Match" in headers:
                    return False
                await self._accept(response, resuming="Range" in headers)
                async with reading(response.aiter_raw()) as blocks:
                    await self._receive(blocks, clock)
                return True
        raise Interrupted("ITH sent nothing for too long")

    async def _accept(self, response: httpx2.Response, *, resuming: bool) -> None:
        """Prepare for the body that follows, or raise."""
        if response.status_code == 200:
            await self._begin(response)
        elif response.status_code == 206 and resuming:
            if not self._continues(response):
                await self._forget()
                raise Interrupted("The archive changed while it was downloaded")
        elif response.status_code == 416 and resuming:
            await self._forget()
            raise Interrupted("ITH has no more of the archive than was downloaded")
        else:
            raise self._refuse(response)
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if coding not in {"identity", "gzip", "x-gzip"}:  # the latter two are read as tar.gz
            raise Interrupted("ITH sent the archive in a coding that was not asked for")
        if self._total is not None:
            await self._offload(self._part.expect, self._total)

    async def _begin(self, response: httpx2.Response) -> None:
        """Take the version of this answer, from its first byte."""
        await self._forget()
        self.etag = response.headers.get("ETag")
        strong = self.etag is not None and self.etag.startswith('"')
        self._ranges = strong and response.headers.get("Accept-Ranges", "bytes") != "none"
        length = response.headers.get("Content-Length", "")
        self._total = int(length) if length.isdecimal() else None

    async def _forget(self) -> None:
        await self._offload(self._part.empty)
        self.etag, self._ranges, self._total = None, False, None

    def _continues(self, response: httpx2.Response) -> bool:
        """Whether a 206 brings exactly the rest of the version begun."""
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or response.headers.get("ETag", self.etag) != self.etag:
            return False
        first, last = int(found[1]), int(found[2])
        total = last + 1 if found[3] == "*" else int(found[3])
        if first != self._part.size or last + 1 != total or self._total not in {None, total}:
            return False
        self._total = total
        return True

    async def _receive(self, blocks: AsyncIterator[bytes], clock: trio.CancelScope) -> None:
        """Write the body; ``clock`` cancels the reading when the body stops moving."""
        moved = MOVING_BYTES  # the first block starts the limit of a stall
        flushed = trio.current_time()
        async for block in blocks:
            self._pending.append(block)
            self._pending_bytes += len(block)
            moved += len(block)
            now = trio.current_time()
            if moved >= MOVING_BYTES:
                clock.deadline = now + self._limits.stall_seconds
                moved = 0
            if self._pending_bytes >= FLUSH_BYTES or (
                now >= flushed + FLUSH_SECONDS and self._recognisable
            ):
                clock.deadline = math.inf  # a slow disk is no stalled body
                await self._flush()
                flushed = trio.current_time()
                clock.deadline = flushed + self._limits.stall_seconds
        clock.deadline = math.inf
        await self._flush()
        if self._total is not None and self._part.size != self._total:
            raise Interrupted("ITH sent less than it announced")
        if not self._part.size:
            raise Interrupted("ITH sent an empty archive")

    @property
    def _recognisable(self) -> bool:
        """Whether enough bytes have arrived to distinguish an archive from an error page."""
        return self._part.size > 0 or self._pending_bytes >= HEAD_BYTES

    async def _flush(self) -> None:
        """Write the pending bytes; at the start of the body, check its kind."""
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if self._part.size == 0:
            kind = kind_of(b"".join(pending)[:HEAD_BYTES])
            if kind in MESSAGES:
                raise BackendError(
                    f"ITH, or a gateway before it, sent {kind.value} in place of an archive",
                    permanent=False,
                    hint="Check that no gateway of the network answers for ITH; then ask ITH.",
                )
        await self._offload(self._part.append, pending)
        self._furthest = max(self._furthest, self._part.size)
        self._on_progress(self._part.size, self._total)

    async def _keep_pending(self) -> None:
        """Write the bytes received before an interruption, so that they are not fetched again."""
        if self._pending and self._recognisable:
            await self._flush()
        self._pending, self._pending_bytes = [], 0


@contextmanager
def translated() -> Iterator[None]:
    """Turn the HTTP library's errors into :class:`Interrupted`, without their texts."""
    try:
        yield
    except httpx2.ConnectTimeout:
        raise Interrupted("ITH cannot be reached: no answer", hint=ASK_NETWORK) from None
    except httpx2.ConnectError as error:
        if _untrusted(error):
            sentence = "The certificate of ITH is not trusted"
            raise Interrupted(sentence, hint=ASK_CERTIFICATE) from None
        raise Interrupted("ITH cannot be reached", hint=ASK_NETWORK) from None
    except httpx2.ProxyError:
        raise Interrupted("The HTTPS proxy refused the connection", hint=ASK_NETWORK) from None
    except (httpx2.TransportError, httpx2.DecodingError):
        raise Interrupted("The connection to ITH broke") from None


def _untrusted(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


class Part:
    """An incomplete file; ``size`` is the number of bytes written."""

    def __init__(self, target: Path, *, max_bytes: int | None, reserve_bytes: int) -> None:
        self.size = 0
        self._target = target
        self._path = target.with_name(target.name + ".part")
        self._max_bytes = max_bytes
        self._reserve_bytes = reserve_bytes
        self._file = -1

    def open(self) -> None:
        """Create the file; the leftover of a killed run is removed."""
        self._path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(self._path, flags, 0o600)

    def empty(self) -> None:
        """Discard the bytes written so far."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self.size = 0

    def expect(self, size: int) -> None:
        """Raise :class:`BackendError` unless ``size`` bytes in all are allowed and fit the disk."""
        if self._max_bytes is not None and size > self._max_bytes:
            raise BackendError(
                f"The archive is larger than {self._max_bytes} bytes",
                permanent=True,
                hint="If it is to be dispatched all the same, raise limits.archive_bytes.",
            )
        free = shutil.disk_usage(self._path.parent).free
        if free - (size - self.size) < self._reserve_bytes:
            raise BackendError(
                "The disk is too full for the archive",
                permanent=False,
                hint="Free disk space on this machine, or lower limits.reserve_gb.",
            )

    def append(self, blocks: Sequence[bytes]) -> None:
        """Write ``blocks`` at the end; raises as :meth:`expect` does."""
        for block in blocks:
            view = memoryview(block)
            while view:
                marks.reached(Mark.BLOCK_WRITTEN)
                written = os.write(self._file, view)
                self.size += written
                view = view[written:]
        self.expect(self.size)

    def finish(self) -> None:
        """Give the complete file its name."""
        self._path.replace(self._target)
        self._close()
        marks.reached(Mark.DOWNLOAD_DONE)

    def discard(self) -> None:
        """Remove the file, unless it was never opened or is finished."""
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, -1
        os.close(file)


@asynccontextmanager
async def reading(blocks: AsyncGenerator[bytes, None]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Yield ``blocks`` and close them at the end, even if they were not read to the end.

    The HTTP library nests generators and closes only the outermost one; the inner ones would be
    left to the garbage collector. A cancellation ends them all, from the innermost outwards.
    """
    try:
        yield blocks
    finally:
        with trio.move_on_after(0, shield=True), suppress(httpx2.TransportError):
            async for _ in blocks:
                pass  # blocks that have already arrived come without a checkpoint
            await blocks.aclose()
