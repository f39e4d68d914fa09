"""What a new version keeps of the one whose place it takes: tags and content headers, which S3 drops with every PUT.

Owns: which parameters of a write that makes, and what it costs to find out: nothing for what was made here, else a HEAD, and one request
more where there are tags.
Must not know: how the write is sent, who decides what takes whose place.

What cannot be had does not stand in the way of the bytes: without the right to read tags they are lost, and a log line says so.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from s3mount.errors import AccessDenied, NotFound, Unsupported
from s3mount.model import Key
from s3mount.store.api import Commit
from s3mount.store.s3.client import Headers
from s3mount.store.s3.headers import CONTENT_HEADERS, etag_in
from s3mount.store.s3.made import Made

logger = logging.getLogger(__name__)

TAGS_COUNT = "x-amz-tagging-count"


class Inheriting:
    """*head* and *tags* ask the service about a key; *made* knows what was made here, which has neither tags nor such headers."""

    def __init__(self, head: Callable[[Key], Awaitable[Headers]], tags: Callable[[Key], Awaitable[str | None]], made: Made) -> None:
        self._head = head
        self._tags = tags
        self._made = made

    async def of(self, key: Key, commit: Commit) -> dict[str, Any]:
        """What *commit* is to say besides, by botocore's names. Raises StoreErrors."""
        former = commit.former
        if former is None or former.key != key or self._made.known(key, former.etag) is not None:
            return {}
        try:
            headers = await self._head(key)
        except NotFound:
            return {}
        if etag_in(headers.get("etag", "")) != former.etag:
            return {}
        kept: dict[str, Any] = {parameter: headers[name] for name, parameter in CONTENT_HEADERS.items() if name in headers}
        if headers.get(TAGS_COUNT, "0") != "0" and (tags := await self._tags_of(key)):
            kept["Tagging"] = tags
        return kept

    async def _tags_of(self, key: Key) -> str | None:
        try:
            return await self._tags(key)
        except (AccessDenied, Unsupported, NotFound) as error:
            logger.warning("The tags of %r are lost with its new version, as they may not be read: %s", key, error)
            return None
