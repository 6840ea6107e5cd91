"""ITH's HTTPS interface: this proxy's configuration, and the archives of dispatched entities.

It speaks HTTP/1.1 without content coding. It follows redirects itself, and never sends the proxy
key to another origin. Errors are raised as :class:`BackendError`; the caller decides whether to
try again later. ``archive.py`` unpacks the archives.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import httpx2
import msgspec
import trio

from proxy import __version__
from proxy.backend.addresses import Addresses
from proxy.backend.fetch import (
    ASK_LATER,
    Fetch,
    FetchLimits,
    Interrupted,
    OnReceived,
    Part,
    reading,
    translated,
)
from proxy.backend.refusals import refusal
from proxy.backend.trust import system_trust
from proxy.errors import BackendError, ConfigError
from proxy.model import Entity
from proxy.runtime.clock import Clock
from proxy.runtime.offload import Offload
from proxy.runtime.rng import Random

MAX_REDIRECTS = 3
CLOSE_SECONDS = 2
MAX_CONFIGURATION_BYTES = 16 * 1024 * 1024

REDIRECTS = frozenset(
    {
        HTTPStatus.MOVED_PERMANENTLY,
        HTTPStatus.FOUND,
        HTTPStatus.SEE_OTHER,
        HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
    }
)


class RestSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The address of ITH, and the form and limits of requests to it.

    ``url`` is ITH's base address; ``download_hosts`` are other hosts it may redirect a download
    to, exact or as ``*.example.org``. With ``max_bytes`` of None the limit of an archive is the
    disk's free space above ``reserve_bytes``.
    """

    url: str
    download_hosts: tuple[str, ...] = ()
    allow_insecure: bool = False
    archive_format: Literal["zip", "tar.gz"] = "zip"
    compression_level: int = 0
    connect_seconds: float = 30.0
    answer_seconds: float = 60.0
    fetch: FetchLimits = FetchLimits()
    max_bytes: int | None = None
    reserve_bytes: int = 1024**3


class Download(msgspec.Struct, frozen=True):
    """A complete archive on disk; ``etag`` is its version at ITH, None if ITH gave none."""

    path: Path
    size: int
    etag: str | None


class NotModified(msgspec.Struct, frozen=True):
    """ITH still has the version that the caller named by its ``etag``."""

    etag: str


class Backend:
    """A client of ITH; an asynchronous context manager that closes its connections."""

    def __init__(
        self,
        settings: RestSettings,
        key: str,
        offload: Offload,
        *,
        clock: Clock,
        rng: Random,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare a client that sends ``key`` to ITH; ``context`` of None trusts the system.

        Raises :class:`ConfigError` for an address or a key that cannot be used.
        """
        if not (key and key.isascii() and key.isprintable() and " " not in key):
            raise ConfigError(
                "The proxy key is empty or has characters that no key has",
                hint="Enter the proxy key again as ITH shows it.",
            )
        self._settings = settings
        self._key = key
        self._offload = offload
        self._clock = clock
        self._rng = rng
        self._addresses = Addresses(
            settings.url, settings.download_hosts, allow_insecure=settings.allow_insecure
        )
        self._client = httpx2.AsyncClient(
            verify=context or system_trust(),
            http1=True,
            http2=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=settings.connect_seconds),
            headers={"Accept-Encoding": "identity", "User-Agent": f"ith-proxy/{__version__}"},
            # A site's HTTPS proxy comes from the environment; it cannot reach our loopback.
            trust_env=not self._addresses.is_local,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._client.aclose()

    async def configuration(self) -> bytes:
        """Return this proxy's configuration as ITH sends it: JSON (protocol.md 6.1).

        Raises :class:`BackendError`.
        """
        body = bytearray()
        with trio.CancelScope() as patience, translated():
            patience.deadline = trio.current_time() + self._settings.answer_seconds
            url = self._addresses.configuration()
            async with self._answer(url, {}, elsewhere=False) as response:
                if response.status_code != HTTPStatus.OK:
                    now = self._clock.now()
                    raise refusal(response, "configuration", own=True, now=now)
                async with reading(response.aiter_bytes()) as blocks:
                    async for block in blocks:
                        body += block
                        if len(body) > MAX_CONFIGURATION_BYTES:
                            raise Interrupted("The configuration that ITH sent is too large")
                return bytes(body)
        raise Interrupted("ITH did not send the configuration in time")

    async def download(
        self,
        entity: Entity,
        workspace_id: str,
        into: Path,
        etag: str | None,
        on_progress: OnReceived,
    ) -> Download | NotModified:
        """Download the archive of ``entity`` to the file ``into``, completely or not at all.

        Interrupted downloads are resumed. If ``etag`` is given and still ITH's version, nothing is
        fetched. ``on_progress`` gets the bytes received and the bytes expected, None if ITH does
        not announce them. Raises :class:`BackendError`; no file is left then, nor after a
        cancellation.
        """
        compression = {
            "compression_format": self._settings.archive_format,
            "compression_level": str(self._settings.compression_level),
        }
        url = self._addresses.download(entity, workspace_id, compression)
        part = Part(
            into,
            max_bytes=self._settings.max_bytes,
            reserve_bytes=self._settings.reserve_bytes,
        )
        fetch = Fetch(
            lambda headers: self._answer(url, headers, elsewhere=True),
            lambda response: refusal(
                response,
                entity.type.value,
                own=self._addresses.is_own(response.url),
                now=self._clock.now(),
            ),
            part,
            self._settings.fetch,
            offload=self._offload,
            rng=self._rng,
            on_progress=on_progress,
        )
        try:
            await self._offload(part.open)
            whole = await fetch.run(etag)
            if etag is not None and not whole:
                return NotModified(etag)
            await self._offload(part.finish)
            return Download(into, part.size, fetch.etag)
        except OSError as error:
            hint = "Look at the disk that holds the state directory: space, permissions."
            raise BackendError.of_disk("The archive cannot be written", error, hint) from None
        finally:
            part.discard()  # not through Offload: a cancelled task cannot wait for a thread

    @asynccontextmanager
    async def _answer(
        self, url: httpx2.URL, headers: dict[str, str], *, elsewhere: bool
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request and follow redirects, to other origins only if ``elsewhere``."""
        for _ in range(MAX_REDIRECTS + 1):
            secret = {"X-Proxy-Key": self._key} if self._addresses.is_own(url) else {}
            async with self._client.stream("GET", url, headers=headers | secret) as response:
                if response.status_code not in REDIRECTS:
                    yield response
                    return
                url = self._addresses.redirected(
                    url, response.headers.get("Location", ""), elsewhere=elsewhere
                )
        raise Interrupted("ITH redirected a request in a circle", hint=ASK_LATER)
