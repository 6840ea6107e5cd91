"""The session that is sent in these trials, and a state directory that holds it already.

Every trial begins with a copy of that directory, its objects being hard links: so a session of
hundreds of megabytes is downloaded once, and ITH answers the trials with 304 Not Modified.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import CTImageStorage

from proxy.demo.archives import zip_session
from proxy.demo.encoding import SampleInstance, encode
from proxy.demo.sample import Study
from tests.end_to_end.site import a_site
from tests.end_to_end.stops.node import StallingNode

SESSION_ID = "sess-1"
SMALL = 20_000
"""Bytes of the instances that are not meant to be large."""


@dataclass(frozen=True)
class Prepared:
    """A session, its archive, and the state of a proxy that has downloaded it."""

    study_instance_uid: str
    uids: tuple[str, ...]
    archive: bytes
    state: Path

    def lend(self, state: Path) -> None:
        """Let a proxy begin with what this one has."""
        shutil.copytree(self.state, state, copy_function=_link_objects)


async def prepare(root: Path, size: int) -> Prepared:
    """Make a session whose second instance has ``size`` bytes, and have it downloaded."""
    root.mkdir()  # noqa: ASYNC240 - nothing else goes on yet
    sizes = (SMALL, size, SMALL)
    instances = [_instance(number, each) for number, each in enumerate(sizes, 1)]
    archive = zip_session(instances, level=1)
    async with a_site(root) as site, StallingNode().running() as node:
        site.has(other=node)
        site.backend.rest.offer("session", SESSION_ID, archive)
        await site.start(limits__ratio=100_000, dicom__retry_count=0)
        ordered = await site.dispatch(SESSION_ID, "other")
        await site.closing(ordered)
        await site.stop()
    uids = tuple(each.sop_instance_uid for each in instances)
    return Prepared(instances[0].study_instance_uid, uids, archive, site.state)


def _instance(number: int, size: int) -> SampleInstance:
    ds = Study(70).data_set(CTImageStorage, "CT", 1, number)
    ds.Rows = ds.Columns = 1  # nobody looks at the pixels, of which there are more
    ds.BitsAllocated, ds.PixelRepresentation = 16, 0
    ds.add_new("PixelData", "OW", bytes(size // 2 * 2))
    return encode(ds)


def _link_objects(source: str, target: str) -> None:
    """Link what is never written again, copy the ledger."""
    if "/objects/" in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target)
