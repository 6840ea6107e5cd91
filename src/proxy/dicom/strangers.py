"""What answers on a node's port in place of a DICOM node, known from its first bytes."""

from __future__ import annotations

import re

from proxy.errors import AssociationLost
from proxy.runtime.wire import lost

_TLS = "a TLS server"
_STRANGERS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), name)
    for pattern, name in (
        (rb"[\x15\x16]\x03", _TLS),
        (rb"HTTP/|\s*<(?:!DOCTYPE|html|\?xml)", "an HTTP server"),
        (rb"[245]\d\d[ -][^\r\n]*SMTP", "a mail server (SMTP)"),
        (rb"[245]\d\d[ -][^\r\n]*FTP", "an FTP server"),
        (rb"[245]\d\d[ -]", "a mail or FTP server"),
        (rb"SSH-", "an SSH server"),
        (rb"\+OK", "a mail server (POP3)"),
        (rb"\* (?:OK|BYE|PREAUTH)", "a mail server (IMAP)"),
        (rb"-ERR|-NOAUTH|-DENIED", "a Redis server"),
        (rb"RFB \d", "a VNC server"),
        (rb"RTSP/", "an RTSP server"),
        (rb"\x0b(?:MSH|FHS|BHS)", "an HL7 server (MLLP)"),
        (rb"\x03\x00[\x00-\x03].[\x02-\xf0]\xd0", "a remote desktop server (RDP)"),
        (rb"...\x00\x0a\d\.|...\x00\xff", "a MySQL server"),
        (rb"\xff[\xfb-\xfe]", "a Telnet server"),
    )
)
"""The first that matches is it. No PDU that a node may send begins so."""


def stranger(head: bytes) -> AssociationLost | None:
    """Return the error for an answer that begins with ``head``; None if it is not recognised."""
    name = next((name for pattern, name in _STRANGERS if pattern.match(head)), None)
    if name is None:
        return None
    error = lost("tls" if name is _TLS else "stranger")
    error.found = f"{name} answers there"
    return error
