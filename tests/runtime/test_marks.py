from __future__ import annotations

import errno
import gzip
import hashlib
import os
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from proxy.backend.archive import ArchiveLimits, unpack
from proxy.backend.rest import Backend, RestSettings
from proxy.errors import BackendError, NotConverted
from proxy.model import IMPLICIT_VR_LITTLE_ENDIAN, Entity, EntityType
from proxy.pacs.convert import convert
from proxy.pacs.header import read_instance
from proxy.runtime import marks
from proxy.runtime.clock import SYSTEM_CLOCK
from proxy.runtime.marks import Mark
from proxy.runtime.offload import Inline, Offload, Threads
from proxy.runtime.rng import SYSTEM_RANDOM
from tests.backend.archives import dicom, zipped
from tests.backend.http_server import Versioned, serving

SESSION = Entity(EntityType.SESSION, "sess-1", subject_id="subj-1")
ARCHIVE = b"PK\x03\x04" + random.Random(7).randbytes(600_000)
LIMIT = 500_000
"""Bytes that a real file may have in these tests."""


def failing(at: Mark, error: int) -> marks.Hook:
    def hook(mark: Mark) -> None:
        if mark is at:
            raise OSError(error, os.strerror(error))

    return hook


@contextmanager
def limited_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Who is told ------------------------------------------------------------------------------


@pytest.mark.parametrize("offload", [Inline(), Threads(1)], ids=["inline", "thread"])
async def test_a_task_started_in_the_block_tells_and_no_other(offload: Offload) -> None:
    told: list[Mark] = []
    go, gone = trio.Event(), trio.Event()

    async def program() -> None:
        await go.wait()
        marks.reached(Mark.ORDER_POSTED)
        await offload(marks.reached, Mark.COMMIT_DONE)
        gone.set()

    async def other() -> None:
        await go.wait()
        marks.reached(Mark.REPORT_SENT)
        await offload(marks.reached, Mark.REPORT_SENT)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        with marks.marking(told.append):
            nursery.start_soon(program)
        go.set()
        await gone.wait()
        marks.reached(Mark.REPORT_PROVEN)
    assert told == [Mark.ORDER_POSTED, Mark.COMMIT_DONE]


def test_the_innermost_block_is_told() -> None:
    outer: list[Mark] = []
    inner: list[Mark] = []
    with marks.marking(outer.append):
        with marks.marking(inner.append):
            marks.reached(Mark.COMMIT_BEGUN)
        marks.reached(Mark.COMMIT_DONE)
    marks.reached(Mark.ORDER_POSTED)
    assert (outer, inner) == ([Mark.COMMIT_DONE], [Mark.COMMIT_BEGUN])


# What the program makes of a hook that is a disk ----------------------------------------


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def refused_download(directory: Path) -> BackendError:
    """Download the archive, which must fail and leave nothing."""
    async with serving(Versioned(ARCHIVE, '"v1"')) as server:
        settings = RestSettings(url=server.origin, reserve_bytes=0)
        async with Backend(
            settings, "key", Threads(1), clock=SYSTEM_CLOCK, rng=SYSTEM_RANDOM
        ) as backend:
            with pytest.raises(BackendError) as caught:
                await backend.download(SESSION, "ws-1", directory / "a", None, lambda *_: None)
    assert names(directory) == []
    return caught.value


def refused_archive(archive: Path) -> BackendError:
    """Unpack an archive, which must fail and leave nothing."""
    staging = archive.with_name("staging")
    with pytest.raises(BackendError) as caught:
        unpack(archive, staging, ArchiveLimits(reserve_bytes=0), lambda: None, read_instance)
    assert names(archive.parent) == [archive.name]
    return caught.value


def told(error: BackendError) -> tuple[str, str, bool]:
    return str(error), error.hint, error.permanent


async def test_an_error_at_a_block_of_a_download_is_the_disks(tmp_path: Path) -> None:
    with limited_files():
        real = await refused_download(tmp_path)
    with marks.marking(failing(Mark.BLOCK_WRITTEN, errno.EFBIG)):
        assert told(await refused_download(tmp_path)) == told(real)
    with marks.marking(failing(Mark.BLOCK_WRITTEN, errno.ENOSPC)):
        assert "ENOSPC" in str(await refused_download(tmp_path))


def test_an_error_at_a_block_of_an_unpacked_file_is_the_disks(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    pixels = random.Random(1).randbytes(600_000)
    archive.write_bytes(zipped([("small", dicom(1)), ("large", dicom(2, pixels=pixels))]))
    with limited_files():
        real = refused_archive(archive)
    with marks.marking(failing(Mark.ENTRY_WRITTEN, errno.EFBIG)):
        assert told(refused_archive(archive)) == told(real)
    with marks.marking(failing(Mark.ENTRY_WRITTEN, errno.EIO)):
        assert "EIO" in str(refused_archive(archive))
        archive.write_bytes(gzip.compress(archive.read_bytes()))  # unpacked once more before
        assert "EIO" in str(refused_archive(archive))


def test_an_error_at_a_block_of_a_converted_file_is_the_disks(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(dicom())
    instance = read_instance(source, hashlib.sha256(dicom()).hexdigest())
    full = failing(Mark.ENTRY_WRITTEN, errno.ENOSPC)
    with marks.marking(full), pytest.raises(NotConverted) as caught:
        convert(source, instance, IMPLICIT_VR_LITTLE_ENDIAN, copy, lambda: None)
    assert caught.value.code == "copy"
