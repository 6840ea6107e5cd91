"""One world: the unmodified program on a simulated machine, at a site, beside a simulated ITH.

    result = run(scenario, directory)

The program is ``proxy.service.serve`` with the network, clock, chance and disk of this world.
Nothing in it is patched. The machine starts it again whenever it has ended.
"""

from __future__ import annotations

import json
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any

import trio

from proxy.demo import frames
from proxy.demo.frames import JsonObject
from proxy.demo.rest import Fault
from proxy.errors import ProxyError
from proxy.fsm import Step
from proxy.runtime.marks import Mark, marking
from proxy.runtime.offload import Inline
from proxy.runtime.runner import Run, observing
from proxy.service import serve
from proxy.settings import (
    DicomSettings,
    DispatchSettings,
    IthSettings,
    LimitSettings,
    Secret,
    ServiceSettings,
    Settings,
)
from proxy.simulation import scenario as incidents
from proxy.simulation.bounds import Bounds, Population, freeze
from proxy.simulation.checker import AWAY, REMOVED, STOP_S, Checker, Ordered
from proxy.simulation.content import Thing, archive, thing
from proxy.simulation.disk import Disk, DiskError, DiskPart
from proxy.simulation.history import FAULT, ITH_LANE, PROXY, History, Moment, owner
from proxy.simulation.internet import ITH, Internet, Snag, Starved, addresses
from proxy.simulation.ith import HOST, Ith
from proxy.simulation.node import SimulatedNode
from proxy.simulation.scenario import (
    NODES,
    SESSIONS,
    Blow,
    EntityLevel,
    Incident,
    NodeEdit,
    Scenario,
)
from proxy.simulation.schedule import shuffled, world_clock
from proxy.simulation.trace import Trace
from proxy.simulation.wiretap import Wiretap, told
from proxy.simulation.words import in_words, spoken
from proxy.supervision.supervisor import Supervisor

RESTART_S = 5.0
"""systemd starts the program again after as long."""
REPEAT_S = 120.0
"""ITH sends an order again that nothing was heard of for as long."""
PATIENCE_S = 4 * 3600.0
"""After the last fault, everything has ended within as long."""
AFTERMATH_S = 60.0
DEAD_S = 90.0
"""An application that a blow has killed is dead for as long."""
LEFT_S = 300.0
"""No association of a world lasts as long."""
REST_S = 30.0
"""After everything has ended, the program is at rest at a moment within as long."""
WEIGHED_ONE_IN = 4
"""In one world of so many, what is left in memory is counted at the end."""
MOST_PASSED = 30
"""So many urgent downloads may pass one of low priority: the program lets eight pass, and those
that were ordered before it."""
MAX_TASK_STEPS = 500_000
"""A world with more of them never ends."""
MAX_STEPS_AT_ONCE = 50_000
"""Nor does one with more of them at one time of its clock."""


@dataclass
class Result:
    """What became of a world."""

    scenario: Scenario
    violations: list[str] = field(default_factory=list)
    rows: set[str] = field(default_factory=set)
    marks: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    expected: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    steps: int = 0
    trace: str = ""
    history: list[Moment] = field(default_factory=list)


@dataclass
class _Aimed:
    """A blow that falls when a mark has been reached ``nth`` more times."""

    nth: int
    blow: Blow


@dataclass
class _Watched:
    """An incident that happens when its moment has come ``nth`` more times."""

    nth: int
    aimed: incidents.Aimed


class WallClock:
    """The machine's wall clock: it runs with the world's time, and can be set."""

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead

    def now(self) -> float:
        """The time that it shows, in UTC seconds."""
        return self.ahead + trio.current_time()


