from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import tools

ROOT = Path(__file__).parents[1]
NEEDY = """
import pytest

@pytest.mark.needs("storescp-of-nowhere")
def test_with_a_peer():
    pass
"""
LEAKY = """
import threading

def test_that_leaves_a_thread():
    threading.Thread(target=threading.Event().wait, args=(4,), name="left-over").start()
"""
IMPURE = """
import socket, subprocess, sys, threading
import pytest

pytestmark = pytest.mark.pure

def test_with_a_thread():
    threading.Thread(target=print).start()

def test_with_a_program():
    subprocess.run([sys.executable, "-V"])

def test_with_a_server():
    socket.create_server(("127.0.0.1", 0))

def test_with_a_client():
    socket.create_connection(("127.0.0.1", 9))

def test_with_nothing():
    pass
"""


def run_pytest(tmp_path: Path, text: str, hook: str, **environ: str) -> str:
    (tmp_path / "conftest.py").write_text(f"from tests.conftest import {hook}\n")
    (tmp_path / "test_it.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n needs(tool): x\n pure: x\n")
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:randomly", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(tmp_path)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_a_missing_program_skips_and_says_what_to_install(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, NEEDY, "pytest_runtest_setup")
    assert "1 skipped" in output
    assert "storescp-of-nowhere is not installed: install it" in output


def test_where_nothing_may_be_left_out_a_missing_program_fails(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, NEEDY, "pytest_runtest_setup", ITH_PROXY_REQUIRE_TOOLS="1")
    assert "1 skipped" not in output
    assert "1 error" in output


def test_a_thread_left_running_fails_its_test(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, LEAKY, "no_thread_left")
    assert "the test left left-over running" in output


def test_what_is_marked_as_pure_is_pure(tmp_path: Path) -> None:
    output = run_pytest(tmp_path, IMPURE, "pure_is_pure")
    assert "4 failed, 1 passed" in output
    assert output.count("Failed: a pure test used a socket, a program or a thread") >= 4


def test_a_program_is_found_beyond_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "SYSTEM_DIRECTORIES", (str(tmp_path),))
    assert tools.find("storescp-of-nowhere") is None
    program = tmp_path / "storescp-of-nowhere"
    program.touch(0o755)
    assert tools.find("storescp-of-nowhere") == str(program)


def test_a_program_of_the_virtual_environment_is_not_the_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "storescp-of-nowhere").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert tools.find("storescp-of-nowhere")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert tools.find("storescp-of-nowhere") is None


def test_each_known_program_says_its_package() -> None:
    assert tools.how_to_install("findscu").startswith("findscu is not installed: apt install dcmtk")
