from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from proxy.runtime.marks import Mark
from proxy.simulation.content import thing
from proxy.simulation.diagram import AFTER, BEFORE, Fold, entries
from proxy.simulation.history import ITH_LANE, LEDGER, PROXY, Moment
from proxy.simulation.internet import Manner
from proxy.simulation.many import simulate
from proxy.simulation.page import page
from proxy.simulation.scenario import (
    NOON,
    Blow,
    EntityLevel,
    Incident,
    OrderSent,
    Outage,
    Scenario,
    Strike,
)
from proxy.simulation.world import Result

ORDER = OrderSent(at=1.0, number=3, level=EntityLevel.SESSION, session=1, nodes=("a",))
CUT = Strike(at=0.0, mark=Mark.REPORT_SENT.name, nth=0, blow=Blow.CUT)
AWAY = Outage(at=20.0, of="b", seconds=40.0, manner=Manner.REFUSED)
VIOLATION = "70.500 s: corr_000000000003 a: no end, though <all> is well"
VOID = {"meta"}


class Parsed(HTMLParser):
    """The elements of a page: names, attributes, text, and how many rows are not folded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.names: list[str] = []
        self.rows = 0
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        is_row = any(name == "class" and (value or "").startswith("row") for name, value in attrs)
        self.rows += is_row and "details" not in self.open
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def ran(*incidents: Incident, violations: tuple[str, ...] = (VIOLATION,)) -> Result:
    """Run a world, and say that something was wrong in it."""
    result = simulate(Scenario(1, NOON, 2, "both", incidents), with_history=True)
    result.violations = [*violations]
    return result


@pytest.fixture(scope="module")
def failed() -> Result:
    return ran(ORDER, CUT, AWAY)


def test_the_page_is_one_file_without_a_script(failed: Result) -> None:
    parsed = Parsed(page(failed))
    assert parsed.open == []
    assert not {"script", "link", "img", "iframe", "object"}.intersection(parsed.names)
    assert {name for name, _ in parsed.attributes} <= {
        "charset", "class", "content", "href", "id", "lang", "name", "style",
    }  # fmt: skip
    assert [value for name, value in parsed.attributes if name == "href"] == ["#violation-1"]
    assert not re.search(r"https?:|url\(|@import", page(failed))


def test_the_head_tells_the_verdict_the_incidents_and_how_to_replay(failed: Result) -> None:
    text = Parsed(page(failed)).text
    assert "World of seed 1 1 violation" in text
    assert "no end, though <all> is well" in text
    assert "ith-proxy sim --seed 1" in text
    assert failed.trace in text
    assert "ITH orders sess-1 at a (0003, normal)" in text
    assert "at REPORT_SENT number 1: every connection to ITH is reset" in text
    assert "node b refuses connections for 40 s" in text
    assert "over: node b refuses connections for 40 s" in text


def test_a_sound_world_has_a_page_as_well() -> None:
    parsed = Parsed(page(ran(ORDER, violations=())))
    assert "nothing is wrong" in parsed.text
    assert parsed.open == []


def test_a_shrunk_world_shows_what_was_left_out(failed: Result) -> None:
    drawn = Scenario(1, NOON, 2, "both", (ORDER, CUT, AWAY))
    shrunk = ran(ORDER)
    text = Parsed(page(shrunk, drawn=drawn, runs=17)).text
    assert "1 of 3 are enough for this violation, as 17 runs have shown" in text
    assert text.index("ITH orders") < text.index("all 3 of the seed") < text.index("node b refuses")


def test_the_page_names_no_patient_and_no_uid(failed: Result) -> None:
    uid = next(iter(thing(EntityLevel.SESSION, 1).sent))
    failed.violations.append(f"71.000 s: a: {uid} was sent twice")
    text = page(failed)
    failed.violations.pop()
    assert f"…{uid[-4:]} was sent twice" in text
    assert not re.search(r"\d+(\.\d+){4,}", text)
    assert "CANARY" not in text
    assert "SIM-" not in text


def test_messages_of_all_kinds_are_drawn(failed: Result) -> None:
    text = page(failed)
    assert re.search(r'class="theirs east"[^>]*></u><b class="left theirs"[^>]*>session.disp', text)
    assert re.search(r'class="ours east"[^>]*></u><b class="right ours"[^>]*>C-STORE …\d{4}<', text)
    assert re.search(r'class="theirs west"[^>]*></u><b[^>]*>C-STORE …\d{4}: 0000<', text)
    assert re.search(r'class="ours west"[^>]*></u><b[^>]*>0003 a: completed 100 %<', text)
    assert re.search(r'class="ours west lost"[^>]*></u><b[^>]*>0003 \w+: completed 100 %<', text)
    assert re.search(r'<em class="state"[^>]*>delivery 0003 a: STORING → COMPLETED<', text)
    assert re.search(r'<em class="kept"[^>]*>commit', text)
    assert re.search(r'<em class="broken"[^>]*>connection reset, \d+ bytes lost<', text)


def test_a_lost_message_ends_half_way(failed: Result) -> None:
    lost, arrived = (
        re.search(rf'class="ours west{kind}" style="--from:([\d.]+);--wide:([\d.]+)"', page(failed))
        for kind in (" lost", "")
    )
    assert lost
    assert arrived
    assert (float(arrived[1]), float(arrived[2])) == (0.5, 1.0)
    assert (float(lost[1]), float(lost[2])) == (1.0, 0.5)


def test_the_rows_about_the_violation_are_marked(failed: Result) -> None:
    marked = re.findall(r'<div class="row about[^"]*">.*', page(failed))
    assert marked
    assert all("0003" in row for row in marked)


def test_quiet_time_is_written_as_its_length(failed: Result) -> None:
    lengths = re.findall(r'<div class="quiet">([^<]+)</div>', page(failed))
    assert lengths
    assert all(re.fullmatch(r"[\d.]+ (s|min)", length) for length in lengths)


def test_signs_of_life_are_folded(failed: Result) -> None:
    folds = [each for each in entries(failed) if isinstance(each, Fold)]
    assert any(fold.summary.startswith("signs of life: ") for fold in folds)
    shown = [each for each in entries(failed) if isinstance(each, Moment)]
    assert not any(each.text == "proxy.heartbeat" for each in shown if each.at > 10)


def test_two_thousand_moments_stay_readable() -> None:
    history = []
    for number in range(500):
        at = number * 2.0
        history += [
            Moment(at, PROXY, f"C-STORE …{number:04}", "b", arrived=at, until=at),
            Moment(at, "b", f"C-STORE …{number:04}: 0000", PROXY, arrived=at, until=at),
            Moment(at, LEDGER, "commit", is_routine=True, until=at),
            Moment(at, PROXY, f"0003 b: in_progress {number // 10} %", ITH_LANE, at, until=at),
        ]
    result = Result(Scenario(1, NOON, 2, "both", (ORDER,)), history=history)
    result.violations = ["700.000 s: corr_000000000003 b: too late"]
    parsed = Parsed(page(result))
    assert parsed.open == []
    assert BEFORE + AFTER - 5 <= parsed.rows <= BEFORE + AFTER
    assert parsed.text.count("C-STORE …0001") == 2  # it is there, on request
    assert re.findall(r"\d+ C-STORE, \d+ reports, \d+ commits, \d+ more", parsed.text) == [
        "314 C-STORE, 313 reports, 313 commits, 314 more",
        "139 C-STORE, 140 reports, 139 commits, 139 more",
    ]
