"""The values for one association, from the settings and the configuration of its node."""

from __future__ import annotations

from proxy.dicom.association import Target
from proxy.machines.upper_layer import Clocks
from proxy.nodes import Node, Repush
from proxy.settings import DicomSettings, DispatchSettings


def target_for(dicom: DicomSettings, node: Node) -> Target:
    """Return the address of the node, both AE titles and the PDU size."""
    return Target(
        host=node.host,
        port=node.port,
        called_ae_title=node.ae_title,
        calling_ae_title=node.calling_ae_title or dicom.ae_title,
        max_pdu_size=node.max_pdu_size or dicom.max_pdu_size,
    )


def clocks_for(dicom: DicomSettings, node: Node) -> Clocks:
    """Return the limits of waiting; a node's own connection_timeout goes before the settings."""
    return Clocks(
        connect=node.connection_timeout or dicom.connect_seconds,
        answer=node.connection_timeout or dicom.answer_seconds,
        stall=dicom.stall_seconds,
        response=dicom.response_seconds,
        response_per_megabyte=dicom.response_seconds_per_megabyte,
        release=dicom.release_seconds,
    )


def retries_for(dicom: DicomSettings, node: Node) -> tuple[int, float]:
    """Return the number of attempts after the first, and the seconds before the first of them."""
    count, delay = node.retry_count, node.retry_delay
    return (
        dicom.retry_count if count is None else count,
        dicom.retry_delay_seconds if delay is None else delay,
    )


def repush_for(dispatch: DispatchSettings, node: Node) -> Repush:
    """Return the choice among the instances that the node has confirmed before."""
    return node.repush or dispatch.repush
