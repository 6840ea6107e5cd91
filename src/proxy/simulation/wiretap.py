"""Listens to the connections of a simulated machine, and notes their messages in the history.

To nodes it reads PDUs and commands, to ITH the heads of HTTP and the frames of the WebSocket. For
each message it notes whether its last byte has arrived. It runs where a history is wanted.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TypeAlias

import trio

from proxy.demo.frames import JsonObject
from proxy.runtime.wire import Buffer
from proxy.simulation import node_bytes as codec
from proxy.simulation.history import ITH_LANE, PROXY, RESET, History, Moment, tail
from proxy.simulation.internet import ITH, TcpLine
from proxy.simulation.node_bytes import Violation

Reading: TypeAlias = Generator[None, None, None]
"""A reader is resumed whenever more bytes are there, and yields where it needs more."""

HEAD_END = b"\r\n\r\n"
MAX_PDU = 1 << 20
"""A longer one is never sent completely."""
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
RANGE = re.compile(rb"range: *bytes=([1-9]\d*)", re.IGNORECASE)
UPGRADE = re.compile(rb"upgrade: *websocket", re.IGNORECASE)
DOWNLOAD = re.compile(r".*/(\w+)s/([^/]+)/download")

SIGNS_OF_LIFE = {"ping", "pong", "health_update", "health_update_response", "proxy.heartbeat"}
COMMANDS = {codec.C_STORE: "C-STORE", codec.C_FIND: "C-FIND", codec.C_ECHO: "C-ECHO"}
CLOSE, PING, PONG = 8, 9, 10
"""Opcodes of the WebSocket (RFC 6455 section 5.2); the frames of the lower ones are data."""


class Wiretap:
    """Listens to every connection."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._taps: list[Tap] = []

    def opened(self, line: TcpLine) -> None:
        """Listen to a connection from now on."""
        if line.to == ITH:
            talk = Talk(self._history, ITH_LANE)
            line.out.tap = Tap(talk, PROXY, ITH_LANE, _requests)
            line.back.tap = Tap(talk, ITH_LANE, PROXY, _responses)
        else:
            talk = Talk(self._history, line.to)
            line.out.tap = Tap(talk, PROXY, line.to, _pdus)
            line.back.tap = Tap(talk, line.to, PROXY, _pdus)
        self._taps += [line.out.tap, line.back.tap]

    def not_opened(self, to: str, reason: str) -> None:
        """Note a connection that could not be opened."""
        lane = ITH_LANE if to == ITH else to
        self._history.message(PROXY, lane, f"connect: {reason}").is_lost = True

    def finish(self) -> None:
        """Note what will not arrive any more, as its connection has ended."""
        for tap in self._taps:
            tap.finish()


class Talk:
    """What both directions of a connection share.

    It is routine until something else than a C-ECHO is said; its end is announced by a message.
    """

    def __init__(self, history: History, lane: str) -> None:
        self.history = history
        self.is_routine = lane != ITH_LANE
        self.is_end_announced = False
        self._lane = lane
        self._moments: list[Moment] = []
        self._lost = 0
        self._reset: Moment | None = None

    def add(self, moment: Moment) -> None:
        """Take a moment; it is as routine as all of them."""
        if self.is_routine:
            moment.is_routine = True
            self._moments.append(moment)

    def matters(self) -> None:
        """Say that this connection is more than a sign of life."""
        self.is_routine = False
        for moment in self._moments:
            moment.is_routine = False
        self._moments.clear()

    def cut(self, lost: int) -> None:
        """Note that the connection was reset, and how many bytes were lost in one direction."""
        self._lost += lost
        if self._reset is None and (lost or not self.is_end_announced):
            self._reset = self.history.note(self._lane, RESET)
        if self._reset is not None and self._lost:
            self._reset.text = f"{RESET}, {self._lost} bytes lost"


