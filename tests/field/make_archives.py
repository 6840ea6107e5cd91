"""Archives as sites have them: written field by field, where a library would write none of it.

``ROWS`` are the archives of the field's reports, by name; each holds the given files and nothing
else that may be an image.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

README = b"Open viewer.exe to see the images.\r\n" * 40
STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14
DOS, UNIX = 0, 3
END = b"PK\x05\x06"
BLOCK = 512
ELSEWHERE = 0xFFFFFFFF
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
RECORD = struct.Struct("<4s2B5H3L5H2L")
END_RECORD = struct.Struct("<4s4H2LH")


@dataclass(kw_only=True)
class Member:
    """One file of a zip, and what the archive says of it in place of the truth."""

    content: bytes = b""
    name: bytes = b"file"
    local_name: bytes | None = None
    method: int = STORED
    flags: int = 0
    local_flags: int | None = None
    host: int = DOS
    attributes: int = 0
    descriptor: bytes | None = None
    """The signature of the sizes behind the content, or none; the local header has no sizes."""
    local_sizes: tuple[int, int] | None = None
    sizes: tuple[int, int] | None = None
    crc: int | None = None
    packed: bytes | None = None
    is_wide: bool = False
    """Whether the directory has the sizes and the offset in its zip64 field."""

    def packed_content(self) -> bytes:
        return packed_by(self.method, self.content) if self.packed is None else self.packed

    def checksum(self) -> int:
        return zlib.crc32(self.content) if self.crc is None else self.crc

    def told_sizes(self) -> tuple[int, int]:
        return self.sizes or (len(self.packed_content()), len(self.content))

    def all_flags(self) -> int:
        return self.flags | (0 if self.descriptor is None else 0x8)

    def local(self) -> bytes:
        """The local header, the content and what follows it."""
        name = self.name if self.local_name is None else self.local_name
        flags = self.all_flags() if self.local_flags is None else self.local_flags
        crc, sizes = self.checksum(), self.told_sizes()
        behind = b""
        if self.descriptor is not None:
            behind = self.descriptor + struct.pack("<3L", crc, *sizes)
            crc, sizes = 0, (0, 0)
        sizes = self.local_sizes or sizes
        head = LOCAL_HEADER.pack(
            b"PK\3\4", 20, flags, self.method, 0, 0x21, crc, *sizes, len(name), 0
        )
        return head + name + self.packed_content() + behind

    def record(self, offset: int) -> bytes:
        """The member's record in the central directory."""
        sizes, extra = self.told_sizes(), b""
        if self.is_wide:
            extra = struct.pack("<HHQQQ", 1, 24, sizes[1], sizes[0], offset)
            sizes, offset = (ELSEWHERE, ELSEWHERE), ELSEWHERE
        head = RECORD.pack(
            *(b"PK\1\2", 20, self.host, 20, self.all_flags(), self.method, 0, 0x21),
            *(self.checksum(), *sizes, len(self.name), len(extra), 0, 0, 0),
            *(self.attributes, offset),
        )
        return head + self.name + extra


def raw_zip(
    *members: Member,
    before: bytes = b"",
    is_counted: bool = True,
    comment: bytes = b"",
    count: int | None = None,
    is_wide: bool = False,
) -> bytes:
    """Return a zip of these members.

    ``before`` is junk at its start, which the offsets count or not (``is_counted``). ``count`` is
    the number of entries that the end claims; with ``is_wide`` there is an end of zip64.
    """
    body, directory = bytearray(before), bytearray()
    base = 0 if is_counted else len(before)
    for member in members:
        directory += member.record(len(body) - base)
        body += member.local()
    count = len(members) if count is None else count
    start, length = len(body) - base, len(directory)
    body += directory
    if is_wide:
        at = len(body) - base
        body += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, start)
        body += struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
        start = length = ELSEWHERE
        count = 0xFFFF
    end = END_RECORD.pack(END, 0, 0, count & 0xFFFF, count & 0xFFFF, length, start, len(comment))
    return bytes(body) + end + comment


