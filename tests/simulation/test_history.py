from __future__ import annotations

import pytest

from proxy.runtime.marks import Mark
from proxy.simulation.history import FAULT, ITH_LANE, LEDGER, PROXY, Moment
from proxy.simulation.internet import Manner
from proxy.simulation.many import simulate
from proxy.simulation.misbehaviour import Kind, Misbehaviour
from proxy.simulation.page import page
from proxy.simulation.scenario import (
    NODES,
    NOON,
    Blow,
    Cut,
    EntityLevel,
    Incident,
    NodeChange,
    NodeEdit,
    OrderSent,
    Outage,
    Scenario,
    Strike,
    Trouble,
)
from proxy.simulation.world import Result

ORDER = OrderSent(at=1.0, number=3, level=EntityLevel.SESSION, session=1, nodes=("a",))


def world(*incidents: Incident) -> Result:
    """Run a world with these incidents alone."""
    scenario = Scenario(1, NOON, 2, "both", incidents)
    result = simulate(scenario, with_history=True)
    assert result.violations == []
    return result


def messages(result: Result, lane: str, to: str) -> list[Moment]:
    return [each for each in result.history if (each.lane, each.to) == (lane, to)]


def texts(moments: list[Moment]) -> list[str]:
    return [moment.text for moment in moments]


def test_the_history_tells_a_change_of_a_node() -> None:
    result = world(NodeChange(at=1.0, node="b", change=NodeEdit.RENAMED, lag=0.0))
    assert "proxy.nodes_changed updated b" in texts(messages(result, ITH_LANE, PROXY))


def test_the_history_tells_an_order_from_its_event_to_its_last_report() -> None:
    result = world(ORDER)
    lanes = {each.lane for each in result.history}
    assert lanes == {ITH_LANE, PROXY, LEDGER, FAULT, *NODES}
    assert "session.dispatch 0003 sess-1 → a" in texts(messages(result, ITH_LANE, PROXY))
    assert "GET session sess-1" in texts(messages(result, PROXY, ITH_LANE))
    stores = [m.text for m in messages(result, PROXY, "a") if m.text.startswith("C-STORE")]
    answers = [m.text for m in messages(result, "a", PROXY) if m.text.startswith("C-STORE")]
    assert len(stores) == 2
    assert answers == [f"{each}: 0000" for each in stores]
    states = texts([each for each in result.history if each.lane == PROXY and not each.to])
    assert "delivery 0003 a: STORING → COMPLETED" in states
    assert texts(messages(result, PROXY, ITH_LANE)).count("0003 a: completed 100 %") == 1
    assert any(each.text == "commit" for each in result.history if each.lane == LEDGER)
    assert not [each for each in result.history if each.is_lost]


def test_every_message_arrives_in_time_where_nothing_goes_wrong() -> None:
    result = world(ORDER)
    sent = [each for each in result.history if each.to]
    assert all(each.arrived is not None for each in sent if each.at < result.seconds)
    assert all(each.arrived - each.until < 0.01 for each in sent if each.arrived is not None)
    assert all(each.is_heard for each in sent)


def test_signs_of_life_are_routine_and_the_order_is_not() -> None:
    result = world(ORDER)
    routine = {each.text for each in result.history if each.is_routine}
    assert {"C-ECHO", "C-ECHO: 0000", "A-ASSOCIATE-RQ", "proxy.heartbeat", "ping"} <= routine
    important = {each.text for each in result.history if not each.is_routine}
    assert not any(text.startswith(("C-ECHO", "ping", "proxy.heartbeat")) for text in important)
    assert {"A-ASSOCIATE-RQ", "0003 a: completed 100 %"} <= important


def test_a_report_that_was_sent_into_a_cut_is_lost_and_comes_again() -> None:
    result = world(ORDER, Strike(at=0.0, mark=Mark.REPORT_SENT.name, nth=0, blow=Blow.CUT))
    finals = [m for m in messages(result, PROXY, ITH_LANE) if "completed 100 %" in m.text]
    lost = [each.text for each in finals if each.is_lost]
    assert lost
    arrived = {each.text for each in finals if each.arrived is not None}
    assert {*lost} <= arrived
    assert any(each.text.startswith("connection reset, ") for each in result.history)


