from __future__ import annotations

import contextlib
import gzip
import io
import random
import resource
import stat
import struct
import tarfile
import traceback
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from proxy.backend.archive import ArchiveLimits, Unsent, unpack
from proxy.errors import ArchiveError, BackendError
from proxy.pacs.header import read_instance
from proxy.runtime.offload import Threads
from tests.backend.archives import (
    CANARY,
    LIMITS,
    PACKERS,
    Files,
    cancelled_at_every_checkpoint,
    contents,
    dicom,
    refused,
    targz,
    tarred,
    unpacked,
    with_free_disk,
    zipped,
)

KNOWN_TYPES = frozenset(
    {
        *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE),
        *(tarfile.FIFOTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"M"),
        *(tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    }
)


@pytest.mark.parametrize("pack", PACKERS)
def test_gives_every_instance_byte_for_byte(tmp_path: Path, pack: Callable[[Files], bytes]) -> None:
    files = [dicom(n, pixels=random.Random(n).randbytes(n * 10_000)) for n in range(1, 30)]
    got = unpacked(tmp_path, pack([(f"{CANARY}/a/{n}.dcm", f) for n, f in enumerate(files)]))
    assert contents(got) == files
    assert got.skipped == {}
    assert [staged.instance.instance_number for staged in got.instances] == [*range(1, 30)]
    assert sorted(p for p in (tmp_path / "staging").iterdir()) == [s.path for s in got.instances]


@pytest.mark.parametrize("pack", PACKERS)
def test_content_decides_and_everything_else_is_counted(
    tmp_path: Path, pack: Callable[[Files], bytes]
) -> None:
    directory = Path(str(get_testdata_file("DICOMDIR"))).read_bytes()
    got = unpacked(
        tmp_path,
        pack(
            [
                ("deep/er/and/deeper/without_extension", dicom(1)),
                ("bare.jpg", dicom(2)[132:]),
                ("DICOMDIR", directory),
                ("__MACOSX/._1.dcm", b"\x00\x05\x16\x07\x00\x02" + bytes(76)),
                ("notes.dcm", CANARY.encode() * 100),
                ("readme.txt", b"hello"),
                ("instances.xml", b"<?xml version='1.0'?><a/>"),
                ("index.html", b"  <!DOCTYPE html>"),
                ("meta.json", b'{"a": 1}'),
                ("a.png", b"\x89PNG\r\n\x1a\n" + bytes(100)),
                ("a.pdf", b"%PDF-1.7 "),
                ("viewer.exe", b"MZ" + bytes(500)),
                ("inner.zip", zipped([("1.dcm", dicom(3))])),
                ("empty.dcm", b""),
                ("noise.dcm", random.Random(1).randbytes(5000)),
            ]
        ),
    )
    assert contents(got) == [dicom(1), dicom(2)[132:], dicom(3)]
    once = ("AppleDouble", "DICOMDIR", "JSON", "PDF", "empty", "image or video", "not DICOM")
    assert got.skipped == dict.fromkeys((*once, "program"), 1) | {"text": 2, "XML or HTML": 2}
    assert got.passed_over == {}
    assert got.damaged == got.conflicting == 0


def test_a_bare_dicom_file_is_an_archive_of_one(tmp_path: Path) -> None:
    for body in (dicom(), dicom()[132:]):
        assert contents(unpacked(tmp_path, body)) == [body]


def test_nothing_dicom_is_an_error_with_counts(tmp_path: Path) -> None:
    error = refused(tmp_path, zipped([(CANARY, b"text"), ("b", b"{}"), ("c", b"more text")]))
    assert f"{error}" == "There is no DICOM instance in the archive (3 files: 1 JSON, 2 text)"
    assert isinstance(error, ArchiveError)
    assert error.permanent
    assert "(0 files)" in f"{refused(tmp_path, zipped([]))}"
    assert "1 text" in f"{refused(tmp_path, CANARY.encode())}"


