"""s3mount: S3 buckets as POSIX directories on Linux.

The layer map; tests/unit/test_arrows.py fails with the reason when an import points against it.

    cli        click commands: parse -> config -> call; the only place that chooses a store
    fuse       the thin shell around the kernel: translate in, call fs, translate out
    fs         POSIX semantics over an object store; knows neither pyfuse3 nor aiobotocore
    cache      what is remembered of a remote store, bytes and listings: a store around a store
    writeback  what is committed on local disk and not in the store yet: a store around a store
    store      object-store semantics, async (trio): api, memory, local, s3, wrap
    engine     the embedded object store in a folder; synchronous, no event loop, no HTTP
    server     the S3 HTTP API over the engine; asyncio, in a process of its own
    held       small files, each locked by the process that works on it: for fs and store
    model, config, errors   shared values; no I/O

    cli -> fuse -> fs -> store.api, store.aspects     cache, writeback -> store.api     store.local -> engine     cli -> server -> engine
    fs, store -> held     everything -> model, config, errors
"""

__version__ = "0.1.0"
