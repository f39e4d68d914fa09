"""Versions that were carried to another key since somebody saw them, by the ETags of their copies.

Owns: which ETag a version has by now, in whatever names one.
Must not know: how it was carried. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from s3mount.model import Condition, ETag, Key, Matches, ObjectInfo
from s3mount.store.api import Commit

# Copies with ETags of their own that are remembered: a request that was sent before its key arrived may be repeated behind it.
ALIASES = 10_000


class Aliases:
    """By key: the ETag under which its version was seen, and the one that it has."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, tuple[ETag, ETag]] = OrderedDict()

    def add(self, key: str, former: ETag, etag: ETag) -> None:
        """Version *former* of *key* is called *etag* from now on."""
        if former == etag:
            return
        self._of[key] = former, etag
        if len(self._of) > ALIASES:
            self._of.popitem(last=False)

    def drop(self, key: str) -> None:
        self._of.pop(key, None)

    def etag(self, key: str, etag: ETag) -> ETag:
        """The version *etag* of *key*, by the ETag of its copy if it was carried there since."""
        former, copy = self._of.get(key, (None, etag))
        return copy if etag == former else etag

    def info(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, etag=self.etag(info.key, info.etag))

    def condition(self, key: str, condition: Condition) -> Condition:
        return Matches(self.etag(key, condition.etag)) if isinstance(condition, Matches) else condition

    def commit(self, key: Key, commit: Commit) -> Commit:
        if key not in self._of and (commit.former is None or commit.former.key == key):
            return commit
        former = commit.former and self.info(replace(commit.former, key=key))
        return replace(commit, condition=self.condition(key, commit.condition), former=former)
