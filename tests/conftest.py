from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

from proxy import logs
from proxy.demo.backend import DemoBackend
from proxy.demo.node import DemoNode
from proxy.logs import fields
from proxy.logs.lines import LOGGER
from tests.ledger.make import fast_directory
from tests.support import tools
from tests.support.program import some_nodes

hypothesis.settings.register_profile("no clock is a verdict", deadline=None)
hypothesis.settings.load_profile("no clock is a verdict")
pytest_plugins = [name for name in ("tests.support.rows",) if find_spec(name)]

REQUIRE_TOOLS = "ITH_PROXY_REQUIRE_TOOLS"
JOIN_SECONDS = 2.0
PURE = ("events", "fsm", "machines", "nodes", "settings", "work")
"""Folders of tests that are all pure; elsewhere a module says so of its tests, with ``MARK``."""
MARK = "pytestmark = pytest.mark.pure"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no module without pure tests if only pure tests are selected."""
    is_module = collection_path.suffix == ".py"
    if config.option.markexpr != "pure" or not is_module or _is_in_pure_folder(collection_path):
        return None
    return True if MARK not in collection_path.read_text() else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in the pure folders before ``-m pure`` chooses."""
    for item in items:
        if _is_in_pure_folder(item.path):
            item.add_marker(pytest.mark.pure)


def _is_in_pure_folder(path: Path) -> bool:
    return any(path.is_relative_to(Path(__file__).with_name(name)) for name in PURE)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose program is missing, or fail it where nothing may be left out."""
    wanted = {tool for marker in item.iter_markers("needs") for tool in marker.args}
    missing = sorted(tool for tool in wanted if tools.find(tool) is None)
    if missing:
        sentence = "; ".join(map(tools.how_to_install, missing))
        if os.environ.get(REQUIRE_TOOLS) == "1":
            pytest.fail(sentence, pytrace=False)
        pytest.skip(sentence)


@pytest.fixture(autouse=True)
def pure_is_pure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is marked as pure reaches nothing outside of its own thread."""

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        pytest.fail("a pure test used a socket, a program or a thread")

    if request.node.get_closest_marker("pure"):
        monkeypatch.setattr(socket.socket, "bind", refuse)
        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(subprocess, "Popen", refuse)
        monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.fixture(autouse=True)
def strict_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that breaks the log's rules fails the test that wrote it."""
    monkeypatch.setattr(fields, "STRICT", True)


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A test that sets up the log leaves nothing of it to the others."""
    root = logging.getLogger()
    handlers, level, our_level = root.handlers[:], root.level, LOGGER.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers = handlers
    root.setLevel(level)
    LOGGER.setLevel(our_level)
    logs.DROPPED.clear()


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """A test must end what it started; idle workers of pools are daemons and do not count."""
    before = {*threading.enumerate()}
    yield
    for thread in {*threading.enumerate()} - before:
        if not thread.daemon:
            thread.join(JOIN_SECONDS)
            assert not thread.is_alive(), f"the test left {thread.name} running"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of the user who runs the tests do not reach them."""
    for variable in list(os.environ):
        if variable.startswith("ITH_") and variable != REQUIRE_TOOLS:
            monkeypatch.delenv(variable)


# Fixtures of many directories ----------------------------------------------------------------


@pytest.fixture
async def backend() -> AsyncIterator[DemoBackend]:
    """ITH's side."""
    async with DemoBackend().running() as backend:
        yield backend


@pytest.fixture
async def node() -> AsyncIterator[DemoNode]:
    """One node, "a"."""
    async with some_nodes("a") as (node,):
        yield node


@pytest.fixture
async def nodes() -> AsyncIterator[list[DemoNode]]:
    """Two nodes, "a" and "b"."""
    async with some_nodes("a", "b") as nodes:
        yield nodes


@pytest.fixture
def directory() -> Iterator[Path]:
    """A state directory on the fastest file system there is."""
    with fast_directory() as directory:
        yield directory
