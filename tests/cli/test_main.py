from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from proxy import cli
from proxy.cli.exits import Exit, exit_of
from proxy.cli.failures import tell
from proxy.errors import (
    AssociationRejected,
    ConfigError,
    LedgerError,
    LinkRefused,
    ProxyError,
    SecretExposed,
    StateDirectoryError,
)

PATIENT = "ZZCANARY^PHI"
URL = {"ITH_URL": "https://ith.example.org"}
READY = URL | {"ITH_TOKEN": "pk_canary"}


def ith_proxy(
    *arguments: str | Path, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proxy", *map(str, arguments)],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | (environ or {}),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_help_comes_without_importing_a_command() -> None:
    code = (
        "import sys; from proxy.cli import main; main(['--help']);"
        "print([m for m in ('trio', 'proxy.settings', 'rich', 'pydicom') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in cli.COMMANDS:
        assert f"  {name} " in done.stdout


def test_help_lists_every_exit_code() -> None:
    text = CliRunner().invoke(cli.group, ["--help"]).output
    for code in Exit:
        assert f"  {int(code)} " in text
        assert code.sentence in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_overview_says_what_the_command_says(name: str) -> None:
    command = cli.group.get_command(click.Context(cli.group), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(limit=100) == cli.COMMANDS[name].line


def test_a_wrong_command_line_ends_with_2() -> None:
    for arguments in [["nonsense"], ["run", "--nonsense"], ["run", "--log-format", "x"]]:
        done = ith_proxy(*arguments)
        assert done.returncode == Exit.USAGE
        assert "Error: " in done.stderr


def test_version_names_itself_and_what_it_stands_on() -> None:
    done = ith_proxy("version")
    assert done.returncode == Exit.OK
    assert done.stdout.startswith("ith-proxy 2.")
    assert "trio " in done.stdout


def test_run_without_settings_says_what_is_missing() -> None:
    done = ith_proxy("run")
    assert done.returncode == Exit.CONFIG
    assert done.stderr == (
        "Error: ith.url is not set.\n"
        "       Set the environment variable ITH_URL, or url below [ith] in the settings file.\n"
        "Error: There is no proxy key.\n"
        "       Put the key in the environment variable ITH_TOKEN, "
        "or name its file in ith.token_file.\n"
    )


def test_run_with_an_open_key_file_is_refused_with_77(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("pk_canary")
    key.chmod(0o644)
    done = ith_proxy("run", environ=URL | {"ITH_PROXY__ITH__TOKEN_FILE": str(key)})
    assert done.returncode == Exit.REFUSED
    assert f"chmod 600 {key}" in done.stderr
    assert "pk_canary" not in done.stderr


def test_run_with_no_place_for_its_state_ends_with_73(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = ith_proxy("run", "--state-dir", tmp_path / "file" / "state", environ=READY)
    assert done.returncode == Exit.STATE_DIRECTORY
    assert "--state-dir" in done.stderr


def test_config_show_is_a_settings_file_that_tells_origins(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[dicom]\nretry_count = 9\n")
    done = ith_proxy("config", "show", "--origin", "--config", file, environ=READY)
    assert done.returncode == Exit.OK
    lines = [line.split("# ") for line in done.stdout.splitlines()]
    origins = {line[0].strip(): line[1] for line in lines if len(line) == 2}
    assert origins["retry_count = 9"] == f"file: {file}"
    assert origins['url = "https://ith.example.org"'] == "environment: ITH_URL"
    assert origins["cancel_seconds = 3"] == "default"
    assert "proxy key        environment: ITH_TOKEN" in done.stdout
    assert "pk_canary" not in done.stdout
    again = tmp_path / "again.toml"
    again.write_text(done.stdout)
    shown = ith_proxy("config", "show", "--config", again)
    assert (
        shown.stdout.split("\n\n", 1)[1]
        == ith_proxy("config", "show", "--config", file, environ=READY).stdout.split("\n\n", 1)[1]
    )


def test_config_show_needs_nothing() -> None:
    done = ith_proxy("config", "show")
    assert done.returncode == Exit.OK
    assert "proxy key        not given" in done.stdout


def test_config_validate_says_yes_or_what_is_wrong() -> None:
    good = ith_proxy("config", "validate", environ=READY)
    assert good.returncode == Exit.OK
    assert good.stdout.startswith("The settings are good.\n")
    assert "pk_canary" not in good.stdout
    bad = ith_proxy("config", "validate", environ=READY | {"ITH_URL": "http://10.0.0.1"})
    assert bad.returncode == Exit.CONFIG
    assert bad.stdout == ""
    assert "in clear" in bad.stderr


def test_config_reference_can_be_used_as_a_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(ith_proxy("config", "reference").stdout)
    assert ith_proxy("config", "validate", "--config", file, environ=READY).returncode == Exit.OK


def test_options_beat_the_environment(tmp_path: Path) -> None:
    environ = READY | {"STATE_DIRECTORY": "/elsewhere"}
    done = ith_proxy("config", "show", "--state-dir", tmp_path, environ=environ)
    assert f"state directory  {tmp_path} (option: --state-dir)" in done.stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 78),
        (SecretExposed("x"), 77),
        (StateDirectoryError("x"), 73),
        (LedgerError("x"), 74),
        (LinkRefused("x"), 77),
        (AssociationRejected(1, 1, 1, "x"), 69),
        (ProxyError("x"), 1),
    ],
)
def test_each_error_has_its_code(error: ProxyError, code: int) -> None:
    assert exit_of(error) == code
    assert tell(ExceptionGroup("nursery", [ExceptionGroup("inner", [error])])) == code


def test_a_defect_is_told_by_type_and_place_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError(PATIENT)

    with pytest.raises(ValueError, match="ZZ") as caught:
        fail()
    assert tell(caught.value) == Exit.DEFECT
    mixed = ExceptionGroup("g", [caught.value, ConfigError("Foreseen.")])
    assert tell(mixed) == Exit.DEFECT
    told = capsys.readouterr().err
    assert "ValueError" in told
    assert " fail." in told
    assert "Foreseen." in told
    assert "Traceback" not in told
    assert PATIENT not in told


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda *_: interrupted)
    assert cli.main(["run"]) == Exit.INTERRUPTED
