"""ITH deletes an entity under way: its work ends at every point, and no other work does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.demo import frames
from proxy.demo.encoding import SampleInstance
from proxy.demo.frames import JsonObject
from proxy.demo.node import DemoNode
from proxy.demo.sample import CANARY, Study, ct_series, mr_series
from tests.end_to_end.sessions import arrivals_in, canary_study, hashes_in, hashes_of, once_each
from tests.end_to_end.site import Site, node
from tests.support.peers import free_port, storescp
from tests.support.relay import relay

SLICES = 25
SLOW_S = 0.02
NO_ECHO_S = 600.0
"""With no C-ECHO between, a dead node is not found to be back."""

OF_SUBJECT_1, OF_SUBJECT_2 = (
    Study(seed, patient_name=CANARY, patient_id=f"ZZCANARY-000{seed}") for seed in (1, 2)
)


@dataclass(frozen=True)
class Wanted:
    """Something that ITH has and may order, by ITH's names."""

    kind: str
    id: str
    instances: Sequence[SampleInstance]
    order: Callable[[Sequence[str]], JsonObject]


def subject(number: int, study: Study) -> Wanted:
    entity_id = f"subj-{number}"
    return Wanted(
        "subject",
        entity_id,
        ct_series(study, slices=SLICES, size=16),
        lambda nodes: frames.subject_dispatch(entity_id, nodes),
    )


def session(number: int, study: Study, subject_id: str = "subj-1") -> Wanted:
    entity_id = f"sess-{number}"
    return Wanted(
        "session",
        entity_id,
        ct_series(study, slices=SLICES, size=16),
        lambda nodes: frames.session_dispatch(entity_id, nodes, subject_id=subject_id),
    )


def scan(number: int, study: Study, session_id: str = "sess-1") -> Wanted:
    entity_id = f"scan-{number}"
    make = ct_series if number == 1 else mr_series
    return Wanted(
        "scan",
        entity_id,
        make(study, slices=SLICES, size=16, series=number),
        lambda nodes: frames.scan_dispatch(
            entity_id, nodes, session_id=session_id, scan_number=number
        ),
    )


ONE, TWO = canary_study(221), canary_study(222)
session_deleted = frames.session_deleted("sess-1", study_instance_uid=ONE.uid("study"))
subject_deleted = frames.subject_deleted("subj-1", subject_identifier=OF_SUBJECT_1.patient_id)
scan_deleted = frames.scan_deleted("scan-1", study_instance_uid=ONE.uid("study"), scan_number=1)

DELETIONS = {
    "a session": (session(1, ONE), session(2, TWO), session_deleted),
    "a scan": (scan(1, ONE), scan(2, ONE), scan_deleted),
    "a subject": (subject(1, OF_SUBJECT_1), subject(2, OF_SUBJECT_2), subject_deleted),
    "a subject's only session": (
        subject(1, OF_SUBJECT_1),
        subject(2, OF_SUBJECT_2),
        frames.session_deleted("sess-1", study_instance_uid=OF_SUBJECT_1.uid("study")),
    ),
    "a scan's session": (scan(1, ONE), scan(2, TWO, session_id="sess-2"), session_deleted),
    "a session's subject": (
        session(1, OF_SUBJECT_1),
        session(2, OF_SUBJECT_2, subject_id="subj-2"),
        subject_deleted,
    ),
}
"""The ordered and then deleted entity, the rest, and the event."""

of_each_kind = pytest.mark.parametrize(
    ("goes", "stays", "deletion"), [*DELETIONS.values()], ids=[*DELETIONS]
)


def offer(site: Site, *wanted: Wanted) -> None:
    for each in wanted:
        archive = site.offer("", each.instances)
        site.backend.rest.archives[each.kind, each.id] = archive


async def dispatch(site: Site, wanted: Wanted, *nodes: str) -> str:
    event = wanted.order(nodes)
    await site.backend.send_event(event)
    return str(event["correlation_id"])


