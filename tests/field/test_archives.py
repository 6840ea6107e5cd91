"""Archives as sites have them: where anyone else unpacks the images, they are delivered.

The rows of the field's reports go through the whole program to DCMTK's storescp; more of the same
kinds are unpacked, and compared with what ``unzip`` and ``tar`` make of them.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import shutil
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from proxy.backend.archive import ArchiveLimits, Unpacked, unpack
from proxy.demo.frames import JsonObject
from proxy.pacs.header import read_instance
from tests.backend.archives import LIMITS, contents, dicom, refused, unpacked, with_free_disk
from tests.end_to_end.sessions import ct_session, hashes_in, hashes_of
from tests.end_to_end.site import a_site
from tests.field.make_archives import (
    BLOCK,
    DEFLATED,
    README,
    ROWS,
    SIMILAR,
    Member,
    beside,
    members_of,
    packed_by,
    raw_zip,
    tar_entry,
    tarred,
    tarred_v7,
    zipped,
)
from tests.support.peers import storescp

Make = Callable[[Sequence[bytes]], bytes]
SLICES = [dicom(n, pixels=random.Random(n).randbytes(3_000) + bytes([n])) for n in range(1, 7)]
SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c\0\x04" + random.Random(1).randbytes(900)

# --- through the whole program --------------------------------------------------------------------


async def delivered(tmp_path: Path, archive: bytes) -> tuple[JsonObject, dict[str, str]]:
    """Return the closing message of the dispatch of this archive, and what the node stored."""
    async with a_site(tmp_path) as site:
        with storescp(tmp_path, "+B") as node:
            site.has(node=node)
            site.backend.rest.offer("session", "sess-1", archive)
            await site.start()
            closing = await site.closing(await site.dispatch("sess-1", "node"))
            return closing, hashes_in(node.stored)


@pytest.mark.needs("storescp")
@pytest.mark.parametrize("make", ROWS.values(), ids=ROWS)
async def test_the_images_are_sent(tmp_path: Path, make: Make) -> None:
    session = ct_session(seed=41, slices=6)
    closing, stored = await delivered(tmp_path, make([each.content for each in session]))
    assert (closing["status"], closing["files_sent"]) == ("completed", 6)
    assert stored == hashes_of(session)


@pytest.mark.needs("storescp")
async def test_a_gzipped_single_file_is_sent(tmp_path: Path) -> None:
    session = ct_session(seed=42, slices=1)
    closing, stored = await delivered(tmp_path, gzip.compress(session[0].content))
    assert (closing["status"], closing["files_sent"]) == ("completed", 1)
    assert stored == hashes_of(session)


@pytest.mark.needs("storescp")
async def test_blank_slices_are_no_bomb(tmp_path: Path) -> None:
    """20 slices of 2 MiB, deflated 1000:1."""
    blank = [dicom(n, pixels=bytes(2 * 1024 * 1024)) for n in range(1, 21)]
    archive = zipped(blank)
    assert sum(map(len, blank)) > 800 * len(archive)
    closing, stored = await delivered(tmp_path, archive)
    assert (closing["status"], closing["files_sent"]) == ("completed", 20)
    assert len(stored) == 20


@pytest.mark.needs("storescp")
async def test_documents_and_programs_are_no_loss(tmp_path: Path) -> None:
    session = ct_session(seed=43, slices=3)
    more = [zipped([b"<w:document/>", README]), zipped([b"\xca\xfe\xba\xbe" + bytes(99)])]
    archive = raw_zip(*members_of([*(each.content for each in session), *more]))
    closing, stored = await delivered(tmp_path, archive)
    assert (closing["status"], closing["files_sent"]) == ("completed", 3)
    assert stored == hashes_of(session)


@pytest.mark.needs("storescp")
async def test_what_cannot_be_read_fails_the_dispatch_when_the_rest_was_delivered(
    tmp_path: Path,
) -> None:
    session = ct_session(seed=44, slices=6)
    files = [each.content for each in session]
    archive = raw_zip(
        Member(content=files[5], flags=0x1),
        *members_of(files[:2]),
        Member(content=files[4], crc=1),
        Member(content=SEVEN_ZIP),
        Member(content=zipped([files[2], zipped([files[3]])])),
    )
    closing, stored = await delivered(tmp_path, archive)
    assert (closing["status"], closing["files_sent"], closing["files_total"]) == ("failed", 3, 7)
    assert "4 of 7 files may hold images and could not be read" in closing["error"]
    assert stored == hashes_of(session[:3])


# --- more of the same kinds -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [*ROWS.values(), *SIMILAR.values()], ids=[*ROWS, *SIMILAR])
def test_the_images_are_unpacked(tmp_path: Path, make: Make) -> None:
    got = unpacked(tmp_path, make(SLICES))
    assert sorted(contents(got)) == sorted(SLICES)
    assert (got.passed_over, got.damaged, got.conflicting) == ({}, 0, 0)


@pytest.mark.parametrize("make", SIMILAR.values(), ids=SIMILAR)
def test_the_images_are_unpacked_from_within_an_archive(tmp_path: Path, make: Make) -> None:
    archive = make(SLICES[3:])
    got = unpacked(tmp_path, beside(lambda _: archive)(SLICES))
    deeper = {reason for reason in got.passed_over if reason.endswith("within the archive")}
    assert got.passed_over.keys() == deeper
    assert deeper or sorted(contents(got)) == sorted(SLICES)


TOOLS = {"unzip": ["unzip", "-qq", "-o", "archive", "-d", "out"], "tar": ["tar", "xf", "archive"]}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("make", [*ROWS.values(), *SIMILAR.values()], ids=[*ROWS, *SIMILAR])
def test_nothing_is_unpacked_by_the_tools_alone(tmp_path: Path, tool: str, make: Make) -> None:
    """What they write under a name of its own, we have as well."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    archive = make(SLICES)
    got = contents(unpacked(tmp_path, archive))
    place = tmp_path / "place"
    (place / "out").mkdir(parents=True)
    (place / "archive").write_bytes(archive)
    subprocess.run(TOOLS[tool], cwd=place, capture_output=True, check=False)
    written = {path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert {content for content in written if content in SLICES} <= {*got}


# --- what was not read is counted, and the rest is sent -------------------------------------------


def broken_header(files: Sequence[bytes]) -> bytes:
    archive = bytearray(tarred_v7(files))
    archive[archive.index(b"00000001.dcm")] ^= 1
    return bytes(archive)


def sparse(files: Sequence[bytes]) -> bytes:
    old = bytearray(tar_entry(b"sparse", b"S", files[1]))
    old[386:482] = bytes(96)
    old[482:483] = b"\1"
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old[:BLOCK])
    whole = bytes(old[:BLOCK]) + bytes(BLOCK) + bytes(old[BLOCK:])
    return tarred_v7(files[:1])[: -2 * BLOCK] + whole + tarred_v7(files[2:])


