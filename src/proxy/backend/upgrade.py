"""Opening the WebSocket to ITH: the address, the proxy key, and the meaning of a refusal.

Called by ``link`` alone. The proxy key goes into the query, percent-encoded, and into the header
``X-Proxy-Key`` (protocol.md 1.1); it appears in no error and no log.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import SplitResult, quote, urlsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    wrap_client_stream,
)

from proxy.backend.answer import Connection, UpgradeRejected, UpgradeStream
from proxy.backend.trust import system_trust
from proxy.errors import LinkEvicted, LinkLost, LinkRefused, ProxyError
from proxy.settings import IthSettings, Secret

REFUSALS = {401, 403}
KEY_MISSING, EVICTED, KEY_INVALID = 4001, 4002, 4003
"""ITH's close codes (protocol.md 1.3)."""

ASK_FOR_KEY = (
    "Check the proxy key (ITH_TOKEN or ith.token_file) and that the proxy is active in ITH."
)
ONE_PER_KEY = "Stop the other program, or have ITH make a key of its own for each."


@asynccontextmanager
async def open_websocket(
    ith: IthSettings, key: Secret, context: ssl.SSLContext | None
) -> AsyncIterator[tuple[WebSocketConnection, str]]:
    """Connect to ITH, upgrade, and drop the connection at the end of the block.

    Gives the WebSocket and our own IP address towards ITH. Raises :class:`LinkLost` if there is no
    connection. A refused upgrade is raised in an exception group, because the reading task finds
    it: see :func:`explain`.
    """
    base = urlsplit(ith.url)
    path = base.path.rstrip("/") + ith.websocket_path
    async with _connection(base, context) as (stream, local), trio.open_nursery() as nursery:
        answer = UpgradeStream(stream)
        websocket = await wrap_client_stream(
            nursery,
            cast("trio.SocketStream", answer),  # any stream works; the annotation is too narrow
            base.netloc.rpartition("@")[2],
            f"{path}?proxy_key={quote(key.reveal(), safe='')}",
            extra_headers=[(b"X-Proxy-Key", key.reveal().encode("ascii"))],
            max_message_size=ith.max_frame_bytes,
            receive_buffer_size=65536,
        )
        answer.is_open = True
        yield websocket, local
        nursery.cancel_scope.cancel("the link is over")


@asynccontextmanager
async def _connection(
    base: SplitResult, context: ssl.SSLContext | None
) -> AsyncIterator[tuple[Connection, str]]:
    secure = base.scheme in {"https", "wss"}
    host = base.hostname or ""
    port = base.port or (443 if secure else 80)
    try:
        plain = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise LinkLost(
            f"no connection to {host} port {port}: {error.strerror or 'refused or unreachable'}",
            hint="Check ith.url, the name service and the firewall's outgoing rules.",
        ) from None
    local = str(plain.socket.getsockname()[0])
    try:
        if secure:
            trust = context or system_trust()
            secured = trio.SSLStream(plain, trust, server_hostname=host, https_compatible=True)
            await _shake_hands(secured, host)
            yield secured, local
        else:
            yield plain, local
    finally:
        await trio.aclose_forcefully(plain)


async def _shake_hands(stream: trio.SSLStream[trio.SocketStream], host: str) -> None:
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        raise LinkLost(
            f"no TLS with {host}: {_tls_reason(error)}",
            hint="If a firewall inspects TLS here, give its certificate in ith.ca_file.",
        ) from None


def _tls_reason(error: trio.BrokenResourceError) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({cause.verify_message})"
    if isinstance(cause, ssl.SSLError):
        return cause.reason or "handshake failed"
    return "the connection was closed during the handshake"


def explain(error: BaseException) -> tuple[ProxyError, float]:
    """Turn the error that ended a link into ours and the least seconds to wait (Retry-After)."""
    match error:
        case UpgradeRejected(status=status) if status in REFUSALS:
            sentence = f"ITH refused the proxy key (HTTP {status})"
            return LinkRefused(sentence, hint=ASK_FOR_KEY), 0.0
        case UpgradeRejected(retry_after=seconds):
            return error, seconds
        case ProxyError():
            return error, 0.0
        case ConnectionClosed():
            return _closed(error), 0.0
        case trio.TooSlowError():
            return LinkLost("ITH did not answer a ping in time"), 0.0
        case _:
            return LinkLost(f"the link broke ({type(error).__name__})"), 0.0


def _closed(error: ConnectionClosed) -> ProxyError:
    code = error.reason.code if error.reason else 1006
    if code in {KEY_MISSING, KEY_INVALID}:
        return LinkRefused(f"ITH refused the proxy key (close code {code})", hint=ASK_FOR_KEY)
    if code == EVICTED:
        return LinkEvicted("another program connected to ITH with our key", hint=ONE_PER_KEY)
    if code == 1006:
        return LinkLost("the link to ITH broke")
    if code in {1002, 1007}:
        return LinkLost(f"the WebSocket protocol was broken (close code {code})")
    if code == 1009:
        return LinkLost(
            "a message was too big for the link (close code 1009)",
            hint="Raise ith.max_frame_bytes if ITH sends larger messages on purpose.",
        )
    return LinkLost(f"ITH closed the link (close code {code})")
