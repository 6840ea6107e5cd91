"""The operation of the whole proxy: its run, and the effects of its outputs."""

from __future__ import annotations

from collections.abc import Callable

from proxy.activities.dispatch import DispatchRegistry
from proxy.logs import log
from proxy.machines import operation, policy
from proxy.machines.delivery import WIRED, DeliveryState
from proxy.machines.operation import (
    OPERATION,
    OperationOutput,
    OperationState,
    PauseLock,
    PauseLocks,
    PauseReason,
)
from proxy.runtime.runner import Run
from proxy.supervision.pause_locks import LOCKS_DOCUMENT, locks_document
from proxy.work.runs import OperationRun
from proxy.work.services import Services


class Operation:
    """Pauses, resumes, drains and stops the work; ``stop_work`` cancels all of it at once."""

    def __init__(
        self, services: Services, dispatches: DispatchRegistry, stop_work: Callable[[str], None]
    ) -> None:
        self._services = services
        self._dispatches = dispatches
        self._stop_work = stop_work
        self.run: OperationRun = Run(
            OPERATION,
            PauseLocks(drain_seconds=services.settings.service.drain_seconds),
            {},
            self._on_output,
        )

    @property
    def is_active(self) -> bool:
        """Whether work goes on."""
        return self.run.state is OperationState.ACTIVE

    def restore(self, lock: PauseLock, kept: PauseReason) -> None:
        """Take a lock that was held at a restart."""
        self.run.tell(operation.PauseRequested(lock, kept.reason, kept.since))

    def pause(self, lock: PauseLock, reason: str) -> None:
        """Take a lock."""
        now = self._services.clock.now()
        self.run.tell(operation.PauseRequested(lock, reason, now))

    def resume(self, lock: PauseLock) -> None:
        """Give back a lock; work goes on when no other is held."""
        self.run.tell(policy.release(self.run.data, lock))

    def holds(self, lock: PauseLock) -> bool:
        """Whether a lock is held."""
        return lock in self.run.data.held

    def drain(self, reason: str) -> bool:
        """Stop in order; a second call stops now. Return whether draining begins now."""
        if self.run.state is OperationState.DRAINING:
            self.run.tell(operation.StopRequested(reason))
        elif not self.run.over:
            self.run.tell(operation.DrainRequested(reason))
            return True
        return False

    async def tell_drained(self) -> None:
        """Wait until no association is in use, and tell the run."""
        for each in self._dispatches.deliveries:
            await each.run.until(*(set(DeliveryState) - set(WIRED)))
        self.run.tell(operation.Drained())

    def _on_output(self, output: OperationOutput) -> None:
        match output:
            case operation.HoldWork(reason):
                log("operation.held", reason=reason)
                for dispatch in self._dispatches:
                    dispatch.hold(reason)
                for delivery in self._dispatches.deliveries:
                    delivery.hold(reason)
            case operation.ResumeWork():
                log("operation.resumed")
                for dispatch in self._dispatches:
                    dispatch.resume()
                for delivery in self._dispatches.deliveries:
                    delivery.resume()
            case operation.SaveLocks(locks):
                self._services.ledger.post_document(LOCKS_DOCUMENT, locks_document(locks))
            case operation.StopWork(reason):
                log("operation.stopped", reason=reason)
                self._stop_work(reason)
