"""The index's tables, column by column.

Owns: the SQL that makes them. Must not know: who reads or writes them.

Keys are BLOBs of UTF-8: SQLite compares them byte by byte, which is the order that listings promise. Ids: a living file's is a random
positive number; what the engine makes itself (bodies, ranks) is numbered from the record that made it, negative where it shares a
column with file ids (history files, parts). Times are nanoseconds since 1970, sizes bytes.
"""

from __future__ import annotations

import sqlite3

from s3mount.engine.segment import BEGINNING

# Raised with every change of the tables. Columns are added at the end and may be NULL: a snapshot of the log may be older.
# An index of another version is thrown away and rebuilt from the log.
SCHEMA_VERSION = 3

TABLES = """
-- The one row that says how far the index has come: just behind record `seq`. All zero: before the first record.
CREATE TABLE state (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    segment INTEGER NOT NULL,               -- first record number of the segment that holds the record
    offset  INTEGER NOT NULL,               -- where the next record begins in that segment
    seq     INTEGER NOT NULL,               -- the last record applied
    chain   INTEGER NOT NULL                -- its checksum
);

CREATE TABLE bucket (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    created_ns INTEGER NOT NULL,
    versioning TEXT NOT NULL                -- off | enabled | suspended
);

-- The current names: what head, find and list see.
CREATE TABLE name (
    bucket  INTEGER NOT NULL,
    key     BLOB NOT NULL,                  -- UTF-8
    file    INTEGER NOT NULL,               -- several names of one file are hard links
    version TEXT NOT NULL,                  -- '' unless the bucket kept versions when it was written
    since_ns INTEGER,                       -- when the version came to its key by a rename; NULL: when its content was written
    PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
CREATE INDEX name_file ON name (file);      -- a commit finds its file by id, whatever it is called by now

-- Contents and their attributes: living files (id > 0) and what history keeps (id < 0).
CREATE TABLE file (
    id            INTEGER PRIMARY KEY,
    bucket        INTEGER NOT NULL,
    size          INTEGER NOT NULL,
    etag          TEXT NOT NULL,
    mtime_ns      INTEGER NOT NULL,         -- when the content was last written
    content_type  TEXT NOT NULL,
    storage_class TEXT NOT NULL,
    metadata      BLOB,                     -- msgpack map; NULL: none
    links         INTEGER NOT NULL,         -- how many name rows (history rows, if id < 0) name it
    extra         BLOB                      -- what a server keeps with the version; NULL: nothing
);

-- Contents: extents join from 0 to the file's size. `file` is a file's id or a part's.
CREATE TABLE extent (
    file        INTEGER NOT NULL,
    offset      INTEGER NOT NULL,
    length      INTEGER NOT NULL,           -- > 0
    body        INTEGER,                    -- NULL: a hole
    body_offset INTEGER NOT NULL,           -- where the extent begins in the body; 0 for a hole
    PRIMARY KEY (file, offset)
) WITHOUT ROWID;

-- Immutable bytes that extents lie in.
CREATE TABLE body (
    id      INTEGER PRIMARY KEY,
    digest  BLOB NOT NULL,                  -- BLAKE3, 32 bytes
    size    INTEGER NOT NULL,
    refs    INTEGER NOT NULL,               -- extents that lie in it, > 0
    name    TEXT,                           -- its file in bodies/; NULL: the bytes lie in the log
    segment INTEGER,                        -- where in the log, if there: first record number of the segment
    offset  INTEGER                         -- and the place in it
);
CREATE INDEX body_digest ON body (digest);  -- the same bytes are stored once

-- Body files that nothing refers to any more, until they may be deleted.
CREATE TABLE dead (
    name TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    seq  INTEGER NOT NULL                   -- the record that took the last reference
) WITHOUT ROWID;

-- Body files that may not have reached the medium, bytes or name, by the file they were written for (also when they are dead by now).
CREATE TABLE unsynced (
    name TEXT NOT NULL,
    file INTEGER NOT NULL,
    seq  INTEGER NOT NULL,                  -- the record that brought them; a mark at or behind it clears the row
    PRIMARY KEY (name, file)
) WITHOUT ROWID;
CREATE INDEX unsynced_file ON unsynced (file);

-- Versions that are not current, and delete markers. The current version is the name row; if there is none, the highest rank is a marker.
CREATE TABLE history (
    bucket   INTEGER NOT NULL,
    key      BLOB NOT NULL,
    rank     INTEGER NOT NULL,              -- rises with time
    version  TEXT NOT NULL,                 -- '' is the null version
    file     INTEGER,                       -- NULL: a delete marker
    mtime_ns INTEGER NOT NULL,              -- when the version came to its key
    PRIMARY KEY (bucket, key, rank)
) WITHOUT ROWID;

CREATE TABLE upload (
    id            TEXT PRIMARY KEY,
    bucket        INTEGER NOT NULL,
    key           BLOB NOT NULL,
    started_ns    INTEGER NOT NULL,
    condition     TEXT NOT NULL,            -- '' | absent | etag:TAG; judged at completion
    file          INTEGER NOT NULL,         -- the file to write; 0: the engine chooses
    content_type  TEXT NOT NULL,
    storage_class TEXT NOT NULL,
    metadata      BLOB,
    extra         BLOB
) WITHOUT ROWID;
CREATE INDEX upload_key ON upload (bucket, key);

CREATE TABLE part (
    upload   TEXT NOT NULL,
    number   INTEGER NOT NULL,
    file     INTEGER NOT NULL,              -- negative: what its extents are kept under
    size     INTEGER NOT NULL,
    etag     TEXT NOT NULL,
    mtime_ns INTEGER NOT NULL,
    extra    BLOB,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;

-- What a server keeps with a bucket.
CREATE TABLE setting (
    bucket INTEGER NOT NULL,
    name   TEXT NOT NULL,
    value  BLOB NOT NULL,
    PRIMARY KEY (bucket, name)
) WITHOUT ROWID;

-- Index only, not in the log: names claimed by a process before it commits them; void when the owner's lock is free.
CREATE TABLE reservation (
    bucket INTEGER NOT NULL,
    key    BLOB NOT NULL,
    owner  TEXT NOT NULL,                   -- the process's folder in staging/
    PRIMARY KEY (bucket, key)
) WITHOUT ROWID;

-- Index only: body files that a reader keeps without holding a descriptor; void when the owner's lock is free.
CREATE TABLE lease (
    owner  TEXT NOT NULL,
    reader INTEGER NOT NULL,                -- tells an owner's readers apart
    name   TEXT NOT NULL,
    PRIMARY KEY (name, owner, reader)
) WITHOUT ROWID;
"""

# What a snapshot of the log must hold, and what belongs to this index alone.
LOGGED_TABLES = ("bucket", "name", "file", "extent", "body", "dead", "unsynced", "history", "upload", "part", "setting")
INDEX_ONLY = ("state", "reservation", "lease")


def create(db: sqlite3.Connection) -> None:
    """Make the tables in an empty database, in one transaction."""
    at = BEGINNING
    db.executescript(
        f"BEGIN; {TABLES}; INSERT INTO state VALUES (1, {at.segment}, {at.offset}, {at.seq}, {at.chain});"
        f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
    )
