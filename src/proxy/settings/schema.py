"""Every setting: its type, range, unit, default and the sentence that explains it.

The structs below are the only place where a setting is described: checking, messages and the
printed reference are all derived from them (``keys.py``). Nothing is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from proxy.settings.secret import Secret

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
DAY = 24 * 3600


def text(sentence: str, *, pattern: str = "", allowed: str = "", unset: str = "") -> Meta:
    """Describe a string.

    ``allowed`` describes the strings that match ``pattern``, ``unset`` the meaning of "".
    """
    extra = {"allowed": allowed, "unset": unset}
    return Meta(description=sentence, pattern=pattern or None, extra=extra)


def number(sentence: str, low: float, high: float, unit: str = "", *, unset: str = "") -> Meta:
    """Describe a number between two bounds; ``unset`` is the meaning of 0, if it is special."""
    return Meta(description=sentence, ge=low, le=high, extra={"unit": unit, "unset": unset})


def seconds(sentence: str, low: float, high: float) -> Meta:
    """Describe a duration."""
    return number(sentence, low, high, "seconds")


AE_TITLE = r"^(?! *$)[ -\[\]-~]{1,16}$"
AE_TITLE_OR_NONE = r"^(|(?! *$)[ -\[\]-~]{1,16})$"
AE_TITLE_WORDS = "1 to 16 printable ASCII characters, no backslash"
HOST = r"^[0-9A-Za-z.:_-]{0,253}$"
DOWNLOAD_HOST = r"^(\*\.)?[0-9A-Za-z._-]{1,253}$"


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of the settings file."""


class IthSettings(Section, frozen=True):
    """The connection to the ITH platform: the WebSocket, the REST interface, downloads."""

    url: Annotated[str, text("Base address of ITH; the WebSocket and REST are below it.")] = ""
    token_file: Annotated[
        str,
        text(
            "The proxy key's file, readable to its owner only; or systemd's `credential:NAME`.",
            unset="the environment variable ITH_TOKEN",
        ),
    ] = ""
    websocket_path: Annotated[
        str,
        text(
            "Path of the WebSocket below `url`.",
            pattern="^/[!-~]*$",
            allowed="a path that begins with /",
        ),
    ] = "/api/v1/proxy/ws"
    allow_insecure: Annotated[
        bool, Meta(description="Allow the proxy key over plain http to a host other than this.")
    ] = False
    ca_file: Annotated[
        str,
        text(
            "Certificates (PEM) to trust for ITH besides the system's.", unset="the system's only"
        ),
    ] = ""
    health_update: Annotated[
        bool, Meta(description="Send `health_update`, the deployed backend's sign of life.")
    ] = True
    health_seconds: Annotated[float, seconds("Time between `health_update` messages.", 1, 3600)] = (
        10.0
    )
    heartbeat: Annotated[bool, Meta(description="Send `proxy.heartbeat` events.")] = True
    heartbeat_seconds: Annotated[float, seconds("Time between two heartbeats.", 1, 3600)] = 30.0
    ping_seconds: Annotated[
        float, seconds("Silence on the link after which the proxy pings.", 1, 3600)
    ] = 30.0
    pong_seconds: Annotated[
        float, seconds("Wait for the answer to a ping before the link counts as lost.", 1, 600)
    ] = 20.0
    handshake_seconds: Annotated[
        float, seconds("Wait for the first message of ITH on a new link.", 1, 600)
    ] = 10.0
    backoff_max_seconds: Annotated[
        float, seconds("Longest wait between two attempts to connect.", 1, 3600)
    ] = 60.0
    stable_seconds: Annotated[
        float, seconds("Age of a link that resets the waits between attempts.", 1, 3600)
    ] = 60.0
    refused_seconds: Annotated[float, seconds("Wait after ITH refused the proxy key.", 10, DAY)] = (
        300.0
    )
    evicted_seconds: Annotated[
        float, seconds("Wait after another program connected with the same key.", 10, DAY)
    ] = 300.0
    max_frame_bytes: Annotated[
        int, number("Largest message accepted from ITH.", 64 * KIB, 256 * MIB, "bytes")
    ] = 16 * MIB
    download_hosts: Annotated[
        tuple[Annotated[str, Meta(pattern=DOWNLOAD_HOST)], ...],
        Meta(
            description="Hosts besides that of `url` to which ITH may redirect a download.",
            extra={"allowed": "host names, each exact or as *.example.org", "unset": "none"},
        ),
    ] = ()
    archive_format: Annotated[
        Literal["zip", "tar.gz"], Meta(description="Format in which archives are requested.")
    ] = "zip"
    compression_level: Annotated[
        int, number("Compression requested of ITH: 0 is none and spares its processors.", 0, 9)
    ] = 0
    first_byte_seconds: Annotated[
        float, seconds("Wait for ITH to start sending an archive it has to build first.", 1, DAY)
    ] = 1200.0
    download_stall_seconds: Annotated[
        float, seconds("Silence after which a download is cut and resumed.", 1, 3600)
    ] = 60.0
    download_attempts: Annotated[
        int, number("Attempts without any progress before a download fails.", 1, 100)
    ] = 5


