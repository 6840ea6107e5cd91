"""One DICOM node of the site: whether it takes work, found out by traffic and by C-ECHO."""

# Longer than other modules: one machine is one file, read from top to bottom.

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
    """What is known of a node."""

    UNKNOWN = "Configured or changed; not heard of yet. Work may be tried."
    ONLINE = "It answered lately. Work may be sent."
    SUSPECT = "The last try failed. Work may be tried."
    OFFLINE = "Several tries failed. Work is tried once between two probes (breaker open)."
    PROBING = "One C-ECHO decides whether work may be tried again (breaker half open)."
    DISABLED = "ITH set the node inactive. Its work is held."
    REMOVED = "The node is no longer configured."


class NodeAnswered(Event, frozen=True):
    """The node accepted a delivery's association."""

    source: ClassVar[Source] = Source.SUPERVISOR


class NodeEchoed(Event, frozen=True):
    """The node answered C-ECHO, or the request for an association for it, in whatever way."""

    source: ClassVar[Source] = Source.SUPERVISOR


class NodeFailed(Event, frozen=True):
    """The node could not be reached, or refused or broke off an association."""

    source: ClassVar[Source] = Source.SUPERVISOR
    error: str


class BreakerTripped(Event, frozen=True):
    """The node failed as often in a row as the breaker bears; ``by_probe``: at last a C-ECHO."""

    source: ClassVar[Source] = Source.SUPERVISOR
    error: str
    probe_in: float
    by_probe: bool = False


class TrialBegun(Event, frozen=True):
    """A delivery tries a node that was given up: C-ECHO is but one witness."""

    source: ClassVar[Source] = Source.SUPERVISOR


class CongestionReported(Event, frozen=True):
    """The node had no room for what we asked: too many associations, or out of resources."""

    source: ClassVar[Source] = Source.SUPERVISOR


class InstancesStored(Event, frozen=True):
    """An association ended without complaint; the node stored so many instances over it."""

    source: ClassVar[Source] = Source.SUPERVISOR
    stored: int


class LimitIncreaseEarned(Event, frozen=True):
    """The node stored enough instances since its last complaint to be tried with more."""

    source: ClassVar[Source] = Source.SUPERVISOR


class ProbeDue(Event, frozen=True):
    """It is time to ask a node that was given up."""

    source: ClassVar[Source] = Source.TIMER


class ChangeRequested(Event, frozen=True):
    """Its address, port or AE title changed."""

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
    """What is remembered of a node; ``failures`` in a row, ``probe_in`` in seconds.

    ``is_tried`` says that a delivery has tried it since the last probe that failed.
    ``associations`` is how many it is given at a time, at most ``ceiling``; ``coped`` counts the
    instances that it stored since that number last changed.
    """

    failures: int = 0
    probe_in: float = 0.0
    is_tried: bool = False
    error: str | None = None
    associations: int = 1
    ceiling: int = 1
    coped: int = 0


class OpenGate(msgspec.Struct, frozen=True):
    """Output: deliveries that wait for the node may try at once."""


class CloseGate(msgspec.Struct, frozen=True):
    """Output: deliveries to the node are not tried now."""

    error: str


class LimitAssociations(msgspec.Struct, frozen=True):
    """Output: give the node so many associations at a time from now on."""

    associations: int


NodeOutput: TypeAlias = OpenGate | CloseGate | LimitAssociations
_Result: TypeAlias = tuple[Health, tuple[NodeOutput, ...]]

replace = msgspec.structs.replace


def _well(health: Health) -> Health:
    return replace(health, failures=0, probe_in=0.0, is_tried=False, error=None)


def forget_failures(health: Health, event: NodeAnswered | NodeEchoed | DisableRequested) -> _Result:
    """Nothing is wrong with it."""
    return _well(health), ()


def open_gate(health: Health, event: NodeAnswered | NodeEchoed) -> _Result:
    """Nothing is wrong with it, or no longer: waiting work may go."""
    return _well(health), (OpenGate(),)


def count_failure(health: Health, event: NodeFailed) -> _Result:
    """Count it and keep its error."""
    return replace(health, failures=health.failures + 1, error=event.error), ()


def keep_error(health: Health, event: NodeFailed | BreakerTripped) -> _Result:
    """Keep its error, uncounted: only a probe that fails makes the next one wait longer."""
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
    """Count it and keep work away."""
    return _tripped(health, event), (CloseGate(event.error),)


def give_up_again(health: Health, event: BreakerTripped) -> _Result:
    """Count it and wait longer before the next probe."""
    return _tripped(health, event), ()


def note_trial(health: Health, event: TrialBegun) -> _Result:
    """No other delivery tries it before the next probe."""
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
    """What was known was of the old address."""
    health = Health(associations=health.ceiling, ceiling=health.ceiling)
    return health, (OpenGate(), LimitAssociations(health.associations))


def start_over_unused(health: Health, event: ChangeRequested) -> _Result:
    """What was known was of the old address; nobody is waiting for it."""
    health = Health(associations=health.ceiling, ceiling=health.ceiling)
    return health, (LimitAssociations(health.associations),)


def admit(health: Health, event: EnableRequested) -> _Result:
    """Work may be tried again."""
    return health, (OpenGate(),)


