"""Reading gzip: like ``gzip``, but never long without a checkpoint."""

from __future__ import annotations

import gzip
import io
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.backend.gunzip import CHUNK, Gunzip
from proxy.errors import ArchiveError


def gunzipped(packed: bytes, size: int = 1000) -> bytes:
    """The content, read ``size`` bytes at a time."""
    gunzip = Gunzip(io.BytesIO(packed), lambda: None)
    content = b""
    while block := gunzip.read(size):
        content += block
    return content


MEMBERS = st.lists(st.integers(0, 3000) | st.just(CHUNK), min_size=1, max_size=5)


@settings(deadline=None)
@given(MEMBERS, st.integers(100, 5000), st.integers(0, 9), st.integers(0, 2000))
def test_reads_every_member_in_any_steps(
    sizes: list[int], size: int, level: int, padding: int
) -> None:
    parts = [bytes(random.Random(each).choices(b"abc", k=each)) for each in sizes]
    packed = b"".join(gzip.compress(part, level) + bytes(padding) for part in parts)
    assert gunzipped(packed, size) == b"".join(parts)


def test_members_may_begin_anywhere_in_what_is_read_at_a_time() -> None:
    noise = random.Random(1).randbytes(CHUNK)
    for short in range(1, 40):
        first = gzip.compress(noise[: CHUNK - short], 0)
        assert gunzipped(first + gzip.compress(b"second")) == noise[:-short] + b"second"


@pytest.mark.parametrize("rest", [b"\x1f", b"x", b"\0\0x", bytes(CHUNK) + b"x", b"\x8b\x1f"])
def test_other_bytes_behind_are_ignored(rest: bytes) -> None:
    assert gunzipped(gzip.compress(b"content") + rest) == b"content"


def test_a_cut_or_a_wrong_byte_is_damage() -> None:
    packed = gzip.compress(random.Random(2).randbytes(300))
    for cut in range(2, len(packed)):
        with pytest.raises(ArchiveError):
            gunzipped(packed[:cut])
    for at in range(10, len(packed)):
        wrong = bytearray(packed)
        wrong[at] ^= 1
        with pytest.raises(ArchiveError):
            gunzipped(bytes(wrong))


def test_all_before_a_cut_is_given() -> None:
    content = random.Random(3).randbytes(10_000)
    gunzip = Gunzip(io.BytesIO(gzip.compress(content)[:5_000]), lambda: None)
    start = gunzip.read(1 << 20)
    assert 4_000 < len(start) < 5_000
    assert content.startswith(start)
    with pytest.raises(ArchiveError):
        gunzip.read(1)


def flagged(flag: int, field: bytes) -> bytes:
    packed = gzip.compress(b"content")
    return packed[:3] + bytes([flag]) + packed[4:10] + field + packed[10:]


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(b"") * 50_000,
        gzip.compress(b"a") + bytes(1_000_000),
        flagged(0x08, b"n" * 1_000_000 + b"\0"),
        flagged(0x10, b"c" * 1_000_000 + b"\0"),
        gzip.compress(b"")[:-10] + b"\0\0\0\xff\xff" * 200_000 + gzip.compress(b"")[-10:],
    ],
    ids=["empty members", "padding", "long name", "long comment", "empty blocks"],
)
def test_nothing_keeps_it_from_a_checkpoint(packed: bytes) -> None:
    file = io.BytesIO(packed)
    positions = [0]
    gunzip = Gunzip(file, lambda: positions.append(file.tell()))
    while gunzip.read(1 << 20):
        pass
    positions.append(len(packed))
    steps = [after - before for before, after in pairwise(positions)]
    assert max(steps) <= CHUNK
