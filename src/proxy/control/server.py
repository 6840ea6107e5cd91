"""Answer the operator: the side of the service.

A user who may open the socket may make every request, so only the owner of the state directory may
open it. A client has one line of limited size and a few seconds; its errors affect no other one.
"""

from __future__ import annotations

import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import assert_never

import msgspec
import trio

from proxy.control.messages import (
    REQUEST_BYTES,
    ControlAnswer,
    ControlRequest,
    Refusal,
    Status,
    a_socket,
    socket_path,
)
from proxy.errors import StateDirectoryError
from proxy.logs import log
from proxy.supervision.supervisor import Supervisor

CLIENT_SECONDS = 5.0
"""The limit of one exchange; a slower client is dropped."""

CLIENTS = 16
"""The most clients at a time; a further one gets the answer to try again."""

BACKLOG = 64


@asynccontextmanager
async def listening(state_dir: Path) -> AsyncIterator[trio.SocketListener]:
    """Listen on the control socket while the block lasts.

    The proxy that has the ledger open is the only one in this directory, so an existing socket is
    that of a proxy that was killed. Raises StateDirectoryError if the socket cannot be made.
    """
    path = socket_path(state_dir)
    with _bound(path) as listener:
        try:
            yield trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        finally:
            _remove(path)


def _bound(path: Path) -> socket.socket:
    listener = a_socket()
    try:
        _remove(path)
        listener.bind(str(path))
        path.chmod(0o600)  # before anybody can connect
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        sentence = f"The control socket {path} cannot be made: {error.strerror}"
        hint = "Remove the file there, or name a state directory on a local disk with --state-dir."
        raise StateDirectoryError(sentence, hint=hint) from None
    return listener


def _remove(path: Path) -> None:
    """Remove a socket; any other file is not ours to remove, and binding fails."""
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        pass


class ControlServer:
    """Answers the clients of a listener."""

    def __init__(
        self,
        supervisor: Supervisor,
        look: Callable[[], Status],
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        """Ask ``look`` for the status; ``settled`` waits until all changes are durable."""
        self._supervisor = supervisor
        self._look = look
        self._settled = settled
        self._clients = 0

    async def serve(self, listener: trio.SocketListener) -> None:
        """Answer until cancelled."""
        await trio.serve_listeners(self._serve_client, [listener])

    async def _serve_client(self, stream: trio.SocketStream) -> None:
        """Take one request and answer it, within the time limit."""
        self._clients += 1
        try:
            with trio.move_on_after(CLIENT_SECONDS):
                async with stream:
                    answer = await self._answer(stream)
                    await stream.send_all(msgspec.json.encode(answer) + b"\n")
        except trio.BrokenResourceError:
            pass  # the client has gone
        except Exception as error:  # noqa: BLE001 - the containment boundary of one client
            log("control.failed", level="error", error=error)
        finally:
            self._clients -= 1

    async def _answer(self, stream: trio.SocketStream) -> ControlAnswer:
        if self._clients > CLIENTS:
            return Refusal("Too many commands ask at the same time.", "Try again in a moment.")
        line = await _line(stream)
        if line is None:
            return Refusal(f"The request has more than {REQUEST_BYTES} bytes.")
        try:
            request = msgspec.json.decode(line, type=ControlRequest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return Refusal(
                "The running proxy does not understand this request.",
                "The command is probably of another version: restart the service after an upgrade.",
            )
        return await self._do(request)

    async def _do(self, request: ControlRequest) -> ControlAnswer:
        match request.command:
            case "status":
                return self._look()
            case "pause":
                done = self._supervisor.pause(_reason(request))
            case "resume":
                done = self._supervisor.resume()
            case _:
                assert_never(request.command)
        if not done:
            return Refusal("The proxy is stopping.", "Give the command again when it runs.")
        await self._settled()
        log("control.done", operation=request.command)
        return self._look()


def _reason(request: ControlRequest) -> str:
    return " ".join(request.reason.split()) or "paused by the operator"


async def _line(stream: trio.SocketStream) -> bytes | None:
    """Return the bytes before the first end of line, or before the end; None for too many."""
    line = bytearray()
    while chunk := await stream.receive_some(REQUEST_BYTES):
        line += chunk
        head, end, _ = line.partition(b"\n")
        if len(head) > REQUEST_BYTES:
            return None
        if end:
            return bytes(head)
    return bytes(line)
