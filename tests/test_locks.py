from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PIN = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?P<rest>(?:[^\n]*\\\n)*[^\n]*)", re.MULTILINE
)


def toml(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / name).read_text())


def locked() -> dict[tuple[str, str], Any]:
    packages = toml("uv.lock")["package"]
    return {(package["name"], package.get("version", "")): package for package in packages}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[; ]", each)[0] for each in requirements}


@pytest.mark.parametrize("name", ["run", "dev"])
def test_the_requirements_are_those_of_the_lock_hash_by_hash(name: str) -> None:
    packages = locked()
    pins = list(PIN.finditer((ROOT / f"requirements/{name}.txt").read_text()))
    assert len(pins) > 20
    for pin in pins:
        package = packages[pin["name"], pin["version"]]
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        hashes = set(re.findall(r"--hash=(sha256:[0-9a-f]{64})", pin["rest"]))
        assert hashes
        assert hashes <= {file["hash"] for file in files}


def test_everything_the_project_asks_for_is_locked() -> None:
    project = toml("pyproject.toml")
    groups = project["dependency-groups"]
    wanted = names(project["project"]["dependencies"])
    pins = {
        name: {pin["name"] for pin in PIN.finditer((ROOT / f"requirements/{name}.txt").read_text())}
        for name in ("run", "dev")
    }
    assert wanted | names(groups["build"]) <= pins["run"] <= pins["dev"]
    assert names([each for group in groups.values() for each in group]) <= pins["dev"]
    assert wanted <= {package["name"] for package in toml("pylock.toml")["packages"]}


@pytest.mark.parametrize(
    "name", ["uv.lock", "pylock.toml", "requirements/run.txt", "requirements/dev.txt"]
)
def test_a_lock_names_no_index_but_the_public_one(name: str) -> None:
    hosts = set(re.findall(r"(?:https?|file)://([^/\s\"']*)", (ROOT / name).read_text()))
    assert hosts <= {"pypi.org", "files.pythonhosted.org"}
