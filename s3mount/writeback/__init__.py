"""Write-back: a store around a store whose commits are safe on local disk when they return, and in the store inside before long.

    program --put, delete, copy--> judged by what is pending --> journal (synced) --> answered
                                                                    |
             shown: what is pending, laid over the store <----------+
                                                                    |
                      store inside <--put, adopt, delete_many-- sender, when due: at once where somebody waits (`sync`)

    records             pure: what the journal says of one change; contents as pieces of bodies
    base, bodies        the SQLite file; the files of large bodies
    owner               the lock of who sends
    journal             the folder: entered, replaced, ended, refused, kept; numbered invariants
    together, worker    changes that arrive together share a transaction and its sync; the thread where that is done
    chains              pure: the changes of each key, which is sent next, which condition it carries; the states of a change
    overlay             pure: what is pending, laid over listings; versions of ours under their local ETags
    holding             bodies of what is pending: in memory, on disk
    pending, turns      the three in step, one change of a key at a time
    leaving             what is done leaves the journal, many at a time
    room                how much may wait
    relocating          pure: what renames make of what is pending
    rescue              the bytes of a refused copy, before they are replaced
    pins                reading what is pending, and going over to the store
    sender, sources     the background: when, in which batches, what an answer means; the bytes that are sent
    shown, arriving, store     the verbs of the protocol: looking, waiting, changing

Theory:
W1  A put, an edit, a copy and a set of renames return when their records and bytes are synced; a removal and a change of metadata, when
    they would survive kill -9. None asks the store, where it is remembered what is there.
W2  Every acknowledged change arrives, or is refused and kept: whatever dies, at any step, the next owner of the folder sends what is left.
W3  It arrives once: each version has a commit id, and what may have been sent is looked for by that before it is sent again.
W4  Reads and listings show what is pending as if it had arrived; a version of ours keeps its local ETag when it has.
W5  Conditions are judged by what is pending at once, and by the store when it is sent; what it then refuses is shown no more, told by
    `sync`, and kept in the journal for people (`retry`, `discard`).
W6  What is not true any more is not sent: a change that is replaced before it is sent costs no request.
W7  What has waited for long, or was left by a former mount, replaces only what was there when it was entered (`Record.former`).
W8  No more waits than there is room for: a close waits for it.

A removal that the store refuses since somebody else replaced the object is not carried out, and nobody is told: as with two programs that
remove and create at the same time. Hard links, reservations and exchanges are not offered.
"""