def packed_by(method: int, content: bytes) -> bytes:
    """Return ``content`` as a zip holds it that was packed by ``method``."""
    if method == DEFLATED:
        packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        return packer.compress(content) + packer.flush()
    if method == BZIP2:
        return bz2.compress(content)
    if method == LZMA:
        one = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}]
        packed = lzma.compress(content, lzma.FORMAT_RAW, filters=one)
        return struct.pack("<BBHBL", 9, 20, 5, 93, 1 << 16) + packed
    return content


def members_of(files: Sequence[bytes], **same: object) -> list[Member]:
    return [
        Member(content=content, **{"name": b"%08d.dcm" % number, **same})  # type: ignore[arg-type]
        for number, content in enumerate(files)
    ]


def zipped(files: Sequence[bytes]) -> bytes:
    return raw_zip(*members_of(files, method=DEFLATED))


def tarred(files: Sequence[bytes], format: int = tarfile.PAX_FORMAT, name: str = "") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=format) as archive:
        for number, content in enumerate(files):
            member = tarfile.TarInfo(f"{name}{number:08}.dcm")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def tar_entry(name: bytes, kind: bytes, content: bytes, link: bytes = b"") -> bytes:
    """Return one entry in the format of 1979: no magic, the checksum is all there is."""
    header = bytearray(BLOCK)
    header[: len(name)] = name
    header[100:124] = b"0000644\0" * 3
    header[124:148] = b"%011o\0" % len(content) + b"%011o\0" % 0
    header[156:157] = kind
    header[157 : 157 + len(link)] = link
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % BLOCK)


def tarred_v7(files: Sequence[bytes]) -> bytes:
    entries = [tar_entry(b"%08d.dcm" % n, b"\0", content) for n, content in enumerate(files)]
    return b"".join(entries) + bytes(2 * BLOCK)


# --- the rows of the field's reports --------------------------------------------------------------


def differing_names(files: Sequence[bytes]) -> bytes:
    """Names that a program made for the directory and not for the local headers, and one text."""
    members = members_of(files, flags=0x800, local_flags=0)
    for number, member in enumerate(members):
        member.name = f"Série/{number}.dcm".encode()
        member.local_name = f"S\x82rie\\{number}.dcm".encode("latin-1")
    text = Member(content=README, name=b"a/LIESMICH.TXT", local_name=b"a\\LIESMICH.TXT")
    return raw_zip(text, *members)


def from_dos(files: Sequence[bytes]) -> bytes:
    """Bytes that a DOS program left in the half of the attributes that UNIX has its mode in."""
    modes = [0o020000, 0o040000, 0o120000, 0o010000, 0o060000, 0o140000]
    members = members_of(files, host=DOS)
    for number, member in enumerate(members):
        member.attributes = modes[number % len(modes)] << 16 | 0x30
    return raw_zip(*members)


def beside(pack: Callable[[Sequence[bytes]], bytes]) -> Callable[[Sequence[bytes]], bytes]:
    """Return a maker of zips: half of the files are loose, the others in an archive among them."""

    def made(files: Sequence[bytes]) -> bytes:
        half = len(files) // 2
        loose = members_of(files[:half])
        inner = Member(content=pack(files[half:]), name=b"more.dat", method=DEFLATED)
        return raw_zip(*loose[:1], inner, *loose[1:])

    return made


def gzipped_members(files: Sequence[bytes]) -> bytes:
    """Every other file is a ``.gz`` of one DICOM file."""
    members = members_of(files)
    for member in members[::2]:
        member.content = gzip.compress(member.content)
    return raw_zip(*members)


def archive_beside_in_a_tar(files: Sequence[bytes]) -> bytes:
    return gzip.compress(tarred([files[0], zipped(files[1:])]))