def test_a_report_that_the_application_never_had_is_not_heard() -> None:
    result = world(ORDER, Strike(at=0.0, mark=Mark.REPORT_SENT.name, nth=0, blow=Blow.SWALLOW))
    finals = [m for m in messages(result, PROXY, ITH_LANE) if m.text == "0003 a: completed 100 %"]
    assert [(each.arrived is not None, each.is_heard) for each in finals] == [
        (True, False),
        (True, True),
    ]


def test_an_answer_of_a_node_that_was_lost_is_not_there() -> None:
    trouble = Misbehaviour(Kind.CLOSED_BEFORE_STORING)
    result = world(ORDER, Trouble(at=0.0, node="a", misbehaviour=trouble))
    stores = [m for m in messages(result, PROXY, "a") if m.text.startswith("C-STORE")]
    answers = [m for m in messages(result, "a", PROXY) if m.text.startswith("C-STORE")]
    assert len(stores) == len(answers) + 1
    assert "closes" in texts(messages(result, "a", PROXY))


def test_a_node_that_is_away_is_a_connection_that_failed() -> None:
    result = world(ORDER, Outage(at=0.0, of="a", seconds=60.0, manner=Manner.REFUSED))
    failed = [each for each in messages(result, PROXY, "a") if each.text.startswith("connect: ")]
    assert failed
    assert all(each.is_lost for each in failed)


def test_what_a_silent_network_held_back_arrives_late() -> None:
    result = world(Outage(at=40.0, of="ith", seconds=20.0, manner=Manner.SILENT))
    late = [m for m in result.history if m.arrived is not None and m.arrived - m.at > 5]
    assert late
    assert all(each.arrived == 60.0 for each in late)


def test_a_cut_is_noted_where_it_was() -> None:
    result = world(Cut(at=50.0, to="ith"))
    assert any(m.lane == FAULT and "ITH are reset" in m.text for m in result.history)
    resets = [m for m in result.history if m.text.startswith("connection reset")]
    assert [(each.at, each.lane) for each in resets] == [(50.0, ITH_LANE)]


@pytest.mark.parametrize(
    ("kind", "code", "text"),
    [
        (Kind.REJECT, 0x010107, "A-ASSOCIATE-RJ 010107"),
        (Kind.ASSOCIATION_ABORTED, 0x0206, "A-ABORT 0206"),
        (Kind.STORE_STATUS, 0xA700, "C-STORE …{}: A700"),
        (Kind.GARBAGE, 1, "bytes that are no PDU"),
        (Kind.HUGE_PDU, 0, "bytes that are no PDU"),
        (Kind.FLOOD, 1, "A-RELEASE-RQ"),
        (Kind.FLOOD, 2, ""),
        (Kind.HALF_PDU, 0, ""),
        (Kind.RELEASE_BY_NODE, 0, "A-RELEASE-RQ"),
    ],
)
def test_what_a_node_does_wrong_is_written_as_it_is(kind: Kind, code: int, text: str) -> None:
    trouble = Misbehaviour(kind, code=code, after=1024, seconds=0.1)
    result = world(ORDER, Trouble(at=0.9, node="a", misbehaviour=trouble))
    assert result.faults[kind.value] == 1
    from_node = texts(messages(result, "a", PROXY))
    tails = {each.rpartition("…")[2] for each in texts(messages(result, PROXY, "a"))}
    assert not text or {text.format(each) for each in tails}.intersection(from_node)
    assert "World of seed 1" in page(result)


def test_a_query_is_written_with_its_answers() -> None:
    trouble = Misbehaviour(Kind.ANSWER_LOST)
    result = world(ORDER, Trouble(at=0.9, node="a", misbehaviour=trouble))
    assert "C-FIND" in texts(messages(result, PROXY, "a"))
    assert {"C-FIND: FF00", "C-FIND: 0000"} <= {*texts(messages(result, "a", PROXY))}
