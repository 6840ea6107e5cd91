"""Ask the running proxy: the side of the commands. Blocking, and without the service's imports.

Every failure is an error with a hint; the commands only print it.
"""

from __future__ import annotations

import errno
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from proxy.control.messages import (
    ControlAnswer,
    ControlRequest,
    Refusal,
    Status,
    a_socket,
    socket_path,
)
from proxy.errors import ControlFailed, NotRunning, StateDirectoryError

PATIENCE_SECONDS = 10.0
"""The limit of one exchange. The proxy answers in milliseconds unless its disk is slow."""

ANSWER_BYTES = 64 * 1024**2


def ask(state_dir: Path, request: ControlRequest) -> Status:
    """Return the answer of the running proxy.

    Raises :class:`NotRunning`, :class:`ControlFailed` or :class:`StateDirectoryError`.
    """
    path = socket_path(state_dir)
    try:
        answer = _exchange(path, msgspec.json.encode(request) + b"\n")
    except OSError as error:
        raise _explained(error, state_dir) from None
    try:
        understood: ControlAnswer = msgspec.json.decode(answer, type=ControlAnswer)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        sentence = "This command does not understand the running proxy's answer."
        hint = "It is probably another version: restart the service after an upgrade."
        raise ControlFailed(sentence, hint=hint) from None
    if isinstance(understood, Refusal):
        raise ControlFailed(understood.problem, hint=understood.hint)
    return understood


def _exchange(path: Path, request: bytes) -> bytes:
    """Send a line and return the line that is answered."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    answer = bytearray()
    with a_socket() as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(str(path))
        with suppress(BrokenPipeError):  # the proxy has answered without reading all of it
            connection.sendall(request)
        while not answer.endswith(b"\n") and (chunk := connection.recv(65536)):
            answer += chunk
            left = deadline - time.monotonic()
            if left <= 0 or len(answer) > ANSWER_BYTES:
                raise TimeoutError
            connection.settimeout(left)
    return bytes(answer)


def _explained(error: OSError, state_dir: Path) -> NotRunning | ControlFailed | StateDirectoryError:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
        return NotRunning(
            f"No proxy is running with the state directory {state_dir}.",
            hint="Start it with: ith-proxy run. If it runs as a service, name the directory of "
            "the service: --state-dir /var/lib/ith-proxy",
        )
    if isinstance(error, PermissionError):
        return StateDirectoryError(
            f"The control socket in {state_dir} is not for this user.",
            hint="Run the command as the user the proxy runs as, or as root.",
        )
    code = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return ControlFailed(
        f"The running proxy does not answer ({code}).",
        hint="It may be checking its files after a start: try again. If it hangs, restart it; "
        "nothing that was accepted is lost.",
    )
