from __future__ import annotations

import errno
import hashlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock

from proxy.errors import LedgerError
from proxy.ledger import Ledger, database
from proxy.model import Entity
from proxy.pacs.local import LocalPacs, Objects
from proxy.runtime import marks
from proxy.runtime.marks import Mark
from proxy.runtime.offload import Inline
from proxy.simulation.disk import Disk, DiskError, DiskPart
from proxy.simulation.object_files import WRITEBACK_S, files_in
from tests.ledger.make import OTHER_SESSION, SESSION, changed, fast_directory, instance, uid
from tests.ledger.workload import check, work
from tests.support.clocks import NOON, VirtualClock

STEPS = 25
LAZY = tuple(p.replace("synchronous = FULL", "synchronous = NORMAL") for p in database.PRAGMAS)

MakeDirectory = Callable[[], Path]


@pytest.fixture
def places(directory: Path) -> MakeDirectory:
    """State directories side by side: each call names one more, that is not made yet."""
    numbers = count(1)
    return lambda: directory / str(next(numbers))


@pytest.fixture
def state(places: MakeDirectory) -> Path:
    """An empty state directory."""
    return made(places())


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def running(state: Path) -> AbstractContextManager[Disk]:
    return Disk.running(state, VirtualClock())


def hash_of(directory: Path) -> str:
    """A hash of all names and contents below a directory."""
    digest = hashlib.sha256()
    for path in files_in(directory):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(directory)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


# The ledger -------------------------------------------------------------------------------


async def crashed_at(places: MakeDirectory, number: int, *powers: bool) -> tuple[bool, str]:
    """Crash within a write of the ledger, by number, while the program goes on to its end.

    ``powers`` says of each crash, one directly after the other, whether the power is lost. Returns
    whether the next incarnation finds what was said to be durable, and a hash of all it finds.
    """
    done = said = -1
    found = ""

    def crash() -> None:
        nonlocal said, found
        if disk.writes[DiskPart.LEDGER] == number:
            said = done
            disk.before_write = lambda: None
            for power in powers:
                disk.crash(places(), Random(number), power=power)
            found = hash_of(disk.directory)

    state = made(places())
    with running(state) as disk:
        disk.before_write = crash
        async with Ledger.open(state / "ledger.db", Inline(), clock=VirtualClock()) as ledger:
            async for step in work(ledger, STEPS):
                done = step
        assert hash_of(disk.directory) == found, "the former incarnation's writes have an effect"
        async with Ledger.open(disk.directory / "ledger.db", Inline()) as ledger:
            try:
                await check(ledger, said)
            except AssertionError as error:
                if "lost what was said" not in str(error):
                    raise
                return False, found
    return True, found


def leaves(errors: BaseExceptionGroup[LedgerError]) -> Iterator[LedgerError]:
    for error in errors.exceptions:
        if isinstance(error, LedgerError):
            yield error
        else:
            yield from leaves(error)


async def losses(places: MakeDirectory, *powers: bool) -> int:
    """Crash at each of 20 writes; count how often what was said to be durable was lost."""
    return sum([not (await crashed_at(places, n, *powers))[0] for n in range(0, 300, 15)])


@pytest.mark.parametrize("powers", [(False,), (True,), (False, True)])
async def test_no_crash_takes_what_was_synced(
    places: MakeDirectory, powers: tuple[bool, ...], autojump_clock: MockClock
) -> None:
    assert await losses(places, *powers) == 0