class Tap:
    """One direction of a connection: from a lane ``to`` another."""

    def __init__(self, talk: Talk, lane: str, to: str, read: Callable[[Tap], Reading]) -> None:
        self.talk = talk
        self.read = 0
        """How many bytes the reader has taken."""
        self._lane = lane
        self._to = to
        self._buffer = bytearray()
        self._sent = self._arrived = 0
        self._is_over = False
        self._under_way: deque[tuple[float, Moment]] = deque()
        self._reader: Reading | None = read(self)
        next(self._reader)

    # -- The pipe tells ---------------------------------------------------------------------------

    def put(self, data: Buffer) -> None:
        """Take bytes that leave."""
        self._sent += len(data)
        if self._reader is None:
            return
        self._buffer += data
        try:
            next(self._reader)
        except StopIteration:
            self._reader = None
            self._buffer.clear()

    def taken(self, count: int) -> None:
        """Take notice of bytes that arrived."""
        self._arrived += count
        while self._under_way and self._under_way[0][0] <= self._arrived:
            _, moment = self._under_way.popleft()
            moment.arrived = trio.current_time()

    def ended(self) -> None:
        """Take notice that no byte follows."""
        self._is_over = True
        is_incomplete = any(end > self._sent for end, _ in self._under_way)
        if is_incomplete or not self.talk.is_end_announced:
            self.talk.is_end_announced = True
            self.say("closes").arrived = trio.current_time()
        self._lose(self._sent)

    def cut(self, lost: int) -> None:
        """Take notice that the connection was reset, with so many bytes on their way."""
        self.talk.cut(lost)
        if self._under_way:
            self.talk.matters()
        self._lose(self._arrived)

    def finish(self) -> None:
        """Lose what did not arrive before the end."""
        if self._is_over:
            self._lose(self._arrived)

    def _lose(self, after: int) -> None:
        """Lose the messages whose end lies after so many bytes."""
        while self._under_way and self._under_way[-1][0] > after:
            self._under_way.pop()[1].is_lost = True

    # -- The reader tells -------------------------------------------------------------------------

    def take(self, count: int) -> Generator[None, None, bytes]:
        """Take so many bytes out of the stream."""
        while len(self._buffer) < count:
            yield
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        self.read += count
        return taken

    def take_head(self) -> Generator[None, None, bytes]:
        """Take the head of an HTTP message."""
        while (at := self._buffer.find(HEAD_END)) < 0:
            yield
        return (yield from self.take(at + len(HEAD_END)))

    def say(self, text: str, *, is_routine: bool = False) -> Moment:
        """Note a message that has ended by now; the same again is counted."""
        moments = self.talk.history.moments
        last = moments[-1] if moments else None
        if last and (last.lane, last.to, last.text) == (self._lane, self._to, text):
            last.times += 1
            moment = last
        else:
            moment = self.talk.history.message(self._lane, self._to, text, is_routine=is_routine)
            self.talk.add(moment)
        moment.until = trio.current_time()
        return moment

    def note(self, text: str, *, more: float = 0.0, is_routine: bool = False) -> Moment:
        """Note a message; it arrives with the last byte that was read, or with one ``more`` on."""
        moment = self.say(text, is_routine=is_routine)
        moment.arrived = None
        self._under_way.append((self.read + more, moment))
        return moment

    def end_open(self) -> None:
        """Have the message whose end was open arrive with the last byte that was read."""
        if self._under_way and self._under_way[-1][0] == math.inf:
            self._under_way[-1] = (self.read, self._under_way[-1][1])


# DICOM -------------------------------------------------------------------------------------------


def _pdus(tap: Tap) -> Reading:
    """Read one direction of a connection to a node."""
    command = b""
    while True:
        kind, _, length = codec.PDU.unpack((yield from tap.take(codec.PDU.size)))
        if not codec.ASSOCIATE_RQ <= kind <= codec.ABORT or length > MAX_PDU:
            tap.talk.matters()
            tap.note("bytes that are no PDU")
            return
        body = yield from tap.take(length)
        if kind != codec.P_DATA_TF:
            _note_pdu(tap, kind, body)
            continue
        for control, fragment in _fragments(body):
            if control & 1:
                command += fragment
            if control == 3:
                _note_command(tap, command)
                command = b""
            elif control == 2:
                tap.end_open()


def _note_pdu(tap: Tap, kind: int, body: bytes) -> None:
    talk = tap.talk
    match kind:
        case codec.ASSOCIATE_RQ:
            tap.note("A-ASSOCIATE-RQ")
        case codec.ASSOCIATE_AC:
            tap.note("A-ASSOCIATE-AC")
        case codec.ASSOCIATE_RJ:
            talk.matters()
            talk.is_end_announced = True
            tap.note(f"A-ASSOCIATE-RJ {body[1:].hex()}")
        case codec.RELEASE_RQ:
            tap.note("A-RELEASE-RQ")
        case codec.RELEASE_RP:
            talk.is_end_announced = True
            tap.note("A-RELEASE-RP")
        case _:
            talk.matters()
            talk.is_end_announced = True
            tap.note(f"A-ABORT {body[2:].hex()}")


