"""Archives within the archive, and what else an image may be in: nothing is left out unsaid."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import shutil
import struct
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from proxy.backend.archive import ArchiveLimits, Unpacked, unpack
from proxy.backend.content import SEALED
from proxy.pacs.header import read_instance
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

Pack = Callable[[Files], bytes]


def tarred_v7(files: Files) -> bytes:
    """A tar archive of 1979: no magic, and the header's checksum is all there is to know it by."""
    archive = b""
    for name, content in files:
        header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
        header[124:136] = b"%011o\0" % len(content)
        header[156:157] = b"\0"
        header[257:265] = bytes(8)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        archive += bytes(header) + content + bytes(-len(content) % 512)
    return archive + bytes(1024)


def stored(files: Files) -> bytes:
    return zipped(files, zipfile.ZIP_STORED)


def program(behind: bytes = b"", sections: int = 3) -> bytes:
    """A Windows program as its loader sees it, with other bytes ``behind`` it."""
    begin, size = 1024, 2048
    table = b"".join(
        struct.pack("<8s6L2HL", b".text", 0, 0, size, begin + n * size, 0, 0, 0, 0, 0)
        for n in range(sections)
    )
    head = b"MZ" + bytes(58) + struct.pack("<L", 128) + bytes(64)
    head += b"PE\0\0" + struct.pack("<2H3L2H", 0x14C, sections, 0, 0, 0, 224, 0) + bytes(224)
    return (head + table).ljust(begin, b"\0") + b"\x90" * size * sections + behind


SCRIPT = b"#!/bin/sh\nexec unzip $0\n"
STARTS = {
    "program": program(),
    "old program": b"MZ" + bytes(3000),
    "script": SCRIPT,
    "picture": b"\xff\xd8\xff\xe0" + bytes(200),
    "document": b"%PDF-1.7\n%%EOF\n",
    "page": b"<html></html>",
    "noise": random.Random(7).randbytes(3000),
    "big program": program(random.Random(8).randbytes(1_500_000)),
}
INNER: dict[str, Pack] = {
    "zip": zipped,
    "stored zip": stored,
    "zip with a comment": lambda files: commented(zipped(files), b"a comment" * 1000),
    "split zip in one part": lambda files: b"PK\x07\x08" + zipped(files),
    "pax": tarred,
    "ustar": lambda files: tarred(files, tarfile.USTAR_FORMAT),
    "gnu": lambda files: tarred(files, tarfile.GNU_FORMAT),
    "v7": tarred_v7,
    "tar.gz": targz,
    "v7 tar.gz": lambda files: gzip.compress(tarred_v7(files)),
    "zip.gz": lambda files: gzip.compress(zipped(files)),
    "gz": lambda files: gzip.compress(files[-1][1]),
    "tar.bz2": lambda files: bz2.compress(tarred(files)),
    "tar.xz": lambda files: lzma.compress(tarred(files)),
    **{
        f"zip behind a {name}": (lambda files, start=start: start + zipped(files))  # type: ignore[misc]
        for name, start in STARTS.items()
    },
}


def commented(archive: bytes, comment: bytes) -> bytes:
    assert archive.endswith(b"\0\0")
    return archive[:-2] + struct.pack("<H", len(comment)) + comment


def beside(pack: Pack, inner: bytes, tmp_path: Path, limits: ArchiveLimits = LIMITS) -> Unpacked:
    """Unpack ``inner`` between two loose instances, which must come out in any case."""
    files = [("1.dcm", dicom(1)), (f"{CANARY}.dat", inner), ("2.dcm", dicom(2))]
    got = unpacked(tmp_path, pack(files), limits)
    assert contents(got) == [dicom(1), dicom(2)]
    assert sorted((tmp_path / "staging").iterdir()) == [each.path for each in got.instances]
    assert got.damaged == got.conflicting == 0
    return got


