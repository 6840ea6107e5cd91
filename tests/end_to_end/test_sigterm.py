"""SIGTERM to the program in the middle of a session at real nodes, once and twice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from tests.end_to_end.orthanc_rest import held_by, stores_at, until_stored
from tests.end_to_end.program import the_program
from tests.end_to_end.sessions import arrivals_in, ct_session, hashes_of, once_each
from tests.end_to_end.site import Site, assert_tells_the_truth
from tests.support.peers import orthanc, storescp
from tests.support.relay import relay

SLOW_S = 0.02
NEVER_S = 60.0


@pytest.mark.needs("orthanc", "storescp")
async def test_sigterm_in_mid_session_keeps_the_rest_and_repeats_nothing(
    site: Site, tmp_path: Path
) -> None:
    session = ct_session(231, 25)
    with (
        orthanc(tmp_path, {"OverwriteInstances": True}) as archive,
        storescp(tmp_path, "+B", "+uf") as disk,
    ):
        async with relay(archive, SLOW_S) as to_archive, relay(disk, SLOW_S) as to_disk:
            site.has(archive=to_archive, disk=to_disk)
            site.offer("sess-1", session)
            async with the_program(site, service__drain_seconds=str(NEVER_S)) as program:
                ordered = await site.dispatch("sess-1", "archive", "disk")
                await until_stored(archive, 5)
                await site.until(lambda: len(disk.stored) >= 5)
                assert await program.terminate() == 0  # long before the drain's end

            assert site.backend.frames_named("health_update")[-1]["proxy_status"] == "offline"
            await site.until(lambda: to_archive.open == to_disk.open == 0)
            assert await stores_at(archive) < len(session)
            assert len(disk.stored) < len(session)
            assert site.backend.final_status(ordered) is None

            async with the_program(site) as program:
                assert (await site.closing(ordered))["status"] == "completed"
                assert await program.terminate() == 0
        assert await stores_at(archive) == len(session)
        assert (await held_by(archive)).keys() == hashes_of(session).keys()
    assert arrivals_in(disk.stored) == once_each(session)
    assert len(site.backend.rest.downloads) == 1
    for name in ("archive", "disk"):
        assert_tells_the_truth(site.backend.statuses[ordered, name], name, len(session))


@pytest.mark.needs("storescp")
async def test_a_second_sigterm_does_not_wait_for_the_instance_in_flight(
    site: Site, tmp_path: Path
) -> None:
    session = ct_session(232, 25)
    patient = {"dicom__cancel_seconds": str(NEVER_S), "service__drain_seconds": str(NEVER_S)}
    with storescp(tmp_path, "+B", "+uf") as disk:
        async with relay(disk, SLOW_S) as slow:
            site.has(node=slow)
            site.offer("sess-1", session)
            async with the_program(site, **patient) as program:
                ordered = await site.dispatch("sess-1", "node")
                await site.until(lambda: len(disk.stored) >= 3)
                slow.delay_s = NEVER_S
                program.process.send_signal(signal.SIGTERM)
                await site.until(lambda: program.lines("operation.held") != [])
                await trio.sleep(0.5)
                assert program.process.returncode is None
                assert await program.terminate() == 0

            assert site.backend.frames_named("health_update")[-1]["proxy_status"] == "offline"
            await site.until(lambda: slow.open == 0)
            slow.delay_s = 0.0
            async with the_program(site) as program:
                assert (await site.closing(ordered))["status"] == "completed"
                assert await program.terminate() == 0
    arrived = arrivals_in(disk.stored)
    assert arrived.keys() == hashes_of(session).keys()
    assert arrived.total() <= len(session) + 1  # the one whose answer never came
    assert_tells_the_truth(site.backend.statuses[ordered, "node"], "node", len(session))
