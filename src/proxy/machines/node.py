"""The reachability of one DICOM node of the site, known from deliveries and from C-ECHO."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, TypeAlias

import msgspec

from proxy.fsm import (
    STAY,
    WHEN_OVER,
    ActivityFailed,
    Event,
    Machine,
    Source,
    group,
    ignore,
    limit,
    row,
    state,
)


class NodeState(Enum):
    """The states of a node."""

    UNKNOWN = "The node is configured or changed and has not answered yet. Work may be tried."
    ONLINE = "The node answered lately. Work may be sent."
    SUSPECT = "The last attempt failed. Work may be tried."
    OFFLINE = "Several attempts failed. Work is tried once between two probes (breaker open)."
    PROBING = "One C-ECHO decides whether work may be tried again (breaker half open)."
    DISABLED = "ITH set the node inactive. Its work is held."
    REMOVED = "The node is no longer configured."


class NodeAnswered(Event, frozen=True):
    """The node accepted a delivery's association."""

    source: ClassVar[Source] = Source.SUPERVISOR


class NodeEchoed(Event, frozen=True):
    """The node answered a C-ECHO or an association request; any answer counts, also a no."""

    source: ClassVar[Source] = Source.SUPERVISOR


class NodeFailed(Event, frozen=True):
    """The node could not be reached, or an association ended without an answer of the node."""

    source: ClassVar[Source] = Source.SUPERVISOR
    error: str


class BreakerTripped(Event, frozen=True):
    """The failures in a row reached the threshold; ``by_probe`` if the last one was a C-ECHO."""

    source: ClassVar[Source] = Source.SUPERVISOR
    error: str
    probe_in: float
    by_probe: bool = False


class TrialBegun(Event, frozen=True):
    """A delivery tries an offline node, because some nodes answer no C-ECHO."""

    source: ClassVar[Source] = Source.SUPERVISOR


class CongestionReported(Event, frozen=True):
    """The node refused for lack of capacity: too many associations, or out of resources."""

    source: ClassVar[Source] = Source.SUPERVISOR


class InstancesStored(Event, frozen=True):
    """An association ended without a refusal; the node stored ``stored`` instances over it."""

    source: ClassVar[Source] = Source.SUPERVISOR
    stored: int


class LimitIncreaseEarned(Event, frozen=True):
    """The node stored enough instances since its last refusal for one association more."""

    source: ClassVar[Source] = Source.SUPERVISOR


class ProbeDue(Event, frozen=True):
    """The wait before the next C-ECHO to an offline node is over."""

    source: ClassVar[Source] = Source.TIMER


class ChangeRequested(Event, frozen=True):
    """The node's address, port or AE title changed."""

    source: ClassVar[Source] = Source.BACKEND


class DisableRequested(Event, frozen=True):
    """ITH set the node inactive."""

    source: ClassVar[Source] = Source.BACKEND


class EnableRequested(Event, frozen=True):
    """ITH set the node active."""

    source: ClassVar[Source] = Source.BACKEND


class RemoveRequested(Event, frozen=True):
    """ITH took the node out of the configuration."""

    source: ClassVar[Source] = Source.BACKEND


class Health(msgspec.Struct, frozen=True):
    """The health of a node; ``failures`` in a row, ``probe_in`` in seconds.

    ``is_tried`` says that a delivery has tried it since the last failed probe. ``associations`` is
    the number of associations at a time, at most ``ceiling``; ``coped`` counts the instances that
    the node stored since that number last changed.
    """

    failures: int = 0
    probe_in: float = 0.0
    is_tried: bool = False
    error: str | None = None
    associations: int = 1
    ceiling: int = 1
    coped: int = 0


class OpenGate(msgspec.Struct, frozen=True):
    """Output: let deliveries that wait for the node try at once."""


class CloseGate(msgspec.Struct, frozen=True):
    """Output: keep deliveries to the node from trying."""

    error: str


class LimitAssociations(msgspec.Struct, frozen=True):
    """Output: limit the node to ``associations`` at a time from now on."""

    associations: int


