from __future__ import annotations

import json
import random

import pytest
from msgspec import UNSET

from proxy.events import Incoming, decode
from proxy.events.incoming import (
    BrokenFrame,
    ConfigUpdateResponse,
    Connected,
    PingEvent,
    ScanDispatchEvent,
    SessionDispatchEvent,
    UnknownEvent,
)
from tests.events.frames import CONTROL, CONTROL_PING, FLAT, NESTED, REFUSED_CONFIG_UPDATE

WORN = ("workspace_id", "timestamp", "correlation_id", "entity_type", "entity_id")

PRIVATE = ("P-00", "0042", "visit", "subj-", "sess-1", "READROOM", "1.2.826", "Planned")


def plain(message: Incoming) -> object:
    assert not isinstance(message, BrokenFrame), message
    return message.to_dict()


@pytest.mark.parametrize("frame", [*FLAT.values(), *CONTROL.values()])
def test_what_the_document_shows_goes_in_and_comes_out_again(frame: str) -> None:
    assert plain(decode(frame)) == json.loads(frame)
    assert decode(frame.encode()) == decode(frame)


@pytest.mark.parametrize("frame", FLAT.values())
def test_key_order_does_not_matter(frame: str) -> None:
    backwards = dict(reversed(json.loads(frame).items()))
    assert decode(json.dumps(backwards)) == decode(frame)


@pytest.mark.parametrize("frame", FLAT.values())
def test_an_envelope_changes_nothing(frame: str) -> None:
    event = json.loads(frame)
    envelopes: list[dict[str, object]] = [
        {"payload": event},
        {"payload": {"payload": event, "event_type": "x"}},
        {"type": "message", "payload": event, "seq": 7},
        {"event_type": event["event_type"], "payload": event},
        {"event_type": "scan.praised", "entity_type": "scan", "payload": event},
        {"event_type": None, "workspace_id": None, "entity_id": None, "payload": event},
    ]
    for envelope in envelopes:
        inside = decode(json.dumps(envelope | dict.fromkeys(WORN, "outer")))
        worn = {key: "outer" for key in WORN if not event[key]}
        assert plain(inside) == event | worn


def test_the_nested_example_is_the_flat_one() -> None:
    assert decode(NESTED) == decode(FLAT["session.dispatch"])


def test_the_envelope_fills_gaps_of_the_event_in_it() -> None:
    event = json.loads(FLAT["session.dispatch"])
    outer = {key: event.pop(key) for key in list(event) if key not in {"event_type", "payload"}}
    assert len(outer) == 5
    assert decode(json.dumps({**outer, "payload": event})) == decode(FLAT["session.dispatch"])
    nulls = dict.fromkeys(outer)
    assert decode(json.dumps({**outer, "payload": {**event, **nulls}})) == decode(
        FLAT["session.dispatch"]
    )


def test_a_complete_payload_that_names_an_event_is_the_event() -> None:
    event = json.loads(FLAT["session.dispatch"])
    inner = json.loads(FLAT["scan.dispatch"])
    event["payload"].update(inner)
    message = decode(json.dumps(event))
    assert isinstance(message, ScanDispatchEvent)
    assert message.entity_id == "scan-1"


def test_an_event_type_in_a_payload_that_is_no_text_is_ignored() -> None:
    event = json.loads(FLAT["session.dispatch"])
    event["payload"]["event_type"] = 7
    assert decode(json.dumps(event)) == decode(FLAT["session.dispatch"])


def test_both_ping_dialects_are_one_event() -> None:
    control, event = decode(CONTROL_PING), decode(FLAT["ping"])
    assert isinstance(control, PingEvent)
    assert isinstance(event, PingEvent)
    assert (control.type, event.type) == ("ping", UNSET)
    assert control.timestamp == event.timestamp == "2026-03-01T08:00:30.000Z"
    assert control.event_type == event.event_type == "ping"
    assert control.to_dict()["type"] == "ping"


def test_type_is_read_before_event_type() -> None:
    event = json.loads(FLAT["session.dispatch"])
    assert isinstance(decode(json.dumps(event | {"type": "ping"})), PingEvent)
    answer = decode(json.dumps(event | {"type": "config_update_response", "status": "success"}))
    assert isinstance(answer, ConfigUpdateResponse)
    assert decode(json.dumps(event | {"type": "event"})) == decode(FLAT["session.dispatch"])
    assert decode(json.dumps(event | {"type": None})) == decode(FLAT["session.dispatch"])


