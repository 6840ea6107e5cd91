"""The numbered requirements of the program: data for pages, and for tests that compare the code.

Each requirement is one sentence that a test can refute, and names tests that show it. Rows of the
machines name requirements in their ``traces``; if no row can carry one, ``carried_by`` names the
modules that do. ``proxy.cli.requirement_pages`` writes ``statecharts/trace.md``,
``docs/requirements.md`` and ``docs/behaviour.md`` from this data. Ids are permanent.
"""

from __future__ import annotations

from proxy.machines.behaviours import SUBJECTS
from proxy.machines.failures import Remedy
from proxy.machines.traceability import Chapter, Requirement, failures_with, shown

__all__ = ["GROUPS", "REQUIREMENTS", "SUBJECTS", "Chapter", "Requirement"]

_EVENTS = Chapter(
    "Events",
    "The events between ITH and the proxy, as events.md defines them: their types, their "
    "fields and their effects.",
    (
        Requirement(
            "REQ-EVT-01",
            "A `ping` is answered with a `pong`.",
            "events.md, Ping Event",
            shown("backend/test_link.py", "test_pings_of_both_dialects_are_answered_under_load")
            + shown("end_to_end/test_link.py", "test_pings_are_answered_whatever_else_goes_on"),
            ("backend/link.py",),
        ),
        Requirement(
            "REQ-EVT-02",
            "`session.deleted` removes the session from the local PACS.",
            "events.md, Deletion Events",
            shown("end_to_end/test_main_job.py", "test_a_deletion_leaves_no_trace")
            + shown("ledger/test_deletion.py", "test_a_session_goes_by_its_id_or_its_study")
            + shown("pacs/test_local.py", "test_a_deletion_takes_rows_and_files"),
            ("supervision/deletions.py", "pacs/local.py"),
            ("CHG-09",),
        ),
        Requirement(
            "REQ-EVT-03",
            "`scan.deleted` removes the scan from the local PACS.",
            "events.md, Deletion Events",
            shown("end_to_end/test_main_job.py", "test_a_deleted_scan_leaves_the_others")
            + shown("ledger/test_deletion.py", "test_a_scan_goes_by_study_and_number_or_by_its_id"),
            ("supervision/deletions.py", "pacs/local.py"),
            ("CHG-09",),
        ),
        Requirement(
            "REQ-EVT-04",
            "`subject.dispatch` downloads the subject and stores it at each named node.",
            "events.md, Dispatch Events",
            shown("end_to_end/test_events.py", "test_scans_and_subjects_are_dispatched_too"),
        ),
        Requirement(
            "REQ-EVT-05",
            "`session.dispatch` downloads the session and stores it at each named node.",
            "events.md, Dispatch Events",
            shown("end_to_end/test_main_job.py", "test_a_session_arrives_whole_at_two_real_nodes")
            + shown(
                "end_to_end/test_interoperation.py",
                "test_storescp",
                "test_dcmqrscp",
                "test_orthanc",
                "test_pynetdicom",
                "test_dcmjs_dimse",
            )
            + shown("supervision/test_supervisor.py", "test_a_session_goes_to_both_nodes"),
        ),
        Requirement(
            "REQ-EVT-06",
            "`scan.dispatch` downloads the scan and stores it at each named node.",
            "events.md, Dispatch Events",
            shown("end_to_end/test_events.py", "test_scans_and_subjects_are_dispatched_too"),
        ),
        Requirement(
            "REQ-EVT-07",
            "`proxy.nodes_changed` updates the nodes.",
            "events.md, Configuration Events",
            shown(
                "supervision/test_supervisor.py",
                "test_added_and_replaced_nodes_are_at_work_at_once",
            )
            + shown(
                "nodes/test_changes.py",
                "test_most_actions_insert_or_overwrite",
                "test_removed_needs_the_id_only",
                "test_replaced_leaves_exactly_what_is_named",
            ),
            tables=("CHG-03", "CHG-04", "CHG-05", "CHG-06", "CHG-07"),
        ),
        Requirement(
            "REQ-EVT-08",
            "`proxy.config_changed` updates the settings that ITH has for the proxy.",
            "events.md, Configuration Events",
            shown("nodes/test_configuration.py", "test_a_change_of_one_field")
            + shown(
                "end_to_end/test_changes.py",
                "test_the_retries_of_a_running_dispatch_follow_a_configuration_event",
            ),
            ("nodes/configuration.py", "supervision/reconciler.py"),
            ("CHG-08",),
        ),
        Requirement(
            "REQ-EVT-09",
            "`proxy.status_changed` pauses the work of the proxy, or lets it go on.",
            "events.md, Configuration Events",
            shown(
                "end_to_end/test_changes.py",
                "test_a_pause_in_mid_session_loses_and_repeats_nothing",
                "test_a_pause_survives_a_restart",
            ),
            tables=("CHG-01", "CHG-02"),
        ),
        Requirement(
            "REQ-EVT-10",
            "The `pong` confirms that the connection is alive, under any load.",
            "events.md, Pong Event",
            shown("events/test_outgoing.py", "test_a_pong_speaks_both_dialects")
            + shown("backend/test_link.py", "test_a_flood_of_pings_ends_nothing"),
            ("backend/link.py", "events/outgoing/pong.py"),
        ),
        Requirement(
            "REQ-EVT-11",
            "`dispatch.status` reports the progress of a dispatch to ITH: `node_id`, `status`, "
            "`progress`, `files_sent`, `files_total`, `error`.",
            "events.md, Dispatch Status Event",
            shown("events/test_usage.py", "test_a_dispatch_status_is_made_as_the_document_shows")
            + shown("events/test_outgoing.py", "test_zero_counts_are_sent_and_not_left_out")
            + shown("reporting/test_reports.py", "test_each_detail"),
        ),
        Requirement(
            "REQ-EVT-12",
            "`proxy.heartbeat` reports the state of the proxy to ITH at intervals: `status`, "
            "`nodes_online`, `nodes_total`, `active_dispatches`, `disk_usage_gb`, `version`.",
            "events.md, Proxy Heartbeat Event",
            shown("supervision/test_heartbeat.py", "test_the_numbers_are_true")
            + shown("end_to_end/test_link.py", "test_the_signs_of_life_are_true"),
            ("supervision/heartbeat.py", "events/outgoing/proxy_heartbeat.py"),
        ),
        Requirement(
            "REQ-EVT-13",
            "Every event has the seven fields `event_type`, `workspace_id`, `timestamp`, "
            "`correlation_id`, `entity_type`, `entity_id` and `payload`.",
            "events.md, Base Event Structure",
            shown("events/test_usage.py", "test_every_event_has_the_seven_fields_in_order"),
            ("events/base.py",),
        ),
        Requirement(
            "REQ-EVT-14",
            "Every event is made by `create(...)`, which dates and numbers it.",
            "events.md, Creating Events",
            shown(
                "events/test_usage.py",
                "test_a_session_dispatch_is_made_as_the_document_shows",
                "test_create_dates_and_numbers_an_event",
                "test_create_takes_time_and_correlation_id",
                "test_two_events_never_share_a_correlation_id",
            ),
            ("events/base.py",),
        ),
        Requirement(
            "REQ-EVT-15",
            "Every event becomes JSON by `to_dict()`, and comes back from it unchanged.",
            "events.md, Serializing Events",
            shown(
                "events/test_codec.py", "test_what_the_document_shows_goes_in_and_comes_out_again"
            )
            + shown("events/test_outgoing.py", "test_what_we_send_is_what_the_document_shows"),
            ("events/base.py", "events/codec.py"),
        ),
        Requirement(
            "REQ-EVT-16",
            "Each incoming and each outgoing event has a module of its name below "
            "`events/incoming` or `events/outgoing`.",
            "events.md, Directory Organization",
            shown(
                "events/test_unions.py",
                "test_every_module_is_in_the_union",
                "test_every_message_is_frozen_and_explained",
            ),
            ("events/incoming/__init__.py", "events/outgoing/__init__.py"),
        ),
    ),
)

