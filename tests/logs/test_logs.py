from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from proxy import logs
from proxy.errors import LinkRefused, NodeUnreachable
from proxy.logs import fields
from tests.support.waiting import PATIENCE_S

KEY = "pk_canary/+=&key"
SOURCE = Path(logs.__file__).parents[1]
PATIENT = "ZZCANARY^PHI"


class Mood(Enum):
    GOOD = "All is well."


class Log(io.StringIO):
    @property
    def text(self) -> str:
        return self.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def last(self) -> dict[str, Any]:
        return self.lines[-1]


class Terminal(Log):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def own_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(fields, "_hash_key", b"k" * 32)


@pytest.fixture
def log() -> Log:
    stream = Log()
    logs.configure(level="debug", format="json", key=KEY, stream=stream)
    return stream


def test_a_line_has_time_level_event_and_its_fields(log: Log) -> None:
    logs.log("link.online", host="ith.example.org", attempt=3, clean=True, seconds=1.23456)
    line = log.last
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "event": "link.online",
        "host": "ith.example.org",
        "attempt": 3,
        "clean": True,
        "seconds": 1.235,
    }


def test_none_is_a_field_not_there_and_a_member_goes_by_its_name(log: Log) -> None:
    logs.log("x.happened", node_id=None, state=Mood.GOOD)
    assert "node_id" not in log.last
    assert log.last["state"] == "GOOD"


