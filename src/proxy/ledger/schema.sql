-- The ledger, schema 1. Times are UTC seconds since 1970.

CREATE TABLE document (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: a tombstone is compared with ids, so an id is never used again.
CREATE TABLE dispatch (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    correlation_id TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    entity_type TEXT NOT NULL CHECK (entity_type IN ('subject', 'session', 'scan')),
    entity_id TEXT NOT NULL,
    subject_id TEXT,
    session_id TEXT,
    priority TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    outcome TEXT CHECK (outcome IN ('completed', 'failed', 'cancelled')),
    error TEXT,
    over_at REAL
) STRICT;

CREATE INDEX dispatch_by_order ON dispatch (correlation_id, entity_type, entity_id);
CREATE INDEX dispatch_unfinished ON dispatch (id) WHERE outcome IS NULL;

-- The four numbers count instances whose rows in `sending` are gone: folded in when the
-- dispatch is over, or when an instance that was already stored or refused is deleted.
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    dispatch_id INTEGER NOT NULL REFERENCES dispatch ON DELETE CASCADE,
    node_id TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at REAL,
    error TEXT,
    outcome TEXT CHECK (outcome IN ('completed', 'failed', 'cancelled')),
    total INTEGER NOT NULL DEFAULT 0,
    stored INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    unknown INTEGER NOT NULL DEFAULT 0,
    UNIQUE (dispatch_id, node_id)
) STRICT;

-- One SOP instance UID may occur in two series, and with two contents after a change at ITH:
-- each is an instance of its own.
CREATE TABLE instance (
    id INTEGER PRIMARY KEY,
    study_instance_uid TEXT NOT NULL,
    series_instance_uid TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
    sop_class_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    size INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    series_number INTEGER,
    instance_number INTEGER,
    patient_id TEXT NOT NULL,
    UNIQUE (study_instance_uid, series_instance_uid, sop_instance_uid, sha256)
) STRICT;

CREATE INDEX instance_by_object ON instance (sha256);
CREATE INDEX instance_by_patient ON instance (patient_id);

-- An entity that is whole in the local PACS.
CREATE TABLE holding (
    id INTEGER PRIMARY KEY,
    entity_type TEXT NOT NULL CHECK (entity_type IN ('subject', 'session', 'scan')),
    entity_id TEXT NOT NULL,
    subject_id TEXT,
    session_id TEXT,
    etag TEXT,
    kept_at REAL NOT NULL,
    UNIQUE (entity_type, entity_id)
) STRICT;

CREATE TABLE holding_instance (
    holding_id INTEGER NOT NULL REFERENCES holding ON DELETE CASCADE,
    instance_id INTEGER NOT NULL REFERENCES instance,
    PRIMARY KEY (holding_id, instance_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX holding_by_instance ON holding_instance (instance_id);

-- One instance on its way to one node. No cascade from `instance`: the reference is the
-- assertion that nothing on its way is deleted unnoticed.
CREATE TABLE sending (
    delivery_id INTEGER NOT NULL REFERENCES delivery ON DELETE CASCADE,
    instance_id INTEGER NOT NULL REFERENCES instance,
    state TEXT NOT NULL DEFAULT 'planned' CHECK (state IN (
        'planned', 'sending', 'stored', 'stored_with_warning', 'refused', 'unknown')),
    status INTEGER,
    comment TEXT,
    PRIMARY KEY (delivery_id, instance_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX sending_by_instance ON sending (instance_id);

-- What ITH deleted. It holds against the dispatches accepted before it, `last_dispatch_id` being
-- the newest of them, and goes when they are over: what is dispatched later is wanted again.
CREATE TABLE tombstone (
    id INTEGER PRIMARY KEY,
    entity_type TEXT NOT NULL CHECK (entity_type IN ('subject', 'session', 'scan')),
    entity_id TEXT,
    study_instance_uid TEXT,
    series_number INTEGER,
    patient_id TEXT,
    last_dispatch_id INTEGER NOT NULL
) STRICT;

-- Frames for ITH that have not been proven delivered.
CREATE TABLE report (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    frame TEXT NOT NULL
) STRICT;