_PROMISES = Chapter(
    "The three promises",
    "The promises of README.md. Everything else serves them.",
    (
        Requirement(
            "REQ-PROM-1",
            "An instance is reported as sent only when the node said that it has it.",
            "README.md, promise 1",
            shown("dicom/test_storage.py", "test_the_status_decides")
            + shown(
                "supervision/test_dispatches.py",
                "test_whatever_happens_every_order_ends_once_and_true",
            )
            + shown(
                "supervision/test_supervisor.py", "test_damaged_files_are_never_counted_as_sent"
            )
            + shown("reporting/test_outbox.py", "test_nothing_leaves_before_the_ledger_has_it"),
            tables=failures_with(Remedy.STORED, Remedy.STORED_WITH_WARNING),
        ),
        Requirement(
            "REQ-PROM-2",
            "An accepted order is never lost, and an instance that is known to be stored is "
            "not sent again: not after a crash, a full disk, a dead node or a dead link.",
            "README.md, promise 2",
            shown(
                "end_to_end/test_crash.py",
                "test_kill_9_loses_nothing_and_repeats_next_to_nothing",
                "test_kill_9_between_storing_and_its_answer_sends_nothing_twice",
                "test_kill_9_while_downloading",
            )
            + shown(
                "ledger/test_power_loss.py", "test_a_write_that_fails_at_any_moment_loses_nothing"
            )
            + shown("end_to_end/test_outages.py", "test_a_node_that_restarts_gets_nothing_twice")
            + shown("end_to_end/test_link.py", "test_what_ended_while_offline_is_told_later"),
        ),
        Requirement(
            "REQ-PROM-3",
            "A change takes effect at once, and leaves no socket, task or file behind.",
            "README.md, promise 3",
            shown("end_to_end/test_stop.py", "test_a_stop_is_fast_wherever_the_node_is")
            + shown("dicom/test_time.py", "test_cancelled_at_any_step_everything_is_closed")
            + shown(
                "runtime/test_runner.py",
                "test_a_cancelled_run_leaves_nothing_wherever_it_is_cancelled",
            ),
            tables=("CHG-11",),
        ),
    ),
)

