"""POSIX semantics over any object store; knows neither pyfuse3 nor aiobotocore, and is tested without either.

filesystem   one method per operation; composes the rest

the namespace
options      what the caller chooses and gets back
names        keys and names, one reversible escape (pure)
attrs        attributes in metadata (pure);  content_types: what a name promises (pure)
listing      pages of a listing to entries (pure)
inodes       numbers, lookup counts, which key names which inode; nothing awaits;  inode: one of them;  line: who may go next;
             cold: files that the kernel was only told of;  places: where each is;  occupied: directories that must stay known
live         what an inode carries while somebody holds it
volume       what all share: store, table, gate, and what only this mount knows;  implied: directories that no key may stand for (pure)
gate         keeps commits off names that move; tells answers that came too late
namespace    looking: name -> object -> inode -> stat
files        handles, who holds what;  saving: commits and attributes on their way;  deferred: those that wait for company;
             renewals: objects that are being made anew
entries      create, mkdir, mknod, symlink, link, unlink, rmdir
rename       rename, exchange;  carry: moving keys one by one;  copies: of one key;  journal: what is written down of that
moving       large renames that go on behind their answer;  overlay, areas: what is seen meanwhile (pure);  batches: their records;
             aliases: versions that were carried since (pure);  resuming: what a former mount has left of one;  passengers: who goes along;
             looking: where what is on its way is found;  later: what is tried again, less and less often
undoing      copies of a rename that failed: hidden, and taken back;  riders: inodes that go along with one, and come back
metadata     setattr, extended attributes, times of directories
dirs         reading directories
following    what others do to the store, heard: what the kernel may believe for long;  cooling: what nobody looks at, forgotten

one inode's bytes
content      base version + what was written since; the commit;  lost: what could not be kept (pure)
layers       where its bytes lie;  extents: the table (pure);  commit_state: the life cycle (pure)
upload       which parts may go before the commit (pure);  grid: where parts begin and end (pure)
early        sending them;  attempt: one try at it;  slots: how many at once;  width: how many pay (pure)
leftover     what no commit took: told, and handed on when it cannot stay;  kept: its shape (pure)
delivery     lost replies;  pinned: versions kept readable
turn         one commit at a time, at no cost while nobody else wants to;  patience: how often what is refused is tried again
staging      bytes that wait for a commit;  running_hash: their hash, taken while they are written;  buffers: for replies to reads
"""
