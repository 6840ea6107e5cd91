"""The connection to ITH: one WebSocket, kept for as long as the program runs."""

from __future__ import annotations

import math
from enum import Enum
from typing import ClassVar, TypeAlias

import msgspec

from proxy.fsm import (
    STAY,
    ActivityFailed,
    Event,
    Machine,
    Source,
    group,
    ignore,
    limit,
    row,
    state,
)


class ConnectionState(Enum):
    """The states of the connection."""

    OFFLINE = "The link is not started."
    CONNECTING = "TCP, TLS and the WebSocket upgrade are under way."
    HANDSHAKING = "The WebSocket is open. The proxy waits for the first message of ITH."
    ONLINE = "Events and reports flow."
    BACKING_OFF = "The link was lost or could not be made. The proxy waits before the next attempt."
    REFUSED = "ITH refused the proxy key. The proxy waits long, because only a person can help."
    EVICTED = (
        "Another program connected with the same key. The proxy waits long and does not evict it."
    )
    CLOSING = "The close frame was sent. The proxy waits for the answer of ITH."
    CLOSED = "The program stops. The link is gone."


class ConnectRequested(Event, frozen=True):
    """The service starts the link, or the operator asks for an attempt at once."""

    source: ClassVar[Source] = Source.SUPERVISOR


class CloseRequested(Event, frozen=True):
    """The program stops."""

    source: ClassVar[Source] = Source.SUPERVISOR
    reason: str


class LinkOpened(Event, frozen=True):
    """ITH accepted the WebSocket upgrade."""

    source: ClassVar[Source] = Source.PEER


class HandshakeDone(Event, frozen=True):
    """The first message of ITH came."""

    source: ClassVar[Source] = Source.PEER


class LinkDropped(Event, frozen=True):
    """The attempt failed, or the link was lost."""

    source: ClassVar[Source] = Source.PEER
    error: str
    retry_in: float


class KeyRefused(Event, frozen=True):
    """ITH answered 401 or 403, or closed with 4001 or 4003."""

    source: ClassVar[Source] = Source.PEER
    error: str


class KeyTaken(Event, frozen=True):
    """ITH closed with 4002: a newer connection has the same key."""

    source: ClassVar[Source] = Source.PEER
    error: str


class LinkClosed(Event, frozen=True):
    """The orderly close is done."""


class ConnectTimedOut(Event, frozen=True):
    """The WebSocket did not open in time."""

    source: ClassVar[Source] = Source.TIMER


class HandshakeTimedOut(Event, frozen=True):
    """No message came in time."""

    source: ClassVar[Source] = Source.TIMER


class StayedUp(Event, frozen=True):
    """The link has been up for long enough to count as stable."""

    source: ClassVar[Source] = Source.TIMER


class RetryDue(Event, frozen=True):
    """The wait is over."""

    source: ClassVar[Source] = Source.TIMER


class CloseTimedOut(Event, frozen=True):
    """ITH did not answer the close frame in time."""

    source: ClassVar[Source] = Source.TIMER


class ConnectionData(msgspec.Struct, frozen=True):
    """The data of the connection: attempts that failed since it was last stable, and seconds."""

    attempts: int = 0
    retry_in: float = 0.0
    error: str | None = None
    connect_seconds: float = 20.0
    handshake_seconds: float = 10.0
    stable_seconds: float = 60.0
    timeout_retry_seconds: float = 5.0
    timeout_retry_max_seconds: float = 300.0
    refused_seconds: float = 300.0
    evicted_seconds: float = 300.0
    close_seconds: float = 2.0


class AnnounceOnline(msgspec.Struct, frozen=True):
    """Output: fetch the configuration and send the reports kept for ITH."""


class AnnounceOffline(msgspec.Struct, frozen=True):
    """Output: keep reports until the link is back."""

    error: str


ConnectionOutput: TypeAlias = AnnounceOnline | AnnounceOffline
_Result: TypeAlias = tuple[ConnectionData, tuple[ConnectionOutput, ...]]

replace = msgspec.structs.replace


def come_online(link: ConnectionData, event: HandshakeDone) -> _Result:
    """Begin to work with ITH."""
    return replace(link, error=None), (AnnounceOnline(),)


def call_stable(link: ConnectionData, event: StayedUp) -> _Result:
    """Forget the failed attempts, because this link is stable."""
    return replace(link, attempts=0), ()


def keep_error(link: ConnectionData, event: LinkDropped) -> _Result:
    """Count the attempt, keep its error and the time to wait."""
    attempts = link.attempts + 1
    return replace(link, attempts=attempts, error=event.error, retry_in=event.retry_in), ()


