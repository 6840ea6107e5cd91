"""The association machine against PS3.8 Table 9-10, typed by hand from the standard."""

from __future__ import annotations

from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.fsm import Event, Row
from proxy.machines import upper_layer as ul
from proxy.machines.association import ASSOCIATION, AssociationState
from proxy.machines.upper_layer import (
    Abort,
    AbortCame,
    AbortRequested,
    ArtimExpired,
    AssociateAccepted,
    AssociateRejected,
    AssociateRequestCame,
    AssociateRequested,
    Clocks,
    Close,
    Connect,
    ConnectionOpened,
    DataCame,
    DataRequested,
    Indicate,
    InvalidPduCame,
    Pdu,
    Primitive,
    ReleaseAnswered,
    ReleaseReplyCame,
    ReleaseRequestCame,
    ReleaseRequested,
    Send,
    TransportClosed,
)
from proxy.runtime.runner import Run
from tests.support.machine_suite import example, oracle_agrees

pytestmark = pytest.mark.pure

State: TypeAlias = AssociationState

# The requestor's cells of Table 9-10: event, then for each state "action next state".
COLUMNS = "Sta1 Sta4 Sta5 Sta6 Sta7 Sta8 Sta9 Sta11 Sta13"
TABLE = """
Evt1   AE-1:Sta4  -          -           -           -           -           -           -           -
Evt2   -          AE-2:Sta5  -           -           -           -           -           -           -
Evt3   -          -          AE-3:Sta6   AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-6:Sta13
Evt4   -          -          AE-4:Sta1   AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-6:Sta13
Evt6   -          -          AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-7:Sta13
Evt9   -          -          -           DT-1:Sta6   -           AR-7:Sta8   -           -           -
Evt10  -          -          AA-8:Sta13  DT-2:Sta6   AR-6:Sta7   AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-6:Sta13
Evt11  -          -          -           AR-1:Sta7   -           -           -           -           -
Evt12  -          -          AA-8:Sta13  AR-2:Sta8   AR-8:Sta9   AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-6:Sta13
Evt13  -          -          AA-8:Sta13  AA-8:Sta13  AR-3:Sta1   AA-8:Sta13  AA-8:Sta13  AR-3:Sta1   AA-6:Sta13
Evt14  -          -          -           -           -           AR-4:Sta13  AR-9:Sta11  -           -
Evt15  -          AA-2:Sta1  AA-1:Sta13  AA-1:Sta13  AA-1:Sta13  AA-1:Sta13  AA-1:Sta13  AA-1:Sta13  -
Evt16  -          -          AA-3:Sta1   AA-3:Sta1   AA-3:Sta1   AA-3:Sta1   AA-3:Sta1   AA-3:Sta1   AA-2:Sta1
Evt17  -          AA-4:Sta1  AA-4:Sta1   AA-4:Sta1   AA-4:Sta1   AA-4:Sta1   AA-4:Sta1   AA-4:Sta1   AR-5:Sta1
Evt18  -          -          -           -           -           -           -           -           AA-2:Sta1
Evt19  -          -          AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-8:Sta13  AA-7:Sta13
"""  # noqa: E501 - the table is the standard's

EVENTS: dict[str, Event] = {
    "Evt1": AssociateRequested(),
    "Evt2": ConnectionOpened(),
    "Evt3": AssociateAccepted(),
    "Evt4": AssociateRejected(1, 1, 1),
    "Evt6": AssociateRequestCame(),
    "Evt9": DataRequested(),
    "Evt10": DataCame(),
    "Evt11": ReleaseRequested(),
    "Evt12": ReleaseRequestCame(),
    "Evt13": ReleaseReplyCame(),
    "Evt14": ReleaseAnswered(),
    "Evt15": AbortRequested(),
    "Evt16": AbortCame(0, 0),
    "Evt17": TransportClosed(),
    "Evt18": ArtimExpired(),
    "Evt19": InvalidPduCame(),
}

CELLS = [
    (state, number, cell)
    for line in TABLE.strip().splitlines()
    for number, *cells in [line.split()]
    for state, cell in zip(COLUMNS.split(), cells, strict=True)
]