class DicomSettings(Section, frozen=True):
    """Storing instances at the nodes; ITH's values for a node override the retries here."""

    ae_title: Annotated[
        str,
        text(
            "Calling AE title, as the site's nodes know it.",
            pattern=AE_TITLE,
            allowed=AE_TITLE_WORDS,
        ),
    ] = "DICOM_PROXY"
    associations_per_node: Annotated[
        int, number("Associations to one node at a time, at most.", 1, 16)
    ] = 2
    turn_instances: Annotated[
        int,
        number(
            "Instances that a dispatch sends while an equal one waits for the association.",
            0,
            1_000_000,
            unset="all it has",
        ),
    ] = 0
    max_pdu_size: Annotated[
        int, number("Largest PDU we announce to receive (PS3.8 D.1).", 4096, MIB, "bytes")
    ] = 16384
    connect_seconds: Annotated[float, seconds("Wait for a node's TCP connection.", 1, 600)] = 10.0
    answer_seconds: Annotated[float, seconds("Wait for the answer to A-ASSOCIATE-RQ.", 1, 600)] = (
        30.0
    )
    stall_seconds: Annotated[
        float, seconds("Wait for a node to take a byte before it is given up.", 1, 3600)
    ] = 30.0
    response_seconds: Annotated[
        float, seconds("Wait for the response to a C-STORE, whatever its size.", 1, 3600)
    ] = 60.0
    response_seconds_per_megabyte: Annotated[
        float, seconds("Added to `response_seconds` for each MB of the instance.", 0, 60)
    ] = 0.5
    release_seconds: Annotated[float, seconds("Wait for the answer to A-RELEASE-RQ.", 0.1, 60)] = (
        5.0
    )
    cancel_seconds: Annotated[
        float, seconds("Wait for the instance in flight once a delivery is stopped.", 0, 60)
    ] = 3.0
    retry_count: Annotated[
        int, number("Further attempts after a delivery failed for a temporary reason.", 0, 100)
    ] = 3
    retry_delay_seconds: Annotated[
        float, seconds("Wait before the first further attempt; it doubles with each.", 0, 3600)
    ] = 5.0
    retry_max_seconds: Annotated[float, seconds("Longest wait between two attempts.", 1, DAY)] = (
        300.0
    )
    echo_seconds: Annotated[float, seconds("Limit of a C-ECHO with its association.", 1, 60)] = 5.0
    echo_interval_seconds: Annotated[float, seconds("Time between C-ECHOs to a node.", 5, DAY)] = (
        30.0
    )