def go_offline(link: ConnectionData, event: LinkDropped) -> _Result:
    """Count the attempt as ``keep_error`` does, and report that the link is gone."""
    link, _ = keep_error(link, event)
    return link, (AnnounceOffline(event.error),)


def time_out(link: ConnectionData, event: ConnectTimedOut | HandshakeTimedOut) -> _Result:
    """Count the attempt, and name the answer that is missing."""
    if isinstance(event, ConnectTimedOut):
        error = "ITH did not answer in time"
    else:
        error = "ITH opened the WebSocket and then sent nothing"
    return _wait_longer(link, error), ()


def fail_inside(link: ConnectionData, event: ActivityFailed) -> _Result:
    """Count the attempt, and report that the proxy itself failed and the link is gone."""
    error = f"internal error: {event.error}"
    return _wait_longer(link, error), (AnnounceOffline(error),)


def _wait_longer(link: ConnectionData, error: str) -> ConnectionData:
    """Count an attempt without a given wait, and wait twice as long as the last time."""
    attempts = link.attempts + 1
    wait = min(
        link.timeout_retry_seconds * 2.0 ** min(attempts, 32), link.timeout_retry_max_seconds
    )
    return replace(link, attempts=attempts, error=error, retry_in=wait)


def keep_refusal(link: ConnectionData, event: KeyRefused | KeyTaken) -> _Result:
    """Keep the reason that ITH gave, and report that the link is gone."""
    return replace(link, error=event.error), (AnnounceOffline(event.error),)


(
    OFFLINE,
    CONNECTING,
    HANDSHAKING,
    ONLINE,
    BACKING_OFF,
    REFUSED,
    EVICTED,
    CLOSING,
    CLOSED,
) = ConnectionState
WIRED = group("WIRED", CONNECTING, HANDSHAKING, ONLINE, doc="A link is being made, or it is open.")
WAITS = group(
    "WAITS", BACKING_OFF, REFUSED, EVICTED, doc="There is no link, and the next attempt is timed."
)

