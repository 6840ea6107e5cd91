"""Nodes as sites have them (cases, section C): contexts, rejections, answers, strangers."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from proxy.control.status import node_status
from proxy.demo import frames
from proxy.demo.archives import zip_session
from proxy.demo.backend import DemoBackend
from proxy.demo.encoding import SampleInstance
from proxy.demo.frames import JsonObject
from proxy.demo.sample import Study, assortment, ct_series, mr_series, text_report
from proxy.machines.node import NodeState
from tests.dicom import scripted as said
from tests.field.field_node import (
    C_STORE,
    IMPLICIT,
    Answered,
    FieldNode,
    Negotiate,
    Proposed,
    accept_all,
    accepted,
    answering_with,
    choosing,
    is_echo,
)
from tests.support import tools
from tests.support.peers import Node, orthanc, storescp
from tests.support.program import Program, configure, running_program

CT, MR, SR = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "4", "88.11"))
QUICK = {"retry_count": 2, "retry_delay": 0.05}


@pytest.fixture(autouse=True)
def keep_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "proxy.logs")


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [vars(each)["line"] for each in caplog.records if each.msg == event]


@asynccontextmanager
async def a_site(
    directory: Path, backend: DemoBackend, node: FieldNode, **dicom: object
) -> AsyncIterator[Program]:
    async with node.running():
        configure(backend, [frames.rest_node("a", "NODE", "127.0.0.1", node.port, **QUICK)])
        async with running_program(directory, backend, dicom=dicom) as program:
            await program.configured()
            await program.until(
                lambda: program.registry.nodes["a"].run.state is not NodeState.UNKNOWN
            )
            yield program


async def sent(
    program: Program, instances: Sequence[SampleInstance], session_id: str = "sess-1"
) -> JsonObject:
    """Order these instances; return the final report of the node."""
    order = ordered(program, instances, session_id)
    ending = await program.over(order, "a")
    closing = await program.over(order)
    assert (closing.get("error") is None) == (ending.get("error") is None)
    if ending.get("error"):
        assert ending["error"] in closing["error"], "the closing message says it too"
    return ending


def ordered(program: Program, instances: Sequence[SampleInstance], session_id: str) -> str:
    program.backend.rest.offer("session", session_id, zip_session([*instances]))
    return program.tell(frames.session_dispatch(session_id, ["a"]))


def dcmsend_sends(tmp_path: Path, port: int, instances: Sequence[SampleInstance]) -> None:
    """Send with DCMTK's dcmsend to a node, which knows what arrived."""
    program = tools.find("dcmsend")
    assert program
    for number, each in enumerate(instances):
        (tmp_path / f"{number}.dcm").write_bytes(each.content)
    files = map(str, sorted(tmp_path.glob("*.dcm")))
    clocks = ("-to", "5", "-ta", "5", "-td", "5")
    command = ["timeout", "30", program, "-aec", "NODE", *clocks, "127.0.0.1", str(port), *files]
    subprocess.run(command, capture_output=True, check=False)


def session() -> list[SampleInstance]:
    """Six kinds of objects and more: CT in several syntaxes, and other classes."""
    return assortment(Study(3))


def two_classes() -> list[SampleInstance]:
    return [*ct_series(Study(1), slices=3, size=16), text_report(Study(1))]


def of_class(instances: Sequence[SampleInstance], sop_class: str) -> set[str]:
    return {each.sop_instance_uid for each in instances if each.sop_class_uid == sop_class}


def uids(instances: Sequence[SampleInstance]) -> set[str]:
    return {each.sop_instance_uid for each in instances}


async def is_undisturbed(program: Program) -> None:
    """The node is not blamed: its breaker is shut, and it has all its associations."""
    at = program.registry.nodes["a"]
    assert at.run.state is NodeState.ONLINE
    assert at.run.data.failures == 0
    assert at.run.data.associations == at.run.data.ceiling
    await program.idle()


# "None of your contexts", in three forms ---------------------------------------------------------


def proposes(sop_class: str, proposed: list[Proposed]) -> bool:
    return any(each.sop_class == sop_class for each in proposed)


