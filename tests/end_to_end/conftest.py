"""Fixtures of the end-to-end tests: a site, and what is dispatched to it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.demo.encoding import SampleInstance
from tests.end_to_end import sessions
from tests.end_to_end.dcmjs import install
from tests.end_to_end.site import Site, a_site


@pytest.fixture(autouse=True)
def quiet_peers() -> Iterator[None]:
    """The embedded nodes are sometimes left in the middle of something; that is the play."""
    logger = logging.getLogger("pynetdicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@pytest.fixture
async def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Site]:
    """A site, with a check at the end that its log holds no patient."""
    caplog.set_level(logging.INFO, "proxy.logs")
    async with a_site(tmp_path) as running:
        yield running
    written = "\n".join(str(vars(record)) for record in caplog.records)
    assert not [text for text in sessions.CANARIES if text.decode() in written]


@pytest.fixture(scope="session")
def large_session() -> list[SampleInstance]:
    return sessions.large_mixed_session(seed=11)


@pytest.fixture(scope="session")
def small_session() -> list[SampleInstance]:
    return sessions.small_mixed_session(seed=12)


@pytest.fixture(scope="session")
def dcmjs() -> Path:
    return install()