async def test_a_loss_of_the_power_takes_what_was_not_synced_and_a_kill_does_not(
    places: MakeDirectory, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    assert database.PRAGMAS != LAZY
    monkeypatch.setattr(database, "PRAGMAS", LAZY)
    assert await losses(places, False) == 0
    assert await losses(places, True) > 8
    assert await losses(places, False, True) > 8


def test_the_same_chance_leaves_the_same() -> None:
    def left(number: int) -> tuple[bool, str]:
        with fast_directory() as directory:
            numbers = count(1)
            crashed = partial(crashed_at, lambda: directory / str(next(numbers)), number, True)
            return trio.run(crashed, clock=MockClock(autojump_threshold=0))

    assert left(150) == left(150) != left(170)


@pytest.mark.parametrize(
    ("error", "sentence"), [(DiskError.FULL, "the disk is full"), (DiskError.IO, "the disk failed")]
)
async def test_a_write_of_the_ledger_fails_when_it_is_told_to(
    state: Path, error: DiskError, sentence: str, autojump_clock: MockClock
) -> None:
    done = -1
    with running(state) as disk:
        async with Ledger.open(state / "ledger.db", Inline()):
            pass
        before = disk.writes[DiskPart.LEDGER]
        disk.fail(error, DiskPart.CONTENT, times=math.inf)
        disk.fail(error, DiskPart.LEDGER, after=100, times=math.inf)
        sentences: set[str] = set()
        try:
            async with Ledger.open(state / "ledger.db", Inline()) as ledger:
                async for step in work(ledger, STEPS):
                    done = step
        except* LedgerError as errors:
            sentences = {str(each) for each in leaves(errors)}
        assert len(sentences) == 1
        assert sentence in sentences.pop()
        assert disk.writes[DiskPart.LEDGER] > before + 100
        assert 0 < done < STEPS - 1
        disk.heal()
        async with Ledger.open(state / "ledger.db", Inline()) as ledger:
            await check(ledger, done)


async def test_a_ledger_is_not_opened_where_any_write_of_it_fails(
    places: MakeDirectory, autojump_clock: MockClock
) -> None:
    passed = 0
    for after in range(0, 200, 9):
        state = made(places())
        with running(state) as disk:
            disk.fail(DiskError.IO, after=after, times=math.inf)
            try:
                async with Ledger.open(state / "ledger.db", Inline()):
                    passed += 1
            except* LedgerError:
                pass
            disk.heal()
            async with Ledger.open(state / "ledger.db", Inline()) as ledger:
                await check(ledger, -1)
    assert 0 < passed < 15


@pytest.mark.parametrize("power", [False, True])
async def test_the_ledger_bears_the_time_of_its_last_write(
    places: MakeDirectory, state: Path, power: bool, autojump_clock: MockClock
) -> None:
    with running(state) as disk:
        async with Ledger.open(state / "ledger.db", Inline()) as ledger:
            await trio.sleep(1000)
            ledger.post_document("one", b"1")
            await ledger.settled()
            at = VirtualClock().now()
            await trio.sleep(1000)
            disk.crash(places(), Random(1), power=power)
    assert at > NOON + 999
    assert database.last_written_at(disk.directory / "ledger.db") == pytest.approx(at, abs=0.1)


async def test_damage_to_the_ledger_outlives_a_loss_of_the_power(
    places: MakeDirectory, state: Path, autojump_clock: MockClock
) -> None:
    with running(state) as disk:
        async with Ledger.open(state / "ledger.db", Inline()) as ledger:
            ledger.post_document("one", b"1")
            await ledger.settled()
            before = {path.name: path.read_bytes() for path in files_in(state)}
            damage = disk.corrupt_ledger(Random(1))
            disk.crash(places(), Random(1), power=True)
    after = {path.name: path.read_bytes() for path in files_in(disk.directory)}
    assert damage is not None
    assert before.keys() == after.keys() == {"ledger.db", "ledger.db-wal"}
    damaged = bytearray(before[damage.name])
    damaged[damage.offset] ^= damage.mask
    assert after == before | {damage.name: bytes(damaged)} != before


# The objects ------------------------------------------------------------------------------


class Site:
    """A ledger and a local PACS in a state directory, opened as at the start of the program."""

    def __init__(self, state: Path, ledger: Ledger) -> None:
        self.ledger = ledger
        self.objects = Objects(state)
        self.pacs = LocalPacs(ledger, self.objects, Inline())

    async def take_in(self, entity: Entity, study: int) -> None:
        """Take in an entity of four instances."""
        staged = []
        for number, content in enumerate(contents(study)):
            path = self.objects.staging(study) / str(number)
            path.write_bytes(content)
            described = instance(number, study=study)
            staged.append((path, changed(described, sha256=sha256(content), size=len(content))))
        await self.pacs.take_in(entity, staged, None)


@asynccontextmanager
async def a_site(state: Path) -> AsyncIterator[Site]:
    async with Ledger.open(state / "ledger.db", Inline(), clock=VirtualClock()) as ledger:
        yield Site(state, ledger)


def contents(study: int) -> list[bytes]:
    rng = Random(study)
    return [uid(study, 1, number).encode() + rng.randbytes(3000) for number in range(4)]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def objects_in(state: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in files_in(state / "objects")}


def fates(of: Sequence[bytes], state: Path) -> Counter[str]:
    """What became of objects."""
    left, staged = objects_in(state), [path.read_bytes() for path in files_in(state / "staging")]
    return Counter(fate(content, left.get(sha256(content)), staged) for content in of)


def fate(content: bytes, left: bytes | None, staged: Sequence[bytes]) -> str:
    if left is None:
        return "unmoved" if content in staged else "missing"
    if len(left) < len(content):
        return "cut" if content.startswith(left) else "garbled"
    end = len(left.rstrip(b"\0"))
    if left == content or left[:end] != content[:end]:
        return "whole" if left == content else "garbled"
    return "zeroed"


async def test_a_loss_of_the_power_may_damage_what_came_just_before_and_nothing_else(
    places: MakeDirectory, autojump_clock: MockClock
) -> None:
    found: Counter[str] = Counter()
    for seed in range(20):
        state = made(places())
        with running(state) as disk, marks.marking(disk.reached):
            async with a_site(state) as site:
                await site.take_in(SESSION, 1)
                await trio.sleep(WRITEBACK_S)
                await site.take_in(OTHER_SESSION, 2)
                await trio.sleep(WRITEBACK_S / 2)
                disk.crash(places(), Random(seed), power=True)
            state = disk.directory
            assert fates(contents(1), state) == {"whole": 4}
            of_new = fates(contents(2), state)
            found += of_new
            async with a_site(state) as site:
                checked = await site.pacs.janitor()
                assert checked.damaged == 4 - of_new["whole"]
                assert await site.ledger.cached_entity(SESSION) is not None
            assert all(sha256(content) == name for name, content in objects_in(state).items())
            assert files_in(state / "staging") == []
    assert found.keys() == {"whole", "missing", "cut", "zeroed", "unmoved"}


@pytest.mark.parametrize("passed", [0.0, WRITEBACK_S + 0.1])
async def test_what_was_removed_may_be_back_if_that_was_just_before(
    places: MakeDirectory, passed: float, autojump_clock: MockClock
) -> None:
    came_back = 0
    for seed in range(10):
        state = made(places())
        with running(state) as disk, marks.marking(disk.reached):
            async with a_site(state) as site:
                await site.take_in(SESSION, 1)
                await trio.sleep(WRITEBACK_S)
                await site.pacs.delete_session("sess-1", uid(1))
                assert disk.traces([uid(1)]) == []
                await trio.sleep(passed)
                disk.crash(places(), Random(seed), power=True)
            came_back += len(objects_in(disk.directory))
            async with a_site(disk.directory) as site:
                await site.pacs.janitor()
            assert disk.traces([uid(1)]) == []
    assert (came_back > 0) == (not passed)


async def test_what_came_and_went_at_once_may_be_back(
    places: MakeDirectory, autojump_clock: MockClock
) -> None:
    found: Counter[str] = Counter()
    for seed in range(20):
        state = made(places())
        with running(state) as disk, marks.marking(disk.reached):
            objects = Objects(state)
            staged = objects.staging(1) / "1"
            content = contents(1)[0]
            staged.write_bytes(content)
            objects.adopt(staged, sha256(content))
            objects.remove([sha256(content)])
            disk.crash(places(), Random(seed), power=True)
            found += fates([content], disk.directory)
    assert {"missing", "whole", "zeroed"} <= found.keys()


async def test_what_was_replaced_may_be_there_in_its_former_state(
    places: MakeDirectory, autojump_clock: MockClock
) -> None:
    found: Counter[bytes] = Counter()
    content = contents(1)[0]
    damaged = bytes(len(content))
    for seed in range(20):
        state = made(places())
        objects = Objects(state)
        place = objects.path(sha256(content))
        place.parent.mkdir()
        place.write_bytes(damaged)
        with running(state) as disk, marks.marking(disk.reached):
            staged = objects.staging(1) / "1"
            staged.write_bytes(content)
            objects.adopt(staged, sha256(content))
            disk.crash(places(), Random(seed), power=True)
            found.update(objects_in(disk.directory).values())
    assert {damaged, content} <= found.keys()


async def test_a_kill_leaves_all_that_was_written(
    places: MakeDirectory, state: Path, autojump_clock: MockClock
) -> None:
    with running(state) as disk, marks.marking(disk.reached):
        async with a_site(state) as site:
            await site.take_in(SESSION, 1)
            part = site.objects.staging(7) / "archive.part"
            with part.open("wb", buffering=0) as file:
                file.write(b"half")
                disk.crash(places(), Random(1), power=False)
                file.write(b" and the rest")
            await site.pacs.delete_session("sess-1", uid(1))
        assert fates(contents(1), disk.directory) == {"whole": 4}
        assert [path.read_bytes() for path in files_in(disk.directory / "staging")] == [b"half"]
        disk.crash(places(), Random(1), power=True)
        assert fates(contents(1), disk.directory) != {"whole": 4}, "a kill is taken for a sync"


# Writes that fail, damage at rest, traces -------------------------------------------------


@pytest.mark.parametrize("mark", [Mark.BLOCK_WRITTEN, Mark.ENTRY_WRITTEN, Mark.OBJECT_MOVED])
@pytest.mark.parametrize("error", DiskError)
async def test_a_write_of_content_fails_when_it_is_told_to(
    state: Path, mark: Mark, error: DiskError, autojump_clock: MockClock
) -> None:
    code = {DiskError.FULL: errno.ENOSPC, DiskError.IO: errno.EIO}[error]
    numbers = []
    part = DiskPart.MOVES if mark is Mark.OBJECT_MOVED else DiskPart.CONTENT
    with running(state) as disk, marks.marking(disk.reached):
        disk.fail(error, DiskPart.LEDGER, times=math.inf)
        disk.fail(error, part, after=2, times=2)
        disk.fail(error, after=5)
        for number in range(8):
            try:
                marks.reached(mark)
            except OSError as failed:
                numbers.append((number, failed.errno))
            marks.reached(Mark.DOWNLOAD_DONE)
    assert numbers == [(2, code), (3, code), (5, code)]
    assert disk.writes == dict.fromkeys(DiskPart, 0) | {part: 8}


async def test_damage_at_rest_is_to_one_object(state: Path, autojump_clock: MockClock) -> None:
    kinds: Counter[bool] = Counter()
    with running(state) as disk, marks.marking(disk.reached):
        assert disk.corrupt(Random(1)) is None
        async with a_site(state) as site:
            for seed in range(20):
                await site.take_in(SESSION, 1)
                before = objects_in(state)
                damage = disk.corrupt(Random(seed))
                assert damage is not None
                kinds[damage.mask == 0] += 1
                damaged = bytearray(before[damage.name])
                if damage.mask:
                    damaged[damage.offset] ^= damage.mask
                else:
                    del damaged[damage.offset :]
                assert objects_in(state) == before | {damage.name: bytes(damaged)} != before
    assert kinds.keys() == {True, False}


async def test_traces_are_found_in_objects_the_log_and_freed_pages(
    state: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """A ledger that neither overwrites what is deleted nor rewrites its file is found out."""
    careless = tuple(
        p.replace("secure_delete = ON", "secure_delete = OFF") for p in database.PRAGMAS
    )
    assert careless != database.PRAGMAS
    monkeypatch.setattr(database, "PRAGMAS", careless)
    monkeypatch.setattr("proxy.ledger.ledger.VACUUM_BYTES", 0)
    with running(state) as disk:
        async with a_site(state) as site:
            await site.take_in(SESSION, 1)
            *objects, log = disk.traces([uid(1)])[::-1]
            assert log == "ledger.db-wal"
            assert {path.rsplit("/")[-1] for path in objects} == objects_in(state).keys()
            assert len(disk.traces([uid(2), uid(1, 1, 3)])) == 2
            assert disk.traces([uid(2)]) == []
            await site.pacs.delete_session("sess-1", uid(1))
        assert disk.traces([uid(1)]) == ["ledger.db"]
