"""The embedded store as it was, for a mount: Remembering -> Past -> LocalStore.

Owns: that composition. Must not know: what a mount does with it.

Remembering fills in the metadata that a listing of versions lacks, and asks for nothing twice.
"""

from __future__ import annotations

from dataclasses import replace

from s3mount.cache.options import CacheOptions
from s3mount.cache.remember import Remembering
from s3mount.store.api import ObjectStore
from s3mount.store.past import Past


def as_it_was(store: ObjectStore, at_ns: int, cache: CacheOptions | None) -> ObjectStore:
    """*store* as it was at *at_ns*, modes and links included: they cost no request here."""
    return Remembering(Past(store, at_ns), replace(cache or CacheOptions(), attributes="full"))
