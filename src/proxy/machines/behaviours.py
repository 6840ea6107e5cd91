"""The behaviour of the program in numbered statements, by subject: the data of a page."""

from __future__ import annotations

from proxy.machines.failures import Remedy
from proxy.machines.traceability import BEHAVIOUR, Chapter, Requirement, failures_with, shown

SUBJECTS: tuple[Chapter, ...] = (
    Chapter(
        "Nodes of this proxy",
        "",
        (
            Requirement(
                "BEH-01",
                "The nodes of this proxy are those in its configuration at ITH; it reports "
                "nothing about nodes of other proxies that an event names.",
                BEHAVIOUR,
                shown(
                    "supervision/test_supervisor.py",
                    "test_nodes_of_others_and_repeated_ones_are_passed_over",
                )
                + shown("end_to_end/test_events.py", "test_nodes_of_others_get_no_word_at_all"),
                ("supervision/supervisor.py",),
            ),
            Requirement(
                "BEH-02",
                "An order that names no node of this proxy is not answered at all.",
                BEHAVIOUR,
                shown("supervision/test_supervisor.py", "test_none_of_ours_named_is_silence"),
                ("supervision/supervisor.py",),
                more="The order may be for another proxy of the workspace. A `failed` from "
                "this proxy would overrule the reports of that one.",
            ),
        ),
    ),
    Chapter(
        "Status words",
        "",
        (
            Requirement(
                "BEH-03",
                "Reports to ITH use four status words: `downloading`, `processing`, "
                "`completed`, `failed`.",
                BEHAVIOUR,
                shown(
                    "events/test_outgoing.py",
                    "test_another_status_word_is_refused_with_those_there_are",
                ),
                ("events/outgoing/dispatch_status.py",),
            ),
            Requirement(
                "BEH-04",
                "Each node has its own stream of reports with `node_id`, and a closing message "
                "without `node_id` reports the outcome of the dispatch.",
                BEHAVIOUR,
                shown("reporting/test_reports.py", "test_each_detail")
                + shown(
                    "events/test_outgoing.py",
                    "test_the_closing_message_of_a_dispatch_names_no_node",
                ),
            ),
            Requirement(
                "BEH-05",
                "A dispatch is `completed` only if every named node of this proxy has every "
                "instance.",
                BEHAVIOUR,
                shown(
                    "machines/test_policy.py",
                    "test_a_dispatch_is_completed_only_if_every_node_has_everything",
                    "test_nothing_to_send_is_no_success",
                )
                + shown(
                    "end_to_end/test_changes.py",
                    "test_a_removed_node_is_reported_and_the_other_completes",
                ),
            ),
            Requirement(
                "BEH-06",
                "A cancelled delivery is reported as `failed`, with the reason in `error`.",
                BEHAVIOUR,
                shown(
                    "reporting/test_reports.py",
                    "test_a_cancelled_dispatch_is_a_failed_one_with_a_reason",
                ),
            ),
            Requirement(
                "BEH-07",
                "`progress` counts the download as 30 percent, never falls, and is 100 only "
                "with `completed`.",
                BEHAVIOUR,
                shown(
                    "reporting/test_reports.py",
                    "test_each_detail",
                    "test_progress_never_falls_and_100_is_for_completed_alone",
                    "test_progress_does_not_fall_over_a_restart",
                ),
            ),
        ),
    ),
    Chapter(
        "Order of service",
        "",
        (
            Requirement(
                "BEH-08",
                "At each node the most urgent dispatch is served first; it interrupts a less "
                "urgent one between two instances, unless the node's metadata at ITH have "
                '`"whole_studies": true`.',
                BEHAVIOUR,
                shown(
                    "behaviour/test_order_of_service.py",
                    "test_an_urgent_dispatch_overtakes_a_running_one_within_an_instance",
                    "test_a_node_with_whole_studies_gets_each_in_one_piece",
                )
                + shown(
                    "work/test_scheduler.py",
                    "test_one_that_must_not_be_interrupted_is_not",
                    "test_one_who_was_interrupted_goes_on_before_younger_equal_ones",
                )
                + shown(
                    "end_to_end/test_events.py",
                    "test_the_urgent_one_overtakes_at_a_slow_node_within_an_instance",
                ),
            ),
            Requirement(
                "BEH-09",
                "A dispatch keeps its association to a node until it is done, and an equal one "
                "waits or uses another association; with `dicom.turn_instances` equal ones share "
                "the node by turns of so many instances.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_order_of_service.py",
                    "test_each_of_equal_dispatches_gets_to_the_node_over_one_association",
                    "test_equal_dispatches_share_a_node_by_turns_where_they_are_wanted",
                )
                + shown(
                    "work/test_scheduler.py",
                    "test_equal_ones_have_equal_shares_of_a_node_however_long_they_are",
                ),
            ),
            Requirement(
                "BEH-10",
                "After 100 instances of other dispatches, the dispatch that has waited longest "
                "at a node is next when a delivery ends, whatever its priority.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_order_of_service.py",
                    "test_a_low_one_is_not_starved_by_an_urgent_one",
                )
                + shown(
                    "work/test_scheduler.py",
                    "test_nobody_waits_for_ever_and_urgent_ones_for_one_instance",
                ),
            ),
            Requirement(
                "BEH-11",
                "No node waits for another one.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_order_of_service.py",
                    "test_a_dead_or_slow_node_never_delays_another",
                ),
                ("work/fair_queue.py", "work/scheduler.py"),
            ),
            Requirement(
                "BEH-12",
                "Downloads take turns among the sets of nodes they are for, and an urgent "
                "download does not wait for those under way.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_order_of_service.py",
                    "test_many_orders_for_one_node_let_those_for_another_be_downloaded",
                    "test_an_urgent_order_does_not_wait_for_the_downloads_under_way",
                )
                + shown(
                    "work/test_scheduler.py",
                    "test_downloads_are_shared_by_the_nodes_they_are_for",
                ),
            ),
            Requirement(
                "BEH-13",
                "At most `limits.dispatches_per_node` dispatches of each priority are downloaded "
                "ahead for a node.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_order_of_service.py",
                    "test_no_more_is_downloaded_ahead_for_a_node_than_the_limit_says",
                    "test_a_low_order_is_downloaded_however_many_urgent_ones_are_ahead_of_it",
                ),
                ("work/scheduler.py",),
            ),
        ),
    ),
    Chapter(
        "A node that takes few associations",
        "",
        (
            Requirement(
                "BEH-14",
                "The association limit of a node that accepts no further association, or is "
                "out of resources, is halved.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_congestion.py",
                    "test_a_node_that_is_out_of_resources_is_given_fewer_and_then_more_again",
                    "test_one_congestion_halves_once_however_late_each_one_complains",
                ),
                tables=failures_with(Remedy.FEWER_ASSOCIATIONS),
            ),
            Requirement(
                "BEH-15",
                "After 100 instances without a refusal the association limit of a node rises "
                "by one, up to `dicom.associations_per_node`.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_congestion.py",
                    "test_a_node_that_is_out_of_resources_is_given_fewer_and_then_more_again",
                )
                + shown(
                    "machines/test_node.py",
                    "test_associations_halve_with_each_complaint_and_grow_by_one",
                    "test_a_node_is_given_no_more_than_the_settings_allow",
                ),
            ),
            Requirement(
                "BEH-16",
                "A delivery that a node does not accept beside another delivery of this proxy "
                "waits for that one, and the wait counts as no failed attempt.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_congestion.py",
                    "test_a_node_that_takes_few_associations_fails_no_delivery_of_many",
                    "test_a_node_that_lets_the_second_association_wait_in_silence_is_not_at_fault",
                    "test_a_delivery_is_not_refused_for_the_sake_of_our_own_echo",
                ),
                more="The node need not report the reason: many nodes accept one association "
                "at a time and leave the next request without an answer.",
            ),
        ),
    ),
    Chapter(
        "Changes of nodes, configuration and status",
        "",
        (
            Requirement(
                "BEH-17",
                "A change is not applied if it cannot be read, is for another proxy "
                "(`entity_id`), or is older than one applied before (by ITH's own time); ITH's "
                "configuration is fetched and applied instead.",
                BEHAVIOUR,
                shown(
                    "supervision/test_reconciler.py",
                    "test_a_change_that_cannot_be_read_is_looked_up",
                    "test_another_proxy_s_change_is_counted_and_not_obeyed_and_ith_is_asked",
                    "test_an_older_change_of_the_nodes_changes_nothing",
                ),
                ("supervision/stale_events.py", "supervision/reconciler.py"),
            ),
            Requirement(
                "BEH-18",
                "ITH's configuration is fetched and applied after every change and at every "
                "connect: nodes, settings, and the active flag of the proxy if that has "
                "changed.",
                BEHAVIOUR,
                shown(
                    "supervision/test_reconciler.py",
                    "test_what_ith_has_wins_over_what_an_event_said",
                    "test_what_ith_says_after_an_outage_counts_though_it_said_so_before",
                    "test_an_answer_from_before_an_event_is_not_applied",
                ),
                ("supervision/reconciler.py",),
                more="This repairs every change that was missed.",
            ),
            Requirement(
                "BEH-19",
                "An order that comes before the first configuration is kept until the "
                "configuration names the nodes of this proxy.",
                BEHAVIOUR,
                shown(
                    "supervision/test_supervisor.py",
                    "test_an_order_before_the_first_configuration_waits_for_it",
                    "test_orders_and_deletions_before_the_first_configuration_outlive_a_crash",
                )
                + shown(
                    "end_to_end/test_events.py",
                    "test_a_dispatch_before_the_configuration_is_not_lost",
                ),
                ("supervision/early_events.py",),
            ),
        ),
    ),
    Chapter(
        "Address of this machine",
        "",
        (
            Requirement(
                "BEH-20",
                "`config_update` is sent when the configuration is known: a value that the "
                "settings below `[local]` leave open is repeated as ITH has it, except the "
                "address, which is the local one of the connection to ITH.",
                BEHAVIOUR,
                shown(
                    "supervision/test_heartbeat.py",
                    "test_nothing_is_said_of_where_we_are_before_it_is_known_what_ith_has",
                    "test_each_field_is_the_site_s_own_or_as_ith_has_it",
                    "test_the_address_is_the_site_s_own_or_the_one_used_towards_ith",
                )
                + shown(
                    "end_to_end/test_configuration.py",
                    "test_a_new_installation_changes_nothing_that_the_site_did_not_set",
                ),
                ("supervision/heartbeat.py",),
            ),
            Requirement(
                "BEH-21",
                "`config_update` leaves out a value of ITH that cannot be read.",
                BEHAVIOUR,
                shown(
                    "supervision/test_heartbeat.py",
                    "test_what_ith_has_and_cannot_be_read_is_left_out",
                ),
                ("supervision/heartbeat.py", "nodes/configuration.py"),
            ),
            Requirement(
                "BEH-22",
                "The last good configuration is used if ITH does not return the present one "
                "within 5 seconds.",
                BEHAVIOUR,
                shown(
                    "supervision/test_reconciler.py",
                    "test_what_was_known_before_has_to_do_where_ith_does_not_answer",
                )
                + shown(
                    "end_to_end/test_configuration.py",
                    "test_the_copy_on_disk_has_to_do_where_ith_does_not_give_its_configuration",
                ),
                ("supervision/reconciler.py",),
            ),
        ),
    ),
    Chapter(
        "Pseudonyms",
        "",
        (
            Requirement(
                "BEH-23",
                "If ITH declares the data of a site as pseudonymised "
                "(`enable_phi_anonymization`), status and log say that delivered objects carry "
                "the pseudonym.",
                BEHAVIOUR,
                shown(
                    "control/test_status.py",
                    "test_pseudonyms_are_noted_where_ith_says_that_there_are_any",
                )
                + shown(
                    "supervision/test_reconciler.py",
                    "test_what_pseudonyms_mean_is_logged_once_a_run_and_at_each_change",
                )
                + shown(
                    "end_to_end/test_configuration.py",
                    "test_pseudonyms_are_a_note_and_need_nobody_s_attention",
                ),
                ("control/status.py", "supervision/reconciler.py"),
                more="This program does not restore the patient's identity. The note asks for "
                "no action.",
            ),
        ),
    ),
    Chapter(
        "New scans",
        "",
        (
            Requirement(
                "BEH-24",
                "A new scan without named nodes goes to the nodes that have permission to read "
                "from this proxy (`dispatch.new_scans`) and are not known to be unreachable.",
                BEHAVIOUR,
                shown("nodes/test_reading.py", "test_which_nodes_get_new_scans")
                + shown(
                    "supervision/test_supervisor.py",
                    "test_a_new_scan_goes_to_the_nodes_that_may_have_it_and_answer",
                ),
                ("supervision/supervisor.py", "nodes/node.py"),
            ),
        ),
    ),
    Chapter(
        "Repeated orders",
        "",
        (
            Requirement(
                "BEH-25",
                "An order (correlation id and entity) is carried out once; if it is repeated "
                "after its end, its outcome is reported again and nothing is sent.",
                BEHAVIOUR,
                shown(
                    "supervision/test_supervisor.py",
                    "test_the_same_order_again_is_done_once",
                    "test_an_order_that_is_over_is_answered_again_and_not_done_again",
                )
                + shown(
                    "behaviour/test_repeated_orders.py",
                    "test_what_ith_could_not_give_is_answered_again_in_the_same_words",
                ),
            ),
            Requirement(
                "BEH-26",
                "A repeated order is carried out for nodes that it names in addition, or that "
                "have become nodes of this proxy; the closing message follows the last "
                "delivery and counts all of them.",
                BEHAVIOUR,
                shown(
                    "supervision/test_supervisor.py",
                    "test_the_same_order_for_one_node_more_is_done_for_that_node",
                )
                + shown(
                    "behaviour/test_repeated_orders.py",
                    "test_the_whole_is_closed_when_the_last_of_its_dispatches_is_over",
                    "test_the_whole_counts_a_node_that_the_order_names_no_more",
                    "test_a_restart_forgets_no_part_of_the_whole",
                ),
                ("supervision/dispatches.py", "reporting/reports.py"),
            ),
        ),
    ),
    Chapter(
        "Orders for the same entity",
        "",
        (
            Requirement(
                "BEH-27",
                "Running orders for the same entity are joined: the entity is downloaded once, "
                "and one delivery brings it to a node.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_redispatch.py",
                    "test_two_orders_at_a_time_are_one_download_and_one_delivery",
                    "test_a_restart_keeps_what_was_joined",
                    "test_a_hold_and_a_deletion_reach_both",
                ),
                more="It is downloaded again only if the first download began before the later "
                "order came and ITH has another version by now.",
            ),
            Requirement(
                "BEH-28",
                "A joined delivery has the highest priority of its orders.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_order_of_service.py",
                    "test_an_urgent_dispatch_of_what_waits_as_a_low_one_already_is_urgent",
                )
                + shown(
                    "work/test_scheduler.py",
                    "test_who_is_hurried_is_as_urgent_as_that_in_the_line_and_at_work",
                ),
                ("work/scheduler.py",),
            ),
            Requirement(
                "BEH-29",
                "Each joined order has its own reports, and if the leading delivery fails, the "
                "next order sends the instances that the node lacks.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_redispatch.py",
                    "test_who_joins_is_told_how_far_the_delivery_is",
                    "test_who_joins_goes_on_where_the_first_gives_up",
                ),
            ),
        ),
    ),
    Chapter(
        "A later dispatch",
        "",
        (
            Requirement(
                "BEH-30",
                "A later dispatch asks ITH for a newer version of the archive (`ETag`), and "
                "downloads only that.",
                BEHAVIOUR,
                shown("backend/test_rest.py", "test_asks_for_a_newer_version_only")
                + shown(
                    "end_to_end/test_events.py",
                    "test_the_second_node_gets_the_same_bytes_without_a_second_download",
                    "test_changed_content_is_fetched_again",
                ),
                ("backend/fetch.py", "activities/dispatch.py"),
            ),
            Requirement(
                "BEH-31",
                "By default a node gets only those instances that it has not confirmed with "
                "the same content (SHA-256); confirmed instances count as sent.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_redispatch.py",
                    "test_a_later_order_sends_what_the_policy_says",
                    "test_nothing_new_needs_no_node",
                    "test_only_changed_content_is_sent_again",
                ),
            ),
            Requirement(
                "BEH-32",
                "The confirmations of a node are forgotten when its AE title, host or port "
                "changes, with a deletion, and after 90 days of running.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_redispatch.py",
                    "test_a_node_at_another_address_is_another_node",
                    "test_what_was_deleted_is_forgotten",
                )
                + shown(
                    "supervision/test_retention.py",
                    "test_so_long_and_no_longer",
                    "test_days_are_counted_over_restarts",
                ),
                ("ledger/statements.py", "supervision/retention.py"),
            ),
            Requirement(
                "BEH-33",
                'With `dispatch.repush = "all"`, or `"repush": "all"` in the node\'s metadata '
                "at ITH, every instance is sent again.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_redispatch.py", "test_a_later_order_sends_what_the_policy_says"
                )
                + shown(
                    "activities/delivery/test_query.py",
                    "test_where_all_is_wanted_again_a_find_proves_nothing",
                ),
                ("activities/node.py", "ledger/statements.py"),
                more="**If a PACS has lost data**, use this setting and dispatch again.",
            ),
            Requirement(
                "BEH-34",
                'With `"never"` a changed instance is not sent to a node that has an earlier '
                "version of it; the dispatch then fails with that reason.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_redispatch.py",
                    "test_a_later_order_sends_what_the_policy_says",
                    "test_only_changed_content_is_sent_again",
                ),
                ("activities/node.py", "ledger/statements.py"),
            ),
        ),
    ),
    Chapter(
        "A node that is down",
        "",
        (
            Requirement(
                "BEH-35",
                "Each attempt at a node that is down counts; after `retry_count` further "
                "attempts, `retry_delay` and its doublings apart, the delivery is reported as "
                "failed with a hint for the operator.",
                BEHAVIOUR,
                shown(
                    "end_to_end/test_outages.py",
                    "test_a_node_that_is_down_fails_after_its_own_retries",
                    "test_a_node_that_comes_up_in_time_gets_everything",
                    "test_a_real_node_that_aborts_each_time_is_given_up",
                )
                + shown(
                    "machines/test_policy.py", "test_a_wait_grows_with_the_attempts_and_with_chance"
                ),
            ),
            Requirement(
                "BEH-36",
                "A C-ECHO detects the return of a node, and waiting deliveries go on at once.",
                BEHAVIOUR,
                shown(
                    "activities/test_node.py",
                    "test_a_delivery_waits_for_a_node_that_is_off_and_goes_when_it_is_back",
                    "test_each_probe_of_a_node_that_was_given_up_is_twice_as_far_off",
                ),
            ),
        ),
    ),
    Chapter(
        "Reachability of a node",
        "Many nodes accept C-STORE and refuse C-ECHO.",
        (
            Requirement(
                "BEH-37",
                "Any answer proves that a node is reachable: a failure, a refused context, a "
                "rejection, an A-ABORT.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_echo_refused.py",
                    "test_a_node_that_refuses_c_echo_is_there_and_is_delivered_to",
                )
                + shown(
                    "activities/test_node.py",
                    "test_a_node_that_answers_the_echo_with_a_failure_is_there",
                ),
            ),
            Requirement(
                "BEH-38",
                "A node goes offline after three C-ECHOs without an answer.",
                BEHAVIOUR,
                shown(
                    "activities/test_node.py",
                    "test_a_node_that_is_gone_is_given_up_and_found_again",
                )
                + shown(
                    "machines/test_policy.py",
                    "test_the_breaker_trips_at_the_threshold_and_again_with_each_probe",
                ),
            ),
            Requirement(
                "BEH-39",
                "A delivery may still try an offline node, once after each further C-ECHO.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_echo_refused.py",
                    "test_a_node_that_is_silent_to_c_echo_is_delivered_to_all_the_same",
                    "test_a_node_that_is_gone_is_tried_once_between_two_probes",
                ),
            ),
        ),
    ),
    Chapter(
        "Objects damaged on this machine",
        "",
        (
            Requirement(
                "BEH-40",
                "An object is compared with its SHA-256 while it is sent, before its last fragment "
                "leaves.",
                BEHAVIOUR,
                shown(
                    "dicom/test_storage.py",
                    "test_a_file_that_is_not_what_it_was_never_leaves_whole",
                )
                + shown(
                    "behaviour/test_damage.py", "test_what_is_read_to_be_converted_is_compared_too"
                ),
                ("dicom/storage.py", "pacs/convert.py"),
            ),
            Requirement(
                "BEH-41",
                "If an object differs, or is cut or missing, its association is aborted if "
                "sending has begun, and the entity is fetched from ITH again, twice at most.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_damage.py",
                    "test_what_the_disk_lost_is_fetched_again_and_arrives_as_it_is_at_ith",
                    "test_another_node_goes_on_meanwhile",
                )
                + shown(
                    "machines/test_policy.py",
                    "test_lost_content_is_fetched_again_so_often_and_no_oftener",
                ),
                tables=failures_with(Remedy.FETCH_AGAIN),
            ),
            Requirement(
                "BEH-42",
                "If a repeated download does not help, the other objects are delivered, and "
                "the dispatch fails with the reason.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_damage.py",
                    "test_a_disk_that_loses_it_again_and_again_fails_the_dispatch_with_the_reason",
                    "test_what_ith_has_no_longer_keeps_nobody_from_the_rest",
                ),
            ),
        ),
    ),
    Chapter(
        "A pause",
        "",
        (
            Requirement(
                "BEH-43",
                "A pause has two locks, ITH's (the proxy set inactive) and the operator's "
                "(`ith-proxy pause`), each with its own reason and kept over restarts; work "
                "goes on when both are open.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_pause.py",
                    "test_both_locks_are_kept_with_their_reasons_over_restarts",
                )
                + shown("end_to_end/test_control.py", "test_two_locks_over_kill_and_restart"),
                tables=("CHG-01", "CHG-02"),
            ),
            Requirement(
                "BEH-44",
                "During a pause orders are accepted and kept, deletions and changes of the "
                "configuration are carried out, and the heartbeat says `inactive`.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_pause.py", "test_deletions_and_configuration_work_while_paused"
                )
                + shown(
                    "supervision/test_supervisor.py",
                    "test_orders_while_paused_are_kept_and_done_afterwards",
                )
                + shown("supervision/test_heartbeat.py", "test_the_numbers_are_true"),
                more="`health_update` has no word for a pause.",
            ),
            Requirement(
                "BEH-45",
                "An instance in flight may end within `dicom.cancel_seconds`; then its "
                "association is cut.",
                BEHAVIOUR,
                shown(
                    "activities/delivery/test_delivery.py",
                    "test_a_stalled_instance_is_cut_after_the_grace_and_never_counted",
                    "test_a_stalled_instance_that_is_held_is_sent_again",
                )
                + shown(
                    "behaviour/test_stop.py",
                    "test_where_no_instance_is_in_flight_no_grace_is_waited_for",
                )
                + shown(
                    "end_to_end/test_pause_at_real_nodes.py",
                    "test_a_pause_while_a_node_takes_seconds_for_each_instance",
                ),
            ),
            Requirement(
                "BEH-46",
                "After a pause the most urgent dispatches go first, then the oldest, and no "
                "instance that is known to be stored is sent again.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_pause.py",
                    "test_what_was_kept_is_done_by_priority_and_then_in_the_order_it_came",
                    "test_a_resume_goes_on_where_the_pause_began",
                )
                + shown(
                    "end_to_end/test_pause_at_real_nodes.py",
                    "test_a_pause_in_mid_session_stores_each_instance_once_at_orthanc",
                ),
            ),
        ),
    ),
    Chapter(
        "The control socket",
        "",
        (
            Requirement(
                "BEH-47",
                "The control socket (`control.sock` in the state directory, mode 0600) is the "
                "only local interface of the program.",
                BEHAVIOUR,
                shown(
                    "control/test_server.py",
                    "test_only_the_owner_may_open_it_and_it_is_gone_in_the_end",
                    "test_who_may_not_open_it_is_told_as_whom_to_try",
                    "test_garbage_is_refused_and_changes_nothing",
                ),
                ("control/server.py",),
                more="Every user who may open it may pause the proxy.",
            ),
            Requirement(
                "BEH-48",
                "The path of the control socket has at most 107 bytes; a longer one is refused "
                "with a hint.",
                BEHAVIOUR,
                shown("control/test_server.py", "test_a_path_may_be_as_long_as_a_socket_allows"),
                ("control/server.py",),
            ),
        ),
    ),
    Chapter(
        "Warnings",
        "",
        (
            Requirement(
                "BEH-49",
                'Warnings count as stored (PS3.4 Table B.2-1), and so does "duplicate SOP '
                'instance".',
                BEHAVIOUR,
                shown("dicom/test_storage.py", "test_the_status_decides")
                + shown("dicom/test_failures.py", "test_every_status_has_the_remedy_of_its_class"),
                ("machines/failures.py",),
                failures_with(Remedy.STORED, Remedy.STORED_WITH_WARNING),
            ),
        ),
    ),
    Chapter(
        "An instance in doubt",
        "",
        (
            Requirement(
                "BEH-50",
                "The next attempt first asks the node for each instance that was sent without "
                "an answer, by its UIDs (C-FIND, Study Root, level IMAGE).",
                BEHAVIOUR,
                shown(
                    "activities/delivery/test_query.py",
                    "test_what_the_node_stored_without_a_word_is_sent_once_where_it_can_be_asked",
                    "test_nobody_is_asked_where_nothing_is_in_doubt",
                    "test_after_a_crash_the_node_is_asked_and_each_is_counted_once",
                )
                + shown(
                    "end_to_end/test_asking.py",
                    "test_an_archive_that_can_be_asked_gets_each_instance_once",
                ),
                tables=failures_with(Remedy.ASK_NODE),
            ),
            Requirement(
                "BEH-51",
                "An instance that the node reports to have counts as stored, but not as "
                "confirmed: a later dispatch sends it again.",
                BEHAVIOUR,
                shown("activities/delivery/test_query.py", "test_a_find_confirms_no_content"),
                more="C-FIND compares UIDs, not content.",
            ),
            Requirement(
                "BEH-52",
                "Every other instance in doubt is sent again at once.",
                BEHAVIOUR,
                shown(
                    "activities/delivery/test_query.py",
                    "test_what_the_node_does_not_have_is_sent_again",
                    "test_a_node_that_hangs_over_the_question_is_asked_once",
                    "test_where_all_is_wanted_again_a_find_proves_nothing",
                    "test_where_the_node_has_another_content_a_find_proves_nothing",
                )
                + shown("end_to_end/test_asking.py", "test_a_node_that_only_stores_gets_it_again"),
                ("activities/delivery/attempt.py",),
                more="The question is left out, and the instance is sent again, in three "
                "cases: the node offers no C-FIND; the node once ended the association "
                "over the question; the answer would prove nothing, because the node has "
                "confirmed another content or every instance is to be sent again.",
            ),
        ),
    ),
    Chapter(
        "Unchanged bytes",
        "",
        (
            Requirement(
                "BEH-53",
                "A data set goes to the node as ITH sent it, in its transfer syntax, which is the "
                "first (0002,0010) of the file.",
                BEHAVIOUR,
                shown(
                    "dicom/test_storage.py",
                    "test_bytes_arrive_as_they_lie_on_disk_in_pdus_the_node_can_take",
                )
                + shown("pacs/test_header.py", "test_the_first_transfer_syntax_holds")
                + shown(
                    "activities/delivery/test_sender.py",
                    "test_where_its_own_syntax_is_taken_an_instance_is_sent_untouched",
                )
                + shown(
                    "end_to_end/test_odd_files.py",
                    "test_the_data_set_arrives_as_it_is_in_the_syntax_that_the_file_says_first",
                ),
                ("dicom/storage.py", "pacs/header.py"),
                more="Further elements of group 0002 are left out. If the file names no syntax, or "
                "an uncompressed one in which no identifier can be found, it is the one in which "
                "the identifiers are.",
            ),
            Requirement(
                "BEH-54",
                "An instance without compressed pixel data is sent once in Implicit or "
                "Explicit VR Little Endian, whichever the node accepts, if the node does not "
                "accept its syntax or finds that it does not match its SOP class (A900).",
                BEHAVIOUR,
                shown(
                    "activities/delivery/test_sender.py",
                    "test_a_node_that_takes_the_default_alone_gets_it_and_has_the_instance",
                    "test_what_does_not_match_its_class_is_tried_once_in_another_syntax",
                )
                + shown("end_to_end/test_converted.py", "test_storescp", "test_orthanc"),
                ("activities/delivery/attempt.py", "pacs/convert.py"),
                failures_with(Remedy.OTHER_SYNTAX),
                more="This is the only exception to BEH-53.",
            ),
            Requirement(
                "BEH-55",
                "A conversion writes new element headers, copies the values unchanged (words "
                "of the retired big endian syntax are swapped), and leaves group lengths out.",
                BEHAVIOUR,
                shown(
                    "pacs/test_convert.py",
                    "test_dcmconv_finds_the_same_in_every_file_bit_for_bit",
                    "test_pydicom_writes_the_same_bytes",
                    "test_group_lengths_are_left_out",
                    "test_words_are_turned_by_what_the_vr_says",
                ),
                ("pacs/convert.py",),
            ),
            Requirement(
                "BEH-56",
                "Compressed pixel data are never decompressed: an instance that the node does "
                "not accept is reported as refused, and so is one that is over 1 GiB or too "
                "badly encoded to be converted.",
                BEHAVIOUR,
                shown("end_to_end/test_refusals.py", "test_real_nodes_that_take_no_compression")
                + shown(
                    "pacs/test_convert.py",
                    "test_what_is_too_large_is_refused_before_it_fills_the_disk",
                    "test_what_is_broken_is_refused",
                )
                + shown(
                    "activities/delivery/test_sender.py",
                    "test_what_cannot_be_converted_holds_up_no_other",
                ),
                ("pacs/convert.py", "dicom/contexts.py"),
            ),
        ),
    ),
    Chapter(
        "Deletions and nodes",
        "",
        (
            Requirement(
                "BEH-57",
                "A deletion removes the objects at the proxy, not those that a node already has.",
                BEHAVIOUR,
                shown(
                    "end_to_end/test_main_job.py",
                    "test_a_deletion_leaves_no_trace",
                )
                + shown(
                    "end_to_end/test_changes.py",
                    "test_a_deletion_stops_what_is_under_way",
                ),
                ("supervision/deletions.py",),
            ),
            Requirement(
                "BEH-58",
                "The report of a delivery that a deletion ended has that reason and counts the "
                "instances that the node keeps (`files_sent`), and the log counts those that "
                "nodes had confirmed before.",
                BEHAVIOUR,
                shown(
                    "end_to_end/test_changes.py",
                    "test_a_deletion_stops_what_is_under_way",
                )
                + shown(
                    "ledger/test_deletion.py",
                    "test_a_deletion_says_how_much_of_it_nodes_have_confirmed",
                ),
            ),
        ),
    ),
    Chapter(
        "No patient data",
        "",
        (
            Requirement(
                "BEH-59",
                "No patient data is in any log, status, heartbeat, error or file name.",
                BEHAVIOUR,
                shown(
                    "end_to_end/test_main_job.py",
                    "test_the_program_leaves_no_patient_in_its_log_or_on_disk",
                )
                + shown(
                    "end_to_end/test_control.py", "test_the_status_tells_the_truth_and_no_patient"
                )
                + shown(
                    "logs/test_logs.py",
                    "test_what_is_not_allowed_is_left_out_and_counted_in_production",
                    "test_no_field_is_named_after_patient_data",
                )
                + shown("ledger/test_ledger.py", "test_uids_and_patient_ids_are_in_no_error"),
                ("logs/fields.py", "pacs/local.py"),
            ),
        ),
    ),
    Chapter(
        "Reports that ITH took and lost",
        "",
        (
            Requirement(
                "BEH-60",
                "A final report that ITH's WebSocket library took after ITH's application had "
                "died is sent again to the next application.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_receipt.py",
                    "test_what_a_dead_application_never_saw_is_told_to_its_successor",
                    "test_a_dead_application_is_waited_for",
                )
                + shown(
                    "backend/test_link.py",
                    "test_what_the_library_of_a_dead_application_took_is_said_again",
                    "test_a_dead_application_is_left_in_order_and_its_report_is_kept",
                ),
                ("backend/receipts.py",),
                more="A pong is no proof on a link whose `health_update` is answered.",
            ),
            Requirement(
                "BEH-61",
                "The final states of the last hour are sent again after a reconnect, because ITH "
                "may have lost its last minutes.",
                BEHAVIOUR,
                shown(
                    "behaviour/test_receipt.py",
                    "test_the_final_states_of_the_last_hour_are_said_again_after_a_reconnect",
                    "test_an_outage_does_not_use_up_the_hour",
                    "test_where_no_health_update_is_answered_a_pong_is_the_proof",
                ),
                ("reporting/outbox.py",),
                more="The hour counts only while there is a link.",
            ),
        ),
    ),
    Chapter(
        "Nodes that take less than they are offered",
        "",
        (
            Requirement(
                "BEH-70",
                "Presentation contexts that a node leaves out are proposed on further "
                "associations, fewer at a time where it gives no reason, until it accepts nothing "
                "more.",
                BEHAVIOUR,
                shown(
                    "field/test_nodes.py",
                    "test_fewer_contexts_than_asked",
                    "test_a_node_that_rejects_more_contexts_than_it_can_hold",
                    "test_what_is_not_taken_is_named_once_and_not_proposed_for_ever",
                )
                + shown(
                    "dicom/test_contexts.py",
                    "test_offers_reach_every_node_with_a_limit",
                    "test_offers_come_to_an_end",
                ),
                ("dicom/contexts.py", "activities/delivery/attempt.py"),
            ),
            Requirement(
                "BEH-71",
                "A node that rejects or aborts associations for some contexts, and answers C-ECHO "
                "under the same AE titles, is not blamed; the contexts are tried again as other "
                "failures are.",
                BEHAVIOUR,
                shown(
                    "field/test_nodes.py",
                    "test_none_of_your_contexts",
                    "test_accepts_and_aborts_at_once",
                    "test_orders_of_others_go_on_undisturbed",
                    "test_what_rejects_only_for_a_while_is_no_refusal_of_contexts",
                ),
                ("activities/delivery/attempt.py", "activities/node.py"),
                more="A rejection or an A-ABORT never opens the breaker, since it proves that the "
                "node is there.",
            ),
            Requirement(
                "BEH-72",
                "A rejected association is tried again as other failures are, unless the node "
                "names a reason that time does not heal.",
                BEHAVIOUR,
                shown(
                    "field/test_nodes.py",
                    "test_a_node_that_rejects_while_it_starts",
                    "test_storescp_that_refuses_every_association",
                ),
                ("machines/failures.py",),
            ),
            Requirement(
                "BEH-73",
                "The log names each refused instance or context, and the final reports name the "
                "first ones, with SOP class, and transfer syntax or numbers of instance and "
                "series.",
                BEHAVIOUR,
                shown(
                    "field/test_nodes.py",
                    "test_one_of_six_instances_refused",
                    "test_many_refused_are_counted_and_some_named",
                )
                + shown("test_model.py", "test_a_uid_that_breaks_the_rules_is_masked"),
                ("machines/delivery.py",),
                more="A UID that breaks PS3.5 9.1 is masked, since it may hold a name.",
            ),
            Requirement(
                "BEH-74",
                "The repeat of a response is dropped; a response to an unknown message or for "
                "another instance ends the association.",
                BEHAVIOUR,
                shown(
                    "field/test_nodes.py",
                    "test_every_response_twice",
                    "test_every_response_once_more_before_the_next",
                    "test_a_response_to_an_unknown_message_aborts",
                ),
                ("dicom/association.py",),
            ),
            Requirement(
                "BEH-75",
                "What answers in a node's place is recognised by its first bytes and named in log "
                "and status, never to ITH.",
                BEHAVIOUR,
                shown("field/test_nodes.py", "test_another_server_on_the_port")
                + shown("dicom/test_strangers.py", "test_a_stranger_is_known_by_its_first_bytes"),
                ("dicom/strangers.py",),
            ),
        ),
    ),
    Chapter(
        "Files that are not as the standard has them",
        "",
        (
            Requirement(
                "BEH-76",
                "A file that dcmsend delivers is delivered; needed are the start of the data set, "
                "the transfer syntax, and SOP class and instance UID.",
                BEHAVIOUR,
                shown("field/test_files.py", "test_where_dcmsend_delivers_the_program_does")
                + shown(
                    "pacs/test_header.py",
                    "test_each_file_from_the_field_is_read",
                    "test_what_is_missing_of_the_rest_is_empty",
                    "test_a_uid_that_only_the_file_meta_group_has",
                ),
                ("pacs/header.py", "pacs/elements.py"),
                more="Odd VRs, UIDs, lengths of sequences and orders of elements are left to the "
                "node. Study, series, numbers and patient are empty if they are not found.",
            ),
            Requirement(
                "BEH-77",
                "A UID goes to the node as it is, without its padding, and is not repaired.",
                BEHAVIOUR,
                shown(
                    "pacs/test_header.py",
                    "test_an_odd_uid_is_taken_as_it_is",
                    "test_a_long_uid_is_taken_as_it_is",
                )
                + shown(
                    "dicom/test_codecs.py",
                    "test_an_odd_uid_leaves_and_comes_back_as_it_is",
                    "test_an_answer_may_name_an_odd_uid_as_nodes_keep_it",
                )
                + shown("logs/test_logs.py", "test_a_uid_that_may_hold_a_name_is_masked")
                + shown("dicom/test_find.py", "test_a_uid_that_matches_others_is_not_asked_for"),
                ("dicom/dimse.py", "logs/fields.py"),
                more="One that breaks PS3.5 9.1 may hold a name: the log masks it, and it is not "
                "asked for by C-FIND. A node may leave out blanks in its answer, and what is "
                "behind a null byte or 64 characters.",
            ),
            Requirement(
                "BEH-78",
                "A data set of odd length is sent with a null byte behind each value of odd "
                "length; one that is odd for another reason is not sent.",
                BEHAVIOUR,
                shown(
                    "pacs/test_convert.py",
                    "test_values_of_odd_length_are_padded_where_the_data_set_is_odd",
                    "test_fragments_of_odd_length_are_padded",
                    "test_a_byte_behind_the_data_set_is_not_padded",
                )
                + shown("field/test_files.py", "test_where_dcmsend_delivers_the_program_does"),
                ("pacs/convert.py",),
            ),
            Requirement(
                "BEH-79",
                "An instance that no node can be sent is named in the log by its place in the "
                "archive, its SOP class and the reason; count and reason are reported, and the "
                "others are sent.",
                BEHAVIOUR,
                shown(
                    "field/test_files.py",
                    "test_what_cannot_be_sent_is_told_by_its_place_class_and_reason",
                    "test_two_different_objects_with_one_uid_are_told_as_such",
                    "test_a_class_that_may_hold_a_name_is_masked",
                )
                + shown(
                    "ledger/test_ledger.py", "test_what_cannot_be_sent_is_known_after_a_restart"
                ),
                ("activities/dispatch.py", "backend/archive.py"),
                more="Of two different objects with one UID the first in the archive is sent.",
            ),
            Requirement(
                "BEH-80",
                "An instance without the identifier that a deletion looks for goes with any "
                "deletion within the entity that it was fetched with.",
                BEHAVIOUR,
                shown(
                    "ledger/test_deletion.py",
                    "test_an_instance_without_its_identifiers_goes_with_the_entity_it_came_with",
                    "test_it_goes_with_what_was_deleted_beside_it",
                    "test_only_what_a_deletion_looks_for_must_be_missing",
                    "test_a_deletion_within_the_entity_takes_it_by_the_ids_of_the_parents",
                    "test_a_download_from_before_the_deletion_does_not_bring_it_back",
                    "test_its_confirmations_go_with_it",
                ),
                ("ledger/statements.py",),
                more="It may belong to what was deleted; the next order fetches what is left.",
            ),
        ),
    ),
)
"""The behaviours, by subject."""
