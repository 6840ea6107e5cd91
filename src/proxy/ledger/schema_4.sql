-- From schema 3 to schema 4.

-- Whether the last attempt failed because the node did not answer: when it answers again, that is
-- no longer waited for.
ALTER TABLE delivery ADD COLUMN away INTEGER NOT NULL DEFAULT 0;

-- How many archives within the archive hold images, or may: they are counted, and not unpacked.
ALTER TABLE dispatch ADD COLUMN passed_over INTEGER NOT NULL DEFAULT 0;
