"""The operator's commands, as commands, against the program as a program."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable

import pytest
import trio

from proxy import __version__
from proxy.demo import frames
from proxy.demo.node import DemoNode
from proxy.demo.node_script import NodeScript
from tests.end_to_end import sessions
from tests.end_to_end.program import the_program
from tests.end_to_end.sessions import ct_session, hashes_of
from tests.end_to_end.site import Site
from tests.support.peers import free_port
from tests.support.waiting import PATIENCE_S

SCHEMA = {
    "schema": str,
    "version": str,
    "at": str,
    "healthy": bool,
    "attention": list,
    "operation": dict,
    "connection": dict,
    "node_counts": dict,
    "nodes": list,
    "dispatch_counts": dict,
    "dispatches": list,
    "queued_reports": int,
    "disk_usage_gb": float,
    "notes": list,
    "event_counts": dict,
}
"""The fields that a program may rely on; a field may be added, none may go."""


async def command(site: Site, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        [sys.executable, "-m", "proxy", *arguments, "--state-dir", str(site.state)],
        env={"PATH": os.environ["PATH"], "HOME": str(site.root)},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


async def status(site: Site) -> frames.JsonObject:
    done = await command(site, "status", "--json")
    assert (done.stderr, done.returncode in {0, 1}) == (b"", True)
    document: frames.JsonObject = json.loads(done.stdout)
    assert document["healthy"] == (done.returncode == 0)
    return document


async def until(site: Site, happened: Callable[[frames.JsonObject], bool]) -> frames.JsonObject:
    with trio.fail_after(PATIENCE_S):
        while True:
            now = await status(site)
            if happened(now):
                return now


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("pause",), ("resume",)])
async def test_without_a_proxy_there_is_a_sentence_and_code_3(
    site: Site, arguments: tuple[str, ...]
) -> None:
    done = await command(site, *arguments)
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"No proxy is running with the state directory" in done.stderr
    assert b"ith-proxy run" in done.stderr


async def test_a_reason_that_is_too_long_is_a_wrong_command_line(site: Site) -> None:
    done = await command(site, "pause", "--reason", "x" * 201)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"200 are possible" in done.stderr


async def test_two_locks_over_kill_and_restart(site: Site) -> None:
    session = ct_session(91, 30)
    async with DemoNode(script=NodeScript(delay_s=0.05)).running() as slow:
        site.has(slow=slow)
        site.offer("sess-1", session)
        site.offer("sess-2", ct_session(92, 3))
        async with the_program(site, dicom__cancel_seconds="1") as program:
            await until(site, lambda now: bool(now["healthy"] and now["nodes"]))
            first = await site.dispatch("sess-1", "slow")
            await slow.wait_for(lambda node: len(node.holds) >= 5)
            paused = await command(site, "pause", "--reason", "new switch")
            assert paused.stdout == b"Paused; 1 dispatch kept. To go on: ith-proxy resume\n"
            assert paused.returncode == 0
            second = await site.dispatch("sess-2", "slow")
            shown = await command(site, "status")
            assert shown.returncode == 1
            assert b"by the operator: new switch" in shown.stdout
            await trio.sleep(1.5)  # dicom.cancel_seconds, at the most
            at_rest = len(slow.arrivals)
            await program.kill()
        assert stat.S_ISSOCK((site.state / "control.sock").stat().st_mode)  # left by the kill

        async with the_program(site) as program:
            site.backend.rest.configuration["is_active"] = False
            await site.backend.send_event(frames.status_changed(is_active=False))
            await until(site, lambda now: len(now["operation"]["locks"]) == 2)
            resumed = await command(site, "resume")
            assert resumed.returncode == 0
            assert b"Your pause is over, but ITH's is not" in resumed.stdout
            now = await status(site)
            assert [lock["lock"] for lock in now["operation"]["locks"]] == ["backend"]
            assert {each["correlation_id"] for each in now["dispatches"]} == {first, second}
            assert len(slow.arrivals) == at_rest < 30
            await command(site, "pause")
            site.backend.rest.configuration["is_active"] = True
            await site.backend.send_event(frames.status_changed(is_active=True))
            now = await until(site, lambda now: len(now["operation"]["locks"]) == 1)
            assert now["operation"]["state"] == "paused"
            assert len(slow.arrivals) == at_rest
            assert b"Resumed; 2 dispatches running." in (await command(site, "resume")).stdout
            assert (await site.closing(first))["status"] == "completed"
            assert (await site.closing(second))["status"] == "completed"
            assert slow.holds == hashes_of(session) | hashes_of(ct_session(92, 3))
            assert len(slow.arrivals) == 33
            assert len(site.backend.rest.downloads) == 2
            assert await program.terminate() == 0
        assert not (site.state / "control.sock").exists()


async def test_the_status_tells_the_truth_and_no_patient(site: Site) -> None:
    down = DemoNode("DOWN")
    down.port = free_port()
    session = ct_session(93, 20)
    async with DemoNode("PACS", script=NodeScript(delay_s=0.1)).running() as up:
        site.has(up=up, down=down)
        site.offer("sess-1", session)
        await site.start(dicom__retry_count=0)
        ordered = await site.dispatch("sess-1", "up", "down", priority="urgent")
        await site.ending(ordered, "down")
        await up.wait_for(lambda node: len(node.holds) >= 3)
        now = await status(site)
        assert {name: type(value) for name, value in now.items()} == SCHEMA
        assert (now["schema"], now["version"]) == ("ith-proxy/status/1", __version__)
        assert now["connection"]["state"] == "online"
        assert now["operation"]["state"] == "active"
        assert now["dispatch_counts"] == {"delivering": 1}
        (dispatch,) = now["dispatches"]
        assert (dispatch["correlation_id"], dispatch["priority"]) == (ordered, "urgent")
        assert (dispatch["entity_type"], dispatch["state"]) == ("session", "delivering")
        parts = {part["node_id"]: part for part in dispatch["deliveries"]}
        assert parts["down"]["state"] == "failed"
        assert parts["down"]["error"]
        assert parts["up"]["state"] == "storing"
        assert 3 <= parts["up"]["files_stored"] < parts["up"]["files_total"] == 20
        assert sum(now["node_counts"].values()) == 2
        shown = await command(site, "status")
        for text in (ordered.encode(), b"PACS", b"/20 storing"):
            assert text in shown.stdout
        said = json.dumps(now).encode() + shown.stdout
        patients = {session[0].study_instance_uid.encode(), b"sess-1", *sessions.CANARIES}
        assert not [text for text in patients if text in said]

        site.backend.script.refuse = 503
        site.backend.drop()
        now = await until(site, lambda now: not now["connection"]["online"])
        assert now["connection"]["error"]
        assert any("link to ITH" in note["problem"] for note in now["attention"])
        await site.stop()
