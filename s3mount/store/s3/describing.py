"""What an S3 object says of itself: tags, and URLs that hold for a while.

Owns: the requests for tags, the making of presigned URLs.
Must not know: who asks, extended attributes.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from s3mount.errors import StoreError, Unavailable, Unsupported, UsageError
from s3mount.model import Key
from s3mount.store.aspects import PRESIGNED_URL, TAGS, URL, tags_in, tags_out, url_of
from s3mount.store.s3.answers import Asked
from s3mount.store.s3.client import Client
from s3mount.store.s3.replies import given

# How long a presigned URL holds, in seconds: long enough to hand it over, short enough to lose it (S3 allows a week).
PRESIGNED_S = 3600


# What `ObjectInfo` does not say.
ASKED_FOR = frozenset({URL, TAGS, PRESIGNED_URL})


async def told(client: Client, bucket: str, key: Key, name: str, *, version_id: str = "") -> str | None:
    """The aspect *name*, one of `ASKED_FOR`, of the object, or of one of its versions."""
    if name == URL:
        return url_of("s3", bucket, key)
    return await (tags if name == TAGS else presigned)(client, bucket, key, version_id=version_id)


async def tags(client: Client, bucket: str, key: Key, *, version_id: str = "") -> str | None:
    """The object's tags as a query string; None for none. Raises NotFound, AccessDenied, Unsupported."""
    which = given(VersionId=version_id)
    try:
        answer = await client("get_object_tagging", Asked(bucket=bucket, key=key), Bucket=bucket, Key=key, **which)
    except Unavailable as error:
        if _is_content(error.__cause__):
            raise _no_tags() from error
        raise
    if "TagSet" not in answer:
        raise _no_tags()
    return tags_out(tuple((tag["Key"], tag["Value"]) for tag in answer["TagSet"]))


async def set_tags(client: Client, bucket: str, key: Key, text: str) -> None:
    """Replace the object's tags. Raises UsageError, NotFound, AccessDenied, Unsupported.

    A service that does not know tags may take the request for a PUT of the object itself: so the present ones are asked for first.
    """
    pairs, asked = tags_in(text), Asked(bucket=bucket, key=key, mutates=True)
    await tags(client, bucket, key)
    if pairs:
        tagging: dict[str, Any] = {"TagSet": [{"Key": name, "Value": value} for name, value in pairs]}
        await client("put_object_tagging", asked, Bucket=bucket, Key=key, Tagging=tagging)
    else:
        await client("delete_object_tagging", asked, Bucket=bucket, Key=key)


def _is_content(cause: BaseException | None) -> bool:
    """Whether what could not be read as a document was the object itself; botocore makes a status 500 of most of those answers."""
    if isinstance(cause, ClientError):
        return "etag" in cause.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return isinstance(cause, ResponseParserError)


def _no_tags() -> Unsupported:
    return Unsupported("The store keeps no tags of objects.")


async def presigned(client: Client, bucket: str, key: Key, *, version_id: str = "") -> str | None:
    """A URL by which anybody may read the object for `PRESIGNED_S`; None for who has no credentials. Sends nothing."""
    if client.credentials is None:
        return None
    owner = {name: value for name, value in client.going_with("get_object").items() if name == "RequestPayer"}
    parameters = {"Bucket": bucket, "Key": key, **owner, **given(VersionId=version_id)}
    url: str = await client.client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=PRESIGNED_S)
    return url


def refused(name: str, value: str, error: StoreError) -> UsageError:
    """What a plain refusal of *value* means to who wanted to set it."""
    return UsageError(f"The store takes no {name} {value!r}: {error}")
