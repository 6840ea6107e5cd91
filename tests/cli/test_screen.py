"""The status as text: a line for each problem, all within one screen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest
from msgspec.structs import replace

from proxy.cli.screen import age, screen
from proxy.control.attention import attention
from proxy.control.messages import (
    Attention,
    ConnectionStatus,
    DeliveryStatus,
    DispatchStatus,
    LockStatus,
    NodeStatus,
    Note,
    OperationStatus,
    Status,
)

pytestmark = pytest.mark.pure

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
AN_HOUR_AGO = NOW - timedelta(minutes=61)
ACTIVE = OperationStatus("active", AN_HOUR_AGO, ())
ONLINE = ConnectionStatus("online", online=True, since=AN_HOUR_AGO, error=None)
NODE = NodeStatus("n-1", "PACS", "online", None)
LOST = ConnectionStatus("backing_off", online=False, since=AN_HOUR_AGO, error="The link broke")
OPERATOR = LockStatus("operator", "new switch", AN_HOUR_AGO)
ITH = LockStatus("backend", "paused by ITH (maintenance)", None)


HEALTHY = """\
ith-proxy 2.0.0

Operation   active for 1 h
Link to ITH online for 1 h
Nodes       1 online
Dispatches  1 held
Reports     2 waiting for ITH
Disk        1.3 GiB

Nothing needs attention.

Nodes
  PACS  online