_PROTOCOL = Chapter(
    "Protocol",
    "The protocol between ITH's backend and the proxy: docs/protocol.md.",
    (
        Requirement(
            "REQ-PROT-01",
            "The proxy dials out to ITH's address with the WebSocket path and sends its key, "
            "percent-encoded, in the query and as a header.",
            "docs/protocol.md 1.1",
            shown(
                "backend/test_link.py",
                "test_the_key_is_percent_encoded_below_the_base_address",
                "test_the_path_is_configurable",
            ),
            ("backend/link.py",),
        ),
        Requirement(
            "REQ-PROT-02",
            "A base URL of plain http is refused, but for this machine itself or where the site "
            "allows it.",
            "docs/protocol.md 1.1",
            shown(
                "backend/test_addresses.py",
                "test_refuses_a_base_that_is_unsafe_or_malformed",
                "test_plain_http_is_for_this_machine",
                "test_plain_http_elsewhere_if_the_site_insists",
            ),
            ("backend/addresses.py",),
        ),
        Requirement(
            "REQ-PROT-03",
            "ITH's certificate is always verified, on the WebSocket and for downloads.",
            "docs/protocol.md 1.1",
            shown(
                "backend/test_link.py",
                "test_tls_with_a_good_certificate",
                "test_tls_with_another_host_s_certificate",
                "test_tls_with_an_unknown_ca",
            )
            + shown("backend/test_rest.py", "test_trusts_only_known_certificates"),
            ("backend/trust.py",),
        ),
        Requirement(
            "REQ-PROT-04",
            "The key is in no log and no error message.",
            "docs/protocol.md 1.1",
            shown("backend/test_link.py", "test_the_key_is_in_no_line_of_any_log")
            + shown("backend/test_rest.py", "test_no_repr_shows_the_key")
            + shown("settings/test_settings.py", "test_the_key_does_not_show_itself")
            + shown(
                "cli/test_run.py", "test_a_run_logs_json_hides_the_key_and_ends_well_on_sigterm"
            ),
            ("settings/secret.py",),
        ),
        Requirement(
            "REQ-PROT-05",
            "Any first message of ITH opens the link; an event that comes first is acted upon.",
            "docs/protocol.md 1.2",
            shown(
                "backend/test_link.py",
                "test_connected_comes_first",
                "test_an_event_comes_first_and_is_handled",
            ),
        ),
        Requirement(
            "REQ-PROT-06",
            "If ITH sends nothing at first, the proxy sends a `health_update`.",
            "docs/protocol.md 1.2",
            shown(
                "backend/test_link.py",
                "test_a_server_may_wait_for_our_greeting",
                "test_a_server_that_greets_us_is_not_taken_for_one_that_waits",
            ),
            ("backend/link.py",),
        ),
        Requirement(
            "REQ-PROT-07",
            "A connection that does not come about, or on which ITH says nothing within "
            "`ith.handshake_seconds`, is dropped and tried again later.",
            "docs/protocol.md 1.2",
            shown(
                "backend/test_link.py",
                "test_a_silent_server_is_not_ith",
                "test_an_upgrade_without_answer_is_given_up",
            ),
        ),
        Requirement(
            "REQ-PROT-08",
            "On every link the proxy sends its address once (`config_update`), as soon as "
            "ITH's configuration is known.",
            "docs/protocol.md 1.2",
            shown(
                "backend/test_link.py",
                "test_where_we_are_is_said_once_on_each_link",
                "test_nothing_waits_for_the_configuration_but_where_we_are",
            ),
            ("backend/link.py", "supervision/heartbeat.py"),
        ),
        Requirement(
            "REQ-PROT-09",
            "If ITH refuses the key (401, 403, 4001, 4003), the proxy waits long and informs "
            "the operator.",
            "docs/protocol.md 1.3",
            shown(
                "backend/test_link.py",
                "test_a_refused_key_waits_long_and_says_what_to_do",
                "test_a_key_refused_by_a_close_code_waits_long",
            )
            + shown("end_to_end/test_link.py", "test_a_refused_key_makes_no_tight_loop"),
        ),
        Requirement(
            "REQ-PROT-10",
            "A proxy whose key is used by a newer connection (4002) waits long and does not evict "
            "that one.",
            "docs/protocol.md 1.3",
            shown("backend/test_link.py", "test_whoever_is_evicted_does_not_evict_the_other")
            + shown("end_to_end/test_link.py", "test_an_evicted_proxy_does_not_fight"),
        ),
        Requirement(
            "REQ-PROT-11",
            "After any other loss of the link the proxy waits a random time that doubles with "
            "each failure, and forgets failures only when a link has stayed up.",
            "docs/protocol.md 1.3",
            shown(
                "backend/test_link.py",
                "test_the_back_off_is_drawn_from_the_whole_interval_and_reset_by_a_stable_link_only",
                "test_a_lost_link_is_made_again",
                "test_any_other_close_code_is_tried_again",
            )
            + shown(
                "machines/test_connection.py", "test_failures_are_forgotten_only_by_a_stable_link"
            ),
        ),
        Requirement(
            "REQ-PROT-12",
            "`Retry-After` of a refused upgrade is obeyed within a bound.",
            "docs/protocol.md 1.3",
            shown("backend/test_link.py", "test_retry_after_is_obeyed"),
            ("backend/answer.py",),
        ),
        Requirement(
            "REQ-PROT-13",
            "A proxy that stops sends `offline` and the remaining reports and closes with "
            "1000; it does not wait without limit for the answer to the close.",
            "docs/protocol.md 1.3",
            shown(
                "backend/test_link.py",
                "test_the_close_is_orderly_after_the_last_reports",
                "test_a_server_that_does_not_answer_the_close_is_left",
                "test_a_link_lost_while_closing_is_closed",
            ),
        ),
        Requirement(
            "REQ-PROT-14",
            "A `ping` named by `type` and one named by `event_type` are answered at once with a "
            "`pong` that bears both names.",
            "docs/protocol.md 1.5",
            shown("events/test_codec.py", "test_both_ping_dialects_are_one_event")
            + shown("events/test_outgoing.py", "test_a_pong_speaks_both_dialects")
            + shown("backend/test_link.py", "test_pings_of_both_dialects_are_answered_under_load"),
            ("backend/link.py", "events/codec.py"),
        ),
        Requirement(
            "REQ-PROT-15",
            "A link whose WebSocket ping is not answered within `ith.pong_seconds`, or that takes "
            "nothing, counts as lost.",
            "docs/protocol.md 1.5",
            shown(
                "backend/test_link.py",
                "test_a_server_that_goes_silent_is_noticed",
                "test_a_server_that_takes_nothing_is_noticed",
            ),
        ),
        Requirement(
            "REQ-PROT-16",
            "A final report is proven by the answer to a later `health_update`, or, on a link "
            "without such answers, by the pong for a later ping; after a reconnect the unproven "
            "reports are sent again in their order.",
            "docs/protocol.md 1.5",
            shown(
                "reporting/test_outbox.py",
                "test_a_report_is_unproven_until_what_followed_it_is_answered",
                "test_a_new_link_takes_again_what_is_unproven_in_its_order",
            )
            + shown(
                "backend/test_receipts.py",
                "test_an_answer_proves_what_was_sent_before_its_update",
                "test_a_pong_proves_nothing_while_an_answer_may_come",
                "test_a_pong_proves_nothing_once_an_update_was_answered",
            )
            + shown(
                "backend/test_link.py",
                "test_reports_wait_for_the_link_and_for_its_proof",
                "test_the_first_health_update_goes_ahead_of_the_reports",
                "test_a_pong_proves_where_no_health_update_is_answered",
                "test_the_last_answer_is_waited_for_before_the_close",
            ),
            ("reporting/outbox.py", "backend/receipts.py"),
        ),
        Requirement(
            "REQ-PROT-17",
            "`health_update` and `proxy.heartbeat` are both sent at intervals, and each can be "
            "switched off.",
            "docs/protocol.md 1.5",
            shown(
                "backend/test_link.py",
                "test_both_signs_of_life_are_on_by_default",
                "test_each_sign_of_life_can_be_switched",
            ),
            ("backend/link.py", "supervision/heartbeat.py"),
        ),
        Requirement(
            "REQ-PROT-18",
            "Control messages, flat events and nested events are read alike; in a nested one the "
            "inner fields win and the outer ones fill gaps.",
            "docs/protocol.md 1.6",
            shown(
                "events/test_codec.py",
                "test_the_nested_example_is_the_flat_one",
                "test_the_envelope_fills_gaps_of_the_event_in_it",
                "test_type_is_read_before_event_type",
            )
            + shown("end_to_end/test_link.py", "test_the_nested_dialect_works"),
            ("events/codec.py",),
        ),
        Requirement(
            "REQ-PROT-19",
            "A frame that is broken or unknown is counted, logged without its content, and leaves "
            "the link up.",
            "docs/protocol.md 1.6",
            shown("backend/test_link.py", "test_broken_and_unknown_frames_leave_the_link_up")
            + shown(
                "events/test_codec.py",
                "test_unknown_names_are_reported",
                "test_a_broken_frame_says_why_and_how_long_it_is",
            )
            + shown("supervision/test_supervisor.py", "test_no_event_harms_another"),
            ("events/codec.py", "backend/link.py"),
        ),
        Requirement(
            "REQ-PROT-20",
            "A message above `ith.max_frame_bytes` ends the link, and the next attempt waits.",
            "docs/protocol.md 1.6",
            shown(
                "backend/test_link.py", "test_too_large_a_frame_ends_the_link_without_a_tight_loop"
            ),
        ),
        Requirement(
            "REQ-PROT-21",
            "Ids are opaque: they are percent-encoded in URLs and never part of a path on disk.",
            "docs/protocol.md 2",
            shown(
                "backend/test_addresses.py",
                "test_ids_stay_what_they_are",
                "test_refuses_ids_that_would_change_the_path",
            )
            + shown("pacs/test_objects.py", "test_what_is_no_hash_is_no_name")
            + shown("backend/test_archive.py", "test_names_never_become_paths"),
            ("backend/addresses.py", "pacs/local.py"),
        ),
        Requirement(
            "REQ-PROT-22",
            "An event of another workspace is counted and not obeyed.",
            "docs/protocol.md 2",
            shown(
                "supervision/test_supervisor.py",
                "test_another_workspace_s_event_is_not_for_us",
                "test_another_workspace_s_event_is_not_for_us_though_it_comes_before_we_know_ours",
            )
            + shown("end_to_end/test_events.py", "test_another_workspace_is_ignored"),
            ("supervision/supervisor.py",),
        ),
        Requirement(
            "REQ-PROT-23",
            "Reports echo the correlation id of the order; an order without one gets one from its "
            "content, the same each time.",
            "docs/protocol.md 2",
            shown("reporting/test_reports.py", "test_the_envelope_echoes_the_order")
            + shown(
                "events/test_tolerance.py",
                "test_an_event_without_correlation_id_gets_one",
                "test_the_same_dated_event_gets_the_same_correlation_id",
                "test_different_events_get_different_correlation_ids",
            ),
            ("events/codec.py", "reporting/reports.py"),
        ),
        Requirement(
            "REQ-PROT-24",
            "Fields that are not known are ignored; fields that are not needed may be absent or "
            "null.",
            "docs/protocol.md 2",
            shown(
                "events/test_tolerance.py",
                "test_unknown_fields_are_no_matter",
                "test_optional_fields_of_a_payload_may_be_absent_or_null",
                "test_a_required_field_that_is_missing_breaks_the_frame",
            ),
            ("events/tolerance.py",),
        ),
        Requirement(
            "REQ-PROT-25",
            "`config_update` holds address, port, AE title, `api_url` and version; a refusal of "
            "it is logged and changes nothing.",
            "docs/protocol.md 2.4",
            shown(
                "supervision/test_heartbeat.py",
                "test_each_field_is_the_site_s_own_or_as_ith_has_it",
            )
            + shown("events/test_outgoing.py", "test_without_an_api_url_an_empty_one_is_sent")
            + shown(
                "backend/test_link.py",
                "test_a_refused_config_update_is_logged_and_leaves_the_link_up",
            ),
            ("events/outgoing/config_update.py", "supervision/heartbeat.py"),
        ),
        Requirement(
            "REQ-PROT-26",
            "`health_update` says `online` or `offline` and names the active nodes with their "
            "reachability.",
            "docs/protocol.md 2.5",
            shown(
                "supervision/test_heartbeat.py",
                "test_the_health_names_active_nodes_and_who_answered",
            )
            + shown("events/test_outgoing.py", "test_health_without_nodes_has_no_nodes_key"),
            ("events/outgoing/health_update.py", "supervision/heartbeat.py"),
        ),
        Requirement(
            "REQ-PROT-27",
            "`scan.new_scan_available` with another action than `pull_and_dispatch` is ignored.",
            "docs/protocol.md 2.9",
            shown(
                "end_to_end/test_new_scans.py", "test_a_new_scan_that_is_not_to_be_pulled_is_left"
            ),
            ("supervision/supervisor.py",),
        ),
        Requirement(
            "REQ-PROT-28",
            "`subject.deleted` removes the subject and its sessions, by ITH's id or by PatientID.",
            "docs/protocol.md 2.12",
            shown(
                "supervision/test_supervisor.py", "test_a_deleted_subject_takes_its_sessions_along"
            )
            + shown("ledger/test_deletion.py", "test_a_subject_goes_by_its_id_or_its_patient_id"),
            ("supervision/deletions.py", "ledger/ledger.py"),
            ("CHG-09",),
        ),
        Requirement(
            "REQ-PROT-29",
            "`dispatch.status` has one of four words, a progress of 0 to 100, counts that are "
            "not negative, and an error only with `failed`.",
            "docs/protocol.md 2.16",
            shown(
                "events/test_outgoing.py",
                "test_another_status_word_is_refused_with_those_there_are",
                "test_progress_outside_0_to_100_is_refused",
                "test_negative_counts_are_refused",
                "test_an_error_is_for_failed_only",
            ),
            ("events/outgoing/dispatch_status.py",),
        ),
        Requirement(
            "REQ-PROT-30",
            "Of ITH's REST interface the proxy uses the configuration and the downloads of "
            "subjects, sessions and scans, and nothing else.",
            "docs/protocol.md 3",
            shown("backend/test_addresses.py", "test_asks_for_what_the_protocol_says")
            + shown("backend/test_rest.py", "test_the_configuration_comes_from_ith_alone"),
            ("backend/addresses.py", "backend/rest.py"),
        ),
        Requirement(
            "REQ-PROT-31",
            "A download names its parents and the form of the archive, asks for no content coding, "
            "and may come without a length.",
            "docs/protocol.md 3.2",
            shown("backend/test_addresses.py", "test_asks_for_what_the_protocol_says")
            + shown(
                "backend/test_rest.py",
                "test_downloads_the_body_as_it_is",
                "test_takes_a_body_of_unknown_length",
                "test_a_body_cut_in_chunked_coding_is_not_taken_for_whole",
            ),
            ("backend/addresses.py", "backend/fetch.py"),
        ),
        Requirement(
            "REQ-PROT-32",
            "The proxy waits long for the first byte of a download, and breaks off one that no "
            "longer moves.",
            "docs/protocol.md 3.2",
            shown(
                "backend/test_rest.py",
                "test_waits_longer_for_the_first_byte_than_for_the_next",
                "test_does_not_wait_for_ever_for_the_first_byte",
                "test_a_stalled_body_is_cut_and_resumed",
                "test_a_drip_is_no_movement",
            ),
            ("backend/fetch.py",),
        ),
        Requirement(
            "REQ-PROT-33",
            "An archive is whatever unzip, tar and gzip unpack, of any layout, with one level of "
            "archives in it; DICOM files are recognised by their content.",
            "docs/protocol.md 3.2",
            shown(
                "backend/test_archive.py",
                "test_gives_every_instance_byte_for_byte",
                "test_content_decides_and_everything_else_is_counted",
                "test_reads_zip64",
                "test_reads_every_kind_of_tar_header",
            )
            + shown("backend/test_inside.py", "test_an_archive_within_the_archive_is_unpacked")
            + shown(
                "field/test_archives.py",
                "test_the_images_are_sent",
                "test_the_images_are_unpacked",
                "test_nothing_is_unpacked_by_the_tools_alone",
            ),
            ("backend/archive.py",),
        ),
        Requirement(
            "REQ-PROT-34",
            "An archive that holds no instance that can be read, or is above a limit, makes the "
            "dispatch fail and leaves no file.",
            "docs/protocol.md 3.2",
            shown(
                "backend/test_archive.py",
                "test_nothing_dicom_is_an_error_with_counts",
                "test_a_cut_anywhere_is_noticed",
                "test_encrypted_files_are_refused",
                "test_limits_hold",
                "test_a_bomb_stops_at_the_ratio_where_it_would_fill_the_disk",
            )
            + shown("backend/test_rest.py", "test_a_page_is_no_archive"),
        ),
        Requirement(
            "REQ-PROT-35",
            "A file or an archive within the archive that may hold images and cannot be read makes "
            "the dispatch fail, with the count, after the rest was delivered.",
            "docs/protocol.md 3.2",
            shown("backend/test_inside.py", "test_what_is_too_deep_is_passed_over")
            + shown(
                "field/test_archives.py",
                "test_what_was_not_read_is_counted_and_costs_nothing_else",
                "test_what_cannot_be_read_fails_the_dispatch_when_the_rest_was_delivered",
            )
            + shown(
                "end_to_end/test_refusals.py",
                "test_a_damaged_archive_is_downloaded_twice_and_the_rest_is_delivered",
                "test_an_archive_within_the_archive_that_may_hold_images_is_no_success",
                "test_an_archive_within_the_archive_without_images_is_nothing",
            ),
        ),
        Requirement(
            "REQ-PROT-36",
            "An entity that is held is downloaded again only if its `ETag` has changed.",
            "docs/protocol.md 3.3",
            shown("backend/test_rest.py", "test_asks_for_a_newer_version_only")
            + shown(
                "end_to_end/test_events.py",
                "test_the_second_node_gets_the_same_bytes_without_a_second_download",
                "test_changed_content_is_fetched_again",
            ),
            ("backend/fetch.py", "activities/dispatch.py"),
        ),
        Requirement(
            "REQ-PROT-37",
            "A broken download is resumed if ITH allows it and the version is the same, and "
            "begun again otherwise.",
            "docs/protocol.md 3.3",
            shown(
                "backend/test_rest.py",
                "test_resumes_the_same_version_wherever_it_is_cut",
                "test_starts_over_when_the_version_changed_in_between",
                "test_does_not_believe_a_false_range",
                "test_starts_over_after_416",
                "test_starts_over_where_nothing_can_be_resumed",
            ),
            ("backend/fetch.py",),
        ),
        Requirement(
            "REQ-PROT-38",
            "At most three redirects are followed, only to ITH or to hosts the site allows, and "
            "the key stays with ITH.",
            "docs/protocol.md 3.4",
            shown(
                "backend/test_rest.py",
                "test_the_key_stays_with_its_origin_when_redirected",
                "test_refuses_to_be_led_elsewhere",
                "test_follows_three_redirects_and_no_fourth",
            )
            + shown("backend/test_addresses.py", "test_redirects_lead_only_where_the_settings_say"),
            ("backend/addresses.py", "backend/fetch.py"),
        ),
        Requirement(
            "REQ-PROT-39",
            "A download that fails for a time is tried again, five times in all; one that ITH "
            "refuses for good fails the dispatch at once.",
            "docs/protocol.md 3.5",
            shown(
                "backend/test_rest.py",
                "test_tells_what_is_permanent",
                "test_obeys_retry_after_within_a_bound",
            )
            + shown(
                "machines/test_policy.py",
                "test_a_download_is_tried_so_many_times_in_all",
                "test_what_cannot_be_repeated_is_not",
            )
            + shown("end_to_end/test_events.py", "test_what_ith_does_not_have_is_said_so"),
        ),
        Requirement(
            "REQ-PROT-40",
            "A dispatch is served at those of its nodes that are the proxy's own; if none is, "
            "the proxy sends no report at all.",
            "docs/protocol.md 4.1",
            shown(
                "supervision/test_supervisor.py",
                "test_nodes_of_others_and_repeated_ones_are_passed_over",
                "test_none_of_ours_named_is_silence",
            )
            + shown("end_to_end/test_events.py", "test_nodes_of_others_get_no_word_at_all"),
            ("supervision/supervisor.py",),
        ),
        Requirement(
            "REQ-PROT-41",
            "A new scan goes to the active nodes whose permission fits `dispatch.new_scans` and "
            "that are not known to be away.",
            "docs/protocol.md 4.2",
            shown("nodes/test_reading.py", "test_which_nodes_get_new_scans")
            + shown(
                "supervision/test_supervisor.py",
                "test_a_new_scan_goes_to_the_nodes_that_may_have_it_and_answer",
            )
            + shown(
                "end_to_end/test_new_scans.py",
                "test_a_new_scan_goes_to_the_nodes_that_may_read_and_to_no_others",
            ),
            ("supervision/supervisor.py", "nodes/node.py"),
        ),
        Requirement(
            "REQ-PROT-42",
            "Each node of a dispatch has a stream of reports of its own, and one message without "
            "`node_id` closes the dispatch; `dispatch.status_detail` chooses among them.",
            "docs/protocol.md 4.3",
            shown("reporting/test_reports.py", "test_each_detail")
            + shown(
                "events/test_outgoing.py", "test_the_closing_message_of_a_dispatch_names_no_node"
            )
            + shown(
                "behaviour/test_repeated_orders.py",
                "test_one_stream_for_all_nodes_counts_all_dispatches",
            ),
        ),
        Requirement(
            "REQ-PROT-43",
            "A correlation id with an entity is one order, even if it comes several times.",
            "docs/protocol.md 4.4",
            shown(
                "supervision/test_dispatches.py",
                "test_the_same_order_has_the_correlation_id_and_the_entity",
                "test_orders_without_correlation_id_are_never_the_same",
            )
            + shown("ledger/test_ledger.py", "test_a_repeated_order_is_the_same_dispatch"),
        ),
        Requirement(
            "REQ-PROT-44",
            "`urgent` comes before `high`, `normal` and `low`, at each node and among the "
            "downloads.",
            "docs/protocol.md 4.4",
            shown("work/test_fair_queue.py", "test_the_most_urgent_is_next_then_the_first_to_come")
            + shown("events/test_tolerance.py", "test_an_unknown_priority_is_normal")
            + shown("end_to_end/test_events.py", "test_the_urgent_one_overtakes"),
        ),
        Requirement(
            "REQ-PROT-45",
            "The calling AE title is `DICOM_PROXY`, unless the site's settings or ITH's "
            "configuration say otherwise.",
            "docs/protocol.md 4.4",
            shown("settings/test_settings.py", "test_an_empty_variable_counts_as_not_set")
            + shown(
                "end_to_end/test_changes.py",
                "test_another_calling_ae_title_for_all_is_shown_between_two_instances",
            )
            + shown(
                "end_to_end/test_nodes_change.py",
                "test_a_node_that_is_to_see_another_calling_ae_title_gets_the_rest_from_that",
            ),
            ("settings/schema.py", "activities/node.py"),
        ),
        Requirement(
            "REQ-PROT-46",
            "A node's `retry_count` and `retry_delay` set the number and the delay of further "
            "attempts, and only instances without an answer of the node are sent again.",
            "docs/protocol.md 4.4",
            shown(
                "machines/test_policy.py",
                "test_a_retry_count_is_of_tries_after_the_first",
                "test_a_wait_is_never_too_short_nor_above_the_cap",
            )
            + shown(
                "activities/delivery/test_delivery.py",
                "test_a_passing_fault_is_tried_again_without_what_is_stored",
            )
            + shown(
                "end_to_end/test_outages.py",
                "test_a_node_that_is_down_fails_after_its_own_retries",
                "test_after_an_abort_it_goes_on_with_what_is_missing",
            ),
            tables=failures_with(Remedy.RETRY_NOW, Remedy.RETRY_LATER),
        ),
        Requirement(
            "REQ-PROT-47",
            "The proxy delivers the data of ITH unchanged, pseudonyms included, and restores "
            "no patient's identity.",
            "docs/protocol.md 4.5",
            shown(
                "end_to_end/test_odd_files.py",
                "test_the_data_set_arrives_as_it_is_in_the_syntax_that_the_file_says_first",
            )
            + shown(
                "end_to_end/test_configuration.py",
                "test_pseudonyms_are_a_note_and_need_nobody_s_attention",
            ),
            ("dicom/storage.py",),
        ),
        Requirement(
            "REQ-PROT-48",
            "A deletion selects objects by ITH's id and by the identifiers in DICOM; every "
            "series with the number of a deleted scan is removed.",
            "docs/protocol.md 5",
            shown(
                "ledger/test_deletion.py",
                "test_a_session_goes_by_its_id_or_its_study",
                "test_a_scan_goes_by_study_and_number_or_by_its_id",
                "test_a_subject_goes_by_its_id_or_its_patient_id",
                "test_every_series_of_the_number_goes",
                "test_what_is_not_given_matches_nothing",
            ),
            ("ledger/ledger.py",),
        ),
        Requirement(
            "REQ-PROT-49",
            "Dispatches of a deleted entity are cancelled and reported as `failed`; a dispatch "
            "of a larger entity goes on without the deleted part.",
            "docs/protocol.md 5",
            shown(
                "end_to_end/test_changes.py",
                "test_a_deletion_stops_what_is_under_way",
                "test_a_deleted_scan_is_left_out_of_what_is_under_way",
            )
            + shown(
                "end_to_end/test_deletions.py",
                "test_work_that_runs_is_queued_or_backs_off_ends_with_its_entity",
                "test_held_work_ends_with_its_entity_during_the_pause",
            ),
            tables=("CHG-09",),
        ),
        Requirement(
            "REQ-PROT-50",
            "The configuration is read value by value: an unusable value leaves the former one "
            "in force, and a bad node affects no other.",
            "docs/protocol.md 6.1",
            shown(
                "nodes/test_configuration.py",
                "test_the_example_of_the_protocol",
                "test_one_bad_node_does_not_spoil_the_configuration",
                "test_a_known_node_survives_a_bad_description",
                "test_an_answer_without_nodes_removes_none",
            )
            + shown(
                "end_to_end/test_nodes_change.py",
                "test_one_bad_node_spoils_no_other_and_is_explained",
            ),
            ("nodes/configuration.py", "nodes/reading.py"),
        ),
        Requirement(
            "REQ-PROT-51",
            "`proxy.nodes_changed` is applied at once, from the event alone; the work of the nodes "
            "that it removes, moves or sets inactive is cancelled, moved or held, and no other.",
            "docs/protocol.md 6.2",
            shown(
                "nodes/test_changes.py",
                "test_what_a_change_of_a_node_does_to_what_runs_for_it",
                "test_a_change_touches_all_that_it_must_and_nothing_else",
                "test_a_change_of_one_node_touches_no_run_of_another",
            )
            + shown(
                "end_to_end/test_nodes_change.py",
                "test_a_removed_node_gets_no_more_and_the_other_one_everything",
                "test_a_node_that_moves_gets_the_rest_at_its_new_address",
                "test_a_node_that_is_added_or_renamed_stops_nothing",
                "test_without_ith_the_rest_goes_to_the_nodes_last_known",
            ),
            tables=("CHG-03", "CHG-04", "CHG-05", "CHG-06", "CHG-07"),
        ),
        Requirement(
            "REQ-PROT-52",
            "`proxy.config_changed` is merged into the settings; only another calling AE title "
            "ends associations.",
            "docs/protocol.md 6.3",
            shown(
                "nodes/test_changes.py",
                "test_what_a_change_of_the_proxys_configuration_does",
            )
            + shown(
                "supervision/test_reconciler.py",
                "test_a_change_of_the_defaults_reaches_the_nodes_and_stops_nothing",
            )
            + shown(
                "end_to_end/test_changes.py",
                "test_another_calling_ae_title_for_all_is_shown_between_two_instances",
            ),
            tables=("CHG-08",),
        ),
        Requirement(
            "REQ-PROT-53",
            "`is_active`, of the event or of the configuration, pauses and resumes the proxy; "
            "ITH cannot end the operator's pause.",
            "docs/protocol.md 6.4",
            shown("events/test_tolerance.py", "test_is_active_decides_and_the_word_helps_out")
            + shown(
                "supervision/test_supervisor.py",
                "test_the_flag_of_the_configuration_pauses_and_resumes",
            )
            + shown("end_to_end/test_control.py", "test_two_locks_over_kill_and_restart"),
            tables=("CHG-01", "CHG-02"),
        ),
        Requirement(
            "REQ-PROT-54",
            "A `proxy.*` event for another proxy, or older than one applied before, is not obeyed; "
            "the configuration is fetched instead.",
            "docs/protocol.md 6.5",
            shown(
                "supervision/test_reconciler.py",
                "test_an_older_change_of_the_nodes_changes_nothing",
                "test_an_older_status_changes_nothing_and_one_of_the_same_time_does",
                "test_an_older_configuration_event_changes_nothing",
                "test_another_proxy_s_change_is_counted_and_not_obeyed_and_ith_is_asked",
                "test_two_ids_are_one_only_where_they_cannot_be_two",
            )
            + shown("end_to_end/test_events.py", "test_another_proxy_s_pause_is_ignored"),
            ("supervision/stale_events.py", "supervision/reconciler.py"),
        ),
        Requirement(
            "REQ-PROT-55",
            "The configuration is fetched at every connect and after every `proxy.*` event, "
            "and again until that succeeds; the last good one is kept over restarts.",
            "docs/protocol.md 6.6",
            shown(
                "supervision/test_reconciler.py",
                "test_a_failed_fetch_is_repeated",
                "test_the_last_good_configuration_is_kept_over_a_restart",
                "test_what_ith_says_after_an_outage_counts_though_it_said_so_before",
            ),
            ("supervision/reconciler.py",),
        ),
        Requirement(
            "REQ-PROT-56",
            "Every spelling that deployed backends use is read: of nodes, settings, statuses, "
            "permissions, numbers and ids.",
            "docs/protocol.md 7.1",
            shown(
                "nodes/test_reading.py",
                "test_every_spelling_of_id_and_host",
                "test_permissions_of_both_generations",
                "test_numbers_may_be_text_and_ids_numbers",
            )
            + shown(
                "events/test_tolerance.py",
                "test_a_configuration_may_be_called_config",
                "test_ids_may_be_numbers",
            )
            + shown(
                "end_to_end/test_nodes_change.py",
                "test_a_node_is_read_in_either_spelling_from_event_and_configuration",
            ),
            ("events/tolerance.py", "nodes/reading.py"),
        ),
        Requirement(
            "REQ-PROT-57",
            "A final report is kept for an hour after its proof, and sent once more on each later "
            "link that lasts a few seconds.",
            "docs/protocol.md 1.5",
            shown(
                "reporting/test_outbox.py",
                "test_a_final_report_is_forgotten_an_hour_after_its_proof",
                "test_what_was_proven_on_an_earlier_link_is_said_once_more_on_each",
                "test_a_kept_report_is_said_after_the_unproven_and_not_on_a_short_link",
                "test_the_next_report_of_its_key_takes_the_place_of_a_kept_one",
                "test_a_thousand_proven_reports_are_kept_at_most",
            ),
            ("reporting/outbox.py",),
        ),
    ),
)

