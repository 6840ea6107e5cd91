from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.errors import ConfigError, SecretExposed, StateDirectoryError
from proxy.settings import (
    Secret,
    Settings,
    SettingsError,
    in_force,
    load,
    prepare,
    reference,
    reference_page,
)

SECTIONS = ["ith", "dicom", "dispatch", "limits", "service", "local", "log"]
TOKEN = "pk_canary+/="
READY = {"ITH_URL": "https://ith.example.org", "ITH_TOKEN": TOKEN}

WRONG = [
    (
        "[dicom]\ncancel_seconds = 99",
        "dicom.cancel_seconds is 99; it must be a number of seconds from 0 to 60.",
    ),
    (
        '[dicom]\ncancel_seconds = "3"',
        'dicom.cancel_seconds is "3"; it must be a number of seconds from 0 to 60.',
    ),
    (
        "[dicom]\nretry_count = 1.5",
        "dicom.retry_count is 1.5; it must be a whole number from 0 to 100.",
    ),
    (
        "[dicom]\nretry_count = true",
        "dicom.retry_count is true; it must be a whole number from 0 to 100.",
    ),
    (
        "[ith]\nping_seconds = nan",
        "ith.ping_seconds is nan; it must be a number of seconds from 1 to 3600.",
    ),
    (
        "[ith]\nping_seconds = inf",
        "ith.ping_seconds is inf; it must be a number of seconds from 1 to 3600.",
    ),
    ("[ith]\nhealth_update = 1", "ith.health_update is 1; it must be true or false."),
    ("[ith]\nurl = 7", "ith.url is 7; it must be text."),
    (
        "[ith]\nmax_frame_bytes = 1",
        "ith.max_frame_bytes is 1; it must be a whole number of bytes from 65536 to 268_435_456.",
    ),
    ('[ith]\narchive_format = "rar"', 'ith.archive_format is "rar"; it must be "zip" or "tar.gz".'),
    (
        '[ith]\ndownload_hosts = ["a/b"]',
        'ith.download_hosts is ["a/b"]; it must be host names, each exact or as *.example.org.',
    ),
    (
        '[dispatch]\nstatus_detail = "all"',
        'dispatch.status_detail is "all"; it must be "both", "per-node" or "aggregate".',
    ),
    (
        '[dicom]\nae_title = "A\\\\B"',
        r'dicom.ae_title is "A\\B"; it must be 1 to 16 printable ASCII characters, no backslash.',
    ),
    (
        '[dicom]\nae_title = "A\u200bB\u00a0"',
        r'dicom.ae_title is "A\u200bB\u00a0"; '
        "it must be 1 to 16 printable ASCII characters, no backslash.",
    ),
    (
        '[dicom]\nae_title = "   "',
        'dicom.ae_title is "   "; it must be 1 to 16 printable ASCII characters, no backslash.',
    ),
    (
        '[dicom]\nae_title = "ABCDEFGHIJKLMNOPQ"',
        'dicom.ae_title is "ABCDEFGHIJKLMNOPQ"; '
        "it must be 1 to 16 printable ASCII characters, no backslash.",
    ),
    (
        "[limits]\ndownloads = {a = 1}",
        "limits.downloads is a table; it must be a whole number from 1 to 32.",
    ),
    ("[ith]\nurl = 2026-01-01", "ith.url is 2026-01-01; it must be text."),
]

UNKNOWN = [
    ("[dicom]\nae_titel = 1", "dicom.ae_titel is not a setting.", "Did you mean dicom.ae_title?"),
    (
        "[dicom]\ndrain_seconds = 1",
        "dicom.drain_seconds is not a setting.",
        "Did you mean service.drain_seconds?",
    ),
    (
        "[log]\nzzz = 1",
        "log.zzz is not a setting.",
        "`ith-proxy config reference` lists all settings.",
    ),
    ("[dicmo]\nx = 1", "[dicmo] is not a section.", "Did you mean [dicom]?"),
    ("retry_count = 1", "retry_count stands outside of a table.", "It belongs below [dicom]."),
    ("dicom = 1", "dicom must be a table.", "Write [dicom]."),
    ("[qqq]\nx = 1", "[qqq] is not a section.", "`ith-proxy config reference` lists all settings."),
]