REFUSALS: dict[str, tuple[Negotiate, str]] = {
    "A-ASSOCIATE-RJ 1/1/1": (
        answering_with(said.reject(1, 1, 1), partial(proposes, SR)),
        "rejects every association for this kind of object",
    ),
    "A-ASSOCIATE-RJ 1/2/1": (
        answering_with(said.reject(1, 2, 1), partial(proposes, SR)),
        "rejects every association for this kind of object",
    ),
    "A-ASSOCIATE-RJ 2/1/1": (
        answering_with(said.reject(2, 1, 1), partial(proposes, SR)),
        "rejects every association for this kind of object",
    ),
    "A-ABORT in place of the acceptance": (
        answering_with(said.abort(2, 0), partial(proposes, SR)),
        "before it answered anything, and takes other associations under the same AE titles",
    ),
    **{
        f"every context refused, result {result}": (
            choosing(lambda all_: [each for each in all_ if each.sop_class != SR], result),
            sentence,
        )
        for result, sentence in (
            (1, "gives no reason"),
            (2, "gives no reason"),
            (3, "does not store this kind of object (SOP class)"),
            (4, "transfer syntax"),
            (-1, "left out the kind of object"),
        )
    },
}


@pytest.mark.parametrize("form", REFUSALS)
async def test_none_of_your_contexts(
    directory: Path, backend: DemoBackend, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    """The other objects arrive; what is refused is named; the node is not blamed."""
    negotiate, sentence = REFUSALS[form]
    instances = two_classes()
    node = FieldNode(negotiate=negotiate)
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, instances)
        assert (ending["status"], ending["files_sent"], ending["files_total"]) == ("failed", 3, 4)
        assert set(node.stored) == of_class(instances, CT)
        error = ending["error"]
        assert error.startswith("1 of 4 instances refused: ")
        assert sentence in error
        assert f"SOP class {SR}, transfer syntax 1.2.840.10008.1.2.1" in error
        (line,) = lines(caplog, "instance.refused")
        assert (line["sop_class"], line["transfer_syntax"]) == (SR, "1.2.840.10008.1.2.1")
        assert "AE titles" not in error or "same AE titles" in error
        await is_undisturbed(program)
        assert not lines(caplog, "node.given_up")


@pytest.mark.parametrize(
    ("at_once", "verb"),
    [(said.abort(0, 0), "aborted"), (said.abort(2, 0), "aborted"), (said.RELEASE_RQ, "released")],
    ids=["by user", "by provider", "release"],
)
async def test_accepts_and_aborts_at_once(
    directory: Path,
    backend: DemoBackend,
    caplog: pytest.LogCaptureFixture,
    at_once: bytes,
    verb: str,
) -> None:
    node = FieldNode(at_once=at_once)
    report = [text_report(Study(1))]
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, report)
        assert ending["status"] == "failed"
        assert f"The node {verb} the association" in ending["error"]
        assert f"SOP class {SR}, transfer syntax" in ending["error"]
        (line,) = lines(caplog, "instance.refused")
        assert line["sop_class"] == SR
        await is_undisturbed(program)
        node.at_once = b""
        assert (await sent(program, report, "sess-2"))["status"] == "completed"


@pytest.mark.parametrize("form", REFUSALS)
async def test_orders_of_others_go_on_undisturbed(
    directory: Path, backend: DemoBackend, form: str
) -> None:
    """Reports that the node never takes, one after the other, and a CT session behind them."""
    negotiate, _ = REFUSALS[form]
    node = FieldNode(negotiate=negotiate)
    async with a_site(directory, backend, node) as program:
        reports = [
            ordered(program, [text_report(Study(seed))], f"report-{seed}") for seed in range(2, 8)
        ]
        images = ct_series(Study(1), slices=6, size=16)
        ending = await sent(program, images)
        assert (ending["status"], ending["files_sent"]) == ("completed", 6)
        for order in reports:
            assert (await program.over(order, "a"))["status"] == "failed"
        await is_undisturbed(program)


@pytest.mark.parametrize("again", [1, 2])
async def test_what_rejects_only_for_a_while_is_no_refusal_of_contexts(
    directory: Path, backend: DemoBackend, again: int
) -> None:
    """C-ECHO works in between, as when a node has just started."""
    rejections = iter([True] * again)
    node = FieldNode(
        negotiate=lambda proposed: (
            said.reject(1, 1, 1)
            if not is_echo(proposed) and next(rejections, False)
            else accept_all(proposed)
        )
    )
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, two_classes())
        assert (ending["status"], ending["files_sent"]) == ("completed", 4)
        await is_undisturbed(program)


# Fewer contexts than asked -----------------------------------------------------------------------


def first_of_each_class(proposed: list[Proposed]) -> list[Proposed]:
    return [*{each.sop_class: each for each in reversed(proposed)}.values()]


def last_of_each_class(proposed: list[Proposed]) -> list[Proposed]:
    return [*{each.sop_class: each for each in proposed}.values()]


def one_syntax(proposed: list[Proposed]) -> list[Proposed]:
    return [each for each in proposed if each.syntaxes == proposed[0].syntaxes]


FEWER: dict[str, Callable[[list[Proposed]], Sequence[Proposed]]] = {
    "the first of each class": first_of_each_class,
    "the last of each class": last_of_each_class,
    "one": lambda proposed: proposed[:1],
    "the last one": lambda proposed: proposed[-1:],
    "two": lambda proposed: proposed[:2],
    "one transfer syntax": one_syntax,
    "one class": lambda proposed: [
        each for each in proposed if each.sop_class == proposed[0].sop_class
    ],
    "none, of more than one": lambda proposed: proposed if len(proposed) == 1 else [],
    "none, of more than three": lambda proposed: proposed if len(proposed) <= 3 else [],
}


@pytest.mark.parametrize(
    ("which", "result"),
    [
        (which, result)
        for which in FEWER
        for result in (1, 2, 3, 4, -1)
        # A definite no to every context of an association is a no.
        if not (which.startswith("none") and result in {3, 4})
    ],
)
async def test_fewer_contexts_than_asked(
    directory: Path, backend: DemoBackend, which: str, result: int
) -> None:
    """What is left is proposed on further associations: all arrives."""
    instances = session()
    node = FieldNode(negotiate=choosing(FEWER[which], result))
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, instances)
        assert (ending["status"], ending["files_sent"]) == ("completed", len(instances))
        assert set(node.stored) == uids(instances)
        assert node.most_open == 1, "one after the other"
        await is_undisturbed(program)


@pytest.mark.parametrize("most", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "no",
    [said.reject(1, 1, 1), said.reject(1, 2, 1), said.reject(2, 1, 1), said.abort(), said.abort(2)],
    ids=["1/1/1", "1/2/1", "2/1/1", "abort", "provider abort"],
)
async def test_a_node_that_rejects_more_contexts_than_it_can_hold(
    directory: Path, backend: DemoBackend, most: int, no: bytes
) -> None:
    instances = session()
    node = FieldNode(negotiate=answering_with(no, lambda proposed: len(proposed) > most))
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, instances)
        assert (ending["status"], ending["files_sent"]) == ("completed", len(instances))
        assert all(len(proposed) <= most for proposed in node.accepted)
        await is_undisturbed(program)


@pytest.mark.parametrize("result", [0, 1, 2, 3, 4])
async def test_what_is_not_taken_is_named_once_and_not_proposed_for_ever(
    directory: Path, backend: DemoBackend, caplog: pytest.LogCaptureFixture, result: int
) -> None:
    """The node takes no compressed syntax; result 0 comes with one that was not proposed."""

    def negotiate(proposed: list[Proposed]) -> list[Answered]:
        return [
            Answered(each.number, result, "1.2.3" if result == 0 else "")
            if RLELossless in each.syntaxes
            else accepted(each)
            for each in proposed
        ]

    instances = session()
    compressed = [each for each in instances if each.transfer_syntax_uid == RLELossless]
    node = FieldNode(negotiate=negotiate)
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, instances)
        assert ending["files_sent"] == len(instances) - len(compressed)
        assert f"transfer syntax {RLELossless}" in ending["error"]
        assert len(node.proposed) <= 3
        assert len(lines(caplog, "instance.refused")) == len(compressed)
        await is_undisturbed(program)


ODD_ACCEPTANCES: dict[str, Negotiate] = {
    "an id twice": lambda proposed: [
        answer for each in proposed for answer in (accepted(each), accepted(each))
    ],
    "an id twice, accepted and refused": lambda proposed: [
        answer for each in proposed for answer in (accepted(each), Answered(each.number, 3))
    ],
    "ids that are even, or not proposed": lambda proposed: [
        *accept_all(proposed),
        Answered(2, 0, IMPLICIT),
        Answered(253, 0, IMPLICIT),
    ],
    "no syntax": lambda proposed: [Answered(each.number, 0) for each in proposed],
}


