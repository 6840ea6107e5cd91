-- From schema 1 to schema 2.

-- What a node, known by AE title, host and port, said that it has: content, not only a UID.
-- `dispatch_id` is the last dispatch that brought it, `stored_at` when. The other columns are
-- for deletions, which leave nothing behind.
CREATE TABLE stored_at (
    node TEXT NOT NULL,
    sop_instance_uid TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    study_instance_uid TEXT NOT NULL,
    series_number INTEGER,
    patient_id TEXT NOT NULL,
    dispatch_id INTEGER NOT NULL,
    stored_at REAL NOT NULL,
    PRIMARY KEY (node, sop_instance_uid, sha256)
) STRICT, WITHOUT ROWID;

-- The oldest dispatch of the same entity that was at work when this one was accepted, if any.
ALTER TABLE dispatch ADD COLUMN joins INTEGER;

-- How many entries of the archive came damaged: they are counted, but no node can be given them.
ALTER TABLE dispatch ADD COLUMN damaged INTEGER NOT NULL DEFAULT 0;
