"""Converted data sets, compared with what DCMTK and pydicom make of the same files, and by hand."""

from __future__ import annotations

import hashlib
import io
import resource
import stat
import struct
import subprocess
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_files
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import dcmread
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from proxy.demo.encoding import SampleInstance, encode
from proxy.demo.sample import (
    Study,
    ct_series,
    encapsulated_pdf,
    mr_series,
    private_object,
    secondary_capture,
    text_report,
)
from proxy.dicom.contexts import CONVERTIBLE, FALLBACKS
from proxy.errors import InstanceUnusable, NotConverted, ProxyError
from proxy.model import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Instance,
)
from proxy.pacs import convert as module
from proxy.pacs.convert import convert
from proxy.pacs.header import read_instance
from tests.support.tools import find

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
WORDS = {
    1: "AE AS CS DA DS DT IS LO LT OB PN SH ST TM UC UI UN UR UT",
    2: "AT OW SS US",
    4: "FL OF OL SL UL",
    8: "FD OD OV SV UV",
}
"""The VRs by the size of the words in their values (PS3.5 6.2 and 7.3)."""
LONG = "OB OD OF OL OV OW SQ SV UC UN UR UT UV"
CONVERSIONS = [(own, to) for own in sorted(CONVERTIBLE) for to in FALLBACKS if to != own]


def implicit(tag: int, value: bytes = b"", length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, length) + value


