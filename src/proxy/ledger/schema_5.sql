-- From schema 4 to schema 5.

-- Why files of the archive cannot be sent to any node, for people; `damaged` is how many.
ALTER TABLE dispatch ADD COLUMN unsent TEXT NOT NULL DEFAULT '';
