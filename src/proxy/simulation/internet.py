"""TCP in memory: under trio's own sockets for ITH, behind the seam of ``Network`` for nodes.

One :class:`Internet` is the network of one machine. It can refuse, swallow, cut and hold back, by
destination: ``ith``, or the id of a node. Bytes arrive in order and at once; opening a connection
takes a moment that is drawn. A peer that sends without end gets 64 MiB/s, so that time goes on.
"""

from __future__ import annotations

import errno
import itertools
import math
import socket
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Literal, Protocol, Self, TypeAlias

import trio

from proxy.runtime.wire import Buffer, Wire, lost, unreachable
from proxy.simulation.trace import ENDED, LOST, Trace

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
"""The result of a look-up, as trio has it; nothing here is found over IPv6."""

ITH = "ith"
OURS = "192.0.2.10"
"""The address of the machine (RFC 5737)."""

CAPACITY = 100_000
"""The bytes that one direction of a connection holds; more blocks its writer, as TCP does."""
NEAR_S, FAR_S = 0.0005, 0.05
"""How long it takes to look up a name, and to connect."""
SYN_GIVEN_UP_S = 127.0
"""Linux gives up an unanswered SYN after six repetitions."""
RETRANSMIT_S = 924.0
"""Linux gives up unacknowledged bytes after as long (tcp_retries2 = 15)."""
USER_TIMEOUT_S = 120.0
"""The same for the wires to nodes, which set TCP_USER_TIMEOUT."""
READ_BYTES = 4096
"""A read from a node gets no more, so that a burst takes many."""
MUCH_BYTES = 1 << 20
BURST_BYTES, BURST_S = 65_536, 0.001
MAX_READS_PER_STEP = 10
"""A task that reads more often without a checkpoint keeps every other task from running."""


class Manner(Enum):
    """How a destination is away."""

    REFUSED = "The host refuses connections and resets those that are open."
    SILENT = "Packets are lost; connections that are still open go on later."
    UNKNOWN = "The name cannot be resolved; connections that are open stay."


class Starved(BaseException):
    """A task takes all the time: it reads and reads and never comes to a checkpoint."""


class PipeListener(Protocol):
    """Is told what passes through a pipe."""

    def put(self, data: Buffer) -> None:
        """Bytes leave."""
        ...

    def taken(self, count: int) -> None:
        """So many bytes have arrived."""
        ...

    def ended(self) -> None:
        """No byte follows."""
        ...

    def cut(self, lost: int) -> None:
        """The connection is reset, and so many bytes are lost."""
        ...


class Listener(Protocol):
    """Is told of the connections of an internet; it gives a listener to each of their pipes."""

    def opened(self, line: TcpLine) -> None:
        """A connection is open."""
        ...

    def not_opened(self, to: str, reason: str) -> None:
        """A connection could not be opened."""
        ...


class Pipe:
    """Bytes on their way in one direction; ``changed`` wakes whoever waits at either end."""

    def __init__(
        self,
        capacity: int,
        changed: trio.lowlevel.ParkingLot,
        trace: Trace | None = None,
        number: int = 0,
    ) -> None:
        self.tap: PipeListener | None = None
        self.held = bytearray()
        self.ended = False
        self.reset = False
        self.frozen = False
        self.passed = 0
        self.taken = 0
        self.cut_at = math.inf
        self.freeze_at = math.inf
        self._capacity = capacity
        self._changed = changed
        self._trace = trace
        self._number = number

    @property
    def room(self) -> int:
        """The number of bytes that can be put now."""
        return self._capacity - len(self.held)

    @property
    def readable(self) -> bool:
        """Whether taking returns at once: bytes, or the end."""
        return self.reset or (not self.frozen and bool(self.held or self.ended))

    def put(self, data: Buffer) -> int:
        """Take in as much as there is room for; return how much."""
        taken = min(len(data), self.room)
        if self.passed + taken >= self.freeze_at:
            self.frozen = True
        self.held += data[:taken]
        self.passed += taken
        if self._trace:
            self._trace.passed(self._number, data[:taken])
        if self.tap:
            self.tap.put(data[:taken])
        self._changed.unpark_all()
        return taken

    def take(self, most: int = 65536) -> bytes:
        """Return bytes that have arrived, empty at the end."""
        taken = bytes(self.held[:most])
        del self.held[:most]
        self.taken += len(taken)
        if self.tap:
            self.tap.taken(len(taken))
        self._changed.unpark_all()
        return taken

    def lose(self) -> None:
        """Reset this direction: what is held is lost."""
        if self._trace and not self.reset:
            self._trace.ended(self._number, LOST)
        if self.tap and not self.reset:
            self.tap.cut(len(self.held))
        self.reset = True
        self.held.clear()

    def end(self) -> None:
        """Let the reader find the end after what is held."""
        if self._trace and not self.ended:
            self._trace.ended(self._number, ENDED)
        if self.tap and not self.ended:
            self.tap.ended()
        self.ended = True
        self._changed.unpark_all()


