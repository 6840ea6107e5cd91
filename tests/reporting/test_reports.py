"""The reports to ITH, in each of the three details."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from proxy.demo.frames import JsonObject
from proxy.events.base import wire_time
from proxy.ledger import Ledger
from proxy.machines.delivery import DeliveryProgress, Outcome
from proxy.model import Entity, EntityType, Order
from proxy.reporting.outbox import Outbox
from proxy.reporting.reports import Detail, Reports
from proxy.runtime.clock import SYSTEM_CLOCK
from proxy.runtime.offload import Inline
from tests.support.clocks import NOON, SetClock

ORDER = Order(Entity(EntityType.SESSION, "sess-1", "subj-1"), ("a", "b"), "corr_1", "ws-1")
COMPLETED, FAILED = Outcome.COMPLETED, Outcome.FAILED


@pytest.fixture
async def outbox(directory: Path, autojump_clock: MockClock) -> AsyncIterator[Outbox]:
    async with Ledger.open(directory / "ledger.db", Inline()) as ledger:
        made = Outbox(ledger, progress_interval=0.0)
        await made.load()
        yield made


async def heard(outbox: Outbox) -> list[JsonObject]:
    """Send all there is to send."""
    frames: list[JsonObject] = []
    while True:
        with trio.move_on_after(0.05):
            parcel = await outbox.take()
            outbox.sent(parcel)
            outbox.confirm(outbox.mark())
            frames.append(json.loads(parcel.frame))
            continue
        return frames


def told(frames: list[JsonObject]) -> list[tuple[object, ...]]:
    payloads = [frame["payload"] for frame in frames]
    return [
        (p.get("node_id"), p["status"], p["progress"], p["files_sent"], p["files_total"])
        for p in payloads
    ]


async def test_the_envelope_echoes_the_order(outbox: Outbox) -> None:
    Reports(outbox, "both", SYSTEM_CLOCK).delivery_over(
        ORDER, "a", COMPLETED, DeliveryProgress(3, 3)
    )
    (frame,) = await heard(outbox)
    assert frame.pop("timestamp").endswith("Z")
    assert frame == {
        "event_type": "dispatch.status",
        "workspace_id": "ws-1",
        "correlation_id": "corr_1",
        "entity_type": "session",
        "entity_id": "sess-1",
        "payload": {
            "node_id": "a",
            "status": "completed",
            "progress": 100,
            "files_sent": 3,
            "files_total": 3,
        },
    }


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        (
            "both",
            [
                ("a", "downloading", 15, 0, 0),
                ("b", "downloading", 15, 0, 0),
                ("a", "processing", 64, 2, 4),
                ("a", "completed", 100, 4, 4),
                ("b", "failed", 30, 0, 4),
                (None, "failed", 64, 4, 8),
            ],
        ),
        (
            "per-node",
            [
                ("a", "downloading", 15, 0, 0),
                ("b", "downloading", 15, 0, 0),
                ("a", "processing", 64, 2, 4),
                ("a", "completed", 100, 4, 4),
                ("b", "failed", 30, 0, 4),
            ],
        ),
        (
            "aggregate",
            [
                (None, "downloading", 15, 0, 0),
                (None, "processing", 47, 2, 8),
                (None, "failed", 64, 4, 8),
            ],
        ),
    ],
)
async def test_each_detail(
    outbox: Outbox, detail: Detail, expected: list[tuple[object, ...]]
) -> None:
    reports = Reports(outbox, detail, SYSTEM_CLOCK)
    half, none = DeliveryProgress(4, 2), DeliveryProgress(4, 0)
    reports.downloading(ORDER, ["a", "b"], 50)
    said = await heard(outbox)
    reports.processing(ORDER, "a", [half, none] if reports.aggregate else [half])
    said += await heard(outbox)
    ends = {"a": DeliveryProgress(4, 4), "b": DeliveryProgress(4, 0, 0, error="no route")}
    reports.delivery_over(ORDER, "a", COMPLETED, ends["a"])
    reports.delivery_over(ORDER, "b", FAILED, ends["b"])
    reports.order_over(ORDER, {"a": (COMPLETED, ends["a"]), "b": (FAILED, ends["b"])})
    said += await heard(outbox)
    assert told(said) == expected
    assert said[-1]["payload"]["error"].endswith("no route")


async def test_progress_never_falls_and_100_is_for_completed_alone(outbox: Outbox) -> None:
    reports = Reports(outbox, "both", SYSTEM_CLOCK)
    said = []
    for percent in (60, 0, 100):
        reports.downloading(ORDER, ["a"], percent)
        said += await heard(outbox)
    for stored in (3, 1, 4):
        reports.processing(ORDER, "a", [DeliveryProgress(4, stored)])
        said += await heard(outbox)
    reports.delivery_over(ORDER, "a", FAILED, DeliveryProgress(4, 0, error="gone"))
    said += await heard(outbox)
    progress = [frame["payload"]["progress"] for frame in said]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (18, 99)


async def test_a_report_that_would_fall_is_sent_with_the_progress_of_the_last(
    outbox: Outbox,
) -> None:
    reports = Reports(outbox, "per-node", SYSTEM_CLOCK)
    said = []
    for stored in (3, 1):
        reports.processing(ORDER, "a", [DeliveryProgress(4, stored)])
        said += await heard(outbox)
    assert told(said) == [("a", "processing", 81, 3, 4), ("a", "processing", 81, 1, 4)]


async def test_the_time_of_a_report_is_that_of_its_progress(outbox: Outbox) -> None:
    clock = SetClock(NOON)
    reports = Reports(outbox, "both", clock)
    reports.downloading(ORDER, ["a"], 50)
    reports.delivery_over(ORDER, "b", COMPLETED, DeliveryProgress(3, 3))
    clock.seconds += 60
    said = await heard(outbox)
    assert [frame["timestamp"] for frame in said] == [wire_time(NOON)] * 2


@pytest.mark.parametrize("detail", ["both", "aggregate"])
async def test_progress_does_not_fall_over_a_restart(outbox: Outbox, detail: Detail) -> None:
    reports = Reports(outbox, detail, SYSTEM_CLOCK)
    reports.recover(ORDER, {"a": DeliveryProgress(4, 2), "b": DeliveryProgress(4, 2)})
    reports.downloading(ORDER, ["a", "b"], 0)
    reports.downloading(ORDER, ["a", "b"], 100)
    assert await heard(outbox) == []
    every = [DeliveryProgress(4, 2), DeliveryProgress(4, 2)]
    reports.processing(ORDER, "a", every if reports.aggregate else every[:1])
    (frame,) = await heard(outbox)
    assert frame["payload"]["progress"] == 64


async def test_a_download_that_begins_again_after_a_restart_does_not_fall(outbox: Outbox) -> None:
    reports = Reports(outbox, "both", SYSTEM_CLOCK)
    reports.recover(ORDER, {"a": DeliveryProgress()})
    reports.downloading(ORDER, ["a"], 0)
    reports.downloading(ORDER, ["a"], 100)
    assert told(await heard(outbox)) == []
    reports.processing(ORDER, "a", [DeliveryProgress(4, 0)])
    assert told(await heard(outbox)) == [("a", "processing", 30, 0, 4)]


async def test_an_instance_deleted_while_it_was_sent_does_not_break_the_sum(
    outbox: Outbox,
) -> None:
    reports = Reports(outbox, "both", SYSTEM_CLOCK)
    sent_more = DeliveryProgress(2, 3, error="session deleted in ITH")
    reports.delivery_over(ORDER, "a", Outcome.CANCELLED, sent_more)
    reports.order_over(ORDER, {"a": (Outcome.CANCELLED, sent_more)})
    assert told(await heard(outbox)) == [("a", "failed", 99, 3, 3), (None, "failed", 99, 3, 3)]


async def test_a_cancelled_dispatch_is_a_failed_one_with_a_reason(outbox: Outbox) -> None:
    Reports(outbox, "both", SYSTEM_CLOCK).order_over(
        ORDER, {"a": (Outcome.CANCELLED, DeliveryProgress())}
    )
    (frame,) = await heard(outbox)
    assert frame["payload"] == {
        "status": "failed",
        "progress": 0,
        "files_sent": 0,
        "files_total": 0,
        "error": "cancelled",
    }