def _fragments(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the control bits and the content of each fragment, as far as they can be read."""
    at = 0
    while at + codec.PDV.size <= len(body):
        size, _, control = codec.PDV.unpack_from(body, at)
        yield control & 3, body[at + codec.PDV.size : at + 4 + size]
        at += 4 + max(size, 2)


def _note_command(tap: Tap, encoded: bytes) -> None:
    try:
        command = codec.read_command(encoded)
        field = codec.number(command, 0x0100)
    except Violation:
        tap.talk.matters()
        tap.note("a command that cannot be read")
        return
    is_response = bool(field & codec.IS_RESPONSE)
    status = command.get(0x0900, b"")[::-1].hex().upper() if is_response else ""
    field &= ~codec.IS_RESPONSE
    if field != codec.C_ECHO or status.strip("0"):
        tap.talk.matters()
    words = [COMMANDS.get(field, f"command {field:04X}")]
    if uid := command.get(0x1000, b"").rstrip(b"\0").decode("ascii", "replace"):
        words.append(f"…{tail(uid)}")
    text = " ".join(words) + (f": {status}" if status else "")
    has_data = codec.number(command, 0x0800) != codec.NO_DATA_SET
    tap.note(text, more=math.inf if has_data else 0.0)


# HTTP and the WebSocket --------------------------------------------------------------------------


def _requests(tap: Tap) -> Reading:
    """Read what goes to ITH; keys and queries are not noted."""
    while True:
        head = yield from tap.take_head()
        if UPGRADE.search(head):
            tap.note("GET link")
            yield from _frames(tap)
        path = head.split(b" ", 2)[1].partition(b"?")[0].decode("ascii", "replace")
        download = DOWNLOAD.fullmatch(path)
        what = " ".join(download.groups()) if download else path.rpartition("/")[2]
        start = RANGE.search(head)
        tap.note(f"GET {what}" + (f" from byte {int(start[1])}" if start else ""))


def _responses(tap: Tap) -> Reading:
    """Read what comes from ITH."""
    while True:
        head = yield from tap.take_head()
        status = head.split(b" ", 2)[1].decode("ascii", "replace")
        if UPGRADE.search(head):
            tap.note(f"{status}, the link is open")
            yield from _frames(tap)
        tap.talk.is_end_announced = True
        length = LENGTH.search(head)
        size = int(length[1]) if length else 0
        tap.note(f"{status}, {size} bytes" if size else status, more=size)
        yield from tap.take(size)


def _frames(tap: Tap) -> Reading:
    """Read frames of the WebSocket (RFC 6455 section 5.2), for ever."""
    message = b""
    while True:
        first, second = yield from tap.take(2)
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes((yield from tap.take(2 if length == 126 else 8)), "big")
        mask = (yield from tap.take(4)) if second & 0x80 else bytes(4)
        masked = yield from tap.take(length)
        repeated = mask * (length // 4 + 1)
        content = bytes(a ^ b for a, b in zip(masked, repeated, strict=False))
        match first & 0x0F:
            case opcode if opcode >= CLOSE:
                _note_control(tap, opcode, content)
            case _:
                message += content
                if first & 0x80:
                    _note_frame(tap, message)
                    message = b""


def _note_control(tap: Tap, opcode: int, content: bytes) -> None:
    if opcode in {PING, PONG}:
        tap.note("WebSocket ping" if opcode == PING else "WebSocket pong", is_routine=True)
    else:
        tap.talk.is_end_announced = True
        tap.note(f"close {int.from_bytes(content[:2], 'big') or ''}".strip())


def _note_frame(tap: Tap, message: bytes) -> None:
    try:
        frame = json.loads(message)
    except ValueError:
        tap.note("a message that is no JSON")
        return
    text, is_routine = told(frame)
    moment = tap.note(text, is_routine=is_routine)
    moment.is_heard = frame.get("event_type") != "dispatch.status"


def told(frame: JsonObject) -> tuple[str, bool]:
    """Say what a message of the link is, and whether it is a sign of life."""
    name = str(frame.get("event_type") or frame.get("type"))
    order = tail(str(frame.get("correlation_id")))
    payload: JsonObject = frame.get("payload") or {}
    words = [name]
    if name == "dispatch.status":
        words = [order, f"{payload.get('node_id') or 'all'}:", str(payload["status"])]
        words.append(f"{payload['progress']} %")
    elif name.endswith(".dispatch"):
        words += [order, str(frame["entity_id"]), "→", ", ".join(payload["nodes"])]
    elif name == "proxy.nodes_changed":
        words += [str(payload["changed_action"]), *(str(each["id"]) for each in payload["nodes"])]
    elif name == "proxy.status_changed":
        words.append(str(payload["new_status"]))
    elif name.endswith(".deleted"):
        words.append(str(frame["entity_id"]))
    if payload.get("error"):
        words.append(f"({payload['error']})")
    return " ".join(words), name in SIGNS_OF_LIFE
