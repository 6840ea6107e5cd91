"""Many dispatches, and everything that can happen to them at any moment."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import trio

from proxy.demo import frames
from proxy.demo.backend import DemoBackend
from proxy.demo.node import DemoNode
from proxy.machines.operation import OperationState
from proxy.model import Entity, EntityType, Order, Priority
from tests.ledger.make import fast_directory
from tests.support.program import Program, described, offer, running_program, some_nodes, uids

SESSION = Entity(EntityType.SESSION, "sess-1", "subj-1")
SESSIONS = [f"sess-{number}" for number in range(6)]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Order(SESSION, ("a", "b"), "corr_1", "ws-1"), True),
        (Order(SESSION, ("a", "b", "c"), "corr_1", "ws-1"), True),
        (Order(SESSION, ("a",), "corr_1", "ws-1"), True),
        (Order(Entity(EntityType.SESSION, "sess-1"), ("a", "b"), "corr_1", "ws-1"), True),
        (Order(SESSION, ("a", "b"), "corr_2", "ws-1"), False),
        (Order(Entity(EntityType.SCAN, "sess-1"), ("a", "b"), "corr_1", "ws-1"), False),
    ],
)
def test_the_same_order_has_the_correlation_id_and_the_entity(other: Order, same: bool) -> None:
    order = Order(SESSION, ("b", "a"), "corr_1", "ws-1")
    assert order.is_same(other) == other.is_same(order) == same


def test_orders_without_correlation_id_are_never_the_same() -> None:
    order = Order(SESSION, ("a",), "", "ws-1")
    assert not order.is_same(order)


@dataclass
class Trouble:
    """Does at a site what ITH may do, at random with a seed."""

    program: Program
    nodes: list[DemoNode]
    chance: random.Random
    paused: bool = False

    def __post_init__(self) -> None:
        self.inactive: set[str] = set()
        self.ports = {node.node_id: node for node in self.nodes}

    def configure(self) -> None:
        """Tell ITH's configuration as it is now, so that REST and events agree."""
        self.program.backend.rest.configuration = frames.configuration(
            [
                {
                    **described(self.ports[node.node_id], id=node.node_id),
                    "is_active": node.node_id not in self.inactive,
                }
                for node in self.nodes
            ],
            is_active=not self.paused,
        )

    def make(self) -> None:
        match self.chance.randrange(5):
            case 0:
                self.paused = not self.paused
                self.configure()
                self.program.tell(frames.status_changed(is_active=not self.paused))
            case 1:
                self.inactive ^= {self.chance.choice(self.nodes).node_id}
                self.configure()
                self.tell_nodes()
            case 2:  # the two nodes change places: what one has, the other gets, too
                one, other = self.nodes
                self.ports[one.node_id], self.ports[other.node_id] = (
                    self.ports[other.node_id],
                    self.ports[one.node_id],
                )
                self.configure()
                self.tell_nodes()
            case 3:
                self.program.tell(frames.session_deleted("sess-none", study_instance_uid="1.2.3"))
            case _:
                self.program.supervisor.came_online()

    def tell_nodes(self) -> None:
        changed = [
            frames.event_node(
                node.node_id,
                self.ports[node.node_id].ae_title,
                node.host,
                self.ports[node.node_id].port,
                is_active=node.node_id not in self.inactive,
            )
            for node in self.nodes
        ]
        self.program.tell(frames.nodes_changed(changed, "replaced"))

    def end(self) -> None:
        self.paused, self.inactive = False, set()
        self.configure()
        self.program.tell(frames.status_changed(is_active=True))
        self.tell_nodes()


@pytest.mark.parametrize(("seed", "turn_instances"), [(0, 0), (1, 50), (2, 1), (3, 1)])
async def test_whatever_happens_every_order_ends_once_and_true(
    seed: int, turn_instances: int
) -> None:
    chance = random.Random(seed)
    async with DemoBackend().running() as backend, some_nodes("a", "b") as nodes:
        with fast_directory() as directory:
            instances = {
                name: offer(backend, name, slices=6, seed=number)
                for number, name in enumerate(SESSIONS, 1)
            }
            for node in nodes:
                node.script.delay_s = 0.01
            patient = {
                "retry_count": 1000,
                "retry_delay_seconds": 0.02,
                "cancel_seconds": 0.05,
                "turn_instances": turn_instances,
            }
            async with running_program(directory, backend, dicom=patient, downloads=1) as program:
                trouble = Trouble(program, nodes, chance)
                trouble.configure()
                await program.configured()
                orders = {}
                for name in SESSIONS:
                    priority = chance.choice([*Priority]).value
                    event = frames.session_dispatch(name, ["a", "b"], priority=priority)
                    orders[name] = program.tell(event)
                    for _ in range(chance.randrange(6)):
                        trouble.make()
                        await trio.sleep(chance.random() * 0.05)
                trouble.end()
                for name, order in orders.items():
                    assert (await program.over(order))["status"] == "completed", name
                await program.idle()
                assert program.registry.operation.run.state is OperationState.ACTIVE
                assert program.supervisor.counts["failed"] == 0
                for name, order in orders.items():
                    for node_id in ("a", "b", None):
                        stream = program.stream(order, node_id)
                        assert sum(p["status"] == "completed" for p in stream) == 1
                        assert stream[-1]["status"] == "completed"
                        sent = [p["files_sent"] for p in stream]
                        assert sent == sorted(sent)
                        progress = [p["progress"] for p in stream]
                        assert progress == sorted(progress)
                    held = {uid for node in nodes for uid in node.holds}
                    assert uids(instances[name]) <= held
