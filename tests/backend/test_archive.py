from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import random
import stat
import struct
import tarfile
import traceback
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from proxy.backend.archive import ArchiveLimits, Unpacked, unpack
from proxy.errors import ArchiveError, BackendError
from proxy.offload import Threads
from proxy.pacs.header import read_instance

CANARY = "ZZCANARY^PHI"
LIMITS = ArchiveLimits(reserve_bytes=0)
SC = "1.2.840.10008.5.1.4.1.1.7"
Files = list[tuple[str, bytes]]


@cache
def dicom(number: int = 1, series: int = 1, pixels: bytes = b"\0\0", **changes: str) -> bytes:
    data = Dataset()
    data.SOPClassUID = SC
    data.SOPInstanceUID = f"1.2.3.{series}.{number}"
    data.StudyInstanceUID = "1.2.3"
    data.SeriesInstanceUID = f"1.2.3.{series}"
    data.PatientName = CANARY
    data.PatientID = CANARY
    data.InstanceNumber = number
    for name, value in changes.items():
        setattr(data, name, value)
    data.PixelData = pixels
    data["PixelData"].VR = "OB"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: Files, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def targz(files: Files) -> bytes:
    return gzip.compress(tarred(files))


PACKERS: list[Callable[[Files], bytes]] = [zipped, targz, tarred]


def unpacked(tmp_path: Path, archive: bytes, limits: ArchiveLimits = LIMITS) -> Unpacked:
    path = tmp_path / "archive"
    path.write_bytes(archive)
    return unpack(path, tmp_path / "staging", limits, lambda: None, read_instance)


def refused(tmp_path: Path, archive: bytes, limits: ArchiveLimits = LIMITS) -> BackendError:
    with pytest.raises(BackendError) as caught:
        unpacked(tmp_path, archive, limits)
    told = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert "CANARY" not in told
    assert not (tmp_path / "staging").exists()
    return caught.value


def contents(got: Unpacked) -> list[bytes]:
    for staged in got.instances:
        content = staged.path.read_bytes()
        assert staged.instance.sha256 == hashlib.sha256(content).hexdigest()
        assert staged.instance.size == len(content)
    return [staged.path.read_bytes() for staged in got.instances]


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
    assert contents(got) == [dicom(1), dicom(2)[132:]]
    once = ("AppleDouble", "DICOMDIR", "JSON", "PDF", "empty", "image or video", "not DICOM")
    assert got.skipped == dict.fromkeys((*once, "program", "zip archive"), 1) | {
        "text": 2,
        "XML or HTML": 2,
    }
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
    assert "1 damaged DICOM" in f"{refused(tmp_path, zipped([('2', nameless)]))}"


def test_keeps_one_of_twins_and_the_first_of_rivals(tmp_path: Path) -> None:
    files = [dicom(1), dicom(1), dicom(1, pixels=b"other!"), dicom(1, series=2)]
    got = unpacked(tmp_path, zipped([(f"{n}", f) for n, f in enumerate(files)]))
    assert contents(got) == [dicom(1), dicom(1, series=2)]
    assert got.skipped == {"duplicate": 1}
    assert got.conflicting == 1
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
    end = len(archive.rstrip(b"\0")) if pack is tarred else len(archive)
    for cut in sorted({*range(1, end, 97), end - 1, *range(0, end, 512)} - {0}):
        assert not refused(tmp_path, archive[:cut]).permanent or cut < 400, cut


def test_a_tar_without_its_end_is_incomplete(tmp_path: Path) -> None:
    content = tarred([("a", dicom(1)), ("b", dicom(2))]).rstrip(b"\0")
    assert not refused(tmp_path, content + bytes(-len(content) % 512)).permanent


def test_a_broken_header_is_not_the_end(tmp_path: Path) -> None:
    archive = bytearray(tarred([("a", dicom(1)), ("bbbb", dicom(2))]))
    archive[archive.index(b"bbbb")] ^= 1
    assert not refused(tmp_path, bytes(archive)).permanent


