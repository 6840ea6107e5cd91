"""ITH changes the nodes, also while a session is on its way to real ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.demo import frames
from proxy.demo.frames import JsonObject
from proxy.demo.node import DemoNode
from proxy.demo.node_script import NodeScript
from proxy.demo.rest import Fault
from tests.end_to_end.sessions import arrivals_in, ct_session, hashes_in, hashes_of, once_each
from tests.end_to_end.site import Site, changed, node
from tests.support.peers import dcmqrscp, storescp
from tests.support.relay import Peer, relay

NO_ECHO_S = 600.0
"""With no C-ECHO but the first, a connection to a node is one of a delivery."""
SLOW_S = 0.02
ZERO_WIDTH_SPACE = "\u200b"


async def change(
    site: Site, action: str, *described: JsonObject, **nodes: Peer | JsonObject
) -> None:
    """Change the nodes at ITH: the event describes some, the configuration has these."""
    site.has(**nodes)
    await site.backend.send_event(frames.nodes_changed(described, action))


def cannot_be_asked(site: Site) -> None:
    """Let ITH's configuration fail from now on: the event alone says what there is."""
    site.backend.rest.configuration_faults.extend([Fault(status=503)] * 1000)


# In mid-session ---------------------------------------------------------------------------------


@pytest.mark.needs("storescp")
async def test_a_removed_node_gets_no_more_and_the_other_one_everything(
    site: Site, tmp_path: Path
) -> None:
    session = ct_session(211, 25)
    with (
        storescp(tmp_path / "goes", "+B", "+uf") as goes,
        storescp(tmp_path / "stays", "+B", "+uf") as stays,
    ):
        async with relay(goes, SLOW_S) as to_goes, relay(stays, SLOW_S) as to_stays:
            site.has(goes=to_goes, stays=to_stays)
            site.offer("sess-1", session)
            await site.start(dicom__echo_interval_seconds=NO_ECHO_S)
            ordered = await site.dispatch("sess-1", "goes", "stays")
            await site.until(lambda: len(goes.stored) >= 5)

            await change(site, "removed", changed("goes", to_goes), stays=to_stays)

            ending = await site.ending(ordered, "goes")
            await site.until(lambda: to_goes.open == 0)
            assert (await site.ending(ordered, "stays"))["status"] == "completed"
            assert (to_goes.connections, to_stays.connections) == (2, 2)  # to ask, to store
    assert ending["status"] == "failed"
    assert "node removed from configuration" in ending["error"]
    assert arrivals_in(stays.stored) == once_each(session)
    has = hashes_in(goes.stored)
    assert has.items() <= hashes_of(session).items()
    assert 5 <= ending["files_sent"] == len(has) == len(goes.stored) < len(session)


@pytest.mark.needs("storescp")
@pytest.mark.parametrize("what", ["port", "host"])
async def test_a_node_that_moves_gets_the_rest_at_its_new_address(
    site: Site, tmp_path: Path, what: str
) -> None:
    session = ct_session(212, 25)
    with (
        storescp(tmp_path / "old", "+B", "+uf") as old,
        storescp(tmp_path / "new", "+B", "+uf") as new,
    ):
        async with relay(old, SLOW_S) as before:
            host, port = ("127.0.0.2", before.port) if what == "host" else (before.host, 0)
            async with relay(new, host=host, port=port) as after:
                site.has(node=before)
                site.offer("sess-1", session)
                await site.start(dicom__echo_interval_seconds=NO_ECHO_S)
                ordered = await site.dispatch("sess-1", "node")
                await site.until(lambda: len(old.stored) >= 5)

                await change(site, "updated", changed("node", after), node=after)

                closing = await site.closing(ordered)
                await site.until(lambda: before.open == 0)
    assert (closing["status"], closing["files_sent"]) == ("completed", len(session))
    assert 5 <= len(old.stored) < len(session)
    assert arrivals_in([*old.stored, *new.stored]) == once_each(session)


@pytest.mark.needs("dcmqrscp")
async def test_a_node_with_another_ae_title_gets_the_rest_under_that(
    site: Site, tmp_path: Path
) -> None:
    session = ct_session(213, 25)
    with dcmqrscp(tmp_path, ae_title="OLD", also=["NEW"]) as archive:
        async with relay(archive, SLOW_S) as old:
            new = frames.rest_node("node", "NEW", old.host, old.port)
            site.has(node=old)
            site.offer("sess-1", session)
            await site.start(dicom__echo_interval_seconds=NO_ECHO_S)
            ordered = await site.dispatch("sess-1", "node")
            await site.until(lambda: len(images(archive.directory)) >= 5)

            event = frames.event_node("node", "NEW", old.host, old.port)
            await change(site, "updated", event, node=new)

            closing = await site.closing(ordered)
    assert (closing["status"], closing["files_sent"]) == ("completed", len(session))
    as_old, as_new = images(archive.directory), images(tmp_path / "NEW")
    assert 5 <= len(as_old) < len(session)
    assert arrivals_in([*as_old, *as_new]) == once_each(session)


