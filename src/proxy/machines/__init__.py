"""The six machines: one file, one page of ``statecharts/`` and one test file each, same name."""

from __future__ import annotations

from typing import Any

from proxy.fsm import Machine
from proxy.machines.association import ASSOCIATION
from proxy.machines.connection import CONNECTION
from proxy.machines.delivery import DELIVERY
from proxy.machines.dispatch import DISPATCH
from proxy.machines.node import NODE
from proxy.machines.operation import OPERATION

MACHINES: tuple[Machine[Any, Any, Any], ...] = (
    CONNECTION,
    OPERATION,
    NODE,
    DISPATCH,
    DELIVERY,
    ASSOCIATION,
)
"""Every machine, in the order of the pages: from ITH to the node."""
