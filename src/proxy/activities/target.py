"""What the settings and a node's configuration come to, for one association."""

from __future__ import annotations

from proxy.dicom.association import Target
from proxy.machines.upper_layer import Clocks
from proxy.nodes import Node, Repush
from proxy.settings import DicomSettings, DispatchSettings


def target_for(dicom: DicomSettings, node: Node) -> Target:
    """Where the node is, and who we are to it."""
    return Target(
        host=node.host,
        port=node.port,
        called_ae_title=node.ae_title,
        calling_ae_title=node.calling_ae_title or dicom.ae_title,
        max_pdu_size=node.max_pdu_size or dicom.max_pdu_size,
    )


def clocks_for(dicom: DicomSettings, node: Node) -> Clocks:
    """How long to wait; a node's own connection_timeout goes before the settings."""
    return Clocks(
        connect=node.connection_timeout or dicom.connect_seconds,
        answer=node.connection_timeout or dicom.answer_seconds,
        stall=dicom.stall_seconds,
        response=dicom.response_seconds,
        response_per_megabyte=dicom.response_seconds_per_megabyte,
        release=dicom.release_seconds,
    )


def retries_for(dicom: DicomSettings, node: Node) -> tuple[int, float]:
    """How many attempts follow the first, and the seconds before the first of them."""
    count, delay = node.retry_count, node.retry_delay
    return (
        dicom.retry_count if count is None else count,
        dicom.retry_delay_seconds if delay is None else delay,
    )


def repush_for(dispatch: DispatchSettings, node: Node) -> Repush:
    """What is sent of what the node has confirmed before."""
    return node.repush or dispatch.repush