Dispatches, oldest first
  corr-1  urgent session  delivering  PACS 12/48 storing"""


def a_status(
    operation: OperationStatus = ACTIVE,
    connection: ConnectionStatus = ONLINE,
    *nodes: NodeStatus,
    dispatches: tuple[DispatchStatus, ...] = (),
) -> Status:
    notes = attention(operation, connection, nodes, is_configured=True)
    return Status(
        version="2.0.0",
        at=NOW,
        healthy=not notes,
        attention=notes,
        operation=operation,
        connection=connection,
        node_counts={"online": 1},
        nodes=nodes,
        dispatch_counts={"held": len(dispatches)} if dispatches else {},
        dispatches=dispatches,
        queued_reports=2,
        disk_usage_gb=1.26,
    )


def text(status: Status, width: int = 100) -> str:
    lines = [click.unstyle(line) for line in screen(status, width)]
    assert all(len(line) <= width and line == line.rstrip() for line in lines)
    return "\n".join(lines)


def test_a_healthy_proxy_in_whole() -> None:
    part = DeliveryStatus("n-1", "storing", 12, 0, 48, None)
    dispatch = DispatchStatus("corr-1", "session", "urgent", "delivering", None, (part,))
    assert text(a_status(ACTIVE, ONLINE, NODE, dispatches=(dispatch,))) == HEALTHY


def test_everything_that_is_wrong_is_said_with_what_to_do() -> None:
    paused = OperationStatus("paused", AN_HOUR_AGO, (ITH, OPERATOR))
    dead = replace(NODE, state="offline", error="no answer. Start it.")
    shown = text(a_status(paused, LOST, dead))
    for line in (
        "Operation   paused for 1 h",
        "            by ITH: paused by ITH (maintenance)",
        "            by the operator: new switch, for 1 h",
        "Link to ITH backing off, not online for 1 h",
        "  ! Paused by the operator: new switch.",
        "    When the reason is gone: ith-proxy resume",
        "    Set the proxy active in ITH; no command here can do that.",
        "  ! There is no link to ITH: The link broke.",
        "  ! Node PACS is offline: no answer. Start it.",
    ):
        assert line in shown.splitlines()


@pytest.mark.parametrize(
    ("operation", "connection", "node", "what"),
    [
        (OperationStatus("paused", NOW, (OPERATOR,)), ONLINE, NODE, "Paused by the operator"),
        (OperationStatus("draining", NOW, ()), ONLINE, NODE, "stopping"),
        (ACTIVE, LOST, NODE, "link to ITH"),
        (ACTIVE, replace(LOST, state="refused", error=None), NODE, "There is no link to ITH."),
        (ACTIVE, ONLINE, replace(NODE, state="offline"), "Node PACS is offline."),
        (ACTIVE, ONLINE, replace(NODE, state="probing"), "Node PACS is offline."),
    ],
)
def test_one_trouble_is_enough(
    operation: OperationStatus, connection: ConnectionStatus, node: NodeStatus, what: str
) -> None:
    (note,) = attention(operation, connection, [node], is_configured=True)
    assert what in note.problem
    assert note.hint


@pytest.mark.parametrize("state", ["unknown", "online", "suspect", "disabled"])
def test_what_mends_itself_or_is_meant_is_no_trouble(state: str) -> None:
    assert attention(ACTIVE, ONLINE, [replace(NODE, state=state)], is_configured=True) == ()


def test_a_proxy_without_configuration_says_so() -> None:
    (note,) = attention(ACTIVE, ONLINE, [], is_configured=False)
    assert "nodes" in note.problem


def test_a_default_reason_is_not_said_twice() -> None:
    lock = LockStatus("operator", "paused by the operator", NOW)
    (note,) = attention(OperationStatus("paused", NOW, (lock,)), ONLINE, [], is_configured=True)
    assert note == Attention("Paused by the operator.", "When the reason is gone: ith-proxy resume")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_busy_site_is_one_screen(width: int) -> None:
    nodes = [
        NodeStatus(f"n-{n}", f"STATION{n:09}", "suspect" if n % 2 else "online", "e" * 300)
        for n in range(40)
    ]
    parts = tuple(DeliveryStatus(n.node_id, "held", 1, 0, 0, None) for n in nodes)
    dispatches = tuple(
        DispatchStatus(f"corr-{n}", "subject", "normal", "held", None, parts) for n in range(500)
    )
    shown = text(a_status(ACTIVE, ONLINE, *nodes, dispatches=dispatches), width)
    assert len(shown.splitlines()) < 40
    assert "and 32 more" in shown
    assert "and 492 more" in shown


def test_nothing_from_outside_moves_the_cursor() -> None:
    dispatch = DispatchStatus("\x1b[2Jcorr", "session", "low", "held", None, ())
    lock = LockStatus("operator", "a\x1b]0;b\x07", NOW)
    shown = text(a_status(OperationStatus("paused", NOW, (lock,)), dispatches=(dispatch,)))
    assert "\x1b" not in shown
    assert "\x07" not in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (90000, "1 d")],
)
def test_an_age_is_told_in_its_largest_unit(seconds: int, words: str) -> None:
    assert age(NOW - timedelta(seconds=seconds), NOW) == words


def test_a_node_that_complained_is_shown_with_what_it_is_given() -> None:
    crowded = replace(NODE, associations=1)
    shown = text(a_status(ACTIVE, ONLINE, crowded))
    assert "  PACS  online  at most 1 at a time: it refused more" in shown.splitlines()
    assert "Nothing needs attention." in shown


NOTE = Note("ITH says something.", "It means this, and " + "much more " * 12 + "besides.")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_note_is_shown_whole_and_needs_no_attention(width: int) -> None:
    shown = text(replace(a_status(ACTIVE, ONLINE, NODE), notes=(NOTE,)), width)
    lines = shown.splitlines()
    assert lines.index("Nothing needs attention.") < lines.index("Good to know")
    assert f"{NOTE.fact} {NOTE.meaning}" in " ".join(shown.split())


def test_a_note_does_not_hide_what_needs_attention() -> None:
    shown = text(replace(a_status(ACTIVE, LOST, NODE), notes=(NOTE,)))
    assert shown.index("Needs attention") < shown.index("Good to know")


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({}, None),
        ({"session.dispatch": 7, "proxy.status_changed": 1}, None),
        ({"proxy.status_changed": 3, "foreign": 2}, "Not obeyed  events: 2 for others"),
        (
            {"unknown": 1, "broken": 4, "failed": 1, "foreign": 2},
            "Not obeyed  events: 2 for others, 4 unreadable, 1 of an unknown type, "
            "1 because of a defect",
        ),
        ({"early": 1}, "Not obeyed  events: 1 before the id of this proxy was known"),
    ],
)
def test_events_that_were_not_obeyed_are_counted_with_the_reason(
    counts: dict[str, int], line: str | None
) -> None:
    shown = text(replace(a_status(ACTIVE, ONLINE, NODE), event_counts=counts))
    assert [each for each in shown.splitlines() if "obeyed" in each] == ([line] if line else [])
    assert "Nothing needs attention." in shown
