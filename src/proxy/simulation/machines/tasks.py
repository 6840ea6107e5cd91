"""Tasks without trio: an activity is a generator that yields where the program has a checkpoint.

A run is told events as :class:`proxy.runtime.runner.Run` is: an activity lives exactly as long as
the states that name it; until its next checkpoint an activity that was cancelled may tell one more
fact; the next activity begins after that. Who goes on when is for the site to say.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping
from enum import Enum
from types import FunctionType
from typing import ClassVar, Final, Generic, TypeAlias, TypeVar, cast

from proxy.fsm import ActivityFailed, Event, Ignore, IllegalEvent, Limit, Machine, Row

S = TypeVar("S", bound=Enum)
D = TypeVar("D")
O = TypeVar("O")  # noqa: E741 - the machines' letter for an output
R = TypeVar("R")


class Broken(Exception):
    """An invariant does not hold; the message says which, and of what."""


class Unforeseen(Exception):
    """What an activity did not foresee."""


class Signal:
    """What a task can wait for: until it is set, or is fired the next time."""

    __slots__ = ("is_set", "waiters")

    def __init__(self) -> None:
        self.is_set = False
        self.waiters: list[Task] | None = None

    def set(self) -> None:
        """Let those who wait, and all who will, go on."""
        self.is_set = True
        self.fire()

    def fire(self) -> None:
        """Let those who wait now go on."""
        if self.waiters:
            waiters, self.waiters = self.waiters, None
            for task in waiters:
                task.is_ready = True
                task.wake()


SOON, ANSWER, OPENING, ENDED = range(4)
"""What a task waits for if not for a signal: its turn alone, as for the answer of the ledger; an
answer of the world outside; such an answer, unless a stop comes first; its turn, as one has come.
"""

CUT: Final = -1
"""What a task is given where a stop ended its wait."""

NOTHING: Final = cast("int", None)
"""What it is given where it waited for no answer; a generator that begins takes nothing else."""

Wait: TypeAlias = int | Signal
Steps: TypeAlias = Generator[Wait, int, R]

EAGER, TURNS = range(20), 2000
"""So many checkpoints a task goes through while no other waits for its turn; and so many turns are
taken without an answer of the world: more are a loop that never ends."""


class ModelClock:
    """What all tasks share: the time, and who is to be woken.

    ``story``, where one is wanted, has a line for each step. ``moved`` are the runs that changed
    their state and were not looked at since, ``limits`` those whose state has a limit, with the
    time at which it is over.
    """

    __slots__ = ("asking", "awake", "is_settling", "limits", "moved", "now", "story")

    def __init__(self, story: list[str] | None = None) -> None:
        self.now = 0.0
        self.story = story
        self.awake: deque[Task] = deque()
        self.moved: dict[Task, None] = {}
        self.limits: dict[Task, float] = {}
        self.is_settling = False
        self.asking = 0
        """The bits of the tasks that wait for an answer."""

    def story_of(self, line: str) -> None:
        """Add a line, with the time."""
        if self.story is not None:
            self.story.append(f"{self.now:8.1f}  {line}")

    def settle(self) -> None:
        """Let every task go on that waits for nothing but its turn."""
        awake = self.awake
        next_one = awake.popleft
        turns = TURNS
        self.is_settling = True
        try:
            while awake:
                next_one().turn()
                turns -= 1
                if not turns:
                    raise Broken("a task goes on for ever, and waits for nothing")
        finally:
            self.is_settling = False


class Task:
    """One generator at work. ``is_ready`` says that the signal it waited for was given."""

    __slots__ = ("bit", "clock", "is_awake", "is_ready", "steps", "wait")

    def __init__(self, clock: ModelClock) -> None:
        self.clock = clock
        self.steps: Steps[None] | None = None
        self.wait: Wait = SOON
        self.is_ready = False
        self.is_awake = False
        self.bit = 0

    def start(self, steps: Steps[None]) -> None:
        """Begin with its next turn."""
        self.steps = steps
        self.wait = SOON
        self.wake()

    def wake(self) -> None:
        """Have a turn soon."""
        if not self.is_awake:
            self.is_awake = True
            self.clock.awake.append(self)

    def turn(self) -> None:
        """Go on, where nothing more is waited for."""
        self.is_awake = False
        if self.steps is not None and (self.wait is SOON or self.is_ready):
            self.resume(NOTHING)

    def resume(self, given: int) -> None:
        """Go on to the next wait, or to the end."""
        steps, clock = self.steps, self.clock
        clock.asking &= ~self.bit
        assert steps is not None  # noqa: S101 - for the type checker
        try:
            wait = steps.send(given)
            if clock.is_settling:
                for _ in EAGER:
                    if clock.awake or not (
                        wait is SOON or (isinstance(wait, Signal) and wait.is_set)
                    ):
                        break
                    wait = steps.send(NOTHING)
        except StopIteration:
            self.steps = None
            self.ended()
            return
        except Unforeseen as fault:
            self.steps = None
            self.failed(fault)
            return
        self.wait = wait
        if wait is ANSWER or wait is OPENING:
            clock.asking |= self.bit
        elif wait is SOON:
            self.wake()
        elif isinstance(wait, Signal):
            self.is_ready = wait.is_set
            if wait.is_set:
                self.wake()
            elif wait.waiters:
                wait.waiters.append(self)
            else:
                wait.waiters = [self]

    def cut(self) -> None:
        """End an interruptible wait."""
        if self.wait is OPENING and self.steps is not None:
            self.wait = ENDED
            self.clock.asking &= ~self.bit
            self.wake()

    def close(self) -> None:
        """Cancel it: its clean-up runs, and it does not go on."""
        if self.steps is not None:
            steps, self.steps = self.steps, None
            self.clock.asking &= ~self.bit
            wait = self.wait
            if isinstance(wait, Signal) and wait.waiters and self in wait.waiters:
                wait.waiters.remove(self)
            steps.close()

    def ended(self) -> None:
        """Do what follows on the end of the generator."""

    def failed(self, fault: Unforeseen) -> None:
        """Do what follows where it failed."""
        raise fault

    def look(self) -> None:
        """Hold the task, all requests done, against what must be true."""


class Cell(Generic[S, D, O]):
    """What an event does in a state, and how often it did; ``id`` is that of the row or ignore."""

    __slots__ = ("action", "id", "place", "taken")

    def __init__(self, entry: Row[S, D, O] | Ignore[S], place: Place[S, D, O]) -> None:
        self.id = entry.id
        self.action = entry.action if isinstance(entry, Row) else None
        self.place = place
        self.taken = 0


class Place(Generic[S, D, O]):
    """A state, with all that is asked of the machine about it."""

    __slots__ = ("after", "cells", "do", "group", "is_final", "state")

    def __init__(self, machine: Machine[S, D, O], state: S) -> None:
        found, group = machine.definition.get(state), machine.group(state)
        self.state = state
        self.do = found.do if found else None
        self.after: Limit[D] | None = found.after if found else None
        self.group = group.name if group else None
        self.is_final = state in machine.final
        self.cells: dict[type[Event], Cell[S, D, O]] = {}


class Chart(Generic[S, D, O]):
    """A machine's table, arranged to be looked up fast: by the state, then by the event.

    It does what :meth:`proxy.fsm.Machine.step` does, of which a test convinces itself.
    """

    __slots__ = ("cells", "initial", "machine", "places")

    def __init__(self, machine: Machine[S, D, O]) -> None:
        self.machine = machine
        self.places = {state: Place(machine, state) for state in machine.states}
        self.initial = self.places[machine.initial]
        self.cells: list[Cell[S, D, O]] = []
        for (state, event), entry in machine.cells.items():
            self.put(state, event, entry)

    def put(self, state: S, event: type[Event], entry: Row[S, D, O] | Ignore[S]) -> None:
        """Let an event do in a state what a row or ignore says."""
        cell = Cell(entry, self.places[entry.leads_to(state)])
        self.places[state].cells[event] = cell
        self.cells.append(cell)

    @property
    def taken(self) -> Counter[str]:
        """How often each row and ignore was taken, by id."""
        taken: Counter[str] = Counter()
        for cell in self.cells:
            taken[cell.id] += cell.taken
        return taken


class ModelRun(Task, Generic[S, D, O]):
    """One machine at work; ``place`` is its state with all that goes on in it.

    ``left`` says that the states of its activity were left, and it is to be cancelled; ``is_done``
    that the machine is in a final state and its last activity has ended, of which ``owner`` hears.
    """

    __slots__ = (
        "data",
        "is_done",
        "is_running",
        "left",
        "moves",
        "over",
        "owner",
        "place",
        "state",
    )

    activities: ClassVar[Mapping[str, Callable[..., Steps[None]]]] = {}

    def __init__(self, clock: ModelClock, chart: Chart[S, D, O], data: D) -> None:
        super().__init__(clock)
        self.place = chart.initial
        self.state = chart.initial.state
        self.data = data
        self.moves = Signal()
        self.over = False
        self.left = False
        self.is_running = False
        self.is_done = False
        self.owner: Task | None = None

    def __init_subclass__(cls) -> None:
        """Give each class its own copy of what it inherits.

        CPython looks up attributes fast where a piece of code sees the objects of one class alone.
        """
        super().__init_subclass__()
        for name in dir(ModelRun):
            function = getattr(cls, name)
            if isinstance(function, FunctionType) and name not in vars(cls) and name[:2] != "__":
                code = function.__code__.replace()
                setattr(cls, name, FunctionType(code, function.__globals__, name))

    @property
    def name(self) -> str:
        """What it is called where an invariant does not hold."""
        return type(self).__name__.removeprefix("Model").lower()

    def run(self) -> None:
        """Begin with the activity of the present state."""
        self.is_running = True
        self._arm()
        self.left = True
        self.wake()

    def tell(self, event: Event) -> None:
        """Step the machine, hold the step against what must be true, do what it puts out."""
        before, place = self.state, self.place
        cell = place.cells.get(type(event))
        if cell is None:
            raise IllegalEvent(self.name, before, event)
        cell.taken += 1
        if self.clock.story is not None:
            self._tell_story(cell, event)
        if self.over:
            if cell.place is not place or cell.action is not None:
                raise Broken(f"{self.name}: {before.name} is final, and something happened")
            return
        outputs: tuple[O, ...] = ()
        if cell.action is not None:
            self.data, outputs = cell.action(self.data, event)
        if cell.place is not place:
            self._move(cell.place)
        self.check(before, event)
        for output in outputs:
            self.emit(output)

    def _tell_story(self, cell: Cell[S, D, O], event: Event) -> None:
        after = cell.place
        arrow = "" if after is self.place else f" -> {after.state.name}"
        line = f"{self.name}: {self.state.name}{arrow}  {type(event).__name__}  {cell.id}"
        self.clock.story_of(line)

    def _move(self, place: Place[S, D, O]) -> None:
        before = self.place
        self.place = place
        self.state = place.state
        self.clock.moved[self] = None
        if place.is_final or before.do != place.do:
            self.over = place.is_final
            self.left = True
            self.wake()
        if place.after is not None or before.after is not None:
            self._arm()
        if self.wait is OPENING:
            self.cut()
        if self.moves.waiters:
            self.moves.fire()

    def _arm(self) -> None:
        after, limits = self.place.after, self.clock.limits
        if after is not None and self.is_running:
            limits[self] = self.clock.now + after.seconds(self.data)
        else:
            limits.pop(self, None)

    def time_out(self) -> None:
        """Tell that the limit of the present state is over."""
        place = self.place
        assert place.after is not None  # noqa: S101 - for the type checker
        del self.clock.limits[self]
        self.tell(place.after.event())
        if self.place is place:
            self._arm()

    def turn(self) -> None:
        """Go on; where its states were left, end the activity and begin the next one."""
        self.is_awake = False
        if not self.left:
            wait = self.wait
            if self.steps is None or wait is ANSWER or wait is OPENING:
                return
            if wait is ENDED:
                self.resume(CUT)
            elif wait is SOON or self.is_ready:
                self.resume(NOTHING)
            return
        if self.steps is not None:
            if self.is_ready and isinstance(self.wait, Signal):
                self.resume(NOTHING)  # it had happened before the states were left
            self.close()
        if not self.is_running:
            return
        self.left = False
        if self.over:
            self.is_done = True
            if self.owner is not None:
                self.owner.wake()
        elif self.place.do is not None:
            self.steps = self.activities[self.place.do](self)
            self.wait = SOON
            if self.clock.awake:
                self.wake()
            else:
                self.resume(NOTHING)

    def late(self, given: int) -> None:
        """Let a cancelled activity go on to its next checkpoint: an answer came just then."""
        wait = self.wait
        if self.steps is not None and (self.is_ready or not isinstance(wait, Signal)):
            self.resume(NOTHING if wait is SOON or isinstance(wait, Signal) else given)
            self.close()

    def ended(self) -> None:
        """Hold that an activity ends only with a fact, or where its state has a limit."""
        if not self.left and self.clock.limits.get(self, math.inf) == math.inf:
            raise Broken(f"{self.name}: the activity ended in {self.state.name} and told nothing")

    def failed(self, fault: Unforeseen) -> None:
        """Tell that the activity failed, unless its states were left before."""
        if not self.left:
            self.tell(ActivityFailed(str(fault)))

    def check(self, before: S, event: Event) -> None:
        """Hold one step, just taken from the state before, against what must be true."""

    def emit(self, output: O) -> None:
        """Do what an output of the machine asks for."""
        raise NotImplementedError
