"""DICOM files as sites have them, and not as the standard has them: made by hand, byte by byte.

A case is the content of one file. Its name begins with the number of its kind: 02 file meta group
length, 03 file meta group in another encoding or strays of it, 04 sequences of unknown encoding,
05 value representations, 06 UIDs, 07 bytes behind the data set, 09 byte order, 10 identifiers that
are missing or elsewhere, 11 structure, 12 transfer syntax.
"""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from collections.abc import Callable, Mapping

CT = b"1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT, BIG = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2"
DEFLATED, JPEG = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.4.70"
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
NAME, PATIENT = b"ZZCANARY^PHI", b"ZZCANARY-0001"

STUDY, SERIES, SOP = b"1.2.826.0.1.99.1", b"1.2.826.0.1.99.1.2", b"1.2.826.0.1.99.1.2.3"
PIXELS = random.Random(7).randbytes(512)


def padded(value: bytes, pad: bytes = b"\0") -> bytes:
    return value + pad * (len(value) % 2)


def element(
    group: int,
    number: int,
    vr: bytes,
    value: bytes,
    order: str = "<",
    *,
    explicit: bool = True,
    length: int | None = None,
) -> bytes:
    """Encode one element; a ``length`` that is given need not be that of the value."""
    size = len(value) if length is None else length
    if not explicit or group == 0xFFFE:
        return struct.pack(f"{order}HHL", group, number, size) + value
    if vr in LONG:
        return struct.pack(f"{order}HH2sHL", group, number, vr, 0, size) + value
    return struct.pack(f"{order}HH2sH", group, number, vr, size) + value


def ui(group: int, number: int, value: bytes, order: str = "<", *, explicit: bool = True) -> bytes:
    return element(group, number, b"UI", padded(value), order, explicit=explicit)


def meta(
    syntax: bytes | None = EXPLICIT,
    *,
    sop_class: bytes | None = CT,
    sop: bytes | None = SOP,
    order: str = "<",
    explicit: bool = True,
    error: int = 0,
    length: int | None = None,
    more: bytes = b"",
) -> bytes:
    """Encode preamble and file meta group, whose length says ``error`` too much."""
    group = element(2, 1, b"OB", b"\0\1", order, explicit=explicit)
    for number, value in ((2, sop_class), (3, sop), (0x10, syntax)):
        if value is not None:
            group += ui(2, number, value, order, explicit=explicit)
    group += ui(2, 0x12, b"1.2.3.4", order, explicit=explicit) + more
    size = len(group) + error if length is None else length
    head = element(2, 0, b"UL", struct.pack(f"{order}L", size), order, explicit=explicit)
    return bytes(128) + b"DICM" + head + group


Elements = list[tuple[int, int, bytes, bytes]]


def elements(
    *,
    sop_class: bytes | None = CT,
    sop: bytes | None = SOP,
    study: bytes | None = STUDY,
    series: bytes | None = SERIES,
    patient: bytes | None = PATIENT,
) -> Elements:
    """Return the elements of a small image; None leaves one out."""
    given: list[tuple[int, int, bytes, bytes | None]] = [
        (0x0008, 0x0016, b"UI", sop_class),
        (0x0008, 0x0018, b"UI", sop),
        (0x0008, 0x0020, b"DA", b"20260101"),
        (0x0008, 0x0060, b"CS", b"CT"),
        (0x0010, 0x0010, b"PN", NAME),
        (0x0010, 0x0020, b"LO", patient),
        (0x0020, 0x000D, b"UI", study),
        (0x0020, 0x000E, b"UI", series),
        (0x0020, 0x0011, b"IS", b"1"),
        (0x0020, 0x0013, b"IS", b"1"),
        (0x0028, 0x0002, b"US", b"\1\0"),
        (0x0028, 0x0004, b"CS", b"MONOCHROME2"),
        (0x0028, 0x0010, b"US", b"\x10\0"),
        (0x0028, 0x0011, b"US", b"\x10\0"),
        (0x0028, 0x0100, b"US", b"\x10\0"),
        (0x0028, 0x0101, b"US", b"\x10\0"),
        (0x0028, 0x0102, b"US", b"\x0f\0"),
        (0x0028, 0x0103, b"US", b"\0\0"),
        (0x7FE0, 0x0010, b"OW", PIXELS),
    ]
    return [(group, number, vr, value) for group, number, vr, value in given if value is not None]