_RELIABILITY = Chapter(
    "Reliability",
    "The promises P1 to P14 of promises.md, section A, are numbers 01 to 14. The others are "
    "parts of them that are not built yet.",
    (
        Requirement(
            "REQ-REL-01",
            "A kill -9 at any moment loses nothing that was acknowledged.",
            "promises.md A, P1",
            shown(
                "ledger/test_crash.py",
                "test_kill_9_at_any_moment_loses_nothing_that_was_said_to_be_durable",
            )
            + shown(
                "end_to_end/test_crash.py",
                "test_kill_9_loses_nothing_and_repeats_next_to_nothing",
                "test_kill_9_while_downloading",
            )
            + shown(
                "behaviour/test_deletion_races.py",
                "test_a_kill_at_every_step_loses_and_repeats_nothing",
            ),
        ),
        Requirement(
            "REQ-REL-02",
            "A loss of power loses nothing that was acknowledged; a damaged object is found "
            "and fetched again.",
            "promises.md A, P2",
            shown(
                "ledger/test_power_loss.py",
                "test_a_power_cut_at_any_moment_loses_nothing",
                "test_the_cuts_would_find_a_ledger_that_does_not_sync",
            )
            + shown("pacs/test_local.py", "test_an_object_a_power_cut_has_hurt_is_fetched_again"),
            ("ledger/database.py", "pacs/local.py"),
        ),
        Requirement(
            "REQ-REL-03",
            "An instance is reported as sent only if the node answered with success or a "
            "warning, or answered a query that it has the instance.",
            "promises.md A, P3",
            shown(
                "dicom/test_storage.py",
                "test_the_status_decides",
                "test_a_response_that_is_not_ours_leaves_the_outcome_unknown",
                "test_the_node_leaves_before_the_response",
                "test_a_success_before_the_data_set_is_whole_is_none",
                "test_no_response_in_time",
            )
            + shown(
                "dicom/test_failures.py",
                "test_every_status_falls_into_one_row",
                "test_every_status_has_the_remedy_of_its_class",
            ),
            tables=failures_with(Remedy.STORED, Remedy.STORED_WITH_WARNING),
        ),
        Requirement(
            "REQ-REL-04",
            "Only instances without an answer of the node are sent again, after a crash as "
            "after a failed attempt.",
            "promises.md A, P4",
            shown(
                "ledger/test_ledger.py",
                "test_results_are_counted_and_answered_instances_not_sent_again",
            )
            + shown(
                "end_to_end/test_crash.py",
                "test_kill_9_loses_nothing_and_repeats_next_to_nothing",
                "test_kill_9_between_storing_and_its_answer_sends_nothing_twice",
            )
            + shown(
                "activities/delivery/test_query.py",
                "test_a_crash_between_two_answers_counts_no_instance_twice",
            ),
        ),
        Requirement(
            "REQ-REL-05",
            "The same event twice, or replayed after a reconnect, is one dispatch.",
            "promises.md A, P5",
            shown("supervision/test_supervisor.py", "test_the_same_order_again_is_done_once")
            + shown(
                "supervision/test_dispatches.py",
                "test_whatever_happens_every_order_ends_once_and_true",
            )
            + shown("end_to_end/test_events.py", "test_the_same_event_twice_is_one_dispatch"),
        ),
        Requirement(
            "REQ-REL-06",
            "A cancellation ends within `dicom.cancel_seconds` in every phase in which a node "
            "may stall, and leaves no thread, socket or association.",
            "promises.md A, P6",
            shown("end_to_end/test_stop.py", "test_a_stop_is_fast_wherever_the_node_is")
            + shown(
                "activities/delivery/test_delivery.py",
                "test_a_stalled_instance_is_cut_after_the_grace_and_never_counted",
            )
            + shown(
                "dicom/test_storage.py",
                "test_cancelled_at_a_node_that_stopped_reading_it_is_cut_at_once",
                "test_cancelled_while_the_response_is_awaited_the_node_is_told",
            )
            + shown("dicom/test_time.py", "test_cancelled_at_any_step_everything_is_closed"),
            tables=("CHG-11",),
        ),
        Requirement(
            "REQ-REL-07",
            "Memory and disk stay within bounds for any input from ITH or a node.",
            "promises.md A, P7",
            shown(
                "end_to_end/test_flood.py",
                "test_many_orders_at_once_for_four_nodes_of_which_one_is_dead_and_one_slow",
            )
            + shown("backend/test_archive.py", "test_memory_stays_flat", "test_limits_hold")
            + shown(
                "backend/test_rest.py",
                "test_refuses_more_than_the_cap_announced_or_not",
                "test_leaves_the_reserve_on_the_disk",
            )
            + shown("dicom/test_floods.py", "test_a_c_store_meets_a_flood"),
            ("backend/limits.py", "dicom/pdu.py"),
        ),
        Requirement(
            "REQ-REL-08",
            "Reconnects are spread: the wait is drawn from an interval that grows, has a cap, is "
            "reset by a stable link alone, and `Retry-After` is obeyed.",
            "promises.md A, P8",
            shown(
                "backend/test_link.py",
                "test_the_back_off_is_drawn_from_the_whole_interval_and_reset_by_a_stable_link_only",
                "test_retry_after_is_obeyed",
            )
            + shown("machines/test_connection.py", "test_an_outage_of_any_length_is_borne"),
        ),
        Requirement(
            "REQ-REL-09",
            "Malformed input neither ends the program nor makes it hang: frames, PDUs, archives "
            "and DICOM files.",
            "promises.md A, P9",
            shown("events/test_codec.py", "test_a_hundred_thousand_damaged_frames_raise_nothing")
            + shown(
                "dicom/test_codecs.py",
                "test_whatever_comes_is_a_pdu_or_an_invalid_one",
                "test_whatever_comes_is_a_response_or_an_invalid_command",
            )
            + shown("backend/test_archive.py", "test_no_damage_gets_past_or_says_more_than_it_may")
            + shown(
                "pacs/test_header.py",
                "test_hostile_structures_end_soon",
                "test_no_damage_raises_anything_else",
            ),
            ("events/codec.py", "dicom/pdu.py", "backend/archive.py", "pacs/header.py"),
        ),
        Requirement(
            "REQ-REL-10",
            "A wall clock that was wrong for a while causes no early and no missing deletion "
            "of records; time limits do not depend on it.",
            "promises.md A, P10",
            shown(
                "supervision/test_retention.py",
                "test_a_clock_that_was_wrong_for_a_while_makes_nothing_forgotten",
                "test_what_was_noted_by_a_wrong_clock_is_forgotten_in_time",
            )
            + shown(
                "runtime/test_runner.py",
                "test_a_limit_is_told_on_time_and_counts_from_when_the_state_began",
            ),
            ("supervision/retention.py", "runtime/runner.py"),
        ),
        Requirement(
            "REQ-REL-11",
            "Every transition that is drawn is taken in a test, and none that is taken is missing "
            "from the drawing.",
            "promises.md A, P11",
            shown("test_statecharts.py", "test_the_committed_files_are_what_this_program_writes")
            + shown(
                "support/test_rows.py",
                "test_a_full_run_passes_when_every_row_is_taken_and_the_trace_is_true",
                "test_a_full_run_fails_when_a_row_is_not_taken",
            ),
            ("fsm/kernel.py", "fsm/page.py"),
        ),
        Requirement(
            "REQ-REL-12",
            "For each dispatch and node the reports never fall back, and the final one is sent "
            "until its arrival is proven.",
            "promises.md A, P12",
            shown(
                "reporting/test_outbox.py",
                "test_progress_never_falls",
                "test_whatever_happens_ith_hears_each_end_and_nothing_falls",
                "test_final_reports_survive_a_restart_and_keep_their_keys_closed",
            )
            + shown("reporting/test_reports.py", "test_progress_does_not_fall_over_a_restart"),
            ("reporting/outbox.py", "reporting/reports.py"),
        ),
        Requirement(
            "REQ-REL-13",
            "A deletion wins over every concurrent event: no deleted object is sent, queued or "
            "downloaded again.",
            "promises.md A, P13",
            shown(
                "behaviour/test_deletion_races.py",
                "test_a_deletion_wins_at_every_step",
                "test_a_download_that_is_whole_when_its_dispatch_is_over_is_not_kept",
                "test_a_deletion_before_the_first_configuration_wins",
            )
            + shown(
                "ledger/test_deletion.py",
                "test_a_download_begun_before_the_deletion_brings_nothing_back",
            ),
            tables=("CHG-09",),
        ),
        Requirement(
            "REQ-REL-14",
            "An upgrade keeps the ledger; an older program refuses a newer ledger and leaves it "
            "as it is.",
            "promises.md A, P14",
            shown(
                "ledger/test_migration.py",
                "test_it_gets_the_shape_of_a_new_one",
                "test_it_loses_nothing_and_goes_on",
            )
            + shown(
                "ledger/test_database.py",
                "test_a_newer_schema_is_refused_untouched",
                "test_a_failed_migration_leaves_nothing_behind",
            ),
            ("ledger/database.py",),
        ),
        Requirement(
            "REQ-REL-15",
            "A full disk pauses the program and is reported; the pause ends by itself when "
            "there is space.",
            "promises.md A, P7; docs/adr/0014-lack-of-disk-is-a-state.md",
            planned=True,
        ),
        Requirement(
            "REQ-REL-16",
            "Of a thousand proxies whose ITH was away for ten minutes, at most 5 % connect within "
            "any second of its return.",
            "promises.md A, P8",
            planned=True,
        ),
        Requirement(
            "REQ-REL-17",
            "Twenty-four simulated days with jumps of the clock end without a hang and without a "
            "storm of attempts.",
            "promises.md A, P10; docs/adr/0004-time-threads-and-network-are-given.md",
            planned=True,
        ),
    ),
)

