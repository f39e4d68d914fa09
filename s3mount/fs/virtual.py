"""What an object says of itself, as extended attributes `user.s3.*`.

Owns: which names those are, which can be set, how a value is read.
Must not know: how a store finds out, inodes. Pure.

V1  They are never listed: `cp -a` and `rsync -X` copy what is listed, and the copy has an ETag and a URL of its own. Ask by name.
V2  They are never stored: every name under `user.s3.` is kept for them, also those that mean nothing (yet).
V3  They describe the object in the store: a file that was never committed has none, one with uncommitted content those of its last version.
"""

from __future__ import annotations

from s3mount.errors import Invalid, NoAttribute, NotPermitted
from s3mount.store.aspects import ASPECTS, SETTABLE

PREFIX = b"user.s3."


def is_virtual(name: bytes) -> bool:
    """Whether *name* is kept for what objects say of themselves."""
    return name.startswith(PREFIX)


def aspect_of(name: bytes) -> str:
    """The aspect behind the virtual *name*. Raises NoAttribute."""
    aspect = name.removeprefix(PREFIX).decode(errors="replace")
    if aspect not in ASPECTS:
        raise NoAttribute("There is no such attribute.")
    return aspect


def settable(name: bytes) -> str:
    """The aspect behind the virtual *name*, which is to be changed. Raises NotPermitted."""
    aspect = name.removeprefix(PREFIX).decode(errors="replace")
    if aspect not in SETTABLE:
        raise NotPermitted(f"Names under user.s3. are kept for what objects say of themselves; to be set: {', '.join(sorted(SETTABLE))}.")
    return aspect


def text_of(value: bytes) -> str:
    """What is to be set. Raises Invalid for what is no text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Invalid("The value is no text.") from None


def without(names: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """*names* but the virtual ones, which another program may have stored."""
    return {name: value for name, value in names.items() if not is_virtual(name)}
