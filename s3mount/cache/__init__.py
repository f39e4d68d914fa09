"""What is remembered of a remote store: a store around a store, so that whoever uses it need not know.

    Remembering   names and attributes: `find`, `list` and `head` answered from listings, within their time-to-live
    Blocks        bytes: pins that read from blocks, fetched ahead where reading is sequential, in bounded memory, optionally kept on disk

    Remembering -> Blocks -> (retries, limits) -> the store        (build puts them together)

Names and attributes, from what is pure to what asks:

    texts, leaf, spread    places in a listing, packed stretches of it, pages without delimiter taken apart
    table, tables          one directory; all directories, this mount's own changes, what is forgotten
    ruler, splitter        names as numbers; where a large listing is begun in several places at a time
    asking                 requests under way: each question once
    listings, lookups      what is served from the tables, what is asked for
    scans, walks, ahead    large directories, and the next directories of a walk, listed before anybody asks
    attributes, records    metadata by HEAD, remembered by version in memory and on disk
    snapshot, watched      listings from one mount to the next; reads that prove what is remembered wrong

Must not know: which store is inside, and who asks.
"""
