"""A stop does not wait for an association that is not open yet, or has no more to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.machines.delivery import DeliveryState
from tests.end_to_end.stops.node import Phase, StallingNode
from tests.support.program import configure, offer, running_program
from tests.support.waiting import PATIENCE_S

PATIENT = {"connect_seconds": 60.0, "answer_seconds": 60.0, "release_seconds": 60.0}


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase.is_opening])
async def test_where_no_instance_is_in_flight_no_grace_is_waited_for(
    directory: Path, backend: DemoBackend, phase: Phase
) -> None:
    async with StallingNode(phase).running() as node:
        configure(backend, [frames.rest_node("a", node.ae_title, node.host, node.port)])
        offer(backend)
        dicom = {**PATIENT, "cancel_seconds": 60.0}
        async with running_program(directory, backend, dicom=dicom) as program:
            await program.configured()
            await program.online()
            await node.prepare()
            order = program.tell(frames.session_dispatch("sess-1", ["a"]))
            await node.reached.wait()

            program.tell(frames.status_changed(is_active=False))

            with trio.fail_after(PATIENCE_S):
                await node.gone.wait()
            await program.until(lambda: program.state(order, "a") is DeliveryState.HELD)
            assert program.turns_taken() == 0


async def test_a_node_that_has_it_all_and_does_not_release_has_it_all(
    directory: Path, backend: DemoBackend
) -> None:
    async with StallingNode(Phase.RELEASE).running() as node:
        configure(backend, [frames.rest_node("a", node.ae_title, node.host, node.port)])
        instances = offer(backend, slices=3)
        dicom = {**PATIENT, "cancel_seconds": 0.1}
        async with running_program(directory, backend, dicom=dicom) as program:
            await program.configured()
            await program.online()
            order = program.tell(frames.session_dispatch("sess-1", ["a"]))
            await node.reached.wait()

            uid = instances[0].study_instance_uid
            program.tell(frames.session_deleted("sess-1", study_instance_uid=uid))

            ending = await program.over(order, "a")
            assert (ending["status"], ending["files_sent"]) == ("completed", 3)
            await program.idle()
