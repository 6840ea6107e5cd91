"""The history of a world, for its page: messages, changes of states, marks, faults, by time.

It holds no patient data: of a UID the last digits, of an order the end of its id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import trio

from proxy.activities.delivery.delivery import Delivery
from proxy.activities.dispatch import Dispatch
from proxy.activities.node import NodeAtWork
from proxy.fsm import Step
from proxy.runtime.marks import Mark
from proxy.runtime.runner import Run

ITH_LANE, PROXY, LEDGER, FAULT = "ITH", "proxy", "ledger", "fault"
"""The lanes beside those of the nodes, which have their ids; a fault goes across all of them."""

RESET = "connection reset"
TAIL = 4
"""So many digits of an id or a UID tell it apart in one world."""

SHOWN_MARKS = {
    Mark.COMMIT_DONE: "commit",
    Mark.DOWNLOAD_DONE: "download complete",
    Mark.OBJECT_ADOPTED: "object kept",
    Mark.CONTENT_KEPT: "content kept",
    Mark.CONTENT_PLANNED: "instances planned",
    Mark.ROWS_DELETED: "rows deleted",
    Mark.OBJECT_REMOVED: "object removed",
    Mark.FILES_REMOVED: "files removed",
}
"""What the marks of the ledger and of the files say; the others come with a message."""


@dataclass
class Moment:
    """One thing that happened: in a lane, or from a lane ``to`` another.

    Times are in seconds of the world. A message that has not ``arrived`` is lost, or on its way at
    the end of the world. ``is_heard`` is False for a report that ITH's application never had.
    ``times`` counts equal moments in a row, the last of them at ``until``. ``is_routine`` marks
    signs of life.
    """

    at: float
    lane: str
    text: str
    to: str = ""
    arrived: float | None = None
    is_lost: bool = False
    is_heard: bool = True
    is_routine: bool = False
    times: int = 1
    until: float = 0.0


class History:
    """Collects the moments of one world, in the order in which they happen."""

    def __init__(self, now: Callable[[], float] = trio.current_time) -> None:
        self.moments: list[Moment] = []
        self._now = now

    def note(self, lane: str, text: str, *, is_routine: bool = False) -> Moment:
        """Note what happens in a lane; the same again is counted."""
        now = self._now()
        last = self.moments[-1] if self.moments else None
        if last and (last.lane, last.to, last.text) == (lane, "", text):
            last.times += 1
            last.until = now
            return last
        moment = Moment(now, lane, text, is_routine=is_routine, until=now)
        self.moments.append(moment)
        return moment

    def message(self, lane: str, to: str, text: str, *, is_routine: bool = False) -> Moment:
        """Note a message that leaves a lane for another."""
        now = self._now()
        moment = Moment(now, lane, text, to, is_routine=is_routine, until=now)
        self.moments.append(moment)
        return moment

    def heard(self, text: str) -> None:
        """Note that ITH's application has a report, which its library had before."""
        for moment in reversed(self.moments):
            if moment.text == text and not moment.is_heard:
                moment.is_heard = True
                return

    def step(self, run: Run[Any, Any, Any], step: Step[Any, Any, Any]) -> None:
        """Note the change of a machine's state.

        Associations are left out, whose states are numbers: their messages say the same.
        """
        if step.after is step.before or run.machine.captioned:
            return
        name = run.machine.name
        whose = owner(run)
        label = " ".join(filter(None, (name, tail(whose.correlation_id), whose.node_id)))
        self.note(PROXY, f"{label}: {step.before.name} → {step.after.name}")

    def mark(self, mark: Mark) -> None:
        """Note a mark of the ledger or of the files."""
        text = SHOWN_MARKS.get(mark)
        if text is not None:
            self.note(LEDGER, text, is_routine=mark is Mark.COMMIT_DONE)


def tail(name: str) -> str:
    """Return the last digits of an id or a UID."""
    return name[-TAIL:]


class Owner(NamedTuple):
    """Whose a machine is: an order's, by its correlation id, a node's, both, or nobody's ("")."""

    correlation_id: str = ""
    node_id: str = ""


def owner(run: Run[Any, Any, Any]) -> Owner:
    """Return whose machine it is; a machine knows its owner by the owner's method alone."""
    match getattr(run._emit, "__self__", None):  # noqa: SLF001
        case Delivery() as delivery:
            return Owner(delivery.order.correlation_id, delivery.node_id)
        case Dispatch() as dispatch:
            return Owner(dispatch.order.correlation_id)
        case NodeAtWork() as node:
            return Owner(node_id=node.node_id)
        case _:
            return Owner()
