"""Tags of objects and buckets: their rules, and the header that carries them.

Owns: what a valid tag set is.
Must not know: XML, where tags are kept. Order is kept: a tag set is a tuple of pairs.
"""

from __future__ import annotations

import re

from s3mount.server.s3errors import S3Error
from s3mount.server.wire import query_pairs

# S3's limits (user guide, "Categorizing your objects using tags").
OBJECT_TAGS = 10
BUCKET_TAGS = 50
KEY_CHARS = 128
VALUE_CHARS = 256
# Letters, digits, separators of any script, and these signs.
_ALLOWED = re.compile("[\\w \u00a0\u2000-\u200a\u3000+\\-=.:/@]*")

Tags = tuple[tuple[str, str], ...]


def require_tags(tags: Tags, limit: int = OBJECT_TAGS) -> Tags:
    """*tags* themselves. Raises InvalidTag (AWS says BadRequest where there are too many; the suites of others demand InvalidTag)."""
    if len(tags) > limit:
        kind = "Object" if limit == OBJECT_TAGS else "Bucket"
        raise S3Error("InvalidTag", f"{kind} tags cannot be greater than {limit}")
    if len({name for name, _ in tags}) != len(tags):
        raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key")
    for name, value in tags:
        if not 1 <= len(name) <= KEY_CHARS or not _ALLOWED.fullmatch(name) or name.lower().startswith("aws:"):
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", TagKey=name[:KEY_CHARS])
        if len(value) > VALUE_CHARS or not _ALLOWED.fullmatch(value):
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid", TagKey=name, TagValue=value[:VALUE_CHARS])
    return tags


def parse_header(text: str | None) -> Tags:
    """What x-amz-tagging says: a query string. Raises InvalidTag, InvalidArgument."""
    if not text:
        return ()
    try:
        tags = tuple(query_pairs(text))
    except S3Error:
        sentence = "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates."
        raise S3Error("InvalidArgument", sentence, ArgumentName="x-amz-tagging", ArgumentValue=text[:256]) from None
    return require_tags(tags)
