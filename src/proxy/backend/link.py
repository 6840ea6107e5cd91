"""The link: the WebSocket to ITH, as the activity ``keep_link`` of the connection machine.

One task reads and never waits for a dispatch: it hands each event to the supervisor, which is
synchronous. One task writes; all others put frames into its channel, because a send that is
cancelled half-way leaves a torn frame, which breaks the link for all of them. The durable reports
come from the outbox, and are sent again on the next link until their arrival is proven
(``receipts.py``).
"""

from __future__ import annotations

import ssl
from functools import partial
from typing import Protocol, TypeAlias

import trio
from trio_websocket import WebSocketConnection

from proxy.backend.receipts import Receipts
from proxy.backend.upgrade import explain, open_websocket
from proxy.errors import LinkEvicted, LinkRefused, first
from proxy.events.base import new_correlation_id, wire_time
from proxy.events.codec import decode
from proxy.events.incoming import (
    ConfigUpdateResponse,
    Connected,
    HealthUpdateResponse,
    Incoming,
    PingEvent,
)
from proxy.events.outgoing import ConfigUpdate, HealthUpdate, PongEvent, ProxyHeartbeatEvent
from proxy.logs import log
from proxy.machines import connection, policy
from proxy.machines.connection import ConnectionData as LinkData
from proxy.machines.connection import ConnectionOutput, ConnectionState
from proxy.reporting.outbox import Outbox, Parcel
from proxy.runtime import marks
from proxy.runtime.clock import Clock
from proxy.runtime.marks import Mark
from proxy.runtime.rng import Random
from proxy.runtime.runner import Run
from proxy.settings import IthSettings, Secret

ConnectionRun: TypeAlias = Run[ConnectionState, LinkData, ConnectionOutput]

SILENCE_SECONDS = 2.0
"""Seconds of silence after which ITH is assumed to wait for our first message."""

LAST_ANSWER_SECONDS = 1.0
"""Seconds of the wait for the answer to our last ``health_update``, between pong and close."""

CHANNEL = 64
"""The most frames that wait for the writing task: pongs and signs of life, never reports."""


class Inbox(Protocol):
    """The receiver of ITH's messages: the supervisor."""

    def handle(self, event: Incoming) -> None:
        """Act on one event of ITH, without waiting."""
        ...

    def welcome(self, workspace_id: str, proxy_id: str) -> None:
        """Take the ids under which ITH knows this proxy and its workspace."""
        ...

    def came_online(self) -> None:
        """Act on the link being up."""
        ...

    def look(self) -> None:
        """Have ITH's configuration fetched."""
        ...

    async def configured(self) -> None:
        """Wait until ITH's configuration is known."""
        ...


class SignsOfLife(Protocol):
    """The source of messages about the state of the proxy: the heartbeat."""

    def greeting(self, local_address: str) -> ConfigUpdate | None:
        """Build the message with this proxy's address; None before ITH's configuration is known."""
        ...

    def health(self, *, online: bool) -> HealthUpdate:
        """Build the message with the nodes' state, which the deployed backend reads."""
        ...

    def heartbeat(self) -> ProxyHeartbeatEvent | None:
        """Build the message with the proxy's state; None before its workspace is known."""
        ...