BAD_URLS = [
    ("http://ith.example.org", "in clear"),
    ("http://10.0.0.1:8000", "in clear"),
    ("http://localhost.example.org", "in clear"),
    ("http://127.0.0.1.example.org", "in clear"),
    ("https://user:hunter2@ith.example.org", "user name or password"),
    ("https://ith.example.org/?proxy_key=hunter2", "query or fragment"),
    ("https://ith.example.org/#hunter2", "query or fragment"),
    ("wss://ith.example.org", "not an https address"),
    ("ith.example.org", "not an https address"),
    ("https://", "not an https address"),
    ("https://ith.example.org:port", "not an address"),
    ("https://[::1", "not an address"),
    ("https://ith example.org", "not an https address"),
]


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def read(
    environ: Mapping[str, str] | None = None,
    *,
    file: Path | None = None,
    flags: Mapping[str, tuple[str, object]] | None = None,
    runnable: bool = True,
) -> Settings:
    return load(
        config=file,
        flags=flags or {},
        environ=READY if environ is None else environ,
        runnable=runnable,
    )


def problem_of(text: str, tmp_path: Path) -> ConfigError:
    file = write(tmp_path / "config.toml", text)
    with pytest.raises(ConfigError) as caught:
        read(file=file)
    assert not isinstance(caught.value, SettingsError)
    assert str(caught.value).startswith(str(file))
    return caught.value


def test_two_variables_are_enough_to_run() -> None:
    settings = read()
    assert settings.ith.url == "https://ith.example.org"
    assert settings.token.reveal() == TOKEN


def test_the_key_does_not_show_itself() -> None:
    settings = read()
    assert TOKEN not in repr(settings) + str(settings) + f"{settings.token}" + repr(settings.token)
    assert not Secret("")
    assert Secret(TOKEN)


@pytest.mark.parametrize("flag", [None, 4.0])
@pytest.mark.parametrize("variable", [None, "3"])
@pytest.mark.parametrize("line", [None, "cancel_seconds = 2"])
def test_flag_beats_environment_beats_file_beats_default(
    flag: float | None, variable: str | None, line: str | None, tmp_path: Path
) -> None:
    file = write(tmp_path / "config.toml", f"[dicom]\n{line or ''}\n[log]\nlevel = 'error'")
    environ = dict(READY)
    if variable:
        environ["ITH_PROXY__DICOM__CANCEL_SECONDS"] = variable
    flags = {"dicom.cancel_seconds": ("--cancel", flag)} if flag else {}
    settings = read(environ, file=file, flags=flags)
    value, origin = next(
        (value, origin)
        for value, origin in [
            (flag, "option: --cancel"),
            (variable, "environment: ITH_PROXY__DICOM__CANCEL_SECONDS"),
            (2 if line else None, f"file: {file}"),
            (3, "default"),
        ]
        if value
    )
    assert settings.dicom.cancel_seconds == float(value)
    assert settings.log.level == "error"
    rows = {(row.section, row.line.split()[0]): row.origin for row in in_force(settings)}
    assert rows["dicom", "cancel_seconds"] == origin


def test_the_long_name_of_a_variable_beats_the_short_one() -> None:
    environ = READY | {"ITH_PROXY__ITH__URL": "https://long.example.org"}
    assert read(environ).ith.url == "https://long.example.org"


def test_the_reported_address_has_the_old_variable() -> None:
    assert read(READY | {"PROXY_HOST_IP": "192.0.2.10"}).local.ip_address == "192.0.2.10"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read(READY | {"ITH_PROXY__DICOM__AE_TITLE": ""}).dicom.ae_title == "DICOM_PROXY"