class Watchdog(trio.abc.Instrument):
    """Sees a task that never comes to a checkpoint, and a world that never ends."""

    def __init__(self) -> None:
        self.steps = 0
        self.internet: Internet | None = None
        self.on_endless: Callable[[str], None] = lambda _: None
        self._time = 0.0
        self._steps_before = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count; a new step may read again."""
        self.steps += 1
        if self.internet is not None:
            self.internet.reads = 0
        if not self.steps & 0xFFF:
            self._look(task)

    def _look(self, task: trio.lowlevel.Task) -> None:
        """See whether time goes on."""
        now = trio.current_time()
        if now != self._time:
            self._time, self._steps_before = now, self.steps
        at_once = self.steps - self._steps_before
        if at_once > MAX_STEPS_AT_ONCE or self.steps > MAX_TASK_STEPS:
            self.on_endless(f"{at_once} steps of tasks at one time, {self.steps} in all: {task}")


class World:
    """The site, the machine and ITH."""

    def __init__(
        self,
        scenario: Scenario,
        directory: Path,
        watchdog: Watchdog,
        population: Population,
        *,
        with_history: bool,
    ) -> None:
        self.scenario = scenario
        self.result = Result(scenario)
        self._directory = directory
        self._watchdog = watchdog
        self._population = population
        watchdog.on_endless = self._end
        self._history = History() if with_history else None
        self._rng = Random(f"world {scenario.seed}")
        self._places = addresses(NODES)
        self._nodes = {node: SimulatedNode(Random(self._rng.random())) for node in NODES}
        self._wall = WallClock(scenario.ahead)
        self._truth = WallClock(incidents.NOON)
        self._ith = Ith(self._truth.now, self._places, self._on_status)
        self._ith.script.ping_every_s *= scenario.slower
        self._checker = Checker(self._nodes, scenario.detail, trio.current_time)
        self._is_active = True
        self._program = trio.CancelScope()
        self._supervisor: Supervisor | None = None
        self._is_stopping = False
        self._is_counting = True
        self._has_disk_failed = False
        self._sent = 0
        """The number of orders of which a message was sent."""
        self._deleting = trio.Lock()
        self._shown_late: set[str] = set()
        """The nodes of which REST showed an older state than the program was told."""
        self._pauses = 0
        self._down_s = 0.0
        self._starts = 0
        self._changed = trio.Event()
        self._strikes: defaultdict[str, list[_Aimed]] = defaultdict(list)
        self._trace = Trace()
        self._watched: defaultdict[str, list[_Watched]] = defaultdict(list)
        self._overtaken: tuple[Thing, int] | None = None
        """What a rush ordered with low priority, and the number of downloads before."""

    async def run(self) -> None:
        """Run the world to its end."""
        directory = self._directory / "0"
        directory.mkdir(mode=0o700)
        with Disk.running(directory, self._wall) as self._disk:
            self._disk.on_operation = self._trace.wrote
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._internet = Internet(Random(self._rng.random()), {HOST: "127.0.0.1"}, nursery)
                self._internet.trace = self._trace
                self._watchdog.internet = self._internet
                self._internet.install()
                self._bounds = Bounds(self._population, self._internet)
                self._internet.on_much = self._check_much
                if self._history:
                    self._wiretap = Wiretap(self._history)
                    self._internet.listener = self._wiretap
                for node, place in self._places.items():
                    self._internet.nodes[place] = (node, self._nodes[node].serve)
                async with self._ith.running():
                    nursery.start_soon(self._machine)
                    for incident in self.scenario.incidents:
                        nursery.start_soon(self._happen_at, incident)
                    await self._to_the_end()
                    nursery.cancel_scope.cancel("the world is over")
        self._finish()

    def _end(self, sentence: str) -> None:
        """End a world that would not end by itself, or not soon."""
        if not self._nursery.cancel_scope.cancel_called:
            self._checker.say(sentence)
            self._nursery.cancel_scope.cancel("the world never ends")

    async def _to_the_end(self) -> None:
        await trio.sleep_until(self.scenario.healed_at)
        self._heal()
        with trio.move_on_after(PATIENCE_S):
            while self._checker.waiting and not self._checker.violations:
                await self._changed.wait()
        if not self._checker.violations:
            await trio.sleep(AFTERMATH_S)
            self._checker.end()
            self._checker.check_attempts(self._ith.upgrades)
            self._check_network()
            self._check_turns()
            self._check_disk()
            await self._check_bounds()

    def _finish(self) -> None:
        result = self.result
        result.violations = self._checker.violations
        result.expected = self._checker.expected
        result.endings = Counter(str(each["status"]) for each in self._checker.finals.values())
        result.seconds = trio.current_time()
        result.steps = self._watchdog.steps
        for node in self._nodes.values():
            result.faults.update(kind.value for kind in node.hits.elements())
            for each in node.received:
                self._trace.said(repr(each))
        for heard in self._ith.heard:
            self._trace.said(json.dumps(heard, sort_keys=True))
        result.trace = self._trace.hexdigest()
        if self._history:
            self._wiretap.finish()
            result.history = self._history.moments

    def _note(self, lane: str, text: str) -> None:
        if self._history:
            self._history.note(lane, text)

    # -- The machine ------------------------------------------------------------------------------

    async def _machine(self) -> None:
        """Run the program, and start it again whenever it has ended."""
        while True:
            self._is_counting = True
            with trio.CancelScope() as self._program, ExitStack() as stack:
                stack.enter_context(observing(self._on_step))
                stack.enter_context(marking(self._on_mark))
                stack.enter_context(self._population.of_program())
                self._note(PROXY, "the program starts")
                self._starts += 1
                try:
                    async with trio.open_nursery() as nursery:
                        program = partial(
                            serve,
                            self._settings(),
                            network=self._internet,
                            offload=lambda _: Inline(),
                            clock=self._wall,
                            rng=Random(self._rng.random()),
                        )
                        self._supervisor = await nursery.start(program)
                    if not self._is_stopping and self._is_counting:
                        self._checker.say("the program ended, and nobody asked it to")
                except* ProxyError as errors:
                    self._ended(errors)
                except* Exception as errors:  # noqa: BLE001 - a defect is what is looked for
                    trail = "".join(traceback.format_exception(errors))
                    self._checker.say(f"a defect ended the program: {trail}")
                    self._tell()
            if self._is_counting:
                for sentence in self._bounds.after_its_end(self._disk.directory):
                    self._checker.say(sentence)
            self._supervisor, self._is_stopping = None, False
            await trio.sleep(self._down_s or RESTART_S)
            self._down_s = 0.0
            self._internet.plug_in()

    def _ended(self, errors: BaseExceptionGroup[ProxyError]) -> None:
        """Take notice that the program ended by an error that it names."""
        if not self._is_counting:
            return
        self._note(PROXY, f"the program ends: {errors.exceptions[0]!r}")
        self.result.faults["program ended by an error"] += 1
        self._checker.had_crash = True
        if not self._has_disk_failed:
            self._checker.say(f"the program ended without a fault of the disk: {errors!r}")

    def _settings(self) -> Settings:
        slower = self.scenario.slower
        return Settings(
            ith=IthSettings(
                url=f"http://{HOST}:{self._ith.port}",
                health_seconds=10.0 * slower,
                heartbeat_seconds=30.0 * slower,
                ping_seconds=30.0 * slower,
            ),
            dicom=DicomSettings(
                associations_per_node=self.scenario.associations,
                echo_interval_seconds=30.0 * slower,
            ),
            dispatch=DispatchSettings(status_detail=self.scenario.detail),
            service=ServiceSettings(drain_seconds=self.scenario.drain_seconds),
            limits=LimitSettings(reserve_gb=0.0),
            state_dir=self._disk.directory,
            token=Secret(self._ith.key),
        )

    def _kill(self, *, power: bool, seconds: float) -> None:
        """End the program as it is now: what it does from here on has no effect."""
        if not self._is_counting:
            return
        self._is_counting = False
        self._checker.had_crash = True
        self._down_s = seconds
        self._note(PROXY, "the machine loses its power" if power else "the program is killed")
        self.result.faults["power loss" if power else "kill"] += 1
        rng = Random(self._rng.random())
        self._disk.crash(self._directory / str(self._starts), rng, power=power)
        self._internet.unplug()
        self._program.cancel("the program is killed")

    def _on_step(self, run: Run[Any, Any, Any], step: Step[Any, Any, Any]) -> None:
        if not self._is_counting:
            return
        self.result.rows.add(step.row)
        self._trace.said(f"{run.machine.name} {step.row} {step.after.name}")
        if self._history:
            self._history.step(run, step)
        if self._watched:
            self._moment(step.row, run)
            if step.after is not step.before:
                self._moment(f"{run.machine.name} {step.after.name}", run)

    def _on_mark(self, mark: Mark) -> None:
        if not self._is_counting:
            return
        self.result.marks[mark.name] += 1
        if self._history:
            self._history.mark(mark)
        if self._strikes:
            self._strike(mark)
        if self._watched:
            self._moment(mark.name)
        self._disk.reached(mark)

    # -- ITH --------------------------------------------------------------------------------------

    def _on_status(self, frame: JsonObject) -> None:
        if self._history:
            self._history.heard(told(frame)[0])
        self._checker.status(frame)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _send(self, event: JsonObject) -> None:
        """Send an event as soon as a proxy is connected."""
        while not await self._ith.tell(event):
            await trio.sleep(0.1)  # a link that has just ended counts as online for a moment
            await self._ith.wait_for(lambda ith: ith.online)

    # -- What happens -----------------------------------------------------------------------------

    async def _happen_at(self, incident: Incident) -> None:
        await trio.sleep_until(incident.at)
        await self._happen(incident)

    async def _happen_later(self, incident: Incident, seconds: float) -> None:
        await trio.sleep(seconds)
        await self._happen(incident)

    async def _happen(self, incident: Incident) -> None:  # noqa: PLR0912 - one case for each kind
        is_wish = isinstance(incident, incidents.WISHES)
        self._note(ITH_LANE if is_wish else FAULT, in_words(incident))
        match incident:
            case incidents.OrderSent():
                await self._order(incident)
            case incidents.Deletion():
                await self._delete(incident)
            case incidents.Activation():
                await self._activate(incident)
            case incidents.NodeChange():
                await self._change_node(incident)
            case incidents.Trouble():
                self._nodes[incident.node].misbehave(incident.misbehaviour)
            case incidents.Outage():
                await self._outage(incident)
            case incidents.PartialOutage():
                await self._partial_outage(incident)
            case incidents.Flapping():
                await self._flap(incident.seconds)
            case incidents.Cut():
                self._internet.cut(incident.to)
                if incident.to != ITH:
                    self._checker.excuse("wait: a connection was cut", node=incident.to)
            case incidents.Snagged():
                await self._snag(incident)
            case incidents.BadAnswer():
                self._bad_answer(incident)
            case incidents.DeadApplication():
                await self._kill_application(incident.seconds)
            case incidents.DiskTrouble():
                await self._disk_trouble(incident)
            case incidents.Crash():
                self._kill(power=incident.power, seconds=incident.seconds)
            case incidents.Stop():
                await self._stop(twice=incident.twice)
            case incidents.OperatorPause():
                await self._pause(incident.seconds)
            case incidents.ClockStep():
                self._wall.ahead += incident.seconds
            case incidents.Rush():
                await self._rush(incident)
            case incidents.Corruption():
                self._disk.corrupt(self._rng)
            case incidents.Strike():
                self._strikes[incident.mark].append(_Aimed(incident.nth, incident.blow))
            case incidents.Aimed():
                self._watched[incident.moment].append(_Watched(incident.nth, incident))

    async def _order(self, incident: incidents.OrderSent) -> None:
        wanted = thing(incident.level, incident.session)
        correlation_id = f"corr_{incident.number:012}"
        if correlation_id in self._checker.orders:
            if not self._checker.is_deleted(wanted):
                await self._send(_order_event(incident, correlation_id))
            return
        node_ids = tuple(node for node in incident.nodes if self._ith.node(node))
        if not node_ids or self._checker.is_deleted(wanted):
            return
        order = Ordered(correlation_id, wanted, incident.nodes, node_ids)
        self._checker.ordered(order)
        event = _order_event(incident, correlation_id)
        before = self._ith.connections, self._starts
        await self._send(event)
        self._sent += 1
        sent = self._sent
        for _ in range(incident.copies):
            await trio.sleep(incident.gap)
            await self._send(event)
        await trio.sleep(STOP_S)
        after = self._ith.connections, self._starts
        if self.scenario.is_calm and before == after and not self._posted(order, sent):
            self._checker.say(f"{correlation_id} arrived, and was dropped (P1)")
        while order.heard_at is None:
            await trio.sleep(REPEAT_S)
            if order.heard_at is None:
                await self._send(event)

    async def _rush(self, incident: incidents.Rush) -> None:
        """Order urgently without a pause, and once with low priority, while ITH is slow."""
        wanted = [(level, session) for level in EntityLevel for session in range(SESSIONS)]
        free = [each for each in wanted if each not in self.scenario.wanted]
        low = self._rng.choice(free or wanted)
        wanted.remove(low)
        self._rng.shuffle(wanted)
        orders = [(*each, "urgent") for each in islice(cycle(wanted), incident.count)]
        orders.insert(incidents.AT_ONCE, (*low, "low"))
        slow = Fault(delay_s=incident.delay)
        self._ith.rest.download_faults.extend([slow] * (2 * len(orders)))
        for number, (level, session, priority) in enumerate(orders):
            await trio.sleep(incident.gap if number > incidents.AT_ONCE else 0.0)
            order = incidents.OrderSent(
                at=trio.current_time(),
                number=incidents.IN_A_RUSH + number,
                level=level,
                session=session,
                nodes=(incident.node,),
                priority=priority,
            )
            self._nursery.start_soon(self._order, order)
            if priority == "low":
                self._overtaken = thing(level, session), len(self._ith.rest.downloads)
        faults = self._ith.rest.download_faults
        while slow in faults:
            faults.remove(slow)

    def _posted(self, order: Ordered, sent: int) -> bool:
        """Whether the program has this order, or as many as ITH had sent with it."""
        return order.heard_at is not None or self.result.marks[Mark.ORDER_POSTED.name] >= sent

    async def _stop(self, *, twice: bool) -> None:
        """Tell the program to stop; a second time while it drains, if it still does."""
        for _ in range(1 + twice):
            if self._supervisor is not None:
                self._is_stopping = True
                self._checker.had_crash = True
                self._supervisor.drain("the world stops it")
            await trio.sleep(0.5)

    async def _pause(self, seconds: float) -> None:
        if self._supervisor is not None:
            self._supervisor.pause("the world's operator pauses it")
        await trio.sleep(seconds)
        is_done = False
        while not is_done:  # the operator is answered once it is durable
            starts = self._starts
            is_done = self._supervisor is not None and self._supervisor.resume()
            await trio.sleep(1.0)
            is_done = is_done and starts == self._starts and self._supervisor is not None

    async def _flap(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while True:
                await self._ith.wait_for(lambda ith: ith.online)
                await trio.sleep(0.5)
                if self._ith.online:
                    self._ith.drop()
                await trio.sleep(0.1)

    async def _delete(self, incident: incidents.Deletion) -> None:
        gone = thing(incident.level, incident.session)
        self._ith.forget(incident.level, incident.session)
        self._checker.deleted(gone)
        match incident.level:
            case EntityLevel.SUBJECT:
                event = frames.subject_deleted(gone.id, subject_identifier=gone.patient_id)
            case EntityLevel.SESSION:
                event = frames.session_deleted(
                    gone.id, study_instance_uid=gone.study_instance_uid, subject_id=gone.subject_id
                )
            case EntityLevel.SCAN:
                event = frames.scan_deleted(
                    gone.id,
                    study_instance_uid=gone.study_instance_uid,
                    scan_number=1,
                    subject_id=gone.subject_id,
                    session_id=gone.session_id,
                )
        async with self._deleting:
            before = self.result.marks[Mark.ROWS_DELETED.name]
            await self._send(event)
            with trio.move_on_after(REPEAT_S):
                while self.result.marks[Mark.ROWS_DELETED.name] == before:  # noqa: ASYNC110
                    await trio.sleep(1.0)
                self._checker.purged.update(gone.sent)

    async def _activate(self, incident: incidents.Activation) -> None:
        self._ith.publish(is_active=False)
        await self._send(frames.status_changed(is_active=False, reason="the world pauses it"))
        begun, pauses = trio.current_time(), self._pauses
        await trio.sleep(incident.seconds)
        if self.scenario.is_calm and pauses == self._pauses:
            self._checker.silence(begun + STOP_S, trio.current_time())
        self._pauses += 1
        self._ith.publish(is_active=True)
        await self._send(frames.status_changed(is_active=True))

    async def _change_node(self, incident: incidents.NodeChange) -> None:
        node = incident.node
        known = self._ith.node(node)
        if known is None:
            return
        match incident.change:
            case NodeEdit.REMOVED:
                self._ith.remove_node(node)
                self._checker.excuse(REMOVED, node=node)
                event = frames.nodes_changed([known], "removed")
            case NodeEdit.MOVED:
                host, port = self._places[node]
                place = (host, port + 1)
                self._internet.nodes[place] = self._internet.nodes.pop((host, port))
                self._places[node] = place
                event = self._updated(node, port=port + 1)
                self._checker.excuse("wait: the node moved", node=node)
            case NodeEdit.DISABLED:
                self._checker.excuse("no: the node was disabled", node=node)
                event = self._updated(node, is_active=False)
            case NodeEdit.ENABLED:
                event = self._updated(node, is_active=True)
            case NodeEdit.RENAMED:
                event = self._updated(node, name=f"{node} renamed")
        if incident.lag:
            self._shown_late.add(node)
        await self._send(event)
        await trio.sleep(incident.lag)
        self._ith.publish(is_active=self._is_active)

    def _updated(self, node: str, **fields: object) -> JsonObject:
        changed = self._ith.set_node(node, **fields)
        return frames.nodes_changed([changed], "updated")

    async def _outage(self, incident: incidents.Outage) -> None:
        self._internet.leave(incident.of, incident.manner)
        if incident.of == ITH:
            self._checker.excuse("wait: the way to ITH was down")
        else:
            self._checker.excuse(AWAY, node=incident.of)
        await trio.sleep(incident.seconds)
        self._check_work()
        self._internet.come_back(incident.of)

    async def _partial_outage(self, incident: incidents.PartialOutage) -> None:
        ith = self._ith
        if incident.rest:
            self._checker.excuse("wait: REST was down")
            ith.rest_status = incident.status
        else:
            ith.script.stall, ith.script.refuse = not incident.status, incident.status or None
            if ith.online:
                ith.drop()
        await trio.sleep(incident.seconds)
        if incident.rest:
            ith.rest_status = None
        else:
            ith.script.stall, ith.script.refuse = False, None

    async def _snag(self, incident: incidents.Snagged) -> None:
        self._internet.snags.append(
            Snag(incident.to, incident.after, incident.inward, incident.cuts)
        )
        if incident.to == ITH:
            self._checker.excuse("wait: a connection to ITH was cut")
        else:
            self._checker.excuse("wait: a connection was cut", node=incident.to)
        await trio.sleep(incident.seconds)
        self._internet.thaw()

    def _bad_answer(self, incident: incidents.BadAnswer) -> None:
        faults = (
            self._ith.rest.configuration_faults
            if incident.about == "configuration"
            else self._ith.rest.download_faults
        )
        fault = Fault(
            status=incident.status or None,
            cut_after=incident.cut_after if incident.cut_after >= 0 else None,
            stall_after=incident.stall_after if incident.stall_after >= 0 else None,
            flip_at=incident.flip_at if incident.flip_at >= 0 else None,
        )
        faults.extend([fault] * incident.times)
        is_no = incident.status in {401, 404} or fault.flip_at is not None
        self._checker.excuse("no: REST answered so" if is_no else "wait: REST answered so")

    async def _kill_application(self, seconds: float) -> None:
        self._ith.die()
        await trio.sleep(seconds)
        self._ith.revive()

    async def _disk_trouble(self, incident: incidents.DiskTrouble) -> None:
        part = DiskPart.LEDGER if incident.ledger else DiskPart.CONTENT
        error = DiskError.FULL if incident.full else DiskError.IO
        self._disk.fail(error, part, after=incident.nth, times=incident.times)
        self._has_disk_failed = True
        self._checker.excuse("wait: the disk failed")
        await trio.sleep(incident.seconds)
        self._disk.heal()

    def _strike(self, mark: Mark) -> None:
        """Let happen what is aimed at a mark."""
        due = self._strikes.get(mark.name, [])
        for aimed in [*due]:
            aimed.nth -= 1
            if aimed.nth >= 0:
                continue
            due.remove(aimed)
            blow = aimed.blow
            self._note(FAULT, f"{blow.name} at {mark.name}")
            self.result.faults[f"{blow.name} at {mark.name}"] += 1
            match blow:
                case Blow.CRASH | Blow.POWER_LOSS:
                    self._kill(power=blow is Blow.POWER_LOSS, seconds=RESTART_S)
                case Blow.CUT:
                    self._internet.cut(ITH)
                    self._checker.excuse("wait: a connection to ITH was cut")
                case Blow.SWALLOW:
                    self._nursery.start_soon(self._kill_application, DEAD_S)
                case Blow.DISK_FULL:
                    self._disk.fail(DiskError.FULL, times=3)
                    self._has_disk_failed = True
                    self._checker.excuse("wait: the disk failed")

    def _moment(self, moment: str, run: Run[Any, Any, Any] | None = None) -> None:
        """Let happen what is aimed at a moment, which may be that of a machine."""
        due = self._watched.get(moment, [])
        if not due or trio.current_time() > incidents.BUSY_S:
            return
        for watched in [*due]:
            watched.nth -= 1
            if watched.nth >= 0:
                continue
            due.remove(watched)
            incident = watched.aimed.incident
            if run is not None and watched.aimed.there:
                incident = self._there(incident, run)
            self.result.faults[f"{spoken(type(incident))} at {moment}"] += 1
            if not watched.aimed.later:
                self._at_once(incident)
            self._nursery.start_soon(self._happen_later, incident, watched.aimed.later)

    def _at_once(self, incident: Incident) -> None:
        """Let it begin before the next step of the program, where it would come too late then."""
        match incident:
            case incidents.Cut(to=to):
                self._internet.cut(to)
            case incidents.Outage(of=of, manner=manner):
                self._internet.leave(of, manner)
            case incidents.Crash(power=power, seconds=seconds):
                self._kill(power=power, seconds=seconds)
            case _:
                pass

    def _there(self, incident: Incident, run: Run[Any, Any, Any]) -> Incident:
        """Return an incident that is about the order and the node of a machine."""
        whose = owner(run)
        number = int(whose.correlation_id.removeprefix("corr_") or -1)
        order = next((each for each in self.scenario.orders if each.number == number), None)
        place = whose.node_id or (ITH if run.machine.name == "connection" else "")
        return incidents.about(incident, order, place)

    def _heal(self) -> None:
        """End every fault, and let ITH want everything to go on."""
        self._note(FAULT, "every fault has healed")
        self._strikes.clear()
        self._watched.clear()
        self._disk.heal()
        for to in (ITH, *NODES):
            self._internet.come_back(to)
        self._internet.snags.clear()
        self._internet.thaw()
        for node in self._nodes.values():
            node.behave()
        self._ith.revive()
        self._ith.rest_status = None
        self._ith.rest.configuration_faults.clear()
        self._ith.rest.download_faults.clear()
        self._ith.script.stall, self._ith.script.refuse = False, None
        for name in NODES:
            known = self._ith.node(name)
            if known is not None and (not known["is_active"] or name in self._shown_late):
                self._nursery.start_soon(self._send, self._updated(name, is_active=True))
        self._ith.publish(is_active=True)

    def _check_network(self) -> None:
        """Check that no connection to a node is left."""
        for node in NODES:
            for line in self._internet.open_lines(node):
                if trio.current_time() - line.at > LEFT_S:
                    self._checker.say(f"{node}: a connection is left since {line.at:.3f} s (P6)")

    async def _check_bounds(self) -> None:
        """Check that the program is at rest at some moment, and never held too much."""
        orders = len(self._checker.orders)
        until = trio.current_time() + REST_S
        while excess := self._unrest(orders):
            if trio.current_time() > until:
                break
            await trio.sleep(1.0)
        ever = self._bounds.ever(orders, self.scenario.associations, LimitSettings().downloads)
        for sentence in (*excess, *ever):
            self._checker.say(sentence)

    def _unrest(self, orders: int) -> list[str]:
        """Return what the program should not hold when nothing is left to do."""
        is_weighed = self.scenario.seed % WEIGHED_ONE_IN == 0
        return [*self._bounds.at_rest(self._disk.directory, orders, is_weighed=is_weighed)]

    def _check_work(self) -> None:
        """Check that what the program holds is explained by its orders."""
        for sentence in self._bounds.at_work(len(self._checker.orders)):
            self._checker.say(sentence)

    def _check_much(self) -> None:
        """End the world if the program keeps what it was sent, before there is too much of it."""
        excess = [*self._bounds.at_work(len(self._checker.orders))]
        if excess:
            self._end(f"it is sent much, and keeps {excess[0]} (P7)")

    def _check_turns(self) -> None:
        """Check that what was ordered with low priority in a rush had its turn."""
        if self._overtaken is None or not self.scenario.is_flowing:
            return
        wanted, before = self._overtaken
        paths = [each.path for each in self._ith.rest.downloads[before:]]
        ours = (number for number, path in enumerate(paths) if f"/{wanted.id}/" in path)
        passed = next(ours, len(paths))
        if passed > MOST_PASSED:
            self._checker.say(f"{passed} urgent downloads passed one of low priority (P1)")

    def _check_disk(self) -> None:
        """Check that nothing of what ITH deleted is left in any file."""
        for found in self._disk.traces(sorted(self._checker.purged)):
            self._checker.say(f"{found} holds a UID of what ITH deleted (P13)")


def _order_event(incident: incidents.OrderSent, correlation_id: str) -> JsonObject:
    wanted = thing(incident.level, incident.session)
    base = {"correlation_id": correlation_id, "priority": incident.priority}
    match incident.level:
        case EntityLevel.SUBJECT:
            return frames.subject_dispatch(wanted.id, incident.nodes, **base)
        case EntityLevel.SESSION:
            return frames.session_dispatch(
                wanted.id,
                incident.nodes,
                subject_id=wanted.subject_id,
                **base,
            )
        case EntityLevel.SCAN:
            return frames.scan_dispatch(
                wanted.id,
                incident.nodes,
                subject_id=wanted.subject_id,
                session_id=wanted.session_id,
                scan_number=1,
                **base,
            )


def _first(errors: BaseException) -> BaseException:
    """Return the first error in a group, however deep."""
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors


@cache
def _prepare() -> None:
    """Make what all worlds of this process share, and leave it out of what is counted."""
    for level in EntityLevel:
        for session in range(incidents.SESSIONS):
            archive(level, session)
    freeze()


def run(scenario: Scenario, directory: Path, *, with_history: bool = False) -> Result:
    """Run the world of a scenario; ``directory`` is empty, and better in memory."""
    _prepare()
    watchdog, population = Watchdog(), Population()
    world = World(scenario, directory, watchdog, population, with_history=with_history)
    with shuffled(scenario.seed):
        try:
            trio.run(world.run, clock=world_clock(), instruments=[watchdog, population])
        except* Starved as errors:
            world.result.violations.append(f"0.000 s: {_first(errors)}")
    return world.result
