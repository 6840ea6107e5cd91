from __future__ import annotations

import re
from typing import get_args

import msgspec
import pytest

from proxy.simulation.scenario import (
    BUSY_S,
    LONG_SERIES,
    Incident,
    OrderSent,
    Scenario,
    draw,
)
from proxy.simulation.words import duration, in_words

pytestmark = pytest.mark.pure

SEEDS = range(400)


def test_a_seed_draws_the_same_scenario_each_time() -> None:
    assert [draw(seed) for seed in SEEDS] == [draw(seed) for seed in SEEDS]


def test_seeds_draw_different_scenarios() -> None:
    assert len({draw(seed).incidents for seed in SEEDS}) == len(SEEDS)


def test_every_kind_of_incident_is_drawn() -> None:
    drawn = {type(each) for seed in SEEDS for each in draw(seed).incidents}
    assert drawn == {*get_args(Incident)}


@pytest.mark.parametrize("seed", SEEDS[:40])
def test_incidents_come_by_time_and_end_before_the_world_heals(seed: int) -> None:
    scenario = draw(seed)
    times = [each.at for each in scenario.incidents]
    assert times == sorted(times)
    assert 3 <= len([each for each in scenario.orders if each.session != LONG_SERIES]) <= 8
    assert scenario.healed_at > max(BUSY_S, *(each.until for each in scenario.incidents))


def test_a_scenario_survives_json() -> None:
    for seed in SEEDS:
        scenario = draw(seed)
        assert msgspec.json.decode(msgspec.json.encode(scenario), type=Scenario) == scenario


def test_some_of_a_scenario_is_a_scenario_with_the_same_seed() -> None:
    scenario = draw(7)
    orders = scenario.only(scenario.orders)
    assert orders.seed == 7
    assert {type(each) for each in orders.incidents} == {OrderSent}


def test_every_incident_has_words_on_one_line_and_no_uid() -> None:
    for seed in SEEDS:
        for incident in draw(seed).incidents:
            words = in_words(incident)
            assert re.fullmatch(r"[\w' ,;:.()-]+", words), words
            assert not re.search(r"\d+\.\d+\.\d+|iTH", words), words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.25, "0.25 s"),
        (366.4, "366 s"),
        (600, "10 min"),
        (3600, "60 min"),
        (7200, "2 h"),
        (864000, "10 d"),
        (365.25 * 86400, "1 year"),
        (20 * 365.25 * 86400, "20 years"),
    ],
)
def test_a_duration_has_a_unit_that_fits(seconds: float, words: str) -> None:
    assert duration(seconds) == words
