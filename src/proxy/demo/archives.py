"""Archives as a platform might pack them: zip or tar.gz, tidy or nasty.

They are the same, byte for byte, for the same instances.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator, Sequence

from proxy.demo.encoding import SampleInstance

DemoEntry = tuple[str, bytes]


def zip_session(
    instances: Sequence[SampleInstance],
    *,
    extras: bool = False,
    level: int = 6,
    streamed: bool = False,
) -> bytes:
    """Return a zip; level 0 stores, ``streamed`` leaves sizes to data descriptors."""
    sink = _Unseekable() if streamed else io.BytesIO()
    method = zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED
    with zipfile.ZipFile(sink, "w", method, compresslevel=level) as archive:
        for name, content in entries(instances, extras=extras):
            info = zipfile.ZipInfo(name, date_time=(2026, 3, 1, 8, 0, 0))
            info.compress_type = method
            archive.writestr(info, content, compresslevel=level)
    return sink.getvalue()


def tar_session(instances: Sequence[SampleInstance], *, extras: bool = False) -> bytes:
    """Return a tar.gz."""
    sink = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=6, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name, content in entries(instances, extras=extras):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def entries(instances: Sequence[SampleInstance], *, extras: bool = False) -> Iterator[DemoEntry]:
    """Return names and contents: tidy, or with ``extras`` like those of exported media.

    With extras, every third instance has a name without suffix and the others sit in deep
    folders, between a DICOMDIR, resource forks, pictures, text and a file that is DICOM only
    by name.
    """
    if not extras:
        for number, instance in enumerate(instances, 1):
            yield f"session/{instance.series_instance_uid}/{number:05}.dcm", instance.content
        return
    yield "DICOMDIR", b"\0" * 128 + b"DICM" + b"not really a directory"
    yield "README.txt", b"Open index.htm.\r\n"
    yield "__MACOSX/._IM0001.dcm", b"\0\5\x16\7" + b"\0" * 78
    yield "viewer/.DS_Store", b"\0\0\0\1Bud1"
    for number, instance in enumerate(instances, 1):
        deep = "/".join(f"level {depth}" for depth in range(12))
        yield (
            (f"IMAGES/IM{number:04}" if number % 3 == 0 else f"{deep}/é {number}.DCM"),
            (instance.content),
        )
    yield "IMAGES/broken.dcm", b"this is no DICOM file"
    yield "IMAGES/empty.dcm", b""
    yield "IMAGES/preview.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0\xff\xd9"


class _Unseekable(io.BytesIO):
    """A sink that cannot go back, as a socket."""

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation
