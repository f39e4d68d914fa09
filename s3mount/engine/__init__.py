"""The embedded object store: a folder that holds buckets, shared by any number of threads and processes.

Owns: everything below one data folder. Must not know: event loops, HTTP, FUSE, the store protocol. Synchronous and thread-safe.

The design
----------
*The log is the truth.* Each transaction appends one checksummed record (`codec`, `log`) of operations (`records`); small bodies ride
in the record. *The index is derived*: `apply` is the one state machine that turns a record into rows of an SQLite database (`schema`),
for live commits and for replay alike, so an index that was lost or damaged is rebuilt by replaying the log (`recovery`).

*A commit* (`commit`) is: stage bodies aside (no lock) -> take the write lock -> replay what other processes appended -> decide against the
index -> rename bodies into place -> append the record -> apply it and the new log position in one SQLite transaction -> unlock -> if it
is to be durable, sync the log (`sync`; callers share one fsync). A crash between append and apply is healed by the next holder of the lock.
Removals in a row share an SQLite transaction that stays open for a moment, while nobody else has the folder open (`linger`).

*Keys name files, files have extents, extents lie in bodies.* A name row maps (bucket, key) to a file id; several names of one file are hard
links; a rename moves a name row and a rename of a prefix moves a range of them. A file's content is a list of extents: (offset, length) ->
(body, offset in it), or a hole. Bodies are immutable: copy, multipart completion and small edits of large files write extents, not bytes.
Equal bytes are stored once (found by BLAKE3 hash under the lock while referenced).

*Tolerance.* A power cut may drop records behind the last sync mark whose bodies are not whole. So every operation names what it builds on
(a file id, the ETag it edits, a body id), and does nothing where that is not there any more: a content is never a mixture of versions.

*The log is a feed* (`follow`): whoever remembers what it saw is told which names other processes touched since, once the index shows it.

*Versions.* In a bucket that keeps versions, what a write, a rename or a delete replaces moves into `history` under a file id of its own
(negative: made by the engine); the living file keeps its id.

*Life of a body*
    staged --publish, under the lock--> referenced --last extent gone--> dead --a mark behind its death, no lease--> deleted
    Dead bodies are never revived: a put of the same bytes makes a new body. Inline bodies end with their log segment (compaction).

Invariants (`Engine.check` reports what violates them)
------------------------------------------------------
I1  The index is what replaying the log up to the index's position gives.
I2  Every name row names a file of the same bucket; a living file (id > 0) has `links` names, and at least one.
I3  A file's extents join without gap or overlap from 0 to its size. An empty file has none.
I4  A body's `refs` counts the extents that lie in it and is never 0; every extent lies inside its body.
I5  A body that is not inline has its file, of its size; a file in bodies/ belongs to a body row or to a dead row (else it is swept).
I6  A dead body's file is deleted only behind a mark that covers its death, and not while a lease names it.
I7  A body file that a record behind the last mark brought is listed in `unsynced`, with the file it was written for.
I8  A history row's file has a negative id and exactly that one row; a delete marker has none.
I9  A part's extents are kept under the part's own negative file id; a part belongs to an upload that is under way.
I10 Engine-made ids (bodies, history files, parts, ranks) come from the record's sequence number: replay makes the same ones.

Files
-----
    values      How, BucketInfo, VersionInfo, Failed: what callers give and get besides s3mount.model
    names       rules of bucket names and keys
    extra       what of a server's own notes on a version outlives its bytes
    records     operations as frozen values <-> msgpack
    schema      the index's tables, column by column
    apply       record -> rows: the state machine;  extents (file contents, body references)  history (what versions keep)
    index       connections, transactions, position, checkpoints
    queries     head, find, list, spans of a file;
                version_queries (pages of versions, markers)  spans (where the bytes of one version lie)
    commit      the write path: stage, lock, decide, append, apply;  contents (bytes -> staged bodies)  merging (small edits)
    linger      removals in a row: one transaction of the index for many records
    objects     put, adopt, update, delete, copy;  renames (rename, exchange, link, reserve);  uploads (multipart);  versions;  buckets
    parts, core, leases (readers), known (spans of much-edited files)    what the themes stand on
    spare       room kept for deleting on a full medium
    engine      Engine: all of it under one name
    layout, disk, lock                   folder, system calls, write lock and owners
    codec, search, segment, log, snapshot    frames, what damage left of them, one segment, all of them, the state at one record
    bodies, reader                       body files, open objects
    recovery, replay, sync               opening, catching up, durability
    follow, own                          what others changed: the log as a feed
    rebuild, reindex                     a new index: offline and with salvage; beside the living one
    maintenance                          check (invariants), sweep (leftovers), scrub (hashes), compact (the log)
"""
