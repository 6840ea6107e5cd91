"""One trial: a proxy, a node that stalls, a reason to stop; and what is to be found afterwards."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from tests.end_to_end.site import a_site, node
from tests.end_to_end.stops.node import INSTANCES, Phase, StallingNode
from tests.end_to_end.stops.reasons import CAUSES, NODE_ID, Reason, Scene
from tests.end_to_end.stops.session import SESSION_ID, Prepared

HANGS_S = 20.0
"""After as long, a step of a trial is given up, and said to have failed."""

PATIENT = {
    "dicom__connect_seconds": 60.0,
    "dicom__answer_seconds": 60.0,
    "dicom__stall_seconds": 60.0,
    "dicom__response_seconds": 60.0,
    "dicom__release_seconds": 60.0,
}
"""Limits so long that work which ignores a stop does not end within a trial."""


class Trial:
    """One combination, once. ``wrong`` says what was not as it should be."""

    def __init__(
        self,
        phase: Phase,
        reason: Reason,
        prepared: Prepared,
        root: Path,
        *,
        cancel_seconds: float,
        late_seconds: float,
    ) -> None:
        self.phase = phase
        self.reason = reason
        self.seconds = float("inf")
        """From the cause to the end of the connection, as the node sees it."""
        grace = 0.0 if phase.is_opening else reason.limit(cancel_seconds)
        self.limit = grace + late_seconds
        self.wrong: list[str] = []
        self.ready = trio.Event()
        self.stopped = trio.Event()
        self._prepared = prepared
        self._root = root
        self._cancel_seconds = cancel_seconds
        self._correlation_id = ""

    async def run(self, begin: trio.Event, end: trio.Event) -> None:
        """Get ready, stall and stop at ``begin``, and clean up at ``end``."""
        try:
            async with AsyncExitStack() as stack:
                scene = await self._set_up(stack)
                self.ready.set()
                await begin.wait()
                await self._step("stop", self._stop(scene))
                self.stopped.set()
                await end.wait()
                if not self.reason.ends_program:
                    if scene.site.turns_taken:
                        self.wrong.append(f"{scene.site.turns_taken} turns are taken")
                    await self._step("end", scene.site.stop())
                self._check_disk(scene)
        finally:
            self.ready.set()
            self.stopped.set()

    @property
    def held_tasks(self) -> Counter[str]:
        """The tasks of a dispatch that waits: its own, its run's and its delivery's."""
        if not self.reason.holds or self._ends_complete:
            return Counter()
        names = (
            "activities.dispatch.Dispatch.work",
            "runtime.runner.Run.run",
            "runtime.runner.Run.run",
        )
        return Counter(f"proxy.{name}" for name in names)

    async def _set_up(self, stack: AsyncExitStack) -> Scene:
        self._root.mkdir()
        self._prepared.lend(self._root / "state")
        site = await stack.enter_async_context(a_site(self._root))
        at = await stack.enter_async_context(StallingNode(self.phase).running())
        elsewhere = await stack.enter_async_context(StallingNode().running())
        site.has(**{NODE_ID: node(NODE_ID, at)})
        site.backend.rest.offer("session", SESSION_ID, self._prepared.archive)
        await site.start(
            **PATIENT,
            dicom__cancel_seconds=self._cancel_seconds,
            dicom__echo_interval_seconds=600.0,
            dicom__retry_count=0,
            service__drain_seconds=self.reason.drain_seconds(self._cancel_seconds),
        )
        with trio.fail_after(HANGS_S):
            await at.echoed.wait()
        await at.prepare()
        return Scene(site, at, elsewhere, self._prepared.study_instance_uid)

    async def _stop(self, scene: Scene) -> None:
        self._correlation_id = await scene.site.dispatch(SESSION_ID, NODE_ID)
        await scene.at.reached.wait()
        began = await CAUSES[self.reason](scene)
        await scene.at.gone.wait()
        self.seconds = max(scene.at.gone_at - began, 0.0)  # over before the second signal
        if self.reason.ends_program:
            await scene.site.ended()
        elif self._outcome is not None:
            await scene.site.closing(self._correlation_id)
        if self.reason.begins_again and not self._ends_complete:
            begun_again = scene.elsewhere if self.reason is Reason.MOVED else scene.at
            await begun_again.rejected.wait()

    async def _step(self, name: str, step: Awaitable[None]) -> None:
        """Do a step of the trial; one that does not end has failed, and the others go on."""
        try:
            with trio.fail_after(HANGS_S + self._cancel_seconds):
                await step
        except trio.TooSlowError:
            self.wrong.append(f"the {name} did not end")

    # Expected results -----------------------------------------------------------------------

    @property
    def _ends_complete(self) -> bool:
        """Whether the node has it all, and the program lives to say so."""
        in_time = self.reason not in {Reason.DRAIN_LIMIT, Reason.SECOND_SIGNAL}
        return self.phase is Phase.RELEASE and in_time

    @property
    def _outcome(self) -> str | None:
        return "completed" if self._ends_complete else self.reason.outcome

    def _check_disk(self, scene: Scene) -> None:
        """Compare ledger and files with what the node says it has; the proxy has ended."""
        if open_still := scene.at.connections + scene.elsewhere.connections:
            self.wrong.append(f"the node still has {open_still} connections")
        if staged := [*(self._root / "state" / "staging").iterdir()]:
            self.wrong.append(f"{len(staged)} downloads in staging")
        gone = self.reason is Reason.DELETED
        if len(scene.site.objects) != (0 if gone else len(self._prepared.uids)):
            self.wrong.append(f"{len(scene.site.objects)} objects")
        self._check_ledger(self._states_by(scene.at))

    def _states_by(self, at: StallingNode) -> dict[str, str]:
        """In which state each instance should be, going by what the node has had and said."""
        return {
            uid: "stored" if uid in at.answered else "unknown" if uid in at.whole else "planned"
            for uid in self._prepared.uids
        }

    def _check_ledger(self, states: dict[str, str]) -> None:
        """Compare the ledger: by instance while there are rows, by number once they are folded."""
        ledger = sqlite3.connect(self._root / "state" / "ledger.db")
        try:
            *numbers, outcome, delivery_id = ledger.execute(
                "SELECT v.total, v.stored, v.refused, v.unknown, v.outcome, v.id"
                " FROM delivery v JOIN dispatch d ON d.id = v.dispatch_id"
                " WHERE d.correlation_id = ?",
                (self._correlation_id,),
            ).fetchone()
            rows = dict(
                ledger.execute(
                    "SELECT i.sop_instance_uid, s.state FROM sending s"
                    " JOIN instance i ON i.id = s.instance_id WHERE s.delivery_id = ?",
                    (delivery_id,),
                ).fetchall()
            )
        finally:
            ledger.close()
        counts = Counter(states.values())
        total = INSTANCES
        if self.reason is Reason.DELETED and not self.phase.is_opening:
            # What was not answered for has left the ledger. A delivery that ends at once may be
            # over before that, and then its numbers are the last ones.
            counts, total = Counter(stored=counts["stored"]), counts["stored"]
        elif self.reason is Reason.DELETED:
            total = min(numbers[0], INSTANCES)
        folded = [total, counts["stored"], 0, counts["unknown"]]
        expected = (self._outcome, {}, folded) if self._outcome else (None, states, [0, 0, 0, 0])
        if (outcome, rows, numbers) != expected:
            found = (outcome, Counter(rows.values()), numbers)
            self.wrong.append(f"the ledger has {found}, by the node it is {expected}")
