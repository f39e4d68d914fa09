"""What this client made itself, and hence knows without asking.

Owns: the last objects that were written, each with all that the service keeps of it.
Must not know: requests, whether an object is still the current one: whoever uses an entry does so under its ETag.

An object of others may have headers (Cache-Control ...) that must be said again when it is copied onto itself with new metadata; for those
there is a HEAD first. An object that was made here has none, so a rename and a change of attributes are one request each.
"""

from __future__ import annotations

from collections import OrderedDict

from s3mount.model import ETag, Key, ObjectInfo

# A tree that is unpacked is written, then given its times and modes file by file: what lies between is one directory or so.
ENTRIES = 10_000


class Made:
    """The last ENTRIES objects that were made here."""

    def __init__(self, entries: int = ENTRIES) -> None:
        self._entries = entries
        self._made: OrderedDict[Key, ObjectInfo] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Made {len(self._made)}>"

    def note(self, info: ObjectInfo) -> ObjectInfo:
        """Remember *info*, and return it."""
        self._made[info.key] = info
        self._made.move_to_end(info.key)
        if len(self._made) > self._entries:
            self._made.popitem(last=False)
        return info

    def known(self, key: Key, etag: ETag | None) -> ObjectInfo | None:
        """The object that *key* was when it was made here, if that is the version wanted; None for any other."""
        info = self._made.get(key)
        return info if info is not None and info.etag == etag else None

    def forget(self, key: Key) -> None:
        """It was deleted, or is somebody else's by now."""
        self._made.pop(key, None)
