from __future__ import annotations

from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from proxy.fsm import ActivityFailed, Event, Step
from proxy.machines import policy
from proxy.machines.node import (
    DISABLED,
    ENABLED,
    NODE,
    OFFLINE,
    ONLINE,
    OPEN,
    PROBING,
    REMOVED,
    SUSPECT,
    UNKNOWN,
    BreakerTripped,
    ChangeRequested,
    CloseGate,
    CongestionReported,
    DisableRequested,
    EnableRequested,
    Health,
    InstancesStored,
    LimitAssociations,
    LimitIncreaseEarned,
    NodeAnswered,
    NodeEchoed,
    NodeFailed,
    NodeOutput,
    NodeState,
    OpenGate,
    RemoveRequested,
    TrialBegun,
)
from proxy.runtime.runner import Run
from tests.machines.story import failed, names, now, told, untouched
from tests.machines.walk import Walk, walk
from tests.support.machine_suite import oracle_agrees, running, sweep_legal
from tests.support.schedules import cancelled_at_every_step, in_every_order

EVERYWHERE = names("UNKNOWN ONLINE SUSPECT OFFLINE PROBING DISABLED REMOVED")
LEGAL = {
    # any delivery may have news of the node, however late
    "NodeAnswered": EVERYWHERE,
    "NodeEchoed": EVERYWHERE,
    "NodeFailed": EVERYWHERE,
    "BreakerTripped": EVERYWHERE,
    # ITH configures when it likes
    "TrialBegun": EVERYWHERE,
    "ChangeRequested": EVERYWHERE,
    "DisableRequested": EVERYWHERE,
    "EnableRequested": EVERYWHERE,
    "RemoveRequested": EVERYWHERE,
    # and a delivery that ran before may have reported the capacity of the node
    "CongestionReported": EVERYWHERE,
    "InstancesStored": EVERYWHERE,
    "LimitIncreaseEarned": EVERYWHERE,
    "ProbeDue": names("OFFLINE"),
    "ActivityFailed": names("UNKNOWN ONLINE SUSPECT PROBING"),
}
WELL = Health()
GONE = "connection refused"
DOWN = Health(failures=3, error=GONE, probe_in=30)
TRIED = replace(DOWN, is_tried=True)

fails = NodeFailed(GONE)
trips = BreakerTripped(GONE, 30, by_probe=True)


def test_what_may_come_when() -> None:
    sweep_legal(NODE, LEGAL, WELL)


def test_a_foreign_interpreter_agrees() -> None:
    assert oracle_agrees(NODE, WELL) == 7 * 14


async def test_a_breaker_trips_and_closes_again(autojump_clock: MockClock) -> None:
    async with running(NODE, WELL, UNKNOWN) as bench:
        assert told(bench, NodeAnswered()) == (ONLINE, WELL, [OpenGate()])
        assert told(bench, fails) == (SUSPECT, Health(1, error=GONE), [])
        assert told(bench, fails) == (SUSPECT, Health(2, error=GONE), [])
        assert told(bench, trips) == (OFFLINE, DOWN, [CloseGate(GONE)])
        await trio.sleep(29)
        assert bench.run.state is OFFLINE
        await trio.sleep(2)
        assert now(bench) == (PROBING, DOWN, [CloseGate(GONE)])
        assert told(bench, NodeAnswered()) == (ONLINE, WELL, [OpenGate()])


async def test_a_probe_that_fails_waits_longer(autojump_clock: MockClock) -> None:
    async with running(NODE, DOWN, PROBING) as bench:
        again = Health(failures=bench.run.data.failures + 1, error=GONE, probe_in=60)
        assert told(bench, BreakerTripped(GONE, 60, by_probe=True)) == (OFFLINE, again, [])
        await trio.sleep(59)
        assert bench.run.state is OFFLINE
        await trio.sleep(2)
        assert bench.run.state is PROBING


@pytest.mark.parametrize("state", [OFFLINE, PROBING])
async def test_a_delivery_may_try_it_once_after_each_probe_that_failed(
    state: NodeState, autojump_clock: MockClock
) -> None:
    async with running(NODE, WELL, state) as bench:
        bench.run.data = DOWN
        assert policy.may_try(state, bench.run.data)
        assert told(bench, TrialBegun()) == (state, TRIED, [])
        assert not policy.may_try(state, bench.run.data)
        assert told(bench, NodeFailed("reset"))[:2] == (state, replace(TRIED, error="reset"))
        assert not policy.may_try(state, bench.run.data)


