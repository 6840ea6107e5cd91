"""Values for tests of the ledger and of what is built on it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec
import trio

from proxy.model import Entity, EntityType, Instance, Order, Priority
from proxy.runtime.offload import Inline

P = ParamSpec("P")
T = TypeVar("T")

SUBJECT = Entity(EntityType.SUBJECT, "subj-1")
SESSION = Entity(EntityType.SESSION, "sess-1", subject_id="subj-1")
OTHER_SESSION = Entity(EntityType.SESSION, "sess-2", subject_id="subj-1")
SCAN = Entity(EntityType.SCAN, "scan-1", subject_id="subj-1", session_id="sess-1")


def uid(*numbers: int) -> str:
    return ".".join(("1.2.826.0.1.3680043.9", *map(str, numbers)))


def instance(
    number: int, *, study: int = 1, series: int = 1, content: str = "a", patient_id: str = "P-0042"
) -> Instance:
    body = f"{study}/{series}/{number}/{content}".encode()
    return Instance(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        sop_instance_uid=uid(study, series, number),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        study_instance_uid=uid(study),
        series_instance_uid=uid(study, series),
        sha256=hashlib.sha256(body).hexdigest(),
        size=len(body),
        offset=2,
        series_number=series,
        instance_number=number,
        patient_id=patient_id,
    )


def changed(original: Instance, **fields: object) -> Instance:
    """A copy of an instance with other values for some fields."""
    copy: Instance = msgspec.structs.replace(original, **fields)
    return copy


def body_of(number: int, *, study: int = 1, series: int = 1, content: str = "a") -> bytes:
    return f"{study}/{series}/{number}/{content}".encode()


def order(*node_ids: str, entity: Entity = SESSION, correlation_id: str = "corr_1") -> Order:
    return Order(entity, node_ids or ("n1",), correlation_id, "ws-1", Priority.HIGH)


@contextmanager
def fast_directory() -> Iterator[Path]:
    """A directory in memory where there is one: syncing costs nothing there."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


class SlowOffload(Inline):
    """Counts the blocking calls, and can hold them up."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.calls += 1
        await trio.sleep(self.seconds)
        return await super().__call__(function, *args, **kwargs)
