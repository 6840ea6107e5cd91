from __future__ import annotations

import pytest

from proxy.dicom.strangers import stranger
from tests.dicom import scripted as node

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "an HTTP server"),
        (b"HTTP/1", "an HTTP server"),
        (b"<html><head>", "an HTTP server"),
        (b"\r\n<!doctype html>", "an HTTP server"),
        (bytes.fromhex("150301000202"), "a TLS server"),
        (bytes.fromhex("160303004a02"), "a TLS server"),
        (b"220 mx.example ESMTP ready\r\n", "a mail server (SMTP)"),
        (b"500 5.5.1 Invalid command\r\n", "a mail or FTP server"),
        (b"220 ProFTPD Server\r\n", "an FTP server"),
        (b"220 ready", "a mail or FTP server"),
        (b"SSH-2.0-x", "an SSH server"),
        (b"+OK POP3 ready", "a mail server (POP3)"),
        (b"* OK [CAPABILITY IMAP4rev1]", "a mail server (IMAP)"),
        (b"-ERR unknown command", "a Redis server"),
        (b"RFB 003.008\n", "a VNC server"),
        (b"\x0bMSH|^~\\&|", "an HL7 server (MLLP)"),
        (b"J\x00\x00\x00\x0a8.0.36", "a MySQL server"),
        (b"\xff\xfd\x18\xff\xfd\x20", "a Telnet server"),
    ],
)
def test_a_stranger_is_known_by_its_first_bytes(head: bytes, name: str) -> None:
    error = stranger(head)
    assert error is not None
    assert error.found == f"{name} answers there"
    assert name not in error.in_full
    assert name in error.on_site


@pytest.mark.parametrize(
    "pdu",
    [
        node.accept({1: (0, "1.2.840.10008.1.2")}),
        node.reject(1, 1, 1),
        node.abort(),
        node.RELEASE_RQ,
        node.RELEASE_RP,
        node.ASSOCIATE_RQ,
        node.data(node.pdv(b"")),
        node.GARBAGE,
        b"\x02\x00\xff\xff\xff\xff",
        b"",
    ],
)
def test_a_pdu_and_mere_garbage_are_none(pdu: bytes) -> None:
    assert stranger(pdu[:64]) is None