def unpacked_beside(
    pack: Pack, inner: bytes, tmp_path: Path, limits: ArchiveLimits = LIMITS
) -> Unpacked:
    """As ``beside``, where instances may come out of ``inner`` too."""
    files = [("1.dcm", dicom(1)), (f"{CANARY}.dat", inner), ("2.dcm", dicom(2))]
    got = unpacked(tmp_path, pack(files), limits)
    assert {dicom(1), dicom(2)} <= {*contents(got)}
    assert sorted((tmp_path / "staging").iterdir()) == [each.path for each in got.instances]
    return got


def why(got: Unpacked) -> str:
    """Return the reason why the one file beside the instances was passed over."""
    assert got.skipped == {}
    ((reason, count),) = got.passed_over.items()
    assert count == 1
    assert CANARY not in reason
    return reason


# --- archives that can be read --------------------------------------------------------------------

NAMELESS = dicom(3).replace(b"1.2.3.1.3", bytes(9))


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_an_archive_within_the_archive_is_unpacked(tmp_path: Path, pack: Pack, inner: Pack) -> None:
    archive = inner([("readme.txt", b"hello"), ("a/b/without_extension", dicom(3))])
    got = unpacked_beside(pack, archive, tmp_path)
    assert contents(got) == [dicom(1), dicom(3), dicom(2)]
    assert (got.passed_over, got.damaged, got.conflicting) == ({}, 0, 0)


@pytest.mark.parametrize("inner", [zipped, targz, tarred_v7, INNER["gz"], INNER["zip.gz"]])
def test_dicom_in_an_archive_is_told_as_a_loose_file_is(tmp_path: Path, inner: Pack) -> None:
    bare = dicom(3)[132:]
    got = unpacked_beside(zipped, inner([("a.txt", bare)]), tmp_path)
    assert contents(got) == [dicom(1), bare, dicom(2)]
    got = unpacked_beside(zipped, inner([("a.txt", NAMELESS)]), tmp_path)
    assert (contents(got), got.damaged) == ([dicom(1), dicom(2)], 1)
    assert (got.skipped, got.passed_over) == ({}, {})


def test_instances_of_all_levels_are_compared(tmp_path: Path) -> None:
    rival = dicom(1, pixels=b"other!")
    got = unpacked_beside(zipped, zipped([("a", dicom(2)), ("b", rival)]), tmp_path)
    assert contents(got) == [dicom(1), dicom(2)]
    assert (got.skipped, got.conflicting) == ({"duplicate": 1}, 1)


HARMLESS = {
    "documents": [("word/document.xml", b"<w/>"), ("[Content_Types].xml", b"<Types/>")],
    "classes": [
        ("META-INF/MANIFEST.MF", b"Main: A\n"),
        ("A.class", b"\xca\xfe\xba\xbe" + bytes(99)),
    ],
    "a log": [
        (
            "log",
            b"".join(b"%016x started\n" % (n * 0x9E3779B97F4A7C15 % 2**64) for n in range(90_000)),
        )
    ],
    "a directory of media": [("DICOMDIR", Path(str(get_testdata_file("DICOMDIR"))).read_bytes())],
    "pictures": [("a.png", b"\x89PNG\r\n\x1a\n" + bytes(100)), ("b", b"\xff\xd8\xff\xe0")],
    "a viewer": [("viewer.exe", program()), ("viewer.ini", b"[a]\n")],
    "a volume": [("a.nii", random.Random(9).randbytes(3_000_000))],
    "empty files": [("a", b""), ("b", b"")],
}


