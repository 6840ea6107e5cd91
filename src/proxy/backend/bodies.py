"""Reading an HTTP body that may be left before its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2
import trio


@asynccontextmanager
async def reading(blocks: AsyncGenerator[bytes, None]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Give ``blocks`` and close them at the end, wherever they are.

    The HTTP library nests generators and closes only the outermost one; the inner ones would be
    left to the garbage collector. A cancellation ends them all, from the innermost outwards.
    """
    try:
        yield blocks
    finally:
        with trio.move_on_after(0, shield=True), suppress(httpx2.TransportError):
            async for _ in blocks:
                pass  # what is here already comes without a checkpoint
            await blocks.aclose()