@pytest.mark.needs("storescp")
@of_each_kind
async def test_work_that_runs_is_queued_or_backs_off_ends_with_its_entity(
    site: Site, tmp_path: Path, goes: Wanted, stays: Wanted, deletion: JsonObject
) -> None:
    dead = DemoNode("DEAD")
    dead.port = free_port()
    with (
        storescp(tmp_path / "free", "+B", "+uf") as free,
        storescp(tmp_path / "busy", "+B", "+uf") as busy,
    ):
        async with relay(free, SLOW_S) as to_free, relay(busy, SLOW_S) as to_busy:
            site.has(free=to_free, busy=to_busy, dead=node("dead", dead, retry_delay=50.0))
            offer(site, goes, stays)
            await site.start(
                dicom__associations_per_node=1,
                dicom__retry_max_seconds=50.0,
                dicom__echo_interval_seconds=NO_ECHO_S,
            )
            other = await dispatch(site, stays, "busy", "dead")
            await site.until_at(other, busy="storing", dead="backing_off")
            doomed = await dispatch(site, goes, "free", "busy", "dead")
            await site.until_at(doomed, free="storing", busy="waiting", dead="backing_off")
            follower = await dispatch(site, goes, "free")
            await site.until(lambda: answers(site, goes) == [200, 304])
            await site.until_at(follower, free="waiting")
            await site.until(lambda: len(free.stored) >= 3)

            await site.backend.send_event(deletion)

            endings = {name: await site.ending(doomed, name) for name in ("free", "busy", "dead")}
            endings["follower"] = await site.ending(follower, "free")
            sent = {name: ending["files_sent"] for name, ending in endings.items()}
            stored = len(free.stored)
            assert await site.states(other) == {"busy": "storing", "dead": "backing_off"}
            assert (await site.ending(other, "busy"))["status"] == "completed"
            assert len(free.stored) == stored < SLICES
            assert arrivals_in(busy.stored) == once_each(stays.instances)

            again = await dispatch(site, goes, "free")
            to_free.delay_s = 0.0
            assert (await site.closing(again))["status"] == "completed"
    for ending in endings.values():
        assert ending["status"] == "failed"
        assert f"{deletion['entity_type']} deleted in ITH" in ending["error"]
    # The node may have the one whose answer was still on its way.
    assert sent["free"] in {stored - 1, stored}
    assert sent["follower"] <= stored
    assert sent["busy"] == sent["dead"] == 0
    assert hashes_in(free.stored) == hashes_of(goes.instances)
    assert answers(site, goes) == [200, 304, 200]


def answers(site: Site, wanted: Wanted) -> list[int]:
    """The answers of ITH to the downloads of an entity."""
    path = f"/{wanted.kind}s/{wanted.id}/download"
    asked = [request for request in site.backend.rest.downloads if request.path.endswith(path)]
    return [request.status for request in asked]


@pytest.mark.needs("storescp")
@of_each_kind
async def test_held_work_ends_with_its_entity_during_the_pause(
    site: Site, tmp_path: Path, goes: Wanted, stays: Wanted, deletion: JsonObject
) -> None:
    with storescp(tmp_path, "+B", "+uf") as disk:
        async with relay(disk, SLOW_S) as slow:
            site.has(node=slow)
            offer(site, goes, stays)
            await site.start(dicom__associations_per_node=1, dicom__echo_interval_seconds=NO_ECHO_S)
            doomed = await dispatch(site, goes, "node")
            await site.until(lambda: len(disk.stored) >= 3)
            other = await dispatch(site, stays, "node")
            await site.until_at(other, node="waiting")
            await site.backend.send_event(frames.status_changed(is_active=False))
            await site.until_at(doomed, node="held")
            await site.until_at(other, node="held")
            stored = len(disk.stored)

            await site.backend.send_event(deletion)

            ending = await site.ending(doomed, "node")
            assert await site.states(other) == {"node": "held"}
            slow.delay_s = 0.0
            await site.backend.send_event(frames.status_changed(is_active=True))
            assert (await site.closing(other))["status"] == "completed"
            assert site.backend.status_words(doomed)[-1:] == ("failed",)
    assert ending["status"] == "failed"
    assert f"{deletion['entity_type']} deleted in ITH" in ending["error"]
    assert 3 <= ending["files_sent"] == stored < SLICES
    arrived = arrivals_in(disk.stored)
    assert set(arrived.values()) == {1}
    assert arrived.keys() >= hashes_of(stays.instances).keys()
    assert len(arrived) == stored + SLICES