@pytest.mark.parametrize("files", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_an_archive_that_was_read_whole_and_holds_no_dicom_is_no_loss(
    tmp_path: Path, inner: Pack, files: Files
) -> None:
    got = beside(zipped, inner(files), tmp_path)
    assert got.passed_over == {}
    assert sum(got.skipped.values()) == 1


def test_an_archive_of_very_many_files_is_read_whole(tmp_path: Path) -> None:
    many: Files = [(f"n{n}", b"") for n in range(66_000)]
    inner = stored([*many, ("last", dicom(3))])
    assert b"PK\x06\x06" in inner[-200:]
    for archive in (inner, STARTS["noise"] + inner):
        got = unpacked_beside(zipped, archive, tmp_path)
        assert contents(got) == [dicom(1), dicom(3), dicom(2)]
        assert got.passed_over == {}


def test_archives_without_dicom_are_counted_by_kind(tmp_path: Path) -> None:
    inner = [zipped([]), zipped([("a", b"a")]), tarred([("a", b"a")]), gzip.compress(b"log")]
    files = [(f"{n}", content) for n, content in enumerate(inner)]
    got = unpacked(tmp_path, zipped([*files, ("1.dcm", dicom())]))
    assert got.skipped == {"zip archive": 2, "tar archive": 1, "gzip": 1}
    assert got.passed_over == {}


# --- archives that cannot be read -----------------------------------------------------------------


def with_flag(archive: bytes, flag: int) -> bytes:
    marked = bytearray(archive)
    marked[6] |= flag
    marked[archive.index(b"PK\x01\x02") + 8] |= flag
    return bytes(marked)


def without_directory(archive: bytes) -> bytes:
    """A zip whose end says that there is nothing before it."""
    end = archive.rindex(END)
    return archive[: end + 8] + bytes(12) + archive[end + 20 :]


def sparse() -> bytes:
    member = tarfile.TarInfo("a")
    member.type = tarfile.GNUTYPE_SPARSE
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def continued() -> bytes:
    member = tarfile.TarInfo("a")
    member.type, member.size = b"M", 512
    return member.tobuf(tarfile.GNU_FORMAT) + dicom()[-512:].ljust(512, b"\0") + bytes(1024)


END = b"PK\x05\x06"
TEXT = [("readme.txt", b"hello" * 1000), ("more.txt", b"more" * 1000)]
UNREADABLE = {
    "cut zip": (zipped(TEXT)[:-30], "is damaged or incomplete"),
    "cut tar": (tarred(TEXT)[:3000], "is damaged or incomplete"),
    "tar cut in a header": (
        tarred(TEXT)[:5632] + tarred(TEXT)[5632:].rstrip(b"\0").ljust(5000, b"\0") + b"0" * 100,
        "is damaged or incomplete",
    ),
    "cut tar.gz": (targz(TEXT)[:-5], "is damaged or incomplete"),
    "cut gz": (gzip.compress(random.Random(1).randbytes(9000))[:-100], "is damaged or incomplete"),
    "cut zip behind a program": (program(zipped(TEXT)[:-30]), "is damaged or incomplete"),
    "zip without its directory": (
        without_directory(zipped(TEXT)),
        "is in an archive within the archive",
    ),
    "wrong checksum": (stored(TEXT).replace(b"hello", b"hallo", 1), "is damaged or incomplete"),
    "encrypted": (with_flag(zipped(TEXT), 0x1), "is encrypted"),
    "strongly encrypted": (with_flag(zipped(TEXT), 0x41), "is encrypted"),
    "sparse": (sparse(), "is sparse"),
    "another volume": (continued(), "is a part of another one"),
}


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize(("inner", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_archive_that_was_not_read_whole_is_passed_over(
    tmp_path: Path, pack: Pack, inner: bytes, reason: str
) -> None:
    got = beside(pack, inner, tmp_path)
    assert sum(got.passed_over.values()) == 1
    assert next(iter(got.passed_over)).split(" that ")[1] == reason


NESTED = {
    "zip": zipped(TEXT),
    "tar": tarred(TEXT),
    "v7 tar": tarred_v7(TEXT),
    "gz": gzip.compress(b"log"),
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(100),
    "zip behind a program": program(zipped(TEXT)),
    "zip behind noise": STARTS["noise"] + zipped(TEXT),
    "rar behind a program": program(b"Rar!\x1a\x07\x01\0" + bytes(100)),
}


@pytest.mark.parametrize("nested", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize("inner", [zipped, targz, tarred, INNER["zip.gz"]])
def test_what_is_too_deep_is_passed_over(tmp_path: Path, inner: Pack, nested: bytes) -> None:
    got = beside(zipped, inner([("a.txt", b"a"), ("b", nested)]), tmp_path)
    assert got.skipped == {"text": 1}
    ((reason, count),) = got.passed_over.items()
    assert count == 1
    assert reason.split(" that ")[1] in {
        "is in an archive within the archive",
        "cannot be unpacked",
    }


@settings(deadline=None)
@given(st.data())
def test_no_damage_to_an_archive_in_the_archive_costs_the_rest(data: st.DataObject) -> None:
    inner = data.draw(st.sampled_from(list(INNER.values())))
    archive = bytearray(inner([(f"{n}", dicom(n + 3)) for n in range(2)]))
    for _ in range(data.draw(st.integers(1, 5))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as directory:
        unpacked_beside(data.draw(st.sampled_from(PACKERS)), bytes(archive), Path(directory))


@pytest.mark.parametrize("inner", [zipped, stored])
def test_no_wrong_byte_hides_what_a_zip_holds(tmp_path: Path, inner: Pack) -> None:
    """The instance comes out as it was, or a loss is counted."""
    whole = inner([("a", dicom(3))])
    for at in range(0, len(whole), 7):
        archive = bytearray(whole)
        archive[at] ^= 0xFF
        got = unpacked_beside(zipped, bytes(archive), tmp_path)
        assert (dicom(3) in contents(got)) != bool(got.passed_over), at


# --- kinds of archives that this program does not unpack ------------------------------------------


def with_end(start: bytes, size: int, magic: bytes, distance: int) -> bytes:
    content = bytearray(start + random.Random(2).randbytes(size))
    content[-distance : len(content) - distance + len(magic)] = magic
    return bytes(content)


def disc(magic: bytes) -> bytes:
    return bytes(0x8001) + magic + bytes(5000)


NOISE = random.Random(3).randbytes(4000)
SEALED_FILES = {
    "lzma": (lzma.compress(tarred(TEXT), lzma.FORMAT_ALONE), "lzma file"),
    "lzma of known size": (
        b"]\0\0\x80\0" + struct.pack("<Q", 70_000) + b"\0" + NOISE,
        "lzma file",
    ),
    "lzip": (b"LZIP\x01\x0c" + NOISE, "lzip file"),
    "lzop": (b"\x89LZO\0\r\n\x1a\n" + NOISE, "lzop file"),
    "zstd": (b"\x28\xb5\x2f\xfd\x24" + NOISE, "zstd file"),
    "zstd behind a skippable frame": (b"\x50\x2a\x4d\x18\4\0\0\0abcd" + NOISE, "zstd file"),
    "lz4": (b"\x04\x22\x4d\x18\x64" + NOISE, "lz4 file"),
    "old lz4": (b"\x02\x21\x4c\x18" + NOISE, "lz4 file"),
    "snappy": (b"\xff\x06\0\0sNaPpY" + NOISE, "snappy file"),
    "compress": (b"\x1f\x9d\x90" + NOISE, "compress (.Z) file"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + NOISE, "7z archive"),
    "rar 4": (b"Rar!\x1a\x07\0" + NOISE, "rar archive"),
    "rar 5": (b"Rar!\x1a\x07\x01\0" + NOISE, "rar archive"),
    "cab": (b"MSCF\0\0\0\0" + NOISE, "cab archive"),
    "arj": (b"\x60\xea\x29\0\x1e\x06\1\0\x10\0\2" + NOISE, "ARJ archive"),
    "lha": (b"\x22\x65-lh5-" + NOISE, "LHA archive"),
    "ace": (b"\1\2\3\4\5\6\7**ACE**" + NOISE, "ACE archive"),
    "alz": (b"ALZ\x01" + NOISE, "ALZ or EGG archive"),
    "egg": (b"EGGA\0\1" + NOISE, "ALZ or EGG archive"),
    "StuffIt": (b"SIT!\0\1" + NOISE, "StuffIt archive"),
    "StuffIt 5": (b"StuffIt (c)1997-" + NOISE, "StuffIt archive"),
    "cpio": (b"070701" + b"0" * 104 + b"a\0", "cpio archive"),
    "old cpio": (b"070707" + b"0" * 70 + b"a\0", "cpio archive"),
    "ar": (b"!<arch>\ndebian-binary   1342943816  ", "ar archive"),
    "xar": (b"xar!\0\x1c\0\1" + NOISE, "xar archive"),
    "iso": (disc(b"CD001\1"), "ISO 9660 image"),
    "udf": (disc(b"BEA01\1"), "UDF image"),
    "raw sectors": (b"\0" + b"\xff" * 10 + b"\0\0\2\0\1" + NOISE, "raw CD image"),
    "nrg": (with_end(b"", 9000, b"NER5", 12), "Nero disc image"),
    "old nrg": (with_end(b"", 9000, b"NERO", 8), "Nero disc image"),
    "dmg": (with_end(b"\x78\xda", 9000, b"koly\0\0\0\4", 512), "Apple disk image"),
    "vhd": (with_end(b"\0\1", 9000, b"conectix", 512), "virtual disk"),
    "growing vhd": (b"conectix" + NOISE, "virtual disk"),
    "vhdx": (b"vhdxfile" + NOISE, "virtual disk"),
    "vmdk": (b"KDMV\1\0\0\0" + NOISE, "virtual disk"),
    "qcow": (b"QFI\xfb\0\0\0\2" + NOISE, "virtual disk"),
    "wim": (b"MSWIM\0\0\0" + NOISE, "WIM image"),
    "squashfs": (b"hsqs" + NOISE, "squashfs image"),
    "pgp": (b"-----BEGIN PGP MESSAGE-----\n\nhQEMA", "encrypted file"),
    "openssl": (b"Salted__" + NOISE, "encrypted file"),
    "age": (b"age-encryption.org/v1\n-> X25519", "encrypted file"),
    "7z behind a program": (program(b"7z\xbc\xaf\x27\x1c\0\4" + NOISE), "7z archive"),
    "7z behind a program and its orders": (
        program(b";!@Install@!UTF-8!\nRunProgram=a.exe\n" + NOISE),
        "7z archive",
    ),
    "rar behind a program": (program(b"Rar!\x1a\x07\x01\0" + NOISE), "rar archive"),
    "tar.gz behind a program": (program(targz(TEXT)), "gzip"),
}


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize(("inner", "kind"), SEALED_FILES.values(), ids=SEALED_FILES)
def test_a_kind_that_cannot_be_unpacked_is_passed_over_by_its_name(
    tmp_path: Path, pack: Pack, inner: bytes, kind: str
) -> None:
    assert why(beside(pack, inner, tmp_path)) == f"{kind} that cannot be unpacked"


def test_every_such_kind_is_tried() -> None:
    assert {kind.value for kind in SEALED} <= {kind for _, kind in SEALED_FILES.values()}


@pytest.mark.parametrize("tool", ["zstd", "lz4"])
def test_what_the_tools_write_is_recognised(tmp_path: Path, tool: str) -> None:
    command = shutil.which(tool)
    if command is None:
        pytest.skip(f"{tool} is not installed")
    packed = subprocess.run([command, "-c"], input=tarred(TEXT), capture_output=True, check=True)
    reason = why(beside(zipped, packed.stdout, tmp_path))
    assert reason == f"{tool} file that cannot be unpacked"


def test_a_downloaded_archive_of_such_a_kind_is_named(tmp_path: Path) -> None:
    for content, kind in SEALED_FILES.values():
        error = refused(tmp_path, content)
        assert f"(1 file: 1 {kind} that cannot be unpacked)" in f"{error}"
        assert error.permanent


# --- what is no archive ---------------------------------------------------------------------------

CABINET = b"MSCF\0\0\0\0" + NOISE
PLAIN = {
    "program": (program(), "program"),
    "signed program": (program(struct.pack("<L2H", 4008, 0x200, 2) + NOISE), "program"),
    "installer": (program(CABINET), "program"),
    "program that knows zip": (program(b"PK\x01\x02PK\x03\x04" + END + NOISE), "program"),
    "big program": (program(random.Random(4).randbytes(3_000_000)), "program"),
    "cut program": (program()[:300], "program"),
    "program without sections": (program(sections=0), "program"),
    "old program": (b"MZ" + NOISE, "program"),
    "odd program": (b"MZ" + b"\xff" * 200, "program"),
    "Linux program": (b"\x7fELF\2\1\1" + NOISE, "program"),
    "end of a zip alone": (NOISE + END + bytes(18), "not DICOM"),
    "half of it": (NOISE + END, "not DICOM"),
    "picture": (b"\xff\xd8\xff\xe0" + NOISE, "image or video"),
    "film": (b"RIFF" + random.Random(5).randbytes(2_000_000), "image or video"),
    "text": (b"BZh, compress, 070701 and MSCF are words\n" * 50_000, "text"),
    "signature": (b"-----BEGIN PGP SIGNATURE-----\n", "text"),
    "zeros": (bytes(2000), "not DICOM"),
    "numbers where a tar has its checksum": (bytes(148) + b"0001234\0" + bytes(500), "not DICOM"),
}


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize(("content", "kind"), PLAIN.values(), ids=PLAIN)
def test_what_is_no_archive_is_no_loss(
    tmp_path: Path, pack: Pack, content: bytes, kind: str
) -> None:
    got = beside(pack, content, tmp_path)
    assert (got.skipped, got.passed_over) == ({kind: 1}, {})


# --- limits ---------------------------------------------------------------------------------------

TELLTALE = b"a line of a log\n"
BIG = TELLTALE * 3_000_000
BOMBS = {
    "zip": zipped([("a", BIG)]),
    "many files": zipped([(f"{n}", bytes(900_000)) for n in range(60)]),
    "tar.gz": targz([("a", BIG)]),
    "gz": gzip.compress(BIG),
    "zip.gz": gzip.compress(stored([("a", BIG)])),
    "tar": tarred([("a", BIG)]),
    "zip behind a program": program(zipped([("a", BIG)])),
    "image": zipped([("a", dicom(3, pixels=bytes(50_000_000)))]),
}


@pytest.mark.parametrize("pack", [zipped, targz])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_in_the_archive_is_passed_over_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Pack, bomb: bytes
) -> None:
    with_free_disk(monkeypatch, 150_000_000)
    limits = ArchiveLimits(ratio=100, reserve_bytes=0)
    files = [("b", bomb), ("1.dcm", dicom(1)), ("c", zipped(TEXT)), ("d", TEXT[0][1])]
    got = unpacked(tmp_path, pack(files), limits)
    assert contents(got) == [dicom(1)]
    ((reason, count),) = got.passed_over.items()
    assert reason.endswith(" that unpacks to more than 100 times its size")
    assert count == 1


@pytest.mark.parametrize("pack", PACKERS)
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (ArchiveLimits(entries=5, reserve_bytes=0), "has more than 5 entries"),
        (ArchiveLimits(entry_bytes=9_000, reserve_bytes=0), "has more than 9000 bytes"),
        (ArchiveLimits(total_bytes=30_000, reserve_bytes=0), "unpacks to more than 30000 bytes"),
    ],
)
@pytest.mark.parametrize("inner", [zipped, targz, INNER["zip.gz"]])
def test_limits_hold_in_an_archive_of_the_archive(
    tmp_path: Path, pack: Pack, limits: ArchiveLimits, reason: str, inner: Pack
) -> None:
    files = [(f"{n}", b"\0" + TELLTALE * 100 * n) for n in range(7)]
    got = beside(pack, inner(files), tmp_path, limits)
    assert sum(got.passed_over.values()) == 1
    assert next(iter(got.passed_over)).split(" that ")[1] == reason


def test_limits_hold_for_all_archives_of_the_archive_together(tmp_path: Path) -> None:
    inner = zipped([(f"{n}", b"a" * 1000) for n in range(4)])
    files = [("1.dcm", dicom()), *((f"{n}", inner) for n in range(5))]
    for limits, reason in [
        (ArchiveLimits(entries=10, reserve_bytes=0), "has more than 10 entries"),
        (
            ArchiveLimits(total_bytes=11_000 + 2 * len(inner), reserve_bytes=0),
            f"unpacks to more than {11_000 + 2 * len(inner)} bytes",
        ),
    ]:
        got = unpacked(tmp_path, zipped(files), limits)
        assert len(got.instances) == 1
        assert got.skipped["zip archive"] == 2
        assert got.passed_over == {f"zip archive that {reason}": 3}


def test_what_is_unpacked_must_fit_on_the_disk_as_if_it_were_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of each archive within the archive, and its content."""
    with_free_disk(monkeypatch, 100_000_000)
    inner = stored([("a", random.Random(6).randbytes(9_000_000))])
    archive = stored([*((f"{n}", inner) for n in range(8)), ("1.dcm", dicom())])
    got = unpacked(tmp_path, archive, ArchiveLimits(reserve_bytes=50_000_000))
    assert len(got.instances) == 1
    assert got.skipped == {"zip archive": 5}
    assert got.passed_over == {"zip archive that needs more space than the disk has": 3}


def test_a_file_that_is_not_taken_costs_the_instances_nothing(tmp_path: Path) -> None:
    zeros = b"7z\xbc\xaf\x27\x1c" + bytes(50_000_000)
    for pack in PACKERS:
        assert why(beside(pack, zeros, tmp_path)) == "7z archive that cannot be unpacked"


def test_a_file_that_is_too_large_to_be_looked_into_is_passed_over(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(2_000_000)
    limits = ArchiveLimits(entry_bytes=1_500_000, reserve_bytes=0)
    for content in (stored([("a", noise)]), program(noise), noise):
        for pack in PACKERS:
            reason = why(beside(pack, content, tmp_path, limits))
            assert reason == "file that has more than 1500000 bytes"


# --- nothing but such archives --------------------------------------------------------------------


@pytest.mark.parametrize("pack", PACKERS)
def test_nothing_but_archives_is_an_error_that_names_them(tmp_path: Path, pack: Pack) -> None:
    files = [
        ("a", zipped([("1.zip", zipped([("1.dcm", dicom())]))])),
        ("b", b"Rar!\x1a\x07\0" + NOISE),
        ("c", zipped([("2.zip", zipped([("2.dcm", dicom(2))]))])),
        ("d.txt", b"hello"),
    ]
    error = refused(tmp_path, pack(files))
    assert f"{error}" == (
        "There is no DICOM instance in the archive (6 files: 1 rar archive "
        "that cannot be unpacked, 1 text, 2 zip archive that is in an archive within the archive)"
    )
    assert error.permanent
    assert "plain files" in error.hint


# --- cancellation, the disk -----------------------------------------------------------------------


@pytest.mark.parametrize("inner", [zipped, targz, INNER["gz"], INNER["zip.gz"]])
def test_cancelled_at_any_checkpoint_leaves_nothing(tmp_path: Path, inner: Pack) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(tarred([("1", dicom(1)), ("2", inner([("a", b"a"), ("b", dicom(2))]))]))
    assert cancelled_at_every_checkpoint(archive, tmp_path / "staging") > 12


def test_one_file_at_a_time_is_on_the_disk(tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    most = 0

    def checkpoint() -> None:
        nonlocal most
        most = max(most, sum(path.stat().st_size for path in staging.iterdir()))

    size = 3_000_000
    files = [(f"{n}", random.Random(n).randbytes(size)) for n in range(6)]
    archive = tmp_path / "archive"
    archive.write_bytes(stored([("a", stored(files)), ("1.dcm", dicom())]))
    unpack(archive, staging, LIMITS, checkpoint, read_instance)
    assert len(files) * size < most < (len(files) + 1.5) * size


def test_memory_stays_flat(tmp_path: Path) -> None:
    import tracemalloc

    noise = random.Random(5).randbytes(20_000_000)
    for inner in (zipped, targz, INNER["gz"], INNER["zip.gz"]):
        archive = tmp_path / "archive"
        archive.write_bytes(zipped([("1", dicom()), ("a", inner([("a.nii", noise)]))]))
        tracemalloc.start()
        unpack(archive, tmp_path / "staging", LIMITS, lambda: None, read_instance)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10_000_000