@pytest.mark.parametrize("how", ODD_ACCEPTANCES)
async def test_acceptances_that_are_odd(directory: Path, backend: DemoBackend, how: str) -> None:
    def negotiate(proposed: list[Proposed]) -> bytes | list[Answered]:
        return ODD_ACCEPTANCES[how](proposed)

    node = FieldNode(negotiate=negotiate)
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, two_classes())
        assert (ending["status"], ending["files_sent"]) == ("completed", 4)


async def test_a_syntax_that_was_not_proposed_is_refused_and_said(
    directory: Path, backend: DemoBackend
) -> None:
    node = FieldNode(
        negotiate=lambda proposed: [
            accepted(each) if is_echo(proposed) else Answered(each.number, 0, "1.2.840.10008.1.2.5")
            for each in proposed
        ]
    )
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, two_classes())
        assert (ending["status"], ending["files_sent"]) == ("failed", 0)
        assert "in a transfer syntax that was not proposed" in ending["error"]
        assert not node.came
        await is_undisturbed(program)


# Rejections while a node starts ------------------------------------------------------------------


@pytest.mark.parametrize("rejection", [(1, 1, 1), (1, 2, 1), (2, 1, 1), (1, 1, 3), (1, 1, 7)])
@pytest.mark.parametrize("times", [1, 2, 1000])
async def test_a_node_that_rejects_while_it_starts(
    directory: Path, backend: DemoBackend, rejection: tuple[int, int, int], times: int
) -> None:
    """Everything is rejected, C-ECHO too, and then nothing is."""
    starting = False
    left = times

    def negotiate(proposed: list[Proposed]) -> bytes | list[Answered]:
        nonlocal left
        if not starting or left <= 0:
            return accept_all(proposed)
        left -= 1
        return said.reject(*rejection)

    node = FieldNode(negotiate=negotiate)
    async with a_site(directory, backend, node) as program:
        starting = True
        ending = await sent(program, two_classes())
        if times == 1000:
            assert ending["status"] == "failed", "final once the attempts are used up"
            assert "reject" in ending["error"]
            left = 0
            ending = await sent(program, two_classes(), "sess-2")
        assert (ending["status"], ending["files_sent"]) == ("completed", 4)


# Answers -----------------------------------------------------------------------------------------