async def test_a_probe_that_fails_gives_the_deliveries_another_try(
    autojump_clock: MockClock,
) -> None:
    async with running(NODE, WELL, PROBING) as bench:
        bench.run.data = TRIED
        bench.run.tell(trips)
        assert policy.may_try(bench.run.state, bench.run.data)


async def test_a_breaker_that_deliveries_tripped_is_not_theirs_to_try(
    autojump_clock: MockClock,
) -> None:
    async with running(NODE, WELL, SUSPECT) as bench:
        bench.run.data = Health(2, error=GONE)
        assert told(bench, BreakerTripped(GONE, 30)) == (OFFLINE, TRIED, [CloseGate(GONE)])
        assert not policy.may_try(bench.run.state, bench.run.data)
        assert told(bench, NodeAnswered()) == (ONLINE, WELL, [OpenGate()])


@pytest.mark.parametrize("state", [*OPEN, DISABLED, REMOVED])
async def test_a_trial_is_for_a_node_that_was_given_up(
    state: NodeState, autojump_clock: MockClock
) -> None:
    async with running(NODE, WELL, state) as bench:
        assert untouched(bench, TrialBegun())
        assert policy.may_try(state, bench.run.data) is (state in OPEN)


@pytest.mark.parametrize("state", [UNKNOWN, SUSPECT, OFFLINE, PROBING])
async def test_what_waits_for_it_goes_on_when_it_answers_c_echo(
    state: NodeState, autojump_clock: MockClock
) -> None:
    async with running(NODE, WELL, state) as bench:
        bench.run.data = DOWN
        assert told(bench, NodeEchoed()) == (ONLINE, WELL, [OpenGate()])
        assert told(bench, NodeEchoed()) == (ONLINE, WELL, [])


async def test_what_waits_since_a_restart_goes_on_when_the_node_answers(
    autojump_clock: MockClock,
) -> None:
    async with running(NODE, WELL, UNKNOWN) as bench:
        assert told(bench, NodeAnswered())[2] == [OpenGate()]
        assert told(bench, NodeAnswered())[2] == []


async def test_one_answer_makes_up_for_failures(autojump_clock: MockClock) -> None:
    async with running(NODE, Health(2, error=GONE), SUSPECT) as bench:
        assert told(bench, NodeAnswered()) == (ONLINE, WELL, [])
        assert told(bench, NodeAnswered()) == (ONLINE, WELL, [])


@pytest.mark.parametrize("state", OPEN)
async def test_the_breaker_trips_in_any_open_state(
    state: NodeState, autojump_clock: MockClock
) -> None:
    async with running(NODE, WELL, state) as bench:
        bench.run.data = Health(2)
        assert told(bench, trips) == (OFFLINE, DOWN, [CloseGate(GONE)])


async def test_a_delivery_from_before_proves_the_node(autojump_clock: MockClock) -> None:
    async with running(NODE, WELL, OFFLINE) as bench:
        assert told(bench, NodeAnswered()) == (ONLINE, WELL, [OpenGate()])


@pytest.mark.parametrize("state", [OFFLINE, PROBING])
async def test_a_delivery_from_before_fails_too(
    state: NodeState, autojump_clock: MockClock
) -> None:
    async with running(NODE, WELL, state) as bench:
        bench.run.data = DOWN
        assert told(bench, NodeFailed("reset")) == (state, replace(DOWN, error="reset"), [])


async def test_the_breaker_trips_but_once(autojump_clock: MockClock) -> None:
    async with running(NODE, WELL, OFFLINE) as bench:
        bench.run.data = DOWN
        assert told(bench, BreakerTripped("reset", 50)) == (
            OFFLINE,
            replace(DOWN, error="reset"),
            [],
        )


@pytest.mark.parametrize("state", ENABLED)
async def test_a_new_address_is_a_new_node(state: NodeState, autojump_clock: MockClock) -> None:
    async with running(NODE, WELL, state) as bench:
        bench.run.data = DOWN
        assert told(bench, ChangeRequested()) == (
            UNKNOWN,
            WELL,
            [OpenGate(), LimitAssociations(1)],
        )


async def test_a_node_that_moves_while_it_is_inactive_stays_so(autojump_clock: MockClock) -> None:
    async with running(NODE, WELL, DISABLED) as bench:
        bench.run.data = Health(associations=1, ceiling=4, coped=9)
        assert told(bench, ChangeRequested()) == (
            DISABLED,
            Health(associations=4, ceiling=4),
            [LimitAssociations(4)],
        )


