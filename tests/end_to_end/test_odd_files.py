"""Files whose file meta group is not as the standard has it, at a real storescp.

What arrives is the data set bit by bit, in the transfer syntax that the file says first.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from tests.end_to_end.sessions import data_set_bytes
from tests.end_to_end.site import Site
from tests.support.peers import storescp

EXPLICIT, JPEG_BASELINE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"


def sample(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    return Path(path).read_bytes()


FILES = {
    EXPLICIT: sample("CT_small.dcm"),
    JPEG_BASELINE: sample("SC_rgb_small_odd_jpeg.dcm"),
    "1.2.840.10008.1.2": sample("MR_small_implicit.dcm"),
}


def element(number: int, vr: bytes, value: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}HH2sH", 2, number, vr, len(value)) + value


def syntax(uid: str, order: str = "<") -> bytes:
    return element(0x0010, b"UI", uid.encode() + b"\0" * (len(uid) % 2), order)


def once_more(content: bytes) -> bytes:
    """Put another (0002,0010) where the data set begins."""
    data = data_set_bytes(content)
    other = JPEG_BASELINE if JPEG_BASELINE.encode() not in content else EXPLICIT
    return content[: -len(data)] + syntax(other) + data


def big_endian(content: bytes) -> bytes:
    """Write the file meta group in big endian."""
    file = io.BytesIO(content[132 : -len(data_set_bytes(content))])
    meta = pydicom.filereader.read_dataset(file, is_implicit_VR=False, is_little_endian=True)
    group = b"".join(
        element(number, b"UI", bytes(str(meta[2, number].value).encode()), ">")
        for number in (0x0002, 0x0003, 0x0010)
    )
    head = element(0, b"UL", struct.pack(">L", len(group)), ">")
    return content[:132] + head + group + data_set_bytes(content)


def too_short(content: bytes) -> bytes:
    return content[:140] + struct.pack("<L", 30) + content[144:]


def too_long(content: bytes) -> bytes:
    return content[:140] + struct.pack("<L", 5000) + content[144:]


@pytest.mark.needs("storescp")
@pytest.mark.parametrize("made", [once_more, big_endian, too_short, too_long])
@pytest.mark.parametrize("told", FILES)
async def test_the_data_set_arrives_as_it_is_in_the_syntax_that_the_file_says_first(
    site: Site, tmp_path: Path, told: str, made: Callable[[bytes], bytes]
) -> None:
    content = FILES[told]
    with storescp(tmp_path, "+B", "+xa") as node:
        site.has(node=node)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("image", made(content))
        site.backend.rest.offer("session", "sess-1", archive.getvalue())
        await site.start()
        closing = await site.closing(await site.dispatch("sess-1", "node"))
        assert (closing["status"], closing["files_sent"]) == ("completed", 1), closing["error"]
        (stored,) = node.stored
        came = stored.read_bytes()
        assert data_set_bytes(came) == data_set_bytes(content)
        assert pydicom.filereader.read_file_meta_info(stored).TransferSyntaxUID == told