ROWS: Mapping[str, Callable[[Sequence[bytes]], bytes]] = {
    "local and central names differ": differing_names,
    "empty names": lambda files: raw_zip(*members_of(files, name=b"")),
    "made on DOS, attributes like device, directory and link": from_dos,
    "zip beside loose slices": beside(zipped),
    "tar beside loose slices": beside(tarred),
    "tar.gz beside loose slices": beside(lambda files: gzip.compress(tarred(files))),
    "gz members beside loose slices": gzipped_members,
    "zip in a tar.gz, beside a loose slice": archive_beside_in_a_tar,
    "comment that holds the end signature": lambda files: raw_zip(
        *members_of(files), comment=b"see " + END + b" and " + END + bytes(18) + b"for the rest"
    ),
    "bzip2 readme beside stored DICOM": lambda files: raw_zip(
        Member(content=README, name=b"README", method=BZIP2), *members_of(files)
    ),
    "tar.gz with garbage behind": lambda files: gzip.compress(tarred(files)) + b"\r\n--end--\r\n",
    "v7 tar": tarred_v7,
    "v7 tar.gz": lambda files: gzip.compress(tarred_v7(files)),
    "zip inside gzip": lambda files: gzip.compress(zipped(files)),
}

# --- more of the same kinds -----------------------------------------------------------------------


def self_extracting(files: Sequence[bytes]) -> bytes:
    return raw_zip(*members_of(files), before=b"MZ" + bytes(5000), is_counted=False)


def linked(files: Sequence[bytes]) -> bytes:
    """A hard link to each file, as tar writes files that have two names."""
    entries = [tar_entry(b"%d" % n, b"0", content) for n, content in enumerate(files)]
    links = [tar_entry(b"again%d" % n, b"1", b"", b"%d" % n) for n in range(len(files))]
    return b"".join(entries + links) + bytes(2 * BLOCK)


def two_names_of_each(files: Sequence[bytes]) -> bytes:
    """Two records of the directory for the same bytes."""
    whole = bytearray(raw_zip(*members_of(files)))
    end = whole.rindex(END)
    length, start = struct.unpack_from("<LL", whole, end + 12)
    directory = whole[start:end]
    tail = END_RECORD.pack(END, 0, 0, *[2 * len(files)] * 2, 2 * length, start, 0)
    return bytes(whole[:start] + directory * 2 + tail)


def with_junk_in_the_media(files: Sequence[bytes]) -> bytes:
    """Twins of macOS, directories with and without a mark, files without content."""
    twin = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(60)
    return raw_zip(
        Member(name=b"IMAGES/"),
        Member(name=b"IMAGES2", host=UNIX, attributes=0o040755 << 16),
        Member(name=b"__MACOSX/._1", content=twin, method=DEFLATED),
        Member(name=b"nothing"),
        *members_of(files),
    )


def library_zip(files: Sequence[bytes]) -> bytes:
    """What Python's library writes where it cannot seek: data descriptors, zip64 ones too."""

    class OneWay(io.RawIOBase):
        data = b""

        def writable(self) -> bool:
            return True

        def write(self, block: object) -> int:
            assert isinstance(block, bytes | bytearray | memoryview)
            self.data += bytes(block)
            return len(bytes(block))

    stream = OneWay()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, content in enumerate(files):
            with archive.open(f"{number}", "w", force_zip64=bool(number % 2)) as entry:
                entry.write(content)
    return stream.data


