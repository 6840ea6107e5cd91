"""The services that dispatches and deliveries use, the same for the life of the program."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.backend.archive import ArchiveLimits
from proxy.backend.rest import Backend
from proxy.ledger import Ledger
from proxy.pacs.local import LocalPacs
from proxy.runtime.clock import Clock
from proxy.runtime.offload import Offload
from proxy.runtime.rng import Random
from proxy.runtime.wire import Network
from proxy.settings import Settings


@dataclass(frozen=True)
class Services:
    """Settings, storage, the backend, and the seams to network, threads, time and chance."""

    settings: Settings
    ledger: Ledger
    pacs: LocalPacs
    backend: Backend
    network: Network
    offload: Offload
    clock: Clock
    rng: Random
    archive_limits: ArchiveLimits