NodeOutput: TypeAlias = OpenGate | CloseGate | LimitAssociations
_Result: TypeAlias = tuple[Health, tuple[NodeOutput, ...]]

replace = msgspec.structs.replace


def _well(health: Health) -> Health:
    return replace(health, failures=0, probe_in=0.0, is_tried=False, error=None)


def forget_failures(health: Health, event: NodeAnswered | NodeEchoed | DisableRequested) -> _Result:
    """Forget the failures of the node."""
    return _well(health), ()


def open_gate(health: Health, event: NodeAnswered | NodeEchoed) -> _Result:
    """Forget the failures of the node, and let waiting work go."""
    return _well(health), (OpenGate(),)


def count_failure(health: Health, event: NodeFailed) -> _Result:
    """Count the failure and keep its error."""
    return replace(health, failures=health.failures + 1, error=event.error), ()


def keep_error(health: Health, event: NodeFailed | BreakerTripped) -> _Result:
    """Keep the error without counting it: only a failed probe lengthens the wait."""
    return replace(health, error=event.error), ()


def _tripped(health: Health, event: BreakerTripped) -> Health:
    return replace(
        health,
        failures=health.failures + 1,
        error=event.error,
        probe_in=event.probe_in,
        is_tried=not event.by_probe,
    )


def close_gate(health: Health, event: BreakerTripped) -> _Result:
    """Count the failure and keep work away."""
    return _tripped(health, event), (CloseGate(event.error),)


def give_up_again(health: Health, event: BreakerTripped) -> _Result:
    """Count the failure and wait longer before the next probe."""
    return _tripped(health, event), ()


def note_trial(health: Health, event: TrialBegun) -> _Result:
    """Let no other delivery try the node before the next probe."""
    return replace(health, is_tried=True), ()


def _distrusted(health: Health, event: ActivityFailed) -> Health:
    error = f"internal error: {event.error}"
    return replace(health, failures=0, error=error, probe_in=60.0, is_tried=False)


def distrust(health: Health, event: ActivityFailed) -> _Result:
    """Keep work away for a minute, then ask again."""
    health = _distrusted(health, event)
    return health, (CloseGate(health.error or ""),)


def distrust_again(health: Health, event: ActivityFailed) -> _Result:
    """Ask again in a minute; work is kept away already."""
    return _distrusted(health, event), ()


def start_over(health: Health, event: ChangeRequested) -> _Result:
    """Forget the health of the old address, and let waiting work go."""
    health = Health(associations=health.ceiling, ceiling=health.ceiling)
    return health, (OpenGate(), LimitAssociations(health.associations))


def start_over_unused(health: Health, event: ChangeRequested) -> _Result:
    """Forget the health of the old address; no work waits for an inactive node."""
    health = Health(associations=health.ceiling, ceiling=health.ceiling)
    return health, (LimitAssociations(health.associations),)


def admit(health: Health, event: EnableRequested) -> _Result:
    """Let waiting work try again."""
    return health, (OpenGate(),)


