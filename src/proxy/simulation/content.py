"""What ITH has: six sessions of three subjects, two scans each, and their archives.

The content is the same in every world and made once for each process.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from proxy.demo.archives import zip_session
from proxy.demo.encoding import SampleInstance
from proxy.demo.sample import Study, ct_series
from proxy.simulation.scenario import EntityLevel

SLICES = ((3, 2), (1, 1), (6, 4), (2, 9), (12, 1), (4, 4), (110, 1), (1, 1))
"""The instances of the two scans of each session.

The first ``scenario.SESSIONS`` are ordered by chance, the next one has a long series.
"""
PIXELS = 12


class Thing(NamedTuple):
    """An entity of ITH: what it holds, its ids, and the keys for its deletion."""

    level: EntityLevel
    id: str
    subject_id: str
    session_id: str
    study_instance_uid: str
    patient_id: str
    instances: tuple[SampleInstance, ...]

    @property
    def sent(self) -> dict[str, str]:
        """The SHA-256 of each data set, by SOP instance UID."""
        return {each.sop_instance_uid: each.sha256 for each in self.instances}


@cache
def thing(level: EntityLevel, session: int) -> Thing:
    """Return the subject of a session, the session, or its first scan."""
    subject = session // 2
    ids = f"subj-{subject}", f"sess-{session}"
    match level:
        case EntityLevel.SUBJECT:
            sessions = range(2 * subject, 2 * subject + 2)
            held = tuple(each for one in sessions for each in _instances(one))
            return Thing(level, ids[0], ids[0], "", "", _study(session).patient_id, held)
        case EntityLevel.SESSION:
            held = _instances(session)
            name = ids[1]
        case EntityLevel.SCAN:
            held = _instances(session)[: SLICES[session][0]]
            name = f"scan-{session}"
    study = held[0].study_instance_uid
    return Thing(level, name, *ids, study, _study(session).patient_id, held)


@cache
def archive(level: EntityLevel, session: int) -> bytes:
    """Return the archive of a thing."""
    return zip_session(thing(level, session).instances)


def _study(session: int) -> Study:
    number = session // 2
    return Study(session + 1, patient_name=f"ZZCANARY^PHI{number}", patient_id=f"SIM-{number:04}")


@cache
def _instances(session: int) -> tuple[SampleInstance, ...]:
    study = _study(session)
    return tuple(
        each
        for series, slices in enumerate(SLICES[session], 1)
        for each in ct_series(study, slices=slices, size=PIXELS, series=series)
    )