def test_an_instance_without_its_uid_is_a_loss_that_is_counted(tmp_path: Path) -> None:
    nameless = dicom(2).replace(b"1.2.3.1.2", bytes(9))
    got = unpacked(tmp_path, zipped([("1", dicom(1)), ("2", nameless)]))
    assert (len(got.instances), got.damaged, got.skipped) == (1, 1, {})
    reason = "the SOP instance UID is missing from the data set and the file meta group"
    assert got.unsent == (Unsent(2, reason, "1.2.840.10008.5.1.4.1.1.7"),)
    assert f"1 DICOM ({reason})" in f"{refused(tmp_path, zipped([('2', nameless)]))}"


def test_keeps_one_of_twins_and_the_first_of_rivals(tmp_path: Path) -> None:
    files = [dicom(1), dicom(1), dicom(1, pixels=b"other!"), dicom(1, series=2)]
    got = unpacked(tmp_path, zipped([(f"{n}", f) for n, f in enumerate(files)]))
    assert contents(got) == [dicom(1), dicom(1, series=2)]
    assert got.skipped == {"duplicate": 1}
    assert got.conflicting == 1
    (rival,) = got.unsent
    assert (rival.entry, rival.first_entry) == (3, 1)
    assert "two different objects with one UID" in rival.reason
    assert len(list((tmp_path / "staging").iterdir())) == 2


# --- names ----------------------------------------------------------------------------------------

HOSTILE = ["../../evil", "/etc/evil", "C:\\evil", "..\\evil", "a/../../evil", "evil\n", "CON", "A"]


@pytest.mark.parametrize("pack", PACKERS)
def test_names_never_become_paths(tmp_path: Path, pack: Callable[[Files], bytes]) -> None:
    place = tmp_path / "deep" / "er"
    place.mkdir(parents=True)
    names = [*HOSTILE, "a", "x" * 250, "é", "a/b"]
    got = unpacked(place, pack([(name, dicom(n)) for n, name in enumerate(names)]))
    assert len(got.instances) == len(names)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {
        place / "archive",
        *(place / "staging" / f"{n:08d}" for n in range(1, len(names) + 1)),
    }


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@settings(deadline=None)
@given(st.lists(NAMES.filter(lambda name: not name.endswith("/")), min_size=1, max_size=4))
def test_any_names_will_do(names: list[str]) -> None:
    import tempfile

    for pack in PACKERS:
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            with contextlib.suppress(UserWarning):  # zipfile minds names that occur twice
                archive = pack([(name, dicom(n)) for n, name in enumerate(dict.fromkeys(names))])
                got = unpacked(place, archive)
                assert len(got.instances) == len(set(names))
                assert {path.name for path in place.iterdir()} == {"archive", "staging"}


