"""The archives the embedded backend offers."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest

from proxy.demo.archives import tar_session, zip_session
from proxy.demo.sample import Study, ct_series

SLICES = ct_series(Study(), slices=4, size=16)
CONTENTS = [instance.content for instance in SLICES]


def unzipped(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


def untarred(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        files = {member.name: opened.extractfile(member) for member in opened}
        return {name: file.read() for name, file in files.items() if file}


@pytest.mark.parametrize("level", [0, 6])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_zip_holds_the_instances(level: int, streamed: bool) -> None:
    archive = zip_session(SLICES, level=level, streamed=streamed)
    files = unzipped(archive)
    assert [*files.values()] == CONTENTS
    assert all(name.endswith(".dcm") for name in files)
    assert (b"PK\x07\x08" in archive) == streamed


def test_a_tar_holds_the_instances() -> None:
    assert [*untarred(tar_session(SLICES)).values()] == CONTENTS


def test_extras_stand_between_the_instances() -> None:
    zipped, tarred = (
        unzipped(zip_session(SLICES, extras=True)),
        untarred(tar_session(SLICES, extras=True)),
    )
    assert zipped == tarred
    assert [content for content in zipped.values() if content in CONTENTS] == CONTENTS
    assert {"DICOMDIR", "README.txt", "IMAGES/IM0003", "IMAGES/empty.dcm"} <= {*zipped}
    assert any(name.count("/") == 12 for name in zipped)
    assert any(name.startswith("__MACOSX/") for name in zipped)


def test_archives_are_reproducible() -> None:
    assert zip_session(SLICES) == zip_session(SLICES)
    assert tar_session(SLICES) == tar_session(SLICES)
