-- From schema 2 to schema 3.

-- Events that cannot be acted upon yet, as JSON, in the order they came. Before, they were one
-- document, written anew with each.
CREATE TABLE undecided (
    id INTEGER PRIMARY KEY,
    event TEXT NOT NULL
) STRICT;

INSERT INTO undecided (event)
    SELECT e.value FROM document d, json_each(CAST(d.body AS TEXT)) e
    WHERE d.name = 'undecided' ORDER BY e.key;
DELETE FROM document WHERE name = 'undecided';
