"""Nobody reads the program's standard error: lines are lost, work is not, and it can be stopped."""

from __future__ import annotations

import array
import fcntl
import os
import termios
from collections.abc import Iterator

import pytest

from proxy.demo.node import DemoNode
from tests.end_to_end.program import the_program
from tests.end_to_end.sessions import ct_session
from tests.end_to_end.site import Site

PIPE_BYTES = 4096


class UnreadLog:
    """A pipe in place of the file that the program's first log is written to."""

    def __init__(self, site: Site) -> None:
        path = site.root / "proxy-0.log"
        os.mkfifo(path)
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self.reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    @property
    def is_full(self) -> bool:
        """Whether a long line does not fit."""
        held = array.array("i", [0])
        fcntl.ioctl(self.reader, termios.FIONREAD, held)
        return held[0] > PIPE_BYTES - 1024


@pytest.fixture
def unread(site: Site) -> Iterator[UnreadLog]:
    log = UnreadLog(site)
    yield log
    os.close(log.reader)


async def test_pongs_orders_and_sigterm_are_as_ever(
    site: Site, node: DemoNode, unread: UnreadLog
) -> None:
    sessions = {f"sess-{number}": ct_session(240 + number, 10) for number in range(3)}
    site.has(a=node)
    site.backend.script.ping_every_s = 0.1
    async with the_program(site, log__level="debug") as program:
        for session_id, session in sessions.items():
            site.offer(session_id, session)
            ordered = await site.dispatch(session_id, "a")
            assert (await site.closing(ordered))["status"] == "completed"
        await site.until(lambda: unread.is_full)
        assert node.holds.keys() == {each.sop_instance_uid for s in sessions.values() for each in s}
        pongs = len(site.backend.frames_named("pong"))
        await site.until(lambda: len(site.backend.frames_named("pong")) > pongs + 5)
        assert await program.terminate() == 0
    assert site.backend.frames_named("health_update")[-1]["proxy_status"] == "offline"
    await site.until(lambda: site.backend.close_codes == [1000])
