from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec
import pytest
import trio
from trio.testing import MockClock

from proxy.errors import InstanceUnusable, LedgerError, NotConverted
from proxy.ledger import CachedEntity, Ledger
from proxy.model import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, Instance
from proxy.pacs.local import CLEAN_UP_S, Checked, LocalPacs, Objects
from proxy.runtime.offload import Inline, Offload, Threads
from tests.ledger.make import OTHER_SESSION, SESSION, body_of, instance, order, uid
from tests.support.clocks import SetClock
from tests.support.waiting import PATIENCE_S

P = ParamSpec("P")
T = TypeVar("T")

ONE = [instance(n) for n in range(3)]
TWO = [instance(n, study=2) for n in range(2)]


class Site:
    """One local PACS, opened as at the start of the program."""

    def __init__(self, root: Path, ledger: Ledger, offload: Offload) -> None:
        self.root = root
        self.ledger = ledger
        self.objects = Objects(root)
        self.pacs = LocalPacs(ledger, self.objects, offload)

    def stage(
        self, instances: Iterable[Instance], content: str = "a", number: int = 1
    ) -> list[tuple[Path, Instance]]:
        staged = []
        for n, i in enumerate(instances):
            path = self.objects.staging(number) / str(n)
            study = int(i.study_instance_uid.rsplit(".", 1)[1])
            path.write_bytes(body_of(i.instance_number or 0, study=study, content=content))
            staged.append((path, i))
        return staged

    def files(self) -> set[str]:
        return {p.name for p in (self.root / "objects").rglob("*") if p.is_file()}


@asynccontextmanager
async def open_site(root: Path) -> AsyncIterator[Site]:
    async with Ledger.open(root / "ledger.db", Inline()) as ledger:
        yield Site(root, ledger, Inline())


@pytest.fixture
async def site(tmp_path: Path, autojump_clock: MockClock) -> AsyncIterator[Site]:
    async with open_site(tmp_path) as opened:
        yield opened


def names(*groups: Iterable[Instance]) -> set[str]:
    return {i.sha256 for group in groups for i in group}


async def test_an_entity_taken_in_is_held_and_its_files_are_objects(site: Site) -> None:
    await site.pacs.take_in(SESSION, site.stage(ONE), '"v1"')
    assert await site.ledger.cached_entity(SESSION) == CachedEntity('"v1"', 3)
    assert site.files() == names(ONE)
    assert list(site.objects.staging(1).iterdir()) == []
    assert site.pacs.usage_gb == pytest.approx(21 / 1024**3)


async def test_a_new_version_takes_the_place_of_the_old(site: Site) -> None:
    await site.pacs.take_in(SESSION, site.stage(ONE), '"v1"')
    changed = [instance(0, content="b")]
    await site.pacs.take_in(SESSION, site.stage(changed, "b"), '"v2"')
    assert await site.ledger.cached_entity(SESSION) == CachedEntity('"v2"', 1)
    assert site.files() == names(changed)