SIMILAR: Mapping[str, Callable[[Sequence[bytes]], bytes]] = {
    "descriptors with signature": lambda files: raw_zip(
        *members_of(files, method=DEFLATED, descriptor=b"PK\7\x08")
    ),
    "descriptors without signature": lambda files: raw_zip(
        *members_of(files, method=DEFLATED, descriptor=b"")
    ),
    "stored, with descriptors": lambda files: raw_zip(*members_of(files, descriptor=b"PK\7\x08")),
    "written where nothing can be sought": library_zip,
    "wrong local sizes": lambda files: raw_zip(
        *members_of(files, method=DEFLATED, local_sizes=(7, 0xFFFFFFFF))
    ),
    "wrong unpacked size": lambda files: raw_zip(
        *(
            Member(content=each, method=DEFLATED, sizes=(len(packed_by(8, each)), len(each) + 9))
            for each in files
        )
    ),
    "zip64 fields": lambda files: raw_zip(*members_of(files, is_wide=True)),
    "zip64 end": lambda files: raw_zip(*members_of(files, is_wide=True), is_wide=True),
    "junk before, counted": lambda files: raw_zip(*members_of(files), before=b"junk" * 300),
    "junk before, not counted": lambda files: raw_zip(
        *members_of(files), before=b"junk" * 300, is_counted=False
    ),
    "junk before, zip64": lambda files: raw_zip(
        *members_of(files, is_wide=True), before=b"junk" * 300, is_counted=False, is_wide=True
    ),
    "self-extracting": self_extracting,
    "garbage behind": lambda files: zipped(files) + b"garbage" * 500,
    "zeros behind": lambda files: zipped(files) + bytes(4096),
    "end signatures by the thousand": lambda files: raw_zip(*members_of(files), comment=END * 9000),
    "a copy of the end in the comment": lambda files: raw_zip(
        *members_of(files), comment=raw_zip(*members_of(files))[-22:]
    ),
    "too few entries claimed": lambda files: raw_zip(*members_of(files), count=1),
    "too many entries claimed": lambda files: raw_zip(*members_of(files), count=60_000),
    "no entries claimed": lambda files: raw_zip(*members_of(files), count=0),
    "the same name for each": lambda files: raw_zip(*members_of(files, name=b"IM1")),
    "two names for each": two_names_of_each,
    "absolute names": lambda files: raw_zip(*members_of(files, name=b"/etc/passwd")),
    "names that climb": lambda files: raw_zip(*members_of(files, name=b"../../../evil")),
    "bzip2": lambda files: raw_zip(*members_of(files, method=BZIP2)),
    "lzma": lambda files: raw_zip(*members_of(files, method=LZMA)),
    "twins, directories, nothing": with_junk_in_the_media,
    "directories with content": lambda files: raw_zip(
        *members_of(files, name=b"IMAGES/", host=UNIX, attributes=0o040755 << 16)
    ),
    "pax": lambda files: tarred(files, name="x/" * 200 + "é"),
    "GNU long names": lambda files: tarred(files, tarfile.GNU_FORMAT, "x/" * 200 + "é"),
    "tar without its end": lambda files: tarred_v7(files)[: -2 * BLOCK],
    "tar with half its end": lambda files: tarred_v7(files)[:-BLOCK],
    "tar.gz without its end": lambda files: gzip.compress(tarred_v7(files)[: -2 * BLOCK]),
    "tar without its last padding": lambda files: (
        tarred_v7(files).rstrip(b"\0") + bytes(len(files[-1]) - len(files[-1].rstrip(b"\0")))
    ),
    "hard links": linked,
    "gzip in several members": lambda files: b"".join(
        gzip.compress(part) for part in (tarred(files)[:700], tarred(files)[700:])
    ),
    "tar.gz in a tar.gz": lambda files: gzip.compress(
        tarred([files[0], gzip.compress(tarred(files[1:]))])
    ),
    "gz of a gz": lambda files: gzip.compress(
        raw_zip(*members_of([gzip.compress(each) for each in files]))
    ),
    "tar.bz2": lambda files: bz2.compress(tarred(files)),
    "tar.xz": lambda files: lzma.compress(tarred(files)),
    "bzip2 and xz members": lambda files: raw_zip(
        *members_of([bz2.compress(files[0]), lzma.compress(files[1]), *files[2:]])
    ),
    "zip of a zip": lambda files: raw_zip(*members_of([zipped(files)])),
    "zip of self-extracting zips": lambda files: raw_zip(
        *members_of([self_extracting([each]) for each in files])
    ),
}