def explicit(
    tag: int, vr: str, value: bytes = b"", length: int | None = None, order: str = "<"
) -> bytes:
    length = len(value) if length is None else length
    head = struct.pack(f"{order}HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + struct.pack(f"{order}xxL" if vr in LONG else f"{order}H", length) + value


def item(*elements: bytes) -> bytes:
    return implicit(ITEM, b"".join(elements))


def open_item(*elements: bytes) -> bytes:
    """Return an item of undefined length."""
    return implicit(ITEM, b"".join(elements), UNDEFINED) + implicit(ITEM_END)


def instance(data: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> Instance:
    sha256 = hashlib.sha256(data).hexdigest()
    return Instance("1.2", "1.2.3", syntax, "1.2.4", "1.2.5", sha256, len(data), 0)


def converted(where: Path, data: bytes, to: str, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
    """Convert a data set and return what became of it."""
    source, copy = where / "source", where / "copy"
    source.write_bytes(data)
    copy.unlink(missing_ok=True)
    made = convert(source, instance(data, syntax), to, copy, lambda: None)
    assert (made.transfer_syntax_uid, made.offset, made.size) == (to, 0, copy.stat().st_size)
    assert made.sha256 == hashlib.sha256(copy.read_bytes()).hexdigest()
    return copy.read_bytes()


def test_what_is_offered_can_be_converted() -> None:
    assert {*module._ENCODINGS} == CONVERTIBLE


# Beside other programs -------------------------------------------------------------------------


def uncompressed_files() -> Iterator[tuple[Path, Instance]]:
    for path in map(Path, sorted(get_testdata_files())):
        try:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found = read_instance(path, sha256) if sha256 else None
        except ProxyError:
            continue
        if found and found.transfer_syntax_uid in CONVERTIBLE and "truncated" not in path.name:
            yield path, found


def normalised(path: Path, *options: str) -> bytes:
    """Let dcmconv write a file with defined lengths, and return its data set."""
    program = find("dcmconv")
    assert program is not None
    written = path.with_suffix(".normalised")
    command = [program, "--group-length-remove", "+e", *options, str(path), str(written)]
    subprocess.run(command, check=True, capture_output=True)
    content = written.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def write_file(path: Path, of: Instance, data: bytes) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(of.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(of.sop_instance_uid)
    meta.TransferSyntaxUID = UID(of.transfer_syntax_uid)
    file = io.BytesIO(b"\0" * 128 + b"DICM")
    file.seek(0, io.SEEK_END)
    write_file_meta_info(file, meta)  # type: ignore[arg-type] # any writable file will do
    path.write_bytes(file.getvalue() + data)


@pytest.mark.needs("dcmconv")
def test_dcmconv_finds_the_same_in_every_file_bit_for_bit(tmp_path: Path) -> None:
    original, ours, copy = (tmp_path / name for name in ("original", "ours", "copy"))
    seen, different = set(), []
    for path, found in uncompressed_files():
        original.write_bytes(path.read_bytes())
        for to in FALLBACKS:
            if to == found.transfer_syntax_uid:
                continue
            made = convert(path, found, to, copy, lambda: None)
            write_file(ours, made, copy.read_bytes())
            copy.unlink()
            # Implicit VR has no VRs of private elements: compared is what both can have.
            which = "+ti" if found.transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN else "+te"
            if normalised(original, which) != normalised(ours, which):
                different.append((path.name, to))
            seen.add((found.transfer_syntax_uid, to))
    assert different == []
    assert seen == {*CONVERSIONS}


@pytest.mark.parametrize(("own", "to"), CONVERSIONS)
def test_pydicom_writes_the_same_bytes(tmp_path: Path, own: str, to: str) -> None:
    study = Study()
    samples = [*ct_series(study, slices=2, size=16), *mr_series(study, slices=2, size=16)]
    if own != EXPLICIT_VR_BIG_ENDIAN:  # the samples' encoder turns words alone
        samples += [make(study) for make in (encapsulated_pdf, text_report, private_object)]
    if own not in {EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN}:  # OB in implicit is OW
        samples.append(secondary_capture(study))
    for sample in samples:
        source, wanted = rewritten(sample, own), rewritten(sample, to)
        made = converted(tmp_path, data_set(source), to, own)
        assert made == data_set(wanted), sample.sop_class_uid


def rewritten(sample: SampleInstance, syntax: str) -> SampleInstance:
    """Let pydicom write a sample in another transfer syntax."""
    return encode(dcmread(io.BytesIO(sample.content)), syntax)


def data_set(sample: SampleInstance) -> bytes:
    return sample.content[-sample.data_set_size :]


# By hand ---------------------------------------------------------------------------------------

ODDITIES = [
    (0x00080005, "CS", b"ISO 2022 IR 6\\ISO 2022 IR 87\\ISO_IR 9999"),
    (0x00081030, "LO", b"not UTF-8: \xe9\xff   "),
    (0x00090010, "LO", b"CREATOR "),
    (0x00100010, "PN", b"\x1b$B;3ED\x1b(B^\x1b$BB@O:^^^=="),
    (0x00100030, "DA", b"no date "),
    (0x00200013, "IS", b" 1.5"),
    (0x00280010, "US", b"\1\0\2"),
    (0x00281050, "DS", b"1.23456789012345678901\\"),
    (0x0040A30A, "DS", b"\0\0"),
    (0x00420010, "ST", b"odd"),
    (0x00420011, "OB", bytes(range(256))),
    (0x7FE00010, "OW", bytes(70_000)),
]
"""Values that a program which decodes them would not write again as they were."""


def test_values_that_nobody_can_decode_stay_as_they_are(tmp_path: Path) -> None:
    with_vr = b"".join(explicit(*each) for each in ODDITIES)
    without = b"".join(implicit(tag, value) for tag, _, value in ODDITIES)
    assert converted(tmp_path, with_vr, IMPLICIT_VR_LITTLE_ENDIAN) == without
    back = converted(tmp_path, without, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    assert back == with_vr


def test_sequences_keep_their_kind_of_length(tmp_path: Path) -> None:
    code = explicit(0x00080100, "SH", b"T-1 "), implicit(0x00080100, b"T-1 ")
    empty = explicit(0x00081140, "SQ"), implicit(0x00081140)

    def nested(n: int) -> bytes:
        """Return the same, with VRs (0) and without (1)."""
        inner = open_item(code[n]) + item(empty[n], code[n]) + item() + open_item()
        both = inner + implicit(SEQUENCE_END)
        if n:
            return implicit(0x0040A730, inner) + implicit(0x0040A731, both, UNDEFINED)
        return explicit(0x0040A730, "SQ", inner) + explicit(0x0040A731, "SQ", both, UNDEFINED)

    made = converted(tmp_path, nested(0), IMPLICIT_VR_LITTLE_ENDIAN)
    assert made == nested(1)
    public = made.replace(b"\x40\0\x31\xa7", b"\x40\0\x30\xa7")
    back = converted(tmp_path, public, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    assert back == nested(0).replace(b"\x40\0\x31\xa7", b"\x40\0\x30\xa7")


@pytest.mark.parametrize("own", [EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN])
def test_unknown_values_are_copied_and_what_is_in_them_is_implicit(
    tmp_path: Path, own: str
) -> None:
    order = ">" if own == EXPLICIT_VR_BIG_ENDIAN else "<"
    inner = open_item(implicit(0x00091010, b"\1\2\3\4"), implicit(0x00080100, b"T-1 "))
    data = (
        explicit(0x00090010, "LO", b"CREATOR ", order=order)
        + explicit(0x00091001, "UN", b"\1\2\3\4", order=order)
        + explicit(0x00091002, "UN", inner + implicit(SEQUENCE_END), UNDEFINED, order=order)
        + explicit(0x00100020, "LO", b"ID", order=order)
    )
    without = (
        implicit(0x00090010, b"CREATOR ")
        + implicit(0x00091001, b"\1\2\3\4")
        + implicit(0x00091002, inner + implicit(SEQUENCE_END), UNDEFINED)
        + implicit(0x00100020, b"ID")
    )
    assert converted(tmp_path, data, IMPLICIT_VR_LITTLE_ENDIAN, own) == without
    back = converted(tmp_path, without, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    if own == EXPLICIT_VR_LITTLE_ENDIAN:
        assert back == data


def test_group_lengths_are_left_out(tmp_path: Path) -> None:
    length = explicit(0x00080000, "UL", b"\x0a\0\0\0")
    inner = explicit(0x00081140, "SQ", item(length, explicit(0x00081150, "UI", b"1.2\0")))
    made = converted(tmp_path, length + inner, IMPLICIT_VR_LITTLE_ENDIAN)
    assert made == implicit(0x00081140, item(implicit(0x00081150, b"1.2\0")))


SIGNED, UNSIGNED = implicit(0x00280103, b"\1\0"), implicit(0x00280103, b"\0\0")
SMALLEST = implicit(0x00280106, b"\xff\xff")


def test_the_pixel_representation_nearest_by_tells_signed_from_unsigned(tmp_path: Path) -> None:
    icon = implicit(0x00880200, item(UNSIGNED, SMALLEST))
    lookup = implicit(0x00283000, item(implicit(0x00283002, bytes(6))))
    data = SIGNED + SMALLEST + lookup + icon + implicit(0x00880200, item(SMALLEST))
    made = converted(tmp_path, data, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    kinds = [made[at + 4 : at + 6] for at in positions(made, SMALLEST[:4])]
    assert kinds == [b"SS", b"US", b"SS"]
    assert made[made.index(b"\x28\0\x02\x30") + 4 :].startswith(b"SS")
    plain = converted(tmp_path, SMALLEST, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
    assert plain == explicit(0x00280106, "US", b"\xff\xff")


def positions(data: bytes, part: bytes) -> Iterator[int]:
    at = data.find(part)
    while at >= 0:
        yield at
        at = data.find(part, at + 1)


def test_a_value_too_long_for_its_vr_becomes_unknown(tmp_path: Path) -> None:
    value = b"x" * 70_000
    made = converted(
        tmp_path,
        implicit(0x00104000, value),
        EXPLICIT_VR_LITTLE_ENDIAN,
        IMPLICIT_VR_LITTLE_ENDIAN,
    )
    assert made == explicit(0x00104000, "UN", value)
    assert converted(tmp_path, made, IMPLICIT_VR_LITTLE_ENDIAN) == implicit(0x00104000, value)


@pytest.mark.parametrize(
    ("vr", "size"),
    [(vr, size) for size, vrs in WORDS.items() for vr in vrs.split()],
)
def test_words_are_turned_by_what_the_vr_says(tmp_path: Path, vr: str, size: int) -> None:
    value = bytes(range(240)) * 400 if vr in LONG else bytes(range(240))
    turned = b"".join(value[at : at + size][::-1] for at in range(0, len(value), size))
    data = explicit(0x00091001, vr, value, order=">")
    made = converted(tmp_path, data, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
    assert made == explicit(0x00091001, vr, turned)
    made = converted(tmp_path, data, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
    assert made == implicit(0x00091001, turned)


# Refused conversions ---------------------------------------------------------------------------

ELEMENT = explicit(0x00080018, "UI", b"1.2.3\0")
BROKEN = {
    "ends within a header": ELEMENT[:5],
    "ends within a value": ELEMENT[:-1],
    "fragments": ELEMENT + explicit(0x7FE00010, "OB", item(b"\xff\xd8"), UNDEFINED),
    "text of undefined length": ELEMENT + explicit(0x00100020, "UT", b"ID", UNDEFINED),
    "an item that is none": explicit(0x0040A730, "SQ", ELEMENT),
    "an item outside": item(ELEMENT),
    "a delimiter outside": ELEMENT + implicit(SEQUENCE_END),
    "a sequence without end": explicit(0x0040A730, "SQ", item(ELEMENT), UNDEFINED),
    "an item without end": explicit(0x0040A730, "SQ", implicit(ITEM, ELEMENT, UNDEFINED)),
    "an item longer than its sequence": explicit(0x0040A730, "SQ", item(ELEMENT), 12) + bytes(40),
    "an element longer than its item": explicit(0x0040A730, "SQ", implicit(ITEM, ELEMENT, 8))
    + ELEMENT,
}


@pytest.mark.parametrize("vr", ["ZZ", "??", "--", "  ", "\0\0", "lo"])
def test_an_odd_vr_does_not_matter(tmp_path: Path, vr: str) -> None:
    behind = explicit(0x00100030, "DA", b"20260101"), implicit(0x00100030, b"20260101")
    data = ELEMENT + explicit(0x00100020, vr, b"ID") + behind[0]
    made = implicit(0x00080018, b"1.2.3\0") + implicit(0x00100020, b"ID") + behind[1]
    assert converted(tmp_path, data, IMPLICIT_VR_LITTLE_ENDIAN) == made
    without = ELEMENT + implicit(0x00100020, b"ID") + behind[0]
    assert converted(tmp_path, without, IMPLICIT_VR_LITTLE_ENDIAN) == made


def test_values_of_odd_length_are_padded_where_the_data_set_is_odd(tmp_path: Path) -> None:
    text, more = explicit(0x00100020, "LO", b"ID1"), explicit(0x00100030, "DA", b"20260101")
    inner = explicit(0x00081140, "SQ", item(explicit(0x00080100, "SH", b"T-1")))
    padded = explicit(0x00081140, "SQ", item(explicit(0x00080100, "SH", b"T-1\0")))
    odd = ELEMENT + text + more
    even = ELEMENT + explicit(0x00100020, "LO", b"ID1\0") + more
    assert converted(tmp_path, odd, EXPLICIT_VR_LITTLE_ENDIAN) == even
    assert converted(tmp_path, ELEMENT + inner, EXPLICIT_VR_LITTLE_ENDIAN) == ELEMENT + padded


def test_fragments_of_odd_length_are_padded(tmp_path: Path) -> None:
    jpeg = "1.2.840.10008.1.2.4.70"
    ends = implicit(SEQUENCE_END)
    odd = explicit(0x7FE00010, "OB", item() + item(b"\xff\xd8\xff\xd9\1") + ends, UNDEFINED)
    even = explicit(0x7FE00010, "OB", item() + item(b"\xff\xd8\xff\xd9\1\0") + ends, UNDEFINED)
    assert converted(tmp_path, ELEMENT + odd, jpeg, jpeg) == ELEMENT + even


@pytest.mark.parametrize("tail", [b"\n", b"\0"])
def test_a_byte_behind_the_data_set_is_not_padded(tmp_path: Path, tail: bytes) -> None:
    with pytest.raises(NotConverted):
        converted(tmp_path, ELEMENT + tail, EXPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotConverted) as caught:
        converted(tmp_path, BROKEN[name], IMPLICIT_VR_LITTLE_ENDIAN)
    assert caught.value.code == "encoding"


def test_nesting_has_a_bound(tmp_path: Path) -> None:
    data = made = b""
    for depth in range(1, 1000):
        data = explicit(0x0040A730, "SQ", item(data))
        made = implicit(0x0040A730, item(made))
        if depth in {100, 200}:
            assert converted(tmp_path, data, IMPLICIT_VR_LITTLE_ENDIAN) == made
    with pytest.raises(NotConverted):
        converted(tmp_path, data, IMPLICIT_VR_LITTLE_ENDIAN)


def test_a_half_word_of_big_endian_is_refused(tmp_path: Path) -> None:
    data = explicit(0x00280010, "US", b"\1\0\2", order=">")
    with pytest.raises(NotConverted):
        converted(tmp_path, data, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def test_a_deflated_stream_is_inflated_to_its_end(tmp_path: Path) -> None:
    pixels = bytes(1000) + bytes(range(256)) * 2000
    packed = deflated(ELEMENT + explicit(0x7FE00010, "OW", pixels))
    made = converted(
        tmp_path, packed + b"\0", IMPLICIT_VR_LITTLE_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    )
    assert made == implicit(0x00080018, b"1.2.3\0") + implicit(0x7FE00010, pixels)
    for broken in (packed[:-40], packed[:100] + b"\xff" * 100 + packed[200:]):
        with pytest.raises(NotConverted):
            converted(
                tmp_path, broken, EXPLICIT_VR_LITTLE_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
            )


def test_what_is_too_large_is_refused_before_it_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
    large = ELEMENT + explicit(0x7FE00010, "OW", bytes(1 << 21))
    bomb = deflated(
        ELEMENT + b"".join(explicit(0x7FE00010, "OW", bytes(1 << 19)) for _ in range(9))
    )
    assert len(bomb) < 10_000
    for data, own, written in (
        (large, EXPLICIT_VR_LITTLE_ENDIAN, 0),
        (bomb, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, 1 << 20),
    ):
        with pytest.raises(NotConverted) as caught:
            converted(tmp_path, data, IMPLICIT_VR_LITTLE_ENDIAN, own)
        assert caught.value.code == "large"
        copy = tmp_path / "copy"
        assert (copy.stat().st_size if copy.exists() else 0) <= written


@given(
    st.sampled_from(CONVERSIONS),
    st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=4)), max_size=4),
    st.integers(0, 500),
)
def test_damage_is_refused_or_copied_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
    conversion: tuple[str, str],
    damage: list[tuple[int, bytes]],
    cut: int,
) -> None:
    own, to = conversion
    (sample,) = mr_series(Study(), slices=1, size=4)
    data = bytearray(data_set(rewritten(sample, own)))
    for at, bytes_ in damage:
        data[at : at + len(bytes_)] = bytes_
    where = tmp_path_factory.mktemp("damaged")
    with suppress(NotConverted):
        converted(where, bytes(data[: len(data) - cut]), to, own)


# Files -----------------------------------------------------------------------------------------


def test_the_copy_is_the_owners_alone(tmp_path: Path) -> None:
    converted(tmp_path, ELEMENT, IMPLICIT_VR_LITTLE_ENDIAN)
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    ours = instance(ELEMENT)
    with pytest.raises(InstanceUnusable) as gone:
        convert(source, ours, IMPLICIT_VR_LITTLE_ENDIAN, copy, lambda: None)
    source.write_bytes(ELEMENT)
    longer = msgspec.structs.replace(ours, size=ours.size + 1)
    with pytest.raises(InstanceUnusable) as short:
        convert(source, longer, IMPLICIT_VR_LITTLE_ENDIAN, copy, lambda: None)
    with pytest.raises(NotConverted) as unwritten:
        convert(source, ours, IMPLICIT_VR_LITTLE_ENDIAN, tmp_path / "no" / "copy", lambda: None)
    assert [each.value.code for each in (gone, short)] == ["gone", "short"]
    assert unwritten.value.code == "copy"
    assert str(tmp_path) not in unwritten.value.in_full


@pytest.mark.parametrize("syntax", sorted(CONVERTIBLE))
@pytest.mark.parametrize("at", [0, 40, 300, -1], ids=["meta", "uid", "data set", "end"])
def test_a_file_that_is_not_what_it_was_is_told_from_a_broken_data_set(
    tmp_path: Path, syntax: str, at: int
) -> None:
    """Whether the conversion notices or not: one bit has turned since it came from ITH."""
    (sample,) = ct_series(Study(), slices=1, size=16)
    came = rewritten(sample, syntax).content
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(came)
    found = read_instance(source, hashlib.sha256(came).hexdigest())
    damaged = bytearray(came)
    damaged[at + (found.offset if at > 0 else 0)] ^= 0x04
    source.write_bytes(damaged)
    to = FALLBACKS[syntax == FALLBACKS[0]]
    with pytest.raises(InstanceUnusable) as caught:
        convert(source, found, to, copy, lambda: None)
    assert caught.value.code == "damaged"


def test_a_disk_that_takes_no_more_is_told_from_a_broken_data_set(tmp_path: Path) -> None:
    data = explicit(0x7FE00010, "OW", bytes(1 << 20))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "source").write_bytes(data)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(NotConverted) as caught:
            convert(
                tmp_path / "source",
                instance(data),
                IMPLICIT_VR_LITTLE_ENDIAN,
                tmp_path / "copy",
                lambda: None,
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == "copy"
    assert isinstance(caught.value.__cause__, OSError)


@pytest.fixture(autouse=True)
def quiet_pydicom() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