@dataclass(eq=False)
class TcpLine:
    """One connection of the machine; ``out`` leads away from it. ``at`` is when it was opened."""

    to: str
    at: float
    number: int
    trace: Trace
    changed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    frozen_since: float = math.inf

    def __post_init__(self) -> None:
        """Lay both directions."""
        self.out = Pipe(CAPACITY, self.changed, self.trace, 2 * self.number)
        self.back = Pipe(CAPACITY, self.changed, self.trace, 2 * self.number + 1)

    @property
    def is_open(self) -> bool:
        """Whether either end may still use it."""
        return not (self.out.reset or (self.out.ended and self.back.ended))

    def cut(self) -> None:
        """Reset it: both ends hear of it at their next use, and what was on its way is gone."""
        for pipe in (self.out, self.back):
            pipe.lose()
            pipe.ended = True
        self.changed.unpark_all()

    def freeze(self) -> None:
        """Let nothing arrive any more, at either end."""
        self.out.frozen = self.back.frozen = True
        self.frozen_since = min(self.frozen_since, trio.current_time())

    def thaw(self) -> None:
        """Let arrive what was held back, unless a kernel would have given up meanwhile."""
        if trio.current_time() - self.frozen_since > RETRANSMIT_S and (
            self.out.held or self.back.held
        ):
            self.cut()
        self.out.frozen = self.back.frozen = False
        self.out.freeze_at = self.back.freeze_at = self.frozen_since = math.inf
        self.changed.unpark_all()


@dataclass(frozen=True)
class Snag:
    """What befalls the next connection to a destination, after ``after`` bytes of a direction."""

    to: str
    after: int
    inward: bool
    cuts: bool


Handler: TypeAlias = Callable[["NodeStream"], Awaitable[None]]


