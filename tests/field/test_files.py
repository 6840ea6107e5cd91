"""Files as sites have them, sent by the whole program, beside DCMTK's dcmsend at the same node.

Where dcmsend delivers, the program does; what it delivers is the data set bit by bit, in the
transfer syntax of the file. ``python -m tests.field.compare`` prints the two side by side.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.demo.frames import JsonObject
from tests.end_to_end.site import Site, a_site
from tests.field import make
from tests.field.compare import SEND_ALL, arrived, dcmsend
from tests.field.make import CASES, CT, NAME, PATIENT, data, meta, syntax_of
from tests.support.peers import Node, storescp

UNREADABLE = {
    "10-no-class": "the SOP class UID is missing from the data set and the file meta group",
    "10-no-instance": "the SOP instance UID is missing from the data set and the file meta group",
    "10-class-nowhere-filled": "the SOP class UID is missing from the data set and the file meta",
    "12-none-compressed": "the transfer syntax UID of compressed pixel data is missing",
    "12-malformed": "the transfer syntax UID is malformed",
    "12-malformed-compressed": "the transfer syntax UID is malformed",
    "12-dot-end": "the transfer syntax UID is malformed",
}
"""The files that no node can be sent, and the reason."""

REFUSED = {
    "06-class-letters": "SOP class",
    "06-class-private": "SOP class",
    "12-private": "transfer syntax",
    "12-private-compressed": "transfer syntax",
    "07-newline": "odd number of bytes",
    "07-truncated-odd": "odd number of bytes",
}
"""The files that this node refuses, and those whose number of bytes is odd for no value's sake."""

ABORTED = {"06-sop70", "06-sop200"}
"""The files over which DCMTK's storescp aborts: an SOP instance UID of more than 64 characters.

It leaves as it is. dcmsend refuses such a file, and without its checks it cuts the UID.
"""

PADDED = {"07-odd-pixels", "07-odd-text"}
"""The files of odd length that can be padded: what arrives is longer."""


@pytest.fixture
async def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Site]:
    """A site, with a check at the end that its log holds no patient."""
    caplog.set_level(logging.INFO, "proxy.logs")
    async with a_site(tmp_path) as running:
        yield running
    written = "\n".join(str(vars(record)) for record in caplog.records)
    assert not [text for text in (NAME, PATIENT, b"ZZCANARY") if text.decode() in written]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with storescp(tmp_path, "+B", "+xa", "+uf") as listening:
        yield listening


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    return [vars(record)["line"] for record in caplog.records if record.message == event]


async def sent(site: Site, node: Node, *files: bytes) -> JsonObject:
    """Send these files as one session, and return the closing message."""
    site.has(node=node)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for number, content in enumerate(files):
            packed.writestr(f"{number}", content)
    site.backend.rest.offer("session", "sess-1", archive.getvalue())
    await site.start(dicom__retry_count=1)
    return await site.closing(await site.dispatch("sess-1", "node"))


@pytest.mark.needs("storescp")
@pytest.mark.needs("dcmsend")
@pytest.mark.parametrize("name", CASES)
async def test_where_dcmsend_delivers_the_program_does(
    site: Site, node: Node, name: str, tmp_path: Path
) -> None:
    content = CASES[name]()
    (tmp_path / "input").write_bytes(content)
    by_others = {options: dcmsend(node, tmp_path / "input", *options) for options in SEND_ALL}
    closing = await sent(site, node, content)
    if name in ABORTED:
        assert closing["status"] == "failed"
        assert "aborted" in closing["error"]
        return
    is_refused = name in REFUSED or name in UNREADABLE
    assert not (is_refused and any(by_others.values())), "dcmsend delivers it"
    if is_refused:
        assert closing["status"] == "failed"
        assert (REFUSED | UNREADABLE)[name] in closing["error"]
        assert node.stored == []
        return
    assert (closing["status"], closing["files_sent"]) == ("completed", 1), closing
    (stored,) = node.stored
    syntax, came = arrived(stored)
    assert syntax == syntax_of(name)
    if name in PADDED:
        assert len(came) == len(content[-len(came) :]) + len(came) % 2
        return
    assert make.digest(came) == make.digest(content[make.offset_of(name) :])


@pytest.mark.needs("storescp")
@pytest.mark.parametrize(
    "name",
    [
        *("05-RE", "05-dashes", "05-nulnul", "05-qq", "05-implicit-element", "07-odd-text"),
        *("07-zeros", "07-fffc", "07-7fe1"),
        *("09-big-endian-odd-vr", "11-nested-63", "10-class-in-meta-only", "06-sop-inner-nul"),
    ],
)
async def test_a_node_that_takes_the_default_syntax_alone_gets_it_converted(
    site: Site, tmp_path: Path, name: str
) -> None:
    with storescp(tmp_path, "+B", "+xi", "+uf") as node:
        closing = await sent(site, node, CASES[name]())
        assert (closing["status"], closing["files_sent"]) == ("completed", 1), closing
        (stored,) = node.stored
        assert arrived(stored)[0] == make.IMPLICIT.decode()


@pytest.mark.needs("storescp")
async def test_two_different_objects_with_one_uid_are_told_as_such(
    site: Site, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """One of them is sent; a deletion and another order find it as any other."""
    other = data()[:-2] + b"!!"
    closing = await sent(site, node, meta() + data(), b"no DICOM", meta() + other)
    assert closing["status"] == "failed"
    assert (closing["files_sent"], closing["files_total"]) == (1, 2)
    says = "1 of 2 instances cannot be sent: two different objects with one UID, of which the first"
    assert says in closing["error"]
    (stored,) = node.stored
    assert arrived(stored)[1] == data()
    (line,) = lines(caplog, "instance.unsent")
    assert (line["entry"], line["first_entry"]) == (3, 1)
    assert line["sop_class"] == CT.decode()


@pytest.mark.needs("storescp")
async def test_what_cannot_be_sent_is_told_by_its_place_class_and_reason(
    site: Site, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest goes on."""
    files = [CASES["10-no-instance"](), CASES["00-plain"](), CASES["12-malformed"]()]
    closing = await sent(site, node, *files)
    assert closing["status"] == "failed"
    assert (closing["files_sent"], closing["files_total"]) == (1, 3)
    assert "2 of 3 instances came damaged from ITH and cannot be sent: " in closing["error"]
    assert f"{UNREADABLE['10-no-instance']} (1)" in closing["error"]
    assert f"{UNREADABLE['12-malformed']} (1)" in closing["error"]
    assert len(node.stored) == 1
    told = lines(caplog, "instance.unsent")
    assert [line["entry"] for line in told] == [1, 3]
    assert [line["sop_class"] for line in told] == [CT.decode()] * 2
    assert [line["reason"] for line in told] == [
        UNREADABLE["10-no-instance"],
        UNREADABLE["12-malformed"],
    ]


@pytest.mark.needs("storescp")
async def test_a_class_that_may_hold_a_name_is_masked(
    site: Site, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    odd = meta(b"JPEG", sop_class=NAME) + data(sop_class=NAME)
    closing = await sent(site, node, odd, CASES["00-plain"]())
    assert "1 of 2 instances came damaged from ITH and cannot be sent" in closing["error"]
    (line,) = lines(caplog, "instance.unsent")
    assert line["sop_class"] == "(a UID that breaks PS3.5 9.1)"
