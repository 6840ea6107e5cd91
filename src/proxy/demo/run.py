"""One demonstration: a backend, two nodes, the proxy between them, and a check of its reports.

The proxy runs as it would for ``ith-proxy run``, in a state directory that is removed afterwards.
Its work is judged from outside, by the instances at the nodes and the messages at the backend.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import trio

from proxy import settings
from proxy.demo import frames
from proxy.demo.archives import zip_session
from proxy.demo.backend import DemoBackend
from proxy.demo.encoding import SampleInstance
from proxy.demo.node import DemoNode
from proxy.demo.node_script import NodeScript
from proxy.demo.sample import Study, ct_series
from proxy.demo.show import Show
from proxy.demo.verdict import Observed, Verdict, judge

LIMIT_S = 60.0
"""The limit of the dispatch; it takes about two seconds."""

SESSION_ID = "sess-demo"

SETTINGS = """\
[ith]
url = "{url}"

[dicom]
retry_delay_seconds = 0.5

[dispatch]
progress_seconds = 0.1

[limits]
reserve_gb = 0.0

[service]
drain_seconds = 2.0
flush_seconds = 1.0
"""

Service: TypeAlias = Callable[[settings.Settings], Awaitable[None]]
"""The proxy: runs until it is cancelled."""


@dataclass(frozen=True)
class Plan:
    """The content of a demonstration; the same seed makes the same session."""

    seed: int = 1
    slices: int = 48
    size: int = 256
    limit_s: float = LIMIT_S


async def demonstrate(plan: Plan, service: Service, show: Show) -> Verdict:
    """Dispatch a sample session to both nodes through ``service`` and judge the outcome."""
    # A peer that leaves in the middle of an exchange is part of the demonstration, no error.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    instances = await trio.to_thread.run_sync(_session, plan)
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(DemoBackend().running())
        nodes = [
            await stack.enter_async_context(node.running())
            for node in (
                DemoNode("READROOM", node_id="reading-room", script=NodeScript(delay_s=0.01)),
                DemoNode("PLANNING", node_id="planning", script=NodeScript(delay_s=0.02)),
            )
        ]
        nodes[1].script.reject_next = 1
        backend.rest.offer("session", SESSION_ID, zip_session(instances))
        backend.rest.configuration["nodes"] = [
            frames.rest_node(node.node_id, node.ae_title, node.host, node.port) for node in nodes
        ]
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ith-proxy-demo-")))
        stack.callback(show.stop)
        show.begin(backend.url, nodes, instances)
        observed = Observed(backend, nodes, instances)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service, _settings(directory, backend))
            await _dispatch(observed, plan, show)
            nursery.cancel_scope.cancel("the demonstration is over")
        verdict = judge(observed, seed=plan.seed)
    show.end(verdict)
    return verdict


def _session(plan: Plan) -> list[SampleInstance]:
    return ct_series(Study(plan.seed), slices=plan.slices, size=plan.size)


def _settings(directory: Path, backend: DemoBackend) -> settings.Settings:
    """Return the proxy's settings, from a file of their own and nothing else."""
    file, state = directory / "config.toml", directory / "state"
    file.write_text(SETTINGS.format(url=backend.url), encoding="utf-8")
    settings.prepare(state)
    return settings.load(config=file, state_dir=state, environ={"ITH_TOKEN": backend.key})


async def _dispatch(observed: Observed, plan: Plan, show: Show) -> None:
    """Order the dispatch as soon as the proxy is connected, and show it until it is over."""
    backend, nodes = observed.backend, observed.nodes
    with trio.move_on_after(plan.limit_s):
        await backend.wait_for(lambda backend: bool(backend.frames_named("config_update")))
        observed.begun = trio.current_time()
        order = frames.session_dispatch(
            SESSION_ID,
            [node.node_id for node in nodes],
            correlation_id=observed.correlation_id,
        )
        await backend.send_event(order)
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(_watch, node, show)
            show.heard(observed)
            while not observed.over:
                await backend.changed()
                show.heard(observed)
            nursery.cancel_scope.cancel("the dispatch is over")
    for node in nodes:
        show.stored(node)


async def _watch(node: DemoNode, show: Show) -> None:
    while True:
        show.stored(node)
        await node.changed()