class DispatchSettings(Section, frozen=True):
    """The content of dispatches, and their reports to ITH."""

    repush: Annotated[
        Literal["all", "new", "never"],
        Meta(
            description="Instances sent among those that a node has confirmed before: all, only "
            "those whose content is new, or none, even if changed."
        ),
    ] = "new"
    new_scans: Annotated[
        Literal["read", "write", "any", "none"],
        Meta(
            description="Nodes for new scans that ITH announces without naming a node: those with "
            "permission to read from the proxy, or to write to it, any, or none."
        ),
    ] = "read"
    status_detail: Annotated[
        Literal["both", "per-node", "aggregate"],
        Meta(description="Report each node, the dispatch in one, or both."),
    ] = "both"
    progress_seconds: Annotated[
        float, seconds("Time between two progress reports of a delivery.", 0.1, 600)
    ] = 1.0


class LimitSettings(Section, frozen=True):
    """Limits of disk, memory and parallel work."""

    downloads: Annotated[
        int, number("Archives downloaded at a time; an urgent one may be one more.", 1, 32)
    ] = 3
    dispatches_per_node: Annotated[
        int,
        number(
            "Dispatches of one priority for one node that are downloaded and not yet delivered; "
            "the others of that priority wait.",
            1,
            1_000_000,
        ),
    ] = 100
    archive_bytes: Annotated[
        int,
        number(
            "Largest archive accepted.",
            0,
            10**15,
            "bytes",
            unset="the free disk space above the reserve",
        ),
    ] = 0
    entry_bytes: Annotated[
        int, number("Largest unpacked file of an archive.", MIB, 10**15, "bytes")
    ] = 8 * GIB
    entries: Annotated[int, number("Most files in an archive.", 1, 10_000_000)] = 200_000
    ratio: Annotated[
        int,
        number(
            "Most bytes unpacked from one packed byte, by an archive that needs over a quarter of "
            "the free disk.",
            1,
            100_000,
        ),
    ] = 200
    reserve_gb: Annotated[
        float, number("Disk space that stays free (1 GB = 1024³ bytes).", 0, 1_000_000, "GB")
    ] = 1.0


class ServiceSettings(Section, frozen=True):
    """Time limits of an orderly stop."""

    drain_seconds: Annotated[
        float, seconds("Wait after SIGTERM for the instances in flight.", 0, 600)
    ] = 20.0
    flush_seconds: Annotated[float, seconds("Wait after that for reports to leave.", 0, 60)] = 3.0


class LocalSettings(Section, frozen=True):
    """Values for ITH about this machine, in place of those it has (`config_update`)."""

    ip_address: Annotated[
        str,
        text(
            "Address at which the site reaches this machine.",
            pattern=HOST,
            allowed="an IP address or a host name",
            unset="the address used towards ITH",
        ),
    ] = ""
    port: Annotated[
        int, number("DICOM port of this machine.", 0, 65535, unset="the one configured in ITH")
    ] = 0
    ae_title: Annotated[
        str,
        text(
            "AE title of this machine.",
            pattern=AE_TITLE_OR_NONE,
            allowed=AE_TITLE_WORDS,
            unset="the one configured in ITH",
        ),
    ] = ""
    api_url: Annotated[
        str,
        text("Address of an HTTP interface of this machine.", unset="the one configured in ITH"),
    ] = ""


class LogSettings(Section, frozen=True):
    """The log, on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Lowest level written.")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="One JSON object or one plain line each; auto: plain on a terminal."),
    ] = "auto"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, checked; made by :func:`proxy.settings.load`."""

    ith: IthSettings = IthSettings()
    dicom: DicomSettings = DicomSettings()
    dispatch: DispatchSettings = DispatchSettings()
    limits: LimitSettings = LimitSettings()
    service: ServiceSettings = ServiceSettings()
    local: LocalSettings = LocalSettings()
    log: LogSettings = LogSettings()
    state_dir: Path = Path("state")
    token: Secret = Secret("")
    config_file: Path | None = None
    origins: Mapping[str, str] = {}