@pytest.mark.parametrize("state", [*ENABLED, DISABLED])
async def test_associations_halve_with_each_complaint_and_grow_by_one(
    state: NodeState, autojump_clock: MockClock
) -> None:
    async with running(NODE, WELL, state) as bench:
        bench.run.data = given = Health(associations=7, ceiling=8, coped=40)
        three = replace(given, associations=3, coped=0)
        assert told(bench, CongestionReported()) == (state, three, [LimitAssociations(3)])
        assert told(bench, CongestionReported())[2] == [LimitAssociations(1)]
        assert told(bench, CongestionReported())[2] == [LimitAssociations(1)]
        assert told(bench, InstancesStored(60)) == (
            state,
            replace(three, associations=1, coped=60),
            [],
        )
        assert told(bench, InstancesStored(60))[1].coped == 120
        two = replace(three, associations=2)
        assert told(bench, LimitIncreaseEarned()) == (state, two, [LimitAssociations(2)])


async def test_a_node_is_given_no_more_than_the_settings_allow(autojump_clock: MockClock) -> None:
    async with running(NODE, WELL, ONLINE) as bench:
        bench.run.data = most = Health(associations=2, ceiling=2)
        assert told(bench, LimitIncreaseEarned()) == (ONLINE, most, [LimitAssociations(2)])


async def test_failures_leave_the_association_limit_and_a_new_address_resets_it(
    autojump_clock: MockClock,
) -> None:
    async with running(NODE, WELL, ONLINE) as bench:
        bench.run.data = Health(associations=2, ceiling=4, coped=9)
        for event in (fails, NodeAnswered(), fails, fails, trips, NodeAnswered()):
            bench.run.tell(event)
        assert bench.run.data == Health(associations=2, ceiling=4, coped=9)
        assert told(bench, ChangeRequested()) == (
            UNKNOWN,
            Health(associations=4, ceiling=4),
            [OpenGate(), LimitAssociations(4)],
        )


@pytest.mark.parametrize("state", ENABLED)
async def test_disabled_and_enabled(state: NodeState, autojump_clock: MockClock) -> None:
    async with running(NODE, WELL, state) as bench:
        bench.run.data = DOWN
        assert told(bench, DisableRequested()) == (DISABLED, WELL, [])
        await trio.sleep(80_000)
        assert told(bench, EnableRequested()) == (UNKNOWN, WELL, [OpenGate()])


@pytest.mark.parametrize("state", [*ENABLED, DISABLED])
async def test_removed_whatever_it_was(state: NodeState, autojump_clock: MockClock) -> None:
    async with running(NODE, WELL, state) as bench:
        kept = bench.run.data
        assert told(bench, RemoveRequested()) == (REMOVED, kept, [])


@pytest.mark.parametrize("state", OPEN)
async def test_a_defect_in_the_probe_costs_a_minute(
    state: NodeState, autojump_clock: MockClock
) -> None:
    async with running(NODE, WELL, state) as bench:
        error = "internal error: RuntimeError"
        distrusted = Health(error=error, probe_in=60)
        assert await failed(bench) == (OFFLINE, distrusted, [CloseGate(error)])
        await trio.sleep(59)
        assert bench.run.state is OFFLINE
        await trio.sleep(2)
        assert bench.run.state is PROBING


async def test_a_defect_in_the_one_probe_keeps_the_gate_closed(
    autojump_clock: MockClock,
) -> None:
    async with running(NODE, WELL, PROBING) as bench:
        distrusted = Health(error="internal error: RuntimeError", probe_in=60)
        assert await failed(bench) == (OFFLINE, distrusted, [])


@pytest.mark.parametrize("state", ENABLED)
async def test_who_is_active_is_not_enabled(state: NodeState, autojump_clock: MockClock) -> None:
    async with running(NODE, WELL, state) as bench:
        assert untouched(bench, EnableRequested())


@pytest.mark.parametrize("event", [NodeAnswered(), NodeEchoed(), fails, trips, DisableRequested()])
async def test_what_is_heard_of_a_disabled_node(event: Event, autojump_clock: MockClock) -> None:
    async with running(NODE, WELL, DISABLED) as bench:
        assert untouched(bench, event)


@pytest.mark.parametrize(
    "event",
    [
        NodeAnswered(),
        NodeEchoed(),
        fails,
        trips,
        ChangeRequested(),
        DisableRequested(),
        EnableRequested(),
        RemoveRequested(),
        CongestionReported(),
        InstancesStored(5),
        LimitIncreaseEarned(),
    ],
)
async def test_removed_is_removed(event: Event, autojump_clock: MockClock) -> None:
    async with running(NODE, WELL, REMOVED) as bench:
        assert untouched(bench, event)