def halve_associations(health: Health, event: CongestionReported) -> _Result:
    """Give it half as many associations, but one."""
    health = replace(health, associations=max(health.associations // 2, 1), coped=0)
    return health, (LimitAssociations(health.associations),)


def count_coped(health: Health, event: InstancesStored) -> _Result:
    """Count what it stored without complaint."""
    return replace(health, coped=health.coped + event.stored), ()


def add_association(health: Health, event: LimitIncreaseEarned) -> _Result:
    """Give it one association more, up to what the settings allow."""
    health = replace(health, associations=min(health.associations + 1, health.ceiling), coped=0)
    return health, (LimitAssociations(health.associations),)


UNKNOWN, ONLINE, SUSPECT, OFFLINE, PROBING, DISABLED, REMOVED = NodeState
OPEN = group("OPEN", UNKNOWN, ONLINE, SUSPECT, doc="Work may be sent to the node.")
GIVEN_UP = group(
    "GIVEN_UP",
    OFFLINE,
    PROBING,
    doc="Work is kept away from the node, but for one trial between two probes.",
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
        state(SUSPECT, do="probe_regularly", untimed="the next C-ECHO decides"),
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
            doc="The node took an association, and nobody waited for that.",
            traces=("BEH-37",),
        ),
        row(
            "NOD-20",
            (UNKNOWN, SUSPECT, OFFLINE, PROBING),
            NodeEchoed,
            ONLINE,
            open_gate,
            doc="The node is there; after a single failure, too, deliveries may wait for that.",
            traces=("BEH-36", "BEH-37"),
        ),
        row(
            "NOD-21",
            ONLINE,
            NodeEchoed,
            STAY,
            forget_failures,
            doc="The node is still there.",
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
            doc="It is back, perhaps since before a restart: nobody need wait any longer.",
            traces=("REQ-OPS-04", "BEH-36", "BEH-37"),
        ),
        row(
            "NOD-19",
            GIVEN_UP,
            TrialBegun,
            STAY,
            note_trial,
            doc="The breaker is half open: where C-ECHO gets no answer, a delivery may.",
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
            doc="A try beside the probe failed as well; the next probe keeps its time.",
            otherwise=True,
            traces=("BEH-38", "BEH-39"),
        ),
        row(
            "NOD-09",
            ENABLED,
            ChangeRequested,
            UNKNOWN,
            start_over,
            doc="A new address is a new node.",
            traces=("REQ-EVT-07", "REQ-PROT-51"),
        ),
        row(
            "NOD-18",
            DISABLED,
            ChangeRequested,
            STAY,
            start_over_unused,
            doc="A new address is a new node, and still nobody may use it.",
            traces=("REQ-PROT-51",),
        ),
        row(
            "NOD-10",
            ENABLED,
            DisableRequested,
            DISABLED,
            forget_failures,
            doc="Nobody asks the node any longer, and its deliveries are held.",
            traces=("REQ-EVT-07", "REQ-PROT-51"),
        ),
        row(
            "NOD-11",
            DISABLED,
            EnableRequested,
            UNKNOWN,
            admit,
            doc="Its deliveries go on.",
            traces=("REQ-EVT-07", "REQ-PROT-51"),
        ),
        row(
            "NOD-12",
            (*ENABLED, DISABLED),
            RemoveRequested,
            REMOVED,
            doc="The node is gone; if it comes back, it is another one.",
            traces=("REQ-EVT-07", "REQ-PROT-51"),
        ),
        row(
            "NOD-13",
            OPEN,
            ActivityFailed,
            OFFLINE,
            distrust,
            doc="A defect in the probe costs a minute, not the node.",
            traces=("REQ-OPS-06",),
        ),
        row(
            "NOD-14",
            PROBING,
            ActivityFailed,
            OFFLINE,
            distrust_again,
            doc="A defect in the probe costs another minute.",
            traces=("REQ-OPS-06",),
        ),
        row(
            "NOD-15",
            (*ENABLED, DISABLED),
            CongestionReported,
            STAY,
            halve_associations,
            doc="The node has less room than we took.",
            traces=("BEH-14",),
        ),
        row(
            "NOD-16",
            (*ENABLED, DISABLED),
            InstancesStored,
            STAY,
            count_coped,
            doc="The node copes with what it is given.",
            traces=("BEH-15",),
        ),
        row(
            "NOD-17",
            (*ENABLED, DISABLED),
            LimitIncreaseEarned,
            STAY,
            add_association,
            doc="The node may have room for more.",
            traces=("BEH-15",),
        ),
    ),
    ignores=(
        ignore(
            "NOD-90",
            DISABLED,
            (NodeAnswered, NodeEchoed, NodeFailed, BreakerTripped, TrialBegun),
            doc="Nobody uses an inactive node, so it does not matter how it fares.",
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
        "In the ledger: the node's configuration, never its health. After a restart a node is "
        "UNKNOWN until it answers.",
        "One run for each configured node. A delivery's success or failure counts as much as a "
        "C-ECHO's; a C-ECHO is left out while other traffic proves the node.",
        "C-ECHO is one witness. A node may refuse it and take C-STORE: any answer proves that it "
        "is there, be it a failure, a refused context, a rejection or an A-ABORT. Where none "
        "comes, a delivery's own attempt is the test of the breaker, once after each failed probe.",
        "The number of associations falls by half with each congestion, however many complain of "
        "it, and grows by one after many instances without any, between one and "
        "dicom.associations_per_node. A complaint is no failure of the node.",
    ),
)
