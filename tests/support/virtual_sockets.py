"""TCP in memory, under trio's own sockets: for WebSockets, HTTP, and their servers.

    internet = VirtualInternet({"ith.localhost": "127.0.0.1"}, rng)
    internet.install()

From then on each socket of trio in this run is a virtual one. Two things stay real: sockets that
the standard library made, and addresses, for trio reads numbers by itself.
"""

from __future__ import annotations

import errno
import itertools
import math
import socket
from collections.abc import Mapping
from random import Random
from typing import Literal, NamedTuple, Self, TypeAlias

import trio

from tests.dicom.virtual import CAPACITY, Pipe

Address: TypeAlias = tuple[str, int]

Found4: TypeAlias = tuple[
    Literal[socket.AddressFamily.AF_INET], socket.SocketKind, int, str, Address
]
Found6: TypeAlias = tuple[
    Literal[socket.AddressFamily.AF_INET6],
    socket.SocketKind,
    int,
    str,
    tuple[str, int, int, int] | tuple[int, bytes],
]
"""The result of a look-up, in trio's form; no host here has an IPv6 address."""

OURS = "192.0.2.10"
"""The address that everybody comes from (RFC 5737)."""

NEAR_S, FAR_S = 0.0005, 0.05
"""The bounds of a connection's delay."""


class Line(NamedTuple):
    """One end of a connection; ``changed`` wakes the tasks that wait at either end."""

    inward: Pipe
    outward: Pipe
    changed: trio.lowlevel.ParkingLot


class VirtualInternet(trio.abc.SocketFactory, trio.abc.HostnameResolver):
    """Hosts by name, listeners by address; the delays of a connection are drawn from ``rng``."""

    def __init__(self, hosts: Mapping[str, str], rng: Random) -> None:
        self.hosts = hosts
        self.rng = rng
        self.listeners: dict[Address, VirtualSocket] = {}
        self.resolved: list[str] = []
        self.ports = itertools.count(40000)

    def install(self) -> None:
        """Be the network of this run of trio."""
        trio.socket.set_custom_socket_factory(self)
        trio.socket.set_custom_hostname_resolver(self)

    def socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> VirtualSocket:
        if (family, type) != (socket.AF_INET, socket.SOCK_STREAM):
            raise OSError(errno.EAFNOSUPPORT, "this internet has TCP over IPv4 alone")
        return VirtualSocket(self)

    async def getaddrinfo(  # noqa: PLR0917 - as trio has it
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Found4 | Found6]:
        await trio.sleep(self.rng.uniform(NEAR_S, FAR_S))
        name = (host or b"").decode()
        self.resolved.append(name)
        if name not in self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        address = (self.hosts[name], int(port or 0))
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]

    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int
    ) -> tuple[str, str]:
        raise NotImplementedError


class VirtualSocket(trio.socket.SocketType):
    """A TCP socket as trio's streams and listeners use one."""

    def __init__(self, internet: VirtualInternet) -> None:
        self._internet = internet
        self._name: Address = ("0.0.0.0", 0)
        self._peer: Address | None = None
        self._line: Line | None = None
        self._coming, self._arrivals = trio.open_memory_channel[VirtualSocket](math.inf)
        self._is_listening = False
        self._is_closed = False
        self._is_shut = False

    # What it is

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET

    @property
    def type(self) -> socket.SocketKind:
        return socket.SOCK_STREAM

    @property
    def proto(self) -> int:
        return socket.IPPROTO_TCP

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802 - trio's name
        return self._is_shut

    def fileno(self) -> int:
        return -1 if self._is_closed else 1 << 20

    def getsockname(self) -> Address:
        return self._name

    def getpeername(self) -> Address:
        if self._peer is None:
            raise OSError(errno.ENOTCONN, "not connected")
        return self._peer

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> int:  # type: ignore[override]
        return int(self._is_listening and optname == socket.SO_ACCEPTCONN)

    def setsockopt(self, *args: object) -> None:
        """Nothing here is to be tuned."""

    # Listening

    async def bind(self, address: object) -> None:
        assert isinstance(address, tuple)
        self._name = (address[0], address[1] or next(self._internet.ports))
        await trio.lowlevel.checkpoint()

    def listen(self, backlog: int = 0) -> None:
        self._is_listening = True
        self._internet.listeners[self._name] = self

    async def accept(self) -> tuple[VirtualSocket, Address]:
        try:
            accepted = await self._arrivals.receive()
        except trio.ClosedResourceError:
            raise _closed() from None
        return accepted, accepted.getpeername()

    # Talking

    async def connect(self, address: object) -> None:
        assert isinstance(address, tuple)
        internet = self._internet
        await trio.sleep(internet.rng.uniform(NEAR_S, FAR_S))
        listener = internet.listeners.get((address[0], address[1]))
        if listener is None:
            raise OSError(errno.ECONNREFUSED, "nobody listens")
        changed = trio.lowlevel.ParkingLot()
        there, back = Pipe(CAPACITY, changed), Pipe(CAPACITY, changed)
        other = VirtualSocket(internet)
        self._name, self._peer = (OURS, next(internet.ports)), listener.getsockname()
        other._name, other._peer = self._peer, self._name
        self._line, other._line = Line(back, there, changed), Line(there, back, changed)
        listener._coming.send_nowait(other)

    async def send(self, data: bytes | bytearray | memoryview, flags: int = 0, /) -> int:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        line = self._open_line()
        while not (line.outward.space or line.outward.ended):
            await line.changed.park()
            self._open_line()
        if line.outward.ended:
            raise OSError(errno.EPIPE, "the other end is closed")
        return line.outward.put(memoryview(data))

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        await trio.lowlevel.checkpoint()
        line = self._open_line()
        while not (line.inward.held or line.inward.ended):
            await line.changed.park()
            self._open_line()
        return line.inward.take(buflen)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    def is_readable(self) -> bool:
        return bool(self._line and (self._line.inward.held or self._line.inward.ended))

    def shutdown(self, flag: int) -> None:
        self._is_shut = True
        self._open_line().outward.end()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._coming.close()
        self._arrivals.close()
        if self._is_listening:
            del self._internet.listeners[self._name]
        if self._line:  # bytes on their way out arrive, and bytes on their way in are dropped
            self._line.inward.end()
            self._line.outward.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_line(self) -> Line:
        if self._is_closed:
            raise _closed()
        if self._line is None:
            raise OSError(errno.ENOTCONN, "not connected")
        return self._line


def _closed() -> OSError:
    return OSError(errno.EBADF, "it is closed")