def pax_sparse(files: Sequence[bytes]) -> bytes:
    member = tarfile.TarInfo("sparse")
    member.size = len(files[1])
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": f"{2**50}"}
    entry = member.tobuf(tarfile.PAX_FORMAT) + files[1] + bytes(-len(files[1]) % BLOCK)
    return tarred_v7(files[:1])[: -2 * BLOCK] + entry + tarred_v7(files[2:])


def of_second(**changes: object) -> Make:
    def made(files: Sequence[bytes]) -> bytes:
        members = members_of(files)
        for name, value in changes.items():
            setattr(members[1], name, value)
        return raw_zip(*members)

    return made


def instead_of_second(pack: Callable[[bytes], bytes]) -> Make:
    return lambda files: raw_zip(*members_of([files[0], pack(files[1]), *files[2:]]))


DAMAGED = "is damaged or incomplete"
UNSUPPORTED = "file that is packed by a method that is not supported"
LOSSES: dict[str, tuple[Make, str]] = {
    "encrypted": (of_second(flags=0x1), "file that is encrypted"),
    "strongly encrypted": (of_second(flags=0x41), "file that is encrypted"),
    **{
        f"method {method}": (of_second(method=method, packed=b"\1\2\3" * 99), UNSUPPORTED)
        for method in (1, 6, 9, 10, 19, 93, 95, 96, 98, 99)
    },
    "wrong checksum": (of_second(crc=1), f"file that {DAMAGED}"),
    "wrong bytes": (
        of_second(method=DEFLATED, packed=b"\xff\xfe\xfd" * 99),
        f"file that {DAMAGED}",
    ),
    "cut content": (
        of_second(method=DEFLATED, packed=packed_by(DEFLATED, SLICES[1])[:-9]),
        f"file that {DAMAGED}",
    ),
    "wrong bzip2": (of_second(method=12, packed=b"BZh9" + bytes(99)), f"file that {DAMAGED}"),
    "wrong lzma": (
        of_second(method=14, packed=struct.pack("<BBHBL", 9, 20, 5, 93, 1 << 16) + b"\xff" * 99),
        f"file that {DAMAGED}",
    ),
    "lzma with a huge window": (
        of_second(method=14, packed=struct.pack("<BBHBL", 9, 20, 5, 93, 1 << 31) + bytes(99)),
        "file that needs too much memory to be unpacked",
    ),
    "7z": (instead_of_second(lambda _: SEVEN_ZIP), "7z archive that cannot be unpacked"),
    "rar": (
        instead_of_second(lambda _: b"Rar!\x1a\x07\x01\0" + bytes(99)),
        "rar archive that cannot be unpacked",
    ),
    "compress": (
        instead_of_second(lambda _: b"\x1f\x9d\x90" + bytes(99)),
        "compress (.Z) file that cannot be unpacked",
    ),
    "lzma": (
        instead_of_second(lambda each: lzma.compress(each, lzma.FORMAT_ALONE)),
        "lzma file that cannot be unpacked",
    ),
    "cut bz2": (
        instead_of_second(lambda each: bz2.compress(each)[:-9]),
        f"bzip2 file that {DAMAGED}",
    ),
    "wrong bz2": (
        instead_of_second(lambda each: bz2.compress(tarred([each]))[:-9] + bytes(9)),
        f"bzip2 file that {DAMAGED}",
    ),
    "wrong xz": (
        instead_of_second(lambda each: lzma.compress(tarred([each]))[:-30] + bytes(30)),
        f"xz file that {DAMAGED}",
    ),
    "zip in a zip in a zip": (
        instead_of_second(lambda each: zipped([zipped([each])])),
        "zip archive that is in an archive within the archive",
    ),
    "gz in a gz in a zip": (
        instead_of_second(lambda each: gzip.compress(gzip.compress(each))),
        "gzip that is in an archive within the archive",
    ),
    "cut zip": (
        instead_of_second(lambda each: zipped([each])[:-30]),
        f"zip archive that {DAMAGED}",
    ),
    "cut gz": (instead_of_second(lambda each: gzip.compress(each)[:-9]), f"gzip that {DAMAGED}"),
    "wrong gz": (
        instead_of_second(lambda each: gzip.compress(tarred([each]))[:-8] + bytes(8)),
        f"gzip that {DAMAGED}",
    ),
    "encrypted zip": (
        instead_of_second(lambda each: raw_zip(Member(content=each, flags=1))),
        "file that is encrypted",
    ),
    "broken tar header": (broken_header, f"file that {DAMAGED}"),
    "sparse": (sparse, "file that is sparse"),
    "sparse by pax": (pax_sparse, "file that is sparse"),
}