class Internet(trio.abc.SocketFactory, trio.abc.HostnameResolver):
    """The network of one machine: ITH by its name, nodes by their address."""

    def __init__(self, rng: Random, hosts: Mapping[str, str], nursery: trio.Nursery) -> None:
        """Know hosts by name; serve the nodes' ends of connections in ``nursery``."""
        self.nodes: dict[Address, tuple[str, Handler]] = {}
        self.listeners: dict[Address, Socket] = {}
        self.lines: list[TcpLine] = []
        self.looked_up: Counter[str] = Counter()
        self.snags: list[Snag] = []
        self.away: dict[str, Manner] = {}
        self.is_unplugged = False
        self.listener: Listener | None = None
        self.reads = 0
        self.most_heard: Counter[str] = Counter()
        """The bytes that the program has taken on one connection, at most, by where it leads."""
        self.ports = itertools.count(40000)
        self.on_much: Callable[[], None] = lambda: None
        """Called whenever the program has taken a further ``MUCH_BYTES`` on one connection."""
        self.ends: defaultdict[str, set[object]] = defaultdict(set)
        """The program's ends of connections that it has not closed, by where they lead."""
        self.most_ends: Counter[str] = Counter()
        self.trace = Trace()
        """Of all bytes on all connections; of the rest of the world too, if it gives its own."""
        self._numbers = itertools.count(1)
        self._rng = rng
        self._hosts = hosts
        self._nursery = nursery
        self._context = copy_context()

    def install(self) -> None:
        """Be the network of this run of trio."""
        trio.socket.set_custom_socket_factory(self)
        trio.socket.set_custom_hostname_resolver(self)

    # -- What goes wrong --------------------------------------------------------------------------

    def leave(self, to: str, manner: Manner) -> None:
        """Take a destination away."""
        self.away[to] = manner
        for line in self.open_lines(to):
            if manner is Manner.REFUSED:
                line.cut()
            elif manner is Manner.SILENT:
                line.freeze()

    def come_back(self, to: str) -> None:
        """Bring a destination back."""
        self.away.pop(to, None)
        for line in self.open_lines(to):
            line.thaw()

    def cut(self, to: str) -> int:
        """Reset every connection to a destination; return how many."""
        lines = self.open_lines(to)
        for line in lines:
            line.cut()
        return len(lines)

    def thaw(self) -> None:
        """Let every connection go on that was held back."""
        for line in self.lines:
            line.thaw()

    def unplug(self) -> None:
        """Cut every connection, and open none until :meth:`plug_in`: the machine is off."""
        self.is_unplugged = True
        for line in self.lines:
            line.cut()
        self.lines.clear()
        self.ends.clear()

    def plug_in(self) -> None:
        """Open connections again."""
        self.is_unplugged = False

    def open_lines(self, to: str) -> list[TcpLine]:
        """Return the connections to a destination that are open."""
        self.lines = [line for line in self.lines if line.is_open]
        return [line for line in self.lines if line.to == to]

    # -- Connecting -------------------------------------------------------------------------------

    async def open(self, to: str) -> TcpLine:
        """Open a connection; raises OSError where it is refused, or nobody answers."""
        try:
            line = await self._open(to)
        except OSError as error:
            if self.listener:
                self.listener.not_opened(to, error.strerror or "")
            raise
        if self.listener:
            self.listener.opened(line)
        return line

    async def _open(self, to: str) -> TcpLine:
        await trio.sleep(self._rng.uniform(NEAR_S, FAR_S))
        if self.is_unplugged:
            raise OSError(errno.ENETUNREACH, "the machine is off")
        if self.away.get(to) is Manner.SILENT:
            await trio.sleep(SYN_GIVEN_UP_S)
            raise OSError(errno.ETIMEDOUT, "nobody answers")
        if self.away.get(to) is Manner.REFUSED:
            raise OSError(errno.ECONNREFUSED, "nobody listens")
        line = TcpLine(to, trio.current_time(), next(self._numbers), self.trace)
        snag = next((each for each in self.snags if each.to == to), None)
        if snag is not None:
            self.snags.remove(snag)
            pipe = line.back if snag.inward else line.out
            if snag.cuts:
                pipe.cut_at = snag.after
            else:
                pipe.freeze_at = snag.after
        self.lines.append(line)
        return line

    async def connect(self, host: str, port: int) -> Wire:
        """Open a connection to a node: the program's seam ``Network``."""
        to, handler = self.nodes.get((host, port), ("", None))
        if handler is None:
            await trio.sleep(FAR_S)
            raise unreachable("EHOSTUNREACH")
        try:
            line = await self.open(to)
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, "OSError")
            raise unreachable(code) from error
        self._context.run(self._nursery.start_soon, self._serve, handler, NodeStream(line))
        return SimulatedWire(self, line)

    def heard(self, to: str, count: int, latest: int) -> None:
        """Take notice of how much the program has taken on one connection, ``latest`` just now."""
        self.most_heard[to] = max(self.most_heard[to], count)
        if count // MUCH_BYTES > (count - latest) // MUCH_BYTES:
            self.on_much()

    def hold(self, to: str, end: object) -> None:
        """Count an end of a connection that the program has, until it closes it."""
        ends = self.ends[to]
        ends.add(end)
        self.most_ends[to] = max(self.most_ends[to], len(ends))

    async def _serve(self, handler: Handler, stream: NodeStream) -> None:
        async with stream:
            await handler(stream)

    def socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> Socket:
        """Make a socket for trio."""
        if (family, type) != (socket.AF_INET, socket.SOCK_STREAM):
            raise OSError(errno.EAFNOSUPPORT, "this internet has TCP over IPv4 alone")
        made = Socket(self)
        self.hold(ITH, made)
        return made

    async def getaddrinfo(  # noqa: PLR0917 - as trio has it
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Found4 | Found6]:
        """Look a host up by its name."""
        await trio.sleep(self._rng.uniform(NEAR_S, FAR_S))
        name = (host or b"").decode()
        self.looked_up[name] += 1
        if name not in self._hosts or Manner.UNKNOWN in self.away.values() or self.is_unplugged:
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        address = (self._hosts[name], int(port or 0))
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]

    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int
    ) -> tuple[str, str]:
        """Look a name up by its address: nobody does."""
        raise NotImplementedError

    def count_read(self) -> None:
        """Count a read that needed no waiting; the watchdog resets the count with each step."""
        self.reads += 1
        if self.reads > MAX_READS_PER_STEP:
            raise Starved(f"a task read {self.reads} times without a checkpoint")


def _pass(line: TcpLine, pipe: Pipe, data: Buffer) -> int:
    """Put bytes on a line that may be cut at one of them; raises OSError if it is gone."""
    if pipe.reset:
        raise OSError(errno.ECONNRESET, "the connection was reset")
    if pipe.ended:
        raise OSError(errno.EPIPE, "the other end is closed")
    if pipe.passed + len(data) >= pipe.cut_at:
        pipe.put(data[: max(int(pipe.cut_at) - pipe.passed, 0)])
        line.cut()
        return len(data)
    return pipe.put(data)