def test_variables_hold_lists_numbers_and_truths() -> None:
    environ = READY | {
        "ITH_PROXY__ITH__DOWNLOAD_HOSTS": "a.example.org, *.b.example.org",
        "ITH_PROXY__ITH__HEARTBEAT": "false",
        "ITH_PROXY__LIMITS__DOWNLOADS": "7",
    }
    settings = read(environ)
    assert settings.ith.download_hosts == ("a.example.org", "*.b.example.org")
    assert settings.ith.heartbeat is False
    assert settings.limits.downloads == 7


@pytest.mark.parametrize(("text", "sentence"), WRONG)
def test_a_wrong_value_is_told_in_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    problem = problem_of(text, tmp_path)
    assert str(problem) == f"{tmp_path / 'config.toml'}: {sentence}"


@pytest.mark.parametrize(("text", "sentence", "hint"), UNKNOWN)
def test_an_unknown_name_leads_to_the_nearest(
    text: str, sentence: str, hint: str, tmp_path: Path
) -> None:
    problem = problem_of(text, tmp_path)
    assert str(problem) == f"{tmp_path / 'config.toml'}: {sentence}"
    assert problem.hint == hint


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("ITH_PROXY__DICOM__AE_TITEL", "Did you mean ITH_PROXY__DICOM__AE_TITLE?"),
        ("ITH_PROXY__AE_TITLE", "`ith-proxy config reference` lists all settings."),
        ("ITH_PROXY__DICMO__AE_TITLE", "Did you mean ITH_PROXY__DICOM__AE_TITLE?"),
    ],
)
def test_an_unknown_variable_leads_to_the_nearest(variable: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(READY | {variable: "x"})
    assert str(caught.value) == f"{variable} is not a setting."
    assert caught.value.hint == hint


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^ITH_PROXY__DICOM__RETRY_COUNT: dicom.retry_count is "):
        read(READY | {"ITH_PROXY__DICOM__RETRY_COUNT": "many"})


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    problem = problem_of(f'[log]\nlevel = "{"x" * 5000}"', tmp_path)
    assert len(str(problem)) < 300


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    file = write(tmp_path / "config.toml", "[log]\nlevl = 1\nformat = 2\n[dicom]\nretry_count = -1")
    with pytest.raises(SettingsError) as caught:
        read(READY | {"ITH_PROXY__X__Y": "1"}, file=file)
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize("name", ["token", "proxy_key", "key"])
def test_a_key_inside_the_settings_is_refused_and_not_repeated(name: str, tmp_path: Path) -> None:
    problem = problem_of(f'[ith]\n{name} = "{TOKEN}"', tmp_path)
    assert "does not belong in settings" in str(problem)
    assert "ITH_TOKEN" in problem.hint
    assert TOKEN not in str(problem)
    with pytest.raises(ConfigError, match="does not belong in settings"):
        read(READY | {f"ITH_PROXY__ITH__{name.upper()}": TOKEN})


@pytest.mark.parametrize("text", ["[ith", "a = ", "[ith]\nurl = https://ith.example.org"])
def test_broken_toml_is_told_with_its_line(text: str, tmp_path: Path) -> None:
    assert re.search(r"\(at (line \d+|end of document)", str(problem_of(text, tmp_path)))


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        read(file=file)


def test_a_named_file_must_exist_and_an_unnamed_need_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read(file=tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="No such file"):
        read(READY | {"ITH_PROXY_CONFIG": str(tmp_path / "none.toml")})
    assert read(READY | {"CONFIGURATION_DIRECTORY": str(tmp_path)}).dicom.retry_count == 3


def test_the_file_of_the_configuration_directory_is_found(tmp_path: Path) -> None:
    file = write(tmp_path / "config.toml", "[dicom]\nretry_count = 9")
    settings = read(READY | {"CONFIGURATION_DIRECTORY": str(tmp_path)})
    assert settings.dicom.retry_count == 9
    assert settings.config_file == file


@pytest.mark.parametrize(("url", "reason"), BAD_URLS)
def test_a_bad_address_is_refused_without_showing_secrets(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        read(READY | {"ITH_URL": url})
    assert "hunter2" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "https://ith.example.org/base/",
        "https://192.0.2.1:8443",
        "http://localhost:8000",
        "http://127.8.9.1",
        "http://[::1]:80",
        "http://demo.localhost",
    ],
)
def test_a_good_address_is_taken(url: str) -> None:
    assert read(READY | {"ITH_URL": url}).ith.url == url


