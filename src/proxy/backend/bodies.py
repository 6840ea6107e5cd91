"""Reading an HTTP body that may be left before its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2
import trio


@asynccontextmanager
async def reading(blocks: AsyncGenerator[bytes, None]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Yield ``blocks`` and close them at the end, even if they were not read to the end.

    The HTTP library nests generators and closes only the outermost one; the inner ones would be
    left to the garbage collector. A cancellation ends them all, from the innermost outwards.
    """
    try:
        yield blocks
    finally:
        with trio.move_on_after(0, shield=True), suppress(httpx2.TransportError):
            async for _ in blocks:
                pass  # blocks that have already arrived come without a checkpoint
            await blocks.aclose()
