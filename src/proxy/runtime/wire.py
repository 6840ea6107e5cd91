"""The seam to the network for DICOM: a byte stream to a node, real here and virtual in tests.

It knows no PDU. ``proxy.dicom.association`` is its only user; the WebSocket and the archive
downloads have streams of their own.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

import trio

from proxy.errors import AssociationLost, NodeUnreachable
from proxy.machines.failures import classify_loss, classify_transport

Buffer: TypeAlias = bytes | memoryview

_IOV_MAX = 1024
_RECEIVE_BYTES = 65536
_KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
_LINGER_SECONDS = 5
"""Seconds that the kernel may go on delivering the bytes left in a closed socket."""


class Wire(Protocol):
    """One open connection to a node; used by one task at a time."""

    local: str
    """Our own address towards the node, which its administrator has to allow."""

    async def send_some(self, buffers: Sequence[Buffer]) -> int:
        """Hand bytes to the kernel and return how many it took, as soon as it takes any.

        Returns 0 if the node has sent bytes while it does not take ours: a caller that only sends
        would not notice that the node gave up.

        Raises :class:`proxy.errors.AssociationLost`.
        """
        ...

    async def receive_some(self) -> bytes:
        """Return the bytes received, empty at the end of the stream.

        All other tasks get their turn first, and deadlines take effect, even if bytes are there at
        once: a node that never stops sending must not be the only one that is served.

        Raises :class:`proxy.errors.AssociationLost`.
        """
        ...

    def receive_now(self) -> bytes | None:
        """Return the bytes that have arrived, None without any, empty at the end of the stream.

        Raises :class:`proxy.errors.AssociationLost`.
        """
        ...

    def send_now(self, data: bytes) -> bool:
        """Hand ``data`` to the kernel if it takes all of it at once; used for an abort."""
        ...

    def queued(self) -> int:
        """The number of bytes sent that the node's host has not acknowledged yet."""
        ...

    def close(self, *, reset: bool = False) -> None:
        """Close; with ``reset``, the kernel discards unsent bytes. May be repeated."""
        ...


class Network(Protocol):
    """The network on which nodes are reached."""

    async def connect(self, host: str, port: int) -> Wire:
        """Open a connection; the caller sets the time limit.

        Raises :class:`proxy.errors.NodeUnreachable`.
        """
        ...


class TcpNetwork:
    """The real network."""

    def __init__(self, user_timeout: float = 120.0) -> None:
        """``user_timeout``: seconds after which the kernel gives up unacknowledged bytes."""
        self._user_timeout = user_timeout

    async def connect(self, host: str, port: int) -> TcpWire:
        """Open a connection to the first address of ``host`` that answers (RFC 8305)."""
        try:
            stream = await trio.open_tcp_stream(host, port)
        except (OSError, UnicodeError, ValueError) as error:
            raise unreachable(_code(error)) from error
        # The stream's low-water mark suits proxies that mix small messages; ours are large.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
        return TcpWire(socket.socket(fileno=stream.socket.detach()), self._user_timeout)


TCP_NETWORK: Final = TcpNetwork()


class TcpWire:
    """A connected TCP socket.

    Small messages leave at once (``TCP_NODELAY``), and so do our acknowledgements
    (``TCP_QUICKACK``): a node that writes its response in two parts waits for them, about 44 ms
    for each instance.
    """

    def __init__(self, connected: socket.socket, user_timeout: float = 120.0) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
        self._socket = connected
        self._give_up_after(user_timeout)
        self.local: str = connected.getsockname()[0]

    async def send_some(self, buffers: Sequence[Buffer]) -> int:
        """Send as much with one call as the kernel takes; see :class:`Wire`."""
        batch = buffers[:_IOV_MAX]
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            taken = self._socket.sendmsg(batch)
        except BlockingIOError:
            return await self._send_when_ready(batch)
        except OSError as error:
            raise _lost(error) from error
        await trio.lowlevel.cancel_shielded_checkpoint()
        return taken

    async def receive_some(self) -> bytes:
        """Receive the bytes that are there, or wait for some; see :class:`Wire`."""
        await trio.lowlevel.checkpoint()
        while (data := self.receive_now()) is None:
            await trio.lowlevel.wait_readable(self._socket)
        return data

    def receive_now(self) -> bytes | None:
        """Receive the bytes that are there; see :class:`Wire`."""
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
            # The kernel may reset the option at any time: set it again each time.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except BlockingIOError:
            return None
        except OSError as error:
            raise _lost(error) from error
        return data

    def send_now(self, data: bytes) -> bool:
        """Send without waiting; see :class:`Wire`."""
        try:
            return self._socket.send(data) == len(data)
        except OSError:
            return False

    def queued(self) -> int:
        """Ask the kernel; see :class:`Wire`."""
        count = bytearray(4)
        fcntl.ioctl(self._socket, termios.TIOCOUTQ, count)
        return int.from_bytes(count, sys.byteorder)

    def close(self, *, reset: bool = False) -> None:
        """Close; see :class:`Wire`. A full send buffer is given up after some seconds."""
        try:
            if reset:
                on_for_no_time = struct.pack("ii", 1, 0)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, on_for_no_time)
            else:
                self._give_up_after(_LINGER_SECONDS)
        except OSError:
            pass
        self._socket.close()

    async def _send_when_ready(self, batch: Sequence[Buffer]) -> int:
        """Wait until the kernel takes bytes, or the node sends some."""
        while True:
            if await _heard_before_ready(self._socket):
                return 0
            try:
                return self._socket.sendmsg(batch)
            except BlockingIOError:
                continue
            except OSError as error:
                raise _lost(error) from error

    def _give_up_after(self, seconds: float) -> None:
        milliseconds = round(seconds * 1000)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def unreachable(code: str) -> NodeUnreachable:
    """Build the error for a connection that could not be opened."""
    failure = classify_transport(code)
    return NodeUnreachable(code, failure.sentence, hint=failure.hint)


def lost(code: str) -> AssociationLost:
    """Build the error for an association that ended without an answer of the node."""
    failure = classify_loss(code)
    return AssociationLost(code, failure.sentence, hint=failure.hint)


def _lost(error: OSError) -> AssociationLost:
    return lost("stalled" if error.errno == errno.ETIMEDOUT else "closed")


async def _heard_before_ready(waiting: socket.socket) -> bool:
    """Wait until bytes can be sent or have arrived; return whether any have arrived."""
    heard = False

    async def listen() -> None:
        nonlocal heard
        await trio.lowlevel.wait_readable(waiting)
        heard = True
        nursery.cancel_scope.cancel("the node has sent something")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.lowlevel.wait_writable(waiting)
        nursery.cancel_scope.cancel("the kernel takes bytes")
    return heard


def _code(error: BaseException) -> str:
    """Name an error for :func:`classify_transport`; trio keeps the errno in the cause."""
    if isinstance(error, (socket.gaierror, UnicodeError, ValueError)):
        return "dns"
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, "OSError")
    if isinstance(error, BaseExceptionGroup):
        return _code(error.exceptions[0])
    return _code(error.__cause__) if error.__cause__ else "OSError"
