"""The installed program as a process: to be killed, to be stopped, and to have its log read."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.end_to_end.site import Site
from tests.support.waiting import PATIENCE_S


@dataclass
class Program:
    """``python -m proxy run`` while it runs."""

    process: trio.Process
    log_file: Path

    @property
    def log(self) -> str:
        """The text on its standard error and standard output."""
        return self.log_file.read_text()

    def lines(self, event: str) -> list[dict[str, object]]:
        """Return the log's lines about an event."""
        lines = [json.loads(line) for line in self.log.splitlines()]
        return [line for line in lines if line["event"] == event]

    async def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        """Ask it to stop and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        with trio.fail_after(PATIENCE_S):
            return await self.process.wait()


@asynccontextmanager
async def the_program(site: Site, **more: str) -> AsyncIterator[Program]:
    """Run the program for a site, with two variables and the state directory as its only settings.

    ``more`` are settings a test cannot do without, as ``ITH_PROXY__SECTION__KEY``.
    """
    greetings = len(site.backend.frames_named("config_update"))
    log_file = site.root / f"proxy-{greetings}.log"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(site.root),
        "ITH_URL": site.backend.url,
        "ITH_TOKEN": site.backend.key,
        **{f"ITH_PROXY__{name.upper()}": value for name, value in more.items()},
    }
    command = [sys.executable, "-m", "proxy", "run", "--state-dir", str(site.state)]
    with log_file.open("wb") as output:
        process = await trio.lowlevel.open_process(
            command, env=environ, stdin=None, stdout=output, stderr=output, cwd=site.root
        )
    program = Program(process, log_file)
    try:
        await site.until(lambda: len(site.backend.frames_named("config_update")) > greetings)
        yield program
    finally:
        if process.returncode is None:
            process.kill()
            with trio.move_on_after(5, shield=True):
                await process.wait()