class Link:
    """Keeps one WebSocket to ITH while the connection machine is in a state of ``WIRED``."""

    def __init__(
        self,
        ith: IthSettings,
        key: Secret,
        inbox: Inbox,
        vitals: SignsOfLife,
        outbox: Outbox,
        *,
        context: ssl.SSLContext | None,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._ith = ith
        self._key = key
        self._inbox = inbox
        self._vitals = vitals
        self._outbox = outbox
        self._context = context
        self._clock = clock
        self._rng = rng

    def run(self) -> ConnectionRun:
        """Make the run of the connection machine that keeps this link."""
        data = LinkData(
            handshake_seconds=self._ith.handshake_seconds,
            timeout_retry_seconds=5.0 * (0.5 + self._rng.random()),
            stable_seconds=self._ith.stable_seconds,
            refused_seconds=self._ith.refused_seconds,
            evicted_seconds=self._ith.evicted_seconds,
            timeout_retry_max_seconds=self._ith.backoff_max_seconds,
        )
        return Run(connection.CONNECTION, data, {"keep_link": self.keep_link}, self._emit)

    def _emit(self, output: ConnectionOutput) -> None:
        match output:
            case connection.AnnounceOnline():
                log("link.online")
                self._inbox.came_online()
            case connection.AnnounceOffline(error):
                log("link.offline", problem=error)

    async def keep_link(self, run: ConnectionRun) -> None:
        """Connect, shake hands and exchange frames until the link ends; report the reason."""
        ending: BaseException | None = None
        try:
            async with open_websocket(self._ith, self._key, self._context) as (websocket, local):
                run.tell(connection.LinkOpened())
                talk = Conversation(
                    self._ith, run, websocket, local, clock=self._clock, rng=self._rng
                )
                await talk.hold(self._inbox, self._vitals, self._outbox)
        except* Exception as endings:  # noqa: BLE001 - a link is tried again after any error
            ending = first(endings)
        run.tell(connection.LinkClosed() if ending is None else self._fact(run, ending))

    def _fact(
        self, run: ConnectionRun, ending: BaseException
    ) -> connection.LinkDropped | connection.KeyRefused | connection.KeyTaken:
        """Return the machine's event for the end of a link."""
        error, least = explain(ending)
        log("link.lost", level="warning", error=error)
        match error:
            case LinkRefused():
                return connection.KeyRefused(str(error))
            case LinkEvicted():
                return connection.KeyTaken(str(error))
            case _:
                attempt, cap = run.data.attempts + 1, self._ith.backoff_max_seconds
                wait = policy.full_jitter(attempt, 1.0, cap, self._rng.random())
                return connection.LinkDropped(str(error), max(wait, least))


class Conversation:
    """The exchange of frames over one open WebSocket."""

    def __init__(
        self,
        ith: IthSettings,
        run: ConnectionRun,
        websocket: WebSocketConnection,
        local: str,
        *,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._ith = ith
        self._run = run
        self._websocket = websocket
        self._local = local
        self._clock = clock
        self._new_correlation_id = partial(new_correlation_id, rng.getrandbits)
        self._reading = trio.CancelScope()
        self._heard = trio.Event()
        self._written = trio.Event()
        self._frames, self._to_write = trio.open_memory_channel[str | HealthUpdate | Parcel](
            CHANNEL
        )

    async def hold(self, inbox: Inbox, vitals: SignsOfLife, outbox: Outbox) -> None:
        """Exchange frames until the machine is CLOSING, then close in order.

        Raises trio-websocket's ``ConnectionClosed`` if the other side ends it, and
        ``trio.TooSlowError`` if a ping stays unanswered.
        """
        outbox.rewind()
        receipts = Receipts(
            outbox, updates=self._ith.health_update, patience=self._ith.pong_seconds
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, inbox, receipts)
            nursery.start_soon(self._write, outbox, receipts)
            nursery.start_soon(self._prove_alive, receipts)
            async with trio.open_nursery() as talkers:
                talkers.start_soon(self._talk, inbox, vitals, outbox)
                await self._run.until(ConnectionState.CLOSING)
                talkers.cancel_scope.cancel("the link is closing")
            await self._say_goodbye(vitals, receipts)
            nursery.cancel_scope.cancel("the link is closed")

    async def _say_goodbye(self, vitals: SignsOfLife, receipts: Receipts) -> None:
        """Write the frames in the channel, wait for the proof of their arrival, close with 1000."""
        if self._ith.health_update:
            await self._frames.send(vitals.health(online=False))
        self._frames.close()
        await self._written.wait()
        await self._round_trip(receipts)
        with trio.move_on_after(LAST_ANSWER_SECONDS):
            await receipts.settled()
        self._reading.cancel("nothing more is wanted of ITH")
        await self._websocket.aclose(1000, "the proxy stops")

    async def _read(self, inbox: Inbox, receipts: Receipts) -> None:
        with self._reading:
            while True:
                frame = await self._websocket.get_message()
                message = decode(frame, new_correlation_id=self._new_correlation_id)
                if isinstance(message, HealthUpdateResponse):
                    receipts.answered()
                self._take(message, inbox)

    def _take(self, message: Incoming, inbox: Inbox) -> None:
        if not self._heard.is_set():
            self._heard.set()
            self._run.tell(connection.HandshakeDone())
        match message:
            case PingEvent(correlation_id=correlation_id):
                timestamp = wire_time(self._clock.now())
                pong = PongEvent.create(correlation_id=correlation_id, timestamp=timestamp)
                self._say(pong.to_json())
            case Connected():
                inbox.welcome(message.workspace_id, message.proxy_id)
            case ConfigUpdateResponse() | HealthUpdateResponse():
                if not message.ok:
                    log("link.response", level="warning", event_type=message.type)
            case _:
                inbox.handle(message)

    def _say(self, frame: str) -> None:
        """Put a pong into the channel; a full channel means that ITH does not read."""
        try:
            self._frames.send_nowait(frame)
        except trio.WouldBlock:
            log("link.pong_dropped", level="warning")
        except trio.ClosedResourceError:
            pass  # the link is closing: the last frame has been put in

    async def _write(self, outbox: Outbox, receipts: Receipts) -> None:
        async for item in self._to_write:
            match item:
                case Parcel():
                    await self._websocket.send_message(item.frame)
                    outbox.sent(item)
                    if item.report_id is not None:
                        marks.reached(Mark.REPORT_SENT)
                case HealthUpdate():
                    receipts.asking()  # before the send: the answer may come during it
                    await self._websocket.send_message(item.to_json())
                case str():
                    await self._websocket.send_message(item)
        self._written.set()

    async def _talk(self, inbox: Inbox, vitals: SignsOfLife, outbox: Outbox) -> None:
        """Send the messages of our own, once ITH has spoken or waits for our first message."""
        with trio.move_on_after(min(SILENCE_SECONDS, self._ith.handshake_seconds / 2)) as silence:
            await self._heard.wait()
        if silence.cancelled_caught:
            await self._speak_first(inbox, vitals)
        async with trio.open_nursery() as talkers:
            talkers.start_soon(self._greet, inbox, vitals)
            await self._heard.wait()
            if self._ith.health_update:  # before any report: its answer decides on their proof
                await self._frames.send(vitals.health(online=True))
                talkers.start_soon(self._say_health, vitals)
            talkers.start_soon(self._carry_reports, outbox)
            talkers.start_soon(self._say_heartbeat, vitals)

    async def _speak_first(self, inbox: Inbox, vitals: SignsOfLife) -> None:
        """Send the message that needs no configuration, and have the configuration fetched."""
        inbox.look()
        if self._ith.health_update:
            await self._frames.send(vitals.health(online=True))

    async def _greet(self, inbox: Inbox, vitals: SignsOfLife) -> None:
        """Send our address once the configuration is known: ITH stores the message as it is."""
        await inbox.configured()
        if (greeting := vitals.greeting(self._local)) is not None:
            await self._frames.send(greeting.to_json())

    async def _carry_reports(self, outbox: Outbox) -> None:
        while True:
            await self._frames.send(await outbox.take())

    async def _prove_alive(self, receipts: Receipts) -> None:
        await self._heard.wait()
        while True:
            await trio.sleep(self._ith.ping_seconds)
            if self._written.is_set():
                return  # the goodbye has its own ping; a close fails a ping that is under way
            await self._round_trip(receipts)

    async def _round_trip(self, receipts: Receipts) -> None:
        """Ping and wait for the pong; ITH's WebSocket has then taken all that was sent before."""
        mark = receipts.pinging()
        with trio.fail_after(self._ith.pong_seconds):
            await self._websocket.ping()
        receipts.ponged(mark)

    async def _say_health(self, vitals: SignsOfLife) -> None:
        while True:
            await trio.sleep(self._ith.health_seconds)
            await self._frames.send(vitals.health(online=True))

    async def _say_heartbeat(self, vitals: SignsOfLife) -> None:
        while self._ith.heartbeat:
            heartbeat = vitals.heartbeat()
            if heartbeat is not None:
                await self._frames.send(heartbeat.to_json())
            await trio.sleep(self._ith.heartbeat_seconds)