def test_what_the_site_does_not_set_of_itself_is_said_to_stay_as_ith_has_it() -> None:
    local = reference().split("[local]")[1].split("[log]")[0]
    assert local.count("the one configured in ITH") == 3
    assert local.count("the address used towards ITH") == 1


def test_plain_http_can_be_allowed() -> None:
    environ = READY | {"ITH_URL": "http://10.0.0.1", "ITH_PROXY__ITH__ALLOW_INSECURE": "true"}
    assert read(environ).ith.url == "http://10.0.0.1"


def test_address_and_key_are_both_asked_for() -> None:
    with pytest.raises(SettingsError) as caught:
        read({})
    assert [str(each) for each in caught.value.problems] == [
        "ith.url is not set.",
        "There is no proxy key.",
    ]
    assert read({}, runnable=False).ith.url == ""


def test_the_certificates_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ith\.ca_file"):
        read(READY | {"ITH_PROXY__ITH__CA_FILE": str(tmp_path / "none.pem")})


def with_key_file(path: Path | str) -> dict[str, str]:
    return {"ITH_URL": "https://ith.example.org", "ITH_PROXY__ITH__TOKEN_FILE": str(path)}


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_the_key_is_read_from_a_file_of_its_owner(mode: int, tmp_path: Path) -> None:
    file = write(tmp_path / "key", f"{TOKEN}\n", mode)
    assert read(with_key_file(file)).token.reveal() == TOKEN


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o660, 0o666, 0o601])
def test_a_key_file_open_to_others_is_refused(mode: int, tmp_path: Path) -> None:
    file = write(tmp_path / "key", TOKEN, mode)
    with pytest.raises(SecretExposed, match=f"mode {mode:04o}") as caught:
        read(with_key_file(file))
    assert f"chmod 600 {file}" in caught.value.hint


def test_a_link_does_not_hide_the_mode_of_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(write(tmp_path / "key", TOKEN, 0o644))
    with pytest.raises(SecretExposed):
        read(with_key_file(tmp_path / "link"))


@pytest.mark.parametrize(
    "content", ["", "\n", "two words", "two\nlines", "schlüssel", "\x00", "x" * 5000]
)
def test_what_is_no_key_is_refused_and_not_shown(content: str, tmp_path: Path) -> None:
    file = write(tmp_path / "key", content)
    with pytest.raises(ConfigError, match="proxy key") as caught:
        read(with_key_file(file))
    assert not content.strip() or content not in str(caught.value) + caught.value.hint


def test_a_key_file_must_be_a_file_that_is_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in [tmp_path, tmp_path / "pipe"]:
        with pytest.raises(ConfigError, match="not a file"):
            read(with_key_file(path))
    with pytest.raises(ConfigError, match="No such file"):
        read(with_key_file(tmp_path / "none"))


UNUSABLE = "x" * 300
"""A name that no file can have: as in a directory that may not be searched, asking is an error."""


def test_a_place_for_settings_that_cannot_be_looked_into_is_named(tmp_path: Path) -> None:
    directory = tmp_path / UNUSABLE
    with pytest.raises(ConfigError, match="cannot be read: File name too long") as caught:
        load(environ=READY | {"CONFIGURATION_DIRECTORY": str(directory)})
    assert str(directory / "config.toml") in str(caught.value)


def test_certificates_that_cannot_be_looked_for_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which cannot be read: File name too long"):
        read(READY | {"ITH_PROXY__ITH__CA_FILE": str(tmp_path / UNUSABLE)})


