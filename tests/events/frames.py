"""Frames as protocol.md shows them, typed in by hand, without help of the code under test."""

FLAT: dict[str, str] = {
    "ping": (
        '{"event_type":"ping","workspace_id":"","timestamp":"2026-03-01T08:00:30.000Z",'
        '"correlation_id":"corr_0a1b2c3d4e5f","entity_type":null,"entity_id":null,"payload":{}}'
    ),
    "subject.dispatch": (
        '{"event_type":"subject.dispatch","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:01:00.000Z","correlation_id":"corr_11aa22bb33cc",'
        '"entity_type":"subject","entity_id":"subj-1",'
        '"payload":{"nodes":["n1","n2"],"subject_identifier":"P-0042","priority":"high"}}'
    ),
    "session.dispatch": (
        '{"event_type":"session.dispatch","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:02:00.000Z","correlation_id":"corr_22bb33cc44dd",'
        '"entity_type":"session","entity_id":"sess-1",'
        '"payload":{"subject_id":"subj-1","nodes":["n1"],"session_label":"visit-2",'
        '"priority":"normal"}}'
    ),
    "scan.dispatch": (
        '{"event_type":"scan.dispatch","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:03:00.000Z","correlation_id":"corr_33cc44dd55ee",'
        '"entity_type":"scan","entity_id":"scan-1",'
        '"payload":{"subject_id":"subj-1","session_id":"sess-1","nodes":["n3"],"scan_number":3,'
        '"modality":"MR","priority":"urgent"}}'
    ),
    "scan.new_scan_available": (
        '{"event_type":"scan.new_scan_available","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:04:00.000Z","correlation_id":"corr_44dd55ee66ff",'
        '"entity_type":"scan","entity_id":"scan-9",'
        '"payload":{"subject_id":"subj-1","session_id":"sess-1","scan_type":"FlairStar",'
        '"scan_modality":"Derived","source":"flairstar_analysis","action":"pull_and_dispatch",'
        '"priority":"normal","metadata":{"analysis_id":"an-7","created_from_flair":true,'
        '"created_from_swi":false,"processing_duration":88.2}}}'
    ),
    "session.deleted": (
        '{"event_type":"session.deleted","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:05:00.000Z","correlation_id":"corr_55ee66ff7700",'
        '"entity_type":"session","entity_id":"sess-1",'
        '"payload":{"subject_id":"subj-1","session_label":"visit-2",'
        '"study_instance_uid":"1.2.826.0.1.3680043.9.1.1"}}'
    ),
    "scan.deleted": (
        '{"event_type":"scan.deleted","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:06:00.000Z","correlation_id":"corr_66ff77008811",'
        '"entity_type":"scan","entity_id":"scan-1",'
        '"payload":{"subject_id":"subj-1","session_id":"sess-1","scan_number":7,'
        '"study_instance_uid":"1.2.826.0.1.3680043.9.1.1"}}'
    ),
    "subject.deleted": (
        '{"event_type":"subject.deleted","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:07:00.000Z","correlation_id":"corr_770088119922",'
        '"entity_type":"subject","entity_id":"subj-1","payload":{"subject_identifier":"0042"}}'
    ),
    "proxy.nodes_changed": (
        '{"event_type":"proxy.nodes_changed","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:08:00.000Z","correlation_id":"corr_880099aabbcc",'
        '"entity_type":"proxy","entity_id":"proxy-1",'
        '"payload":{"changed_action":"replaced","nodes":[{"node_id":"n1","name":"Reading room",'
        '"ae_title":"READROOM","host":"192.0.2.20","port":104,'
        '"storage_path":"/srv/dicom/readroom"}]}}'
    ),
    "proxy.config_changed": (
        '{"event_type":"proxy.config_changed","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:09:00.000Z","correlation_id":"corr_99aabbccddee",'
        '"entity_type":"proxy","entity_id":"proxy-1",'
        '"payload":{"changed_fields":["retry_count","timeout"],'
        '"new_config":{"retry_count":4,"timeout":45}}}'
    ),
    "proxy.status_changed": (
        '{"event_type":"proxy.status_changed","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:10:00.000Z","correlation_id":"corr_aabbccddeeff",'
        '"entity_type":"proxy","entity_id":"proxy-1",'
        '"payload":{"new_status":"maintenance","is_active":false,"reason":"Planned window"}}'
    ),
}

CONTROL: dict[str, str] = {
    "connected": (
        '{"type":"connected","workspace_id":"6d0f6d0e-0f1c-4d3b-9a55-7f4b6f0c1a01",'
        '"proxy_id":"c1a5b0aa-77a4-4c56-8b8e-2f3d9a7b0b02"}'
    ),
    "config_update_response": (
        '{"type":"config_update_response","status":"success",'
        '"fields_updated":["ip_address","port","ae_title","api_url","proxy_version"],'
        '"error":null}'
    ),
    "health_update_response": '{"type":"health_update_response","status":"success","error":null}',
}

CONTROL_PING = '{"type":"ping","timestamp":"2026-03-01T08:00:30.000Z"}'

REFUSED_CONFIG_UPDATE = (
    '{"type":"config_update_response","status":"error","error":"port is not valid"}'
)

NESTED = (
    '{"workspace_id":"ws-1","timestamp":"2026-03-01T08:02:00.010Z",'
    '"payload":{"event_type":"session.dispatch","workspace_id":"ws-1",'
    '"timestamp":"2026-03-01T08:02:00.000Z","correlation_id":"corr_22bb33cc44dd",'
    '"entity_type":"session","entity_id":"sess-1",'
    '"payload":{"subject_id":"subj-1","nodes":["n1"],"session_label":"visit-2",'
    '"priority":"normal"}}}'
)

OUTGOING: dict[str, str] = {
    "processing": (
        '{"event_type":"dispatch.status","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:02:31.250Z","correlation_id":"corr_22bb33cc44dd",'
        '"entity_type":"session","entity_id":"sess-1",'
        '"payload":{"node_id":"n1","status":"processing","progress":40,"files_sent":60,'
        '"files_total":150}}'
    ),
    "failed": (
        '{"event_type":"dispatch.status","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:02:59.000Z","correlation_id":"corr_22bb33cc44dd",'
        '"entity_type":"session","entity_id":"sess-1",'
        '"payload":{"node_id":"n1","status":"failed","progress":40,"files_sent":60,'
        '"files_total":150,"error":"association rejected"}}'
    ),
    "heartbeat": (
        '{"event_type":"proxy.heartbeat","workspace_id":"ws-1",'
        '"timestamp":"2026-03-01T08:10:10.000Z","correlation_id":"corr_bbccddeeff00",'
        '"entity_type":"proxy","entity_id":"proxy-1",'
        '"payload":{"status":"active","nodes_online":2,"nodes_total":3,"active_dispatches":1,'
        '"disk_usage_gb":312.4,"version":"2.0.0"}}'
    ),
    "config_update": (
        '{"type":"config_update","ip_address":"192.0.2.10","port":11112,"ae_title":"DICOMRCV",'
        '"api_url":"https://proxy.example.org/api","proxy_version":"2.0.0"}'
    ),
    "health_update": (
        '{"type":"health_update","proxy_status":"online","proxy_version":"2.0.0",'
        '"nodes":[{"node_id":"3f0e-n1","is_reachable":true},'
        '{"node_id":"9b7c-n2","is_reachable":false}]}'
    ),
}