@pytest.mark.parametrize(("make", "reason"), LOSSES.values(), ids=LOSSES)
def test_what_was_not_read_is_counted_and_costs_nothing_else(
    tmp_path: Path, make: Make, reason: str
) -> None:
    got = unpacked(tmp_path, make(SLICES))
    assert contents(got) == [SLICES[0], *SLICES[2:]]
    assert got.passed_over == {reason: 1}
    assert sorted((tmp_path / "staging").iterdir()) == [each.path for each in got.instances]


@pytest.mark.parametrize("make", [tarred, tarred_v7, lambda files: gzip.compress(tarred(files))])
def test_a_cut_tar_gives_what_came(tmp_path: Path, make: Make) -> None:
    whole = make(SLICES)
    got = unpacked(tmp_path, whole[: len(whole) // 2])
    assert contents(got) == SLICES[: len(got.instances)]
    assert 1 <= len(got.instances) < len(SLICES)
    assert got.passed_over == {f"archive that {DAMAGED}": 1}


def test_wrong_bytes_in_a_gzip_spoil_all_of_it(tmp_path: Path) -> None:
    """Nobody knows which file holds them."""
    packed = gzip.compress(tarred(SLICES))
    assert DAMAGED in f"{refused(tmp_path, packed[:-8] + bytes(8))}"


def test_damage_is_looked_for_in_another_download_first(tmp_path: Path) -> None:
    for make in (LOSSES["wrong checksum"][0], broken_header, lambda files: tarred(files)[:9000]):
        error = refused(tmp_path, make(SLICES), comes_again=True)
        assert DAMAGED in f"{error}"
        assert not error.permanent
    for lost in ("encrypted", "7z", "cut zip", "sparse"):
        got = unpacked(tmp_path, LOSSES[lost][0](SLICES), comes_again=True)
        assert len(got.instances) == len(SLICES) - 1


def test_a_directory_that_breaks_off_fails_the_rest(tmp_path: Path) -> None:
    archive = bytearray(zipped(SLICES))
    archive[archive.rindex(b"PK\1\2")] ^= 1
    got = unpacked(tmp_path, bytes(archive))
    assert contents(got) == SLICES[:-1]
    assert got.passed_over == {f"archive that {DAMAGED}": 1}


def test_a_media_directory_is_no_loss(tmp_path: Path) -> None:
    directory = Path(str(get_testdata_file("DICOMDIR"))).read_bytes()
    for archive in ([directory, *SLICES], [zipped([directory, *SLICES])]):
        got = unpacked(tmp_path, raw_zip(*members_of(archive)))
        assert sorted(contents(got)) == sorted(SLICES)
        assert (got.skipped, got.passed_over) == ({"DICOMDIR": 1}, {})


# --- bombs ----------------------------------------------------------------------------------------


def of_zeros(size: int) -> bytes:
    """A zip of one file of so many zeros, which is no DICOM."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed, crc, block = b"", 0, bytes(1024 * 1024)
    for _ in range(size // len(block)):
        packed += packer.compress(block)
        crc = zlib.crc32(block, crc)
    packed += packer.flush()
    return raw_zip(Member(method=DEFLATED, packed=packed, sizes=(len(packed), size), crc=crc))


def loose_beside(*others: bytes) -> bytes:
    return raw_zip(*members_of([SLICES[0], *others, SLICES[1]], method=DEFLATED))


def assert_both(got: Unpacked) -> None:
    assert contents(got) == SLICES[:2]


def test_a_bomb_is_what_would_fill_this_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = of_zeros(64 * 1024 * 1024)
    got = unpacked(tmp_path, loose_beside(bomb))
    assert_both(got)
    assert got.passed_over == {}
    with_free_disk(monkeypatch, 200_000_000)
    got = unpacked(tmp_path, loose_beside(bomb))
    assert_both(got)
    assert got.passed_over == {"zip archive that unpacks to more than 200 times its size": 1}


def test_many_bombs_do_no_more_work_than_the_disk_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free_disk(monkeypatch, 40_000_000)
    bombs = [of_zeros(36 * 1024 * 1024)] * 40
    passed = 0

    def checkpoint() -> None:
        nonlocal passed
        passed += 1

    archive = tmp_path / "archive"
    archive.write_bytes(loose_beside(*bombs))
    got = unpack(archive, tmp_path / "staging", LIMITS, checkpoint, read_instance)
    assert_both(got)
    assert sum(got.passed_over.values()) == len(bombs)
    assert passed < 5_000


def test_levels_of_archives_end_at_the_second(tmp_path: Path) -> None:
    bomb = of_zeros(1024 * 1024)
    for _ in range(4):
        bomb = raw_zip(*members_of([bomb] * 16, method=DEFLATED))
    got = unpacked(tmp_path, loose_beside(bomb))
    assert_both(got)
    assert got.passed_over == {"zip archive that is in an archive within the archive": 16}


def test_very_many_empty_entries_are_nothing(tmp_path: Path) -> None:
    many = raw_zip(*[Member()] * 20_000, *members_of(SLICES), is_wide=True)
    for archive in (many, loose_beside(many)):
        got = unpacked(tmp_path, archive)
        assert sorted(contents(got)) == sorted(SLICES)
        assert (got.skipped["empty"], got.passed_over) == (20_000, {})
    few = ArchiveLimits(entries=10_000, reserve_bytes=0)
    got = unpacked(tmp_path, loose_beside(many), few)
    assert_both(got)
    assert got.passed_over == {"zip archive that has more than 10000 entries": 1}


def test_bytes_that_are_used_twice_are_unpacked_once(tmp_path: Path) -> None:
    """Entries that quote the local headers of others, as bombs of one level have them."""
    kernel = Member(content=SLICES[0])
    body = kernel.local()
    quoting = [Member(content=body, name=b"%d" % n) for n in range(9)]
    head = quoting[0].local()[: -len(body)]
    directory = b"".join(
        each.record(len(head) * number) for number, each in enumerate(quoting)
    ) + kernel.record(len(head) * len(quoting))
    whole = head * len(quoting) + body
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 10, 10, len(directory), len(whole), 0)
    got = unpacked(tmp_path, whole + directory + end)
    assert contents(got) == [SLICES[0]]
    assert got.passed_over == {"file that overlaps another one": 9}


def test_what_a_spoilt_archive_held_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive within the archive that needs too much gives its place to the others."""
    with_free_disk(monkeypatch, 30_000_000)
    blank = [dicom(n, pixels=bytes(3_000_000)) for n in range(10, 20)]
    got = unpacked(tmp_path, loose_beside(zipped(blank)))
    assert_both(got)
    assert got.passed_over == {"zip archive that unpacks to more than 200 times its size": 1}
    assert sorted((tmp_path / "staging").iterdir()) == [each.path for each in got.instances]


def test_rows_are_of_different_bytes() -> None:
    made = [make(SLICES) for make in (*ROWS.values(), *SIMILAR.values())]
    assert all(one != other for one, other in pairwise(sorted(made)))