def encode(parts: Elements, order: str = "<", *, explicit: bool = True) -> bytes:
    """Encode elements; numbers and pixels are given as little endian."""
    found = b""
    for group, number, vr, value in parts:
        pad = b"\0" if vr == b"UI" else b" "
        given = padded(value, pad)
        if order == ">" and vr in {b"US", b"OW"}:
            given = b"".join(given[n : n + 2][::-1] for n in range(0, len(given), 2))
        found += element(group, number, vr, given, order, explicit=explicit)
    return found


def data(order: str = "<", *, explicit: bool = True, **changes: bytes | None) -> bytes:
    """Encode the data set of a small image."""
    return encode(elements(**changes), order, explicit=explicit)


def within(content: bytes, *more: bytes, before: int = 0x0020, order: str = "<") -> bytes:
    """Put elements in front of the first one of a group in an explicit data set."""
    at = 0
    while struct.unpack_from(f"{order}H", content, at)[0] < before:
        vr = content[at + 4 : at + 6]
        if vr in LONG:
            at += 12 + int(struct.unpack_from(f"{order}L", content, at + 8)[0])
        else:
            at += 8 + int(struct.unpack_from(f"{order}H", content, at + 6)[0])
    return content[:at] + b"".join(more) + content[at:]


def item(content: bytes, *, undefined: bool = True) -> bytes:
    if undefined:
        return element(*ITEM, b"", content, length=UNDEFINED) + element(*ITEM_END, b"", b"")
    return element(*ITEM, b"", content)


def sequence(
    group: int,
    number: int,
    vr: bytes,
    items: bytes,
    *,
    undefined: bool = True,
    explicit: bool = True,
) -> bytes:
    if undefined:
        items += element(*SEQUENCE_END, b"", b"")
    length = UNDEFINED if undefined else len(items)
    return element(group, number, vr, items, explicit=explicit, length=length)


CREATOR = element(0x0019, 0x10, b"LO", b"ACME")
CODED = (
    element(0x0008, 0x0102, b"SH", b"99X ")
    + element(0x0019, 0x10, b"UL", b"\7\0\0\0")
    + element(0x0008, 0x0104, b"LO", b"meaning ")
)


def unknown_sequence(*, undefined: bool, items_undefined: bool) -> bytes:
    """A UN sequence whose items are in Explicit VR, which PS3.5 6.2.2 does not have."""
    items = item(CODED, undefined=items_undefined) * 2
    more = CREATOR + sequence(0x0019, 0x1010, b"UN", items, undefined=undefined)
    return meta() + within(data(), more)


def nested(depth: int, *, explicit: bool = True) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = sequence(0x0040, 0xA730, b"SQ", item(inner), explicit=explicit)
    return inner


def odd_vr(vr: bytes, *, length: int = 48) -> bytes:
    text = b"G0000 history text with more than a few letters "[:length]
    return meta() + within(data(), element(0x0010, 0x21B0, vr, text))


def deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(content) + packer.flush()
    return packed + b"\0" * (len(packed) % 2)


def fragments(*frames: bytes) -> bytes:
    items = element(*ITEM, b"", b"") + b"".join(element(*ITEM, b"", padded(f)) for f in frames)
    return element(0x7FE0, 0x10, b"OB", items + element(*SEQUENCE_END, b"", b""), length=UNDEFINED)


def compressed(**changes: bytes | None) -> bytes:
    return encode(elements(**changes)[:-1]) + fragments(b"\xff\xd8 not decoded here \xff\xd9")


def out_of_order() -> bytes:
    parts = elements()
    return encode([*parts[10:18], *parts[6:10], *parts[:6], *parts[18:]])