async def test_every_response_twice(
    directory: Path, backend: DemoBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Valid answers count; C-ECHO is answered twice too."""
    node = FieldNode(respond=lambda _, __, answer: answer * 2)
    instances = ct_series(Study(1), slices=6, size=16)
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, instances)
        assert (ending["status"], ending["files_sent"]) == ("completed", 6)
        assert len(node.came) == len(node.proposed) * 6 == 6
        await is_undisturbed(program)


async def test_every_response_once_more_before_the_next(
    directory: Path, backend: DemoBackend
) -> None:
    """The repeat comes when the next response is due already."""
    last: list[bytes] = []

    def respond(_: Dataset, __: Dataset, answer: bytes) -> bytes:
        before = b"".join(last[-1:])
        last.append(answer)
        return before + answer

    node = FieldNode(respond=respond)
    async with a_site(directory, backend, node) as program:
        del last[:]
        ending = await sent(program, ct_series(Study(1), slices=6, size=16))
        assert (ending["status"], ending["files_sent"]) == ("completed", 6)
        assert len(node.came) == 6


@pytest.mark.parametrize("what", ["message id", "uid"])
async def test_a_response_to_an_unknown_message_aborts(
    directory: Path, backend: DemoBackend, what: str
) -> None:
    """Once: the next attempt delivers."""
    wrong = [True]

    def respond(command: Dataset, response: Dataset, answer: bytes) -> bytes:
        if command.CommandField != C_STORE or len(node.came) != 3 or not wrong:
            return answer
        wrong.clear()
        if what == "uid":
            response.AffectedSOPInstanceUID = "2.25.7"
        else:
            response.MessageIDBeingRespondedTo += 4000
        return said.data(said.pdv(said.command(response)))

    node = FieldNode(respond=respond)
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, ct_series(Study(1), slices=6, size=16))
        assert (ending["status"], ending["files_sent"]) == ("completed", 6)
        assert len(node.proposed) == 2
        assert len(node.came) == 7, "the one whose answer was none is sent again"


async def test_an_abort_in_place_of_the_release_reply(
    directory: Path, backend: DemoBackend, caplog: pytest.LogCaptureFixture
) -> None:
    node = FieldNode(release_answer=said.abort(2, 0))
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, two_classes())
        assert (ending["status"], ending["files_sent"]) == ("completed", 4)
        (line,) = lines(caplog, "delivery.release_unanswered")
        assert "aborted the association" in line["problem"]
        await is_undisturbed(program)


@pytest.mark.parametrize("size", [1, 4, 6, 7])
async def test_a_maximum_pdu_size_that_holds_no_message(
    directory: Path, backend: DemoBackend, size: int
) -> None:
    node = FieldNode(max_pdu_size=size)
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, two_classes())
        assert (ending["status"], ending["files_sent"]) == ("failed", 0)
        assert "maximum PDU size that leaves no space for a message" in ending["error"]
        assert "not valid DICOM" not in ending["error"]
        assert program.registry.nodes["a"].run.state is NodeState.ONLINE, "it answers"


@pytest.mark.parametrize("size", [0, 8, 9, 15, 16, 33, 127, 128, 0xFFFFFFFF])
async def test_a_maximum_pdu_size_that_is_odd_or_small_or_none(
    directory: Path, backend: DemoBackend, size: int
) -> None:
    node = FieldNode(max_pdu_size=size)
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, two_classes())
        assert (ending["status"], ending["files_sent"]) == ("completed", 4)
        assert node.longest <= (size or 0xFFFFFFFF)


# Strangers on the port ---------------------------------------------------------------------------


STRANGERS = {
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<html>", "an HTTP server"),
    "HTML alone": (b"<!DOCTYPE HTML PUBLIC>", "an HTTP server"),
    "TLS": (bytes.fromhex("15030100020250"), "a TLS server"),
    "SMTP": (b"220 mail.example ESMTP Postfix\r\n", "a mail server (SMTP)"),
    "FTP": (b"220 (vsFTPd 3.0.3) FTP\r\n", "an FTP server"),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH server"),
    "POP3": (b"+OK ready\r\n", "a mail server (POP3)"),
    "IMAP": (b"* OK IMAP4rev1 ready\r\n", "a mail server (IMAP)"),
}


@pytest.mark.parametrize("who", STRANGERS)
async def test_another_server_on_the_port(
    directory: Path, backend: DemoBackend, caplog: pytest.LogCaptureFixture, who: str
) -> None:
    """Named in status and log; ITH is told only that it is no DICOM node."""
    greeting, name = STRANGERS[who]
    node = FieldNode(greeting=greeting)
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, two_classes())
        assert ending["status"] == "failed"
        assert "no DICOM node" in ending["error"]
        told = str(program.heard)
        assert name not in told
        assert who not in told
        (line, *_) = lines(caplog, "delivery.attempt_failed")
        assert f"{name} answers there" in line["problem"]
        status = node_status(program.registry.nodes["a"])
        assert f"{name} answers there" in str(status.error)


# One of six --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0xC001, 0xA901, 0x0122, 0x0117])
async def test_one_of_six_instances_refused(
    directory: Path, backend: DemoBackend, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    instances = ct_series(Study(1), slices=6, size=16)
    odd_one = instances[3].sop_instance_uid
    node = FieldNode(status=lambda uid: status if uid == odd_one else 0)
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, instances)
        assert (ending["status"], ending["files_sent"]) == ("failed", 5)
        error = ending["error"]
        assert error.startswith("1 of 6 instances refused: ")
        assert f"SOP class {CT}, instance 4, series 1, status {status:04X}" in error
        assert odd_one not in error, "the ledger keeps the text, also beyond a deletion"
        (line,) = lines(caplog, "instance.refused")
        assert (line["sop_class"], line["dicom_status"]) == (CT, status)
        assert line["instance_uid"] != odd_one, "hashed, as every UID of an instance in the log"
        (record,) = [each for each in caplog.records if each.msg == "instance.refused"]
        assert record.levelname == "WARNING"


async def test_many_refused_are_counted_and_some_named(
    directory: Path, backend: DemoBackend, caplog: pytest.LogCaptureFixture
) -> None:
    node = FieldNode(status=lambda _: 0xC000)
    async with a_site(directory, backend, node) as program:
        ending = await sent(program, ct_series(Study(1), slices=30, size=16))
        assert ending["error"].startswith("30 of 30 instances refused: ")
        assert ending["error"].count(", instance ") == 10
        assert ending["error"].endswith(" and 20 more")
        assert len(lines(caplog, "instance.refused")) == 10
        (line,) = lines(caplog, "instances.refused")
        assert line["count"] == 30


# DCMTK's dcmsend at the same nodes ---------------------------------------------------------------


@pytest.mark.needs("dcmsend")
@pytest.mark.parametrize("row", ["twice", "small pdu", "first of each class", "rejects SR"])
async def test_where_dcmsend_delivers_we_do(
    directory: Path, backend: DemoBackend, tmp_path: Path, row: str
) -> None:
    make: dict[str, Callable[[], FieldNode]] = {
        "twice": lambda: FieldNode(respond=lambda _, __, answer: answer * 2),
        "small pdu": lambda: FieldNode(max_pdu_size=128),
        "first of each class": lambda: FieldNode(negotiate=choosing(first_of_each_class, 4)),
        "rejects SR": lambda: FieldNode(
            negotiate=answering_with(said.reject(1, 1, 1), partial(proposes, SR))
        ),
    }
    instances = [*two_classes(), *mr_series(Study(1), slices=2, size=16)]
    theirs = make[row]()
    async with theirs.running():
        await trio.to_thread.run_sync(dcmsend_sends, tmp_path, theirs.port, instances)
    ours = make[row]()
    async with a_site(directory, backend, ours) as program:
        await sent(program, instances)
    assert set(ours.stored) >= set(theirs.stored)


# Nodes of DCMTK and Orthanc that are set up so ---------------------------------------------------

PROFILE = """[[TransferSyntaxes]]
[Plain]
TransferSyntax1 = LittleEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[Contexts]
PresentationContext1 = CTImageStorage\\Plain
PresentationContext2 = VerificationSOPClass\\Plain
[[Profiles]]
[CT]
PresentationContexts = Contexts
"""


@asynccontextmanager
async def a_real_site(directory: Path, backend: DemoBackend, node: Node) -> AsyncIterator[Program]:
    described = frames.rest_node("a", node.ae_title, node.host, node.port, **QUICK)
    configure(backend, [described])
    async with running_program(directory, backend) as program:
        await program.configured()
        await program.online()
        yield program


@pytest.mark.needs("storescp", "dcmsend")
async def test_storescp_with_a_profile_that_takes_ct_alone(
    directory: Path, backend: DemoBackend, tmp_path: Path
) -> None:
    profile = tmp_path / "profile.cfg"
    profile.write_text(PROFILE)
    instances = session()
    taken = {
        each.sop_instance_uid
        for each in instances
        if each.sop_class_uid == CT and each.transfer_syntax_uid != RLELossless
    }
    with storescp(tmp_path, "+B", "-xf", str(profile), "CT") as node:
        async with a_real_site(directory, backend, node) as program:
            ending = await sent(program, instances)
            assert (ending["status"], ending["files_sent"]) == ("failed", len(taken))
            assert len(node.stored) == len(taken)
            assert f"SOP class {SR}" in ending["error"]
            await is_undisturbed(program)
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        for path in node.stored:
            path.unlink()
        await trio.to_thread.run_sync(dcmsend_sends, theirs, node.port, instances)
        assert len(node.stored) <= len(taken), "no more than ours"


@pytest.mark.needs("storescp")
async def test_storescp_that_refuses_every_association(
    directory: Path, backend: DemoBackend, tmp_path: Path
) -> None:
    """C-ECHO is refused in the same way: the titles, or a node that starts."""
    with storescp(tmp_path, "--refuse") as node:
        async with a_real_site(directory, backend, node) as program:
            ending = await sent(program, two_classes())
            assert ending["status"] == "failed"
            assert "The node rejects the association and gives no reason" in ending["error"]
            assert program.registry.nodes["a"].run.state is NodeState.ONLINE, "it answers"


@pytest.mark.needs("orthanc")
async def test_orthanc_that_takes_no_compression(
    directory: Path, backend: DemoBackend, tmp_path: Path
) -> None:
    settings = {"AcceptedTransferSyntaxes": ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"]}
    instances = session()
    taken = [each for each in instances if each.transfer_syntax_uid != RLELossless]
    with orthanc(tmp_path, settings) as node:
        async with a_real_site(directory, backend, node) as program:
            ending = await sent(program, instances)
            assert (ending["status"], ending["files_sent"]) == ("failed", len(taken))
            assert f"SOP class {CT}, transfer syntax {RLELossless}" in ending["error"]
            await is_undisturbed(program)
