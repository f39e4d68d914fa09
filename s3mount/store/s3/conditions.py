"""Whether a service judges the conditions of writes, found out without touching anybody's object.

Owns: the probe and its name, which services need none, the sentence for those that fail it; the look that takes a condition's place.
Must not know: who asks, what conditions are for.

A service that reads over If-Match and If-None-Match answers as one that honours them: two writers then replace each other's work, and
nobody is told. So a PUT that must fail is asked for, of a key that nobody has:

    absent key, If-Match of no version -- refused --> judged                        one request, nothing is written
         |-- taken --> the same again, on what is there now -- refused --> go on    (some judge only what exists)
                            |-- taken --> not judged          If-None-Match: * -- refused --> judged
                                                                    |-- taken --> not judged
    at last: what was written is deleted

What cannot be found out (no permission, no answer) is taken as judged: the commit itself will tell.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import trio

from s3mount.errors import AlreadyExists, NotFound, PreconditionFailed, StoreError, Unsupported, UsageError
from s3mount.model import Absent, Condition, ETag, Key, Matches
from s3mount.store.api import Commit, ObjectStore
from s3mount.store.rules import changed, exists
from s3mount.store.s3.client import Headers
from s3mount.store.s3.headers import info_of

# The version that no object has: ETags are MD5s, or made like them.
NO_VERSION = ETag("00000000000000000000000000000000-0")
# What a probe that was written may take to be deleted again.
DELETE_S = 10.0

logger = logging.getLogger(__name__)


def is_known(endpoint: str) -> bool:
    """Whether the service at *endpoint* (a URL) is known to judge conditions: Amazon's."""
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def probe_in(prefix: str) -> Key:
    """A key that nobody has, in *prefix* (ends with "/", or empty)."""
    return Key(f"{prefix}.s3mount-probe-{secrets.token_hex(8)}")


def probe_beside(key: str) -> Key:
    return probe_in(key[: key.rfind("/") + 1])


async def require_met(head: Callable[[Key], Awaitable[Headers]], key: Key, condition: Condition) -> None:
    """Look at *key* where the service does not: somebody else may still come in between. Raises AlreadyExists, PreconditionFailed."""
    try:
        there = info_of(key, await head(key))
    except NotFound:
        there = None
    if isinstance(condition, Absent) and there is not None:
        raise exists(key)
    if isinstance(condition, Matches) and (there is None or there.etag != condition.etag):
        raise changed(key)


async def require_judged(store: ObjectStore, prefix: str, *, endpoint: str) -> None:
    """Raise UsageError where the service does not judge the conditions of writes under *prefix* (ends with "/", or empty)."""
    key = probe_in(prefix)
    try:
        judged = await _judged(store, key)
    except Unsupported as error:
        raise UsageError(str(error)) from error
    except StoreError as error:
        logger.debug("Whether %s judges conditions could not be found out: %s", endpoint, error)
        return
    if not judged:
        raise UsageError(
            f"{endpoint} does not heed the conditions of writes (If-Match, If-None-Match): programs that write the same object at the same"
            " time would replace each other's work unnoticed. Mount with --last-writer-wins to live with that, or with --read-only."
        )


async def _judged(store: ObjectStore, key: Key) -> bool:
    if await _refused(store, key, Matches(NO_VERSION)):
        return True
    try:
        return await _refused(store, key, Matches(NO_VERSION)) and await _refused(store, key, Absent())
    finally:
        with trio.move_on_after(DELETE_S, shield=True):
            await store.delete(key)


async def _refused(store: ObjectStore, key: Key, condition: Condition) -> bool:
    try:
        await store.put(key, b"", Commit(condition=condition))
    except (PreconditionFailed, NotFound, AlreadyExists):
        return True
    return False