def test_links_and_devices_are_skipped(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("evil")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        archive.addfile(tarfile.TarInfo("empty"))
    assert "1 empty, 2 device, 2 link" in ", ".join(
        sorted(f"{refused(tmp_path, buffer.getvalue())}".split(": ")[1].strip(")").split(", "))
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zip_archive:
        for mode in (stat.S_IFLNK, stat.S_IFIFO):
            info = zipfile.ZipInfo(f"evil{mode}")
            info.create_system, info.external_attr = 3, (mode | 0o777) << 16
            zip_archive.writestr(info, "/etc/passwd")
        zip_archive.mkdir("directory")
        zip_archive.writestr("1.dcm", dicom())
    got = unpacked(tmp_path, buffer.getvalue())
    assert got.skipped == {"link": 1, "device": 1}
    assert len(got.instances) == 1


# --- what an archive says of a file is not asked --------------------------------------------------


HOSTS = [*range(20), 255]
MODES = [
    stat.S_IFLNK,
    stat.S_IFIFO,
    stat.S_IFCHR,
    stat.S_IFBLK,
    stat.S_IFSOCK,
    stat.S_IFDIR,
    0xF000,
]


def zip_of(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for info, content in entries:
            archive.writestr(info, content)
    return buffer.getvalue()


@pytest.mark.parametrize("host", HOSTS)
def test_no_attribute_of_any_host_hides_an_instance(tmp_path: Path, host: int) -> None:
    entries: list[tuple[zipfile.ZipInfo, bytes]] = []
    for number, mode in enumerate(MODES):
        for name in (f"{number}.dcm", f"{number}/"):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = host, mode << 16 | 0x10
            entries.append((info, dicom(len(entries) + 1)))
    got = unpacked(tmp_path, zip_of(entries))
    assert contents(got) == [content for _, content in entries]
    assert (got.skipped, got.passed_over) == ({}, {})


@pytest.mark.parametrize("host", HOSTS)
def test_attributes_name_what_is_no_instance_where_the_host_is_unix(
    tmp_path: Path, host: int
) -> None:
    entries = [(zipfile.ZipInfo("1.dcm"), dicom())]
    for mode, content in ((stat.S_IFLNK, b"1.dcm"), (stat.S_IFIFO, b""), (stat.S_IFDIR, b"text")):
        info = zipfile.ZipInfo(f"{mode}")
        info.create_system, info.external_attr = host, mode << 16
        entries.append((info, content))
    named = {"link": 1, "device": 1, "text": 1} if host in {3, 19} else {"text": 2, "empty": 1}
    assert unpacked(tmp_path, zip_of(entries)).skipped == named


def test_an_archive_in_a_link_is_unpacked(tmp_path: Path) -> None:
    entries = [(zipfile.ZipInfo("1.dcm"), dicom())]
    for content in (zipped([("a", dicom(2))]), zipped([("a", b"text")])):
        info = zipfile.ZipInfo(f"{len(entries)}")
        info.create_system, info.external_attr = 3, stat.S_IFLNK << 16
        entries.append((info, content))
    got = unpacked(tmp_path, zip_of(entries))
    assert contents(got) == [dicom(), dicom(2)]
    assert (got.skipped, got.passed_over) == ({"link": 1}, {})


def test_directories_without_content_are_not_counted(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("directory")
    info.create_system, info.external_attr = 3, stat.S_IFDIR << 16
    entries = [(zipfile.ZipInfo("a/"), b""), (info, b""), (zipfile.ZipInfo("1.dcm"), dicom())]
    assert unpacked(tmp_path, zip_of(entries)).skipped == {}
    member = tarfile.TarInfo("directory")
    member.type = tarfile.DIRTYPE
    archive = member.tobuf(tarfile.USTAR_FORMAT) + tarred([("1.dcm", dicom())])
    assert unpacked(tmp_path, archive).skipped == {}


def test_a_directory_hides_no_content(tmp_path: Path) -> None:
    archive = bytearray(zipped([("a/", dicom(1)), ("b", dicom(2))]))
    directory = archive.index(b"PK\x01\x02")
    archive[directory + 24 : directory + 28] = bytes(4)
    assert contents(unpacked(tmp_path, bytes(archive))) == [dicom(1), dicom(2)]


def test_empty_names_will_do(tmp_path: Path) -> None:
    names = [("a", dicom(1)), ("b", dicom(2)), ("c", b"text")]
    infos = []
    for name, content in names:
        info = zipfile.ZipInfo(name)
        info.filename = ""
        infos.append((info, content))
    with pytest.warns(UserWarning, match="Duplicate name"):
        nameless = zip_of(infos)
    got = unpacked(tmp_path, nameless)
    assert contents(got) == [dicom(1), dicom(2)]
    assert got.skipped == {"text": 1}


def test_a_tar_entry_of_unknown_type_is_a_file(tmp_path: Path) -> None:
    content = dicom(1) + bytes(-len(dicom(1)) % 512)
    for kind in {bytes([n]) for n in range(256)} - KNOWN_TYPES:
        member = tarfile.TarInfo("a/")
        member.type, member.size = kind, len(dicom(1))
        archive = member.tobuf(tarfile.USTAR_FORMAT) + content + tarred([("b", dicom(2))])
        assert contents(unpacked(tmp_path, archive)) == [dicom(1), dicom(2)], kind


# --- archives in unusual forms --------------------------------------------------------------------


def test_reads_data_descriptors_and_stored_entries(tmp_path: Path) -> None:
    class OneWay(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, block: object) -> int:
            assert isinstance(block, bytes | bytearray | memoryview)
            self.data += bytes(block)
            return len(bytes(block))

    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        pipe = OneWay()
        with zipfile.ZipFile(pipe, "w", method) as archive:
            for n in range(3):
                archive.writestr(f"{n}", dicom(n))
        assert b"PK\x07\x08" in pipe.data
        assert len(unpacked(tmp_path, pipe.data).instances) == 3


def test_reads_zip64(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("1", "w", force_zip64=True) as file:
        file.write(dicom())
    many = zipped([*((f"{n}", b"") for n in range(66_000)), ("1.dcm", dicom())])
    assert b"PK\x06\x06" in many[-200:]
    for archive64 in (buffer.getvalue(), many):
        assert contents(unpacked(tmp_path, archive64)) == [dicom()]


def test_reads_a_zip_behind_other_bytes(tmp_path: Path) -> None:
    archive = b"MZ" + bytes(1000) + zipped([("1", dicom())])
    assert len(unpacked(tmp_path, archive).instances) == 1


def test_what_lies_before_the_files_of_a_zip_is_a_file_too(tmp_path: Path) -> None:
    for before, skipped, passed_over in (
        (b"MZ" + bytes(1000), {"program": 1}, {}),
        (zipped([("a", b"text")]), {"zip archive": 1}, {}),
        (zipped([("a", dicom(2))])[:-60], {}, {"zip archive that is damaged or incomplete": 1}),
        (b"PK\x07\x08", {}, {}),
        (b"PK00", {}, {}),
    ):
        got = unpacked(tmp_path, before + zipped([("1", dicom())]))
        assert contents(got) == [dicom()]
        assert (got.skipped, got.passed_over) == (skipped, passed_over)
    nested = zipped([("a", dicom(2))])
    assert contents(unpacked(tmp_path, nested + zipped([("1", dicom())]))) == [dicom(2), dicom()]
    before = dicom(2)[132:]
    assert contents(unpacked(tmp_path, before + zipped([("1", dicom())]))) == [before, dicom()]


def test_tar_archives_one_behind_the_other_are_read_as_one(tmp_path: Path) -> None:
    for first in (tarred([("a", dicom(1))]), tarred([("a", dicom(1))]).rstrip(b"\0") + bytes(1024)):
        parts = first + bytes(-len(first) % 512), tarred([("b", dicom(2))])
        assert contents(unpacked(tmp_path, b"".join(parts))) == [dicom(1), dicom(2)]
        packed = b"".join(gzip.compress(part) for part in parts)
        assert contents(unpacked(tmp_path, packed)) == [dicom(1), dicom(2)]


def test_an_end_within_a_tar_archive_is_not_its_end(tmp_path: Path) -> None:
    a, b = (tarred([(name, dicom(n))]) for n, name in enumerate("ab", 1))
    content = [part.rstrip(b"\0") for part in (a, b)]
    first, second = (part + bytes(-len(part) % 512) for part in content)
    whole = first + bytes(512) + second + bytes(1024)
    for archive in (whole, whole[:-512], whole[:-1024]):
        assert contents(unpacked(tmp_path, archive)) == [dicom(1), dicom(2)]


@pytest.mark.parametrize("rest", [b"x", b"garbage " * 500, bytes(700) + b"rest", b"\x1f"])
def test_bytes_behind_a_tar_archive_are_no_part_of_it(tmp_path: Path, rest: bytes) -> None:
    for archive in (tarred([("a", dicom())]), targz([("a", dicom())])):
        assert contents(unpacked(tmp_path, archive + rest)) == [dicom()]


def test_a_file_that_another_volume_begins_is_not_taken_for_whole(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a")
    member.type, member.size = b"M", 512
    archive = member.tobuf(tarfile.GNU_FORMAT) + bytes(512) + tarred([("b", dicom())])
    got = unpacked(tmp_path, archive)
    assert contents(got) == [dicom()]
    assert got.passed_over == {"file that is a part of another one": 1}


def test_gzip_is_taken_off_whatever_it_is_around(tmp_path: Path) -> None:
    for content in (dicom(), dicom()[132:]):
        for archive in (content, zipped([("a", content)]), tarred([("a", content)])):
            assert contents(unpacked(tmp_path, gzip.compress(archive))) == [content]
            assert len(list((tmp_path / "staging").iterdir())) == 1


@pytest.mark.parametrize("what", [b"text", b"", b"MZ" + bytes(100)])
def test_gzip_around_no_instance_is_no_archive(tmp_path: Path, what: bytes) -> None:
    assert "There is no DICOM instance" in f"{refused(tmp_path, gzip.compress(what))}"


def test_a_gzipped_instance_may_have_bytes_behind_it(tmp_path: Path) -> None:
    assert contents(unpacked(tmp_path, gzip.compress(dicom()) + b"more")) == [dicom()]


def test_gzip_is_taken_off_twice(tmp_path: Path) -> None:
    twice = gzip.compress(gzip.compress(dicom()))
    assert contents(unpacked(tmp_path, twice)) == [dicom()]
    assert "within the archive" in f"{refused(tmp_path, gzip.compress(twice))}"


def test_what_ends_like_a_zip_on_several_disks_is_no_defect(tmp_path: Path) -> None:
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 1, 0, 2)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 46, 0, 0)
    assert isinstance(refused(tmp_path, bytes(500) + locator + end), ArchiveError)


def test_reads_every_kind_of_tar_header(tmp_path: Path) -> None:
    long = "x/" * 200 + "é.dcm"
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        name = "a.dcm" if kind == tarfile.USTAR_FORMAT else long
        assert len(unpacked(tmp_path, tarred([(name, dicom())], kind)).instances) == 1


def test_a_pax_size_overrules_the_header(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a")
    member.pax_headers = {"size": f"{len(dicom())}"}
    head = member.tobuf(tarfile.PAX_FORMAT)
    body = dicom() + bytes(-len(dicom()) % 512)
    got = unpacked(tmp_path, head + body + bytes(1024))
    assert contents(got) == [dicom()]


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", PACKERS)
def test_a_cut_anywhere_is_noticed(tmp_path: Path, pack: Callable[[Files], bytes]) -> None:
    archive = pack([(f"{n}", dicom(n, pixels=bytes(3000))) for n in range(3)])
    length = 512 + len(dicom(0, pixels=bytes(3000)))
    entry = length + -length % 512
    for cut in sorted(
        {*range(1, len(archive), 97), len(archive) - 1, *range(512, len(archive), 512)}
    ):
        if pack is tarred and (cut >= 3 * entry or cut % entry in {0, *range(length, entry)}):
            continue  # a tar archive needs no end
        assert not refused(tmp_path, archive[:cut], comes_again=True).permanent or cut < 400, cut


def test_a_tar_needs_no_end(tmp_path: Path) -> None:
    content = tarred([("a", dicom(1)), ("b", dicom(2))]).rstrip(b"\0")
    whole = content + bytes(-len(content) % 512)
    for archive in (whole, gzip.compress(whole)):
        assert contents(unpacked(tmp_path, archive)) == [dicom(1), dicom(2)]


def test_a_broken_header_is_not_the_end(tmp_path: Path) -> None:
    archive = bytearray(tarred([("a", dicom(1)), ("bbbb", dicom(2))]))
    archive[archive.index(b"bbbb")] ^= 1
    assert not refused(tmp_path, bytes(archive), comes_again=True).permanent


@pytest.mark.parametrize("pack", [zipped, targz])
def test_one_wrong_bit_of_content_spoils_the_archive(
    tmp_path: Path, pack: Callable[[Files], bytes]
) -> None:
    noise = random.Random(3).randbytes(20_000)
    archive = bytearray(pack([("a", dicom(1)), ("b", dicom(2, pixels=noise))]))
    archive[len(archive) // 2] ^= 1
    assert not refused(tmp_path, bytes(archive), comes_again=True).permanent


def test_a_wrong_checksum_spoils_the_archive(tmp_path: Path) -> None:
    content = dicom()
    right, wrong = struct.pack("<L", zlib.crc32(content)), struct.pack("<L", 1)
    archive = zipped([("a", content)])
    assert archive.count(right) == 2
    assert not refused(tmp_path, archive.replace(right, wrong)).permanent
    packed = targz([("a", content)])
    assert not refused(tmp_path, packed[:-8] + wrong + packed[-4:]).permanent


def test_forged_packed_sizes_spoil_the_archive(tmp_path: Path) -> None:
    content = dicom(pixels=random.Random(4).randbytes(5000))
    archive = zipped([("a", content)], zipfile.ZIP_STORED)
    size = struct.pack("<L", len(content))
    for forged in (len(content) - 10, len(content) + 10, 0, 0xFFFFFFFE):
        refused(tmp_path, archive.replace(size, struct.pack("<L", forged)))


def test_the_checksum_decides_and_not_the_size(tmp_path: Path) -> None:
    content = dicom()
    archive = zipped([("a", content)])
    for other in (10, -10):
        size, forged = (struct.pack("<L", len(content) + more) for more in (0, other))
        assert archive.count(size) == 2
        assert contents(unpacked(tmp_path, archive.replace(size, forged))) == [content]


@settings(deadline=None)
@given(st.data())
def test_no_damage_gets_past_or_says_more_than_it_may(data: st.DataObject) -> None:
    import tempfile

    pack = data.draw(st.sampled_from(PACKERS))
    archive = bytearray(pack([(f"{CANARY}{n}", dicom(n)) for n in range(3)]))
    for _ in range(data.draw(st.integers(1, 5))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        try:
            unpacked(place, bytes(archive))
        except BackendError as error:
            assert "CANARY" not in "".join(traceback.format_exception(error))  # noqa: PT017
            assert not (place / "staging").exists()


# --- bombs and limits -----------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [zipped, targz])
def test_a_bomb_stops_at_the_ratio_where_it_would_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[Files], bytes]
) -> None:
    bomb = pack([("a", dicom(pixels=bytes(50_000_000)))])
    assert len(unpacked(tmp_path, bomb).instances) == 1
    with_free_disk(monkeypatch, 150_000_000)
    error = refused(tmp_path, bomb)
    assert error.permanent
    assert "limits.ratio" in error.hint
    assert len(unpacked(tmp_path, bomb, ArchiveLimits(ratio=2000, reserve_bytes=0)).instances) == 1


def test_many_little_bombs_stop_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free_disk(monkeypatch, 60_000_000)
    bomb = zipped([(f"{n}", dicom(n, pixels=bytes(900_000))) for n in range(20)])
    assert "limits.ratio" in refused(tmp_path, bomb).hint


@pytest.mark.parametrize("pack", PACKERS)
def test_the_ratio_is_that_of_the_whole_archive(
    tmp_path: Path, pack: Callable[[Files], bytes]
) -> None:
    noise = random.Random(6)
    files = [(f"{n}", dicom(n, pixels=noise.randbytes(20_000))) for n in range(200)]
    limits = ArchiveLimits(ratio=2, reserve_bytes=0)
    assert len(unpacked(tmp_path, pack(files), limits).instances) == 200


def test_two_records_of_the_same_bytes_are_one_file(tmp_path: Path) -> None:
    archive = zipped([("a", dicom(1))])
    start = archive.index(b"PK\x01\x02")
    entry = archive[start : archive.index(b"PK\x05\x06")]
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, 2 * len(entry), start, 0)
    assert contents(unpacked(tmp_path, archive[:start] + entry * 2 + end)) == [dicom(1)]


@pytest.mark.parametrize(
    ("limits", "hint"),
    [
        (ArchiveLimits(entries=4, reserve_bytes=0), "limits.entries"),
        (ArchiveLimits(entry_bytes=2000, reserve_bytes=0), "limits.entry_bytes"),
        (ArchiveLimits(total_bytes=5000, reserve_bytes=0), "limits.archive_bytes"),
        (ArchiveLimits(reserve_bytes=2**60), "limits.reserve_gb"),
    ],
)
@pytest.mark.parametrize("pack", PACKERS)
def test_limits_hold(
    tmp_path: Path, pack: Callable[[Files], bytes], limits: ArchiveLimits, hint: str
) -> None:
    archive = pack([(f"{n}", dicom(n, pixels=bytes(2000))) for n in range(5)])
    assert hint in refused(tmp_path, archive, limits).hint


def test_a_directory_of_too_many_entries_is_not_even_loaded(tmp_path: Path) -> None:
    archive = zipped([(f"{n}", b"") for n in range(30_000)], zipfile.ZIP_STORED)
    assert "limits.entries" in refused(tmp_path, archive, ArchiveLimits(entries=20_000)).hint


@pytest.mark.parametrize("flag", [0x1, 0x40 | 0x1])
def test_encrypted_files_are_refused(tmp_path: Path, flag: int) -> None:
    archive = bytearray(zipped([(CANARY, dicom(1)), ("b", dicom(2))]))
    archive[6] |= flag
    archive[archive.index(b"PK\x01\x02") + 8] |= flag
    got = unpacked(tmp_path, bytes(archive))
    assert contents(got) == [dicom(2)]
    assert got.passed_over == {"file that is encrypted": 1}
    alone = bytearray(zipped([(CANARY, dicom(1))]))
    alone[6] |= flag
    alone[alone.index(b"PK\x01\x02") + 8] |= flag
    error = refused(tmp_path, bytes(alone))
    assert error.permanent
    assert "encrypted" in f"{error}"


def test_sparse_files_are_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": f"{2**50}"}
    pax = member.tobuf(tarfile.PAX_FORMAT) + bytes(1024)
    old = tarfile.TarInfo("a")
    old.type = tarfile.GNUTYPE_SPARSE
    for archive in (pax, old.tobuf(tarfile.GNU_FORMAT) + bytes(1024)):
        assert "sparse" in f"{refused(tmp_path, archive)}"


def test_a_header_may_not_fill_the_memory(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        member = tarfile.TarInfo("a")
        member.type, member.size = kind, 2**33
        packed = gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
        assert "header" in f"{refused(tmp_path, packed)}"


def test_memory_stays_flat(tmp_path: Path) -> None:
    big = dicom(pixels=random.Random(5).randbytes(40_000_000))
    for pack in PACKERS:
        archive = tmp_path / "archive"
        archive.write_bytes(pack([("a", big)]))
        tracemalloc.start()
        unpack(archive, tmp_path / "staging", LIMITS, lambda: None, read_instance)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8_000_000


# --- cancellation, the disk -----------------------------------------------------------------------


@pytest.mark.parametrize("pack", PACKERS)
def test_cancelled_at_any_checkpoint_leaves_nothing(
    tmp_path: Path, pack: Callable[[Files], bytes]
) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(pack([(f"{n}", dicom(n, pixels=bytes(100))) for n in range(4)]))
    assert cancelled_at_every_checkpoint(archive, tmp_path / "staging") > 8


def test_a_file_of_empty_blocks_is_no_long_step(tmp_path: Path) -> None:
    deflated = b"\0\0\0\xff\xff" * 4_000_000 + zlib.compress(b"text")[2:-4]
    sizes = zlib.crc32(b"text"), len(deflated), 4, 1, 0
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 8, 0, 0, *sizes) + b"a"
    central = struct.pack("<4s6H3L2H", b"PK\x01\x02", 20, 20, 0, 8, 0, 0, *sizes)
    central += bytes(14) + b"a"
    start = len(local) + len(deflated)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(central), start, 0)
    archive = tmp_path / "archive"
    archive.write_bytes(local + deflated + central + end)
    passed: list[None] = []
    with pytest.raises(ArchiveError, match="1 text"):
        unpack(archive, tmp_path / "staging", LIMITS, lambda: passed.append(None), read_instance)
    assert len(passed) > start / 2**20


async def test_a_trio_cancellation_stops_the_thread(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(tarred([(f"{n}", dicom(n)) for n in range(20)]))
    offload = Threads(1)
    passed = 0
    stopped = False

    def checkpoint() -> None:
        nonlocal passed, stopped
        passed += 1
        if passed == 10:
            trio.from_thread.run_sync(scope.cancel)
        try:
            offload.check_cancelled()
        except trio.Cancelled:
            stopped = True
            raise

    with trio.CancelScope() as scope:
        await offload(unpack, archive, tmp_path / "staging", LIMITS, checkpoint, read_instance)
    assert stopped
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]  # noqa: ASYNC240


def test_a_disk_that_fails_is_told_without_paths(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="ENOENT") as caught:
        unpack(tmp_path / CANARY, tmp_path / "staging", LIMITS, lambda: None, read_instance)
    assert not caught.value.permanent
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert not (tmp_path / "staging").exists()


def test_a_file_that_the_disk_took_in_part_is_no_instance(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(zipped([("a", dicom(pixels=random.Random(1).randbytes(600_000)))]))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(BackendError, match="EFBIG"):
            unpack(archive, tmp_path / "staging", LIMITS, lambda: None, read_instance)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "staging").exists()


def test_what_a_killed_run_left_goes_first(tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "00000001").write_bytes(b"half")
    assert contents(unpacked(tmp_path, zipped([("a", dicom())]))) == [dicom()]