def images(directory: Path) -> list[Path]:
    """The files that dcmqrscp has stored there, without its index."""
    return [path for path in directory.iterdir() if path.suffix != ".dat"]


async def test_a_node_that_is_to_see_another_calling_ae_title_gets_the_rest_from_that(
    site: Site,
) -> None:
    session = ct_session(220, 25)
    async with DemoNode(script=NodeScript(delay_s=0.05)).running() as slow:
        site.has(node=slow)
        site.offer("sess-1", session)
        await site.start(dicom__echo_interval_seconds=NO_ECHO_S)
        ordered = await site.dispatch("sess-1", "node")
        await site.until(lambda: len(slow.holds) >= 5)

        to_see = {"calling_ae_title": "PROXY_2"}
        await change(
            site, "updated", changed("node", slow, **to_see), node=node("node", slow, **to_see)
        )

        assert (await site.closing(ordered))["status"] == "completed"
    callers = [arrival.calling_ae_title for arrival in slow.arrivals]
    assert callers == sorted(callers)  # "DICOM_PROXY" is before "PROXY_2"
    assert {*callers} == {"DICOM_PROXY", "PROXY_2"}
    assert Counter(each.sop_instance_uid for each in slow.arrivals) == once_each(session)


@pytest.mark.needs("storescp")
async def test_a_node_that_is_added_or_renamed_stops_nothing(site: Site, tmp_path: Path) -> None:
    session = ct_session(214, 25)
    with storescp(tmp_path, "+B", "+uf") as disk:
        async with relay(disk, SLOW_S) as slow, DemoNode("LATE").running() as late:
            site.has(node=slow)
            site.offer("sess-1", session)
            await site.start(dicom__echo_interval_seconds=NO_ECHO_S)
            ordered = await site.dispatch("sess-1", "node")
            await site.until(lambda: len(disk.stored) >= 3)

            await change(site, "added", changed("late", late), node=slow, late=late)
            to_late = await site.dispatch("sess-1", "late")
            assert (await site.closing(to_late))["status"] == "completed"
            name = {"name": "Reading room 2"}
            renamed = node("node", slow, **name)
            await change(site, "updated", changed("node", slow, **name), node=renamed, late=late)
            asked = len(site.backend.rest.requests)
            await site.until(lambda: len(site.backend.rest.requests) > asked)
            assert len(disk.stored) < len(session)

            assert (await site.closing(ordered))["status"] == "completed"
            assert slow.connections == 2  # one to ask, one to store
    assert arrivals_in(disk.stored) == once_each(session)
    assert late.holds == hashes_of(session)


@pytest.mark.needs("storescp")
async def test_a_replaced_list_stops_what_is_for_nodes_that_are_gone_and_nothing_else(
    site: Site, tmp_path: Path
) -> None:
    session = ct_session(215, 25)
    with (
        storescp(tmp_path / "goes", "+B", "+uf") as goes,
        storescp(tmp_path / "stays", "+B", "+uf") as stays,
    ):
        async with (
            relay(goes, SLOW_S) as to_goes,
            relay(stays, SLOW_S) as to_stays,
            DemoNode("LATE").running() as late,
        ):
            site.has(goes=to_goes, stays=to_stays)
            site.offer("sess-1", session)
            await site.start(dicom__echo_interval_seconds=NO_ECHO_S)
            ordered = await site.dispatch("sess-1", "goes", "stays")
            await site.until(lambda: min(len(goes.stored), len(stays.stored)) >= 5)
            cannot_be_asked(site)

            described = changed("stays", to_stays), changed("late", late)
            await change(site, "replaced", *described)

            ending = await site.ending(ordered, "goes")
            assert (await site.ending(ordered, "stays"))["status"] == "completed"
            to_late = await site.dispatch("sess-1", "goes", "late")
            assert (await site.closing(to_late))["status"] == "completed"
            assert (to_goes.connections, to_stays.connections) == (2, 2)  # to ask, to store
    assert ending["status"] == "failed"
    assert "node removed from configuration" in ending["error"]
    assert {each["payload"].get("node_id") for each in site.statuses(to_late)} == {"late", None}
    assert arrivals_in(stays.stored) == once_each(session)
    assert len(goes.stored) < len(session)


