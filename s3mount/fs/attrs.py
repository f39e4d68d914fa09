"""Attributes of an inode, and how they are written into an object's metadata.

Owns: the codec between `Attributes` and metadata, and the rules of POSIX for set-id bits.
Must not know: stores, inodes, the kernel. Pure.

The names are the ones that s3fs uses, and rclone for the time, so that the tools understand each other's objects:

    mode    decimal st_mode with the type bits ("33188"); octal with type bits ("100644"), as rclone writes it, is read too
    uid gid decimal
    mtime ctime atime   "seconds.nanoseconds", any number of decimals; RFC 3339, as rclone writes some of them, is read too
    xattr   URL-encoded JSON object: name -> base64 of the value
    rdev    decimal device number (ours)

What is missing or makes no sense counts as not there: then the mount's defaults and the object's own time hold.
Whatever else the metadata holds belongs to somebody else and is kept.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import quote, unquote

from s3mount.model import Metadata, cheap_value
from s3mount.store.api import COMMIT_ID

OURS = frozenset({"mode", "uid", "gid", "mtime", "ctime", "atime", "xattr", "rdev"})

PERMISSIONS = 0o7777
MODE_LIMIT = 0o177777
SECOND_NS = 1_000_000_000

# Of the types that st_mode can name, those a file system may be asked to keep.
TYPES = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK})

Xattrs = Mapping[bytes, bytes]
NO_XATTRS: Xattrs = MappingProxyType({})

_TIME = re.compile(r"([+-]?)(\d{1,15})(?:\.(\d{1,9})\d*)?$")
_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)$")


@cheap_value
class AttrChange:
    """What setattr is to change; None leaves it alone. The type bits of `mode` do not count."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None


@cheap_value
class Attributes:
    """Everything stat shows that is neither identity nor content, and the xattrs. `mode` includes the type."""

    mode: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    rdev: int = 0
    xattrs: Xattrs = field(default_factory=lambda: NO_XATTRS)

    @property
    def type(self) -> int:
        return stat.S_IFMT(self.mode)

    def at(self, mtime_ns: int, ctime_ns: int) -> Attributes:
        """The same, last written and changed then. (Each file that is written comes here; `replace` takes five times as long.)"""
        return Attributes(self.mode, self.uid, self.gid, self.atime_ns, mtime_ns, ctime_ns, self.rdev, self.xattrs)


@dataclass(frozen=True, slots=True)
class Defaults:
    """For objects without attributes of their own: permission bits and owner."""

    file_mode: int
    dir_mode: int
    uid: int
    gid: int


def decode(metadata: Metadata, *, directory: bool, mtime_ns: int, defaults: Defaults) -> Attributes:
    """The attributes of an object last written at *mtime_ns*. Whether it is a directory is not for the metadata to say."""
    written, changed_at = metadata.get("mtime"), metadata.get("ctime")
    mtime = _time(written, mtime_ns)
    ctime = mtime if changed_at == written else _time(changed_at, max(mtime, mtime_ns))
    return Attributes(
        mode=_mode(metadata.get("mode"), directory=directory, defaults=defaults),
        uid=_number(metadata.get("uid"), defaults.uid),
        gid=_number(metadata.get("gid"), defaults.gid),
        atime_ns=_time(metadata.get("atime"), mtime),
        mtime_ns=mtime,
        ctime_ns=ctime,
        rdev=_number(metadata.get("rdev"), 0),
        xattrs=_xattrs(metadata["xattr"]) if "xattr" in metadata else NO_XATTRS,
    )


def encode(attributes: Attributes, foreign: Metadata) -> dict[str, str]:
    """Metadata that says *attributes*, and what *foreign* metadata says beside ours. The access time is left out where it is the other."""
    metadata = {name: value for name, value in foreign.items() if name not in OURS and name != COMMIT_ID}
    metadata["mode"] = str(attributes.mode)
    metadata["uid"] = str(attributes.uid)
    metadata["gid"] = str(attributes.gid)
    metadata["mtime"] = write_time(attributes.mtime_ns)
    metadata["ctime"] = write_time(attributes.ctime_ns)
    if attributes.atime_ns != attributes.mtime_ns:
        metadata["atime"] = write_time(attributes.atime_ns)
    if attributes.rdev:
        metadata["rdev"] = str(attributes.rdev)
    if attributes.xattrs:
        metadata["xattr"] = write_xattrs(attributes.xattrs)
    return metadata


# -- single values ------------------------------------------------------------------------