async def test_what_is_on_its_way_outlives_a_new_version_until_the_next_start(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    changed = [instance(0, content="b")]
    async with open_site(tmp_path) as site:
        dispatch = (await site.ledger.accept(order())).dispatch_id
        await site.pacs.take_in(SESSION, site.stage(ONE), '"v1"')
        await site.ledger.plan(dispatch)
        await site.pacs.take_in(SESSION, site.stage(changed, "b"), '"v2"')
        assert site.files() == names(ONE, changed)
        site.ledger.post_dispatch_over(dispatch, "completed", None)
        site.objects.clear_staging(1)
    async with open_site(tmp_path) as site:
        assert await site.pacs.janitor() == Checked(removed=3, damaged=0, dropped=0)
        assert site.files() == names(changed)


async def test_a_deletion_takes_rows_and_files(site: Site) -> None:
    await site.pacs.take_in(SESSION, site.stage(ONE), None)
    await site.pacs.take_in(OTHER_SESSION, site.stage(TWO), None)
    deleted = await site.pacs.delete_session("sess-1", uid(1))
    assert deleted.instances == 3
    assert site.files() == names(TWO)
    await site.pacs.delete_scan(uid(2), 7, scan_id="scan-7")
    assert site.files() == names(TWO)
    await site.pacs.delete_scan(uid(2), 1)
    assert site.files() == set()


async def test_a_subject_goes_as_a_whole(site: Site) -> None:
    await site.pacs.take_in(SESSION, site.stage(ONE), None)
    await site.pacs.take_in(OTHER_SESSION, site.stage(TWO), None)
    assert (await site.pacs.delete_subject(None, "P-0042")).instances == 5
    assert site.files() == set()
    assert site.pacs.usage_gb == 0


async def test_what_was_deleted_since_the_order_is_not_taken_in(site: Site) -> None:
    dispatch = (await site.ledger.accept(order())).dispatch_id
    staged = site.stage([*ONE, *TWO])
    await site.pacs.delete_session(None, uid(2))
    await site.pacs.take_in(SESSION, staged, '"v1"', dispatch_id=dispatch)
    assert await site.ledger.cached_entity(SESSION) == CachedEntity(None, 3)
    assert site.files() == names(ONE)


async def test_the_janitor_leaves_a_sound_store_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with open_site(tmp_path) as site:
        await site.pacs.take_in(SESSION, site.stage(ONE), None)
        site.objects.clear_staging(1)
    async with open_site(tmp_path) as site:
        assert site.pacs.usage_gb == 0
        assert await site.pacs.janitor() == Checked(removed=0, damaged=0, dropped=0)
        assert await site.ledger.cached_entity(SESSION) is not None
        assert site.pacs.usage_gb > 0


def do_harm(victim: Path, harm: str) -> None:
    match harm:
        case "missing":
            victim.unlink()
        case "short":
            victim.write_bytes(b"")
        case _:
            victim.write_bytes(bytes(ONE[1].size))


@pytest.mark.parametrize("harm", ["missing", "short", "zeros"])
async def test_an_object_a_power_cut_has_hurt_is_fetched_again(
    tmp_path: Path, autojump_clock: MockClock, harm: str
) -> None:
    async with open_site(tmp_path) as site:
        await site.pacs.take_in(SESSION, site.stage(ONE), None)
        await site.pacs.take_in(OTHER_SESSION, site.stage(TWO), None)
    victim = site.objects.path(ONE[1].sha256)
    do_harm(victim, harm)
    async with open_site(tmp_path) as site:
        checked = await site.pacs.janitor()
        assert (checked.damaged, checked.dropped) == (1, 1)
        assert await site.ledger.cached_entity(SESSION) is None
        assert await site.ledger.cached_entity(OTHER_SESSION) is not None
        await site.pacs.take_in(SESSION, site.stage(ONE), None)
        assert victim.read_bytes() == body_of(1)
        assert site.files() == names(ONE, TWO)


async def test_old_objects_are_not_read_at_each_start(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with Ledger.open(tmp_path / "ledger.db", Inline(), clock=SetClock(1000.0)) as ledger:
        site = Site(tmp_path, ledger, Inline())
        await site.pacs.take_in(SESSION, site.stage(ONE), None)
    site.objects.path(ONE[1].sha256).write_bytes(bytes(ONE[1].size))
    async with open_site(tmp_path) as site:
        assert (await site.pacs.janitor()).damaged == 0
        assert await site.ledger.cached_entity(SESSION) is not None


async def test_an_object_that_is_as_it_came_is_kept(site: Site) -> None:
    await site.pacs.take_in(SESSION, site.stage(ONE), None)
    assert await site.pacs.is_whole(ONE[1])
    assert await site.ledger.cached_entity(SESSION) is not None
    assert site.files() == names(ONE)


@pytest.mark.parametrize("harm", ["missing", "short", "zeros"])
async def test_an_object_that_is_not_as_it_came_is_dropped(site: Site, harm: str) -> None:
    """Taken in again it is whole: one of the same size must not stand in its way."""
    await site.pacs.take_in(SESSION, site.stage(ONE), None)
    victim = site.objects.path(ONE[1].sha256)
    do_harm(victim, harm)
    assert not await site.pacs.is_whole(ONE[1])
    assert not victim.exists()
    assert await site.ledger.cached_entity(SESSION) is None
    await site.pacs.take_in(SESSION, site.stage(ONE), None)
    assert await site.pacs.is_whole(ONE[1])
    assert site.files() == names(ONE)


async def test_the_janitor_removes_what_nobody_knows(site: Site) -> None:
    await site.pacs.take_in(SESSION, site.stage(ONE), None)
    (path, stranger), *_ = site.stage([instance(9)], number=3)
    site.objects.adopt(path, stranger.sha256)
    site.stage([instance(8)], number=4)
    site.stage([instance(7)], number=5)
    checked = await site.pacs.janitor()
    assert checked.removed == 5, "an object and four downloads"
    assert site.files() == names(ONE)
    assert not any((site.root / "staging").iterdir())


async def test_a_file_that_cannot_be_adopted_leaves_all_as_it_was(site: Site) -> None:
    await site.pacs.take_in(SESSION, site.stage(ONE[:1]), '"v1"')
    staged = site.stage(ONE)
    staged[2][0].unlink()
    with pytest.raises(FileNotFoundError):
        await site.pacs.take_in(SESSION, staged, '"v2"')
    assert await site.ledger.cached_entity(SESSION) == CachedEntity('"v1"', 1)
    assert site.files() == names(ONE[:1])


async def test_cancelled_anywhere_it_is_held_whole_or_as_before_with_no_file_too_many(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.pacs.local.CHUNK", 2)
    outcomes = set()
    changed = [instance(n, content="b") for n in range(1, 6)]
    for step in range(200):
        root = tmp_path / str(step)
        async with open_site(root) as site:
            await site.pacs.take_in(SESSION, site.stage(ONE), '"v1"')
            staged = site.stage(changed, "b")
            scope = trio.CancelScope()
            tracer = CancelAfter(step, scope)
            trio.lowlevel.add_instrument(tracer)
            with scope:
                tracer.task = trio.lowlevel.current_task()
                await site.pacs.take_in(SESSION, staged, '"v2"')
            trio.lowlevel.remove_instrument(tracer)
            holding = await site.ledger.cached_entity(SESSION)
            assert holding in (CachedEntity('"v1"', 3), CachedEntity('"v2"', 5))
            outcomes.add(holding.etag)
            expected = names(ONE) if holding.etag == '"v1"' else names(changed)
            assert site.files() == expected
        if not scope.cancelled_caught:
            break
    assert outcomes == {'"v1"', '"v2"'}
    assert step > 5


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope when one task has been scheduled so many times."""

    def __init__(self, steps: int, scope: trio.CancelScope) -> None:
        self.left = steps
        self.scope = scope
        self.task: trio.lowlevel.Task | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            if self.left == 0:
                self.scope.cancel("the test's turn")
            self.left -= 1


async def test_a_cancelled_deletion_is_done_all_the_same(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    for step in range(20):
        async with open_site(tmp_path / str(step)) as site:
            await site.pacs.take_in(SESSION, site.stage(ONE), None)
            scope = trio.CancelScope()
            tracer = CancelAfter(step, scope)
            trio.lowlevel.add_instrument(tracer)
            with scope:
                tracer.task = trio.lowlevel.current_task()
                await site.pacs.delete_session("sess-1", None)
            trio.lowlevel.remove_instrument(tracer)
            is_held = await site.ledger.cached_entity(SESSION) is not None
            assert site.files() == (names(ONE) if is_held else set())
            if not scope.cancelled_caught:
                assert not is_held
                break
    assert step > 1


class Slow(Inline):
    """A disk that takes a while for each commit, once it is made to."""

    seconds = 0.0

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await trio.sleep(self.seconds)
        return await super().__call__(function, *args, **kwargs)


@pytest.mark.parametrize("given_up_after", [math.inf, 1.0])
async def test_a_deletion_waits_for_a_slow_disk_unless_it_is_cancelled(
    tmp_path: Path, autojump_clock: MockClock, given_up_after: float
) -> None:
    disk = Slow()
    async with Ledger.open(tmp_path / "ledger.db", disk) as ledger:
        site = Site(tmp_path, ledger, Inline())
        await site.pacs.take_in(SESSION, site.stage(ONE), None)
        disk.seconds = 2 * CLEAN_UP_S
        begun = trio.current_time()
        with trio.move_on_after(given_up_after) as scope:
            await site.pacs.delete_session("sess-1", None)
        disk.seconds = 0.0
        if scope.cancelled_caught:
            assert trio.current_time() - begun == given_up_after + CLEAN_UP_S
        else:
            assert site.files() == set()
    async with open_site(tmp_path) as site:
        assert await site.ledger.cached_entity(SESSION) is None
        await site.pacs.janitor()
        assert site.files() == set()


async def test_a_ledger_that_fails_leaves_the_error_to_its_opener(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with pytest.RaisesGroup(LedgerError, LedgerError, flatten_subgroups=True):
        async with open_site(tmp_path) as site:
            site.ledger._writer.post(lambda c: c.execute("PRAGMA max_page_count = 1"))
            site.ledger.post_document("large", bytes(1 << 20))
            await site.pacs.take_in(SESSION, site.stage(ONE), None)
    async with open_site(tmp_path) as site:
        await site.pacs.janitor()
        assert site.files() == set()


async def test_taking_in_and_deleting_the_same_content_at_once_keeps_rows_and_files_in_step(
    tmp_path: Path,
) -> None:
    async with Ledger.open(tmp_path / "ledger.db", Threads(1)) as ledger:
        site = Site(tmp_path, ledger, Threads(4))

        async def take_in(number: int) -> None:
            for _ in range(10):
                await site.pacs.take_in(SESSION, site.stage(ONE, number=number), None)

        async def delete() -> None:
            for _ in range(10):
                await site.pacs.delete_session("sess-1", None)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_in, 1)
            nursery.start_soon(take_in, 2)
            nursery.start_soon(delete)
        assert site.files() == (await ledger.all_objects()).keys()


# Copies in another transfer syntax ---------------------------------------------------------------

HASH = "ab" * 32
PIXEL_BYTES = 800_000_000
PIXELS = struct.pack("<HH2sxxL", 0x7FE0, 0x0010, b"OW", PIXEL_BYTES)


@asynccontextmanager
async def a_large_instance(root: Path) -> AsyncIterator[tuple[Site, Instance]]:
    """Hold an instance that takes no space on disk, although its copy would."""
    async with Ledger.open(root / "ledger.db", Threads(1)) as ledger:
        site = Site(root, ledger, Threads(2))
        staged = site.objects.staging(1) / "large"
        with staged.open("wb") as file:
            file.write(PIXELS)
            file.truncate(len(PIXELS) + PIXEL_BYTES)
        site.objects.adopt(staged, HASH)
        size = len(PIXELS) + PIXEL_BYTES
        yield site, Instance("1", "1.2", EXPLICIT_VR_LITTLE_ENDIAN, "1", "1", HASH, size, 0)


def copies_in(root: Path) -> list[Path]:
    return [*root.glob("staging/copies/*")]


async def test_a_cancelled_conversion_ends_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    async with a_large_instance(tmp_path) as (site, held), trio.open_nursery() as nursery:

        async def use() -> None:
            async with site.pacs.converted(held, IMPLICIT_VR_LITTLE_ENDIAN, 0):
                pytest.fail("the conversion was not cancelled")

        nursery.start_soon(use)
        with trio.fail_after(PATIENCE_S):
            while not any(copy.stat().st_size for copy in copies_in(tmp_path)):  # noqa: ASYNC110
                await trio.sleep(0.001)
        (copy,) = copies_in(tmp_path)
        nursery.cancel_scope.cancel("the test says so")
        assert copy.stat().st_size < PIXEL_BYTES
    assert copies_in(tmp_path) == []


@pytest.mark.parametrize(
    "how", ["done", "error", "cancelled", "refused", "missing", "damaged", "full"]
)
async def test_a_copy_is_there_for_as_long_as_it_is_lent(tmp_path: Path, how: str) -> None:
    async with a_large_instance(tmp_path) as (site, large):
        data = PIXELS[:8] + b"\2\0\0\0ab"
        content = b"?" * len(data) if how == "refused" else data
        sha256 = hashlib.sha256(b"as it came" if how == "damaged" else content).hexdigest()
        held = msgspec.structs.replace(large, sha256=sha256, size=len(data))
        if how != "missing":
            site.objects.path(sha256).parent.mkdir(exist_ok=True)
            site.objects.path(sha256).write_bytes(content)
        outcome = {
            "error": KeyError,
            "refused": NotConverted,
            "missing": InstanceUnusable,
            "damaged": InstanceUnusable,
            "full": NotConverted,
        }
        reserve = 1 << 62 if how == "full" else 0
        with trio.CancelScope() as scope, ExitStack() as stack:
            if how in outcome:
                stack.enter_context(pytest.raises(outcome[how]))
            async with site.pacs.converted(held, IMPLICIT_VR_LITTLE_ENDIAN, reserve) as (
                copy,
                converted,
            ):
                assert copies_in(tmp_path) == [copy]
                assert copy.read_bytes() == PIXELS[:4] + b"\2\0\0\0ab"
                assert (converted.size, converted.offset) == (10, 0)
                assert converted.sop_instance_uid == held.sop_instance_uid
                if how == "error":
                    raise KeyError
                if how == "cancelled":
                    scope.cancel("the test says so")
                await trio.lowlevel.checkpoint()
        assert copies_in(tmp_path) == []


async def test_copies_have_names_of_their_own_and_the_next_start_removes_what_is_left(
    tmp_path: Path,
) -> None:
    async with open_site(tmp_path) as site:
        copies = [site.objects.new_copy() for _ in range(3)]
        assert len({*copies}) == 3
        for copy in copies:
            copy.write_bytes(b"what a crash left")
    async with open_site(tmp_path) as site:
        assert (await site.pacs.janitor()).removed == 1
        assert not copies[0].parent.exists()
        assert site.objects.new_copy().parent.exists()