CONNECTION: Machine[ConnectionState, ConnectionData, ConnectionOutput] = Machine(
    name="connection",
    purpose=__doc__,
    initial=OFFLINE,
    final=frozenset({CLOSED}),
    groups=(WIRED, WAITS),
    definitions=(
        state(OFFLINE, untimed="the service starts it when the ledger is open"),
        state(
            CONNECTING,
            do="keep_link",
            after=limit(lambda link: link.connect_seconds, ConnectTimedOut, "20 s"),
        ),
        state(
            HANDSHAKING,
            do="keep_link",
            after=limit(
                lambda link: link.handshake_seconds,
                HandshakeTimedOut,
                "ith.handshake_seconds (10 s)",
            ),
        ),
        state(
            ONLINE,
            do="keep_link",
            after=limit(
                lambda link: link.stable_seconds if link.attempts else math.inf,
                StayedUp,
                "ith.stable_seconds (60 s), while a failure is remembered; the link itself is "
                "bounded by the pong deadline",
            ),
        ),
        state(
            BACKING_OFF,
            after=limit(
                lambda link: link.retry_in,
                RetryDue,
                "full jitter up to ith.backoff_max_seconds; from 5 s after a time limit",
            ),
        ),
        state(
            REFUSED,
            after=limit(lambda link: link.refused_seconds, RetryDue, "ith.refused_seconds (300 s)"),
        ),
        state(
            EVICTED,
            after=limit(lambda link: link.evicted_seconds, RetryDue, "ith.evicted_seconds (300 s)"),
        ),
        state(
            CLOSING,
            do="keep_link",
            after=limit(lambda link: link.close_seconds, CloseTimedOut, "2 s"),
        ),
    ),
    rows=(
        row(
            "CON-01",
            OFFLINE,
            ConnectRequested,
            CONNECTING,
            doc="The service starts the link.",
            traces=("REQ-PROT-01",),
        ),
        row(
            "CON-02",
            CONNECTING,
            LinkOpened,
            HANDSHAKING,
            doc="ITH accepted the proxy key.",
            traces=("REQ-PROT-01",),
        ),
        row(
            "CON-03",
            HANDSHAKING,
            HandshakeDone,
            ONLINE,
            come_online,
            doc="The first message of ITH completes the handshake.",
            traces=("REQ-PROT-05", "REQ-PROT-08"),
        ),
        row(
            "CON-04",
            ONLINE,
            StayedUp,
            STAY,
            call_stable,
            doc="Only a stable link resets the back-off.",
            traces=("REQ-PROT-11", "REQ-REL-08"),
        ),
        row(
            "CON-05",
            (CONNECTING, HANDSHAKING),
            LinkDropped,
            BACKING_OFF,
            keep_error,
            doc="The attempt to make a link failed.",
            traces=("REQ-PROT-07", "REQ-PROT-11", "REQ-REL-08"),
        ),
        row(
            "CON-06",
            ONLINE,
            LinkDropped,
            BACKING_OFF,
            go_offline,
            doc="The link was lost.",
            traces=("REQ-PROT-11", "REQ-PROT-15", "REQ-PROT-20"),
        ),
        row(
            "CON-07",
            CONNECTING,
            ConnectTimedOut,
            BACKING_OFF,
            time_out,
            doc="An attempt that takes too long has failed.",
            traces=("REQ-PROT-07", "REQ-REL-08"),
        ),
        row(
            "CON-08",
            HANDSHAKING,
            HandshakeTimedOut,
            BACKING_OFF,
            time_out,
            doc="A silent server is not ITH.",
            traces=("REQ-PROT-07", "REQ-REL-08"),
        ),
        row(
            "CON-09",
            WIRED,
            KeyRefused,
            REFUSED,
            keep_refusal,
            doc="Only a person can help.",
            traces=("REQ-PROT-09",),
        ),
        row(
            "CON-10",
            WIRED,
            KeyTaken,
            EVICTED,
            keep_refusal,
            doc="Two programs with one key would evict each other without end.",
            traces=("REQ-PROT-10",),
        ),
        row(
            "CON-11",
            WAITS,
            (RetryDue, ConnectRequested),
            CONNECTING,
            doc="The wait is over, or the operator asked for an attempt at once.",
            traces=("REQ-PROT-09", "REQ-PROT-10", "REQ-PROT-11", "REQ-PROT-01"),
        ),
        row(
            "CON-13",
            (OFFLINE, CONNECTING, *WAITS),
            CloseRequested,
            CLOSED,
            doc="Without an open link there is nothing to close in order.",
            traces=("REQ-PROM-3", "REQ-PROT-13"),
        ),
        row(
            "CON-14",
            (HANDSHAKING, ONLINE),
            CloseRequested,
            CLOSING,
            doc="The link is closed in order, with close code 1000.",
            traces=("REQ-PROT-13",),
        ),
        row(
            "CON-15",
            CLOSING,
            LinkClosed,
            CLOSED,
            doc="ITH answered the close frame.",
            traces=("REQ-PROT-13",),
        ),
        row(
            "CON-16",
            CLOSING,
            CloseTimedOut,
            CLOSED,
            doc="The proxy does not wait longer than the limit.",
            traces=("REQ-PROT-13",),
        ),
        row(
            "CON-17",
            CLOSING,
            (LinkDropped, KeyRefused, KeyTaken, ActivityFailed),
            CLOSED,
            doc="The link was to be closed, and its loss has the same effect.",
            traces=("REQ-PROT-13", "REQ-OPS-06"),
        ),
        row(
            "CON-20",
            WIRED,
            ActivityFailed,
            BACKING_OFF,
            fail_inside,
            doc="A defect ends one link, and a wait follows before the next one.",
            traces=("REQ-PROT-11", "REQ-OPS-06"),
        ),
    ),
    ignores=(
        ignore(
            "CON-80",
            (*WIRED, CLOSING),
            ConnectRequested,
            doc="The link is open or being made, or it must not come back.",
        ),
        ignore("CON-81", CLOSING, CloseRequested, doc="The link is being closed already."),
        ignore(
            "CON-82",
            (HANDSHAKING, ONLINE, BACKING_OFF, CLOSING),
            LinkOpened,
            doc="A link opens once; one that opens too late is dropped.",
        ),
        ignore(
            "CON-83",
            (CONNECTING, ONLINE, BACKING_OFF, CLOSING),
            HandshakeDone,
            doc="Only the first message of an open link counts.",
        ),
        ignore(
            "CON-84",
            BACKING_OFF,
            (LinkDropped, KeyRefused, KeyTaken),
            doc="The attempt ended in the same instant, and the next one reports the same fact.",
        ),
        ignore(
            "CON-87",
            (*WIRED, BACKING_OFF),
            LinkClosed,
            doc="An orderly close begins in CLOSING alone; elsewhere the link was dropped.",
        ),
    ),
    retired={
        "CON-12": "CON-11",
        "CON-18": "CON-17",
        "CON-19": "CON-17",
        "CON-21": "CON-17",
        "CON-85": "CON-84",
        "CON-86": "CON-84",
    },
    notes=(
        "The state of the link is not kept on disk. Final reports are kept until an hour after the "
        "proof of their arrival. All of them without a proof, and those of the last hour, are "
        "sent again on the next link.",
        "A link is alive only if ITH answers our own ping within ith.pong_seconds.",
    ),
)
