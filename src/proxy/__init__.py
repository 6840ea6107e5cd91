"""The DICOM dispatch proxy of ITH: on events, it stores imaging sessions at a site's nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> str:
    """Read the version on demand: it takes longer than the first signal may wait."""
    if name != "__version__":
        raise AttributeError(name)
    from importlib.metadata import version  # noqa: PLC0415 - see above

    return version("ith-proxy")
