"""What a server keeps with a version (`extra`), as far as the engine has to know it.

Owns: which of it outlives the bytes. Must not know: what any of it means.

`extra` is a msgpack map with one-letter names. What stands under LASTING belongs to the object, and stays when somebody who knows nothing
of it (a mount) writes the file anew; all else speaks of the bytes (checksums, parts) and goes with them.
"""

from __future__ import annotations

from typing import Any

import msgpack

# Content headers; tags.
HEADERS, TAGS = "h", "t"
LASTING = (HEADERS, TAGS)


def lasting(extra: bytes | None) -> bytes | None:
    """What is left of *extra* when the bytes change; None for nothing."""
    if extra is None:
        return None
    found: dict[str, Any] = msgpack.unpackb(extra, use_list=False)
    kept = {name: found[name] for name in LASTING if name in found}
    return bytes(msgpack.packb(kept)) if kept else None


def tags_of(extra: bytes | None) -> tuple[tuple[str, str], ...]:
    """The object's tags."""
    if extra is None:
        return ()
    found: dict[str, Any] = msgpack.unpackb(extra, use_list=False)
    return tuple(found.get(TAGS, ()))


def with_tags(extra: bytes | None, tags: tuple[tuple[str, str], ...]) -> bytes | None:
    """*extra* with other tags; None for nothing."""
    found: dict[str, Any] = {} if extra is None else msgpack.unpackb(extra, use_list=False)
    found.pop(TAGS, None)
    if tags:
        found[TAGS] = tags
    return bytes(msgpack.packb(found)) if found else None