def halve_associations(health: Health, event: CongestionReported) -> _Result:
    """Halve the association limit, down to one."""
    health = replace(health, associations=max(health.associations // 2, 1), coped=0)
    return health, (LimitAssociations(health.associations),)


def count_coped(health: Health, event: InstancesStored) -> _Result:
    """Count the instances that the node stored without a refusal."""
    return replace(health, coped=health.coped + event.stored), ()


def add_association(health: Health, event: LimitIncreaseEarned) -> _Result:
    """Raise the association limit by one, up to the ceiling of the settings."""
    health = replace(health, associations=min(health.associations + 1, health.ceiling), coped=0)
    return health, (LimitAssociations(health.associations),)


UNKNOWN, ONLINE, SUSPECT, OFFLINE, PROBING, DISABLED, REMOVED = NodeState
OPEN = group("OPEN", UNKNOWN, ONLINE, SUSPECT, doc="Work may be sent to the node.")
GIVEN_UP = group(
    "GIVEN_UP",
    OFFLINE,
    PROBING,
    doc="Work is kept away from the node, except for one trial between two probes.",
)
ENABLED = (*OPEN, *GIVEN_UP)

NODE: Machine[NodeState, Health, NodeOutput] = Machine(
    name="node",
    purpose=__doc__,
    initial=UNKNOWN,
    final=frozenset({REMOVED}),
    groups=(OPEN, GIVEN_UP),
    definitions=(
        state(UNKNOWN, do="probe_first", untimed="the C-ECHO has its own clocks"),
        state(ONLINE, do="probe_regularly", untimed="this is the normal state"),
        state(SUSPECT, do="probe_regularly", untimed="the next C-ECHO ends it"),
        state(
            OFFLINE,
            after=limit(
                lambda health: health.probe_in,
                ProbeDue,
                "full jitter over dicom.echo_interval_seconds, doubled up to "
                "dicom.retry_max_seconds",
            ),
        ),
        state(PROBING, do="probe_once", untimed="the C-ECHO has its own clocks"),
        state(DISABLED, untimed="until ITH sets it active"),
    ),
    rows=(
        row(
            "NOD-01",
            (ONLINE, SUSPECT),
            NodeAnswered,
            ONLINE,
            forget_failures,
            doc="The node accepted an association, and no work waited for that.",
            traces=("BEH-37",),
        ),
        row(
            "NOD-20",
            (UNKNOWN, SUSPECT, OFFLINE, PROBING),
            NodeEchoed,
            ONLINE,
            open_gate,
            doc="The node is reachable, and deliveries may wait for it even after a single "
            "failure.",
            traces=("BEH-36", "BEH-37"),
        ),
        row(
            "NOD-21",
            ONLINE,
            NodeEchoed,
            STAY,
            forget_failures,
            doc="The node is still reachable.",
            traces=("BEH-37",),
        ),
        row(
            "NOD-02",
            OPEN,
            NodeFailed,
            SUSPECT,
            count_failure,
            doc="One failure is not enough to give a node up.",
            traces=("BEH-38",),
        ),
        row(
            "NOD-03",
            OPEN,
            BreakerTripped,
            OFFLINE,
            close_gate,
            doc="Further attempts would only burden the node and the network.",
            traces=("BEH-38",),
        ),
        row(
            "NOD-04",
            OFFLINE,
            ProbeDue,
            PROBING,
            doc="One C-ECHO asks whether it is back.",
            traces=("BEH-36",),
        ),
        row(
            "NOD-05",
            (UNKNOWN, OFFLINE, PROBING),
            NodeAnswered,
            ONLINE,
            open_gate,
            doc="The node is back, perhaps since before a restart, and waiting deliveries go on.",
            traces=("REQ-OPS-04", "BEH-36", "BEH-37"),
        ),
        row(
            "NOD-19",
            GIVEN_UP,
            TrialBegun,
            STAY,
            note_trial,
            doc="The breaker is half open, because a node without an answer to C-ECHO may "
            "answer a delivery.",
            traces=("BEH-39",),
        ),
        row(
            "NOD-06",
            PROBING,
            BreakerTripped,
            OFFLINE,
            give_up_again,
            doc="The node is asked again later.",
            traces=("BEH-38",),
        ),
        row(
            "NOD-07",
            GIVEN_UP,
            (NodeFailed, BreakerTripped),
            STAY,
            keep_error,
            doc="A trial beside the probe failed as well, and the next probe keeps its time.",
            otherwise=True,
            traces=("BEH-38", "BEH-39"),
        ),
        row(
            "NOD-09",
            ENABLED,
            ChangeRequested,
            UNKNOWN,
            start_over,
            doc="A node at a new address counts as a new node.",
            traces=("REQ-EVT-07", "REQ-PROT-51"),
        ),
        row(
            "NOD-18",
            DISABLED,
            ChangeRequested,
            STAY,
            start_over_unused,
            doc="A node at a new address counts as a new node, and an inactive one stays unused.",
            traces=("REQ-PROT-51",),
        ),
        row(
            "NOD-10",
            ENABLED,
            DisableRequested,
            DISABLED,
            forget_failures,
            doc="An inactive node gets no C-ECHO, and its deliveries are held.",
            traces=("REQ-EVT-07", "REQ-PROT-51"),
        ),
        row(
            "NOD-11",
            DISABLED,
            EnableRequested,
            UNKNOWN,
            admit,
            doc="The deliveries to the node go on.",
            traces=("REQ-EVT-07", "REQ-PROT-51"),
        ),
        row(
            "NOD-12",
            (*ENABLED, DISABLED),
            RemoveRequested,
            REMOVED,
            doc="The node is gone; one that is configured later is another node.",
            traces=("REQ-EVT-07", "REQ-PROT-51"),
        ),
        row(
            "NOD-13",
            OPEN,
            ActivityFailed,
            OFFLINE,
            distrust,
            doc="A defect in the probe keeps work away for a minute.",
            traces=("REQ-OPS-06",),
        ),
        row(
            "NOD-14",
            PROBING,
            ActivityFailed,
            OFFLINE,
            distrust_again,
            doc="A defect in the probe keeps work away for another minute.",
            traces=("REQ-OPS-06",),
        ),
        row(
            "NOD-15",
            (*ENABLED, DISABLED),
            CongestionReported,
            STAY,
            halve_associations,
            doc="The node has less capacity than the proxy used.",
            traces=("BEH-14",),
        ),
        row(
            "NOD-16",
            (*ENABLED, DISABLED),
            InstancesStored,
            STAY,
            count_coped,
            doc="The node copes with its present number of associations.",
            traces=("BEH-15",),
        ),
        row(
            "NOD-17",
            (*ENABLED, DISABLED),
            LimitIncreaseEarned,
            STAY,
            add_association,
            doc="The node may have capacity for one association more.",
            traces=("BEH-15",),
        ),
    ),
    ignores=(
        ignore(
            "NOD-90",
            DISABLED,
            (NodeAnswered, NodeEchoed, NodeFailed, BreakerTripped, TrialBegun),
            doc="An inactive node is not used, so its health does not matter.",
        ),
        ignore("NOD-94", DISABLED, DisableRequested, doc="The node is inactive already."),
        ignore("NOD-95", ENABLED, EnableRequested, doc="The node is active already."),
        ignore("NOD-96", OPEN, TrialBegun, doc="Work may be sent to this node without a trial."),
    ),
    retired={
        "NOD-08": "NOD-07",
        "NOD-91": "NOD-90",
        "NOD-92": "NOD-90",
        "NOD-97": "NOD-90",
        "NOD-98": "NOD-90",
        "NOD-78": WHEN_OVER,
        "NOD-79": WHEN_OVER,
        "NOD-80": WHEN_OVER,
        "NOD-81": WHEN_OVER,
        "NOD-82": WHEN_OVER,
        "NOD-83": WHEN_OVER,
        "NOD-84": WHEN_OVER,
        "NOD-85": WHEN_OVER,
        "NOD-86": WHEN_OVER,
        "NOD-87": WHEN_OVER,
        "NOD-88": WHEN_OVER,
        "NOD-89": WHEN_OVER,
    },
    notes=(
        "The ledger keeps the node's configuration, never its health. After a restart a node "
        "is UNKNOWN until it answers.",
        "Each configured node has one run. The success or failure of a delivery counts as much "
        "as that of a C-ECHO. A C-ECHO is left out while other traffic proves that the node "
        "is reachable.",
        "A delivery that the node rejects or aborts counts as an answer, not as a failure: the "
        "node may take other objects.",
        "C-ECHO is not the only test. A node may refuse it and accept C-STORE, so any answer "
        "proves that the node is reachable: a failure, a refused context, a rejection or an "
        "A-ABORT. If no answer comes, the attempt of a delivery tests the breaker, once after "
        "each failed probe.",
        "The number of associations is halved once for each congestion, even if several "
        "deliveries report it. It grows by one after many instances without congestion. It "
        "lies between one and dicom.associations_per_node. A congestion is no failure of the "
        "node.",
    ),
)