class SimulatedWire:
    """The program's end of a connection to a node."""

    def __init__(self, internet: Internet, line: TcpLine) -> None:
        self.local = OURS
        self._internet = internet
        self._line = line
        internet.hold(line.to, self)

    async def send_some(self, buffers: Sequence[Buffer]) -> int:
        """Send as much as there is room for; 0 if the node speaks and takes nothing."""
        line = self._line
        await trio.lowlevel.checkpoint()
        if not line.out.room and not line.out.ended:
            with trio.move_on_after(USER_TIMEOUT_S) as stalled:
                while not line.out.room and not line.out.ended:
                    if line.back.readable:
                        return 0
                    await line.changed.park()
            if stalled.cancelled_caught:
                line.cut()
                raise lost("stalled")
        taken = 0
        try:
            for buffer in buffers:
                count = _pass(line, line.out, buffer)
                taken += count
                if count < len(buffer):
                    break
        except OSError as error:
            raise lost("closed") from error
        return taken

    async def receive_some(self) -> bytes:
        """Receive what is there, or wait for some."""
        await trio.lowlevel.checkpoint()
        while (data := self.receive_now()) is None:
            await self._line.changed.park()
        return data

    def receive_now(self) -> bytes | None:
        """Receive what is there, if there is something."""
        back = self._line.back
        if back.reset:
            raise lost("closed")
        if not back.readable:
            return None
        self._internet.count_read()
        data = back.take(READ_BYTES)
        self._internet.heard(self._line.to, back.taken, len(data))
        return data

    def send_now(self, data: bytes) -> bool:
        """Send all at once, or nothing."""
        out = self._line.out
        if out.room < len(data) or out.ended:
            return False
        try:
            return _pass(self._line, out, data) == len(data)
        except OSError:
            return False

    def queued(self) -> int:
        """Return what the node's host has not acknowledged: all that it has not read."""
        return len(self._line.out.held)

    def close(self, *, reset: bool = False) -> None:
        """Close it; what was sent still arrives, but for a reset."""
        line = self._line
        self._internet.ends[line.to].discard(self)
        if reset and line.is_open:
            line.out.lose()
        line.out.end()
        line.back.end()


class NodeStream(trio.abc.Stream):
    """The node's end of a connection."""

    def __init__(self, line: TcpLine) -> None:
        self.line = line
        self._is_closed = False
        self._burst = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, at the speed of the network."""
        left = memoryview(bytes(data))
        await trio.lowlevel.checkpoint()
        while left:
            if self._is_closed:
                raise trio.ClosedResourceError
            try:
                taken = _pass(self.line, self.line.back, left)
            except OSError as error:
                raise trio.BrokenResourceError from error
            left = left[taken:]
            self._burst += taken
            if self._burst >= BURST_BYTES:
                self._burst = 0
                await trio.sleep(BURST_S)
            elif not taken:
                await self.line.changed.park()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        while not self.line.back.room:
            await self.line.changed.park()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what is there, or wait for some."""
        await trio.lowlevel.checkpoint()
        out = self.line.out
        while not out.readable:
            if self._is_closed:
                raise trio.ClosedResourceError
            await self.line.changed.park()
        if out.reset:
            raise trio.BrokenResourceError("the connection was reset")
        return out.take(max_bytes or 65536)

    async def aclose(self) -> None:
        """Close it; what was sent still arrives."""
        self._is_closed = True
        self.line.back.end()
        self.line.out.end()
        await trio.lowlevel.checkpoint()


