from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from proxy.pacs.local import Objects


def stage(objects: Objects, content: bytes, number: int = 1) -> tuple[Path, str]:
    sha256 = hashlib.sha256(content).hexdigest()
    path = objects.staging(number) / f"{len(content)}.part"
    path.write_bytes(content)
    return path, sha256


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "pacs")


def test_an_object_is_named_by_its_content_and_its_owners_alone(objects: Objects) -> None:
    former = os.umask(0)
    try:
        staged, sha256 = stage(objects, b"content")
        assert objects.adopt(staged, sha256)
    finally:
        os.umask(former)
    path = objects.path(sha256)
    assert path.read_bytes() == b"content"
    assert path.parts[-3:] == ("objects", sha256[:2], sha256)
    assert mode(path) == 0o600
    assert mode(path.parent) == mode(path.parent.parent) == mode(objects.staging(1)) == 0o700
    assert not staged.exists()


def test_directories_that_others_could_enter_are_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir(mode=0o755)
    Objects(tmp_path)
    assert mode(tmp_path / "objects") == 0o700


def test_the_same_content_is_kept_once(objects: Objects) -> None:
    first, sha256 = stage(objects, b"content", 1)
    second, _ = stage(objects, b"content", 2)
    assert objects.adopt(first, sha256)
    assert not objects.adopt(second, sha256)
    assert objects.path(sha256).read_bytes() == b"content"
    assert not second.exists()
    assert objects.usage_bytes() == 7


def test_what_came_again_takes_the_place_of_what_may_be_damaged(objects: Objects) -> None:
    first, sha256 = stage(objects, b"content", 1)
    objects.adopt(first, sha256)
    objects.path(sha256).write_bytes(b"contend")
    second, _ = stage(objects, b"content", 2)
    assert not objects.adopt(second, sha256)
    assert objects.path(sha256).read_bytes() == b"content"
    assert objects.usage_bytes() == 7


def test_a_truncated_object_is_replaced(objects: Objects) -> None:
    staged, sha256 = stage(objects, b"content")
    objects.adopt(staged, sha256)
    objects.path(sha256).write_bytes(b"con")
    objects.sweep({sha256})
    staged, _ = stage(objects, b"content")
    assert objects.adopt(staged, sha256)
    assert objects.path(sha256).read_bytes() == b"content"
    assert objects.usage_bytes() == 7


@pytest.mark.parametrize(
    "name",
    ["", "../" * 30, "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 63 + "/", "a" * 64 + "\n"],
)
def test_what_is_no_hash_is_no_name(objects: Objects, name: str) -> None:
    staged, _ = stage(objects, b"content")
    for use in (objects.path, lambda n: objects.adopt(staged, n), lambda n: objects.remove([n])):
        with pytest.raises(ValueError, match="64 lower-case"):
            use(name)
    assert staged.exists()


def test_neither_a_link_nor_a_directory_nor_a_pipe_is_adopted(
    objects: Objects, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"not ours")
    secret.chmod(0o644)
    link = objects.staging(1) / "link"
    link.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic"):
        objects.adopt(link, "a" * 64)
    assert mode(secret) == 0o644
    (objects.staging(1) / "directory").mkdir()
    os.mkfifo(objects.staging(1) / "pipe")
    for name in ("directory", "pipe"):
        with pytest.raises(ValueError, match="regular file"):
            objects.adopt(objects.staging(1) / name, "a" * 64)
    assert not objects.path("a" * 64).exists()


def test_a_link_in_the_place_of_an_object_is_replaced_not_followed(
    objects: Objects, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"content")
    staged, sha256 = stage(objects, b"content")
    objects.path(sha256).parent.mkdir()
    objects.path(sha256).symlink_to(outside)
    assert not objects.has(sha256, 7)
    assert not objects.is_whole(sha256, 7)
    assert objects.adopt(staged, sha256)
    assert not objects.path(sha256).is_symlink()
    assert outside.read_bytes() == b"content"


def test_a_staging_directory_that_is_a_link_is_refused(objects: Objects, tmp_path: Path) -> None:
    objects.staging(1).rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pacs" / "staging" / "1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"director|symbolic"):
        objects.staging(1)


def test_removing_counts_what_was_there(objects: Objects) -> None:
    pairs = [stage(objects, bytes([n]) * (n + 1), n) for n in range(3)]
    for staged, sha256 in pairs:
        objects.adopt(staged, sha256)
    assert objects.usage_bytes() == 6
    assert objects.remove([pairs[2][1], "f" * 64, pairs[0][1]]) == 2
    assert objects.remove([pairs[2][1]]) == 0
    assert objects.usage_bytes() == 2
    assert objects.has(pairs[1][1], 2)


def test_an_object_is_whole_only_byte_for_byte(objects: Objects) -> None:
    staged, sha256 = stage(objects, b"content")
    objects.adopt(staged, sha256)
    assert objects.has(sha256, 7)
    assert objects.is_whole(sha256, 7)
    assert not objects.has(sha256, 8)
    objects.path(sha256).write_bytes(b"c0ntent")
    assert objects.has(sha256, 7)
    assert not objects.is_whole(sha256, 7)
    objects.remove([sha256])
    assert not objects.is_whole(sha256, 7)


def test_a_sweep_leaves_what_is_known_and_nothing_else(objects: Objects, tmp_path: Path) -> None:
    pairs = [stage(objects, bytes([n]) * (n + 1), n) for n in range(3)]
    for staged, sha256 in pairs:
        objects.adopt(staged, sha256)
    known, stranger, misplaced = (sha256 for _, sha256 in pairs)
    root = tmp_path / "pacs"
    (root / "objects" / "zz").mkdir()
    objects.path(misplaced).rename(root / "objects" / "zz" / misplaced)
    (root / "objects" / "note.txt").write_text("x")
    (root / "objects" / known[:2] / "deep" / "er").mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (root / "objects" / "aa").symlink_to(outside) if known[:2] != "aa" else None
    (root / "staging" / "link").symlink_to(outside)
    stage(objects, b"stale", 8)

    swept = objects.sweep({known, misplaced})

    left = {p.relative_to(root) for p in root.rglob("*") if not p.is_dir() or p.is_symlink()}
    assert left == {Path("objects", known[:2], known)}
    assert (outside / "precious").exists()
    assert (swept.objects, swept.bytes, objects.usage_bytes()) == (1, 1, 1)
    assert not objects.has(stranger, 2)


def test_a_finished_download_leaves_no_staging(objects: Objects, tmp_path: Path) -> None:
    stage(objects, b"rest", 5)
    objects.clear_staging(5)
    objects.clear_staging(6)
    assert list((tmp_path / "pacs" / "staging").iterdir()) == []
