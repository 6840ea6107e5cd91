"""C-FIND: ask a node whether it has an instance (PS3.7 section 9.1.2, PS3.4 section C.4.1).

One query asks for one instance, by all its unique keys: a node need not match a list of UIDs, and
an answer to a list does not name the UIDs that the node left out.
"""

from __future__ import annotations

import trio

from proxy.dicom import dimse
from proxy.dicom.association import Association
from proxy.dicom.dimse import InvalidMessage
from proxy.dicom.pdu import Proposal
from proxy.model import IMPLICIT_VR_LITTLE_ENDIAN, Instance, shown

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
FIND = Proposal(STUDY_ROOT_FIND, (IMPLICIT_VR_LITTLE_ENDIAN,))

_SUCCESS = 0x0000
_SOP_INSTANCE, _LEVEL, _STUDY, _SERIES = 0x00080018, 0x00080052, 0x0020000D, 0x0020000E


def is_answered(association: Association) -> bool:
    """Whether the node accepts C-FIND over this association."""
    return _context(association) is not None


def can_ask(instance: Instance) -> bool:
    """Whether a query can name the instance and no other one.

    Its UIDs must be as PS3.5 9.1 has them: an empty one, or one with a wildcard or a backslash in
    it, matches others (PS3.4 section C.2.2.2).
    """
    uids = instance.sop_instance_uid, instance.study_instance_uid, instance.series_instance_uid
    return all(shown(uid) == uid for uid in uids)


async def find(association: Association, instance: Instance) -> bool:
    """Ask whether the node has an instance of these UIDs; its content may differ.

    True only if an answer names the instance and the node ended its answers with success. At a
    cancellation the association is aborted, because the answers on their way have no receiver.

    Raises :class:`proxy.errors.AssociationLost`.
    """
    context_id = _context(association)
    if context_id is None:
        return False
    message_id = association.begin(context_id, dimse.C_FIND_RSP)
    command = dimse.encode_find_request(STUDY_ROOT_FIND, message_id)
    try:
        *answers, final = await association.exchange(context_id, command, identifier(instance))
    except trio.Cancelled:
        association.give_up("local")
        raise
    return final.status == _SUCCESS and any(names(each.identifier, instance) for each in answers)


def identifier(instance: Instance) -> bytes:
    """Encode the query for one instance by its unique keys (PS3.4 section C.6.2.1)."""
    return (
        dimse.encode_uid(_SOP_INSTANCE, instance.sop_instance_uid)
        + dimse.encode_element(_LEVEL, b"IMAGE ")
        + dimse.encode_uid(_STUDY, instance.study_instance_uid)
        + dimse.encode_uid(_SERIES, instance.series_instance_uid)
    )


def names(answer: bytes, instance: Instance) -> bool:
    """Whether an answer's identifier names the instance, and no other study or series."""
    try:
        said = dimse.decode_elements(answer)
    except InvalidMessage:
        return False
    sop_instance, study, series = (
        dimse.decode_uid(said.get(tag, b"")) for tag in (_SOP_INSTANCE, _STUDY, _SERIES)
    )
    return (
        sop_instance == instance.sop_instance_uid
        and study in {"", instance.study_instance_uid}
        and series in {"", instance.series_instance_uid}
    )


def _context(association: Association) -> int | None:
    return association.contexts.find(STUDY_ROOT_FIND, IMPLICIT_VR_LITTLE_ENDIAN)