def test_control_messages_may_say_more_than_we_know() -> None:
    frame = json.loads(CONTROL["connected"]) | {"region": "eu", "limits": {"a": [1]}}
    message = decode(json.dumps(frame))
    assert isinstance(message, Connected)
    assert message.proxy_id == "c1a5b0aa-77a4-4c56-8b8e-2f3d9a7b0b02"


def test_a_refused_update_says_why() -> None:
    message = decode(REFUSED_CONFIG_UPDATE)
    assert isinstance(message, ConfigUpdateResponse)
    assert (message.ok, message.error, message.fields_updated) == (False, "port is not valid", ())


def test_an_unknown_event_is_kept_whole() -> None:
    event = json.loads(FLAT["session.dispatch"]) | {"event_type": "session.merged"}
    message = decode(json.dumps(event))
    assert isinstance(message, UnknownEvent)
    assert message.to_dict() == event
    assert decode(json.dumps({"payload": event})) == message


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        ('{"type":"welcome","payload":[1]}', "welcome"),
        ('{"event_type":"a.b","workspace_id":7,"entity_id":{},"correlation_id":null}', "a.b"),
        ('{"event_type":"pong"}', "pong"),
    ],
)
def test_unknown_names_are_reported(frame: str, name: str) -> None:
    message = decode(frame)
    assert isinstance(message, UnknownEvent)
    assert message.event_type == name
    assert message.entity_id is None


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("", "the frame is not JSON"),
        ("hello", "the frame is not JSON"),
        (b"\xff\xfe", "the frame is not JSON"),
        ('"\ud800"', "the frame is not JSON"),
        ('{"event_type":"ping"', "the frame is not JSON"),
        ("[]", "the frame is not a JSON object"),
        ("null", "the frame is not a JSON object"),
        ("{}", "the frame has no usable event_type and no usable type"),
        ('{"event_type":7,"type":"x"}', "the frame has no usable event_type and no usable type"),
        ('{"event_type":"ZZCANARY PHI"}', "the frame has no usable event_type and no usable type"),
        ('{"type":["ping"]}', "the frame has no usable event_type and no usable type"),
        (
            '{"event_type":"' + "x" * 65 + '"}',
            "the frame has no usable event_type and no usable type",
        ),
        ('{"a":' * 100_000, "the frame is nested too deeply"),
        (
            '{"event_type":"ping","payload":' + '{"a":' * 100_000 + "1" + "}" * 100_001,
            "the frame is nested too deeply",
        ),
    ],
)
def test_a_broken_frame_says_why_and_how_long_it_is(frame: str | bytes, reason: str) -> None:
    assert decode(frame) == BrokenFrame(reason, len(frame))


def test_a_hundred_thousand_damaged_frames_raise_nothing() -> None:
    rng = random.Random(20260301)
    whole = [f.encode() for f in (*FLAT.values(), *CONTROL.values(), CONTROL_PING, NESTED)]
    seen: dict[type[Incoming], int] = {}
    for _ in range(100_000):
        message = decode(damaged(rng, whole))
        seen[type(message)] = seen.get(type(message), 0) + 1
        if isinstance(message, BrokenFrame):
            assert not any(word in message.reason for word in PRIVATE), message.reason
    assert sum(seen.values()) == 100_000
    assert seen[BrokenFrame] > 10_000
    assert seen[UnknownEvent] > 100
    assert seen[SessionDispatchEvent] > 100


def damaged(rng: random.Random, whole: list[bytes]) -> bytes:
    frame = bytearray(rng.choice(whole))
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(frame) + 1)
        match rng.randrange(6):
            case 0:
                frame[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del frame[at:]
            case 2:
                other = rng.choice(whole)
                frame[at:] = other[rng.randrange(len(other)) :]
            case 3:
                token = rng.choice([b"null", b"[]", b"{}", b'"7"', b"1e999", b"-0", b"\\ud800"])
                frame[at : at + rng.randrange(8)] = token
            case 4:
                depth = rng.choice([10, 500, 5000])
                frame[at:at] = rng.choice([b"[", b'{"a":', b'{"payload":']) * depth
            case _:
                del frame[at : at + rng.randrange(20)]
    return bytes(frame)