class Socket(trio.socket.SocketType):
    """A TCP socket as trio's streams and listeners use one."""

    def __init__(self, internet: Internet) -> None:
        self._internet = internet
        self._name: Address = ("0.0.0.0", 0)
        self._peer: Address | None = None
        self._line: TcpLine | None = None
        self._into: Pipe | None = None
        self._from: Pipe | None = None
        self._coming, self._arrivals = trio.open_memory_channel[Socket](math.inf)
        self._is_listening = False
        self._is_closed = False
        self._is_shut = False

    @property
    def family(self) -> socket.AddressFamily:
        """IPv4."""
        return socket.AF_INET

    @property
    def type(self) -> socket.SocketKind:
        """A stream."""
        return socket.SOCK_STREAM

    @property
    def proto(self) -> int:
        """TCP."""
        return socket.IPPROTO_TCP

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802 - trio's name
        """Whether this end said that it sends no more."""
        return self._is_shut

    def fileno(self) -> int:
        """Return a number that is no descriptor's."""
        return -1 if self._is_closed else 1 << 20

    def getsockname(self) -> Address:
        """Return this end's address."""
        return self._name

    def getpeername(self) -> Address:
        """Return the other end's address."""
        if self._peer is None:
            raise OSError(errno.ENOTCONN, "not connected")
        return self._peer

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> int:  # type: ignore[override]
        """Say whether it listens; that is all that is asked."""
        return int(self._is_listening and optname == socket.SO_ACCEPTCONN)

    def setsockopt(self, *args: object) -> None:
        """Close by a reset if that is asked for; nothing else is to be tuned."""
        if args[:2] == (socket.SOL_SOCKET, socket.SO_LINGER) and self._line:
            self._line.cut()

    async def bind(self, address: object) -> None:
        """Take an address."""
        host, port = _read(address)
        self._name = (host, port or next(self._internet.ports))
        await trio.lowlevel.checkpoint()

    def listen(self, backlog: int = 0) -> None:
        """Accept connections from now on."""
        self._is_listening = True
        self._internet.ends[ITH].discard(self)
        self._internet.listeners[self._name] = self

    async def accept(self) -> tuple[Socket, Address]:
        """Wait for the next connection."""
        try:
            accepted = await self._arrivals.receive()
        except (trio.ClosedResourceError, trio.EndOfChannel):
            raise _closed() from None
        return accepted, accepted.getpeername()

    def arrive(self, other: Socket) -> None:
        """Take a connection that another socket opened."""
        self._coming.send_nowait(other)

    async def connect(self, address: object) -> None:
        """Connect the program to ITH."""
        line = await self._internet.open(ITH)
        listener = self._internet.listeners.get(_read(address))
        if listener is None:
            raise OSError(errno.ECONNREFUSED, "nobody listens")
        other = Socket(self._internet)
        self._name, self._peer = (OURS, next(self._internet.ports)), listener.getsockname()
        other._name, other._peer = self._peer, self._name
        self._line = other._line = line
        self._into, self._from = line.out, line.back
        other._into, other._from = line.back, line.out
        listener.arrive(other)

    async def send(self, data: bytes | bytearray | memoryview, flags: int = 0, /) -> int:  # type: ignore[override]
        """Send as much as there is room for."""
        await trio.lowlevel.checkpoint()
        while True:
            line, into, _ = self._open_ends()
            if into.room or into.ended or into.reset:
                return _pass(line, into, memoryview(data))
            await line.changed.park()

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        """Receive what is there, or wait for some."""
        await trio.lowlevel.checkpoint()
        while True:
            line, _, out_of = self._open_ends()
            if out_of.reset:
                raise OSError(errno.ECONNRESET, "the connection was reset")
            if out_of.readable:
                data = out_of.take(buflen)
                if line.back is out_of:
                    self._internet.heard(line.to, out_of.taken, len(data))
                return data
            await line.changed.park()

    async def wait_writable(self) -> None:
        """Wait for nothing: sending waits."""
        await trio.lowlevel.checkpoint()

    def is_readable(self) -> bool:
        """Whether receiving returns at once."""
        return bool(self._from and self._from.readable)

    def shutdown(self, flag: int) -> None:
        """Send no more."""
        self._is_shut = True
        self._open_ends()[1].end()

    def close(self) -> None:
        """Close it; what was sent still arrives."""
        if self._is_closed:
            return
        self._is_closed = True
        self._internet.ends[ITH].discard(self)
        self._coming.close()
        self._arrivals.close()
        if self._is_listening:
            del self._internet.listeners[self._name]
        for pipe in (self._into, self._from):
            if pipe:
                pipe.end()

    def __enter__(self) -> Self:
        """Return the socket."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _open_ends(self) -> tuple[TcpLine, Pipe, Pipe]:
        if self._is_closed:
            raise _closed()
        if self._line is None or self._into is None or self._from is None:
            raise OSError(errno.ENOTCONN, "not connected")
        return self._line, self._into, self._from


def _read(address: object) -> Address:
    """Take an address that trio passes on as it was given."""
    if not isinstance(address, tuple):
        raise TypeError("an address is host and port")
    return str(address[0]), int(address[1])


def _closed() -> OSError:
    return OSError(errno.EBADF, "it is closed")


def addresses(nodes: Iterable[str]) -> dict[str, Address]:
    """Give each node an address of its own (RFC 5737)."""
    return {node: (f"198.51.100.{number}", 104) for number, node in enumerate(nodes, 1)}