_DICOM = Chapter(
    "DICOM",
    "The demands of the standard on a requestor of associations and a user of the storage service.",
    (
        Requirement(
            "REQ-DCM-01",
            "The association obeys the requestor's rows of the state table.",
            "DICOM PS3.8 section 9.2, Table 9-10",
            shown(
                "dicom/test_machine.py",
                "test_the_table_is_the_standards",
                "test_the_events_carry_the_standards_numbers",
            ),
        ),
        Requirement(
            "REQ-DCM-02",
            "An association is requested, accepted or rejected as the standard says, and each "
            "kind of rejection is named to the operator.",
            "DICOM PS3.8 sections 7.1 and 9.3.2 to 9.3.4",
            shown(
                "dicom/test_association.py",
                "test_an_echo_goes_through_the_standard_states",
                "test_each_kind_of_rejection_is_named",
            )
            + shown(
                "dicom/test_codecs.py",
                "test_pynetdicom_reads_our_request",
                "test_we_read_pynetdicoms_acceptance",
            ),
        ),
        Requirement(
            "REQ-DCM-03",
            "Data travel in P-DATA-TF PDUs of a size that the node accepts.",
            "DICOM PS3.8 sections 7.6 and D.1",
            shown(
                "dicom/test_storage.py",
                "test_bytes_arrive_as_they_lie_on_disk_in_pdus_the_node_can_take",
            )
            + shown("dicom/test_codecs.py", "test_pynetdicom_reads_our_data")
            + shown("dicom/test_peers.py", "test_storescp_checks_the_length_of_each_pdu"),
        ),
        Requirement(
            "REQ-DCM-04",
            "An association is released in order, even if the node asks first or both ask at once.",
            "DICOM PS3.8 section 7.2",
            shown(
                "dicom/test_association.py",
                "test_the_node_releases_first",
                "test_release_collision",
                "test_late_data_before_the_release_reply",
                "test_a_missing_release_reply_is_no_failure",
            ),
        ),
        Requirement(
            "REQ-DCM-05",
            "An abort of either side, and a lost connection, end the association at once.",
            "DICOM PS3.8 sections 7.3 and 7.4",
            shown(
                "dicom/test_association.py",
                "test_the_node_aborts",
                "test_the_node_goes_without_a_word",
                "test_what_comes_after_our_abort",
            ),
        ),
        Requirement(
            "REQ-DCM-06",
            "A PDU that is invalid or unexpected is answered with an abort.",
            "DICOM PS3.8 section 9.2, action AA-8",
            shown(
                "dicom/test_association.py",
                "test_what_does_not_belong_in_the_answer_is_aborted",
                "test_what_does_not_belong_in_an_association_is_aborted",
                "test_an_unusable_pdu_size_is_aborted",
            )
            + shown("dicom/test_floods.py", "test_the_socket_is_reset_behind_an_invalid_pdu"),
        ),
        Requirement(
            "REQ-DCM-07",
            "Each wait for the node has a limit: for the connection, the answer to a request, "
            "the release and the close.",
            "DICOM PS3.8 section 9.1.5 (ARTIM)",
            shown(
                "dicom/test_association.py",
                "test_the_connection_does_not_open_in_time",
                "test_no_answer_to_the_request",
            )
            + shown(
                "dicom/test_time.py",
                "test_no_answer_costs_the_time_for_the_answer",
                "test_a_missing_release_reply_costs_little",
            )
            + shown("dicom/test_machine.py", "test_each_limit_is_told_in_its_states_alone"),
        ),
        Requirement(
            "REQ-DCM-08",
            "Each instance has a presentation context of its class and transfer syntax, and is "
            "sent in one that the node accepted.",
            "DICOM PS3.8 section 7.1.1.13",
            shown(
                "dicom/test_contexts.py",
                "test_every_instance_has_one_context_in_one_association",
                "test_the_node_decides_by_context",
                "test_a_syntax_that_was_not_proposed_is_no_acceptance",
            )
            + shown(
                "dicom/test_storage.py", "test_an_instance_whose_context_is_refused_is_not_sent"
            ),
            ("dicom/contexts.py",),
        ),
        Requirement(
            "REQ-DCM-09",
            "C-STORE follows the standard, and independent programs understand it.",
            "DICOM PS3.7 section 9.1.1; PS3.4 annex B",
            shown("dicom/test_storage.py", "test_the_command_set_is_as_the_standard_wants_it")
            + shown("dicom/test_codecs.py", "test_pynetdicom_reads_our_store_request")
            + shown(
                "dicom/test_peers.py",
                "test_storescp_gets_the_same_bytes",
                "test_dcmqrscp_stores",
                "test_orthanc_stores",
                "test_pynetdicom_gets_the_same_bytes",
            ),
            ("dicom/storage.py", "dicom/dimse.py"),
        ),
        Requirement(
            "REQ-DCM-10",
            "A permanent refusal is not repeated, is reported with its reason, and delays no "
            "other instance.",
            "DICOM PS3.4 Table B.2-1; PS3.7 annex C",
            shown(
                "activities/delivery/test_delivery.py",
                "test_an_instance_the_node_never_takes_leaves_the_others",
            )
            + shown(
                "end_to_end/test_refusals.py",
                "test_real_nodes_that_take_no_compression",
                "test_one_instance_answered_otherwise",
                "test_a_node_that_rejects_us_for_good_is_not_asked_again_and_again",
            ),
            tables=failures_with(Remedy.NEVER),
        ),
        Requirement(
            "REQ-DCM-11",
            "C-ECHO follows the standard; a failure is an answer too.",
            "DICOM PS3.7 section 9.1.5; PS3.4 annex A",
            shown("dicom/test_codecs.py", "test_pynetdicom_reads_our_echo_request")
            + shown("dicom/test_association.py", "test_an_echo_may_be_answered_with_a_failure"),
            ("dicom/association.py", "dicom/dimse.py"),
        ),
        Requirement(
            "REQ-DCM-12",
            "C-FIND follows the standard, and independent programs understand it.",
            "DICOM PS3.7 section 9.1.2; PS3.4 section C.4.1",
            shown(
                "dicom/test_find.py",
                "test_the_question_is_as_the_standard_wants_it",
                "test_pynetdicom_reads_our_find_request",
                "test_dcmqrscp_says_what_it_has",
                "test_orthanc_says_what_it_has",
            ),
            ("dicom/find.py",),
        ),
    ),
)