CASES: Mapping[str, Callable[[], bytes]] = {
    "00-plain": lambda: meta() + data(),
    "02-short": lambda: meta(error=-40) + data(),
    "02-long": lambda: meta(error=40) + data(),
    "02-zero": lambda: meta(length=0) + data(),
    "02-huge": lambda: meta(length=0xFFFFFFF0) + data(),
    "02-short-implicit": lambda: meta(IMPLICIT, error=-40) + data(explicit=False),
    "02-deflated-short": lambda: meta(DEFLATED, error=-48) + deflated(data()),
    "02-deflated-zero": lambda: meta(DEFLATED, length=0) + deflated(data()),
    "02-deflated-long": lambda: meta(DEFLATED, error=48) + deflated(data()),
    "02-no-length": lambda: (meta()[:132] + meta()[144:]) + data(),
    "03-implicit-meta": lambda: meta(IMPLICIT, explicit=False) + data(explicit=False),
    "03-implicit-meta-explicit-data": lambda: meta(explicit=False) + data(),
    "03-stray-in-data-set": lambda: (
        meta(IMPLICIT) + ui(2, 3, b"1.2.826.0.1.77", explicit=False) + data(explicit=False)
    ),
    "03-stray-explicit": lambda: meta() + ui(2, 3, b"1.2.826.0.1.77") + data(),
    "04-defined-items": lambda: unknown_sequence(undefined=False, items_undefined=False),
    "04-defined-sequence": lambda: unknown_sequence(undefined=False, items_undefined=True),
    "04-undefined-items": lambda: unknown_sequence(undefined=True, items_undefined=True),
    "04-undefined-sequence": lambda: unknown_sequence(undefined=True, items_undefined=False),
    "04-implicit-items": lambda: (
        meta()
        + within(
            data(),
            CREATOR
            + sequence(
                0x19, 0x1010, b"UN", item(element(0x08, 0x102, b"", b"99X ", explicit=False))
            ),
        )
    ),
    "04-sequence-implicit-items": lambda: (
        meta()
        + within(
            data(),
            CREATOR
            + sequence(
                0x19, 0x1010, b"SQ", item(element(0x08, 0x102, b"", b"99X ", explicit=False))
            ),
        )
    ),
    "04-no-delimiter": lambda: (
        meta()
        + within(
            data(), element(0x0019, 0x1010, b"UN", item(CODED) * 2, length=UNDEFINED), before=0x20
        )
    ),
    "04-implicit-explicit-items": lambda: (
        meta(IMPLICIT)
        + encode(elements()[:6], explicit=False)
        + sequence(0x0019, 0x1010, b"", item(CODED), explicit=False)
        + encode(elements()[6:], explicit=False)
    ),
    "05-RE": lambda: odd_vr(b"RE"),
    "05-dashes": lambda: odd_vr(b"--"),
    "05-spaces": lambda: odd_vr(b"  "),
    "05-nulnul": lambda: odd_vr(b"\0\0"),
    "05-qq": lambda: odd_vr(b"??"),
    "05-lower-case": lambda: odd_vr(b"lt"),
    "05-mixed-case": lambda: odd_vr(b"Lt"),
    "05-digits": lambda: odd_vr(b"12"),
    "05-ff": lambda: odd_vr(b"\xff\xff"),
    "05-short-nulnul": lambda: odd_vr(b"\0\0", length=8),
    "05-empty-nulnul": lambda: odd_vr(b"\0\0", length=0),
    "05-empty-dashes": lambda: odd_vr(b"--", length=0),
    "05-two-odd-ones": lambda: (
        meta()
        + within(
            data(),
            element(0x0010, 0x21B0, b"??", b"text"),
            element(0x0010, 0x21C0, b"--", b"text"),
            element(0x0010, 0x21D0, b"\0\0", b"text"),
        )
    ),
    "05-unknown-long": lambda: (
        meta() + within(data(), struct.pack("<HH2sHL", 0x10, 0x21B0, b"ZZ", 0, 48) + bytes(48))
    ),
    "05-odd-long": lambda: (
        meta() + within(data(), struct.pack("<HH2sHL", 0x10, 0x21B0, b"--", 0, 48) + bytes(48))
    ),
    "05-implicit-element": lambda: (
        meta() + within(data(), element(0x0010, 0x21B0, b"", b"text", explicit=False))
    ),
    "05-identifiers": lambda: (
        meta()
        + encode(
            [
                (g, n, b"??" if (g, n) in {(0x20, 0xD), (0x20, 0xE)} else v, x)
                for g, n, v, x in elements()
            ]
        )
    ),
    "05-sop-as-UN": lambda: (
        meta() + encode([(g, n, b"UN" if v == b"UI" else v, x) for g, n, v, x in elements()])
    ),
    "05-first-element": lambda: (
        meta() + encode([(g, n, b"??" if n == 0x16 else v, x) for g, n, v, x in elements()])
    ),
    "05-all-lower-case": lambda: (
        meta() + encode([(g, n, v if v == b"OW" else v.lower(), x) for g, n, v, x in elements()])
    ),
    "06-study70": lambda: meta() + data(study=b"1.2.826." + b"1234567890" * 6 + b"12"),
    "06-letters": lambda: meta() + data(study=b"1.2.826.ZZCANARY.7"),
    "06-dot-end": lambda: meta() + data(study=b"1.2.826.0.1."),
    "06-leading-zero": lambda: meta() + data(study=b"1.02.826.007"),
    "06-space-padded": lambda: meta() + data(study=b"1.2.826.0.1 "),
    "06-inner-blank": lambda: meta() + data(study=b"1.2.826 0.1"),
    "06-inner-nul": lambda: meta() + data(study=b"1.2.826\0\0.1.5"),
    "06-several": lambda: meta() + data(study=b"1.2.826.1\\1.2.826.2"),
    "06-study200": lambda: meta() + data(study=b"1.2.826." + b"1234567890" * 19 + b"12"),
    "06-study5000": lambda: meta() + data(study=b"1.2." + b"1234567890" * 500),
    "06-latin": lambda: meta() + data(study="1.2.MÜLLER".encode("latin-1")),
    "06-sop-letters": lambda: meta(sop=b"1.2.ZZCANARY") + data(sop=b"1.2.ZZCANARY"),
    "06-sop-dot-end": lambda: meta(sop=b"1.2.826.") + data(sop=b"1.2.826."),
    "06-sop-leading-zero": lambda: meta(sop=b"1.02.003") + data(sop=b"1.02.003"),
    "06-sop-space-padded": lambda: meta(sop=b"1.2.826.5 ") + data(sop=b"1.2.826.5 "),
    "06-sop-two-nuls": lambda: meta(sop=b"1.2.826.5\0\0\0") + data(sop=b"1.2.826.5\0\0\0"),
    "06-sop-leading-blank": lambda: meta(sop=b" 1.2.826.5") + data(sop=b" 1.2.826.5"),
    "06-sop-inner-blank": lambda: meta(sop=b"1.2 .826.5") + data(sop=b"1.2 .826.5"),
    "06-sop-inner-nul": lambda: meta(sop=b"1.2\0.826.5") + data(sop=b"1.2\0.826.5"),
    "06-sop70": lambda: meta(sop=b"1.2.826." + b"1" * 62) + data(sop=b"1.2.826." + b"1" * 62),
    "06-sop64": lambda: meta(sop=b"1.2.826." + b"1" * 56) + data(sop=b"1.2.826." + b"1" * 56),
    "06-sop200": lambda: meta(sop=b"1.2.826." + b"1" * 192) + data(sop=b"1.2.826." + b"1" * 192),
    "06-sop-several": lambda: meta(sop=b"1.2.5\\1.2.6") + data(sop=b"1.2.5\\1.2.6"),
    "06-sop-latin": lambda: (
        meta(sop="1.2.MÜLLER".encode("latin-1")) + data(sop="1.2.MÜLLER".encode("latin-1"))
    ),
    "06-class-letters": lambda: meta(sop_class=b"1.2.ABC") + data(sop_class=b"1.2.ABC"),
    "06-class-private": lambda: meta(sop_class=b"1.2.826.1") + data(sop_class=b"1.2.826.1"),
    "06-class-space-padded": lambda: meta(sop_class=CT + b" ") + data(sop_class=CT + b" "),
    "07-7fe1": lambda: (
        meta()
        + data()
        + element(0x7FE1, 0x10, b"LO", b"GEMS_Ultrasound ")
        + element(0x7FE1, 0x1010, b"OB", b"z" * 334)
    ),
    "07-fffc": lambda: meta() + data() + element(0xFFFC, 0xFFFC, b"OB", bytes(200)),
    "07-zeros": lambda: meta() + data() + bytes(512),
    "07-newline": lambda: meta() + data() + b"\n",
    "07-two-newlines": lambda: meta() + data() + b"\r\n",
    "07-odd-pixels": lambda: (
        meta() + encode(elements()[:-1]) + element(0x7FE0, 0x10, b"OB", PIXELS[:511])
    ),
    "07-odd-text": lambda: meta() + within(data(), element(0x0010, 0x21B0, b"LT", b"odd")),
    "07-truncated": lambda: (meta() + data())[:-100],
    "07-truncated-odd": lambda: (meta() + data())[:-101],
    "07-truncated-in-head": lambda: (meta() + data())[:-518],
    "07-truncated-compressed": lambda: (meta(JPEG) + compressed())[:-20],
    "09-be-be": lambda: meta(BIG, order=">") + data(">"),
    "09-be-le": lambda: meta(EXPLICIT, order=">") + data(),
    "09-be-implicit": lambda: meta(IMPLICIT, order=">") + data(explicit=False),
    "09-big-endian": lambda: meta(BIG) + data(">"),
    "09-big-endian-bare": lambda: data(">"),
    "09-big-endian-odd-vr": lambda: (
        meta(BIG) + within(data(">"), element(0x0010, 0x21B0, b"--", b"text", ">"), order=">")
    ),
    "10-no-study": lambda: meta() + data(study=None),
    "10-no-series": lambda: meta() + data(series=None),
    "10-no-patient": lambda: meta() + data(patient=None),
    "10-no-study-no-series-no-patient": lambda: (
        meta() + data(study=None, series=None, patient=None)
    ),
    "10-empty-study": lambda: meta() + data(study=b""),
    "10-class-in-meta-only": lambda: meta() + data(sop_class=None),
    "10-instance-in-meta-only": lambda: meta() + data(sop=None),
    "10-both-in-meta-only": lambda: meta() + data(sop=None, sop_class=None),
    "10-class-empty": lambda: meta() + data(sop_class=b""),
    "10-instance-blank": lambda: meta() + data(sop=b"  "),
    "10-class-not-in-meta": lambda: meta(sop_class=None) + data(),
    "10-instance-not-in-meta": lambda: meta(sop=None) + data(),
    "10-other-in-meta": lambda: meta(sop=b"1.2.826.0.1.66") + data(),
    "10-other-class-in-meta": lambda: meta(sop_class=CT + b"6") + data(),
    "10-no-class": lambda: meta(sop_class=None) + data(sop_class=None),
    "10-no-instance": lambda: meta(sop=None) + data(sop=None),
    "10-class-nowhere-filled": lambda: meta(sop_class=b"") + data(sop_class=b""),
    "10-bare-explicit": data,
    "10-bare-implicit": lambda: data(explicit=False),
    "10-bare-no-study": lambda: data(study=None),
    "10-bare-out-of-order": out_of_order,
    "10-bare-no-preamble": lambda: (meta() + data())[132:],
    "11-out-of-order": lambda: meta() + out_of_order(),
    "11-pixels-first": lambda: meta() + encode([elements()[-1], *elements()[:-1]]),
    "11-group-0000": lambda: (
        meta() + element(0, 0, b"UL", b"\x0a\0\0\0") + element(0, 2, b"UI", b"1.2.3\0") + data()
    ),
    "11-group-0000-implicit": lambda: (
        meta(IMPLICIT) + element(0, 2, b"UI", b"1.2.3\0", explicit=False) + data(explicit=False)
    ),
    "11-group-0001": lambda: meta() + element(1, 2, b"LO", b"text") + data(),
    "11-group-0003": lambda: meta() + element(3, 2, b"LO", b"text") + data(),
    "11-group-0004": lambda: meta() + element(4, 0x1220, b"LO", b"text") + data(),
    "11-group-length": lambda: meta() + element(8, 0, b"UL", b"\x40\0\0\0") + data(),
    "11-bare-group-0000": lambda: element(0, 2, b"UI", b"1.2.3\0") + data(),
    "11-nested-40": lambda: meta() + within(data(), nested(40)),
    "11-nested-63": lambda: meta() + within(data(), nested(63)),
    "11-nested-63-before": lambda: meta() + within(data(sop=None, sop_class=None), nested(63)),
    "11-nested-implicit": lambda: (
        meta(IMPLICIT)
        + encode(elements()[:6], explicit=False)
        + nested(50, explicit=False)
        + encode(elements()[6:], explicit=False)
    ),
    "11-private-undefined": lambda: (
        meta() + within(data(), CREATOR, sequence(0x19, 0x1010, b"SQ", item(CODED * 20_000)))
    ),
    "11-private-undefined-UN": lambda: (
        meta()
        + within(
            data(),
            CREATOR,
            sequence(
                0x19,
                0x1010,
                b"UN",
                item(element(0x19, 0x1011, b"", b"text", explicit=False) * 50_000),
            ),
        )
    ),
    "11-many-elements": lambda: (
        meta()
        + element(8, 5, b"CS", b"ISO_IR 100")
        + sequence(8, 8, b"SQ", b"".join(item(b"") for _ in range(120_000)))
        + data()
    ),
    "11-many-top-level": lambda: meta() + element(8, 8, b"CS", b"AB") * 120_000 + data(),
    "11-deflated-far": lambda: (
        meta(DEFLATED)
        + deflated(element(8, 8, b"OB", random.Random(1).randbytes(3_000_000)) + data())
    ),
    "11-deflated": lambda: meta(DEFLATED) + deflated(data()),
    "11-delimiter-at-top": lambda: meta() + within(data(), element(*SEQUENCE_END, b"", b"")),
    "11-long-patient": lambda: meta() + data(patient=b"1234567890" * 600),
    "12-syntax-in-data-set": lambda: meta(JPEG) + ui(2, 0x10, EXPLICIT) + compressed(),
    "12-jpeg-in-data-set": lambda: meta() + ui(2, 0x10, JPEG) + data(),
    "12-syntax-twice": lambda: meta(JPEG, more=ui(2, 0x10, EXPLICIT)) + compressed(),
    "12-none": lambda: meta(None) + data(),
    "12-none-implicit": lambda: meta(None) + data(explicit=False),
    "12-none-compressed": lambda: meta(None) + compressed(),
    "12-malformed": lambda: meta(b"JPEG") + data(),
    "12-malformed-compressed": lambda: meta(b"JPEG") + compressed(),
    "12-dot-end": lambda: meta(EXPLICIT + b".") + data(),
    "12-private": lambda: meta(b"1.2.826.0.1.5") + data(),
    "12-private-compressed": lambda: meta(b"1.2.826.0.1.5") + compressed(),
    "12-space-padded": lambda: meta(EXPLICIT + b" ") + data(),
    "12-says-explicit-is-implicit": lambda: meta(EXPLICIT) + data(explicit=False),
    "12-says-implicit-is-explicit": lambda: meta(IMPLICIT) + data(),
    "12-says-big-is-little": lambda: meta(BIG) + data(),
    "12-says-little-is-big": lambda: meta(EXPLICIT) + data(">"),
    "12-says-deflated-is-not": lambda: meta(DEFLATED) + data(),
    "12-compressed": lambda: meta(JPEG) + compressed(),
    "12-native-in-compressed": lambda: meta(JPEG) + data(),
    "12-encapsulated-in-native": lambda: meta(EXPLICIT) + compressed(),
}
"""By name, the functions that make the files."""


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