class NodeWalk(Walk):
    machine = NODE
    start = Health(associations=4, ceiling=4)

    def __init__(self) -> None:
        super().__init__()
        self.gate_open = True
        self.given = 4

    def exact(self, event: Event) -> Event | None:
        if isinstance(event, NodeFailed | BreakerTripped):
            return policy.node_failed(
                self.data,
                event.error,
                is_open=self.state not in OPEN,
                is_probe=self.state is PROBING,
                threshold=3,
                interval=10,
                cap=100,
                uniform=0.5,
            )
        return event

    def check(self, event: Event, step: Step[Any, Any, Any]) -> None:
        for output in step.outputs:
            if isinstance(output, CloseGate):
                assert self.gate_open
                self.gate_open = False
            if isinstance(output, OpenGate):
                self.gate_open = True
            if isinstance(output, LimitAssociations):
                self.given = output.associations
        if isinstance(event, ActivityFailed):
            assert step.after is OFFLINE

    def look(self) -> None:
        if self.state in OPEN:
            assert self.gate_open
            assert self.data.failures < 3
        if self.state in {OFFLINE, PROBING}:
            assert not self.gate_open
            assert self.data.probe_in > 0
        if self.state in {UNKNOWN, ONLINE, DISABLED}:
            assert (self.data.failures, self.data.error) == (0, None)
        assert 1 <= self.data.associations == self.given <= self.data.ceiling == 4


def test_the_gate_is_closed_while_the_breaker_is_open() -> None:
    walk(NodeWalk)


class Probed:
    """A node that can be reached or not, probed every ten seconds with a C-ECHO of one second."""

    def __init__(self) -> None:
        self.up = True
        self.echoes = 0
        self.most = 0
        self.outputs: list[NodeOutput] = []
        activities = {
            "probe_first": self.ask,
            "probe_regularly": self.regularly,
            "probe_once": self.ask,
        }
        self.run = Run(NODE, WELL, activities, self.outputs.append)

    async def regularly(self, run: Run[NodeState, Health, NodeOutput]) -> None:
        while True:
            await trio.sleep(10)
            await self.ask(run)

    async def ask(self, run: Run[NodeState, Health, NodeOutput]) -> None:
        self.echoes += 1
        self.most = max(self.most, self.echoes)
        try:
            await trio.sleep(1)
        finally:
            self.echoes -= 1
        if self.up:
            run.tell(NodeEchoed())
            return
        is_open = run.state in {OFFLINE, PROBING}
        run.tell(
            policy.node_failed(
                run.data,
                GONE,
                is_open=is_open,
                is_probe=True,
                threshold=3,
                interval=10,
                cap=100,
                uniform=0.5,
            )
        )

    async def live(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run.run)
            await trio.sleep(30)
            self.up = False
            await trio.sleep(300)
            assert self.run.state in {OFFLINE, PROBING}
            self.up = True
            await self.run.until(ONLINE)
            self.run.tell(DisableRequested())
            await trio.sleep(100)
            assert not self.echoes
            self.run.tell(EnableRequested())
            await self.run.until(ONLINE)
            self.run.tell(RemoveRequested())


LIFE = [
    OpenGate(),  # it answers first
    CloseGate(GONE),
    OpenGate(),  # it is back
    OpenGate(),  # it is enabled
    OpenGate(),  # and answers
]


async def test_the_life_of_a_node(autojump_clock: MockClock) -> None:
    node = Probed()
    await node.live()
    assert node.outputs == LIFE
    assert (node.echoes, node.most) == (0, 1)
    assert node.run.state is REMOVED


def test_an_echo_that_comes_back_in_the_instant_of_a_change() -> None:
    for event, ends in (
        (DisableRequested(), {DISABLED}),
        (RemoveRequested(), {REMOVED}),
        # answered before the change: unknown again; after it: of the old address, yet an answer
        (ChangeRequested(), {UNKNOWN, ONLINE}),
    ):

        async def scenario(event: Event = event) -> NodeState:
            node = Probed()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.run.run)
                await trio.sleep(1)
                node.run.tell(event)
                await trio.sleep(0.5)
                nursery.cancel_scope.cancel()
            assert (node.echoes, node.most) == (0, 1)
            return node.run.state

        assert in_every_order(scenario).keys() == ends


def test_wherever_it_is_cancelled_no_echo_is_left() -> None:
    world: list[Probed] = []

    async def scenario() -> None:
        world[:] = [Probed()]
        await world[0].live()

    def check() -> None:
        assert world[0].echoes == 0
        assert world[0].most <= 1
        assert world[0].outputs == LIFE[: len(world[0].outputs)]

    assert cancelled_at_every_step(scenario, check) > 10
    assert world[0].outputs == LIFE
