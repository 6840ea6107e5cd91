"""The configuration of this proxy at ITH, the answer to it, and its display for the operator."""

from __future__ import annotations

from itertools import product

import pytest
import trio

from proxy.cli.screen import screen
from proxy.control.client import ask
from proxy.control.messages import ControlRequest, Status
from proxy.demo import frames
from proxy.demo.backend_script import Greeting
from proxy.demo.frames import JsonObject
from proxy.demo.rest import Fault
from proxy.supervision import reconciler
from tests.end_to_end.site import Site
from tests.support.waiting import PATIENCE_S

HAS: JsonObject = {"port": 104, "ae_title": "ATSITE", "api_url": "https://proxy.example.org/api"}
CHANGED: JsonObject = {"port": 105, "ae_title": "MOVED", "api_url": ""}
REFUSING = Fault(status=503)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier configuration never has to do, unless the test says so."""
    monkeypatch.setattr(reconciler, "FRESH_SECONDS", PATIENCE_S)
    monkeypatch.setattr(reconciler, "RETRY_SECONDS", 0.05)


def ith_has(site: Site, values: JsonObject) -> None:
    site.backend.rest.configuration["config"] |= values


def told(site: Site) -> list[JsonObject]:
    """The changes reported to ITH, each time, without the address, which is this machine's own."""
    wanted = HAS.keys()
    return [
        {name: value for name, value in frame.items() if name in wanted}
        for frame in site.backend.frames_named("config_update")
    ]


async def until_told(site: Site, times: int) -> JsonObject:
    await site.until(lambda: len(told(site)) >= times)
    assert len(told(site)) == times
    return told(site)[-1]


async def shown(site: Site) -> Status:
    return await trio.to_thread.run_sync(ask, site.state, ControlRequest("status"))


@pytest.mark.parametrize(
    ("greeting", "own"),
    [
        *product(Greeting, [{}]),
        (Greeting.NOTHING, {"port": 4242}),
        (Greeting.CONNECTED, {"ae_title": "MINE"}),
        (Greeting.EVENT, {"api_url": "https://p/api"}),
    ],
)
async def test_a_new_installation_changes_nothing_that_the_site_did_not_set(
    site: Site, greeting: Greeting, own: JsonObject
) -> None:
    ith_has(site, HAS)
    site.backend.script.greeting = greeting
    await site.start(**{f"local__{name}": value for name, value in own.items()})
    assert await until_told(site, 1) == HAS | own
    await site.until(lambda: len(site.backend.frames_named("health_update")) > 1)
    assert len(told(site)) == 1


@pytest.mark.parametrize("greeting", Greeting)
async def test_a_new_installation_lives_while_ith_does_not_give_its_configuration(
    site: Site, greeting: Greeting
) -> None:
    ith_has(site, HAS)
    site.backend.script.greeting = greeting
    site.backend.rest.configuration_faults.extend([REFUSING] * 1000)
    await site.start_alone()
    await site.until(lambda: len(site.backend.frames_named("health_update")) > 1)
    await site.backend.send_raw('{"type":"ping"}')
    await site.until(lambda: bool(site.backend.frames_named("pong")))
    assert told(site) == []
    site.backend.rest.configuration_faults.clear()
    assert await until_told(site, 1) == HAS


@pytest.mark.parametrize("greeting", Greeting)
@pytest.mark.parametrize("how", ["restart", "outage"])
async def test_what_ith_changed_meanwhile_is_not_changed_back(
    site: Site, greeting: Greeting, how: str
) -> None:
    ith_has(site, HAS)
    site.backend.script.greeting = greeting
    await site.start()
    assert await until_told(site, 1) == HAS
    if how == "restart":
        await site.stop()
    else:
        await site.backend.vanish()
    ith_has(site, CHANGED)
    site.backend.rest.configuration_faults.append(REFUSING)
    if how == "restart":
        await site.start()
    else:
        await site.backend.listen()
    assert await until_told(site, 2) == CHANGED


async def test_the_copy_on_disk_has_to_do_where_ith_does_not_give_its_configuration(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "FRESH_SECONDS", 0.2)
    ith_has(site, HAS)
    await site.start()
    await site.stop()
    site.backend.rest.configuration_faults.extend([REFUSING] * 1000)
    await site.start()
    assert await until_told(site, 2) == HAS


async def test_pseudonyms_are_a_note_and_need_nobody_s_attention(site: Site) -> None:
    ith_has(site, {"enable_phi_anonymization": True})
    await site.start()
    now = await shown(site)
    assert (now.healthy, now.attention) == (True, ())
    assert "does not restore" in now.notes[0].meaning
    text = " ".join(" ".join(screen(now, 80)).split())
    assert f"{now.notes[0].fact} {now.notes[0].meaning}" in text

    ith_has(site, {"enable_phi_anonymization": False})
    await site.backend.send_event(frames.config_changed({"enable_phi_anonymization": False}))
    with trio.fail_after(PATIENCE_S):
        while True:
            if not (await shown(site)).notes:
                return
            await trio.sleep(0.02)