_OPERATION = Chapter(
    "Operation",
    "The guarantees for the operator of a site: docs/operations.md, and decisions that are not "
    "in force yet.",
    (
        Requirement(
            "REQ-OPS-01",
            "SIGTERM drains: instances in flight end, the rest waits in the ledger, and the exit "
            "code is 0.",
            "docs/operations.md, Stop, restart, signals",
            shown(
                "end_to_end/test_sigterm.py",
                "test_sigterm_in_mid_session_keeps_the_rest_and_repeats_nothing",
            )
            + shown("end_to_end/test_crash.py", "test_sigterm_ends_in_order_and_the_rest_waits")
            + shown(
                "supervision/test_supervisor.py",
                "test_draining_lets_the_one_in_flight_end_and_keeps_the_rest",
            ),
            tables=("CHG-10",),
        ),
        Requirement(
            "REQ-OPS-02",
            "A drain lasts `service.drain_seconds` at most, and a second signal stops at once.",
            "docs/operations.md, Stop, restart, signals",
            shown(
                "end_to_end/test_sigterm.py",
                "test_a_second_sigterm_does_not_wait_for_the_instance_in_flight",
            )
            + shown("supervision/test_supervisor.py", "test_a_drain_that_takes_too_long_is_cut")
            + shown("test_service.py", "test_a_signal_stops_it_and_a_second_one_at_once"),
            tables=("CHG-10",),
        ),
        Requirement(
            "REQ-OPS-03",
            "SIGHUP drains if standard input is a terminal; otherwise SIGHUP, like SIGUSR1 and "
            "SIGUSR2, has no effect and is logged.",
            "docs/operations.md, Stop, restart, signals",
            shown(
                "end_to_end/test_signals.py",
                "test_with_a_terminal_sighup_drains",
                "test_without_a_terminal_a_signal_to_reload_or_reopen_is_told_and_has_no_effect",
            ),
            ("runtime/signals.py",),
        ),
        Requirement(
            "REQ-OPS-04",
            "A restart goes on from the ledger: attempts, waits, pauses and instances in doubt "
            "are unchanged.",
            "docs/operations.md, Stop, restart, signals",
            shown("supervision/test_supervisor.py", "test_a_restart_goes_on_where_it_was")
            + shown("behaviour/test_redispatch.py", "test_a_back_off_outlasts_a_restart")
            + shown(
                "activities/test_node.py",
                "test_what_backed_off_before_a_restart_goes_on_when_the_node_answers",
            ),
        ),
        Requirement(
            "REQ-OPS-05",
            "The operator pauses and resumes the proxy, and a resume names a lock that still "
            "holds the pause.",
            "docs/operations.md, Pause and resume",
            shown(
                "control/test_server.py", "test_pause_and_resume_are_durable_when_they_are_answered"
            )
            + shown("end_to_end/test_control.py", "test_two_locks_over_kill_and_restart")
            + shown("cli/test_screen.py", "test_everything_that_is_wrong_is_said_with_what_to_do"),
            tables=("CHG-01", "CHG-02"),
        ),
        Requirement(
            "REQ-OPS-06",
            "A defect is logged without any text from outside, ends the one piece of work that "
            "it is in, and affects no other.",
            "docs/operations.md, Log",
            shown(
                "runtime/test_runner.py",
                "test_a_fault_is_noted_and_becomes_an_event",
                "test_the_event_names_the_kind_of_fault_and_not_its_text",
                "test_an_illegal_event_of_an_activity_is_a_fault_of_that_run_alone",
            )
            + shown(
                "supervision/test_supervisor.py",
                "test_a_defect_in_acting_on_one_event_is_counted",
            ),
        ),
        Requirement(
            "REQ-OPS-07",
            "`ith-proxy status` shows the state of the proxy and every problem that needs "
            "attention; its exit code is 0, 1 or 3.",
            "docs/operations.md, Status",
            shown(
                "cli/test_screen.py",
                "test_a_healthy_proxy_in_whole",
                "test_everything_that_is_wrong_is_said_with_what_to_do",
                "test_what_mends_itself_or_is_meant_is_no_trouble",
            )
            + shown(
                "end_to_end/test_control.py",
                "test_the_status_tells_the_truth_and_no_patient",
                "test_without_a_proxy_there_is_a_sentence_and_code_3",
            ),
            ("control/status.py", "control/attention.py", "cli/screen.py"),
        ),
        Requirement(
            "REQ-OPS-08",
            "Every error has an exit code and a sentence with a remedy.",
            "docs/operations.md, Exit codes",
            shown(
                "cli/test_main.py",
                "test_each_error_has_its_code",
                "test_help_lists_every_exit_code",
                "test_a_defect_is_told_by_type_and_place_alone",
            ),
            ("cli/exits.py", "cli/failures.py"),
        ),
        Requirement(
            "REQ-OPS-09",
            "The state directory and its files are accessible to their owner alone.",
            "docs/operations.md, State directory",
            shown(
                "settings/test_settings.py",
                "test_the_state_directory_is_made_for_its_owner_alone",
            )
            + shown("ledger/test_database.py", "test_file_and_directory_are_the_owners_alone")
            + shown(
                "pacs/test_objects.py",
                "test_an_object_is_named_by_its_content_and_its_owners_alone",
            ),
            ("settings/state.py", "ledger/database.py", "pacs/local.py"),
        ),
        Requirement(
            "REQ-OPS-10",
            "A ledger that is damaged, newer, in use or of another program is refused and not "
            "changed.",
            "docs/operations.md, Everything else",
            shown(
                "test_service.py",
                "test_a_damaged_ledger_is_refused",
                "test_a_ledger_of_something_else_is_refused",
                "test_a_newer_ledger_is_refused_and_left_alone",
                "test_a_ledger_in_use_is_refused",
            ),
            ("ledger/database.py",),
        ),
        Requirement(
            "REQ-OPS-11",
            "A log without a reader delays no work; lost lines are counted.",
            "docs/operations.md, Log",
            shown("end_to_end/test_unread_log.py", "test_pongs_orders_and_sigterm_are_as_ever")
            + shown(
                "logs/test_logs.py",
                "test_a_log_that_nobody_reads_holds_up_nothing_and_fills_no_memory",
                "test_a_reader_who_comes_back_is_told_where_how_many_lines_are_missing",
            ),
            ("logs/sink.py", "logs/standard_error.py"),
        ),
        Requirement(
            "REQ-OPS-12",
            "A ledger that cannot be written ends the program with its error; no accepted "
            "order is lost.",
            "docs/operations.md, Disk",
            shown(
                "test_service.py", "test_a_full_disk_in_mid_run_stops_the_program_with_that_error"
            )
            + shown(
                "ledger/test_writer.py",
                "test_a_full_disk_stops_the_program_and_tells_everyone_who_waits",
            ),
            ("ledger/database.py", "service.py"),
        ),
        Requirement(
            "REQ-OPS-13",
            "A downloaded entity stays in the local PACS until ITH deletes it or has a newer "
            "version, and is not downloaded again for a further node.",
            "docs/operations.md, Disk",
            shown(
                "end_to_end/test_events.py",
                "test_the_second_node_gets_the_same_bytes_without_a_second_download",
            )
            + shown(
                "pacs/test_local.py",
                "test_a_new_version_takes_the_place_of_the_old",
                "test_the_janitor_leaves_a_sound_store_alone",
            ),
            ("pacs/local.py", "activities/dispatch.py"),
        ),
        Requirement(
            "REQ-OPS-14",
            "Only refusals count as failed attempts; the absence of a node is a wait that ends "
            "after `dispatch.patience_hours`.",
            "docs/adr/0011-absence-is-waited-for.md",
            planned=True,
        ),
        Requirement(
            "REQ-OPS-15",
            "A delivery keeps one association until it is done, unless a more urgent one comes.",
            "docs/adr/0013-one-association-per-delivery.md",
            planned=True,
        ),
    ),
)

GROUPS: tuple[Chapter, ...] = (_EVENTS, _PROMISES, _PROTOCOL, _RELIABILITY, _DICOM, _OPERATION)
"""The requirements of external sources, by source."""

REQUIREMENTS: tuple[Requirement, ...] = tuple(
    requirement for group in (*GROUPS, *SUBJECTS) for requirement in group.requirements
)
"""Every requirement, then every behaviour."""
