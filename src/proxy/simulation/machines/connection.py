"""The connection to ITH, as ``proxy.backend.link``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from proxy.fsm import Event
from proxy.machines import connection
from proxy.machines.connection import ConnectionData, ConnectionOutput, ConnectionState
from proxy.simulation.machines.tasks import ANSWER, Broken, ModelRun, Steps, Unforeseen

if TYPE_CHECKING:
    from proxy.simulation.machines.site import Site

CLOSED = 0
"""The answer to our close frame; any other answer that ends no link is a message."""

LONGEST_S = 60.0


class ModelConnection(ModelRun[ConnectionState, ConnectionData, ConnectionOutput]):
    """The one link."""

    __slots__ = ("failures", "is_announced", "site")

    def __init__(self, site: Site) -> None:
        super().__init__(site.clock, site.rules.connection, ConnectionData())
        self.site = site
        self.is_announced = False
        self.failures = 0

    def _keep_link(self) -> Steps[None]:
        if self._has_ended((yield ANSWER)):
            return
        self.tell(connection.LinkOpened())
        is_heard = False
        while not self._has_ended(answer := (yield ANSWER)):
            if self.state is ConnectionState.CLOSING and answer == CLOSED:
                self.tell(connection.LinkClosed())
                return
            if not is_heard:
                is_heard = True
                self.tell(connection.HandshakeDone())

    def _has_ended(self, answer: int) -> bool:
        """Tell the end of the link, if that is what came."""
        match answer:
            case 1:
                wait = self.site.rules.full_jitter(self.data.attempts + 1, 1.0, LONGEST_S, 0.5)
                self.tell(connection.LinkDropped("dropped", wait))
            case 2:
                self.tell(connection.KeyRefused("refused"))
            case 3:
                self.tell(connection.KeyTaken("taken"))
            case 5:
                raise Unforeseen("planned")
            case _:
                return False
        return True

    def emit(self, output: ConnectionOutput) -> None:
        """Note what the rest of the program believes."""
        self.is_announced = isinstance(output, connection.AnnounceOnline)

    def check(self, before: ConnectionState, event: Event) -> None:
        """Only a stable link forgets failures; every failure is counted."""
        link = self.data
        if link.attempts < self.failures and not isinstance(event, connection.StayedUp):
            raise Broken(f"{self.name}: {self.failures} failures are forgotten too early")
        self.failures = link.attempts

    def look(self) -> None:
        """What is announced is so."""
        state = self.state
        if state is ConnectionState.CLOSING or self.over:
            return
        if self.is_announced != (state is ConnectionState.ONLINE):
            raise Broken(f"{self.name}: announced online is {self.is_announced} in {state.name}")

    activities: ClassVar = {"keep_link": _keep_link}