# Forms of the event -----------------------------------------------------------------------------


@pytest.mark.parametrize("describe", [frames.event_node, frames.rest_node])
async def test_a_node_is_read_in_either_spelling_from_event_and_configuration(
    site: Site, describe: Callable[..., JsonObject]
) -> None:
    session = ct_session(216, 2)
    async with DemoNode("ONE").running() as one, DemoNode("TWO").running() as two:
        site.has(one=describe("one", one.ae_title, one.host, one.port))
        site.offer("sess-1", session)
        await site.start()
        await site.until(lambda: one.tally.echoes == 1)
        cannot_be_asked(site)

        await change(site, "added", describe("two", two.ae_title, two.host, two.port))

        closing = await site.closing(await site.dispatch("sess-1", "one", "two"))
        assert closing["status"] == "completed"
        assert one.holds == two.holds == hashes_of(session)


@pytest.mark.parametrize("action", ["synchronised", ""])
async def test_an_unknown_action_updates_what_it_describes(site: Site, action: str) -> None:
    session = ct_session(217, 2)
    async with (
        DemoNode("ONE").running() as one,
        DemoNode("TWO").running() as two,
        DemoNode("TWO").running() as elsewhere,
        DemoNode("THREE").running() as three,
    ):
        site.has(one=one, two=two)
        site.offer("sess-1", session)
        await site.start()
        await site.until(lambda: two.tally.echoes == 1)
        cannot_be_asked(site)

        await change(site, action, changed("two", elsewhere), changed("three", three))

        ordered = await site.dispatch("sess-1", "one", "two", "three")
        assert (await site.closing(ordered))["status"] == "completed"
        assert one.holds == elsewhere.holds == three.holds == hashes_of(session)
        assert two.holds == {}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"ae_title": f"NO{ZERO_WIDTH_SPACE}DE"}, "U+200B (ZERO WIDTH SPACE)"),
        ({"port": 0}, "port must be a whole number from 1 to 65535"),
        ({"port": 70000}, "port must be a whole number from 1 to 65535"),
    ],
    ids=["invisible sign", "port 0", "port 70000"],
)
@pytest.mark.parametrize("source", ["event", "configuration"])
async def test_one_bad_node_spoils_no_other_and_is_explained(
    site: Site, caplog: pytest.LogCaptureFixture, source: str, bad: JsonObject, says: str
) -> None:
    session = ct_session(218, 2)
    async with DemoNode("KNOWN").running() as known, DemoNode("LATE").running() as late:
        site.has(known=known)
        site.offer("sess-1", session)
        await site.start(dicom__echo_interval_seconds=600.0)
        await site.until(lambda: known.tally.echoes == 1)
        nodes = {"known": node("known", known) | bad, "late": node("late", late)}
        if source == "event":
            cannot_be_asked(site)
            described = changed("known", known) | bad, changed("late", late)
            await change(site, "updated", *described)
        else:
            await change(site, "updated", **nodes)

        await site.until(lambda: late.tally.echoes == 1)
        closing = await site.closing(await site.dispatch("sess-1", "known", "late"))

        assert closing["status"] == "completed"
        assert known.holds == late.holds == hashes_of(session)
        assert known.tally.associations == 2  # it stays what it was: nothing was done to it
    (problem,) = problems(caplog)
    assert problem["node_id"] == "known"
    assert says in problem["problem"]
    assert problem["hint"].startswith("Correct the node's entry on the ITH platform")


def problems(caplog: pytest.LogCaptureFixture) -> list[JsonObject]:
    return [
        record.__dict__["line"]
        for record in caplog.records
        if record.getMessage() == "configuration.problem"
    ]


# Without ITH ------------------------------------------------------------------------------------


@pytest.mark.needs("storescp")
async def test_without_ith_the_rest_goes_to_the_nodes_last_known(
    site: Site, tmp_path: Path
) -> None:
    session = ct_session(219, 25)
    with storescp(tmp_path, "+B", "+uf") as disk:
        async with relay(disk, SLOW_S) as slow:
            site.has(node=slow)
            site.offer("sess-1", session)
            await site.start()
            ordered = await site.dispatch("sess-1", "node")
            await site.until(lambda: len(disk.stored) >= 5)
            await site.stop()
            first = len(disk.stored)
            await site.backend.vanish()

            await site.start_alone()
            await site.until(lambda: len(disk.stored) == len(session))
            assert first < len(session)
            assert site.backend.final_status(ordered) is None

            await site.backend.listen()
            assert (await site.closing(ordered))["status"] == "completed"
    assert arrivals_in(disk.stored) == once_each(session)
    assert len(site.backend.rest.downloads) == 1