@pytest.mark.parametrize(("name", "number", "cell"), CELLS)
def test_the_table_is_the_standards(name: str, number: str, cell: str) -> None:
    state = AssociationState[name]
    event = EVENTS[number]
    ours = ASSOCIATION.cells.get((state, type(event)))
    if cell == "-":
        assert not isinstance(ours, Row)
        return
    action, after = cell.split(":")
    assert ours is not None
    assert action in ours.doc.split(":")[0]
    step = ASSOCIATION.step(state, Clocks(), event)
    assert step.after is (AssociationState["Sta1Again" if after == "Sta1" else after])


def test_the_events_carry_the_standards_numbers() -> None:
    for number, event in EVENTS.items():
        assert (type(event).__doc__ or "").startswith(f"{number}: ")


def test_every_request_has_a_cell_everywhere() -> None:
    requests = {type(EVENTS[n]) for n in ("Evt1", "Evt9", "Evt11", "Evt14", "Evt15")}
    missing = [
        (state.name, event.__name__)
        for event in requests
        for state in State
        if (state, event) not in ASSOCIATION.cells
    ]
    assert not missing


def test_each_limit_is_told_in_its_states_alone() -> None:
    own = {ul.TransportTimedOut: {State.Sta4}, ul.AnswerTimedOut: {State.Sta5}}
    own |= {ul.ReleaseTimedOut: {State.Sta7, State.Sta11}, ArtimExpired: {State.Sta13}}
    for event, states in own.items():
        assert {state for state, on in ASSOCIATION.cells if on is event} == states


def test_a_foreign_interpreter_agrees() -> None:
    assert oracle_agrees(ASSOCIATION, Clocks(), example) == len(State) * len(ASSOCIATION.events)


def told(*events: Event) -> tuple[State, list[ul.AssociationOutput]]:
    outputs: list[ul.AssociationOutput] = []
    run = Run(ASSOCIATION, Clocks(), {}, outputs.append)
    for event in events:
        run.tell(event)
    return run.state, outputs


OPEN = (AssociateRequested(), ConnectionOpened(), AssociateAccepted())


def test_story_of_one_message() -> None:
    message = (DataRequested(), DataCame(), ReleaseRequested(), ReleaseReplyCame())
    assert told(*OPEN, *message) == (
        State.Sta1Again,
        [
            Connect(),
            Send(Pdu.ASSOCIATE_RQ),
            Indicate(Primitive.ACCEPTED, AssociateAccepted()),
            Send(Pdu.DATA),
            Indicate(Primitive.DATA, DataCame()),
            Send(Pdu.RELEASE_RQ),
            Indicate(Primitive.RELEASED, ReleaseReplyCame()),
            Close(),
        ],
    )


def test_story_of_an_unexpected_pdu() -> None:
    state, outputs = told(*OPEN, AssociateRequestCame(), InvalidPduCame(6), ArtimExpired())
    assert state is State.Sta1Again
    assert outputs[3:] == [
        Abort(2, 2),
        Indicate(Primitive.ABORTED, AssociateRequestCame()),
        Abort(2, 6),
        Close(),
    ]


def test_story_of_giving_up() -> None:
    state, outputs = told(*OPEN, AbortRequested(), DataCame(), AbortRequested(), TransportClosed())
    assert state is State.Sta1Again
    assert outputs[3:] == [Abort(0), Close()]


@given(st.lists(st.sampled_from([*EVENTS.values()]), max_size=40))
def test_whatever_comes_the_connection_is_closed_in_the_end(events: list[Event]) -> None:
    state = State.Sta1
    outputs: list[ul.AssociationOutput] = []
    for event in events:
        if (state, type(event)) in ASSOCIATION.cells:
            step = ASSOCIATION.step(state, Clocks(), event)
            state = step.after
            outputs += step.outputs
    assert outputs.count(Connect()) == (state is not State.Sta1)
    assert outputs.count(Close()) == (state is State.Sta1Again)
    sends = [output for output in outputs if isinstance(output, Send)]
    assert sends.count(Send(Pdu.RELEASE_RQ)) <= 1
    assert not outputs or outputs[0] == Connect()