def test_a_credential_of_systemd_is_read_whatever_its_mode(tmp_path: Path) -> None:
    write(tmp_path / "ith-token", TOKEN, 0o440)
    environ = with_key_file("credential:ith-token") | {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read(environ).token.reveal() == TOKEN


def test_a_credential_needs_systemd() -> None:
    with pytest.raises(ConfigError, match="passed no credentials") as caught:
        read(with_key_file("credential:ith-token"))
    assert "LoadCredential=ith-token:" in caught.value.hint


def test_a_credential_cannot_leave_its_directory(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    write(tmp_path / "key", TOKEN)
    environ = with_key_file("credential:../key") | {
        "CREDENTIALS_DIRECTORY": str(tmp_path / "inside")
    }
    with pytest.raises(ConfigError):
        read(environ)


def test_the_variable_of_the_key_beats_its_file(tmp_path: Path) -> None:
    environ = with_key_file(write(tmp_path / "key", "other")) | {"ITH_TOKEN": f" {TOKEN}\n"}
    assert read(environ).token.reveal() == TOKEN


def test_the_state_directory_has_three_sources(tmp_path: Path) -> None:
    given = load(state_dir=tmp_path, environ=READY | {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"})
    assert given.state_dir == tmp_path
    given = load(environ=READY | {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"})
    assert given.state_dir == Path("/var/lib/a")
    assert read().state_dir.name == "ith-proxy"


def test_the_state_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    prepare(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    wide = tmp_path / "wide"
    wide.mkdir()
    wide.chmod(0o755)
    prepare(wide)
    assert wide.stat().st_mode & 0o777 == 0o750


def test_a_state_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    for path in [write(tmp_path / "file", ""), tmp_path / "file" / "below"]:
        with pytest.raises(StateDirectoryError, match=str(path)):
            prepare(path)


def keys() -> list[tuple[str, msgspec.structs.FieldInfo, Any]]:
    return [
        (section, field, getattr(getattr(Settings(), section), field.name))
        for section in SECTIONS
        for field in msgspec.structs.fields(type(getattr(Settings(), section)))
    ]


def test_the_reference_has_every_setting_once_with_a_sentence_above() -> None:
    lines = reference().splitlines()
    described = []
    section = ""
    for above, line in pairwise(lines):
        if line.startswith("["):
            section = line.strip("[]")
        if re.match(r"#\w+ = ", line):
            described.append((section, line[1:].partition(" = ")[0]))
            assert re.fullmatch(r"# \S.+\.", above), line
    assert described == [(section, field.name) for section, field, _ in keys()]


def test_every_duration_and_size_says_its_unit() -> None:
    for line in reference().splitlines():
        if re.match(r"#\w*_seconds\w* = ", line):
            assert "# seconds, " in line
        if re.match(r"#\w*_bytes = ", line):
            assert "# bytes, " in line


def test_the_page_in_the_documents_is_what_the_program_prints() -> None:
    page = Path(__file__).parents[2] / "docs/configuration.md"
    assert page.read_text() == reference_page()


def test_the_reference_is_a_settings_file_of_the_defaults(tmp_path: Path) -> None:
    live = [
        line.removeprefix("#") if line.startswith("#") and not line.startswith("# ") else line
        for line in reference().splitlines()
    ]
    text = "\n".join(live)
    tables = tomllib.loads(text)
    assert sum(map(len, tables.values())) == len(keys())
    settings = read({}, file=write(tmp_path / "config.toml", text), runnable=False)
    for section in SECTIONS:
        assert getattr(settings, section) == getattr(Settings(), section)


def test_every_default_is_within_its_own_range() -> None:
    for _, field, value in keys():
        kind = msgspec.inspect.type_info(field.type)
        assert kind is not None
        assert msgspec.convert(value, field.type, strict=True) == value


def test_what_is_in_force_is_a_settings_file_too(tmp_path: Path) -> None:
    given = read(READY | {"ITH_PROXY__ITH__DOWNLOAD_HOSTS": f"{'a' * 60}.org,{'b' * 60}.org"})
    text = "\n".join(f"{row.section}.{row.line}" for row in in_force(given))
    again = read(file=write(tmp_path / "config.toml", text))
    assert again.ith == given.ith
