"""What a stop need not wait for: an association not there yet, or one with no more to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.machines.delivery import DeliveryState
from tests.end_to_end.stops.node import Phase, StallingNode
from tests.support.house import a_house, configure, offer
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
        async with a_house(directory, backend, dicom=dicom) as house:
            await house.configured()
            await house.online()
            await node.prepare()
            order = house.tell(frames.session_dispatch("sess-1", ["a"]))
            await node.reached.wait()

            house.tell(frames.status_changed(is_active=False))

            with trio.fail_after(PATIENCE_S):
                await node.gone.wait()
            await house.until(lambda: house.state(order, "a") is DeliveryState.HELD)
            assert house.turns_taken() == 0


async def test_a_node_that_has_it_all_and_does_not_release_has_it_all(
    directory: Path, backend: DemoBackend
) -> None:
    async with StallingNode(Phase.RELEASE).running() as node:
        configure(backend, [frames.rest_node("a", node.ae_title, node.host, node.port)])
        instances = offer(backend, slices=3)
        dicom = {**PATIENT, "cancel_seconds": 0.1}
        async with a_house(directory, backend, dicom=dicom) as house:
            await house.configured()
            await house.online()
            order = house.tell(frames.session_dispatch("sess-1", ["a"]))
            await node.reached.wait()

            uid = instances[0].study_instance_uid
            house.tell(frames.session_deleted("sess-1", study_instance_uid=uid))

            ending = await house.over(order, "a")
            assert (ending["status"], ending["files_sent"]) == ("completed", 3)
            await house.idle()