OTHERS: Mapping[bytes, frozenset[str]] = {
    b"1.2.826.0.1.5": frozenset({"12-private", "12-private-compressed"}),
    EXPLICIT: frozenset({"12-says-big-is-little", "12-says-implicit-is-explicit"}),
    IMPLICIT: frozenset(
        {
            *("02-short-implicit", "03-implicit-meta", "03-stray-in-data-set", "10-bare-implicit"),
            *("04-implicit-explicit-items", "09-be-implicit", "11-group-0000-implicit"),
            *("11-nested-implicit", "12-none-implicit", "12-says-explicit-is-implicit"),
        }
    ),
    BIG: frozenset(
        {
            *("09-be-be", "09-big-endian", "09-big-endian-bare", "09-big-endian-odd-vr"),
            "12-says-little-is-big",
        }
    ),
    DEFLATED: frozenset(
        {
            *("02-deflated-short", "02-deflated-zero", "02-deflated-long", "11-deflated-far"),
            *("11-deflated", "12-says-deflated-is-not"),
        }
    ),
    JPEG: frozenset(
        {
            *("07-truncated-compressed", "12-syntax-in-data-set", "12-syntax-twice"),
            *("12-compressed", "12-native-in-compressed"),
        }
    ),
}
"""The names of the cases that are not in Explicit VR Little Endian."""


def syntax_of(name: str) -> str:
    """Return the transfer syntax that a case is in."""
    return next((uid for uid, names in OTHERS.items() if name in names), EXPLICIT).decode()


STRAYS: Mapping[str, bytes] = {
    "03-stray-in-data-set": ui(2, 3, b"1.2.826.0.1.77", explicit=False),
    "03-stray-explicit": ui(2, 3, b"1.2.826.0.1.77"),
    "12-syntax-in-data-set": ui(2, 0x10, EXPLICIT),
    "12-jpeg-in-data-set": ui(2, 0x10, JPEG),
    "12-syntax-twice": ui(2, 0x10, EXPLICIT),
}
"""The elements of group 0002 behind the last one of the file meta group."""


def offset_of(name: str) -> int:
    """Return where the data set of a case begins: with the first element of another group."""
    content = CASES[name]()
    last = content.find(b"1.2.3.4\0")
    return last + 8 + len(STRAYS.get(name, b"")) if last >= 0 else 0
