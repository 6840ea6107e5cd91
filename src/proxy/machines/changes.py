"""The effects of each change on running machines, as rows of the machines: data for a page.

Nothing is decided here. The page prints, for each change, the rows that its events take.
:func:`proxy.nodes.affected` selects the runs that a change of the configuration concerns.
``shown_by`` names end-to-end tests, below ``tests/end_to_end``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from proxy.fsm import Event, Machine
from proxy.machines import delivery, dispatch, node, operation

Tells = tuple[Machine[Any, Any, Any], tuple[type[Event], ...]]


class Change(msgspec.Struct, frozen=True):
    """One change: its occasion, its effect on running work, and the events that carry it."""

    id: str
    when: str
    means: str
    tells: tuple[Tells, ...] = ()
    shown_by: tuple[str, ...] = ()


CHANGES: tuple[Change, ...] = (
    Change(
        "CHG-01",
        "`proxy.status_changed`, not active; `ith-proxy pause`",
        "Downloads end at once. Every delivery stops in two steps and is held: the instance in "
        "flight may end within dicom.cancel_seconds, then the association is cut. Orders are "
        "still accepted and kept. Deletions and changes of the configuration are still carried "
        "out.",
        (
            (operation.OPERATION, (operation.PauseRequested,)),
            (dispatch.DISPATCH, (dispatch.HoldRequested,)),
            (delivery.DELIVERY, (delivery.HoldRequested,)),
        ),
        (
            "test_changes.py::test_a_pause_in_mid_session_loses_and_repeats_nothing",
            "test_changes.py::test_a_pause_survives_a_restart",
            "test_pause_at_real_nodes.py::"
            "test_a_pause_in_mid_session_stores_each_instance_once_at_orthanc",
            "test_pause_at_real_nodes.py::"
            "test_a_pause_while_a_node_takes_seconds_for_each_instance",
            "test_pause_at_real_nodes.py::test_a_pause_while_backing_off_from_a_node_that_aborts",
        ),
    ),
    Change(
        "CHG-02",
        "`proxy.status_changed`, active; `ith-proxy resume`",
        "When both locks are open, work goes on from the ledger. The most urgent dispatches go "
        "first, then the oldest. No instance that is known to be stored is sent again.",
        (
            (operation.OPERATION, (operation.LockReleased, operation.LastLockReleased)),
            (dispatch.DISPATCH, (dispatch.ResumeRequested,)),
            (delivery.DELIVERY, (delivery.ResumeRequested,)),
        ),
        (
            "test_changes.py::test_a_pause_in_mid_session_loses_and_repeats_nothing",
            "test_pause_at_real_nodes.py::"
            "test_a_pause_in_mid_session_stores_each_instance_once_at_orthanc",
        ),
    ),
    Change(
        "CHG-03",
        "`proxy.nodes_changed`: node removed",
        "Its deliveries are cancelled and reported as failed, with that reason. Those to other "
        "nodes go on.",
        (
            (node.NODE, (node.RemoveRequested,)),
            (delivery.DELIVERY, (delivery.CancelRequested,)),
        ),
        (
            "test_changes.py::test_a_removed_node_is_reported_and_the_other_completes",
            "test_nodes_change.py::test_a_removed_node_gets_no_more_and_the_other_one_everything",
        ),
    ),
    Change(
        "CHG-04",
        "`proxy.nodes_changed`: host, port, AE title or our AE title towards the node",
        "Its deliveries stop and go on at the new address with the instances that are not "
        "stored yet. A delivery in a back-off goes on at once. The failed attempts, the open "
        "breaker and the lowered association limit of the old address are forgotten, for an "
        "inactive node too.",
        (
            (node.NODE, (node.ChangeRequested,)),
            (delivery.DELIVERY, (delivery.NodeMoved, delivery.RestartRequested)),
        ),
        (
            "test_changes.py::test_a_moved_node_gets_the_rest_at_its_new_address",
            "test_changes.py::test_a_corrected_address_is_used_at_once",
            "test_nodes_change.py::test_a_node_that_moves_gets_the_rest_at_its_new_address",
            "test_nodes_change.py::test_a_node_with_another_ae_title_gets_the_rest_under_that",
        ),
    ),
    Change(
        "CHG-05",
        "`proxy.nodes_changed`: node set inactive",
        "Its deliveries are held.",
        (
            (node.NODE, (node.DisableRequested,)),
            (delivery.DELIVERY, (delivery.HoldRequested,)),
        ),
        ("test_changes.py::test_an_inactive_node_is_held_until_it_is_active",),
    ),
    Change(
        "CHG-06",
        "`proxy.nodes_changed`: node set active",
        "Its deliveries go on unless something else holds them.",
        (
            (node.NODE, (node.EnableRequested,)),
            (delivery.DELIVERY, (delivery.ResumeRequested,)),
        ),
        ("test_changes.py::test_an_inactive_node_is_held_until_it_is_active",),
    ),
    Change(
        "CHG-07",
        "`proxy.nodes_changed`: node added, renamed or changed otherwise",
        "Running work goes on without a stop. New values are read when they are next needed.",
        shown_by=("test_nodes_change.py::test_a_node_that_is_added_or_renamed_stops_nothing",),
    ),
    Change(
        "CHG-08",
        "`proxy.config_changed`",
        "Another `calling_ae_title` for all nodes is CHG-04 for every node that has none of "
        "its own. Every other value, such as a retry count or a time limit, is read when it is "
        "next needed, and running work goes on without a stop.",
        (
            (node.NODE, (node.ChangeRequested,)),
            (delivery.DELIVERY, (delivery.NodeMoved, delivery.RestartRequested)),
        ),
        (
            "test_changes.py::test_another_calling_ae_title_for_all_is_shown_between_two_instances",
            "test_changes.py::test_the_retries_of_a_running_dispatch_follow_a_configuration_event",
        ),
    ),
    Change(
        "CHG-09",
        "`session.deleted`, `scan.deleted`, `subject.deleted`",
        "The ledger gets a tombstone first. Then every delivery of that entity is cancelled, "
        "and then rows and objects are removed. A delivery of a larger entity goes on without "
        "the deleted part. DICOM has no delete: a node keeps the instances it has.",
        ((delivery.DELIVERY, (delivery.CancelRequested, delivery.ContentReady)),),
        (
            "test_changes.py::test_a_deletion_stops_what_is_under_way",
            "test_changes.py::test_a_deleted_scan_is_left_out_of_what_is_under_way",
            "test_deletions.py::test_work_that_runs_is_queued_or_backs_off_ends_with_its_entity",
            "test_deletions.py::test_held_work_ends_with_its_entity_during_the_pause",
        ),
    ),
    Change(
        "CHG-10",
        "SIGTERM, and a second one",
        "The program drains: the instances in flight end, the rest stays in the ledger, and "
        "the program ends with exit code 0 within service.drain_seconds. The second signal "
        "ends it at once.",
        (
            (operation.OPERATION, (operation.DrainRequested, operation.StopRequested)),
            (dispatch.DISPATCH, (dispatch.HoldRequested,)),
            (delivery.DELIVERY, (delivery.HoldRequested,)),
        ),
        (
            "test_sigterm.py::test_sigterm_in_mid_session_keeps_the_rest_and_repeats_nothing",
            "test_sigterm.py::test_a_second_sigterm_does_not_wait_for_the_instance_in_flight",
        ),
    ),
    Change(
        "CHG-11",
        "The end of each stop",
        "Each stop ends in the same order, whatever its reason: the ledger notes the node's "
        "answer for the instance in flight, the association is closed, and then the delivery "
        "goes on, is held or ends.",
        (
            (
                delivery.DELIVERY,
                (
                    delivery.StopTimedOut,
                    delivery.StoppedToGoOn,
                    delivery.StoppedToHold,
                    delivery.StoppedToCancel,
                ),
            ),
        ),
        ("test_stop.py::test_a_stop_is_fast_wherever_the_node_is",),
    ),
)