@pytest.mark.parametrize("pack", [zipped, targz])
def test_one_wrong_bit_of_content_spoils_the_archive(
    tmp_path: Path, pack: Callable[[Files], bytes]
) -> None:
    noise = random.Random(3).randbytes(20_000)
    archive = bytearray(pack([("a", dicom(1)), ("b", dicom(2, pixels=noise))]))
    archive[len(archive) // 2] ^= 1
    assert not refused(tmp_path, bytes(archive)).permanent


def test_a_wrong_checksum_spoils_the_archive(tmp_path: Path) -> None:
    content = dicom()
    right, wrong = struct.pack("<L", zlib.crc32(content)), struct.pack("<L", 1)
    archive = zipped([("a", content)])
    assert archive.count(right) == 2
    assert not refused(tmp_path, archive.replace(right, wrong)).permanent
    packed = targz([("a", content)])
    assert not refused(tmp_path, packed[:-8] + wrong + packed[-4:]).permanent


def test_forged_sizes_spoil_the_archive(tmp_path: Path) -> None:
    content = dicom(pixels=random.Random(4).randbytes(5000))
    archive = zipped([("a", content)], zipfile.ZIP_STORED)
    size = struct.pack("<L", len(content))
    for forged in (len(content) - 10, len(content) + 10, 0, 0xFFFFFFFE):
        refused(tmp_path, archive.replace(size, struct.pack("<L", forged)))


def test_a_size_larger_than_the_content_spoils_the_archive(tmp_path: Path) -> None:
    content = dicom()
    archive = zipped([("a", content)])
    size, forged = (struct.pack("<L", len(content) + more) for more in (0, 10))
    assert archive.count(size) == 2
    assert not refused(tmp_path, archive.replace(size, forged)).permanent


def test_gzip_of_something_else_is_no_archive(tmp_path: Path) -> None:
    refused(tmp_path, gzip.compress(dicom()))


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
def test_a_bomb_stops_at_the_ratio(tmp_path: Path, pack: Callable[[Files], bytes]) -> None:
    bomb = pack([("a", dicom(pixels=bytes(50_000_000)))])
    error = refused(tmp_path, bomb)
    assert error.permanent
    assert "limits.ratio" in error.hint
    assert len(unpacked(tmp_path, bomb, ArchiveLimits(ratio=2000, reserve_bytes=0)).instances) == 1


def test_many_little_bombs_stop_as_well(tmp_path: Path) -> None:
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


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    archive = zipped([("a", dicom(1))])
    start = archive.index(b"PK\x01\x02")
    entry = archive[start : archive.index(b"PK\x05\x06")]
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, 2 * len(entry), start, 0)
    error = refused(tmp_path, archive[:start] + entry * 2 + end)
    assert "overlap" in f"{error}"


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
    error = refused(tmp_path, bytes(archive))
    assert error.permanent
    assert "encrypted" in f"{error}"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_may_fill_the_memory_are_refused(tmp_path: Path, method: int) -> None:
    assert "method" in f"{refused(tmp_path, zipped([('a', dicom())], method))}"


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
    passed = 0

    class Stop(BaseException):
        pass

    def checkpoint() -> None:
        nonlocal passed
        passed += 1
        if passed == last:
            raise Stop

    last = 0
    for _ in range(1000):
        last, passed = last + 1, 0
        try:
            unpack(archive, tmp_path / "staging", LIMITS, checkpoint, read_instance)
        except Stop:
            assert not (tmp_path / "staging").exists()
        else:
            break
    assert last > 8


async def test_a_trio_cancellation_stops_the_thread(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(tarred([(f"{n}", dicom(n)) for n in range(20)]))
    passed = 0
    stopped = False

    def checkpoint() -> None:
        nonlocal passed, stopped
        passed += 1
        if passed == 10:
            trio.from_thread.run_sync(scope.cancel)
        try:
            trio.from_thread.check_cancelled()
        except trio.Cancelled:
            stopped = True
            raise

    with trio.CancelScope() as scope:
        await Threads(1)(unpack, archive, tmp_path / "staging", LIMITS, checkpoint, read_instance)
    assert stopped
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]  # noqa: ASYNC240


def test_a_disk_that_fails_is_told_without_paths(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="ENOENT") as caught:
        unpack(tmp_path / CANARY, tmp_path / "staging", LIMITS, lambda: None, read_instance)
    assert not caught.value.permanent
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert not (tmp_path / "staging").exists()


def test_what_a_killed_run_left_goes_first(tmp_path: Path) -> None:
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "00000001").write_bytes(b"half")
    assert contents(unpacked(tmp_path, zipped([("a", dicom())]))) == [dicom()]