def write_time(time_ns: int) -> str:
    """Decimal seconds with nine decimals; exact, before 1970 too."""
    seconds, rest = divmod(abs(time_ns), SECOND_NS)
    return f"{'-' if time_ns < 0 else ''}{seconds}.{rest:09d}"


def read_time(text: str) -> int | None:
    """Nanoseconds, from decimal seconds or RFC 3339; None where it is neither."""
    if found := _TIME.match(text):
        sign, seconds, decimals = found.groups()
        time_ns = int(seconds) * SECOND_NS + int((decimals or "0").ljust(9, "0"))
        return -time_ns if sign == "-" else time_ns
    if found := _RFC_3339.match(text):
        moment, decimals, zone = found.groups()
        return _rfc_3339(moment + zone) * SECOND_NS + int((decimals or "0").ljust(9, "0"))
    return None


def _rfc_3339(text: str) -> int:
    try:
        delta = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 (reads like the standard)
    except ValueError:
        return 0
    return delta.days * 86_400 + delta.seconds


def _time(text: str | None, default: int) -> int:
    if text is None:
        return default
    if len(text) == 20 and text[10] == "." and (digits := text[:10] + text[11:]).isdecimal():  # as we write it, from 2001 to 2286
        return int(digits)
    time_ns = read_time(text)
    return default if time_ns is None else time_ns


@lru_cache(maxsize=1024)
def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else default


def _mode(text: str | None, *, directory: bool, defaults: Defaults) -> int:
    found = _read_mode(text) if text is not None else None
    permissions = (defaults.dir_mode if directory else defaults.file_mode) if found is None else found & PERMISSIONS
    if directory:
        return stat.S_IFDIR | permissions
    kind = stat.S_IFMT(found) if found is not None else 0
    return (kind if kind in TYPES and kind != stat.S_IFDIR else stat.S_IFREG) | permissions


@lru_cache(maxsize=256)
def _read_mode(text: str) -> int | None:
    """Decimal as s3fs writes it, unless only octal makes a known type of it; without type bits decimal permissions."""
    mode = _number(text, -1)
    if mode < 0:
        return None
    if mode <= MODE_LIMIT and stat.S_IFMT(mode) in TYPES:
        return mode
    octal = int(text, 8) if len(text) <= 7 and not set(text) & set("89") else -1
    if 0 <= octal <= MODE_LIMIT and stat.S_IFMT(octal) in TYPES:
        return octal
    return mode if mode <= PERMISSIONS else None


def write_xattrs(xattrs: Xattrs) -> str:
    """As s3fs does. Names that are not UTF-8 survive as lone surrogates, which JSON can spell."""
    plain = {name.decode("utf-8", "surrogateescape"): base64.b64encode(value).decode() for name, value in sorted(xattrs.items())}
    return quote(json.dumps(plain, separators=(",", ":")), safe="")


def _xattrs(text: str) -> Xattrs:
    try:
        plain = json.loads(unquote(text))
        return {name.encode("utf-8", "surrogateescape"): base64.b64decode(value, validate=True) for name, value in plain.items()}
    except (ValueError, AttributeError, TypeError, binascii.Error):
        return NO_XATTRS


# -- rules --------------------------------------------------------------------------------


def without_set_id(mode: int) -> int:
    """The mode after somebody wrote into the file, or gave it away: set-user-id goes, set-group-id where the group may execute."""
    if not mode & (stat.S_ISUID | stat.S_ISGID) or not stat.S_ISREG(mode):
        return mode
    mode &= ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP else mode


def changed(attributes: Attributes, change: AttrChange, *, now_ns: int, privileged: bool) -> Attributes:
    """*attributes* after *change* (without its size). *privileged* callers cut a file without losing its set-id bits, as on Linux."""
    mode = attributes.mode
    chowned = change.uid is not None or change.gid is not None
    if change.mode is not None:
        mode = stat.S_IFMT(mode) | (change.mode & PERMISSIONS)
    elif chowned or (change.size is not None and not privileged):
        mode = without_set_id(mode)
    cut = change.size is not None and change.mtime_ns is None
    return Attributes(
        mode=mode,
        uid=attributes.uid if change.uid is None else change.uid,
        gid=attributes.gid if change.gid is None else change.gid,
        atime_ns=attributes.atime_ns if change.atime_ns is None else change.atime_ns,
        mtime_ns=now_ns if cut else attributes.mtime_ns if change.mtime_ns is None else change.mtime_ns,
        ctime_ns=now_ns if change.ctime_ns is None else change.ctime_ns,
        rdev=attributes.rdev,
        xattrs=attributes.xattrs,
    )
