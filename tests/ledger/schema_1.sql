-- A ledger of schema 1, as its program wrote it.
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
INSERT INTO "delivery" VALUES(1,1,'n1',0,NULL,NULL,'completed',2,2,0,0);
INSERT INTO "delivery" VALUES(2,2,'n1',1,1000.0,'busy',NULL,0,0,0,0);
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
INSERT INTO "dispatch" VALUES(1,'corr_0','ws-1','session','sess-1','subj-1',NULL,'high',500.0,'completed',NULL,500.0);
INSERT INTO "dispatch" VALUES(2,'corr_1','ws-1','session','sess-1','subj-1',NULL,'high',500.0,NULL,NULL,NULL);
CREATE TABLE document (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "document" VALUES('locks',X'5B5D');
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
INSERT INTO "holding" VALUES(1,'session','sess-1','subj-1',NULL,'"one"',500.0);
CREATE TABLE holding_instance (
    holding_id INTEGER NOT NULL REFERENCES holding ON DELETE CASCADE,
    instance_id INTEGER NOT NULL REFERENCES instance,
    PRIMARY KEY (holding_id, instance_id)
) STRICT, WITHOUT ROWID;
INSERT INTO "holding_instance" VALUES(1,1);
INSERT INTO "holding_instance" VALUES(1,2);
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
INSERT INTO "instance" VALUES(1,'1.2.826.0.1.3680043.9.1','1.2.826.0.1.3680043.9.1.1','1.2.826.0.1.3680043.9.1.1.1','6bb93e81b3e15f1bf04fcda80bb05a325a77f98f68cd71958d6a6fff17a48042','1.2.840.10008.5.1.4.1.1.4','1.2.840.10008.1.2.1',7,2,1,1,'P-0042');
INSERT INTO "instance" VALUES(2,'1.2.826.0.1.3680043.9.1','1.2.826.0.1.3680043.9.1.1','1.2.826.0.1.3680043.9.1.1.2','62a87ef622b6fa30720c92a4b7ca11ccd727cef497ea53f5833be56d780f0b92','1.2.840.10008.5.1.4.1.1.4','1.2.840.10008.1.2.1',7,2,1,2,'P-0042');
CREATE TABLE report (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    frame TEXT NOT NULL
) STRICT;
INSERT INTO "report" VALUES(1,'k','frame');
CREATE TABLE sending (
    delivery_id INTEGER NOT NULL REFERENCES delivery ON DELETE CASCADE,
    instance_id INTEGER NOT NULL REFERENCES instance,
    state TEXT NOT NULL DEFAULT 'planned' CHECK (state IN (
        'planned', 'sending', 'stored', 'stored_with_warning', 'refused', 'unknown')),
    status INTEGER,
    comment TEXT,
    PRIMARY KEY (delivery_id, instance_id)
) STRICT, WITHOUT ROWID;
INSERT INTO "sending" VALUES(2,1,'stored',0,NULL);
INSERT INTO "sending" VALUES(2,2,'planned',NULL,NULL);
CREATE TABLE tombstone (
    id INTEGER PRIMARY KEY,
    entity_type TEXT NOT NULL CHECK (entity_type IN ('subject', 'session', 'scan')),
    entity_id TEXT,
    study_instance_uid TEXT,
    series_number INTEGER,
    patient_id TEXT,
    last_dispatch_id INTEGER NOT NULL
) STRICT;
INSERT INTO "tombstone" VALUES(1,'scan',NULL,'1.2.826.0.1.3680043.9.7',1,NULL,2);
CREATE INDEX dispatch_by_order ON dispatch (correlation_id, entity_type, entity_id);
CREATE INDEX dispatch_unfinished ON dispatch (id) WHERE outcome IS NULL;
CREATE INDEX instance_by_object ON instance (sha256);
CREATE INDEX instance_by_patient ON instance (patient_id);
CREATE INDEX holding_by_instance ON holding_instance (instance_id);
CREATE INDEX sending_by_instance ON sending (instance_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('dispatch',2);
