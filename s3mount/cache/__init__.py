"""What is remembered of a remote store: a store around a store, so that whoever uses it need not know.

    Remembering   names and attributes: `find`, `list` and `head` answered from listings, within their time-to-live
    Blocks        bytes: pins that read from blocks, fetched ahead where reading is sequential, in bounded memory, optionally kept on disk

    Remembering -> Blocks -> (retries, limits) -> the store

Must not know: which store is inside, and who asks.
"""