WRONG: list[tuple[str, Any]] = [
    ("patient_name", PATIENT),
    ("session_label", "x"),
    ("token", KEY),
    ("attempt", "3"),
    ("attempt", True),
    ("attempt", 1.5),
    ("seconds", "3"),
    ("seconds", True),
    ("node_id", 7),
    ("node_id", b"x"),
    ("clean", 1),
    ("instance_uid", 1.2),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_what_is_not_allowed_raises_in_tests(name: str, value: Any, log: Log) -> None:
    with pytest.raises(logs.NotAllowed, match=name) as caught:
        logs.log("x.happened", **{name: value})
    assert PATIENT not in str(caught.value)
    assert log.text == ""


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_what_is_not_allowed_is_left_out_and_counted_in_production(
    name: str, value: Any, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "STRICT", False)
    logs.log("x.happened", count=1, **{name: value})
    assert log.last.keys() == {"time", "level", "event", "count"}
    assert dict(logs.DROPPED) == {name: 1}


def test_an_event_is_a_name_and_not_a_sentence(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(logs.NotAllowed):
        logs.log(f"Stored {PATIENT}")
    monkeypatch.setattr(fields, "STRICT", False)
    logs.log(f"Stored {PATIENT}")
    assert log.last["event"] == "unnamed"
    assert PATIENT not in log.text


def test_uids_are_hashed_alike_and_need_the_key(log: Log) -> None:
    for uid in ("1.2.3", "1.2.3", "1.2.4"):
        logs.log("x.happened", instance_uid=uid)
    first, second, other = (line["instance_uid"] for line in log.lines)
    assert first == second == logs.hashed("1.2.3") != other
    assert re.fullmatch(r"[0-9a-f]{16}", first)
    assert "1.2.3" not in log.text
    logs.configure(level="info", format="json", key="another", stream=log)
    assert logs.hashed("1.2.3") != first
    logs.configure(level="info", format="json", key=KEY, stream=log)
    assert logs.hashed("1.2.3") == first


@pytest.mark.parametrize("name", ["sop_class", "transfer_syntax"])
@pytest.mark.parametrize(
    ("uid", "written"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2"),
        ("2.25." + "1" * 59, "2.25." + "1" * 59),
        ("2.25." + "1" * 60, "(a UID that breaks PS3.5 9.1)"),
        (f"1.2.{PATIENT}", "(a UID that breaks PS3.5 9.1)"),
        ("1.2.07", "(a UID that breaks PS3.5 9.1)"),
        ("1.2.", "(a UID that breaks PS3.5 9.1)"),
        ("1.2 ", "(a UID that breaks PS3.5 9.1)"),
        ("19991231", "(a UID that breaks PS3.5 9.1)"),
    ],
)
def test_a_uid_that_may_hold_a_name_is_masked(name: str, uid: str, written: str, log: Log) -> None:
    logs.log("instance.unsent", **{name: uid})  # type: ignore[arg-type]
    assert log.last[name] == written


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("level", ["info", "error"])
def test_the_key_is_never_written(form: logs.Format, level: logs.Level) -> None:
    stream = Log()
    logs.configure(level="info", format=form, key=KEY, stream=stream)
    spelled = [KEY, quote(KEY), quote(KEY, safe=""), quote_plus(KEY)]
    for word in spelled:
        logs.log("link.lost", level=level, reason=f"GET wss://ith/ws?proxy_key={word}&x=1")
        logs.log("link.lost", level=level, error=LinkRefused(f"It is {word}.", hint=word))
        group = ExceptionGroup("g", [LinkRefused(f"It is {word}.")])
        logs.log("link.lost", level=level, error=group)
        logging.getLogger(f"trio_websocket.{word}").error("to %s", word)
    for word in spelled:
        assert word not in stream.text
    assert stream.text.count("[key]") >= 4 * len(spelled)


def test_bound_fields_reach_child_tasks_and_end(log: Log) -> None:
    async def child() -> None:
        logs.log("child.ran", attempt=1)

    async def parent() -> None:
        with logs.bound(correlation_id="corr_1", node_id="n1"), logs.bound(node_id="n2"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
                nursery.start_soon(trio.lowlevel.checkpoint)
        logs.log("parent.ended")

    trio.run(parent)
    child_line, parent_line = log.lines
    assert child_line["correlation_id"] == "corr_1"
    assert child_line["node_id"] == "n2"
    assert "correlation_id" not in parent_line


def throw(error: Exception) -> None:
    raise error


def raised(error: Exception) -> Exception:
    with pytest.raises(type(error)) as caught:
        throw(error)
    return caught.value


def test_an_exception_gives_type_and_place_but_not_its_text(log: Log) -> None:
    try:
        try:
            throw(KeyError(PATIENT))
        except KeyError as cause:
            secret_local = PATIENT
            raise ValueError(secret_local) from cause
    except ValueError as error:
        logs.log("run.failed", level="error", error=error)
    assert log.last["error"] == "ValueError < KeyError"
    assert re.search(r"test_logs\.py:\d+ test_an_exception_gives", log.last["trace"][-1])
    assert PATIENT not in log.text
    assert "secret_local" not in log.text


def test_our_errors_give_their_sentence_and_hint(log: Log) -> None:
    error = raised(NodeUnreachable("dns", "The node has no address.", hint="Correct its host."))
    logs.log("run.failed", error=error)
    assert log.last["problem"] == "The node has no address."
    assert log.last["hint"] == "Correct its host."
    assert "trace" not in log.last


def test_a_system_error_gives_its_code_and_a_group_its_members(log: Log) -> None:
    group = ExceptionGroup(PATIENT, [raised(OSError(28, PATIENT)), raised(ValueError(PATIENT))])
    logs.log("run.failed", error=raised(group))
    assert [part.split(", [")[0] for part in log.last["errors"]] == [
        "OSError, ENOSPC",
        "ValueError",
    ]
    assert PATIENT not in log.text


def test_causes_in_a_circle_end(log: Log) -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    logs.log("run.failed", error=first)
    assert log.last["error"] == "ValueError < KeyError"


@pytest.mark.parametrize("name", ["pynetdicom.assoc", "trio_websocket", "proxy.of_our_own"])
def test_of_a_library_only_origin_and_exception_type_are_written(name: str, log: Log) -> None:
    library = logging.getLogger(name)
    library.setLevel(logging.DEBUG)
    library.debug("PatientName %s", PATIENT)
    library.info("PatientName %s", PATIENT)
    assert log.text == ""
    library.warning("PatientName %s", PATIENT)
    assert log.last["event"] == "library.message"
    assert log.last["logger"] == name
    assert "test_logs.py" in log.last["at"]
    try:
        throw(ValueError(PATIENT))
    except ValueError:
        library.exception("PatientName %s", PATIENT)
    assert log.last["error"] == "ValueError"
    assert log.last["level"] == "error"
    assert PATIENT not in log.text


def test_warnings_are_written_without_their_text(log: Log) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn(PATIENT, stacklevel=1)
    assert log.last["logger"] == "py.warnings"
    assert PATIENT not in log.text


def test_the_level_is_kept() -> None:
    stream = Log()
    logs.configure(level="warning", format="json", stream=stream)
    logs.log("a.b", level="info")
    logs.log("a.c", level="warning")
    assert [line["event"] for line in stream.lines] == ["a.c"]


def test_a_line_that_cannot_be_written_is_counted_and_hurts_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = Log()
    logs.configure(level="info", format="json", stream=stream)
    stream.close()
    logs.log("a.b", node_id="n1")
    assert logs.DROPPED["line"] == 1
    assert capsys.readouterr().err == ""


def test_auto_is_json_in_a_file_and_text_on_a_terminal() -> None:
    for stream, begins in [(Log(), "{"), (Terminal(), "\x1b[2m20")]:
        logs.configure(level="info", format="auto", stream=stream)
        logs.log("a.b")
        assert stream.text.startswith(begins)


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for stream in (Terminal(), Log()):
        logs.configure(level="info", format="text", stream=stream)
        logs.log("a.b", node_id="n1")
        assert "\x1b" not in stream.text


def test_text_is_aligned_and_quotes_what_is_not_a_word() -> None:
    stream = Log()
    logs.configure(level="info", format="text", stream=stream)
    logs.log("link.online", host="a.b", clean=False)
    logs.log("delivery.held", level="warning", reason='two "words"', node_id="a=b")
    first, second = (line.split(" ", 1)[1] for line in stream.text.splitlines())
    assert first == "info    link.online              host=a.b clean=false"
    assert second == r'warning delivery.held            reason="two \"words\"" node_id="a=b"'


@given(word=st.text(st.characters(codec=None)))
@pytest.mark.parametrize("form", ["json", "text"])
def test_no_word_can_forge_a_line_or_paint_the_terminal(form: logs.Format, word: str) -> None:
    stream = Log()
    logs.configure(level="info", format=form, stream=stream)
    logs.log("a.b", node_id=word)
    assert stream.text.endswith("\n")
    assert stream.text.count("\n") == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", stream.text)
    if form == "json":
        shown = stream.last["node_id"]
        assert len(shown) == len(word)
        assert all(after in (before, "\ufffd") for before, after in zip(word, shown, strict=True))


def test_a_long_word_is_cut(log: Log) -> None:
    logs.log("a.b", reason="x" * 5000)
    assert len(log.text) < 500


# Standard error ------------------------------------------------------------------------------

LOG = """
import os, resource, sys, time
from proxy import logs

def log(first, last):
    for count in range(first, last):
        logs.log("a.b", level="error", count=count)

def say(word):
    print(word, flush=True)

def lost(least):
    while logs.DROPPED["line"] < least:
        time.sleep(0.01)
    return logs.DROPPED["line"]

logs.configure(level=sys.argv[1], format=sys.argv[2])
"""

MANY = 30_000
"""Lines that are more than the queue and a pipe hold."""


class Logging:
    """A program of its own that logs, and the other end of its standard error."""

    def __init__(self, process: subprocess.Popen[str], reader: int) -> None:
        self.reader = reader
        self._process = process

    def said(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self._process.stdin
        print(file=self._process.stdin, flush=True)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Read the lines of its log as they come."""
        with open(self.reader, closefd=False) as log:
            yield from map(json.loads, log)

    def code(self) -> int:
        return self._process.wait(PATIENCE_S)


@contextmanager
def logging_program(
    script: str,
    *,
    level: str = "info",
    form: str = "json",
    pipe: Callable[[], tuple[int, int]] = os.pipe,
) -> Iterator[Logging]:
    reader, writer = pipe()
    with subprocess.Popen(
        [sys.executable, "-c", LOG + script, level, form],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writer,
        text=True,
    ) as process:
        os.close(writer)
        try:
            yield Logging(process, reader)
        finally:
            process.kill()
            os.close(reader)


def test_a_log_that_nobody_reads_holds_up_nothing_and_fills_no_memory() -> None:
    script = f"""
log(0, {MANY})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
log(0, 3 * {MANY})
say(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
say(lost(0))
"""
    with logging_program(script) as program:
        grown_kib, lost = int(program.said()), int(program.said())
    assert grown_kib < 2048
    assert 3 * MANY < lost < 4 * MANY


@pytest.mark.parametrize("level", ["debug", "error"])
def test_a_reader_who_comes_back_is_told_where_how_many_lines_are_missing(level: str) -> None:
    script = f"log(0, {MANY}); say(lost(0)); input(); log({MANY}, {MANY} + 3)"
    with logging_program(script, level=level) as program:
        lost = int(program.said())
        lines = program.lines()
        read = [line["count"] for line in islice(lines, MANY - lost)]
        assert read == [*range(MANY - lost)]
        gap = next(lines)
        assert (gap["event"], gap["level"], gap["count"]) == ("log.dropped", "error", lost)
        program.go_on()
        assert [line["count"] for line in lines] == [*range(MANY, MANY + 3)]
        assert program.code() == 0


def test_what_is_read_and_what_is_said_to_be_missing_is_all_and_in_order() -> None:
    script = f"log(0, {MANY}); say('full'); log({MANY}, {3 * MANY})"
    with logging_program(script) as program:
        assert program.said() == "full"
        expected = gaps = 0
        for line in program.lines():  # as it goes on
            if line["event"] == "log.dropped":
                gaps += 1
                expected += line["count"]
            else:
                assert line["count"] == expected
                expected += 1
        assert program.code() == 0
    assert gaps
    assert expected <= 3 * MANY


@pytest.mark.parametrize("lines", [0, 100, MANY])
def test_the_end_of_a_program_waits_for_no_reader_and_prints_nothing(lines: int) -> None:
    with logging_program(f"log(0, {lines}); sys.exit(7)") as program:
        assert program.code() == 7
        read = [line["count"] for line in program.lines()]
    assert read == [*range(len(read))]
    assert len(read) == lines or lines == MANY  # all, as far as the pipe holds them


def test_what_is_told_on_standard_error_comes_after_the_lines_before_it() -> None:
    script = "log(0, 200); import click; click.echo('Error: no', err=True); log(200, 201)"
    with logging_program(script) as program:
        assert program.code() == 0
        with open(program.reader, closefd=False) as read:
            *before, told, after = read.read().splitlines()
    assert told == "Error: no"
    assert [json.loads(line)["count"] for line in [*before, after]] == [*range(201)]


def test_what_is_told_on_standard_error_waits_for_no_reader_either() -> None:
    script = (
        f"import click; [click.echo('Error: no', err=True) for _ in range({MANY})]; sys.exit(3)"
    )
    with logging_program(script) as program:
        assert program.code() == 3


def gone() -> tuple[int, int]:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.open(os.devnull, os.O_RDONLY), writer


def full() -> tuple[int, int]:
    """A disk without space."""
    return os.open(os.devnull, os.O_RDONLY), os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize("pipe", [gone, full])
def test_lines_that_the_system_refuses_are_counted(pipe: Callable[[], tuple[int, int]]) -> None:
    with logging_program("log(0, 500); say(lost(500))", pipe=pipe) as program:
        assert program.said() == "500"
        assert program.code() == 0


def test_a_disk_with_space_again_gets_the_number_of_missing_lines(tmp_path: Path) -> None:
    def file() -> tuple[int, int]:
        writer = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        return os.open(tmp_path / "log", os.O_RDONLY), writer

    script = """
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
log(0, 5)
lost(5)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
log(5, 7)
"""
    with logging_program(script, pipe=file) as program:
        assert program.code() == 0
        read = [(line["event"], line["count"]) for line in program.lines()]
    assert read == [("log.dropped", 5), ("a.b", 5), ("a.b", 6)]


def test_a_pipe_that_another_process_made_not_wait_gets_every_line() -> None:
    def impatient() -> tuple[int, int]:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        return reader, writer

    with logging_program("log(0, 5000); say('full'); input()", pipe=impatient) as program:
        assert program.said() == "full"
        read = [line["count"] for line in islice(program.lines(), 5000)]
        assert read == [*range(5000)]
        program.go_on()
        assert program.code() == 0


def test_on_a_terminal_the_log_is_for_people() -> None:
    with logging_program("log(0, 1); input()", form="auto", pipe=os.openpty) as program:
        assert os.read(program.reader, 100).startswith(b"\x1b[2m20")
        program.go_on()
        assert program.code() == 0


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-"])
def test_where_standard_error_is_closed_no_file_takes_its_place(closed: str) -> None:
    script = "log(0, 10); print('x', file=sys.stderr); say(os.dup(1) > 2)"
    run = f'exec "$0" "$@" {closed}'
    command = ["sh", "-c", run, sys.executable, "-c", LOG + script, "info", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_stream_in_place_of_standard_error_is_written_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Log()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(level="info", format="json")
    logs.log("a.b")
    assert stream.last["event"] == "a.b"
    assert sys.stderr is stream


def fields_logged() -> Iterator[tuple[str, str]]:
    for path in SOURCE.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and re.fullmatch(
                r"(logs\.)?(log|bound)", ast.unparse(call.func)
            ):
                for keyword in call.keywords:
                    yield f"{path.relative_to(SOURCE)}:{call.lineno}", str(keyword.arg)


def test_no_line_of_the_program_has_a_field_that_would_be_left_out() -> None:
    allowed = {*logs.FIELDS, "level", "error"}
    assert any(fields_logged())
    assert [(place, name) for place, name in fields_logged() if name not in allowed] == []


def test_no_field_is_named_after_patient_data() -> None:
    named = {"patient", "name", "birth", "label", "description", "accession", "token", "key"}
    assert not {word for field in logs.FIELDS for word in field.split("_")} & named


def test_the_log_is_cheap_to_import() -> None:
    heavy = "('rich', 'asyncio', 'trio')"
    code = f"import proxy.logs, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
